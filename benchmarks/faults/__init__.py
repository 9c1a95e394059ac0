"""Fault runs with counts: `python -m benchmarks.faults all`, or one part by its name."""

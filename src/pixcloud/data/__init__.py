"""Stages 1 to 3: files to samples to augmented views. Reading needs no torch."""

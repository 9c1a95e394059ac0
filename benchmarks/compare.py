"""Runs the cases of a benchmark: ways in turns, ratios, floor, peak memory -> a report."""

from __future__ import annotations

from typing import Any

from benchmarks.case import Case
from benchmarks.floor import measured_rates
from benchmarks.machine import machine
from benchmarks.memory import in_fresh_process
from benchmarks.timing import in_turns, ratio, spread


def compare(
    benchmark: str, cases: list[Case], rounds: int, *, small: bool = False, memory: bool = True
) -> dict[str, Any]:
    """Measure every case; the report holds plain numbers, for JSON."""
    rates = measured_rates()
    results = {
        case.name: _measure(benchmark, number, case, rounds, rates, small, memory)
        for number, case in enumerate(cases)
    }
    return {
        "benchmark": benchmark,
        "machine": {**machine(), **{f"{k} rate": round(v, 1) for k, v in rates.items()}},
        "results": results,
    }


def _measure(
    benchmark: str,
    number: int,
    case: Case,
    rounds: int,
    rates: dict[str, float],
    small: bool,
    memory: bool,
) -> dict[str, Any]:
    calls = {name: build(False) for name, build in case.ways.items()}
    seconds = in_turns(calls, case.rounds or rounds, warm=case.warm)
    del calls
    floor = case.cost.seconds(rates)
    result: dict[str, Any] = {
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "ratio": {
            name: ratio(seconds["textbook"], values)
            for name, values in seconds.items()
            if name != "textbook"
        },
        "goal": case.goals,
        "floor_seconds": floor,
        "times_floor": {name: spread(v)["median"] / floor for name, v in seconds.items()},
    }
    if memory:
        peaks = {way: in_fresh_process(benchmark, number, way, small=small)[0] for way in case.ways}
        result["peak_mib"] = peaks
        result["memory_share"] = {
            way: peak / peaks["textbook"] for way, peak in peaks.items() if way != "textbook"
        }
        result["memory_goal"] = case.memory_goal
    return result


def table(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows of text for the terminal."""
    rows = []
    for name, result in report["results"].items():
        for way, value in result["seconds"].items():
            peak = f", peak {result['peak_mib'][way]:.0f} MiB" if "peak_mib" in result else ""
            rows.append((f"{name}: {way}", f"{_seconds(value)}{peak}"))
        for way, value in result["ratio"].items():
            goal = result["goal"].get(way)
            rows.append(
                (
                    f"{name}: {way}, times faster",
                    f"{value['median']:.1f} ({value['min']:.1f} to {value['max']:.1f})"
                    + (f", goal {goal:g}" if goal else "")
                    + f"; floor {result['floor_seconds']:.3g} s, "
                    f"{result['times_floor'][way]:.2g} times that",
                )
            )
    return rows


def _seconds(value: dict[str, float]) -> str:
    return f"{value['median']:.3g} s ({value['min']:.3g} to {value['max']:.3g})"

"""A run of the benchmarks -> the tables and plots of docs/performance.md.

    python -m benchmarks all --out runs/benchmarks.jsonl
    python -m benchmarks.document runs/benchmarks.jsonl

Of several reports of one benchmark the last counts. Prose between the marked parts stays.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.plot import Bar, ratio_bars, scaling_lines
from benchmarks.points_scaling import slopes

ROOT = Path(__file__).resolve().parent.parent
PAGE, IMAGES = ROOT / "docs" / "performance.md", ROOT / "docs" / "images"


def read_reports(path: Path) -> dict[str, dict[str, Any]]:
    """The last report of each benchmark in a file of JSON lines."""
    lines = path.read_text(encoding="utf-8").splitlines()
    reports = [json.loads(line) for line in lines if line]
    return {report["benchmark"]: report for report in reports}


def compared(reports: dict[str, dict[str, Any]]) -> list[str]:
    """One row for each way of each case that is compared with the textbook form."""
    rows = [
        "| benchmark | setting | textbook, s | ours, s | times faster (range) | goal | floor, s "
        "| ours over floor | peak MiB, textbook | ours | share, goal |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, report in reports.items():
        if name in ("loader", "points-scaling", "loggers"):
            continue
        for case, result in report["results"].items():
            rows += [_row(name, case, result, way) for way in result["ratio"]]
    return rows


def _row(name: str, case: str, result: dict[str, Any], way: str) -> str:
    value, goal = result["ratio"][way], result["goal"].get(way)
    peaks, share = result.get("peak_mib"), result.get("memory_goal")
    cells = [
        f"`{name}`",
        case + ("" if way == "ours" else f"; {way}") + _agreement(result),
        f"{result['seconds']['textbook']['median']:.3g}",
        f"{result['seconds'][way]['median']:.3g}",
        f"**{value['median']:.1f}** ({value['min']:.1f} to {value['max']:.1f})",
        f"{goal:g}" if goal else "",
        f"{result['floor_seconds']:.2g}",
        f"{result['times_floor'][way]:.2g}",
        f"{peaks['textbook']:,.0f}" if peaks else "",
        f"{peaks[way]:,.0f}" if peaks else "",
        (f"1/{peaks['textbook'] / max(peaks[way], 1):.1f}" if peaks else "")
        + (f", 1/{1 / share:.0f}" if share else ""),
    ]
    return "| " + " | ".join(cells) + " |"


def _agreement(result: dict[str, Any]) -> str:
    """Whether both ways predict the same, where that was compared."""
    if "same_predictions" not in result:
        return ""
    return "; same predictions" if result["same_predictions"] else "; OTHER PREDICTIONS"


def scaling(report: dict[str, Any]) -> list[str]:
    """Rows of time and memory against points."""
    rows = [
        "| points | ours, s | ours, MiB | textbook, s | textbook, MiB |",
        "|---|---|---|---|---|",
    ]
    for size, result in report["results"].items():
        cells = [f"{int(size):,}"]
        for way in ("ours", "textbook"):
            value = result.get(way)
            cells += [f"{value['seconds']:.3g}", f"{value['peak_mib']:,.0f}"] if value else ["", ""]
        rows.append("| " + " | ".join(cells) + " |")
    every, larger = slopes(report["results"])
    words = (
        f"Memory grows as points to the power of {every:.2f}, and of {larger:.2f} over the larger "
        "half of the sizes."
    )
    return [*rows, "", words]


def loading(report: dict[str, Any]) -> list[str]:
    """Rows of the loader's rates."""
    rows = ["| recipe | what | median (range) |", "|---|---|---|"]
    for name, result in report["results"].items():
        for what, rate in result["pairs_per_s"].items():
            rows.append(f"| {name}, batch {result['batch']} | {what} | {_range(rate)} pairs/s |")
        for what, value in result.items():
            if " over " in what:
                rows.append(f"| {name} | {what} | {_range(value)} times |")
            elif what.startswith("waiting"):
                share = {key: 100 * number for key, number in value.items()}
                rows.append(f"| {name} | {what} | {_range(share)} % |")
    return rows


def _range(value: dict[str, float]) -> str:
    return f"{value['median']:,.1f} ({value['min']:,.1f} to {value['max']:,.1f})"


def machines(reports: dict[str, dict[str, Any]]) -> list[str]:
    """What each benchmark ran on, for rates differ from minute to minute on a shared machine."""
    rows = ["| benchmark | machine, rates in GFLOP/s and GB/s |", "|---|---|"]
    for name, report in reports.items():
        words = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
        rows.append(f"| `{name}` | {words} |")
    return rows


def bars_of(reports: dict[str, dict[str, Any]]) -> list[Bar]:
    """Name, ratio, goal and bound of every comparison, for the plot."""
    bars: list[Bar] = []
    for name, report in reports.items():
        if name in ("loader", "points-scaling", "loggers"):
            continue
        for case, result in report["results"].items():
            for way, value in result["ratio"].items():
                detail = {"knn": case.split(", ")[-2], "edgeconv": case.split(", ")[-2]}.get(name)
                words = [name, *([detail] if detail else []), *([way] if way != "ours" else [])]
                bound = result["seconds"]["textbook"]["median"] / result["floor_seconds"]
                label = ", ".join(words).replace(", ours, ", ", ")
                bars.append((label, value["median"], result["goal"].get(way), bound))
    return bars


def fill(page: str, name: str, rows: Sequence[str]) -> str:
    """The page with the part between two marks replaced.

    Raises:
        ValueError: if the page lacks the marks.
    """
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"{PAGE.name} has no part marked '{name}'")
    return pattern.sub(lambda found: found[1] + "\n".join(rows) + "\n" + found[2], page)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.document",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("reports", type=Path, help="file of JSON lines")
    reports = read_reports(parser.parse_args().reports)
    parts = {"comparisons": compared(reports), "machines": machines(reports)}
    IMAGES.mkdir(parents=True, exist_ok=True)
    (IMAGES / "performance-ratios.svg").write_text(ratio_bars(bars_of(reports)), encoding="utf-8")
    if "points-scaling" in reports:
        parts["scaling"] = scaling(reports["points-scaling"])
        picture = scaling_lines(reports["points-scaling"]["results"])
        (IMAGES / "performance-scaling.svg").write_text(picture, encoding="utf-8")
    if "loader" in reports:
        parts["loader"] = loading(reports["loader"])
    page = PAGE.read_text(encoding="utf-8")
    for name, rows in parts.items():
        page = fill(page, name, rows)
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

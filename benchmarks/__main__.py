"""`python -m benchmarks NAME [--json] [--rounds N] [--out FILE]`; "all" runs every one.

"probe-full" is the linear probe at the published size and takes a quarter of an hour or more;
"loggers" measures beside a run that trains on; "processes" starts several; "store" fills one with a
million vectors.
All others together take some minutes, and `all` leaves these four out.
`--out` adds each report to a file of JSON lines, from which `python -m benchmarks.document FILE`
writes the tables and plots of docs/performance.md.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import compare
from benchmarks.memory import module_of

NAMES = (
    "knn",
    "edgeconv",
    "dgcnn-train",
    "dgcnn-embed",
    "dgcnn-seg-train",
    "pretrain-step",
    "points-scaling",
    "probe",
    "loader",
)


def report_of(name: str, rounds: int | None, small: bool) -> tuple[dict[str, Any], Any]:
    """The report of one benchmark, and what makes a table of it."""
    module = importlib.import_module(module_of(name.removesuffix("-full")))
    if not hasattr(module, "run"):
        # A process for each way takes seconds to start; one benchmark shows that it works.
        memory = not small or name == "dgcnn-train"
        report = compare.compare(name, module.cases(small), rounds or 5, small=small, memory=memory)
        return report, compare.table
    options: dict[str, Any] = {"full": True} if name.endswith("-full") else {}
    if rounds:
        options["rounds"] = rounds
    return module.run(small=small, **options), module.table


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    apart = ("probe-full", "loggers", "processes", "store", "all")
    parser.add_argument("name", choices=[*NAMES, *apart])
    parser.add_argument("--json", action="store_true", help="one JSON object per benchmark")
    parser.add_argument("--rounds", type=int, help="rounds in turns; each benchmark knows its own")
    parser.add_argument("--small", action="store_true", help="tiny sizes: does it run at all")
    parser.add_argument("--out", type=Path, help="file of JSON lines to add the reports to")
    arguments = parser.parse_args()
    for name in NAMES if arguments.name == "all" else (arguments.name,):
        report, table = report_of(name, arguments.rounds, arguments.small)
        if arguments.out:
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            with arguments.out.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(report) + "\n")
        if arguments.json:
            print(json.dumps(report), flush=True)
            continue
        machine = ", ".join(f"{k} {v}" for k, v in report["machine"].items())
        print(f"{name} on {machine}; median (range) of rounds in turns")
        for what, value in table(report):
            print(f"  {what:<72} {value}")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())

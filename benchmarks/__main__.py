"""`python -m benchmarks NAME [--json] [--rounds N]`; "all" runs every one."""

from __future__ import annotations

import argparse
import importlib
import json
import sys

NAMES = ("loader",)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=[*NAMES, "all"])
    parser.add_argument("--json", action="store_true", help="one JSON object per benchmark")
    parser.add_argument("--rounds", type=int, default=5, help="rounds in turns")
    arguments = parser.parse_args()
    for name in NAMES if arguments.name == "all" else (arguments.name,):
        module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
        report = module.run(rounds=arguments.rounds)
        if arguments.json:
            print(json.dumps(report))
            continue
        machine = ", ".join(f"{k} {v}" for k, v in report["machine"].items())
        print(f"{name} on {machine}; median (range) of {arguments.rounds} rounds in turns")
        for what, value in module.table(report):
            print(f"  {what:<60} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

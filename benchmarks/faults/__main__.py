"""`python -m benchmarks.faults PART`: faults on purpose, counted; "all" runs every part.

saves: SIGKILLs during a save. full-disks: runs on disks that fill up (small tmpfs; needs the right
to mount). damage: truncated and bit-flipped checkpoints. kills: SIGKILLs of workers and launchers
of launched runs. loggers: servers for logging that hang, refuse or die. index: SIGKILLs while
vectors are added to a store.

One line per fault as it happens, a table of counts at the end; exit code 1 if anything was violated
or a fault did not fire. What happens when is a function of `--seed`.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.faults.fault import Outcome, Setting, line, table

# Part: faults of a full run, of a quick trial.
COUNTS = {
    "saves": (200, 10),
    "full-disks": (10, 2),
    "damage": (10, 2),
    "kills": (50, 3),
    "loggers": (6, 3),
    "index": (20, 2),
}


def counts_of(arguments: argparse.Namespace) -> dict[str, int]:
    """How many faults of each part that was asked for.

    Raises:
        SystemExit: for a count that is none.
    """
    parts = list(COUNTS) if arguments.part == "all" else [arguments.part]
    counts = {part: COUNTS[part][arguments.small] for part in parts}
    for word in arguments.counts:
        part, _, number = word.partition("=")
        if part not in COUNTS or not number.isdigit():
            raise SystemExit(f"--counts {word}: expected PART=NUMBER, such as saves=20")
        if part in counts:
            counts[part] = int(number)
    return counts


def run_part(outcome: Outcome, setting: Setting, as_json: bool) -> None:
    """Run one part, with a line for each of its faults."""
    module = importlib.import_module(f"benchmarks.faults.{outcome.part.replace('-', '_')}")
    start = time.monotonic()
    if reason := module.impossible():
        outcome.skipped = reason
        return
    for fault in module.faults(outcome.asked, setting):
        outcome.faults.append(fault)
        print(line(outcome, fault, as_json), flush=True)
        outcome.seconds = time.monotonic() - start


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", choices=[*COUNTS, "all"])
    parser.add_argument("--small", action="store_true", help="small counts: a trial of minutes")
    parser.add_argument("--counts", nargs="+", default=[], metavar="PART=N", help="counts by part")
    parser.add_argument("--processes", type=int, default=2, help="of a launched run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object per fault and part")
    parser.add_argument("--work", type=Path, help="folder for the runs, kept; else a temporary one")
    arguments = parser.parse_args()
    # So that what was begun is ended and unmounted, as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    outcomes = [Outcome(part=part, asked=n) for part, n in counts_of(arguments).items()]
    with tempfile.TemporaryDirectory(prefix="pixcloud-faults-") as temporary:
        for outcome in outcomes:
            work = (arguments.work or Path(temporary)).absolute() / outcome.part
            if work.exists() and any(work.iterdir()):
                parser.error(f"--work: {work} is not empty; give another folder")
            work.mkdir(parents=True, exist_ok=True)
            setting = Setting(work=work, seed=arguments.seed, processes=arguments.processes)
            run_part(outcome, setting, arguments.json)
    rows = [o.as_json() for o in outcomes] if arguments.json else table(outcomes)
    print("\n".join(rows), flush=True)
    return 0 if all(outcome.good for outcome in outcomes) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

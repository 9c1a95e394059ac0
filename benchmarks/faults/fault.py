"""What fault runs report: a `Fault` each, a line as it happens, a table at the end."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Figures that say which fault it was, and have no median.
PLACES = ("pid", "step")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where and how a part works.

    work: an empty folder of its own; seed: what, when and where of every fault is a function of it;
    processes: training processes of a launched run.
    """

    work: Path
    seed: int = 0
    processes: int = 2


@dataclass(kw_only=True)
class Fault:
    """One fault, or one check at the end of a run.

    what: in words; violated: what did not hold, in words (empty: all held); counted: whether it is
    one of those that were asked for (a final check is none); values: figures of it.
    """

    what: str
    violated: list[str] = field(default_factory=list)
    counted: bool = True
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Outcome:
    """What became of one part: how many were asked for, its faults, and why it was left out."""

    part: str
    asked: int
    faults: list[Fault] = field(default_factory=list)
    skipped: str = ""
    seconds: float = 0.0

    @property
    def fired(self) -> int:
        return sum(fault.counted for fault in self.faults)

    @property
    def violated(self) -> int:
        return sum(bool(fault.violated) for fault in self.faults)

    @property
    def good(self) -> bool:
        """Every fault fired and nothing was violated; a part left out is not held against it."""
        return bool(self.skipped) or (self.violated == 0 and self.fired >= self.asked)

    def figures(self) -> dict[str, dict[str, float]]:
        """Median, least and greatest of every figure, and how many faults had one."""
        found: dict[str, list[float]] = {}
        for fault in self.faults:
            for name, value in fault.values.items():
                if isinstance(value, int | float) and name not in PLACES:
                    found.setdefault(name, []).append(value)
        return {
            name: {
                "median": statistics.median(values),
                "min": min(values),
                "max": max(values),
                "of": len(values),
            }
            for name, values in found.items()
        }

    def kinds(self) -> dict[str, int]:
        """How many counted faults there were of each kind, where they have one."""
        counts: dict[str, int] = {}
        for fault in self.faults:
            if fault.counted and "kind" in fault.values:
                kind = str(fault.values["kind"])
                counts[kind] = counts.get(kind, 0) + 1
        return dict(sorted(counts.items()))

    def as_json(self) -> str:
        return json.dumps(
            {
                "part": self.part,
                "asked": self.asked,
                "fired": self.fired,
                "violated": self.violated,
                "skipped": self.skipped,
                "seconds": round(self.seconds, 1),
                "kinds": self.kinds(),
                "figures": self.figures(),
            }
        )


def line(outcome: Outcome, fault: Fault, as_json: bool) -> str:
    """The line of the fault that was added last."""
    if as_json:
        return json.dumps(
            {
                "part": outcome.part,
                "number": outcome.fired if fault.counted else None,
                "what": fault.what,
                "violated": fault.violated,
                **fault.values,
            }
        )
    number = f"{outcome.fired}/{outcome.asked}" if fault.counted else "check"
    verdict = f"VIOLATED: {'; '.join(fault.violated)}" if fault.violated else "ok"
    return f"{outcome.part} {number}: {fault.what}: {verdict}"


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Counts of every part, and below them kinds and figures."""
    rows = [f"{'part':<12}{'asked':>7}{'fired':>7}{'violated':>10}{'seconds':>9}"]
    for outcome in outcomes:
        numbers = (outcome.asked, outcome.fired, outcome.violated)
        words = "{:>7}{:>7}{:>10}".format(*numbers) + f"{outcome.seconds:>9.0f}"
        if outcome.skipped:
            words = f"  left out: {outcome.skipped}"
        rows.append(f"{outcome.part:<12}{words}")
    for outcome in outcomes:
        if kinds := outcome.kinds():
            rows.append(f"{outcome.part}: " + ", ".join(f"{k} {n}" for k, n in kinds.items()))
        for name, value in outcome.figures().items():
            rows.append(
                f"{outcome.part}: {name.replace('_', ' ')}: median {value['median']:.4g}, "
                f"{value['min']:.4g} to {value['max']:.4g} ({value['of']} of them)"
            )
    return rows

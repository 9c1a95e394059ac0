"""Stage 9, encoders side by side: rows of several encoders -> one table with paired tests.

Before it: the rows of each encoder with their outcomes (`pixcloud.evaluate.outcomes`).
`pixcloud.evaluate.evaluation` shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pixcloud.evaluate.outcomes import Paired, compare_outcomes, read_outcomes
from pixcloud.evaluate.results import SYNTHETIC, ResultRow, table_of
from pixcloud.evaluate.tables import markdown, terminal

if TYPE_CHECKING:
    from rich.console import Group

# What some protocols report beside their main number, on the same predictions.
BASELINES = (", untrained", ", from scratch")
SECONDARY = ("class_mean_accuracy", "class_mIoU", "point_accuracy")


@dataclass(frozen=True)
class Line:
    """One number of one encoder; against: its paired test with the first one's, where there is one.

    why: what stands in the place of a test that there is none of.
    """

    protocol: str
    metric: str
    encoder: str
    value: float
    against: Paired | None
    why: str = ""


@dataclass(frozen=True)
class SideBySide:
    """lines: by protocol and metric, the encoders in the order given; first: compared against."""

    first: str
    lines: tuple[Line, ...]
    synthetic: bool

    def tables(self) -> dict[str, list[list[str]]]:
        """Title -> cells; what must not be compared, such as both ways of few-shot, is apart."""
        made = {}
        for kind in dict.fromkeys(table_of(line.protocol) for line in self.lines):
            title = "Side by side" + (f", {kind}" if kind else "")
            title += " (synthetic data)" if self.synthetic else ""
            made[title] = self._cells([x for x in self.lines if table_of(x.protocol) == kind])
        return made

    def _cells(self, lines: list[Line]) -> list[list[str]]:
        """Rows of a table, the heading first; values in per cent."""
        heading = ["protocol", "metric", "encoder", "value", f"minus {self.first}", "95 %", "p"]
        rows = [heading]
        for line in lines:
            test = ["", "", ""]
            if line.against is not None:
                low, high = line.against.ci95
                test = [
                    f"{100 * line.against.gain:+.1f}",
                    f"{100 * low:+.1f} to {100 * high:+.1f}",
                    f"{line.against.p:.2g} ({line.against.test})",
                ]
            elif line.why:
                test = ["", "", line.why]
            metric = line.metric.replace("_", " ")
            rows.append([line.protocol, metric, line.encoder, f"{100 * line.value:.1f}", *test])
        return rows

    def __rich__(self) -> Group:
        return terminal(self.tables(), ("value", f"minus {self.first}"))

    def markdown(self) -> str:
        """The same tables in Markdown."""
        return markdown(self.tables())


def side_by_side(found: Mapping[str, Sequence[ResultRow]], folder: Path) -> SideBySide:
    """Compare encoders number by number, each with the first.

    Args:
        found: encoder -> its rows, the first of them its own and those of other names baselines,
            which are left out here.
        folder: of the results file, where the rows' outcomes are.
    """
    own = {name: _own(rows) for name, rows in found.items()}
    first = next(iter(own))
    keys = list(dict.fromkeys(key for rows in own.values() for key in rows))
    lines = []
    for key in keys:
        for name, rows in own.items():
            if key in rows:
                test, why = None, ""
                if name != first:
                    test, why = _test(rows[key], own[first].get(key), folder)
                lines.append(Line(key[0], key[2], name, rows[key].value, test, why))
    datasets = [row.dataset for rows in own.values() for row in rows.values()]
    return SideBySide(first, tuple(lines), any(name.startswith(SYNTHETIC) for name in datasets))


def _own(rows: Sequence[ResultRow]) -> dict[tuple[str, str, str], ResultRow]:
    """The encoder's own rows by (protocol, dataset, metric)."""
    own: dict[tuple[str, str, str], ResultRow] = {}
    names: dict[str, str] = {}
    for row in rows:
        if row.encoder.endswith(BASELINES):
            continue
        kind = row.protocol.split()[0]  # the first row of a kind is the encoder's
        if row.encoder == names.setdefault(kind, row.encoder) and row.metric not in SECONDARY:
            own[row.protocol, row.dataset, row.metric] = row
    return own


def _test(row: ResultRow, other: ResultRow | None, folder: Path) -> tuple[Paired | None, str]:
    if other is None:
        return None, "not of the first"
    outcomes = []
    for each in (row, other):
        name = each.extra.get("outcomes")
        outcomes.append(read_outcomes(folder / name) if name else None)
    ours, theirs = outcomes
    if ours is None or theirs is None:
        return None, "outcomes not kept"
    paired = compare_outcomes(ours, theirs)
    return paired, "" if paired else "other samples"

"""Stage 9, overview: rows of every protocol of one encoder -> one table of all of them.

Before it: the rows of each protocol. `pixcloud.evaluate.evaluation` shows it below their tables;
`pixcloud.evaluate.side_by_side` stands in its place where there are several encoders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pixcloud.evaluate.results import ResultRow, synthetic_mark, table_of
from pixcloud.evaluate.tables import markdown, terminal

if TYPE_CHECKING:
    from rich.console import Group

HEADING = ("protocol", "metric", "encoder", "value", "95 % interval", "n", "seed", "dataset")
# What retrieval is to be read with; no other protocol has it.
CHANCE = "chance"


@dataclass(frozen=True)
class Overview:
    """rows: of all protocols, those of baselines too, in the order in which they were measured."""

    rows: Sequence[ResultRow]

    def tables(self) -> dict[str, list[list[str]]]:
        """Title -> cells; what must not be compared, such as both ways of few-shot, is apart."""
        made = {}
        for kind in dict.fromkeys(table_of(row.protocol) for row in self.rows):
            own = [row for row in self.rows if table_of(row.protocol) == kind]
            title = "All results" + (f", {kind}" if kind else "") + synthetic_mark(own)
            made[title] = _cells(own)
        return made

    def __rich__(self) -> Group:
        numbers = ("value", CHANCE, "n", "seed")
        return terminal(self.tables(), numbers, (*numbers, "95 % interval"))

    def markdown(self) -> str:
        """The same tables in Markdown."""
        return markdown(self.tables())


def _cells(rows: Sequence[ResultRow]) -> list[list[str]]:
    """Rows of a table, the heading first; values in per cent, a number's baselines below it."""
    beside = any(CHANCE in row.settings for row in rows)
    heading = [*HEADING[:5], *([CHANCE] if beside else []), *HEADING[5:]]
    places: dict[tuple[str, str], int] = {}
    for row in rows:
        places.setdefault((row.protocol, row.metric), len(places))
    cells = [heading]
    for row in sorted(rows, key=lambda each: places[each.protocol, each.metric]):
        metric = row.metric.replace("_", " ")
        interval = f"{100 * row.ci95[0]:.1f} to {100 * row.ci95[1]:.1f}" if row.ci95 else ""
        line = [row.protocol, metric, row.encoder, f"{100 * row.value:.1f}", interval]
        if beside:
            line.append(f"{100 * row.settings[CHANCE]:.2f}" if CHANCE in row.settings else "")
        cells.append([*line, f"{row.n:,}", str(row.seed), f"{row.dataset} {row.split}"])
    return cells

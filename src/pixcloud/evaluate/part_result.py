"""Stage 9, what part segmentation returns: rows, scores of each shape, tables of each rule.

Before it: `pixcloud.evaluate.part_metrics`. `pixcloud.evaluate.segment` fills it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pixcloud.evaluate.part_metrics import PartScores
from pixcloud.evaluate.results import SYNTHETIC, ResultRow, format_table

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from pixcloud.evaluate.segmenter import PointSegmenter

# How the best part of a point is taken: of its shape's category (most papers), or of all parts
# (CrossPoint). The first is what segmenters are used and chosen by.
RULES = ("parts of the category", "any part")


@dataclass(kw_only=True)
class SegmentResult:
    """rows of results; scores: (encoder, fraction, rule) -> `PartScores`; segmenters likewise.

    What a call that did not end has left has scores, and no segmenter.
    Printed, it is the tables of `segment_tables`.
    """

    rows: list[ResultRow]
    scores: dict[tuple[str, float, str], PartScores] = field(default_factory=dict)
    segmenters: dict[tuple[str, float], PointSegmenter] = field(default_factory=dict)

    def __rich__(self) -> Group:
        return segment_tables(self.rows)


def segment_tables(rows: Sequence[ResultRow], title: str = "Part segmentation") -> Group:
    """Of each rule a table of its rows and one of the categories; no table has numbers of both."""
    from rich.console import Group

    tables = []
    for rule in RULES:
        own = [row for row in rows if row.settings["rule"] == rule]
        if own:
            tables += [format_table(own, title=f"{title}, {rule}"), by_category(own, rule)]
    return Group(*tables)


def by_category(rows: Sequence[ResultRow], rule: str = RULES[0]) -> Table:
    """Mean IoU of each category by one rule, a column for each encoder and fraction."""
    from rich.table import Table

    own = [row for row in rows if row.metric == "instance_mIoU" and row.settings["rule"] == rule]
    title = f"mIoU by category, {rule}"
    if own and all(row.dataset.startswith(SYNTHETIC) for row in own):
        title += " (synthetic data)"
    table = Table(title=title)
    table.add_column("category")
    table.add_column("shapes", justify="right")
    for row in own:
        name = f"{row.encoder}, {100 * row.settings['fraction']:g} %"
        table.add_column(name, justify="right")
    for name, first in own[0].settings["categories"].items() if own else ():
        values = [f"{100 * row.settings['categories'][name]['miou']:.1f}" for row in own]
        table.add_row(name, f"{first['n']:,}", *values)
    return table

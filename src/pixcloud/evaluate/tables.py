"""Stage 9, tables of several protocols: cells of text -> the terminal, or Markdown.

Used by `pixcloud.evaluate.overview` and `side_by_side`, which fill the cells.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

# Title -> cells, the heading first. The first two cells of a row say what was measured, and stand
# once where rows below each other have the same.
Tables = Mapping[str, list[list[str]]]


def terminal(tables: Tables, right: Collection[str], whole: Collection[str] = ()) -> Group:
    """The tables for the terminal.

    Args:
        tables: see `Tables`.
        right: headings of the columns that are aligned to the right.
        whole: of those whose cells are not broken into lines.
    """
    from rich.console import Group

    return Group(*(_terminal(title, cells, right, whole) for title, cells in tables.items()))


def markdown(tables: Tables) -> str:
    """The tables as sections in Markdown.

    >>> print(markdown({"All": [["metric", "value"], ["accuracy", "50.0"]]}), end="")
    ## All
    <BLANKLINE>
    Values in per cent.
    <BLANKLINE>
    | metric | value |
    | --- | --- |
    | accuracy | 50.0 |
    """
    parts = []
    for title, cells in tables.items():
        heading, *rows = ([cell.replace("|", "\\|") for cell in row] for row in cells)
        lines = [heading, ["---"] * len(heading), *rows]
        text = "\n".join(f"| {' | '.join(row)} |" for row in lines)
        parts.append(f"## {title}\n\nValues in per cent.\n\n{text}\n")
    return "\n".join(parts)


def _terminal(
    title: str, cells: list[list[str]], right: Collection[str], whole: Collection[str]
) -> Table:
    from rich.table import Table

    heading, *rows = cells
    table = Table(title=title)
    for name in heading:
        justify: Literal["right", "left"] = "right" if name in right else "left"
        table.add_column(name, justify=justify, no_wrap=name in whole)
    shown: list[str] = []
    for row in rows:
        if again := row[:2] == shown:
            row = ["", "", *row[2:]]
        elif shown:
            table.add_section()
        shown = shown if again else row[:2]
        table.add_row(*row)
    return table

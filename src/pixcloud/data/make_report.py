"""Stages 1 and 2, the outcome of making data: what `make` did -> text for the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixcloud.data.make_lists import SKIPPED, one_line


@dataclass(frozen=True)
class MakeReport:
    """What `make_pairs` made.

    classes in label order; train and test, numbers of labelled clouds; pairs and pictures; kept,
    the pairs that an earlier run had finished; removed, the earlier shapes that are no longer in
    SOURCE; skipped, (file, reason) of each unusable mesh; ignored, the number of files that are no
    meshes; seconds of this run.
    """

    out: Path
    classes: list[str]
    train: int
    test: int
    pairs: int
    pictures: int
    kept: int
    removed: int
    skipped: list[tuple[str, str]]
    ignored: int
    seconds: float

    def __str__(self) -> str:
        lines = [
            f"{self.out}: {self.pairs} pairs with {self.pictures} pictures, {self.train} train and "
            f"{self.test} test clouds of {len(self.classes)} classes, in {self.seconds:.0f} s",
        ]
        if self.kept:
            lines.append(f"{self.kept} of the pairs were there already")
        if self.removed:
            lines.append(f"earlier shapes removed, as they are no longer in SOURCE: {self.removed}")
        if self.ignored:
            lines.append(f"{self.ignored} other files were ignored")
        if self.skipped:
            lines.append(f"{len(self.skipped)} meshes could not be used (see {SKIPPED}):")
            lines += [f"  {one_line(name)}: {reason}" for name, reason in self.skipped]
        return "\n".join(lines)

    def __rich__(self) -> Any:
        from rich.text import Text

        return Text(str(self))

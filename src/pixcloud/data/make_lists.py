"""Stages 1 and 2, the end of making data: records of clouds -> the labelled splits and the lists.

`make` calls it when all clouds are recorded and all pairs are written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pixcloud.atomic import replaced_folder, write_bytes
from pixcloud.data import make_record as memory
from pixcloud.data.mesh_folders import GIVEN_SPLITS, SourceShape
from pixcloud.data.modelnet import FOLDER, write_modelnet
from pixcloud.types import LabelledClouds

SHAPES = "shapes.jsonl"
SKIPPED = "skipped.txt"
LABELLED_MARK = "labelled.sha256"


def one_line(text: str) -> str:
    """Text without breaks of line and undecodable bytes, for a list or a terminal.

    >>> one_line("a" + chr(10) + "b")
    'a\\\\nb'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def in_order(
    shapes: Sequence[SourceShape], splits: dict[SourceShape, str], split: str
) -> list[SourceShape]:
    """The shapes of one split."""
    return [shape for shape in shapes if splits[shape] == split]


def write_labelled(
    out: Path,
    shapes: Sequence[SourceShape],
    splits: dict[SourceShape, str],
    hashes: dict[SourceShape, str],
) -> None:
    """Write both splits as one folder in one step, unless the very same are there."""
    classes = sorted({shape.category for shape in shapes})
    rows = [(splits[s], s.category, s.model, hashes[s]) for s in shapes]
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    mark = out / memory.MEMORY / LABELLED_MARK
    if mark.is_file() and mark.read_text() == digest and (out / FOLDER).is_dir():
        return
    mark.unlink(missing_ok=True)
    with replaced_folder(out / FOLDER, out / memory.MEMORY) as temporary:
        for split in GIVEN_SPLITS:
            members = in_order(shapes, splits, split)
            if not members:
                continue
            records = [memory.read_record(out, s.category, s.model) for s in members]
            clouds = LabelledClouds(
                name=out.name,
                split=split,
                points=np.stack([record.points for record in records]),
                labels=np.array([classes.index(s.category) for s in members]),
                classes=classes,
            )
            normals = np.stack([record.normals for record in records])
            write_modelnet(temporary, clouds, normals)
        for path in sorted((temporary / FOLDER).iterdir()):
            os.replace(path, temporary / path.name)
        (temporary / FOLDER).rmdir()
    write_bytes(mark, digest.encode())


def write_lists(
    out: Path,
    shapes: Sequence[SourceShape],
    splits: dict[SourceShape, str],
    paired: set[SourceShape],
    hashes: dict[SourceShape, str],
    skipped: Sequence[tuple[str, str]],
) -> None:
    """Write what became of each mesh, and what could not be used."""
    lines = []
    for split in GIVEN_SPLITS:
        for place, shape in enumerate(in_order(shapes, splits, split)):
            row = {
                "split": split,
                "cloud": place,
                "class": shape.category,
                "model": shape.model,
                "pair": shape in paired,
                "source": shape.relative,
                "sha256": hashes[shape],
            }
            lines.append(json.dumps(row))
    write_bytes(out / SHAPES, "".join(f"{line}\n" for line in lines).encode())
    if skipped:
        text = "".join(f"{one_line(name)}\t{reason}\n" for name, reason in skipped)
        write_bytes(out / SKIPPED, text.encode("utf-8"))
    else:
        (out / SKIPPED).unlink(missing_ok=True)

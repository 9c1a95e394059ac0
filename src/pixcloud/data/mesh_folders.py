"""Stage 1, folders of meshes: SOURCE -> a sorted list of shapes with class, name and split.

    SOURCE/<class>/*.obj                       no split given
    SOURCE/<class>/{train,test}/*.off          the split of ModelNet40

both at once if need be. Only names are read here; `make` reads the meshes.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pixcloud.data.mesh_files import MESH_SUFFIXES
from pixcloud.errors import DataError, some

GIVEN_SPLITS = ("train", "test")
# What cannot be part of a file's name on one system or another.
UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]')


@dataclass(frozen=True)
class SourceShape:
    """A mesh file of a user.

    path as it is on disk; relative to the source, with forward slashes; category and model as
    they will be called, safe as names of files everywhere and unique; split "train", "test", or
    "" where the folders give none.
    """

    path: Path
    relative: str
    category: str
    model: str
    split: str


@dataclass(frozen=True)
class MeshListing:
    """All shapes of a source, sorted by category and model, and the number of other files."""

    shapes: list[SourceShape]
    ignored: int


def list_meshes(source: Path) -> MeshListing:
    """Find the meshes of a source.

    Files that are no meshes, hidden ones, and meshes that lie elsewhere are counted as ignored.

    Args:
        source: Folder of class folders.

    Returns:
        Shapes whose names do not collide: m1.obj and m1.off of one class become m1_obj and
        m1_off.

    Raises:
        DataError: if there is no such folder, or no mesh where one was looked for; it says so when
            meshes lie in the source itself, outside of class folders.
    """
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; give one with <class>/*.obj|off|ply|stl|glb")
    folders, ignored = _children(source)
    safe = dict(zip(folders, unique_names([[name] for name in folders]), strict=True))
    shapes: list[SourceShape] = []
    for folder in folders:
        found, others = _class_files(source / folder)
        ignored += others
        spellings = [spelled(path.stem, path.suffix[1:].lower(), split) for path, split in found]
        models = unique_names(spellings)
        shapes += [
            SourceShape(path, path.relative_to(source).as_posix(), safe[folder], model, split)
            for (path, split), model in zip(found, models, strict=True)
        ]
    if not shapes:
        raise DataError(f"{source}: {_why_none(source, ignored)}")
    return MeshListing(sorted(shapes, key=lambda shape: (shape.category, shape.model)), ignored)


def _why_none(source: Path, ignored: int) -> str:
    """What stands in a source without meshes in class folders, and what is expected there."""
    expected = f"<class>/*{', *'.join(MESH_SUFFIXES)} or the same in <class>/{{train,test}}/"
    flat = sorted(entry.name for entry in os.scandir(source) if _is_mesh(entry))
    if not flat:
        return f"no meshes; expected {expected} ({ignored} other files are there)"
    return (
        f"meshes lie directly in it ({len(flat)}: {some(flat, limit=3)}), none in a class folder; "
        f"expected {expected}: move them into one folder per class, such as {source / 'chair'}, "
        "whose name becomes the label"
    )


def _is_mesh(entry: os.DirEntry[str]) -> bool:
    named = entry.name.lower().endswith(MESH_SUFFIXES) and not entry.name.startswith(".")
    # A link that leads nowhere is on the list: it is told with the others that cannot be used.
    return named and (entry.is_file() or (entry.is_symlink() and not entry.is_dir()))


def spelled(stem: str, suffix: str, split: str) -> list[str]:
    """The names that a model may get, the shortest first."""
    longest = f"{split}_{stem}_{suffix}" if split else f"{stem}_{suffix}"
    return [stem, f"{stem}_{suffix}", longest]


def _class_files(folder: Path) -> tuple[list[tuple[Path, str]], int]:
    """Meshes of one class with their splits, sorted by path, and the number of other files."""
    found: list[tuple[Path, str]] = []
    ignored = 0
    inner, _ = _children(folder)
    places = [(folder, ""), *((folder / name, name) for name in inner if name in GIVEN_SPLITS)]
    for place, split in places:
        for entry in sorted(os.scandir(place), key=lambda e: e.name):
            if entry.is_dir():
                continue
            if _is_mesh(entry):
                found.append((Path(entry.path), split))
            else:
                ignored += 1
    for name in inner:
        if name not in GIVEN_SPLITS:
            ignored += sum(len(files) for _, _, files in os.walk(folder / name))
    return sorted(found), ignored


def _children(folder: Path) -> tuple[list[str], int]:
    """Names of the folders in a folder, hidden ones left out, and the number of its files."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    folders = [e.name for e in entries if e.is_dir() and not e.name.startswith(".")]
    return folders, sum(entry.is_file() for entry in entries)


def safe_name(name: str) -> str:
    """A name that every file system takes and no line of a list breaks; mostly the name itself.

    >>> safe_name("chair: old"), safe_name("..")
    ('chair_ old', '_')
    """
    name = UNSAFE.sub("_", name).strip()
    stripped = name.strip(".")
    return (name.lstrip(".").rstrip(". ") or "_") if stripped != name else (name or "_")


def unique_names(spellings: Sequence[Sequence[str]]) -> list[str]:
    """For each thing the first of its spellings that no other thing has, letter case aside.

    A thing without such a spelling gets a number behind its last one.

    >>> unique_names([["a", "a_obj"], ["A", "A_off"], ["b", "b_off"]])
    ['a_obj', 'A_off', 'b']
    """
    cleaned = [[safe_name(text) for text in options] for options in spellings]
    names: list[str] = [""] * len(cleaned)
    open_places = list(range(len(cleaned)))
    taken: set[str] = set()
    for level in range(max((len(options) for options in cleaned), default=0)):
        tries = {i: cleaned[i][min(level, len(cleaned[i]) - 1)] for i in open_places}
        counts = Counter(text.casefold() for text in tries.values())
        for i, text in tries.items():
            if counts[text.casefold()] == 1 and text.casefold() not in taken:
                names[i] = text
        taken |= {names[i].casefold() for i in open_places if names[i]}
        open_places = [i for i in open_places if not names[i]]
    for i in open_places:
        number = 2
        while f"{cleaned[i][-1]}-{number}".casefold() in taken:
            number += 1
        names[i] = f"{cleaned[i][-1]}-{number}"
        taken.add(names[i].casefold())
    return names

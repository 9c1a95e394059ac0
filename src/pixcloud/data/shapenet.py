"""Stage 2, pairs on disk: a folder -> a sorted list of clouds with their pictures.

Two trees are read in place: the original CrossPoint tree (which `pixcloud data make` writes too)
and ShapeNet-55. Only names are read here; `pixcloud.data.loading` reads the files.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pixcloud.errors import DataError, some

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(kw_only=True, frozen=True)
class Pair:
    """A cloud's file and its pictures: a folder and the sorted names in it."""

    name: str
    cloud: str
    folder: str
    pictures: tuple[str, ...]


def pairs_sha256(pairs: Sequence[Pair]) -> str:
    """SHA-256 of the names of pairs and of their pictures, whatever folder they are in."""
    names = [[pair.name, *pair.pictures] for pair in pairs]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def split_pairs(pairs: Sequence[Pair], share: float) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on and pairs held out, each sorted as before.

    The pairs are ranked by a hash of their names, and the first `share` of them is held out: a
    function of the names alone, and a larger share holds out what a smaller one does.

    Args:
        pairs: with different names.
        share: of the pairs, in [0, 1); 0 holds out none, any other at least one.

    >>> pairs = [Pair(name=f"{i}", cloud="", folder="", pictures=()) for i in range(10)]
    >>> [pair.name for pair in split_pairs(pairs, 0.2)[1]]
    ['0', '8']
    """
    count = max(1, round(share * len(pairs))) if share and pairs else 0
    ranked = sorted(
        range(len(pairs)),
        key=lambda place: hashlib.sha256(f"held out {pairs[place].name}".encode()).digest(),
    )
    held = set(ranked[:count])
    return (
        [pair for place, pair in enumerate(pairs) if place not in held],
        [pair for place, pair in enumerate(pairs) if place in held],
    )


@dataclass(kw_only=True)
class PairIndex:
    """All pairs of a tree, sorted by name, and the names of what has no partner."""

    root: Path
    pairs: list[Pair]
    without_pictures: list[str]
    without_cloud: list[str]


def read_crosspoint_tree(root: Path) -> PairIndex:
    """Index `ShapeNet/<synset>/<model>.ply` and `ShapeNetRendering/<synset>/<model>/rendering/`.

    Anything else in these folders is passed over; the number of pictures may differ.

    Raises:
        DataError: if a folder is missing, or holds nothing of the kind.
    """
    clouds, renders = root / "ShapeNet", root / "ShapeNetRendering"
    _require(root, clouds, "<synset>/<model>.ply")
    _require(root, renders, "<synset>/<model>/rendering/*.png")
    found = {
        f"{synset.name}/{entry.name[:-4]}": entry.path
        for synset in _folders(clouds)
        for entry in _entries(synset.path)
        if entry.name.endswith(".ply") and not entry.name.startswith(".")
    }
    if not found:
        raise DataError(f"{clouds}: no clouds; expected <synset>/<model>.ply below it")
    folders = {
        f"{synset.name}/{model.name}": os.path.join(model.path, "rendering")
        for synset in _folders(renders)
        for model in _folders(synset.path)
    }
    return _match(root, found, {name: (path, "") for name, path in folders.items()})


def read_shapenet55(root: Path, split: str = "train") -> PairIndex:
    """Index ShapeNet-55: `shapenet_pc/<id>.npy`, `shapenet_img/<id>.png`, lists in `ShapeNet-55/`.

    Raises:
        DataError: if one of them is missing, or the list names no cloud that is there.
    """
    clouds, renders = root / "shapenet_pc", root / "shapenet_img"
    _require(root, clouds, "<synset>-<model>.npy")
    _require(root, renders, "<synset>-<model>.png")
    listing = root / "ShapeNet-55" / f"{split}.txt"
    if not listing.is_file():
        raise DataError(f"{listing}: missing; expected one <synset>-<model>.npy per line")
    lines = listing.read_text(encoding="utf-8").split()
    names = sorted({line.removesuffix(".npy") for line in lines})
    present = {entry.name[:-4] for entry in _entries(clouds) if entry.name.endswith(".npy")}
    found = {name: str(clouds / f"{name}.npy") for name in names if name in present}
    if not found:
        raise DataError(f"{clouds}: none of the {len(names)} clouds listed in {listing} is there")
    pictures = {
        name.rsplit(".", 1)[0]: name
        for name in _picture_names(str(renders))[::-1]  # the first of several wins
    }
    # Pictures of another split have their clouds, though not in this list.
    places = {
        name: (str(renders), picture)
        for name, picture in pictures.items()
        if name in found or name not in present
    }
    index = _match(root, found, places)
    listed = {name for name in names if name not in present}
    index.without_cloud = sorted(listed | set(index.without_cloud))
    return index


def _match(root: Path, found: dict[str, str], places: dict[str, tuple[str, str]]) -> PairIndex:
    """Join clouds and picture places (folder, the only name in it that counts or "")."""
    pairs, without_pictures = [], []
    for name in sorted(found):
        folder, only = places.get(name, ("", ""))
        names = (only,) if only else _picture_names(folder)
        if names:
            pair = Pair(name=name, cloud=found[name], folder=folder, pictures=names)
            pairs.append(pair)
        else:
            without_pictures.append(name)
    return PairIndex(
        root=root,
        pairs=pairs,
        without_pictures=without_pictures,
        without_cloud=sorted(set(places) - set(found)),
    )


def gaps(index: PairIndex) -> list[str]:
    """What has no partner, a line each: counted and named."""
    lines = []
    if index.without_pictures:
        names = some(index.without_pictures)
        lines.append(f"{len(index.without_pictures)} clouds without pictures are skipped ({names})")
    if index.without_cloud:
        names = some(index.without_cloud)
        lines.append(f"{len(index.without_cloud)} picture folders have no cloud ({names})")
    return lines


def complete_pairs(index: PairIndex, unpaired: str = "error") -> list[Pair]:
    """The pairs to train on.

    Args:
        index: of a tree.
        unpaired: "error" refuses clouds without pictures, "skip" leaves them out.

    Raises:
        DataError: if there are no pairs, or clouds without pictures and `unpaired` is "error".
    """
    if not index.pairs:
        raise DataError(
            f"{index.root}: no pairs; {len(index.without_pictures)} clouds have no pictures "
            f"({some(index.without_pictures)}) and {len(index.without_cloud)} picture folders no "
            "cloud: clouds and pictures must carry the same <synset>/<model>"
        )
    if index.without_pictures and unpaired == "error":
        count = len(index.without_pictures)
        raise DataError(
            f"{index.root}: {count} of {count + len(index.pairs)} clouds have no pictures "
            f"({some(index.without_pictures)}); add them, or train on the {len(index.pairs)} "
            "complete pairs with --data.unpaired skip"
        )
    return index.pairs


def _require(root: Path, folder: Path, content: str) -> None:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder that holds {folder.name}/")
    if not folder.is_dir():
        raise DataError(f"{folder}: missing; expected {folder.name}/{content} below {root}")


def _entries(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from sorted(entries, key=lambda entry: entry.name)


def _folders(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    return (entry for entry in _entries(folder) if entry.is_dir() and entry.name[0] != ".")


def _picture_names(folder: str) -> tuple[str, ...]:
    if not folder or not os.path.isdir(folder):
        return ()
    return tuple(
        sorted(
            name
            for name in os.listdir(folder)
            if name.lower().endswith(PICTURE_SUFFIXES) and not name.startswith(".")
        )
    )

"""Stages 1 and 2, the embedded data on disk: settings -> a folder of pairs, labels and parts.

Made once through the same writers as the meshes of a user, under a temporary name, and kept by
version and settings:

    ShapeNet/, ShapeNetRendering/          pairs of clouds and pictures, without labels
    modelnet40_ply_hdf5_2048/              labelled clouds, train and test
    shapenet_part_seg_hdf5_data/           the same clouds and a validation split, with parts
    synthetic.json                         version, settings, categories and their parts

No object is in two splits. Pairs and labelled clouds stand at an arbitrary heading about the y
axis, as scans do.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pixcloud.atomic import write_bytes
from pixcloud.data.jobs import run_jobs
from pixcloud.data.modelnet import write_modelnet
from pixcloud.data.pair_writer import clear_scratch, sample_cloud, write_pair
from pixcloud.data.shapenetpart import write_shapenetpart
from pixcloud.data.synthetic.catalog import CATEGORIES, at_heading, build_object, object_rng
from pixcloud.errors import DataError
from pixcloud.types import LabelledClouds, Mesh

# Goes up whenever the same settings would give other bytes; it is part of the folder's name.
VERSION = 2
MARK = "synthetic.json"
UNFINISHED = ".making-"
# First index of the objects of each split in `build_object`; the splits never meet.
FIRST_INDEX = {"pairs": 0, "train": 1_000_000, "test": 2_000_000, "val": 3_000_000}
_HEADING = 7


@dataclass(kw_only=True, frozen=True)
class SyntheticSettings:
    """How many objects the embedded data has, per category.

    Args:
        seed: of all objects.
        pairs: objects with pictures, for pre-training.
        views: pictures of each.
        size: side of the pictures in pixels.
        train: labelled clouds to train on.
        val: clouds with part labels to choose by.
        test: labelled clouds to test on.
        points: points per cloud.
        categories: how many of the categories are used, from the first.
    """

    seed: int = 0
    pairs: int = 48
    views: int = 3
    size: int = 137
    train: int = 20
    val: int = 5
    test: int = 40
    points: int = 2048
    categories: int = len(CATEGORIES)

    def __post_init__(self) -> None:
        lowest = {"seed": 0, "categories": 2, "val": 0}
        for name, value in asdict(self).items():
            if value < lowest.get(name, 1):
                raise DataError(f"{name} = {value}: at least {lowest.get(name, 1)} is needed")
        if self.categories > len(CATEGORIES):
            raise DataError(f"categories = {self.categories}: there are {len(CATEGORIES)}")

    @property
    def names(self) -> list[str]:
        """The categories in label order."""
        return list(CATEGORIES)[: self.categories]


@dataclass(frozen=True)
class _Job:
    root: str
    split: str
    label: int
    number: int
    settings: SyntheticSettings


def default_folder() -> Path:
    """Where data sets that are made once are kept: $PIXCLOUD_CACHE or ~/.cache/pixcloud."""
    return Path(os.environ.get("PIXCLOUD_CACHE") or "~/.cache/pixcloud").expanduser()


def ensure_synthetic(
    root: Path | None = None, *, settings: SyntheticSettings | None = None, workers: int = 0
) -> Path:
    """The folder of the embedded data; it is made on first use, in about a minute on two cores.

    Args:
        root: folder to keep it in; None is `default_folder()`.
        settings: numbers of objects; they are part of the folder's name.
        workers: processes; 0 takes all cores.

    Returns:
        A folder that every reader of the package understands.

    Raises:
        DataError: if it cannot be written.

    Example:
        >>> folder = ensure_synthetic()  # doctest: +SKIP
    """
    usual = settings is None
    settings = settings or SyntheticSettings()
    root = root or default_folder()
    digest = hashlib.sha256(json.dumps(asdict(settings)).encode()).hexdigest()[:10]
    final = root / f"synthetic-v{VERSION}-{digest}"
    if (final / MARK).is_file():
        return final
    try:
        root.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(root)
        temporary = root / f"{UNFINISHED}{os.getpid()}-{final.name}"
        temporary.mkdir()
        if usual:
            print(f"making the embedded data, once, in {final}: about a minute", file=sys.stderr)
        try:
            _make(temporary, settings, workers)
            _move(temporary, final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"{root}: the embedded data cannot be written there ({error.strerror or error}); make "
            "room, or set PIXCLOUD_CACHE to another folder"
        ) from error
    return final


def _move(temporary: Path, final: Path) -> None:
    try:
        os.replace(temporary, final)
    except OSError:
        # Another process was faster; equal settings give equal bytes, so that its data serve.
        if not (final / MARK).is_file():
            raise


def _remove_unfinished(root: Path) -> None:
    """Remove what killed makers left; those whose process lives are at work."""
    for folder in root.glob(f"{UNFINISHED}*"):
        try:
            os.kill(int(folder.name[len(UNFINISHED) :].split("-")[0]), 0)
        except (ProcessLookupError, ValueError):
            shutil.rmtree(folder, ignore_errors=True)
        except PermissionError:  # it lives, under another user
            continue


def _make(root: Path, settings: SyntheticSettings, workers: int) -> None:
    jobs = [
        _Job(str(root), split, label, number, settings)
        for split in ("train", "val", "test", "pairs")
        for label in range(settings.categories)
        for number in range(getattr(settings, split))
    ]
    done = run_jobs(_work, jobs, workers=workers, label="embedded data", strict=True).results
    part_names = {name: list(CATEGORIES[name].parts) for name in settings.names}
    for split in ("train", "val", "test"):
        places = [place for place, job in enumerate(jobs) if job.split == split]
        if not places:
            continue
        found = [done[place] for place in places]
        clouds = LabelledClouds(
            name="synthetic",
            split=split,
            points=np.stack([cloud for cloud, _ in found]),
            labels=np.array([jobs[place].label for place in places]),
            classes=settings.names,
            parts=np.stack([parts for _, parts in found]),
        )
        write_shapenetpart(root, clouds, part_names)
        if split != "val":
            write_modelnet(root, clouds)
    clear_scratch(root)
    mark = {"version": VERSION, "settings": asdict(settings), "categories": part_names}
    write_bytes(root / MARK, (json.dumps(mark, indent=1) + "\n").encode(), durable=True)


def build_placed(settings: SyntheticSettings, split: str, category: str, number: int) -> Mesh:
    """The object of a split at its heading, a function of the arguments alone."""
    index = FIRST_INDEX[split] + number
    heading = object_rng(settings.seed, category, index, _HEADING).uniform(0, 360)
    return at_heading(build_object(category, settings.seed, index), heading)


def _work(job: _Job) -> tuple[np.ndarray, np.ndarray]:
    """Write a pair, or return a labelled cloud (N, 3) with its parts (N,) numbered through."""
    settings = job.settings
    category, model = settings.names[job.label], f"{job.split}{job.number:04d}"
    mesh = build_placed(settings, job.split, category, job.number)
    if job.split == "pairs":
        write_pair(
            Path(job.root),
            category,
            model,
            mesh,
            points=settings.points,
            views=settings.views,
            size=settings.size,
            seed=settings.seed,
        )
        return np.empty((0, 3)), np.empty(0)
    cloud, _, faces = sample_cloud(mesh, settings.points, settings.seed, category, model)
    assert mesh.face_parts is not None
    first = sum(len(CATEGORIES[name].parts) for name in settings.names[: job.label])
    return cloud, mesh.face_parts[faces] + first

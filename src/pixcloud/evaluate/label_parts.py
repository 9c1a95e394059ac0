"""Stage 9, `pixcloud parts`: a saved segmenter and shapes of a user -> PLY files with parts.

Before it: `pixcloud.evaluate.segmenter`, and the readers of stage 1 (`pixcloud.data.shapes`).
After it: nothing; files and a summary go to the user.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pixcloud.data.files import read_cloud, read_mesh
from pixcloud.data.pair_writer import named_generator
from pixcloud.data.part_files import (
    write_labelled_cloud,
    write_labelled_mesh,
    written_category,
)
from pixcloud.data.part_list import PART_LIST, extended, read_part_list, write_part_list
from pixcloud.data.shapes import is_mesh, list_shapes, turned
from pixcloud.data.surface import surface_points, unit_mesh
from pixcloud.errors import ConfigError, DataError, nearest, some

if TYPE_CHECKING:
    from rich.table import Table

_PASSES = 4  # clouds of num_points that a mesh is sampled with
_NEAR = 3  # sampled points that vote for a face


@dataclass(kw_only=True)
class LabelledShapes:
    """files written -> share of the surface or points of each part; refused: file -> why not.

    part_labels: the number of each part in the files. Printed, it is a table of the parts.
    """

    category: str
    part_names: list[str]
    part_labels: list[int]
    shares: dict[str, np.ndarray] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def __rich__(self) -> Table:
        from rich.table import Table

        table = Table(title=f"{len(self.shares):,} shapes of {self.category}, their parts")
        for name in ("label", "part", "shapes that have it", "mean share"):
            table.add_column(name)
        shares = np.array(list(self.shares.values())).reshape(-1, len(self.part_names))
        for place, (label, name) in enumerate(zip(self.part_labels, self.part_names, strict=True)):
            own = shares[:, place]
            mean = f"{100 * own.mean():.1f} %" if len(own) else ""
            table.add_row(str(label), name, f"{int((own > 0).sum()):,}", mean)
        if self.refused:
            table.caption = f"{len(self.refused):,} files were left out: {some(self.refused)}"
        return table


def parts(
    segmenter: str,
    shapes: str,
    out: str = "parts",
    category: str = "",
    up: Literal["y", "z"] = "y",
    seed: int = 0,
    strict: bool = False,
) -> LabelledShapes:
    """Tell the parts of clouds and meshes by a trained segmenter.

    Each shape becomes a PLY file with colours and a property `label`: the number that its part had
    in the files that the segmenter learned from (of ShapeNetPart, counted from 0 within the
    category). `parts.json` beside them has the names, so that the folder, corrected, can be learned
    from with the same meaning. Of a cloud every point gets a label, however many there are: random
    parts of the cloud, of as many points as in training, are labelled in turn. A mesh keeps its
    faces; each takes the label of most of the three nearest of points sampled on the surface.

    Args:
        segmenter: folder that pixcloud segment --save wrote.
        shapes: a cloud or mesh, or a folder whose files are found at any depth.
        out: folder for the PLY files, which lie in it as the shapes do in theirs.
        category: what kind of shapes they are; may be left out where the segmenter knows one kind.
        up: the axis of the shapes that points up; training has y up. Files keep their axes.
        seed: of the points that are drawn.
        strict: stop at the first file that cannot be read; otherwise such files are left out and
            named.

    Returns:
        The share of each part, by file.

    Raises:
        DataError: if there is no shape, or none that can be read.
        ConfigError: for a missing or unknown category, or if `out` is a file, holds the shapes, or
            has labelled shapes whose labels have other names, or are of another category.
        WeightsError: if the segmenter is missing or damaged.

    Example:
        >>> parts("segmenters/cups", "scans", category="mug")  # doctest: +SKIP
    """
    root, target = Path(shapes).expanduser(), Path(out).expanduser()
    paths = list_shapes(root)
    _check_out(root, target)
    from pixcloud.evaluate.segmenter import load_segmenter  # torch, once there is work for it

    model = load_segmenter(segmenter)
    kind = _known_category(model.part_names, category)
    names, numbers = model.part_names[kind], model.part_labels[kind]
    listed = extended(target / PART_LIST, kind, dict(zip(numbers, names, strict=True)))
    result = LabelledShapes(category=kind, part_names=names, part_labels=numbers)
    places = {
        path: path.relative_to(root).as_posix() if path != root else path.name for path in paths
    }
    _check_category(target, kind, list(places.values()))
    for path, name in places.items():
        try:
            labels = _label_file(model, kind, path, name, target / f"{name}.ply", up, seed)
            if not result.shares:
                write_part_list(target / PART_LIST, listed)
            counts = np.bincount(labels, minlength=len(names))
            result.shares[f"{name}.ply"] = counts / counts.sum()
        except DataError as error:
            if strict:
                raise
            result.refused[name] = str(error)
    if not result.shares:
        first = next(iter(result.refused.values()))
        raise DataError(f"{root}: none of {len(paths)} files can be labelled; the first: {first}")
    for reason in result.refused.values():
        print(f"left out: {reason}", file=sys.stderr)
    return result


def _check_out(root: Path, target: Path) -> None:
    if target.is_file():
        raise ConfigError(f"out = {target}: is a file; give a folder")
    if root.is_dir() and target.absolute().is_relative_to(root.absolute()):
        raise ConfigError(
            f"out = {target}: lies within {root}, whose shapes are read; give another folder"
        )


def _check_category(target: Path, kind: str, names: list[str]) -> None:
    """Refuse to overwrite labels of another category, whose numbers mean other parts."""
    listed = sorted(read_part_list(target / PART_LIST))
    foreign = listed if kind not in listed else []  # of files that do not say what they are
    taken = {}
    for name in names:
        path = target / f"{name}.ply"
        if path.exists():
            own = written_category(path)
            others = [own] if own not in ("", kind) else foreign
            if others:
                taken[path.relative_to(target).as_posix()] = others
    if taken:
        kinds = sorted({other for others in taken.values() for other in others})
        raise ConfigError(
            f"out = {target}: holds shapes labelled as {some(kinds)}, and {len(taken)} of them "
            f"would be overwritten by labels of {kind}, {next(iter(taken))} first; give another "
            "folder"
        )


def _known_category(part_names: dict[str, list[str]], category: str) -> str:
    if not category and len(part_names) == 1:
        return next(iter(part_names))
    if category not in part_names:
        words = f"unknown category '{category}'" if category else "category is missing"
        hint = nearest(category, part_names) if category else f"one of {', '.join(part_names)}"
        raise ConfigError(f"{words}: {hint}")
    return category


def _label_file(
    model: Any,  # a PointSegmenter; its name here would bring torch into the help
    kind: str,
    path: Path,
    name: str,
    target: Path,
    up: str,
    seed: int,
) -> np.ndarray:
    """Write the labelled shape; returns the part of each point, or point of the surface, from 0."""
    rng, numbers = named_generator(seed, "label parts", name), np.array(model.part_labels[kind])
    if not is_mesh(path):
        cloud = read_cloud(path).points
        labels = _labels_of_cloud(model, kind, cloud, up, rng)
        write_labelled_cloud(target, cloud, numbers[labels], kind)
        return labels
    mesh = read_mesh(path)
    try:
        unit = unit_mesh(mesh)
        points = surface_points(unit, _PASSES * model.num_points, rng)[0]
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    labels = _labels_of_cloud(model, kind, points, up, rng)
    middles = unit.vertices[unit.faces].mean(axis=1)
    write_labelled_mesh(target, mesh, numbers[_nearest_labels(points, labels, middles)], kind)
    return labels


def _labels_of_cloud(
    model: Any, kind: str, cloud: np.ndarray, up: str, rng: np.random.Generator
) -> np.ndarray:
    """Parts (N,) from 0 within the category: random parts of the cloud, each point in one."""
    from pixcloud.data.shapenetpart import part_offsets

    count, label = model.num_points, list(model.part_names).index(kind)
    points = turned(cloud) if up == "z" else cloud
    order = rng.permutation(len(points))
    # The last part is filled up with points that have a label already, or again with its own.
    order = np.concatenate([order, np.resize(order, -len(order) % count)])
    chosen = order.reshape(-1, count)
    found = model.predict(points[chosen], [label] * len(chosen))
    labels = np.empty(len(points), np.int64)
    # Backwards, so that what fills up the last part is overwritten.
    labels[order[::-1]] = found.reshape(-1)[::-1]
    return labels - part_offsets(model.part_names)[label]


def _nearest_labels(points: np.ndarray, labels: np.ndarray, places: np.ndarray) -> np.ndarray:
    """For each place (F, 3) the label of most of the nearest points; the nearest where they tie."""
    from scipy.spatial import cKDTree

    near = labels[cKDTree(points).query(places, k=_NEAR)[1]]
    second_and_third_agree = near[:, 1] == near[:, 2]
    return np.where(second_and_third_agree, near[:, 1], near[:, 0])

"""Stages 1 and 2, making data: a folder of meshes -> pairs and labelled clouds.

    OUT/ShapeNet/, OUT/ShapeNetRendering/   pairs, as `pair_writer` writes them
    OUT/modelnet40_ply_hdf5_2048/           every shape as a labelled cloud, train and test
    OUT/shapes.jsonl                        what became of each mesh, in the order of the clouds
    OUT/skipped.txt                         meshes that could not be used, with the reason
    OUT/make.json, OUT/.make/               settings and memory, for going on after a stop

Every byte is a function of the meshes, the settings and the seed: not of the number of workers, nor
of how often the work was stopped.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pixcloud.data import make_record as memory
from pixcloud.data.make_jobs import (
    MakeSettings,
    ShapeJob,
    render_shape,
    sample_shape,
    source_file,
)
from pixcloud.data.make_lists import one_line, write_labelled, write_lists
from pixcloud.data.make_report import MakeReport
from pixcloud.data.mesh_folders import GIVEN_SPLITS, MeshListing, SourceShape, list_meshes
from pixcloud.errors import DataError, some

if TYPE_CHECKING:
    from pixcloud.data.jobs import JobFailure


def make_pairs(
    source: Path,
    out: Path,
    *,
    views: int = 24,
    size: int = 137,
    points: int = 2048,
    up: Literal["y", "z"] = "y",
    test_share: float = 0.2,
    pairs: Literal["train", "all"] = "train",
    seed: int = 0,
    workers: int = 0,
    strict: bool = False,
) -> MakeReport:
    """Make pairs of clouds and pictures, and labelled clouds, out of a folder of meshes.

    Meshes are OFF, OBJ, PLY, STL or GLB in class folders, <class>/* or <class>/{train,test}/*.
    Where the folders give no split, each class is split at random: round(test_share * n) of its
    n usable meshes are test shapes, and one at least stays in train. A run that was stopped goes
    on where it was when it is started again; after a change in SOURCE, only what changed is made
    again, and what is no longer in SOURCE is removed.

    Args:
        source: folder of the meshes.
        out: folder to make; new, empty, or made before from this source with the same settings.
        views: pictures of each shape.
        size: side of the pictures in pixels.
        points: points of each cloud.
        up: the axis of the meshes that points up; clouds and pictures have y up.
        test_share: share of each class that becomes the test split.
        pairs: shapes with pictures: the train split, so that pre-training sees no test shape, or
            all.
        seed: of the split, the surface points and the cameras.
        workers: processes; 0 takes all cores.
        strict: stop at the first mesh that cannot be used, instead of listing it.

    Returns:
        What was made and what could not be.

    Raises:
        DataError: if there is no usable mesh, OUT holds something else, was made with other
            settings or shares no shape with SOURCE, it cannot be written, or a setting is out of
            range.
        FileFormatError: if `strict` and a mesh cannot be read.

    Example:
        >>> report = make_pairs(Path("meshes"), Path("data"))  # doctest: +SKIP
        >>> print(report)  # doctest: +SKIP
        data: 96 pairs with 2304 pictures, 96 train and 24 test clouds of 6 classes, in 41 s
    """
    start = time.monotonic()
    settings = MakeSettings(views, size, points, up, float(test_share), pairs, seed)
    source, out = Path(source).expanduser(), Path(out).expanduser()
    _check_apart(source, out)
    listing = list_meshes(source)
    try:
        memory.check_output(out, vars(settings))  # before the lock is made in a stranger's folder
        with memory.alone_in(out):
            memory.claim_output(out, vars(settings))
            _check_same_source(source, out, listing.shapes)
            return _make(listing, out, settings, workers, strict, start)
    except OSError as problem:
        # What can go wrong in reading a mesh is told apart already.
        reason = problem.strerror or str(problem)
        raise DataError(f"{problem.filename or out}: cannot be written: {reason}") from problem


def _check_apart(source: Path, out: Path) -> None:
    inside = out.resolve().is_relative_to(source.resolve())
    if inside or source.resolve().is_relative_to(out.resolve()):
        raise DataError(f"{out}: OUT and SOURCE ({source}) must not lie within each other")


def _check_same_source(source: Path, out: Path, shapes: Sequence[SourceShape]) -> None:
    """Refuse an OUT of other shapes, all of which would have to go."""
    recorded = memory.recorded_models(out)
    if recorded and _names(shapes).isdisjoint(recorded):
        first = some(["/".join(names) for names in recorded], limit=3)
        raise DataError(
            f"{out}: made from another SOURCE before: of its {len(recorded)} shapes ({first}) none "
            f"is among the {len(shapes)} of {source}; give another OUT, or remove this one first"
        )


def _names(shapes: Sequence[SourceShape]) -> set[tuple[str, str]]:
    return {(shape.category, shape.model) for shape in shapes}


def _make(
    listing: MeshListing,
    out: Path,
    settings: MakeSettings,
    workers: int,
    strict: bool,
    start: float,
) -> MakeReport:
    from pixcloud.data.jobs import run_jobs
    from pixcloud.data.pair_writer import clear_scratch, is_written

    clear_scratch(out)
    memory.tidy(out)
    jobs = [ShapeJob(shape, out, settings) for shape in listing.shapes]
    removed = _forget_all_but(out, listing.shapes)
    first = run_jobs(
        sample_shape,
        jobs,
        workers=workers,
        label="surface points",
        strict=strict,
        describe=source_file,
    )
    skipped = _skipped(listing.shapes, first.failures)
    usable = [listing.shapes[index] for index in sorted(first.results)]
    hashes = {listing.shapes[index]: sha256 for index, sha256 in first.results.items()}
    if not usable:
        raise DataError(_nothing_usable(skipped))
    splits = split_shapes(usable, settings.test_share, settings.seed)
    paired = [s for s in usable if settings.pairs == "all" or splits[s] == "train"]
    _remove_pairs_but(out, usable, set(paired))
    todo = [s for s in paired if not is_written(out, s.category, s.model)]
    second = run_jobs(
        render_shape,
        [ShapeJob(shape, out, settings) for shape in todo],
        workers=workers,
        label="pictures",
        strict=strict,
        describe=source_file,
    )
    skipped = sorted(skipped + _skipped(todo, second.failures))
    without_pictures = {todo[failure.index] for failure in second.failures}
    write_labelled(out, usable, splits, hashes)
    write_lists(out, usable, splits, set(paired) - without_pictures, hashes, skipped)
    clear_scratch(out)
    memory.tidy(out)
    numbers = Counter(splits.values())
    finished = len(paired) - len(without_pictures)
    return MakeReport(
        out=out,
        classes=sorted({shape.category for shape in usable}),
        train=numbers["train"],
        test=numbers["test"],
        pairs=finished,
        pictures=finished * settings.views,
        kept=len(paired) - len(todo),
        removed=removed,
        skipped=skipped,
        ignored=listing.ignored,
        seconds=time.monotonic() - start,
    )


def _skipped(
    shapes: Sequence[SourceShape], failures: Sequence[JobFailure]
) -> list[tuple[str, str]]:
    """(file, reason) of failures, the file's path taken out of the reason."""
    return [
        (
            shapes[failure.index].relative,
            one_line(failure.reason.removeprefix(f"{shapes[failure.index].path}: ")),
        )
        for failure in failures
    ]


def _nothing_usable(skipped: Sequence[tuple[str, str]]) -> str:
    return f"none of the {len(skipped)} meshes can be used: " + some(
        [f"{one_line(name)}: {reason}" for name, reason in skipped], limit=3
    )


def split_shapes(
    shapes: Sequence[SourceShape], test_share: float, seed: int
) -> dict[SourceShape, str]:
    """Train or test for each shape, class by class; folders that say so are believed.

    Shapes are ranked by a hash of seed and name, so that one shape more or fewer moves at most
    one other across. Of n without a given split, round(test_share * n) are test shapes, and one
    at least stays in train.
    """
    splits: dict[SourceShape, str] = {}
    for category in sorted({shape.category for shape in shapes}):
        members = [shape for shape in shapes if shape.category == category]
        free = [shape for shape in members if shape.split not in GIVEN_SPLITS]
        splits |= {shape: shape.split for shape in members if shape.split in GIVEN_SPLITS}
        has_train = "train" in {shape.split for shape in members}
        number = int(test_share * len(free) + 0.5)
        number = min(number, len(free) if has_train else max(0, len(free) - 1))
        ranked = sorted(free, key=lambda shape: _rank(seed, shape))
        splits |= dict.fromkeys(ranked[:number], "test")
        splits |= dict.fromkeys(ranked[number:], "train")
    return splits


def _rank(seed: int, shape: SourceShape) -> bytes:
    text = f"{seed}\0split\0{shape.category}\0{shape.model}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _forget_all_but(out: Path, shapes: Sequence[SourceShape]) -> int:
    """Remove records and pairs of meshes that are no longer in the source; returns how many."""
    from pixcloud.data.pair_writer import remove_pair

    wanted = _names(shapes)
    gone = [names for names in memory.recorded_models(out) if names not in wanted]
    for names in gone:
        remove_pair(out, *names)
        memory.forget(out, *names)
    return len(gone)


def _remove_pairs_but(out: Path, shapes: Sequence[SourceShape], paired: set[SourceShape]) -> None:
    """Remove pairs of shapes that are test shapes now."""
    from pixcloud.data.pair_writer import is_written, remove_pair

    for shape in shapes:
        if shape not in paired and is_written(out, shape.category, shape.model):
            remove_pair(out, shape.category, shape.model)

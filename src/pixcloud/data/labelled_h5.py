"""Stage 2, labelled clouds in h5 files: datasets (S, N, 3) and (S, ...) <-> arrays, checked.

What ModelNet40 and ShapeNetPart share; `modelnet` and `shapenetpart` know the names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pixcloud.atomic import replaced_file, write_bytes
from pixcloud.errors import AGAIN, DataError, FileFormatError
from pixcloud.types import LabelledClouds

if TYPE_CHECKING:
    import h5py

# Clouds per file in the published packings.
CLOUDS_PER_FILE = 2048


def read_datasets(path: Path, keys: Sequence[tuple[str, ...]]) -> list[np.ndarray]:
    """Read one dataset for each entry of `keys`, the first of its names that is there.

    Raises:
        FileFormatError: if the file is no h5 file, or none of the names is in it.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return [_first(file, names, path) for names in keys]
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise FileFormatError(f"{path}: cannot be read as h5 ({reason}); copy it again") from error


def _first(file: h5py.File, names: tuple[str, ...], path: Path) -> np.ndarray:
    import h5py

    for name in names:
        if isinstance(file.get(name), h5py.Dataset):
            return np.asarray(file[name])
    wanted = " or ".join(repr(name) for name in names)
    raise FileFormatError(f"{path}: expected a dataset {wanted}, found {sorted(file)}; {AGAIN}")


def dataset_names(path: Path) -> set[str]:
    """The names of what lies in an h5 file, of which nothing else is read; none if it is broken."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return set(file)
    except (OSError, RuntimeError):
        return set()


def checked_clouds(path: Path, points: np.ndarray) -> np.ndarray:
    """Clouds (S, N, 3) as float32.

    Raises:
        FileFormatError: if they have another shape or coordinates that are not finite.
    """
    if points.ndim != 3 or points.shape[2] != 3 or points.shape[1] == 0:
        raise FileFormatError(
            f"{path}: 'data' has shape {points.shape}, expected (S, N, 3); {AGAIN}"
        )
    points = points.astype(np.float32, copy=False)
    if not np.isfinite(points).all():
        bad = np.flatnonzero(~np.isfinite(points).all(axis=(1, 2)))
        raise FileFormatError(
            f"{path}: {len(bad)} clouds hold NaN or infinite coordinates, the first is {bad[0]}; "
            "take them out"
        )
    return points


def checked_labels(path: Path, labels: np.ndarray, clouds: int, classes: int) -> np.ndarray:
    """Labels (S,) or (S, 1) as (S,) int64.

    Raises:
        FileFormatError: if their number differs from the clouds', or one names no class.
    """
    if labels.shape not in ((clouds,), (clouds, 1)):
        raise FileFormatError(
            f"{path}: 'label' has shape {labels.shape}, expected ({clouds},) or ({clouds}, 1); "
            f"{AGAIN}"
        )
    labels = whole_numbers(path, "label", labels.reshape(-1))
    if clouds and not 0 <= labels.min() <= labels.max() < classes:
        raise FileFormatError(
            f"{path}: labels from {labels.min()} to {labels.max()}, and {classes} classes are "
            "known; keep the files and the list of names of one data set together"
        )
    return labels


def whole_numbers(path: Path, key: str, values: np.ndarray) -> np.ndarray:
    """Labels as int64.

    Raises:
        FileFormatError: if one is no whole number.
    """
    with np.errstate(invalid="ignore"):  # NaN, which then differs
        whole = values.astype(np.int64)
    if not np.array_equal(whole, values):
        first = np.flatnonzero((whole != values).reshape(-1))[0]
        raise FileFormatError(
            f"{path}: '{key}' holds {values.reshape(-1)[first]}, expected whole numbers; {AGAIN}"
        )
    return whole


def same_points(parts: list[tuple[Path, np.ndarray]]) -> np.ndarray:
    """One array (S, N, 3) from those of several files.

    Raises:
        FileFormatError: if their clouds differ in size.
    """
    for path, points in parts:
        if points.shape[1] != parts[0][1].shape[1]:
            raise FileFormatError(
                f"{path}: clouds of {points.shape[1]} points, and {parts[0][0].name} beside it has "
                f"{parts[0][1].shape[1]}; keep files of one data set in a folder"
            )
    return np.concatenate([points for _, points in parts])


def check_writable(folder: Path, clouds: LabelledClouds) -> None:
    """Refuse a split that its reader would refuse.

    Raises:
        DataError: if shapes or labels do not fit, coordinates are not finite, there are no
            clouds, or a class name cannot stand on a line of its own.
    """
    points, labels, what = clouds.points, clouds.labels, f"{folder}: the {clouds.split} split"
    if points.ndim != 3 or points.shape[2] != 3 or 0 in points.shape:
        raise DataError(f"{what} has points {points.shape}; expected (S, N, 3), none of them 0")
    if not np.isfinite(points).all():
        raise DataError(f"{what} holds NaN or infinite coordinates")
    if labels.shape != (len(points),):
        raise DataError(f"{what} has labels {labels.shape} for {len(points)} clouds")
    if not 0 <= labels.min() <= labels.max() < len(clouds.classes):
        raise DataError(
            f"{what} has labels {labels.min()} to {labels.max()} for {len(clouds.classes)} classes"
        )
    for name in clouds.classes:
        if name != name.strip() or len(name.splitlines()) != 1:
            raise DataError(f"{what} has a class {name!r}, which cannot stand on a line of its own")


def write_split(
    folder: Path, prefix: str, datasets: dict[str, np.ndarray], listing: Path | None = None
) -> list[Path]:
    """Write arrays of equal length as `<prefix>0.h5, <prefix>1.h5, ...`, replacing the split there.

    The file with the number 0 appears last but for the listing, and goes first: a kill leaves a
    split that `numbered` refuses, and never one that looks whole and is not.

    Args:
        folder: Where to write.
        prefix: What stands before the numbers.
        datasets: Name to array, equal along the first axis.
        listing: A file to list the names in, or None.

    Returns:
        The files in order.
    """
    if listing is not None:
        listing.unlink(missing_ok=True)
    for old in sorted(folder.glob(f"{prefix}*.h5")):
        if old.stem[len(prefix) :].isdigit():
            old.unlink()
    starts = range(0, len(next(iter(datasets.values()))), CLOUDS_PER_FILE)
    files = [folder / f"{prefix}{number}.h5" for number in range(len(starts))]
    for path, start in zip(reversed(files), reversed(starts), strict=True):
        part = slice(start, start + CLOUDS_PER_FILE)
        write_datasets(path, {name: values[part] for name, values in datasets.items()})
    if listing is not None:
        write_bytes(listing, "".join(f"{path.name}\n" for path in files).encode())
    return files


def write_datasets(path: Path, datasets: dict[str, np.ndarray]) -> None:
    """Write an h5 file, whole or not at all; its bytes depend on the arrays alone."""
    import h5py

    with replaced_file(path) as temporary, h5py.File(temporary, "w", libver="earliest") as file:
        for name, values in datasets.items():
            # Compressed as in the published packing; no times, so that equal data is equal bytes.
            file.create_dataset(
                name, data=values, compression="gzip", compression_opts=1, track_times=False
            )


def numbered(folder: Path, prefix: str) -> list[Path]:
    """Files `<prefix><number>.h5` of a folder, in the order of their numbers.

    Raises:
        DataError: if a number below the highest is missing.
    """
    found = [p for p in folder.glob(f"{prefix}*.h5") if p.stem[len(prefix) :].isdigit()]
    files = sorted(found, key=lambda p: int(p.stem[len(prefix) :]))
    for number, path in enumerate(files):
        if int(path.stem[len(prefix) :]) != number:
            raise DataError(
                f"{folder / f'{prefix}{number}.h5'}: missing, and {files[-1].name} is there; "
                "expected the numbers 0 and on without gaps"
            )
    return files


def check_published(files: list[Path], prefixes: Sequence[str], count: int, name: str) -> None:
    """Check that no last file of a published packing is missing, which numbers do not tell.

    Args:
        files: that were found, in the order of their numbers.
        prefixes: what may stand before the numbers.
        count: how many files the packing has.
        name: what the data call themselves.

    Raises:
        DataError: naming the first that is missing.
    """
    if not files or len(files) >= count:
        return
    stem = files[0].stem.rstrip("0123456789")
    if stem in prefixes:
        missing = files[0].parent / f"{stem}{len(files)}.h5"
        raise DataError(
            f"{missing}: missing; {name} has {stem}0.h5 to {stem}{count - 1}.h5, copy it again; of "
            "other data, list their files or their names beside them, so that they are not taken "
            "for it"
        )


def check_listed(listing: Path, files: list[Path]) -> None:
    """Check that a list of files, where there is one, names none that is not there.

    Numbers tell of a gap, and only a list of a missing last file.

    Raises:
        DataError: naming the first that is missing.
    """
    if not listing.is_file():
        return
    known = {path.name for path in files}
    for line in read_lines(listing):
        name = line.replace("\\", "/").rsplit("/", 1)[-1]
        if name not in known:
            raise DataError(f"{listing.parent / name}: missing, and {listing.name} names it")


def read_lines(path: Path) -> list[str]:
    """The lines of a list that are not empty.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error

"""Stage 2, what is on disk against what should be: a source -> one line per finding."""

from __future__ import annotations

from pathlib import Path

from pixcloud.data import sources
from pixcloud.errors import DataError, MissingSplitError, PixCloudError, some


def check_source(source: str, read: int = 0) -> str:
    """Count what a source holds, name what is missing, and read some of it.

    Args:
        source: NAME:/path, a path, or "synthetic".
        read: read so many of the pairs wholly, spread over the set; -1 reads all.

    Returns:
        What was found.

    Raises:
        DataError: if something is missing or broken; the first few are named.
    """
    name, root = sources.parse_source(source, "source")
    has_pairs, has_labels = sources.holds(source)
    lines = []
    if has_pairs:
        lines += _check_pairs(name, root, read)
    if has_labels and name not in sources.PAIR_READERS:
        lines += _check_labelled(source)
    if not lines:
        raise DataError(f"{source}: no data set known here lies in it; expected {_expected()}")
    return f"{source}: " + "; ".join(lines)


def _expected() -> str:
    """What lies below the root of each source that is known."""
    readers = {**sources.PAIR_READERS, **sources.LABELLED_READERS}
    patterns = {
        name: [m for m in marks if isinstance(m, str)] for name, (_, marks) in readers.items()
    }
    known = [f"{name}: {' or '.join(found)}" for name, found in patterns.items() if found]
    return "; ".join([*known, "folder: <class>/ with clouds or meshes"])


def _check_pairs(name: str, root: Path, read: int) -> list[str]:
    marks = {n: m for n, (_, m) in sources.PAIR_READERS.items()}
    name = name or sources.recognise(root, marks, "pairs")
    index = sources.PAIR_READERS[name][0](root)
    if index.without_pictures or not index.pairs:
        # The same words as training would say, before anybody waits for it.
        from pixcloud.data.shapenet import complete_pairs

        complete_pairs(index)
    counts = [len(pair.pictures) for pair in index.pairs]
    least, most = min(counts), max(counts)
    each = f"{least}" if least == most else f"{least} to {most}"
    lines = [f"{len(counts)} pairs with {each} pictures each"]
    if index.without_cloud:
        count = len(index.without_cloud)
        lines.append(f"{count} picture folders without a cloud ({some(index.without_cloud)})")
    if read:
        lines.append(_read_some(index.pairs, read))
    return lines


def _read_some(pairs: list, read: int) -> str:
    from pixcloud.data.files import read_cloud, read_picture

    count = len(pairs) if read < 0 else min(read, len(pairs))
    chosen = [pairs[i * len(pairs) // count] for i in range(count)]
    broken = []
    for pair in chosen:
        try:
            read_cloud(Path(pair.cloud))
            for picture in pair.pictures:
                read_picture(Path(pair.folder) / picture)
        except PixCloudError as error:
            broken.append(str(error))
    if broken:
        raise DataError(f"{len(broken)} of {len(chosen)} pairs read are broken: {some(broken, 3)}")
    return f"{len(chosen)} of them read without fault"


def _check_labelled(source: str) -> list[str]:
    lines = []
    for split in sources.labelled_splits(source, "source"):
        try:
            clouds = sources.open_labelled(source, split, "source")
        except MissingSplitError as error:
            if split == "train":
                raise
            lines.append(str(error))
            continue
        count, points = clouds.points.shape[:2]
        line = f"{split}: {count} clouds of {points} points in {len(clouds.classes)} classes"
        if clouds.part_names is not None:
            line += f" with {sum(map(len, clouds.part_names.values()))} parts"
        lines.append(line)
    return lines

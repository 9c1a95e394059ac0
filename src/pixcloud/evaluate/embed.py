"""Stage 9, `pixcloud embed`: an encoder and shapes of a user -> a store of vectors, or one file.

Before it: an encoder (stage 4) or both towers (`pixcloud.cross_modal`), and the readers of stage 1.
After it: `pixcloud.store`, which `pixcloud.evaluate.search` asks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pixcloud.data.shapes import list_shapes, shape_points
from pixcloud.errors import ConfigError, DataError, StoreError, some
from pixcloud.store import About, VectorStore
from pixcloud.store.database import FILE

if TYPE_CHECKING:
    from rich.table import Table

_BLOCK = 256  # shapes read, embedded and confirmed at a time
FEATURE_FILES = (".npz",)
_STAMP_PARTS = 5  # size, date, axis, seed, parts of the prefix


@dataclass(kw_only=True)
class Embedded:
    """What `embed` did: numbers of names added, replaced and so on; file -> why it was left out."""

    out: str
    total: int = 0
    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    removed: int = 0
    refused: dict[str, str] = field(default_factory=dict)

    def __rich__(self) -> Table:
        from rich.table import Table

        table = Table(title=f"{self.out}: {self.total:,} shapes")
        for name in ("added", "replaced", "unchanged", "removed", "left out"):
            table.add_column(name, justify="right")
        numbers = (self.added, self.replaced, self.unchanged, self.removed, len(self.refused))
        table.add_row(*(f"{number:,}" for number in numbers))
        if self.refused:
            table.caption = f"left out: {some(self.refused)}"
        return table


def embed(
    encoder: str,
    shapes: str,
    out: str = "index",
    kind: Literal["pooled", "shared"] = "pooled",
    num_points: int = 1024,
    batch_size: int = 32,
    up: Literal["y", "z"] = "y",
    seed: int = 0,
    prefix: str = "",
    replace: bool = False,
    remove_missing: bool = False,
    strict: bool = False,
) -> Embedded:
    """Put the features of clouds and meshes into a store that `pixcloud search` asks.

    It can be stopped at any moment: what was confirmed stays, and the same command goes on. Shapes
    that are in the store and whose files have not changed are not embedded again; changed ones are
    replaced. The store knows the folder of each shape: a name that is there from another folder is
    refused before anything is embedded, unless `prefix` or `replace` says what is meant.

    Args:
        encoder: a run, an exported or imported encoder, or a Hugging Face Hub id.
        shapes: a cloud or mesh, or a folder whose files are found at any depth. A shape's name is
            its file's place in that folder.
        out: folder of the store, new or made by the same encoder; or a file NAME.npz, which then
            holds names (S,) and features (S, D) as they come out of the encoder.
        kind: pooled are the features that protocols score; shared are projections into the space
            of pictures, so that a picture can ask. They need a run with its picture tower.
        num_points: points of each shape that the encoder sees.
        batch_size: shapes embedded at a time.
        up: the axis of the shapes that points up; training has y up.
        seed: of the points that are taken.
        prefix: put before all names, such as "b" for b/chair/0.npy, so that folders with the same
            names can be in one store.
        replace: put these shapes in the place of those that have their names and come from
            another folder.
        remove_missing: remove from the store what came from this folder (and has this prefix) and
            is not among the shapes any more, or cannot be read any more, up to the last one;
            otherwise the vectors of before stay.
        strict: stop at the first file that cannot be read; otherwise such files are left out and
            named.

    Returns:
        How many shapes were added, replaced, unchanged, removed, and why others were left out.

    Raises:
        DataError: if there is no shape, or none that can be read.
        StoreError: if the store is of another encoder, has names of these shapes from another
            folder, or cannot be written.
        ConfigError: for settings out of range.
        WeightsError: if the encoder is missing or damaged.

    Example:
        >>> embed("runs/demo", "meshes", out="index")  # doctest: +SKIP
    """
    for key, value in (("num_points", num_points), ("batch_size", batch_size)):
        if value < 1:
            raise ConfigError(f"{key} is {value}: expected at least 1")
    root, target = Path(shapes).expanduser(), Path(out).expanduser()
    paths = _shapes(root, target, remove_missing)
    from pixcloud.evaluate.embedder import load_embedder  # torch, once there is work for it

    embedder = load_embedder(encoder, kind, num_points)
    reader = _Reader(root, num_points, up, seed, strict, prefix.strip("/"))
    if target.suffix in FEATURE_FILES:
        return _to_file(embedder.raw, reader, paths, target, batch_size)
    about = About(
        dim=embedder.dim,
        kind=kind,
        encoder=_lasting(encoder),
        encoder_sha256=embedder.sha256,
        num_points=num_points,
    )
    with VectorStore(target, about) as store:
        wanted, unchanged = _wanted(reader, paths, store, replace)
        result = Embedded(out=str(store.folder), unchanged=unchanged)
        _to_store(embedder.raw, reader, wanted, store, batch_size, replace, result)
        if remove_missing:
            result.removed = _remove_missing(reader, paths, store)
        result.refused, result.total = reader.refused, len(store)
        if not result.total and paths:
            raise _none_read(reader, paths)
        _keep_index(store)
    return result


def _shapes(root: Path, target: Path, remove_missing: bool) -> list[Path]:
    """The shapes of a folder; none at all where the last of those that a store has may be gone."""
    try:
        return list_shapes(root)
    except DataError:
        if remove_missing and root.is_dir() and (target / FILE).is_file():
            return []
        raise


@dataclass
class _Reader:
    """Names and clouds of files; what cannot be read is kept in `refused`.

    A file's points depend on its place in the folder, and not on the prefix of its name.
    """

    root: Path
    num_points: int
    up: str
    seed: int
    strict: bool
    prefix: str
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """The folder that names are relative to, wherever the command is given."""
        return str((self.root if self.root.is_dir() else self.root.parent).resolve())

    def place(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if path != self.root else path.name

    def name(self, path: Path) -> str:
        return f"{self.prefix}/{self.place(path)}" if self.prefix else self.place(path)

    def stamp(self, path: Path) -> str:
        """What tells whether a shape has to be embedded again, and what is before its place."""
        return f"{self.stamp_before(path)} {len(Path(self.prefix).parts)}"

    def stamp_before(self, path: Path) -> str:
        """As earlier versions wrote it, which did not tell the prefix."""
        return f"{_state(path)} {self.up} {self.seed}"

    def blocks(self, paths: list[Path]) -> Iterator[tuple[list[Path], np.ndarray]]:
        """Some of the files at a time with their clouds (B, N, 3)."""
        for start in range(0, len(paths), _BLOCK):
            read, clouds = [], []
            for path in paths[start : start + _BLOCK]:
                try:
                    clouds.append(
                        shape_points(
                            path, self.place(path), self.num_points, self.up, self.seed, "embed"
                        )
                    )
                    read.append(path)
                except DataError as error:
                    if self.strict:
                        raise
                    self.refused[self.name(path)] = str(error)
                    print(f"left out: {error}", file=sys.stderr)
            if read:
                yield read, np.stack(clouds)


Raw = Callable[[np.ndarray, int], np.ndarray]


def _wanted(
    reader: _Reader, paths: list[Path], store: VectorStore, replace: bool
) -> tuple[dict[Path, str], int]:
    """Files that are to be embedded -> their stamps, and how many others have not changed.

    Raises:
        StoreError: if a name is there from another folder and is not to be replaced.
    """
    there, sources = store.stamps(), store.sources()
    wanted, names = {}, {}
    for path in paths:
        name, stamp = reader.name(path), reader.stamp(path)
        same = there.get(name) in (stamp, reader.stamp_before(path))
        # Those of earlier versions have no source; of the same date they are of the same file.
        if not same or sources[name] not in ("", reader.source):
            wanted[path] = stamp
            names[name] = sources.get(name, reader.source)
    if not replace:
        store.refuse_others(names, reader.source)
    return wanted, len(paths) - len(wanted)


def _to_store(
    raw: Raw,
    reader: _Reader,
    wanted: dict[Path, str],
    store: VectorStore,
    batch_size: int,
    replace: bool,
    result: Embedded,
) -> None:
    """Embed files and confirm some at a time, counted in the result."""
    there = store.stamps().keys()
    for read, clouds in reader.blocks(list(wanted)):
        names = [reader.name(path) for path in read]
        store.add(
            names,
            raw(clouds, batch_size),
            stamps=[wanted[path] for path in read],
            source=reader.source,
            replace="any" if replace else True,
        )
        result.replaced += sum(name in there for name in names)
        result.added += sum(name not in there for name in names)


def _remove_missing(reader: _Reader, paths: list[Path], store: VectorStore) -> int:
    """Remove what came from this folder and is not in it any more; how many there were.

    What was stored under another prefix stays while its file is there.
    """
    known = {reader.name(path) for path in paths} - set(reader.refused)
    start, stamps = f"{reader.prefix}/" if reader.prefix else "", store.stamps()
    gone = [
        name
        for name, source in store.sources().items()
        if source == reader.source and name.startswith(start) and name not in known
        # A stamp is missing where another process removed the name since.
        if name in reader.refused or not _file_is_there(reader, name, stamps.get(name, ""))
    ]
    return store.remove(gone)


def _file_is_there(reader: _Reader, name: str, stamp: str) -> bool:
    """Whether the file of a stored name is in the folder, whatever prefix the name was stored with.

    Stamps tell of how many parts the prefix was. Those of earlier versions do not: p/q/0.npy of
    these may be q/0.npy or 0.npy, which is believed by its size and date alone.
    """
    folder, parts = Path(reader.source), Path(name).parts
    said = stamp.split(" ")
    if len(said) == _STAMP_PARTS:
        return folder.joinpath(*parts[int(said[-1]) :]).is_file()
    own = len(Path(reader.prefix).parts)
    files = {length: folder.joinpath(*parts[length:]) for length in range(len(parts))}
    return any(
        file.is_file() and (length in (0, own) or stamp.startswith(f"{_state(file)} "))
        for length, file in files.items()
    )


def _to_file(
    raw: Raw, reader: _Reader, paths: list[Path], target: Path, batch_size: int
) -> Embedded:
    from pixcloud.atomic import replaced_file

    names: list[str] = []
    blocks = []
    for read, clouds in reader.blocks(paths):
        blocks.append(raw(clouds, batch_size))
        names += [reader.name(path) for path in read]
    if not names:
        raise _none_read(reader, paths)
    try:
        with replaced_file(target) as temporary, open(temporary, "wb") as file:
            np.savez(file, names=np.array(names, np.str_), features=np.concatenate(blocks))
    except OSError as error:
        raise StoreError(f"{target}: cannot be written ({error.strerror or error})") from error
    added = len(names)
    return Embedded(out=str(target), total=added, added=added, refused=reader.refused)


def _keep_index(store: VectorStore) -> None:
    """Make the index of very many vectors anew where that pays; without FAISS, say so."""
    if not store.needs_index():
        return
    try:
        store.build_index(lambda line: print(line, file=sys.stderr))
    except StoreError as error:
        print(f"warning: {error}", file=sys.stderr)


def _lasting(encoder: str) -> str:
    """An encoder's folder as an absolute path, so that `search` finds it from anywhere."""
    path = Path(encoder).expanduser()
    return str(path.absolute()) if path.exists() else encoder


def _state(path: Path) -> str:
    """What tells whether a file has changed: its size and its date."""
    state = path.stat()
    return f"{state.st_size} {state.st_mtime_ns}"


def _none_read(reader: _Reader, paths: list[Path]) -> DataError:
    first: Any = next(iter(reader.refused.values()))
    return DataError(
        f"{reader.root}: none of {len(paths)} files can be embedded; the first: {first}"
    )

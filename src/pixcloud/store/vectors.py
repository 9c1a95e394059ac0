"""Stage 9, the store: names and unit vectors (S, D) on disk <-> added, replaced, removed, asked.

A folder with `vectors.sqlite`, which is the truth: a transaction per batch, so that what was
confirmed outlives any crash and nothing else is seen. Beyond `EXACT_UP_TO` vectors an index
(`pixcloud.store.approximate`) stands beside it, which can be made anew from it at any time. Numbers
of rows are never used twice, so an index stays true while rows come and go: it may name rows that
are gone, and rows that came after it are compared one by one (`pixcloud.store.late`), until there
are so many that adding puts them into the index.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pixcloud.errors import StoreError, some
from pixcloud.store.approximate import ApproximateIndex
from pixcloud.store.database import FILE, About, Database
from pixcloud.store.exact import nearest, ranked
from pixcloud.store.late import LateRows

__all__ = ["FILE", "About", "Found", "VectorStore", "unit_vectors"]

EXACT_UP_TO = 100_000
# Rows that came after the index are compared one by one up to so many, and up to this share of it.
LATE, LATE_SHARE = 8192, 0.02
# An index is made anew when more than this share of the rows came after it.
STALE = 0.2
_BLOCK = 65_536  # vectors read at a time
_MOST_BY_INDEX = 1000  # more are asked of all: SQLite takes 32,766 numbers of rows in a question


@dataclass(kw_only=True, frozen=True)
class Found:
    """Of each of Q queries the best K: names, and cosines (Q, K) float32, best first."""

    names: list[list[str]]
    scores: list[list[float]]


class VectorStore:
    """Vectors by name, compared by cosine.

    Args:
        folder: of the store.
        about: makes a new one, or is compared with what is there; None opens what is there.

    Raises:
        StoreError: if there is none and `about` is None, it is damaged, or holds other vectors.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = VectorStore(folder + "/index", About(dim=2))
        ...     store.add(["east", "north"], np.eye(2))
        ...     store.search(np.array([[1.0, 0.1]]), k=1).names
        [['east']]
    """

    def __init__(self, folder: str | Path, about: About | None = None) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self._file = Database(self.folder, about)
        self._base, self.path, self.about = self._file.base, self._file.path, self._file.about
        self._rows: tuple[np.ndarray, np.ndarray] | None = None
        self._version = (0, 0)
        self._index, self._late = ApproximateIndex(self.folder), LateRows(self.about.dim)
        self._tried = 0  # the highest number when late rows were to be put into the index

    def close(self) -> None:
        """Let go of the file; the store cannot be used any more."""
        self._base.close()

    def __enter__(self) -> VectorStore:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def __len__(self) -> int:
        with self._file.told():
            return self._count()

    def stamps(self) -> dict[str, str]:
        """Name -> the stamp that it was added with, in the order of adding."""
        with self._file.told():
            return dict(self._base.execute("SELECT id, stamp FROM items ORDER BY n"))

    def sources(self) -> dict[str, str]:
        """Name -> where its vector came from; "" where nothing was said."""
        with self._file.told():
            column = "source" if self._file.keeps_sources() else "''"
            return dict(self._base.execute(f"SELECT id, {column} FROM items ORDER BY n"))

    def add(
        self,
        names: Sequence[str],
        vectors: np.ndarray,
        *,
        stamps: Sequence[str] | None = None,
        source: str = "",
        replace: bool | Literal["any"] = False,
    ) -> None:
        """Add vectors, all or none; when it returns they are on the disk.

        Where an index lies in the folder and more than 8,192 rows came after it, and more than 2 %
        of it, they are put into it afterwards: some 50 microseconds for each row that was added.

        Args:
            names: (S,), each once.
            vectors: (S, D), of any length but 0.
            stamps: (S,) what tells whether an item has changed, such as a size and a date.
            source: where they come from, such as a folder.
            replace: those with names that are there already from the same source take their place;
                "any": from whatever source.

        Raises:
            StoreError: for another D, vectors that are 0 or not finite, a name twice, or one that
                is there already; if the disk is full or another process keeps writing.
        """
        if isinstance(names, str) or not all(isinstance(n, str) and n for n in names):
            raise StoreError("names: a list of texts that are not empty is expected")
        unit = unit_vectors(vectors, self.about.dim, names)
        stamps = [""] * len(names) if stamps is None else list(stamps)
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if list(names).count(name) > 1})
            raise StoreError(f"names that come twice: {some(twice)}")
        if not len(names) == len(unit) == len(stamps):
            raise StoreError(
                f"{len(names)} names, {len(unit)} vectors, {len(stamps)} stamps: give one of each"
            )
        rows = [
            (name, vector.tobytes(), stamp, source)
            for name, vector, stamp in zip(names, unit, stamps, strict=True)
        ]
        with self._file.told(), self._file.transaction() as base:
            self._file.keeps_sources(add=True)
            there = self._there(names)
            if there and not replace:
                raise StoreError(
                    f"names that are there already: {some(there)}; replace them, or give others"
                )
            if replace != "any":
                self.refuse_others(there, source)
            base.executemany("DELETE FROM items WHERE id = ?", [(name,) for name in there])
            base.executemany(
                "INSERT INTO items (id, vector, stamp, source) VALUES (?, ?, ?, ?)", rows
            )
        self._extend_index()

    def refuse_others(self, there: Mapping[str, str], source: str) -> None:
        """Check that names which are there are from one source.

        Args:
            there: name -> its source.
            source: that their vectors are to be replaced from.

        Raises:
            StoreError: naming the first few that are from elsewhere.
        """
        others = [name for name, own in there.items() if own != source]
        if others:
            unknown = "an unknown place"
            raise StoreError(
                f"{self.folder}: holds vectors of these names from another source: {some(others)}; "
                f"{others[0]} is from {there[others[0]] or unknown}, and not from "
                f"{source or unknown}; keep both by --prefix NAME, or put the new ones in their "
                'place by --replace true (in Python replace="any")'
            )

    def remove(self, names: Sequence[str]) -> int:
        """Remove vectors by name, all or none; returns how many of the names were there.

        Raises:
            StoreError: if the disk is full or another process keeps writing.
        """
        with self._file.told(), self._file.transaction() as base:
            before = base.total_changes
            base.executemany("DELETE FROM items WHERE id = ?", [(name,) for name in names])
            return base.total_changes - before

    def search(self, queries: np.ndarray, k: int = 10, *, exact: bool = False) -> Found:
        """The nearest vectors of each query, by cosine; of equal ones the earlier added first.

        Args:
            queries: (Q, D), of any length but 0.
            k: how many of each; fewer where the store has fewer.
            exact: compare with all, also where an index is there.

        Raises:
            StoreError: for another D, queries that are 0 or not finite, or k below 1.
        """
        if k < 1:
            raise StoreError(f"k is {k}: expected at least 1")
        unit = unit_vectors(queries, self.about.dim, [f"query {i}" for i in range(len(queries))])
        with self._file.told(), self._file.snapshot():
            if exact or k > _MOST_BY_INDEX or not (self._index.load() and self._index.useful):
                found = [self._compare_all(query, k) for query in unit]
            else:
                found = [self._search_index(query, k) for query in unit]
            names = [self._names(numbers) for numbers, _ in found]
        return Found(names=names, scores=[scores.tolist() for _, scores in found])

    def needs_index(self) -> bool:
        """Whether there are so many vectors that an index would pay, and it is missing or old."""
        with self._file.told():
            count = self._count()
            if count <= EXACT_UP_TO:
                return False
            if not self._index.load():
                return True
            after = self._after(self._index.last)
            gone = self._index.size - (count - after)
            new = self._index.size - self._index.made + after
            return new > STALE * count or gone > STALE * self._index.size

    def build_index(self, say: Callable[[str], None] = print) -> None:
        """Make the index of all vectors anew; searches by others go on with the old one.

        Raises:
            StoreError: if FAISS is not installed, or the disk is full.
        """
        with self._file.told():
            numbers, vectors = self._all_rows()
            self._index.build(numbers, vectors, say)

    def vectors(self) -> tuple[list[str], np.ndarray]:
        """All names (S,) and unit vectors (S, D) float32, in the order of adding."""
        with self._file.told(), self._file.snapshot():
            numbers, vectors = self._all_rows()
            return self._names(numbers), vectors

    def _compare_all(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        numbers, vectors = self._all_rows()
        return nearest(query, vectors, numbers, k)

    def _search_index(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Candidates of the index and what came after it, ranked by their exact cosines.

        The cells that are looked at hold the nearest of all that were put into the index. Where
        many of these were removed since, what is nearest now may lie in other cells, and late rows
        must not stand in for it: all are compared then.
        """
        self._read_late()
        asked, late = self._index.candidates(query, k), self._late.candidates(query, k)
        numbers, vectors = self._rows_of(np.concatenate([asked, late]))
        if not np.isin(late, numbers).all():
            self._forget_removed()
            return self._search_index(query, k)
        there = np.isin(asked, numbers)
        # The k best that are there have to be among the first half of the candidates.
        if there[: len(there) if there.all() else len(there) // 2].sum() < k:
            return self._compare_all(query, k)
        return ranked(query, vectors, numbers, k)

    def _rows_of(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Those of some rows that are there: numbers (C,) and vectors (C, D)."""
        marks = ",".join("?" * len(numbers))
        ask = f"SELECT n, vector FROM items WHERE n IN ({marks})"
        rows = self._base.execute(ask, numbers.tolist()).fetchall()
        return np.array([n for n, _ in rows], np.int64), self._matrix([blob for _, blob in rows])

    def _read_late(self) -> None:
        """Read the rows that came after the index, and since they were read last."""
        self._late.begin_after(self._index.last)
        if self._highest() > self._late.last:
            self._late.append(self._blocks(self._late.last))

    def _forget_removed(self) -> None:
        rows = self._base.execute("SELECT n FROM items WHERE n > ?", (self._index.last,))
        there = np.array([n for (n,) in rows], np.int64)
        self._late.keep(np.isin(self._late.numbers, there))

    def _extend_index(self) -> None:
        """Put late rows into the index where they are many.

        What fails costs searches time only, and is a warning: the rows themselves are there.
        """
        noted, highest = self._index.noted(), self._highest()
        if noted is None:
            return
        last, size = noted
        # Or fewer, where numbers have gaps.
        if highest - max(last, self._tried) <= max(LATE, LATE_SHARE * size):
            return
        self._tried = highest
        try:
            with self._file.told(), self._file.snapshot():
                if not (self._index.load() and self._index.useful):
                    return
                self._read_late()
                self._forget_removed()
            if len(self._late.numbers):
                self._index.extend(self._late.numbers, self._late.vectors)
        except (OSError, RuntimeError, StoreError) as error:
            warnings.warn(
                f"{self.folder}: what was added is there, but could not be put into the index "
                f"({error}). Every search compares with it one by one, which is slower, until "
                "`pixcloud embed`, or build_index() in Python, makes the index anew",
                RuntimeWarning,
                stacklevel=3,
            )

    def _count(self) -> int:
        return int(self._base.execute("SELECT COUNT(*) FROM items").fetchone()[0])

    def _highest(self) -> int:
        return int(self._base.execute("SELECT COALESCE(MAX(n), 0) FROM items").fetchone()[0])

    def _after(self, number: int) -> int:
        row = self._base.execute("SELECT COUNT(*) FROM items WHERE n > ?", (number,)).fetchone()
        return int(row[0])

    def _all_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers (S,) int64 and vectors (S, D), kept in memory until the file changes."""
        changed = self._base.execute("PRAGMA data_version").fetchone()[0]
        version = (changed, self._base.total_changes)
        if self._rows is None or self._version != version:
            blocks = list(self._blocks(0)) or [(np.empty(0, np.int64), self._matrix([]))]
            numbers, vectors = zip(*blocks, strict=True)
            self._rows = np.concatenate(numbers), np.concatenate(vectors)
            self._version = version
        return self._rows

    def _blocks(self, after: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows with higher numbers, in order, some at a time: numbers (S,) and vectors (S, D)."""
        ask = "SELECT n, vector FROM items WHERE n > ? ORDER BY n"
        cursor = self._base.execute(ask, (after,))
        while rows := cursor.fetchmany(_BLOCK):
            numbers = np.array([n for n, _ in rows], np.int64)
            yield numbers, self._matrix([blob for _, blob in rows])

    def _matrix(self, blobs: list[bytes]) -> np.ndarray:
        """Stored vectors as (S, D) float32."""
        width = 4 * self.about.dim
        if any(len(blob) != width for blob in blobs):
            raise StoreError(f"{self.path}: damaged: a vector has not {self.about.dim} numbers")
        return np.frombuffer(b"".join(blobs), "<f4").reshape(-1, self.about.dim)

    def _names(self, numbers: np.ndarray) -> list[str]:
        ask = "SELECT id FROM items WHERE n = ?"
        return [self._base.execute(ask, (int(n),)).fetchone()[0] for n in numbers]

    def _there(self, names: Sequence[str]) -> dict[str, str]:
        """Those of the names that are there -> their sources."""
        ask = "SELECT source FROM items WHERE id = ?"
        found = ((name, self._base.execute(ask, (name,)).fetchone()) for name in names)
        return {name: row[0] for name, row in found if row is not None}


def unit_vectors(vectors: np.ndarray, dim: int, names: Sequence[str]) -> np.ndarray:
    """Vectors (S, D) as float32 of length 1.

    Raises:
        StoreError: for another D, or naming the first that is 0 or not finite.

    >>> unit_vectors(np.array([[3.0, 4.0]]), 2, ["a"]).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    wide = np.asarray(vectors, np.float64)
    if wide.ndim != 2 or wide.shape[1] != dim:
        raise StoreError(f"vectors {wide.shape}: expected (S, {dim})")
    lengths = np.linalg.norm(wide, axis=1)
    bad = ~np.isfinite(lengths) | (lengths == 0)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise StoreError(f"the vector of {names[first]} is 0 or not finite, and has no direction")
    return np.ascontiguousarray((wide / lengths[:, None]).astype("<f4"))

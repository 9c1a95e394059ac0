"""Stage 9, the store: names and unit vectors (S, D) on disk <-> added, replaced, removed, asked.

A folder with `vectors.sqlite`, which is the truth: a transaction per batch, so that what was
confirmed outlives any crash and nothing else is seen. Beyond `EXACT_UP_TO` vectors an index
(`pixcloud.store.approximate`) stands beside it, which can be made anew from it at any time. Numbers
of rows are never used twice, so an index stays true while rows come and go: it may name rows that
are gone, and rows that came after it are compared one by one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixcloud.errors import StoreError, some
from pixcloud.store.approximate import ApproximateIndex
from pixcloud.store.exact import nearest, ranked

FILE = "vectors.sqlite"
FORMAT = "pixcloud vectors 1"
EXACT_UP_TO = 100_000
# An index is made anew when more than this share of the rows came after it.
STALE = 0.2
_BLOCK = 65_536  # vectors read at a time
_MOST_BY_INDEX = 1000  # more are asked of all: SQLite takes 32,766 numbers of rows in a question
_TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE items (
    n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, vector BLOB NOT NULL,
    stamp TEXT NOT NULL
);
"""


@dataclass(kw_only=True, frozen=True)
class About:
    """What the vectors of a store are, so that others are refused.

    dim: D; kind: "pooled" (an encoder's features) or "shared" (projections that pictures have too);
    encoder: for the reader; encoder_sha256: of its weights; num_points: of each cloud.
    """

    dim: int
    kind: str = "pooled"
    encoder: str = ""
    encoder_sha256: str = ""
    num_points: int = 1024


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
        self.path = self.folder / FILE
        new = not self.path.is_file()
        if new and about is None:
            raise StoreError(f"{self.folder}: no index there; pixcloud embed --out makes one")
        if new and self.folder.exists() and (not self.folder.is_dir() or any(self._others())):
            raise StoreError(f"{self.folder}: holds something else; give a new folder")
        with self._told():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            # What is confirmed is on the disk, also after a power cut.
            self._base.execute("PRAGMA synchronous = EXTRA")
            if about is not None:  # a kill may have left the file of a store without its tables
                self._create(about)
            self.about = self._read_about()
        if about is not None:
            self._compare(about)
        self._rows: tuple[np.ndarray, np.ndarray] | None = None
        self._version = (0, 0, 0)
        self._index = ApproximateIndex(self.folder)

    def close(self) -> None:
        """Let go of the file; the store cannot be used any more."""
        self._base.close()

    def __enter__(self) -> VectorStore:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def __len__(self) -> int:
        with self._told():
            return self._count()

    def stamps(self) -> dict[str, str]:
        """Name -> the stamp that it was added with, in the order of adding."""
        with self._told():
            return dict(self._base.execute("SELECT id, stamp FROM items ORDER BY n"))

    def add(
        self,
        names: Sequence[str],
        vectors: np.ndarray,
        *,
        stamps: Sequence[str] | None = None,
        replace: bool = False,
    ) -> None:
        """Add vectors, all or none; when it returns they are on the disk.

        Args:
            names: (S,), each once.
            vectors: (S, D), of any length but 0.
            stamps: (S,) what tells whether an item has changed, such as a size and a date.
            replace: those with names that are there already take their place.

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
            (name, vector.tobytes(), stamp)
            for name, vector, stamp in zip(names, unit, stamps, strict=True)
        ]
        with self._told(), self._transaction() as base:
            there = [name for name in names if self._has(name)]
            if there and not replace:
                raise StoreError(
                    f"names that are there already: {some(there)}; replace them, or give others"
                )
            base.executemany("DELETE FROM items WHERE id = ?", [(name,) for name in there])
            base.executemany("INSERT INTO items (id, vector, stamp) VALUES (?, ?, ?)", rows)

    def remove(self, names: Sequence[str]) -> int:
        """Remove vectors by name, all or none; returns how many of the names were there.

        Raises:
            StoreError: if the disk is full or another process keeps writing.
        """
        with self._told(), self._transaction() as base:
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
        with self._told(), self._snapshot():
            if exact or k > _MOST_BY_INDEX or not (self._index.load() and self._index.useful):
                found = [self._compare_all(query, k) for query in unit]
            else:
                found = [self._search_index(query, k) for query in unit]
            names = [self._names(numbers) for numbers, _ in found]
        return Found(names=names, scores=[scores.tolist() for _, scores in found])

    def needs_index(self) -> bool:
        """Whether there are so many vectors that an index would pay, and it is missing or old."""
        with self._told():
            count = self._count()
            if count <= EXACT_UP_TO:
                return False
            if not self._index.load():
                return True
            after = self._after(self._index.last)
            gone = self._index.size - (count - after)
            return after > STALE * count or gone > STALE * self._index.size

    def build_index(self, say: Callable[[str], None] = print) -> None:
        """Make the index of all vectors anew; searches by others go on with the old one.

        Raises:
            StoreError: if FAISS is not installed, or the disk is full.
        """
        with self._told():
            numbers, vectors = self._all_rows()
            self._index.build(numbers, vectors, say)

    def vectors(self) -> tuple[list[str], np.ndarray]:
        """All names (S,) and unit vectors (S, D) float32, in the order of adding."""
        with self._told():
            numbers, vectors = self._all_rows()
            return self._names(numbers), vectors

    def _compare_all(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        numbers, vectors = self._all_rows()
        return nearest(query, vectors, numbers, k)

    def _search_index(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Candidates of the index and what came after it, ranked by their exact cosines.

        Where so many were removed that fewer than k are left of them, all are compared.
        """
        candidates = self._index.candidates(query, k)
        marks = ",".join("?" * len(candidates))
        rows = self._base.execute(
            f"SELECT n, vector FROM items WHERE n IN ({marks}) AND n <= ?",
            [*candidates.tolist(), self._index.last],
        ).fetchall()
        numbers = np.array([n for n, _ in rows], np.int64)
        vectors = self._matrix([blob for _, blob in rows])
        if self._after(self._index.last):
            later, added = self._all_rows(after=self._index.last)
            numbers, vectors = np.concatenate([numbers, later]), np.concatenate([vectors, added])
        if len(numbers) < k and len(numbers) < self._count():  # counting a million takes 10 ms
            return self._compare_all(query, k)
        return ranked(query, vectors, numbers, k)

    def _count(self) -> int:
        return int(self._base.execute("SELECT COUNT(*) FROM items").fetchone()[0])

    def _after(self, number: int) -> int:
        row = self._base.execute("SELECT COUNT(*) FROM items WHERE n > ?", (number,)).fetchone()
        return int(row[0])

    def _all_rows(self, after: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Numbers (S,) int64 and vectors (S, D), kept in memory until the file changes."""
        changed = self._base.execute("PRAGMA data_version").fetchone()[0]
        version = (after, changed, self._base.total_changes)
        if self._rows is None or self._version != version:
            numbers: list[int] = []
            blocks = []
            cursor = self._base.execute(
                "SELECT n, vector FROM items WHERE n > ? ORDER BY n", (after,)
            )
            while rows := cursor.fetchmany(_BLOCK):
                numbers.extend(n for n, _ in rows)
                blocks.append(self._matrix([blob for _, blob in rows]))
            vectors = np.concatenate(blocks) if blocks else self._matrix([])
            self._rows, self._version = (np.array(numbers, np.int64), vectors), version
        return self._rows

    def _matrix(self, blobs: list[bytes]) -> np.ndarray:
        """Stored vectors as (S, D) float32."""
        width = 4 * self.about.dim
        if any(len(blob) != width for blob in blobs):
            raise StoreError(f"{self.path}: damaged: a vector has not {self.about.dim} numbers")
        return np.frombuffer(b"".join(blobs), "<f4").reshape(-1, self.about.dim)

    def _names(self, numbers: np.ndarray) -> list[str]:
        ask = "SELECT id FROM items WHERE n = ?"
        return [self._base.execute(ask, (int(n),)).fetchone()[0] for n in numbers]

    def _has(self, name: str) -> bool:
        return (
            self._base.execute("SELECT 1 FROM items WHERE id = ?", (name,)).fetchone() is not None
        )

    def _others(self) -> Iterator[Path]:
        return (path for path in self.folder.iterdir() if not path.name.startswith(FILE))

    def _create(self, about: About) -> None:
        there = "SELECT 1 FROM sqlite_master WHERE name = 'about'"
        if self._base.execute(there).fetchone():
            return
        with self._transaction() as base:
            if base.execute(there).fetchone():
                return  # another process was faster
            if base.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise StoreError(f"{self.path}: a database of something else; give a new folder")
            for statement in _TABLES.split(";"):
                base.execute(statement)
            pairs = [("format", FORMAT), *((k, json.dumps(v)) for k, v in asdict(about).items())]
            base.executemany("INSERT INTO about VALUES (?, ?)", pairs)

    def _read_about(self) -> About:
        try:
            values: dict[str, Any] = dict(self._base.execute("SELECT key, value FROM about"))
            if values.pop("format") != FORMAT:
                raise ValueError("another format")
            return About(**{key: json.loads(value) for key, value in values.items()})
        except (sqlite3.OperationalError, ValueError, TypeError, KeyError) as error:
            raise StoreError(f"{self.path}: no index of the form '{FORMAT}' ({error})") from error

    def _compare(self, about: About) -> None:
        for key in ("dim", "kind", "encoder_sha256", "num_points"):
            there, given = getattr(self.about, key), getattr(about, key)
            if there != given:
                raise StoreError(
                    f"{self.folder}: holds vectors with {key} = {there} (of {self.about.encoder}), "
                    f"not {given}; they cannot be compared: give another index"
                )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and on the disk when it ends."""
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield self._base
            self._base.execute("COMMIT")
        except BaseException:
            if self._base.in_transaction:
                self._base.execute("ROLLBACK")
            raise

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """What is read meanwhile is of one moment, whatever others add or remove."""
        self._base.execute("BEGIN")
        try:
            yield
        finally:
            self._base.execute("ROLLBACK")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the file as errors that say what to do."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            text = str(error)
            hint = ""
            if "locked" in text:
                hint = "; another process is writing to it: wait for that, or stop it"
            elif "malformed" in text or "not a database" in text:
                hint = "; it is damaged: embed the shapes again into a new folder"
            elif "full" in text or "disk" in text:
                hint = "; make room: nothing that was confirmed is lost"
            raise StoreError(f"{self.path}: {text}{hint}") from error


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

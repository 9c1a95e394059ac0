"""Stage 9, the file of a store: `vectors.sqlite` <-> what its vectors are, and whole transactions.

Used by `pixcloud.store.vectors`, which knows what stands in the tables.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pixcloud.errors import StoreError

FILE = "vectors.sqlite"
FORMAT = "pixcloud vectors 1"
_TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE items (
    n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, vector BLOB NOT NULL,
    stamp TEXT NOT NULL, source TEXT NOT NULL DEFAULT ''
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


class Database:
    """The file of a store, open.

    Args:
        folder: of the store.
        about: makes a new one, or is compared with what is there; None opens what is there.

    Raises:
        StoreError: if there is none and `about` is None, it is damaged, or holds other vectors.
    """

    def __init__(self, folder: Path, about: About | None) -> None:
        self.folder, self.path = folder, folder / FILE
        new = not self.path.is_file()
        if new and about is None:
            raise StoreError(f"{folder}: no index there; pixcloud embed --out makes one")
        if new and folder.exists() and (not folder.is_dir() or any(self._others())):
            raise StoreError(f"{folder}: holds something else; give a new folder")
        with self.told():
            folder.mkdir(parents=True, exist_ok=True)
            self.base = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            # What is confirmed is on the disk, also after a power cut.
            self.base.execute("PRAGMA synchronous = EXTRA")
            if about is not None:  # a kill may have left the file of a store without its tables
                self._create(about)
            self.about = self._read_about()
        if about is not None:
            self._compare(about)

    def keeps_sources(self, *, add: bool = False) -> bool:
        """Whether items have a source; those of earlier versions have none until it is added."""
        there = any(row[1] == "source" for row in self.base.execute("PRAGMA table_info(items)"))
        if not there and add:
            self.base.execute("ALTER TABLE items ADD COLUMN source TEXT NOT NULL DEFAULT ''")
        return there or add

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and on the disk when it ends."""
        self.base.execute("BEGIN IMMEDIATE")
        try:
            yield self.base
            self.base.execute("COMMIT")
        except BaseException:
            if self.base.in_transaction:
                self.base.execute("ROLLBACK")
            raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """What is read meanwhile is of one moment, whatever others add or remove."""
        self.base.execute("BEGIN")
        try:
            yield
        finally:
            self.base.execute("ROLLBACK")

    @contextmanager
    def told(self) -> Iterator[None]:
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

    def _others(self) -> Iterator[Path]:
        return (path for path in self.folder.iterdir() if not path.name.startswith(FILE))

    def _create(self, about: About) -> None:
        there = "SELECT 1 FROM sqlite_master WHERE name = 'about'"
        if self.base.execute(there).fetchone():
            return
        with self.transaction() as base:
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
            values: dict[str, Any] = dict(self.base.execute("SELECT key, value FROM about"))
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

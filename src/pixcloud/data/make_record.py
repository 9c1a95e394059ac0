"""Stage 1, what a making of pairs remembers: OUT/make.json and OUT/.make/<class>/<model>.cloud.

`make` asks it whether OUT was made with the same settings, which meshes are done, and for their
clouds. A record is written in one step and last, so it is true whenever it is there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixcloud.atomic import TEMPORARY_PREFIX, remove_leftovers, write_bytes
from pixcloud.errors import DataError

# Goes up whenever the same meshes and settings would give other bytes.
VERSION = 1
SETTINGS = "make.json"
MEMORY = ".make"
SUFFIX = ".cloud"


@dataclass(frozen=True)
class CloudRecord:
    """A mesh that was sampled: SHA-256 of its files, points and normals (N, 3) float32."""

    sha256: str
    points: np.ndarray
    normals: np.ndarray


def claim_output(out: Path, settings: dict[str, Any]) -> None:
    """Make OUT ours: new or empty, or made with the same settings.

    Raises:
        DataError: as `check_output`.
    """
    check_output(out, settings)
    marker = out / SETTINGS
    if not marker.is_file():
        text = json.dumps({"version": VERSION, **settings}, indent=1) + "\n"
        write_bytes(marker, text.encode(), durable=True)


def check_output(out: Path, settings: dict[str, Any]) -> None:
    """See that OUT can be ours; nothing is written.

    Raises:
        DataError: if it is a file, holds something else, or was made with other settings.
    """
    settings = {"version": VERSION, **settings}
    marker = out / SETTINGS
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; give a new or empty folder as OUT")
    if marker.is_file():
        try:
            found = json.loads(marker.read_text("utf-8"))
            different = [key for key in settings if found.get(key) != settings[key]]
        except (ValueError, AttributeError):
            raise DataError(f"{marker}: broken; remove {out} and make it again") from None
        if different:
            changes = "; ".join(f"{k} was {found.get(k)!r}, now {settings[k]!r}" for k in different)
            raise DataError(
                f"{out}: made with other settings ({changes}); use the same ones, or another OUT"
            )
        return
    strangers = [
        name for name in sorted(os.listdir(out) if out.is_dir() else [])
        if not name.startswith(TEMPORARY_PREFIX) and name != MEMORY
    ]  # fmt: skip
    if strangers:
        raise DataError(
            f"{out}: not empty ({strangers[0]} is there) and not made by this command; give a new "
            "or empty folder as OUT"
        )


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Refuse to work in OUT while another process does; its death ends its claim.

    Raises:
        DataError: if another process is at work there.
    """
    (out / MEMORY).mkdir(parents=True, exist_ok=True)
    with open(out / MEMORY / "lock", "ab") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # no such locks on this system
            pass
        except OSError:
            raise DataError(f"{out}: another process is making data here; wait for it") from None
        yield


def record_path(out: Path, category: str, model: str) -> Path:
    """Where a mesh's record is."""
    return out / MEMORY / "clouds" / category / f"{model}{SUFFIX}"


def write_record(
    out: Path, category: str, model: str, sha256: str, points: np.ndarray, normals: np.ndarray
) -> None:
    """Remember the cloud of a mesh: the hash on a line, then (N, 6) float32."""
    table = np.concatenate([points, normals], axis=1).astype("<f4")
    write_bytes(record_path(out, category, model), f"{sha256}\n".encode() + table.tobytes())


def recorded_sha256(out: Path, category: str, model: str) -> str:
    """The hash of the mesh file that a record is of, or "" if there is no record."""
    try:
        with open(record_path(out, category, model), "rb") as file:
            return file.readline().decode("ascii", "replace").strip()
    except FileNotFoundError:
        return ""


def read_record(out: Path, category: str, model: str) -> CloudRecord:
    """Read a record that is there."""
    first, _, rest = record_path(out, category, model).read_bytes().partition(b"\n")
    table = np.frombuffer(rest, "<f4").reshape(-1, 6)
    return CloudRecord(first.decode(), table[:, :3], table[:, 3:])


def recorded_models(out: Path) -> list[tuple[str, str]]:
    """(category, model) of every record, sorted."""
    root = out / MEMORY / "clouds"
    return sorted(
        (path.parent.name, path.name[: -len(SUFFIX)]) for path in root.glob(f"*/*{SUFFIX}")
    )


def forget(out: Path, category: str, model: str) -> None:
    """Remove a record."""
    record_path(out, category, model).unlink(missing_ok=True)


def tidy(out: Path) -> None:
    """Remove what a killed run left, and folders without records; nobody may be at work."""
    remove_leftovers(out / MEMORY)
    for path in sorted(out.glob(f"{TEMPORARY_PREFIX}*")):
        if path.is_file():
            path.unlink()
    for folder in sorted((out / MEMORY / "clouds").glob("*")):
        if not any(folder.iterdir()):
            folder.rmdir()

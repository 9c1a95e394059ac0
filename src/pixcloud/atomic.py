"""Writing: a file or a folder appears under its name whole, or not at all.

In: what is to be written, and where. Out: one rename on the same file system. A process that is
killed leaves nothing but a temporary name, which begins with `TEMPORARY_PREFIX`, so that readers
skip it (it is hidden) and a later run can remove it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_PREFIX = ".tmp-"


def temporary_name(path: Path, scratch: Path | None = None) -> Path:
    """A name beside `path`, or in the folder `scratch`, that only this process uses."""
    return (scratch or path.parent) / f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}"


def write_bytes(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Replace or create the file `path` in one step.

    Args:
        path: The file; its folder is created when it is missing.
        content: All of its bytes.
        durable: Wait until the bytes are on the disk before the name changes: slow, and needed
            only where a power cut must not lose what the user cannot make again.
    """
    with replaced_file(path, durable=durable) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Replace or create the file `path` in one step, in UTF-8, and wait until it is on the disk."""
    write_bytes(path, content.encode(), durable=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames within `folder` survive a power cut, where the system allows it."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replaced_file(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Give a temporary file name to write to; rename it to `path` if the block ends well.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replaced_file(Path(folder) / "a.txt") as temporary:
        ...         _ = temporary.write_text("whole")
        ...     sorted(p.name for p in Path(folder).iterdir())
        ['a.txt']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        yield temporary
        if durable:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def replaced_folder(path: Path, scratch: Path | None = None) -> Iterator[Path]:
    """Give a new empty folder to fill; rename it to `path` if the block ends well.

    A folder that stands at `path` is removed just before the rename: a kill between the two steps
    leaves none, never a mixture of the two.

    Args:
        path: The folder to create or replace.
        scratch: Where to fill it, on the same file system; None means beside `path`.
    """
    path = path.absolute()  # "." has no name, and would hold what replaces it
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path, scratch)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def remove_leftovers(folder: Path) -> int:
    """Remove every temporary file and folder below `folder`; return how many there were."""
    leftovers = []
    for parent, folders, files in os.walk(folder):
        leftovers += [Path(parent, name) for name in files if name.startswith(TEMPORARY_PREFIX)]
        for name in [name for name in folders if name.startswith(TEMPORARY_PREFIX)]:
            folders.remove(name)
            leftovers.append(Path(parent, name))
    for path in leftovers:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(leftovers)

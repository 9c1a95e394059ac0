"""A small disk in memory (tmpfs) with exactly so many free pages; always unmounted."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PAGE = resource.getpagesize()
BALLAST = "ballast"


def cannot_mount() -> str:
    """Why no small disk can be made here; empty if one can."""
    if not hasattr(os, "geteuid") or shutil.which("mount") is None:
        return "no mount command on this system"
    try:
        with tempfile.TemporaryDirectory() as place, small_disk(Path(place), 2**20):
            return ""
    except OSError as error:
        return f"a tmpfs cannot be mounted ({error}); root may"


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[Path]:
    """A tmpfs of `size` bytes at `place` for the block.

    Raises:
        OSError: if the system does not allow it.
    """
    place.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise OSError(done.stderr.strip() or f"mount ended with {done.returncode}")
    try:
        yield place
    finally:
        unmount(place)


def unmount(place: Path) -> None:
    """Unmount it, at once or as soon as nobody uses it any more."""
    if subprocess.run(["umount", str(place)], capture_output=True, check=False).returncode != 0:
        subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


def leave_pages(disk: Path, pages: int) -> None:
    """Fill the disk with one file until `pages` pages are free.

    Raises:
        OSError: if it cannot be brought to that.
    """
    free = os.statvfs(disk)
    many = free.f_bavail * free.f_frsize // PAGE - pages
    block = bytes(PAGE)
    with (disk / BALLAST).open("wb", buffering=0) as stream:
        for _ in range(many):
            stream.write(block)
    now = os.statvfs(disk)
    if now.f_bavail * now.f_frsize != pages * PAGE:
        raise OSError(f"{disk}: {now.f_bavail * now.f_frsize} bytes are free, not {pages} pages")


def make_room(disk: Path) -> None:
    """Remove what `leave_pages` wrote."""
    with contextlib.suppress(FileNotFoundError):
        (disk / BALLAST).unlink()

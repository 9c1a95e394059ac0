"""Stage 1, what a mesh file leads to: materials and textures -> one hash, for `make_jobs`.

The pictures of an OBJ change with its .mtl and with the textures that this one names, and those of
a PLY with the texture that its header names. The other formats hold all that is read of them.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

OF_OBJ = re.compile(rb"^[ \t]*mtllib[ \t]+(.+?)[ \t\r]*$", re.MULTILINE)
OF_MTL = re.compile(rb"^[ \t]*map_kd[ \t]+(.+?)[ \t\r]*$", re.MULTILINE | re.IGNORECASE)
OF_PLY = re.compile(rb"^comment[ \t]+TextureFile[ \t]+(.+?)[ \t\r]*$", re.MULTILINE | re.IGNORECASE)
PLY_HEADER = 1 << 16  # bytes in which its comments stand


def mesh_sha256(path: Path) -> str:
    """SHA-256 of a mesh file in hexadecimal; of it and its companions where it has some.

    Raises:
        OSError: if the mesh file cannot be read; companions may be missing.
    """
    content = path.read_bytes()
    digest = hashlib.sha256(content)
    for companion in companions(path, content):
        digest.update(companion.name.encode("utf-8", "surrogatepass"))
        digest.update(_hash_of(companion))
    return digest.hexdigest()


def companions(path: Path, content: bytes) -> list[Path]:
    """Files that are read beside a mesh file with these bytes, in the order of their mention."""
    suffix = path.suffix.lower()
    if suffix == ".ply":
        return _named(OF_PLY, content[:PLY_HEADER], path.parent)
    if suffix != ".obj":
        return []
    found = []
    for material in _named(OF_OBJ, content, path.parent):
        found.append(material)
        if material.is_file():
            found += _named(OF_MTL, material.read_bytes(), path.parent)
    return found


def _named(pattern: re.Pattern[bytes], content: bytes, folder: Path) -> list[Path]:
    """Files in a folder that some lines name, each once."""
    names = dict.fromkeys(pattern.findall(content))
    return [folder / name.decode("utf-8", "surrogateescape") for name in names if b"\0" not in name]


def _hash_of(path: Path) -> bytes:
    """SHA-256 of a file; of nothing if it is not there."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return bytes(32)

"""Stage 4, encoders of a user's own: "package.module:Class" or "path/file.py:Class" -> the class.

`pixcloud.encoders` registers what is found here. Importing runs the code: only names that a user
has given arrive here, and never those that a saved encoder holds.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from pixcloud.encoders.base import PointEncoder
from pixcloud.errors import ConfigError, nearest
from pixcloud.machine import CODE_VARIABLE

# Installed packages offer encoders by short names in this group of entry points.
GROUP = "pixcloud.encoders"


def is_code(name: str) -> bool:
    """Whether an encoder's name says where its code is, rather than what it is registered as."""
    return ":" in name or name.endswith(".py")


def key_of(name: str) -> str:
    """What it is registered and saved as: of a file, its own name without the folders.

    >>> key_of("models/mine.py:Mine"), key_of("package.models:Mine")
    ('mine.py:Mine', 'package.models:Mine')
    """
    place, colon, cls = name.rpartition(":")
    return f"{Path(place).name}:{cls}" if colon and place.endswith(".py") else name


def named_by_the_user(key: str) -> str:
    """The name in PIXCLOUD_CODE that is registered as `key`, or nothing."""
    names = [name.strip() for name in os.environ.get(CODE_VARIABLE, "").split(",")]
    return next((name for name in names if key_of(name) == key), "")


def import_class(name: str) -> type[PointEncoder]:
    """Import the code, and return the class.

    Args:
        name: "package.module:Class", importable as Python finds modules, or "path/file.py:Class".

    Raises:
        ConfigError: if there is no such module, file or class, its import fails, or the class is
            no `PointEncoder`.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute.isidentifier():
        example = name if name.endswith(".py") else place or "package.module"
        raise ConfigError(f"encoder '{name}': name the class too, as in {example}:MyEncoder")
    module = _of_file(place, name) if place.endswith(".py") else _of_package(place, name)
    found = getattr(module, attribute, None)
    if found is None:
        classes = [key for key, value in vars(module).items() if _is_encoder(value)]
        hint = nearest(attribute, classes) if classes else "it has no encoder"
        raise ConfigError(f"encoder '{name}': no {attribute} in {place}; {hint}")
    if not _is_encoder(found):
        raise ConfigError(
            f"encoder '{name}': {attribute} is no encoder; derive it from "
            "pixcloud.encoders.PointEncoder"
        )
    return found


def installed_class(name: str) -> type[PointEncoder] | None:
    """The encoder that an installed package offers under a short name, if one does.

    Raises:
        ConfigError: if it cannot be imported, or is no `PointEncoder`.
    """
    offers = importlib.metadata.entry_points(group=GROUP, name=name)
    return import_class(next(iter(offers)).value) if offers else None


def source_sha256(cls: type) -> str:
    """SHA-256 of the file that a class is in; empty where there is none, as in a notebook."""
    try:
        return hashlib.sha256(Path(inspect.getfile(cls)).read_bytes()).hexdigest()
    except (TypeError, OSError):
        return ""


def _is_encoder(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, PointEncoder) and value is not PointEncoder


def _of_package(place: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name and (place == error.name or place.startswith(f"{error.name}.")):
            raise ConfigError(
                f"encoder '{name}': no module {error.name}; install its package, put its folder "
                "into PYTHONPATH, or name the file: path/to/file.py:MyEncoder"
            ) from error
        raise _failed(place, name, error) from error
    except Exception as error:
        raise _failed(place, name, error) from error


def _of_file(place: str, name: str) -> ModuleType:
    path = Path(place).expanduser().resolve()
    if not path.is_file():
        raise ConfigError(f"encoder '{name}': no file {place}; give its path from here, or whole")
    # One module for each file, known to Python: dataclasses and annotations look it up.
    known_as = f"_pixcloud_code_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}_{path.stem}"
    if known_as in sys.modules:
        return sys.modules[known_as]
    spec = importlib.util.spec_from_file_location(known_as, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[known_as] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[known_as]
        raise _failed(place, name, error) from error
    return module


def _failed(place: str, name: str, error: Exception) -> ConfigError:
    reason = " ".join(str(error).split())
    return ConfigError(
        f"encoder '{name}': importing {place} failed ({type(error).__name__}: {reason})"
    )

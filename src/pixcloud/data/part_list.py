"""Stage 1, `parts.json`: what a user calls the parts of a class <-> class -> label -> name.

    {"mug": ["cup", "handle"]}                  of the labels 0 and 1
    {"mug": {"1": "cup", "7": "handle"}}        of any labels

`folder` reads it; what labels shapes writes it beside them, so that they can be learned from again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pixcloud.atomic import write_text
from pixcloud.errors import ConfigError, FileFormatError

PART_LIST = "parts.json"
PartList = dict[str, dict[int, str]]


def read_part_list(path: Path) -> PartList:
    """Class -> label -> name; empty where there is no such file.

    Raises:
        FileFormatError: if it is broken, or numbers parts with anything but 0 and more.
    """
    if not path.is_file():
        return {}
    try:
        content: Any = json.loads(path.read_text("utf-8-sig"))
        return {str(category): _numbered(parts) for category, parts in content.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise FileFormatError(
            f'{path}: expected {{"class": ["part", ...]}} or {{"class": {{"label": "part"}}}} '
            f"({error})"
        ) from error


def _numbered(parts: Any) -> dict[int, str]:
    if not isinstance(parts, list | dict):
        raise TypeError(f"{parts!r} is no list of parts")
    pairs = parts.items() if isinstance(parts, dict) else enumerate(parts)
    named = {int(label): str(name) for label, name in pairs}
    if len(named) < len(parts) or min(named, default=0) < 0:
        raise ValueError(f"{list(parts)} are not different numbers from 0 on")
    return named


def extended(path: Path, category: str, names: dict[int, str]) -> PartList:
    """What the list at `path` says, and the names of this class with it; nothing is written.

    Raises:
        ConfigError: if the list calls one of these labels by another name: the shapes beside it
            would then mean something else.
        FileFormatError: if it is broken.
    """
    known = read_part_list(path)
    own = known.get(category, {})
    for label, name in names.items():
        if own.get(label, name) != name:
            raise ConfigError(
                f"{path}: label {label} of {category} is called '{own[label]}' there, and '{name}' "
                "here; give another folder"
            )
    return {**known, category: dict(sorted({**own, **names}.items()))}


def write_part_list(path: Path, parts: PartList) -> None:
    """Write a list in one step."""
    write_text(path, json.dumps(parts, indent=1, ensure_ascii=False) + "\n")

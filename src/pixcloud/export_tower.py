"""Stage 8, picture towers on disk: a tower and its projection head <-> safetensors, `config.json`.

Beside it: `pixcloud.export`, which does the same for point encoders, and keeps the picture tower of
a run with them. `pixcloud.import_pictures` writes such folders from weights of others.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from pixcloud._version import __version__
from pixcloud.atomic import replaced_folder, write_text
from pixcloud.encoders.image import ImageEncoder
from pixcloud.errors import WeightsError
from pixcloud.export import (
    CONFIG,
    HEAD,
    PICTURE,
    load_strictly,
    read_head,
    read_meta,
    read_tensors,
    tensors_of,
    weights_sha256,
)
from pixcloud.heads import ProjectionHead

FORMAT = "pixcloud picture tower 1"
WEIGHTS = "tower.safetensors"


def save_tower(
    folder: str | Path,
    tower: ImageEncoder,
    head: ProjectionHead | None = None,
    origin: dict[str, Any] | None = None,
) -> None:
    """Write a picture tower (and its projection head) as a folder, whole or not at all.

    Args:
        folder: new or empty, or a tower that is replaced.
        tower: its name says its architecture.
        head: projection head of the pictures, for protocols that compare projections.
        origin: where the weights come from; JSON values.

    Raises:
        WeightsError: if the folder holds something else, or cannot be written.
    """
    folder = Path(folder).expanduser().absolute()
    if folder.exists() and not (folder.is_dir() and _is_replaceable(folder)):
        raise WeightsError(f"{folder}: holds something that is no picture tower; give a new folder")
    meta = {
        "format": FORMAT,
        "name": tower.name,
        "pooled_dim": tower.pooled_dim,
        "weights_sha256": weights_sha256(tower),
        "origin": origin or {},
        "pixcloud_version": __version__,
    }
    try:
        with replaced_folder(folder) as temporary:
            save_file(tensors_of(tower), temporary / WEIGHTS)
            if head is not None:
                save_file(tensors_of(head), temporary / HEAD)
            write_text(temporary / CONFIG, json.dumps(meta, indent=1) + "\n")
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(f"{folder}: cannot be written ({reason})") from error


def _is_replaceable(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file() or not any(folder.iterdir())


def load_tower(folder: str | Path) -> ImageEncoder:
    """A picture tower that `save_tower` wrote, in evaluation mode, on the CPU.

    Raises:
        WeightsError: if none is there, it is damaged, or its weights do not fit.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "tower"
        >>> save_tower(folder, ImageEncoder("resnet-tiny"))
        >>> load_tower(folder).pooled_dim
        128
    """
    return _load(Path(folder).expanduser(), frozen=False).eval()


def build_tower(name: str, *, frozen: bool = False) -> ImageEncoder:
    """A picture tower by what `image.name` says.

    Args:
        name: a run of `pixcloud pretrain` or its `encoder` folder, whose picture tower is taken; a
            folder of `save_tower`; else as for `ImageEncoder`.
        frozen: keep its weights and batch statistics as they are.

    Raises:
        WeightsError: if none is there, it is damaged, or its weights do not fit.

    Example:
        >>> build_tower("resnet-tiny", frozen=True).pooled_dim
        128
    """
    folder = Path(name).expanduser()
    if (folder / WEIGHTS).is_file():
        return _load(folder, frozen)
    for place in (folder, folder / "encoder"):
        if (place / PICTURE).is_file():
            return _of_run(place, frozen)
    return ImageEncoder(name, frozen=frozen)


def _of_run(folder: Path, frozen: bool) -> ImageEncoder:
    path = folder / PICTURE
    try:
        tower = ImageEncoder(str(read_meta(folder)["picture"]["name"]), frozen=frozen)
    except (KeyError, TypeError) as error:
        raise WeightsError(f"{path}: {CONFIG} beside it does not describe it ({error})") from error
    tensors = {
        name.removeprefix("tower."): tensor
        for name, tensor in read_tensors(path).items()
        if name.startswith("tower.")
    }
    load_strictly(tower, tensors, str(path))
    return tower


def _load(folder: Path, frozen: bool) -> ImageEncoder:
    config, weights = folder / CONFIG, folder / WEIGHTS
    if not config.is_file() or not weights.is_file():
        raise WeightsError(f"{folder}: no picture tower there; expected {CONFIG} and {WEIGHTS}")
    try:
        meta = json.loads(config.read_text(encoding="utf-8"))
        if not isinstance(meta, dict) or meta.get("format") != FORMAT:
            raise ValueError(f"not of the format '{FORMAT}'")
        tower = ImageEncoder(meta["name"], frozen=frozen)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{config}: describes no picture tower ({error})") from error
    load_strictly(tower, read_tensors(weights), str(weights))
    if weights_sha256(tower) != meta.get("weights_sha256"):
        raise WeightsError(
            f"{weights}: not the weights that {CONFIG} beside it describes; save it again"
        )
    return tower


def load_tower_head(folder: str | Path) -> ProjectionHead:
    """The projection head that was saved beside a picture tower.

    Raises:
        WeightsError: if there is none.
    """
    return read_head(Path(folder).expanduser() / HEAD)

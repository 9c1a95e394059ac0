"""Stage 9, fine-tuned models on disk: a module and its description <-> safetensors, `config.json`.

Used by `pixcloud.evaluate.classifier` and `segmenter`, each of which is one kind of model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from pixcloud._version import __version__
from pixcloud.atomic import replaced_folder, write_text
from pixcloud.errors import ConfigError, WeightsError
from pixcloud.export import CONFIG, load_strictly, weights_sha256

Model = TypeVar("Model", bound=nn.Module)


def check_place(folder: str | Path, kind: str) -> Path:
    """The folder that a model is to be saved in, told before any work is done.

    Args:
        folder: new, empty, or holding a model of this kind.
        kind: such as "classifier"; its weights are in KIND.safetensors.

    Raises:
        WeightsError: if something else stands there.
    """
    folder = Path(folder).expanduser().absolute()
    fine = not folder.exists() or (
        folder.is_dir() and (_weights(folder, kind).is_file() or not any(folder.iterdir()))
    )
    if not fine:
        raise WeightsError(f"{folder}: holds something that is no {kind}; give a new folder")
    return folder


def write_model(
    folder: Path,
    model: nn.Module,
    kind: str,
    layout: str,
    meta: dict[str, Any],
    origin: dict[str, Any] | None,
) -> None:
    """Write a model as a folder, whole or not at all.

    Args:
        folder: as `check_place` gave it.
        model: whose weights are written.
        kind: such as "classifier".
        layout: format and version, such as "pixcloud classifier 1".
        meta: what rebuilds the module; JSON values.
        origin: where the weights come from; JSON values.

    Raises:
        WeightsError: if the folder cannot be written.
    """
    meta = {
        "format": layout,
        **meta,
        "weights_sha256": weights_sha256(model),
        "origin": origin or {},
        "pixcloud_version": __version__,
    }
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    try:
        with replaced_folder(folder) as temporary:
            save_file(tensors, _weights(temporary, kind))
            write_text(temporary / CONFIG, json.dumps(meta, indent=1, ensure_ascii=False) + "\n")
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(f"{folder}: cannot be written ({reason})") from error


def read_model(
    folder: str | Path,
    kind: str,
    layout: str,
    build: Callable[[dict[str, Any]], Model],
    writer: str,
) -> Model:
    """A model that `write_model` wrote, in evaluation mode, on the CPU.

    Args:
        folder: that it is in.
        kind: such as "classifier".
        layout: the format that is expected.
        build: the module from its description.
        writer: the command that writes such folders, for messages.

    Raises:
        WeightsError: if none is there, it is damaged, or its weights do not fit.
    """
    folder = Path(folder).expanduser()
    config, weights = folder / CONFIG, _weights(folder, kind)
    if not config.is_file() or not weights.is_file():
        raise WeightsError(
            f"{folder}: no {kind} there; expected {CONFIG} and {weights.name}, which {writer} "
            "writes"
        )
    try:
        meta = json.loads(config.read_text(encoding="utf-8"))
        if not isinstance(meta, dict) or meta.get("format") != layout:
            raise ValueError(f"not of the format '{layout}'")
        model = build(meta)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
        raise WeightsError(f"{config}: describes no {kind} ({error})") from error
    try:
        tensors = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{weights}: cannot be read as safetensors ({error})") from error
    load_strictly(model, tensors, str(weights))
    if weights_sha256(model) != meta.get("weights_sha256"):
        raise WeightsError(
            f"{weights}: not the weights that {CONFIG} beside it describes; save it again"
        )
    return model.eval()


def _weights(folder: Path, kind: str) -> Path:
    return folder / f"{kind}.safetensors"

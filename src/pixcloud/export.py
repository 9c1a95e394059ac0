"""Stage 8, encoders on disk: an encoder <-> a folder of safetensors and `config.json`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from pixcloud._version import __version__
from pixcloud.atomic import sync_folder, write_text
from pixcloud.encoders import PointEncoder, build_saved_encoder
from pixcloud.encoders.image import ImageEncoder
from pixcloud.errors import ConfigError, WeightsError, some
from pixcloud.heads import ProjectionHead
from pixcloud.hub import download, is_hub_id

FORMAT = 1
WEIGHTS = "encoder.safetensors"
HEAD = "projection.safetensors"
PICTURE = "picture.safetensors"
CONFIG = "config.json"


@dataclass(kw_only=True)
class PictureSide:
    """The picture tower of a run and its head; size: of the pictures; num_points: of the clouds."""

    tower: ImageEncoder
    head: ProjectionHead
    name: str
    size: int
    num_points: int


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of a module's state dict, in sorted order."""
    return _sha256(module.state_dict())


def _sha256(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)};".encode())
        digest.update(array.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_encoder(
    folder: str | Path,
    encoder: PointEncoder,
    head: ProjectionHead | None = None,
    origin: dict[str, Any] | None = None,
    picture: PictureSide | None = None,
) -> None:
    """Write an encoder (and its projection head) as a folder, whole or not at all.

    Args:
        folder: an encoder in it is replaced, other files beside the encoder stay.
        encoder: made by `build_encoder`.
        head: projection head of the clouds, for protocols that compare projections.
        origin: where the weights come from; JSON values, free of times.
        picture: the picture tower that it was trained with, for `load_cross_modal`.

    Raises:
        WeightsError: if the folder holds something else, or cannot be written.
    """
    folder = Path(folder).expanduser().absolute()
    if not hasattr(encoder, "spec"):
        raise WeightsError(
            f"{type(encoder).__name__}: it does not know its settings; make it with build_encoder"
        )
    if folder.exists() and not _is_replaceable(folder):
        raise WeightsError(f"{folder}: holds something that is no encoder; give a new folder")
    meta = {
        "format": FORMAT,
        "encoder": encoder.spec,
        "point_dim": encoder.point_dim,
        "pooled_dim": encoder.pooled_dim,
        "weights_sha256": weights_sha256(encoder),
        "origin": origin or {},
        "pixcloud_version": __version__,
    }
    if picture is not None:
        meta["picture"] = {
            "name": picture.name,
            "frozen": picture.tower.frozen,
            "size": picture.size,
            "num_points": picture.num_points,
        }
    # Fixed names, so that the next save clears what a kill left behind.
    temporary = folder.with_name(f".{folder.name}.saving")
    aside = folder.with_name(f".{folder.name}.old")
    try:
        _write_parts(temporary, encoder, head, picture, meta)
        _exchange(folder, temporary, aside)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(f"{folder}: cannot be written ({reason})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_replaceable(folder: Path) -> bool:
    return folder.is_dir() and ((folder / CONFIG).is_file() or not any(folder.iterdir()))


def _write_parts(
    folder: Path,
    encoder: PointEncoder,
    head: ProjectionHead | None,
    picture: PictureSide | None,
    meta: dict[str, Any],
) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_file(tensors_of(encoder), folder / WEIGHTS)
    if head is not None:
        save_file(tensors_of(head), folder / HEAD)
    if picture is not None:
        both = nn.ModuleDict({"tower": picture.tower, "head": picture.head})
        save_file(tensors_of(both), folder / PICTURE)
    write_text(folder / CONFIG, json.dumps(meta, indent=1) + "\n")
    for path in folder.iterdir():
        with open(path, "rb") as stream:
            os.fsync(stream.fileno())
    sync_folder(folder)


def _exchange(folder: Path, temporary: Path, aside: Path) -> None:
    """Put `temporary` where `folder` is; a folder cannot be replaced in one step."""
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        for path in folder.iterdir():
            if path.name not in (WEIGHTS, HEAD, PICTURE, CONFIG):
                (shutil.copytree if path.is_dir() else shutil.copy2)(path, temporary / path.name)
        os.replace(folder, aside)
    try:
        os.replace(temporary, folder)
    except OSError:
        if aside.exists():
            os.replace(aside, folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)
    sync_folder(folder.parent)


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """A module's state dict, as safetensors takes it."""
    return {name: t.detach().cpu().contiguous() for name, t in module.state_dict().items()}


def load_encoder(source: str | Path) -> PointEncoder:
    """A pre-trained point encoder, in evaluation mode, on the CPU.

    Args:
        source: a run folder, a folder that `save_encoder` or `pixcloud import` wrote, or a
            Hugging Face Hub id such as "someone/dgcnn-shapenet", or, pinned to a branch, tag or
            commit, "someone/dgcnn-shapenet@v1".

    Raises:
        WeightsError: if nothing is there, or the weights do not fit the architecture exactly.

    Example:
        >>> from pixcloud.encoders import build_encoder
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "encoder"
        >>> save_encoder(folder, build_encoder("pointnet", embed_dim=32))
        >>> load_encoder(folder).embed(torch.rand(5, 64, 3)).shape
        torch.Size([5, 32])
    """
    folder = find_encoder(source)
    meta = read_meta(folder)
    try:
        spec = meta["encoder"]
        encoder = build_saved_encoder(spec)
    except (KeyError, TypeError, ConfigError) as error:
        raise WeightsError(f"{folder / CONFIG}: names no encoder known here ({error})") from error
    tensors = read_tensors(folder / WEIGHTS)
    load_strictly(encoder, tensors, str(folder / WEIGHTS))
    # Of the tensors as they lie there: loading turns weights saved in other precisions into fp32.
    if meta.get("weights_sha256") not in (None, _sha256(tensors)):
        raise WeightsError(f"{folder / WEIGHTS}: not the weights that {CONFIG} beside it describes")
    return encoder.eval()


def load_head(source: str | Path) -> ProjectionHead:
    """The projection head that was saved beside an encoder.

    Raises:
        WeightsError: if there is none.
    """
    return read_head(find_encoder(source) / HEAD)


def read_head(path: Path) -> ProjectionHead:
    """A projection head from its own file; its sizes are those of the weights.

    Raises:
        WeightsError: if the file is missing or holds no projection head.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: missing; this encoder was saved without its projection head")
    tensors = read_tensors(path)
    try:
        hidden, pooled = tensors["0.weight"].shape
        head = ProjectionHead(pooled, hidden, len(tensors["3.weight"]), bias="0.bias" in tensors)
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path}: not a projection head ({error})") from error
    load_strictly(head, tensors, str(path))
    return head.eval()


def load_strictly(
    module: nn.Module,
    tensors: dict[str, torch.Tensor],
    origin: str,
    names: Mapping[str, str] | None = None,
) -> None:
    """Load a state dict whose names and shapes must be exactly the module's.

    Args:
        module: what is loaded into.
        tensors: state dict.
        origin: file, for messages.
        names: what the file calls a tensor, where that differs.

    Raises:
        WeightsError: naming what is missing, left over or of another shape.
    """
    own, names = module.state_dict(), names or {}
    problems = []
    if missing := sorted(set(own) - set(tensors)):
        problems.append(f"missing: {some(missing)}")
    if extra := sorted(set(tensors) - set(own)):
        problems.append(f"not known here: {some(extra)}")
    wrong = [
        f"{names.get(name, name)} {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}"
        for name in sorted(set(own) & set(tensors))
        if own[name].shape != tensors[name].shape
    ]
    if wrong:
        problems.append(f"of another shape: {some(wrong)}")
    if problems:
        raise WeightsError(f"{origin}: does not fit {type(module).__name__}; {'; '.join(problems)}")
    module.load_state_dict(tensors)


def find_encoder(source: str | Path) -> Path:
    """The folder that holds `config.json` and the weights.

    Raises:
        WeightsError: if there is none.
    """
    path = Path(source).expanduser()
    for folder in (path, path / "encoder"):
        if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
            return folder
    if path.exists():
        raise WeightsError(
            f"{path}: no encoder there; expected {CONFIG} and {WEIGHTS} in it or in encoder/ below "
            "(a run writes them when it ends: --resume true takes one up that was stopped)"
        )
    if not is_hub_id(str(source)):
        raise WeightsError(f"{path}: no such folder; give a run, an exported encoder or a Hub id")
    folder = download(str(source))
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise WeightsError(
            f"{source}: a repository without an encoder; expected {CONFIG} and {WEIGHTS} in it"
        )
    return folder


def read_meta(folder: Path) -> dict[str, Any]:
    """The JSON description of a saved encoder.

    Raises:
        WeightsError: if it is damaged or of another format.
    """
    try:
        meta = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder / CONFIG}: cannot be read ({error})") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise WeightsError(f"{folder / CONFIG}: not an encoder of format {FORMAT}")
    return meta


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file by name.

    Raises:
        WeightsError: if it cannot be read.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: cannot be read as safetensors ({error})") from error

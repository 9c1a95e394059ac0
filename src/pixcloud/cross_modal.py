"""Stage 8, both towers: a run or exported encoder -> clouds and pictures in one space (B, P).

Before it: `export` and `checkpoint`, which hold the weights. After it: retrieval (stage 9) and
whatever asks for clouds by a picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import normalize

from pixcloud.checkpoint import checkpoint_folders, last_good
from pixcloud.config import PretrainConfig
from pixcloud.config_files import load_config
from pixcloud.data.views import unit_sphere
from pixcloud.encoders import PointEncoder, build_saved_encoder, key_of
from pixcloud.encoders.image import ImageEncoder
from pixcloud.errors import ConfigError, WeightsError
from pixcloud.export import (
    CONFIG,
    PICTURE,
    find_encoder,
    load_encoder,
    load_head,
    load_strictly,
    read_meta,
    read_tensors,
)
from pixcloud.export_tower import build_tower
from pixcloud.heads import ProjectionHead

PARTS = ("point_encoder", "point_head", "image_encoder", "image_head")


class CrossModal(nn.Module):
    """Both encoders with their heads: clouds and pictures to one space, compared by cosine.

    Args:
        point_encoder: clouds to pooled features.
        point_head: these to projections.
        image_encoder: pictures to pooled features.
        image_head: these to projections.
        num_points: points per cloud in pre-training; other numbers work, less well.
        picture_size: side of the pictures in pre-training, in pixels.
        origin: what the export says about where the weights come from.
    """

    def __init__(
        self,
        point_encoder: PointEncoder,
        point_head: ProjectionHead,
        image_encoder: ImageEncoder,
        image_head: ProjectionHead,
        *,
        num_points: int,
        picture_size: int,
        origin: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.point_encoder, self.point_head = point_encoder, point_head
        self.image_encoder, self.image_head = image_encoder, image_head
        self.num_points, self.picture_size = num_points, picture_size
        self.origin = origin or {}

    @property
    def dim(self) -> int:
        """P, the length of the projections."""
        return int(self.point_head[3].out_features)  # type: ignore[arg-type]

    @torch.no_grad()
    def embed_points(self, points: Any) -> torch.Tensor:
        """Projections of clouds, of unit length, in evaluation mode and without gradients.

        Each cloud is centred and scaled to the unit sphere, as in training.

        Args:
            points: (B, N, 3) or (N, 3) tensor or array.

        Returns:
            (B, P), or (P,) for a single cloud.

        Raises:
            ValueError: if the last axis is not 3, there are no points, or a coordinate is not
                finite.
        """
        clouds, single = self._input(points, 3, "points must be (B, N, 3) or (N, 3)")
        if clouds.shape[-1] != 3 or clouds.shape[-2] == 0:
            raise ValueError(f"points must be (B, N, 3) or (N, 3), got {tuple(clouds.shape)}")
        with _evaluating(self):
            z = self.point_head(self.point_encoder(unit_sphere(clouds)).pooled)
        return normalize(z, dim=1)[0] if single else normalize(z, dim=1)

    @torch.no_grad()
    def embed_images(self, images: Any) -> torch.Tensor:
        """Projections of pictures, of unit length, in evaluation mode and without gradients.

        Args:
            images: (B, 3, H, W) or (3, H, W) tensor or array, RGB on white: uint8, or real numbers
                in [0, 1]. They are taken in the size they have; `read_picture(path,
                size=model.picture_size)` reads one as in training.

        Returns:
            (B, P), or (P,) for a single picture.

        Raises:
            ValueError: for another shape, an empty picture, or numbers that are not in [0, 1].
        """
        words = "images must be (B, 3, H, W) or (3, H, W)"
        whole = not torch.is_floating_point(torch.as_tensor(images))
        pictures, single = self._input(images, 4, words)
        if pictures.shape[1] != 3 or 0 in pictures.shape[2:]:
            raise ValueError(f"{words}, got {tuple(pictures.shape)}")
        if whole:
            pictures = pictures / 255
        if len(pictures) and (pictures.min() < 0 or pictures.max() > 1):
            raise ValueError("images must be uint8, or real numbers in [0, 1]")
        with _evaluating(self):
            z = self.image_head(self.image_encoder(pictures))
        return normalize(z, dim=1)[0] if single else normalize(z, dim=1)

    def _input(self, values: Any, axes: int, words: str) -> tuple[torch.Tensor, bool]:
        """A batch where the weights are, and whether it was a single item."""
        weight = next(self.point_head.parameters())
        batch = torch.as_tensor(values).to(device=weight.device, dtype=weight.dtype)
        if batch.dim() not in (axes - 1, axes):
            raise ValueError(f"{words}, got {tuple(batch.shape)}")
        if not torch.isfinite(batch).all():
            raise ValueError(f"{words.split()[0]} hold NaN or infinity; remove them first")
        single = batch.dim() == axes - 1
        return (batch[None] if single else batch), single


class _evaluating:
    """Evaluation mode, then every module's own: `train()` would wake what was frozen."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __enter__(self) -> None:
        self.modes = [(module, module.training) for module in self.module.modules()]
        self.module.eval()

    def __exit__(self, *raised: object) -> None:
        for module, mode in self.modes:
            module.training = mode


def load_cross_modal(source: str | Path) -> CrossModal:
    """Both pre-trained towers with their heads, in evaluation mode, on the CPU.

    Args:
        source: a run folder, its `encoder` folder (or a copy of it), or a Hugging Face Hub id. Of a
            run that has not exported both towers, the newest whole checkpoint is taken.

    Raises:
        WeightsError: if no picture tower is there, or weights do not fit exactly.
        CheckpointError: if only checkpoints are there, and none is whole.

    Example:
        >>> model = load_cross_modal("runs/demo")  # doctest: +SKIP
        >>> model.embed_points(points) @ model.embed_images(pictures).T  # doctest: +SKIP
    """
    with torch.random.fork_rng(devices=[]):  # the caller's generator is left as it is
        return _load(source)


def _load(source: str | Path) -> CrossModal:
    run = Path(source).expanduser()
    is_run = bool(checkpoint_folders(run / "checkpoints")) and (run / "config.yaml").is_file()
    try:
        folder = find_encoder(source)
    except WeightsError:
        if is_run:
            return _from_checkpoint(run)
        raise
    if (folder / PICTURE).is_file():
        return _from_export(folder)
    if is_run:
        return _from_checkpoint(run)
    raise WeightsError(
        f"{folder / PICTURE}: missing; this encoder was saved without its picture tower, so that "
        "pictures cannot be compared with clouds; give a run of pixcloud pretrain"
    )


def _from_export(folder: Path) -> CrossModal:
    meta = read_meta(folder)
    path, picture = folder / PICTURE, meta.get("picture") or {}
    tensors = read_tensors(path)
    try:
        tower = ImageEncoder(str(picture["name"]), frozen=bool(picture["frozen"]))
        sizes = {"num_points": int(picture["num_points"]), "picture_size": int(picture["size"])}
        weight = tensors["head.3.weight"]
        hidden, bias = len(tensors["head.0.weight"]), "head.0.bias" in tensors
        head = ProjectionHead(tower.pooled_dim, hidden, len(weight), bias=bias)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: {CONFIG} beside it does not describe it ({error})") from error
    both = nn.ModuleDict({"tower": tower, "head": head})
    load_strictly(both, tensors, str(path))
    model = CrossModal(
        load_encoder(folder), load_head(folder), tower, head, origin=meta.get("origin"), **sizes
    )
    return model.eval()


def _from_checkpoint(run: Path) -> CrossModal:
    """As of the newest whole checkpoint."""
    config: PretrainConfig = load_config(run / "config.yaml")
    saved = last_good(run / "checkpoints", say=lambda line: None)
    assert saved is not None
    try:
        spec = {"name": key_of(config.encoder.name), "settings": config.encoder.settings}
        point_encoder = build_saved_encoder(spec)
    except ConfigError as error:
        raise WeightsError(f"{run / 'config.yaml'}: {error}") from error
    tower = build_tower(config.image.name, frozen=config.image.frozen)
    sizes = config.objective
    dim, pooled = sizes.projection_dim, point_encoder.pooled_dim
    model = CrossModal(
        point_encoder,
        ProjectionHead(pooled, sizes.point_hidden, dim),
        tower,
        ProjectionHead(tower.pooled_dim, sizes.image_hidden, dim, bias=False),
        num_points=config.data.num_points,
        picture_size=config.data.picture_size,
        origin={
            "source": config.data.source,
            "held_out": config.data.held_out,
            "pairs_sha256": saved.state.get("pairs", ""),
            "step": saved.state.get("step"),
        },
    )
    own = {k: v for k, v in saved.model.items() if k.split(".")[0] in PARTS}
    load_strictly(model, own, str(run / "checkpoints"))
    return model.eval()

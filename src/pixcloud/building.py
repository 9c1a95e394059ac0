"""Stage 7, what a run trains: a config -> both encoders with heads and loss -> its `encoder/`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from pixcloud.config import PretrainConfig
from pixcloud.encoders import build_encoder
from pixcloud.evaluate.features import require_points
from pixcloud.export import PictureSide, save_encoder
from pixcloud.export_tower import build_tower
from pixcloud.objective import CrossModalObjective


def build_objective(config: PretrainConfig) -> CrossModalObjective:
    """Both encoders with their heads, weights drawn from the seed.

    Raises:
        ConfigError: for settings that an encoder refuses, or clouds too small for it.
    """
    torch.manual_seed(config.seed)
    point_encoder = build_encoder(config.encoder.name, **config.encoder.settings)
    require_points(point_encoder, config.data.num_points, "data.num_points")
    image_encoder = build_tower(config.image.name, frozen=config.image.frozen)
    return CrossModalObjective(point_encoder, image_encoder, **dataclasses.asdict(config.objective))


def export_objective(
    folder: Path, both: CrossModalObjective, config: PretrainConfig, origin: dict[str, Any]
) -> None:
    """Write both encoders with their heads, as `load_encoder` and `load_cross_modal` read them.

    Raises:
        WeightsError: if the folder cannot be written.
    """
    origin = {
        "method": "CrossPoint",
        "recipe": config.recipe,
        "seed": config.seed,
        "source": config.data.source,
        "held_out": config.data.held_out,
        **origin,
    }
    picture = PictureSide(
        tower=both.image_encoder,
        head=both.image_head,
        name=both.image_encoder.name,  # the architecture's, wherever its weights came from
        size=config.data.picture_size,
        num_points=config.data.num_points,
    )
    save_encoder(folder, *both.exported, origin, picture)

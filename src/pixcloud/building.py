"""Stage 7, what a run trains: a config -> both encoders with heads and loss."""

from __future__ import annotations

import dataclasses

import torch

from pixcloud.config import PretrainConfig
from pixcloud.encoders import build_encoder
from pixcloud.encoders.image import ImageEncoder
from pixcloud.evaluate.features import require_points
from pixcloud.objective import CrossModalObjective


def build_objective(config: PretrainConfig) -> CrossModalObjective:
    """Both encoders with their heads, weights drawn from the seed.

    Raises:
        ConfigError: for settings that an encoder refuses, or clouds too small for it.
    """
    torch.manual_seed(config.seed)
    point_encoder = build_encoder(config.encoder.name, **config.encoder.settings)
    require_points(point_encoder, config.data.num_points, "data.num_points")
    image_encoder = ImageEncoder(config.image.name, frozen=config.image.frozen)
    return CrossModalObjective(point_encoder, image_encoder, **dataclasses.asdict(config.objective))

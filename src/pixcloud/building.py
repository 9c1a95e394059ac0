"""Stage 7, what a run is made of: a config -> both encoders with heads and loss, and Fabric."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import TorchElasticEnvironment
from lightning.fabric.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from pixcloud.config import PretrainConfig
from pixcloud.distributed import World
from pixcloud.encoders import build_encoder
from pixcloud.encoders.image import ImageEncoder
from pixcloud.evaluate.features import require_points
from pixcloud.objective import CrossModalObjective

PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed"}


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


def fabric_for(config: PretrainConfig, world: World) -> Fabric:
    """Precision, device and, with several processes, the averaging of gradients."""
    trainer = config.trainer
    options: dict[str, Any] = {"devices": 1, "strategy": "auto"}
    if world.size > 1:
        # Statistics are equal everywhere, and every output reaches the loss.
        alone: dict[str, Any] = {_buffers_setting(): False, "find_unused_parameters": False}
        strategy = DDPStrategy(gradient_as_bucket_view=True, **alone)
        options = {
            "devices": world.local_size,
            "num_nodes": world.size // world.local_size,
            "strategy": strategy,
            "plugins": [TorchElasticEnvironment()],  # `pixcloud.launch` has set its variables
        }
    precision: Any = PRECISIONS[trainer.precision]
    fabric = Fabric(accelerator=trainer.device, precision=precision, **options)
    fabric.launch()
    return fabric


def _buffers_setting() -> str:
    """What torch calls the setting that sends buffers around in every forward pass."""
    known = inspect.signature(DistributedDataParallel).parameters
    return "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"

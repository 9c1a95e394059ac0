"""Stage 4: points (B, N, 3) -> PointFeatures(per_point (B, N, C) or None, pooled (B, D)).

Every point encoder is a `PointEncoder`; the registry below makes one from its name and settings,
which is also what a saved encoder holds. Picture towers are in `pixcloud.encoders.image`.
"""

from __future__ import annotations

import inspect
from typing import Any

from pixcloud.encoders.base import PointEncoder
from pixcloud.encoders.dgcnn import DGCNN
from pixcloud.encoders.dgcnn_seg import SegmentationDGCNN
from pixcloud.encoders.pct import PCT
from pixcloud.encoders.pointnet import PointNet
from pixcloud.errors import ConfigError, nearest

ENCODERS: dict[str, type[PointEncoder]] = {
    "pointnet": PointNet,
    "dgcnn": DGCNN,
    "dgcnn_seg": SegmentationDGCNN,
    "pct": PCT,
}

__all__ = [
    "DGCNN",
    "ENCODERS",
    "PCT",
    "PointEncoder",
    "PointNet",
    "SegmentationDGCNN",
    "build_encoder",
    "register_encoder",
]


def register_encoder(name: str, cls: type[PointEncoder]) -> None:
    """Make `cls` known as `name`, for `--encoder.name NAME` and for loading saved weights.

    Raises:
        ConfigError: if another class has that name already.
    """
    if ENCODERS.get(name, cls) is not cls:
        raise ConfigError(f"encoder name '{name}' is taken by {ENCODERS[name].__name__}")
    ENCODERS[name] = cls


def build_encoder(name: str, **settings: Any) -> PointEncoder:
    """A point encoder with fresh weights drawn from torch's global generator.

    Args:
        name: a registered name, such as "dgcnn" or "pointnet".
        **settings: keyword arguments of the class.

    Raises:
        ConfigError: for an unknown name or setting (the nearest known one is named), or a value
            that the class refuses.

    Example:
        >>> build_encoder("dgcnn", k=15).pooled_dim
        2048
    """
    if name not in ENCODERS:
        raise ConfigError(f"unknown encoder '{name}': {nearest(name, ENCODERS)}")
    known = list(inspect.signature(ENCODERS[name].__init__).parameters)[1:]
    for key in settings:
        if key not in known:
            raise ConfigError(f"unknown setting '{key}' of {name}: {nearest(key, known)}")
    try:
        encoder = ENCODERS[name](**settings)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"settings of encoder {name}: {reason}") from error
    encoder.spec = {"name": name, "settings": dict(settings)}
    return encoder

"""Stage 9, another number of neighbours: a trained encoder -> one that looks at k of each point.

CrossPoint pre-trains its encoder for parts with k = 15 and fine-tunes it with k = 40. Used by
`pixcloud.evaluate.segment` and `finetune`.
"""

from __future__ import annotations

import inspect

import torch

from pixcloud.encoders import PointEncoder, build_encoder
from pixcloud.errors import ConfigError


def with_neighbours(encoder: PointEncoder, k: int, num_points: int, key: str) -> PointEncoder:
    """The same weights in an encoder of another k; its `spec` says so, and is saved with it.

    Args:
        encoder: made by `build_encoder`; it stays as it is.
        k: neighbours of each point; 0 leaves the encoder's own.
        num_points: points of the clouds that it will see.
        key: what the user calls the setting, such as "segment.k".

    Raises:
        ConfigError: if the encoder has no k, its weights depend on it, or there are fewer points.

    Example:
        >>> encoder = build_encoder("dgcnn", k=15, embed_dim=16, widths=[8, 8, 8, 8])
        >>> with_neighbours(encoder, 40, 2048, "segment.k").spec["settings"]["k"]
        40
    """
    if k == 0:
        return encoder
    name, settings = encoder.spec["name"], encoder.spec["settings"]
    if "k" not in inspect.signature(type(encoder).__init__).parameters:
        raise ConfigError(
            f"{key} = {k}: encoder {name} has no number of neighbours k; leave {key} out"
        )
    if k > num_points:
        points = f"{key.split('.')[0]}.num_points"
        raise ConfigError(
            f"{key} = {k}: of clouds of {points} = {num_points}; set {key} to that or less"
        )
    home = next(encoder.parameters())
    with torch.random.fork_rng(devices=[]):  # initial weights, which do not stay
        changed = build_encoder(name, **{**settings, "k": k})
    try:
        changed.load_state_dict(encoder.state_dict())
    except RuntimeError as error:
        raise ConfigError(
            f"{key} = {k}: the weights of encoder {name} depend on its k; leave {key} out, or "
            f"train one with encoder.settings.k = {k}"
        ) from error
    return changed.to(device=home.device, dtype=home.dtype).train(encoder.training)

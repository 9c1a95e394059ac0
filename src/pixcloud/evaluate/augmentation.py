"""Stage 9, augmentation of labelled clouds: points (B, N, 3) -> points (B, N, 3) for a classifier.

As in `pixcloud.data.views`, in two halves: `draw_cloud` draws the numbers of one cloud as a
function of (seed, epoch, index, stream) and nothing else; `augment` applies them to a batch.
"""

from __future__ import annotations

import numpy as np
import torch

from pixcloud.data.views import generator, unit_sphere
from pixcloud.evaluate.training_settings import AugmentSettings

# Streams of `pixcloud.data.views.generator` beyond those of pre-training; never to be changed.
CLOUD_STREAM, ORDER_STREAM, VOTE_STREAM = 16, 17, 18


def draw_cloud(
    settings: AugmentSettings,
    *,
    seed: int,
    epoch: int,
    index: int,
    stored_points: int,
    num_points: int,
    stream: int = CLOUD_STREAM,
) -> dict[str, np.ndarray]:
    """The random numbers of one cloud.

    Args:
        settings: ranges to draw from.
        seed: of the evaluation.
        epoch: from 0; when voting, the pass.
        index: of the cloud in its split.
        stored_points: points that the cloud has.
        num_points: N, points wanted.
        stream: what the numbers are for.

    Returns:
        subset (N,) int64; scale (3,); angle () in radians; shift (3,) and jitter (N, 3) in radii,
        float32. Without jitter there is no such key.

    Example:
        >>> draws = draw_cloud(AugmentSettings(), seed=0, epoch=0, index=3,
        ...                    stored_points=64, num_points=32)
        >>> draws["scale"].shape, draws["angle"].item()
        ((3,), 0.0)
    """
    rng = generator(seed, epoch, index, stream)
    half_turn = np.deg2rad(settings.rotation) / 2
    draws: dict[str, np.ndarray] = {
        "scale": rng.uniform(settings.scale_low, settings.scale_high, 3).astype(np.float32),
        "angle": np.asarray(rng.uniform(-half_turn, half_turn), np.float32),
        "shift": rng.uniform(-settings.shift, settings.shift, 3).astype(np.float32),
        "subset": np.arange(num_points),
    }
    if settings.subset and stored_points > num_points:
        draws["subset"] = rng.choice(stored_points, num_points, replace=False, shuffle=False)
    if settings.jitter > 0:
        noise = settings.jitter * rng.standard_normal((num_points, 3), dtype=np.float32)
        draws["jitter"] = np.clip(noise, -settings.jitter_clip, settings.jitter_clip)
    return draws


def augment(points: torch.Tensor, draws: dict[str, torch.Tensor]) -> torch.Tensor:
    """Centre and scale to the unit sphere, scale each axis, turn about y, shift, jitter.

    Args:
        points: (B, N, 3) float, the drawn subset already taken.
        draws: of `draw_cloud`, each with a leading axis B, on the same device.

    Returns:
        (B, N, 3).
    """
    x = unit_sphere(points) * draws["scale"][:, None]
    cos, sin = draws["angle"].cos(), draws["angle"].sin()
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    # Rows multiply from the left: p' = p R^T with R the right-handed rotation about y.
    turn = torch.stack([cos, zero, -sin, zero, one, zero, sin, zero, cos], dim=-1)
    x = x @ turn.unflatten(-1, (3, 3)) + draws["shift"][:, None]
    return x + draws["jitter"] if "jitter" in draws else x


def augmented_batch(
    clouds: np.ndarray,
    places: np.ndarray,
    settings: AugmentSettings,
    *,
    seed: int,
    epoch: int,
    num_points: int,
    device: torch.device,
    stream: int = CLOUD_STREAM,
) -> torch.Tensor:
    """Some clouds of a split, each with its own draws: (S, M, 3) and places (B,) -> (B, N, 3)."""
    return augmented_batch_with_places(
        clouds,
        places,
        settings,
        seed=seed,
        epoch=epoch,
        num_points=num_points,
        device=device,
        stream=stream,
    )[0]


def augmented_batch_with_places(
    clouds: np.ndarray,
    places: np.ndarray,
    settings: AugmentSettings,
    *,
    seed: int,
    epoch: int,
    num_points: int,
    device: torch.device,
    stream: int = CLOUD_STREAM,
) -> tuple[torch.Tensor, np.ndarray]:
    """The same, and which of its stored points each cloud has (B, N) int64, for their labels."""
    drawn = [
        draw_cloud(
            settings,
            seed=seed,
            epoch=epoch,
            index=int(place),
            stored_points=clouds.shape[1],
            num_points=num_points,
            stream=stream,
        )
        for place in places
    ]
    draws = {name: np.stack([each[name] for each in drawn]) for name in drawn[0]}
    kept = draws.pop("subset")
    points = np.take_along_axis(clouds[places], kept[..., None], axis=1)
    on_device = {name: torch.from_numpy(value).to(device) for name, value in draws.items()}
    batch = torch.from_numpy(np.ascontiguousarray(points)).float().to(device)
    return augment(batch, on_device), kept

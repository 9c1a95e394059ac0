"""Stage 3, augmentation: clouds (B, V, N, 3) and pictures (B, 3, H, W) uint8 -> augmented views.

Two halves. `draw_pair` draws every random number of a sample, as a function of (seed, epoch, index
in the data set, view) and nothing else; it needs no torch and runs where the files are read.
`augment_clouds` and `augment_pictures` apply the numbers to a whole batch, on any device, so that
a run does not depend on workers, batch order or earlier draws.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from pixcloud.config import ViewConfig

if TYPE_CHECKING:
    import torch

VIEWS = 2

# The orders in which brightness (0), contrast (1) and saturation (2) may be changed.
JITTER_ORDERS = tuple(itertools.permutations(range(3)))

# Streams of one sample: one for each view of the cloud and one for the picture; the order of an
# epoch has one more of its sample 0; further pictures have the ones behind it. Their numbers are
# part of what a seed means, so they never change.
PICTURE_STREAM = VIEWS
ORDER_STREAM = VIEWS + 1


def generator(seed: int, epoch: int, index: int, stream: int) -> np.random.Generator:
    """The counter-based generator (Philox) of one stream of one sample in one epoch."""
    return np.random.Generator(
        np.random.Philox(np.random.SeedSequence((seed, epoch, index, stream)))
    )


def draw_pair(
    config: ViewConfig,
    *,
    seed: int,
    epoch: int,
    index: int,
    stored_points: int,
    num_points: int,
    pictures: int,
) -> dict[str, np.ndarray]:
    """All random numbers of one sample.

    Args:
        config: ranges to draw from.
        seed: of the run.
        epoch: from 0.
        index: of the sample in the sorted data set.
        stored_points: points of the cloud on disk, at least `num_points`.
        num_points: N, points of a view.
        pictures: pictures of the shape, of which one is chosen.

    Returns:
        subset (V, N) int64, points of each view; scale (V,); angle (V,) in radians; shift (V, 3)
        as shares of the extent; jitter (V, N, 3) in units of the sphere's radius; drop (V, N)
        bool; choice (), the picture; factors (3,) of brightness, contrast and saturation; order
        (), a place in `JITTER_ORDERS`; flip () bool. Real numbers are float32. Where the config
        asks for them, also what `_draw_cuts` returns, with a leading axis V. With several pictures
        (`views.pictures`) choice, factors, order and flip have a leading axis for them.

    Example:
        >>> draws = draw_pair(ViewConfig(), seed=0, epoch=0, index=7,
        ...                   stored_points=64, num_points=32, pictures=24)
        >>> draws["jitter"].shape
        (2, 32, 3)
    """
    views = [
        _draw_view(config, generator(seed, epoch, index, view), stored_points, num_points)
        for view in range(VIEWS)
    ]
    draws = {name: np.stack([view[name] for view in views]) for name in views[0]}
    # Further pictures have streams of their own, so that the first one is what it is alone.
    streams = [PICTURE_STREAM, *range(ORDER_STREAM + 1, ORDER_STREAM + config.pictures)]
    chosen: list[dict[str, np.ndarray]] = []
    left = list(range(pictures))
    for stream in streams:
        left = left or list(range(pictures))
        chosen.append(_draw_picture(config, generator(seed, epoch, index, stream), left))
    if config.pictures == 1:
        return draws | chosen[0]
    return draws | {name: np.stack([one[name] for one in chosen]) for name in chosen[0]}


def _draw_picture(
    config: ViewConfig, rng: np.random.Generator, left: list[int]
) -> dict[str, np.ndarray]:
    """One of the pictures `left`, from which it is taken, and what is done to it."""
    choice = left.pop(int(rng.integers(len(left))))
    spread = np.array([config.brightness, config.contrast, config.saturation])
    return {
        "choice": np.asarray(choice),
        "factors": rng.uniform(1 - spread, 1 + spread).astype(np.float32),
        "order": np.asarray(rng.integers(len(JITTER_ORDERS))),
        "flip": np.asarray(rng.random() < config.flip),
    }


def _draw_view(
    config: ViewConfig, rng: np.random.Generator, stored_points: int, num_points: int
) -> dict[str, np.ndarray]:
    if stored_points > num_points:
        subset = rng.choice(stored_points, num_points, replace=False, shuffle=False)
    else:
        subset = np.arange(num_points)
    half_turn = np.deg2rad(config.rotation) / 2
    noise = config.jitter * rng.standard_normal((num_points, 3), dtype=np.float32)
    share = rng.uniform(0, config.dropout)
    drawn = {
        "subset": subset.astype(np.int64),
        "scale": np.float32(rng.uniform(config.scale_low, config.scale_high)),
        "angle": np.float32(rng.uniform(-half_turn, half_turn)),
        "shift": rng.uniform(-config.shift, config.shift, 3).astype(np.float32),
        "jitter": np.clip(noise, -config.jitter_clip, config.jitter_clip),
        "drop": rng.random(num_points, dtype=np.float32) < share,
    }
    return drawn | _draw_cuts(config, rng, num_points)


def _draw_cuts(
    config: ViewConfig, rng: np.random.Generator, num_points: int
) -> dict[str, np.ndarray]:
    """What came later than the published draws, which it therefore follows, and only where asked.

    Returns:
        Of one view, float32: stretch (3,), factors; crop_share (), crop_direction (3,) and
        crop_refill (N,); hole_share (), hole_centre () and hole_refill (N,); drop_refill (N,); see
        `pixcloud.data.cuts`. normalize () is True.
    """
    drawn: dict[str, np.ndarray] = {}
    if config.stretch > 1:
        limit = np.log(config.stretch)
        drawn["stretch"] = np.exp(rng.uniform(-limit, limit, 3)).astype(np.float32)
    if config.crop:
        drawn["crop_share"] = np.array(rng.uniform(0, config.crop), np.float32)
        drawn["crop_direction"] = rng.standard_normal(3, dtype=np.float32)
        drawn["crop_refill"] = rng.random(num_points, dtype=np.float32)
    if config.hole:
        drawn["hole_share"] = np.array(rng.uniform(0, config.hole), np.float32)
        drawn["hole_centre"] = np.array(rng.random(), np.float32)
        drawn["hole_refill"] = rng.random(num_points, dtype=np.float32)
    if config.dropout_fill == "others":
        drawn["drop_refill"] = rng.random(num_points, dtype=np.float32)
    if config.normalize:
        drawn["normalize"] = np.asarray(True)
    return drawn


def unit_sphere(points: torch.Tensor) -> torch.Tensor:
    """Centre clouds (B, N, 3) on their mean and scale them so that the farthest point has norm 1.

    A cloud whose points all coincide is centred only.
    """
    points = _in_range(points)
    points = _in_range(points - points.mean(dim=1, keepdim=True))
    radius = points.norm(dim=-1).amax(dim=1)[:, None, None]
    return points / radius.masked_fill(radius == 0, 1)


def _in_range(points: torch.Tensor) -> torch.Tensor:
    """Clouds (B, N, 3) whose sums and squares are in the range of fp32; ordinary ones as they are.

    These are divided by 1, which changes no bit.
    """
    largest = points.abs().amax(dim=(1, 2), keepdim=True)
    ordinary = ((largest > 1e-15) & (largest < 1e15)) | (largest == 0)
    return points / largest.masked_fill(ordinary, 1)


def augment_clouds(points: torch.Tensor, draws: dict[str, torch.Tensor]) -> torch.Tensor:
    """Apply the draws in CrossPoint's order, which matters.

    Centre and scale to the unit sphere; scale; rotate about y; translate by shares of the extent
    that the cloud then has; jitter; replace dropped points by the cloud's first point. Where there
    are draws for it: crops and holes, then a factor for each axis, before the scaling; other points
    for those that are dropped; and at the end the unit sphere again.

    Args:
        points: (B, V, N, 3) float32.
        draws: of `draw_pair`, each with a leading axis B, on the same device.

    Returns:
        (V, B, N, 3), so that each view is one contiguous batch.
    """
    import torch

    from pixcloud.data import cuts

    batch, views, num_points, _ = points.shape
    x = unit_sphere(points.flatten(0, 1)).view(batch, views, num_points, 3)
    if "crop_share" in draws:
        x = cuts.crop(x, draws["crop_direction"], draws["crop_share"], draws["crop_refill"])
    if "hole_share" in draws:
        x = cuts.hole(x, draws["hole_centre"], draws["hole_share"], draws["hole_refill"])
    if "stretch" in draws:
        x = x * draws["stretch"][:, :, None]
    cos, sin = draws["angle"].cos(), draws["angle"].sin()
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    # Rows multiply from the left: p' = p R^T with R the right-handed rotation about y.
    turn = torch.stack([cos, zero, -sin, zero, one, zero, sin, zero, cos], dim=-1)
    turn = turn.unflatten(-1, (3, 3)) * draws["scale"][..., None, None]
    x = x @ turn
    extent = x.amax(2, keepdim=True) - x.amin(2, keepdim=True)
    x = x + draws["shift"][:, :, None] * extent
    x = x + draws["jitter"]
    if "drop_refill" in draws:
        x = cuts.drop_others(x, draws["drop"], draws["drop_refill"])
    else:
        x = torch.where(draws["drop"][..., None], x[:, :, :1], x)
    if "normalize" in draws:
        x = unit_sphere(x.flatten(0, 1)).view_as(x)
    return x.transpose(0, 1).contiguous()


def augment_pictures(pictures: torch.Tensor, draws: dict[str, torch.Tensor]) -> torch.Tensor:
    """Colour jitter in each picture's own order, then mirroring: uint8 to float32 in [0, 1].

    The tower normalises, because towers differ in what they expect.

    Args:
        pictures: (B, 3, H, W) uint8 RGB, or (B, m, 3, H, W) of several of each shape.
        draws: of `draw_pair`, each with a leading axis B, on the same device.

    Returns:
        (B, 3, H, W) float32, or (B m, 3, H, W), those of a shape one after the other.
    """
    import torch
    from kornia import enhance

    if pictures.dim() == 5:
        names = ("factors", "order", "flip")
        draws = {name: draws[name].flatten(0, 1) for name in names}
        pictures = pictures.flatten(0, 1)

    adjust = (
        enhance.adjust_brightness_accumulative,
        enhance.adjust_contrast_with_mean_subtraction,
        enhance.adjust_saturation_with_gray_subtraction,
    )
    x = pictures.float() / 255
    out = torch.empty_like(x)
    orders = draws["order"].tolist()
    for number in sorted(set(orders)):
        chosen = torch.tensor([i for i, o in enumerate(orders) if o == number], device=x.device)
        part, factors = x[chosen], draws["factors"][chosen]
        for step in JITTER_ORDERS[number]:
            part = adjust[step](part, factors[:, step])
        out[chosen] = part
    return torch.where(draws["flip"][:, None, None, None], out.flip(-1), out)

"""Augmentation: draws are functions of (seed, epoch, index, view); views against a plain twin."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from pixcloud.config import ViewConfig
from pixcloud.data import cuts
from pixcloud.data.views import (
    JITTER_ORDERS,
    augment_clouds,
    augment_pictures,
    draw_pair,
    generator,
    unit_sphere,
)
from reference.plain_ops import plain_cut, plain_view


def draws(index: int, seed: int = 0, epoch: int = 0, **changes: object) -> dict[str, np.ndarray]:
    config = ViewConfig(**changes)  # type: ignore[arg-type]
    return draw_pair(
        config,
        seed=seed,
        epoch=epoch,
        index=index,
        stored_points=40,
        num_points=32,
        pictures=24,
    )


def stacked(samples: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(np.stack([s[k] for s in samples])) for k in samples[0]}


def test_draws_depend_on_nothing_else() -> None:
    first = draws(3, seed=1, epoch=2)
    for other in range(5):
        draws(other)
    again = draws(3, seed=1, epoch=2)
    assert all(np.array_equal(first[k], again[k]) for k in first)
    for changed in (draws(4, 1, 2), draws(3, 2, 2), draws(3, 1, 3)):
        assert not np.array_equal(first["jitter"], changed["jitter"])
    assert not np.array_equal(first["jitter"][0], first["jitter"][1])  # the views differ


def test_golden_draws() -> None:
    """A change of these is a change of what every seed means."""
    assert generator(0, 0, 0, 0).random(3).round(6).tolist() == GOLDEN_UNIFORM
    found = draws(0)
    assert float(found["scale"][0]) == pytest.approx(GOLDEN_SCALE, abs=1e-6)
    assert int(found["choice"]) == GOLDEN_CHOICE
    sums = {k: round(float(np.sum(v, dtype=np.float64)), 4) for k, v in found.items()}
    assert sums == GOLDEN_SUMS


GOLDEN_UNIFORM = [0.014067, 0.257767, 0.471565]
GOLDEN_SCALE = 1.1899679
GOLDEN_CHOICE = 17
GOLDEN_SUMS = {
    "subset": 1254.0,
    "scale": 2.9961,
    "angle": 2.8223,
    "shift": 0.5937,
    "jitter": -0.1306,
    "drop": 49.0,
    "choice": 17.0,
    "factors": 2.9153,
    "order": 0.0,
    "flip": 1.0,
}


def test_ranges() -> None:
    many = [draws(i) for i in range(300)]
    scale = np.concatenate([d["scale"] for d in many])
    assert 0.5 <= scale.min() < 0.55
    assert 1.95 < scale.max() <= 2
    angle = np.concatenate([d["angle"] for d in many])
    assert angle.min() < -3
    assert angle.max() > 3
    assert np.abs(angle).max() <= np.pi + 1e-6
    shift = np.concatenate([d["shift"] for d in many])
    assert np.abs(shift).max() <= 0.5
    jitter = np.concatenate([d["jitter"] for d in many])
    assert np.abs(jitter).max() <= 0.05
    assert jitter.std() == pytest.approx(0.01, rel=0.02)
    shares = np.concatenate([d["drop"].mean(-1) for d in many])
    assert shares.max() > 0.75
    assert shares.mean() == pytest.approx(0.4375, abs=0.03)
    assert {int(d["choice"]) for d in many} == set(range(24))
    assert {int(d["order"]) for d in many} == set(range(6))
    factors = np.stack([d["factors"] for d in many])
    assert 0.6 <= factors.min() < factors.max() <= 1.4
    assert 0.4 < np.mean([bool(d["flip"]) for d in many]) < 0.6
    for d in many[:20]:
        for subset in d["subset"]:
            assert len(set(subset.tolist())) == 32


@pytest.mark.parametrize("kind", ["random", "same", "huge", "one point"])
def test_clouds_against_the_plain_twin(kind: str) -> None:
    rng = np.random.default_rng(0)
    samples = [draws(i) for i in range(3)]
    points = rng.normal(size=(3, 2, 32, 3)).astype(np.float32)
    if kind == "same":
        points[:] = 1.5
    elif kind == "huge":
        points = points * 1e4 + 1e5
    elif kind == "one point":
        points = points[:, :, :1]
        for s in samples:
            s["jitter"], s["drop"] = s["jitter"][:, :1], s["drop"][:, :1]
    batch = {k: v for k, v in stacked(samples).items() if k not in ("subset", "choice")}
    views = augment_clouds(torch.from_numpy(points), batch)
    assert views.shape == (2, 3, *points.shape[2:])
    for b in range(3):
        for v in range(2):
            own = {k: x[b] for k, x in batch.items()}
            plain = plain_view(torch.from_numpy(points[b, v]).double(), own, v)
            tolerance = 2e-2 if kind == "huge" else 1e-5  # fp32 keeps 7 digits of 1e5
            assert torch.allclose(views[v, b], plain.float(), atol=tolerance)


ALL = {"stretch": 1.3, "crop": 0.6, "hole": 0.5, "dropout_fill": "others", "normalize": True}


def test_later_draws_leave_the_published_ones() -> None:
    plain, all_of_them = draws(5), draws(5, **ALL)
    assert all(np.array_equal(plain[name], all_of_them[name]) for name in plain)
    many = [draws(i, **ALL) for i in range(200)]
    for name, low, high in (("crop_share", 0, 0.6), ("hole_share", 0, 0.5), ("hole_centre", 0, 1)):
        values = np.concatenate([d[name] for d in many])
        assert low <= values.min() < low + 0.02
        assert high - 0.02 < values.max() <= high
    stretch = np.concatenate([d["stretch"] for d in many])
    assert stretch.min() == pytest.approx(1 / 1.3, abs=0.01)
    assert stretch.max() == pytest.approx(1.3, abs=0.01)
    assert not np.array_equal(stretch[:, 0], stretch[:, 1])


@pytest.mark.parametrize("kind", ["random", "same", "one point", "none", "nearly all"])
def test_cuts_against_the_plain_twin(kind: str) -> None:
    rng = np.random.default_rng(3)
    count = 1 if kind == "one point" else 21
    x = torch.from_numpy(rng.normal(size=(2, 2, count, 3)))
    if kind == "same":
        x[:] = 0.5
    refill = torch.from_numpy(rng.random((2, 2, count)))
    refill[..., -1] = 1 - 2**-53  # rounds to the count itself in a product
    share = torch.full((2, 2), {"none": 0.0, "nearly all": 0.999}.get(kind, 0.4))
    direction, centre = torch.from_numpy(rng.normal(size=(2, 2, 3))), torch.rand(2, 2).double()
    drop = torch.from_numpy(rng.random((2, 2, count)) < share.numpy()[..., None])
    cropped, holed = cuts.crop(x, direction, share, refill), cuts.hole(x, centre, share, refill)
    dropped = cuts.drop_others(x, drop, refill)
    for b, v in itertools.product(range(2), range(2)):
        cloud, own = x[b, v], refill[b, v].clamp(max=1 - 1e-9)
        removed = int(share[b, v] * count)
        along = (cloud * direction[b, v]).sum(-1).tolist()
        assert torch.equal(cropped[b, v], plain_cut(cloud, along, removed, own))
        middle = cloud[int(centre[b, v] * count)]
        near = [-float((point - middle).square().sum()) for point in cloud]
        assert torch.equal(holed[b, v], plain_cut(cloud, near, removed, own))
        gone = [float(d) for d in drop[b, v]]
        gone[0] = 0.0
        assert torch.equal(dropped[b, v], plain_cut(cloud, gone, int(sum(gone)), own))


def test_stretched_and_normalised_views() -> None:
    still = {"scale_low": 1.0, "scale_high": 1.0, "rotation": 0.0, "shift": 0.0}
    still |= {"jitter": 0.0, "dropout": 0.0}
    batch = stacked([draws(0, **still, stretch=1.5)])
    points = torch.randn(1, 2, 32, 3)
    found = augment_clouds(points, batch)[0]
    torch.testing.assert_close(found, unit_sphere(points[:, 0]) * batch["stretch"][:, 0, None])
    whole = augment_clouds(points, stacked([draws(0, **ALL)]))
    assert torch.allclose(whole.mean(2), torch.zeros(2, 1, 3), atol=1e-5)
    assert torch.allclose(whole.norm(dim=-1).amax(-1), torch.ones(2, 1), atol=1e-5)


@pytest.mark.parametrize("options", [{}, ALL])
def test_a_view_does_not_depend_on_its_batch(options: dict[str, object]) -> None:
    samples = [draws(i, **options) for i in range(4)]
    points = torch.randn(4, 2, 32, 3)
    pictures = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    batch = stacked(samples)
    clouds, images = augment_clouds(points, batch), augment_pictures(pictures, batch)
    for i in range(4):
        alone = {k: v[i : i + 1] for k, v in batch.items()}
        assert torch.allclose(augment_clouds(points[i : i + 1], alone)[:, 0], clouds[:, i])
        assert torch.allclose(augment_pictures(pictures[i : i + 1], alone)[0], images[i])


def test_pictures_against_plain_arithmetic() -> None:
    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8)
    batch = stacked([draws(i) for i in range(12)])
    out = augment_pictures(pictures, batch)
    grey = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    for i in range(12):
        x = pictures[i].double() / 255
        for step in JITTER_ORDERS[int(batch["order"][i])]:
            f = float(batch["factors"][i, step])
            luma = (x * grey).sum(0, keepdim=True)
            base = (0.0, luma.mean(), luma)[step]
            x = (f * x + (1 - f) * base).clamp(0, 1)
        if batch["flip"][i]:
            x = x.flip(-1)
        assert torch.allclose(out[i].double(), x, atol=1e-5)


def test_nothing_is_changed_without_ranges() -> None:
    still = {
        "scale_low": 1.0,
        "scale_high": 1.0,
        "rotation": 0.0,
        "shift": 0.0,
        "jitter": 0.0,
        "dropout": 0.0,
        "brightness": 0.0,
        "contrast": 0.0,
        "saturation": 0.0,
        "flip": 0.0,
    }
    batch = stacked([draws(0, **still)])
    points = torch.randn(1, 2, 32, 3)
    assert torch.allclose(augment_clouds(points, batch)[0], unit_sphere(points[:, 0]), atol=1e-6)
    pictures = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    assert torch.allclose(augment_pictures(pictures, batch), pictures / 255, atol=1e-6)


def test_unit_sphere() -> None:
    x = unit_sphere(torch.randn(3, 50, 3, dtype=torch.float64) * 9 + 4)
    assert x.mean(1).abs().max() < 1e-12
    assert x.norm(dim=-1).amax(1) == pytest.approx(1)
    assert torch.equal(unit_sphere(torch.ones(1, 5, 3)), torch.zeros(1, 5, 3))


@pytest.mark.parametrize("unit", [1e37, 1e30, 1e20, 1e14, 1.0, 1e-14, 1e-20, 1e-30, 1e-37])
def test_unit_sphere_in_any_unit(unit: float) -> None:
    """Squares of such coordinates, and their sums, are not numbers of fp32 any more."""
    points = torch.randn(2, 500, 3, generator=torch.Generator().manual_seed(0)) + 0.5
    both = torch.stack([points[0] * unit, points[1]])  # one cloud says nothing of the other
    found = unit_sphere(both)
    assert torch.equal(found[1], unit_sphere(points)[1])
    assert torch.allclose(found[0], unit_sphere(points)[0], atol=2e-6)

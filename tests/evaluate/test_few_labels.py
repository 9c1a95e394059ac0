"""Few labels and the augmentation of those: nested, stratified, functions of the seed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from small_clouds import ellipsoids, one_thread  # noqa: F401 (a fixture of the module)

from pixcloud.data.views import unit_sphere
from pixcloud.evaluate.augmentation import VOTE_STREAM, augmented_batch, draw_cloud
from pixcloud.evaluate.label_subset import labelled_subset
from pixcloud.evaluate.training_settings import AugmentSettings

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 5], [100, 57, 9, 1]))
SHARES = (0.01, 0.05, 0.1, 0.2, 1.0)
CLOUDS = ellipsoids("train", 0, per_class=3).points


def test_smaller_shares_lie_in_larger_ones() -> None:
    subsets = [set(labelled_subset(LABELS, share, 0).tolist()) for share in SHARES]
    for small, large in itertools.pairwise(subsets):
        assert small < large
    assert subsets[-1] == set(range(len(LABELS)))


@pytest.mark.parametrize("share", SHARES)
def test_every_class_gives_its_share_and_at_least_one(share: float) -> None:
    kept = labelled_subset(LABELS, share, 0)
    assert np.array_equal(kept, np.unique(kept))
    for label, count in zip(*np.unique(LABELS, return_counts=True), strict=True):
        taken = int((LABELS[kept] == label).sum())
        assert taken >= 1
        assert abs(taken - share * count) <= 0.5 or taken == 1


def test_the_seed_decides() -> None:
    first, again, other = (labelled_subset(LABELS, 0.1, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def batch(settings: AugmentSettings, places: list[int], **changes: int) -> torch.Tensor:
    options = {"seed": 0, "epoch": 0, "num_points": 32, "stream": 16, **changes}
    device = torch.device("cpu")
    return augmented_batch(CLOUDS, np.array(places), settings, device=device, **options)


STRONG = AugmentSettings(rotation=360.0, jitter=0.01, subset=True)
NONE = AugmentSettings(scale_low=1.0, scale_high=1.0, shift=0.0)


def test_a_cloud_is_augmented_alike_in_any_batch() -> None:
    together = batch(STRONG, [3, 1, 7])
    torch.testing.assert_close(batch(STRONG, [7])[0], together[2], rtol=0, atol=1e-6)
    for change in ({"seed": 1}, {"epoch": 1}, {"stream": VOTE_STREAM}):
        assert not torch.allclose(batch(STRONG, [3, 1, 7], **change), together, atol=1e-3)


def test_without_ranges_only_the_unit_sphere_is_left() -> None:
    expected = unit_sphere(torch.from_numpy(CLOUDS[[2, 5], :32]))
    torch.testing.assert_close(batch(NONE, [2, 5]), expected)


def test_each_step_against_plain_arithmetic() -> None:
    draws = draw_cloud(STRONG, seed=0, epoch=0, index=4, stored_points=48, num_points=32)
    cloud = CLOUDS[4][draws["subset"]].astype(np.float64)
    cloud -= cloud.mean(axis=0)
    cloud /= np.sqrt((cloud**2).sum(axis=1)).max()
    expected, angle = [], float(draws["angle"])
    for (x, y, z), noise in zip(cloud * draws["scale"], draws["jitter"], strict=True):
        turned = np.array(
            [
                np.cos(angle) * x + np.sin(angle) * z,
                y,
                np.cos(angle) * z - np.sin(angle) * x,
            ]
        )
        expected.append(turned + draws["shift"] + noise)
    np.testing.assert_allclose(batch(STRONG, [4])[0].numpy(), np.array(expected), atol=1e-5)
    assert len(set(draws["subset"].tolist())) == 32
    assert (draws["scale"] >= 2 / 3).all()
    assert (draws["scale"] <= 3 / 2).all()
    assert np.abs(draws["shift"]).max() <= 0.2
    assert np.abs(draws["jitter"]).max() <= 0.05


def test_headings_fill_the_circle() -> None:
    angles = [
        draw_cloud(STRONG, seed=0, epoch=e, index=0, stored_points=2, num_points=1)["angle"]
        for e in range(200)
    ]
    assert -np.pi <= min(angles) < -3
    assert 3 < max(angles) <= np.pi

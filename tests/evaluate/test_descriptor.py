"""The hand-made descriptor against its plain twin, and what leaves it unchanged."""

from __future__ import annotations

import numpy as np
import pytest

from pixcloud.errors import ConfigError, DataError
from pixcloud.evaluate.descriptor import ShapeDescriptor
from reference.plain_descriptor import plain_descriptor

SMALL = ShapeDescriptor(pairs=300, triples=200, bins=8)


def clouds() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    cube = rng.random((200, 3), np.float32)
    return {
        "cube": cube,
        "huge": cube * np.float32(1e18),
        "far away": cube + np.float32(1000),
        "one point": np.full((200, 3), 2.5, np.float32),
        "line": np.linspace(-1, 1, 200, dtype=np.float32)[:, None] * np.float32([0, 3, 0]),
        "duplicates": np.repeat(cube[:20], 10, axis=0),
        "one apart": np.concatenate([cube[:1] + 50, np.repeat(cube[:1], 199, axis=0)]),
    }


@pytest.mark.parametrize("name", list(clouds()))
def test_descriptor_is_that_of_the_plain_twin(name: str) -> None:
    cloud = clouds()[name]
    pairs, triples = SMALL._places(0, 200, (2, 300)), SMALL._places(1, 200, (3, 200))
    fast = SMALL(cloud[None])[0].astype(np.float64)
    slow = plain_descriptor(cloud, pairs, triples, SMALL.bins)
    assert fast.shape == slow.shape
    # A value on the edge of two bins may fall to either; one value is 1/200 of a histogram at most.
    assert np.abs(fast**2 - slow**2).sum() <= 4 / 200 + 1e-6
    np.testing.assert_allclose(fast[-6:], slow[-6:], atol=1e-6)


def test_unchanged_by_turning_about_y_shifting_and_scaling() -> None:
    cloud = np.random.default_rng(1).standard_normal((512, 3))
    angle = 0.7
    turn = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    still, moved = ShapeDescriptor()(np.stack([cloud, cloud @ turn.T * 7 + [3, -2, 5]]))
    assert np.abs(still**2 - moved**2).sum() < 4 / 512


def test_a_tilt_is_seen() -> None:
    cloud = np.random.default_rng(1).standard_normal((512, 3)) * [1, 3, 1]
    upright, lying = ShapeDescriptor()(np.stack([cloud, cloud[:, [1, 0, 2]]]))
    assert np.abs(upright**2 - lying**2).sum() > 0.5


def test_equal_clouds_have_equal_descriptors_wherever_they_stand() -> None:
    both = np.random.default_rng(2).random((2, 100, 3))
    np.testing.assert_array_equal(SMALL(both)[1], SMALL(both[1:])[0])


def test_seed_and_settings_count() -> None:
    cloud = np.random.default_rng(3).random((1, 100, 3))
    other = ShapeDescriptor(pairs=300, triples=200, bins=8, seed=1)
    assert (SMALL(cloud) != other(cloud)).any()
    assert SMALL.sha256 != other.sha256


def test_bad_input_is_named() -> None:
    with pytest.raises(DataError, match=r"must be \(clouds, points, 3\), got \(4, 2\)"):
        SMALL(np.zeros((4, 2)))
    with pytest.raises(DataError, match="NaN"):
        SMALL(np.full((1, 4, 3), np.nan))
    with pytest.raises(ConfigError, match="bins is 1: expected at least 2"):
        ShapeDescriptor(bins=1)

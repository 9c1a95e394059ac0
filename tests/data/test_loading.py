"""Loading: which samples, in which order, and that nothing but (seed, epoch) decides it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import write_ply
from pixcloud.config import DataConfig, ViewConfig
from pixcloud.data import loading, sources
from pixcloud.data.views import ORDER_STREAM, augment_pictures, generator
from pixcloud.errors import ConfigError, FileFormatError


def dataset(tree: Path, num_points: int = 32, seed: int = 0) -> loading.PairDataset:
    data = DataConfig(source=str(tree), num_points=num_points, picture_size=24)
    return loading.PairDataset(sources.open_pairs(str(tree)), data, ViewConfig(), seed)


def flat(batch: object) -> list[torch.Tensor]:
    index, points, pictures, draws = batch  # type: ignore[misc]
    return [index, points, pictures, *(draws[name] for name in sorted(draws))]


def test_batches_do_not_depend_on_workers(pair_tree: Path) -> None:
    pairs = dataset(pair_tree)
    runs = []
    for workers in (0, 1, 2):
        order = loading.PairOrder(len(pairs), 4, epochs=2, seed=5)
        runs.append(list(loading.pair_batches(pairs, order, workers)))
    for other in runs[1:]:
        assert len(other) == len(runs[0]) == 6
        for a, b in zip(runs[0], other, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(flat(a), flat(b), strict=True))


def test_shapes(pair_tree: Path) -> None:
    pairs = dataset(pair_tree)
    order = loading.PairOrder(len(pairs), 4, epochs=1, seed=0)
    batch = next(iter(loading.pair_batches(pairs, order, 0)))
    assert batch.points.shape == (4, 2, 32, 3)
    assert batch.points.dtype == torch.float32
    assert batch.pictures.shape == (4, 3, 24, 24)
    assert batch.pictures.dtype == torch.uint8
    assert {k: tuple(v.shape) for k, v in batch.draws.items()} == {
        "scale": (4, 2),
        "angle": (4, 2),
        "shift": (4, 2, 3),
        "jitter": (4, 2, 32, 3),
        "drop": (4, 2, 32),
        "factors": (4, 3),
        "order": (4,),
        "flip": (4,),
    }


def test_several_pictures(pair_tree: Path) -> None:
    """The first one is that of a run with one; then different ones, until all are used."""
    pairs, many = dataset(pair_tree), dataset(pair_tree)
    available = len(pairs.pairs[0].pictures)
    many.views = ViewConfig(pictures=available + 1)
    order = loading.PairOrder(len(pairs), 4, epochs=1, seed=0)
    one, several = (next(iter(loading.pair_batches(d, order, 0))) for d in (pairs, many))
    assert several.pictures.shape == (4, available + 1, 3, 24, 24)
    assert several.draws["order"].shape == (4, available + 1)
    assert torch.equal(several.pictures[:, 0], one.pictures)
    assert torch.equal(several.draws["factors"][:, 0], one.draws["factors"])
    assert all(len(p[:-1].unique(dim=0)) == available for p in several.pictures)
    augmented = augment_pictures(several.pictures, several.draws)
    assert augmented.shape == (4 * (available + 1), 3, 24, 24)
    alone = augment_pictures(one.pictures, one.draws)
    torch.testing.assert_close(augmented[:: available + 1], alone)


def test_each_sample_once_per_epoch_and_orders_differ() -> None:
    order = list(loading.PairOrder(12, 4, epochs=3, seed=1))
    epochs = [[i for b in order[3 * e : 3 * e + 3] for _, i in b] for e in range(3)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert all({e for e, _ in order[3 * e2]} == {e2} for e2 in range(3) for e in [e2])


@pytest.mark.parametrize("start", [0, 1, 3, 5, 6])
def test_start_batch_is_a_suffix(start: int) -> None:
    whole = list(loading.PairOrder(14, 4, epochs=2, seed=1))
    rest = loading.PairOrder(14, 4, epochs=2, seed=1, start_batch=start)
    assert len(whole) == 6
    assert list(rest) == whole[start:]
    assert len(rest) == 6 - start


def test_accumulation_has_whole_steps() -> None:
    order = loading.PairOrder(30, 4, epochs=1, seed=0, accumulate=3)
    assert order.batches_per_epoch == 6


def test_golden_order() -> None:
    """The order is part of what a seed means; a change of it is a change of every run."""
    assert loading.epoch_order(0, 0, 10).tolist() == GOLDEN_ORDER


GOLDEN_ORDER = [7, 4, 6, 9, 5, 0, 8, 3, 1, 2]


def test_the_order_has_a_stream_of_its_own() -> None:
    streams = [generator(0, 0, 0, s).integers(2**63) for s in range(ORDER_STREAM + 1)]
    assert len(set(streams)) == ORDER_STREAM + 1


def test_too_few_samples() -> None:
    with pytest.raises(ConfigError, match=r"too few samples for a batch: 3 pairs.*at most 3"):
        loading.PairOrder(3, 4, epochs=1, seed=0)


def test_larger_clouds_give_subsets_of_their_own(pair_tree: Path) -> None:
    sample = dataset(pair_tree, num_points=16).read(0, 3)
    other = dataset(pair_tree, num_points=16).read(1, 3)
    first, second = (set(map(tuple, view)) for view in sample.points)
    assert len(first) == len(second) == 16
    assert first != second
    assert {tuple(p) for p in other.points[0]} != first


def test_too_small_cloud_is_named(pair_tree: Path) -> None:
    with pytest.raises(FileFormatError, match=r"model000\.ply: 64 points.*asks for 65; lower it"):
        dataset(pair_tree, num_points=65).read(0, 0)


def test_error_in_a_worker_keeps_its_class_and_words(tmp_path: Path, pair_tree: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(pair_tree, tree)
    write_ply(tree / "ShapeNet" / "02691156" / "model000.ply", np.zeros((5, 3)))
    pairs = dataset(tree)
    order = loading.PairOrder(len(pairs), 12, epochs=1, seed=0)
    for workers in (0, 1):
        with pytest.raises(FileFormatError, match=r"model000\.ply: 5 points") as caught:
            list(loading.pair_batches(pairs, order, workers))
        assert "\n" not in str(caught.value)

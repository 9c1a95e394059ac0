"""k nearest neighbours against the plain twin, on random and on nasty input."""

from __future__ import annotations

import pytest
import torch

from pixcloud.errors import NotFiniteError, PixCloudError
from pixcloud.ops import neighbours, neighbours_cpu
from pixcloud.ops.neighbours import blockwise, knn
from reference.plain_ops import plain_knn


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def grid(side: int, channels: int) -> torch.Tensor:
    """Whole numbers in a shuffled order: ties everywhere, and all arithmetic is exact."""
    axes = [torch.arange(float(side), dtype=torch.float64)] * 3
    points = torch.cartesian_prod(*axes)
    points = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(1))]
    # An even number of points with an integer mean: centring is exact as well.
    points = torch.cat([points, -points])
    return torch.nn.functional.pad(points, (0, channels - 3))[None]


def clouds(kind: str, channels: int) -> torch.Tensor:
    x = random(4, 150, channels)
    if kind == "duplicates":  # as dropped points give: most of them are point 0
        x[:, 20:] = x[:, :1]
    elif kind == "pairs":
        x[:, 75:] = x[:, :75]
    elif kind == "grid":
        x = grid(4, channels).expand(4, -1, -1)
    elif kind == "one point":
        x = x[:, :1]
    elif kind == "same":
        x = torch.ones_like(x)
    return x


KINDS = ["random", "duplicates", "pairs", "grid", "one point", "same"]


# Distances, products, and products of which half are kept.
WIDTHS = [3, 12, 48]


@pytest.mark.parametrize("channels", WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_plain_twin_with_ties_by_index(
    kind: str, channels: int, dtype: torch.dtype
) -> None:
    x = clouds(kind, channels).to(dtype)
    for k in {1, min(20, x.shape[1]), x.shape[1]}:
        ours, plain = knn(x, k), plain_knn(x.double(), k)
        if dtype == torch.float32 and kind in ("random", "pairs", "duplicates"):
            # Rounding may exchange points at almost the same distance.
            assert all(len(set(row.tolist())) == k for cloud in ours for row in cloud)
            distance = torch.cdist(x.double(), x.double())
            pair = distance.gather(2, ours), distance.gather(2, plain)
            assert torch.allclose(*pair, rtol=1e-5, atol=2e-3), k
        else:
            assert torch.equal(ours, plain), k


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", [1 << 22, 600])
def test_torch_operators(kind: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_ENTRIES", block)
    x = clouds(kind, 3)
    k = min(20, x.shape[1])
    ours, plain = blockwise(x, None, k), plain_knn(x, k)
    # Which of the points at the k-th distance are chosen is left open: compare the distances.
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    assert torch.allclose(distance.gather(2, ours), distance.gather(2, plain), atol=1e-6)
    assert all(len(set(row.tolist())) == k for cloud in ours for row in cloud)
    if kind == "random":
        assert torch.equal(ours, plain)
        assert torch.equal(blockwise(x, x[:, 3:9], k), plain[:, 3:9])


@pytest.mark.parametrize("channels", WIDTHS)
@pytest.mark.parametrize("num_points", [1, 2, 24, 31, 63, 64, 65, 129, 480, 700])
def test_sizes(num_points: int, channels: int) -> None:
    x = random(2, num_points, channels, seed=num_points)
    for k in {1, 2, 7, 40, 300} & set(range(1, num_points + 1)):
        assert torch.equal(knn(x, k), plain_knn(x, k)), k


@pytest.mark.parametrize("channels", [2, 12])
@pytest.mark.parametrize("order", ["random", "far to near", "ties"])
def test_clouds_of_several_runs_of_columns(channels: int, order: str) -> None:
    x = random(1, 5000, channels, seed=2)
    if order == "far to near":  # so that every run is better than those before it
        x = x[:, x[0].square().sum(-1).argsort(descending=True)] + 5
    elif order == "ties":
        x = x.round()
    queries = x[:, ::97] if order == "ties" else random(1, 40, channels, seed=3)
    ours, plain = knn(x, 20, queries), plain_knn(x, 20, queries)
    if order == "ties" and channels == 12:  # the mean is no whole number: ties may be broken
        distance = ((x[0, ours[0]] - queries[0, :, None]) ** 2).sum(-1)
        assert torch.equal(distance, ((x[0, plain[0]] - queries[0, :, None]) ** 2).sum(-1))
    else:
        assert torch.equal(ours, plain)


@pytest.mark.parametrize("channels", [3, 16])
def test_queries(channels: int) -> None:
    x, queries = random(3, 90, channels), random(3, 11, channels, seed=5)
    assert torch.equal(knn(x, 9, queries), plain_knn(x, 9, queries))
    assert torch.equal(knn(x, 9, x[:, 5:30]), knn(x, 9)[:, 5:30])
    assert knn(x, 9, queries[:, :0]).shape == (3, 0, 9)
    assert knn(x[:0], 9).shape == (0, 90, 9)


@pytest.mark.parametrize("channels", WIDTHS)
def test_equal_points_tie_in_fp32(channels: int) -> None:
    x = random(2, 333, channels, dtype=torch.float32)
    x = torch.cat([x, x, x], dim=1)
    index = knn(x, 30).view(2, 999, 10, 3)
    assert torch.equal(index[..., 0] + 333, index[..., 1])
    assert torch.equal(index[..., 1] + 333, index[..., 2])
    assert torch.equal(index[:, :333], index[:, 333:666])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [3, 12])
def test_far_from_the_origin(channels: int, dtype: torch.dtype) -> None:
    offset = 1e6 if dtype == torch.float64 else 256.0
    x = random(1, 200, channels).to(dtype)
    # the sum loses bits of x, not of differences that were representable
    moved = (x + offset) - offset
    assert torch.equal(knn(moved + offset, 8), knn(moved, 8))
    assert torch.equal(knn(moved + offset, 8), plain_knn(moved.double(), 8))


@pytest.mark.parametrize("factor", [2.0**100, 2.0**-100])
@pytest.mark.parametrize("channels", [3, 12])
def test_huge_and_tiny_values(channels: int, factor: float) -> None:
    x = random(2, 60, channels, dtype=torch.float32)
    other = torch.stack([x[0] * factor, x[1]])
    assert torch.equal(knn(other, 8), knn(x, 8))


@pytest.mark.parametrize("num_points", [600, 2048])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kept_products_are_those_computed_anew(
    num_points: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = random(2, num_points, 40, dtype=dtype)
    x[:, 100:150] = x[:, 50:100]
    kept = knn(x, 30)
    monkeypatch.setattr(neighbours_cpu, "_pays_to_mirror", lambda *_: False)
    assert torch.equal(knn(x, 30), kept)


def test_same_bits_for_any_number_of_threads() -> None:
    # 5 clouds: whether half of the products are kept depends on the number of threads.
    x = random(5, 600, 48, dtype=torch.float32)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results += [knn(x, 20), knn(x, 20), knn(x[..., :3], 20)]
    finally:
        torch.set_num_threads(threads)
    for n, result in enumerate(results):
        assert torch.equal(result, results[2 if n % 3 == 2 else 0])
    single = torch.cat([knn(cloud[None], 20) for cloud in x])
    assert torch.equal(single, results[0])


def test_strides_dtypes_and_gradients() -> None:
    x = random(2, 3, 80).transpose(1, 2)
    assert torch.equal(knn(x, 5), knn(x.contiguous(), 5))
    assert torch.equal(knn(x[:, ::2], 5), plain_knn(x[:, ::2], 5))
    half = x.bfloat16()
    assert torch.equal(knn(half, 5), plain_knn(half.double(), 5))
    whole = torch.tensor([[[0], [4], [5]]])
    assert knn(whole, 2).tolist() == [[[0, 1], [1, 2], [2, 1]]]
    assert not knn(x.requires_grad_(), 5).requires_grad


def test_a_large_cloud() -> None:
    x = random(1, 20_000, 3, dtype=torch.float32)
    asked = x[:, ::1999]
    assert torch.equal(knn(x, 20)[:, ::1999], plain_knn(x.double(), 20, asked.double()))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("channels", [3, 12])
def test_refuses_what_is_not_finite_and_names_the_sample(channels: int, bad: float) -> None:
    x = random(5, 50, channels, dtype=torch.float32)
    x[3, 7, 1] = bad
    with pytest.raises(NotFiniteError, match="sample 3 of the batch") as caught:
        knn(x, 5)
    assert isinstance(caught.value, PixCloudError)
    with pytest.raises(ValueError, match="sample 3 of the batch"):
        knn(random(5, 50, channels, dtype=torch.float32), 5, x)


def test_refuses() -> None:
    with pytest.raises(ValueError, match="k = 5 neighbours of a cloud of 4"):
        knn(torch.rand(1, 4, 3), 5)
    with pytest.raises(ValueError, match="k = 0 neighbours"):
        knn(torch.rand(1, 4, 3), 0)
    with pytest.raises(ValueError, match="axes"):
        knn(torch.rand(4, 3), 2)
    with pytest.raises(ValueError, match="queries must have the axes"):
        knn(torch.rand(2, 4, 3), 2, torch.rand(1, 4, 3))

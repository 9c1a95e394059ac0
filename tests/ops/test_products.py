"""Products of the processor operators against plain ones, in double precision and in single."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import torch

from pixcloud.ops import bit_products_cpu, pool_kernels_cpu, products_cpu
from pixcloud.ops.products_cpu import (
    panels_of,
    rows_of,
    rows_product,
    slab_columns_product,
    slab_rows_product,
    square_product,
    strided,
    symmetric_product,
)

KINDS = [(torch.float64, 1e-13), (torch.float32, 1e-6)]
# Clouds, points, columns in and out: whole tiles, none, several chunks, one of each.
SIZES = [(2, 64, 32, 64), (3, 37, 5, 7), (1, 700, 130, 33), (4, 1, 3, 1), (1, 1, 1, 1)]


def numbers(*shape: int, kind: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=kind)


def in_slabs(a: torch.Tensor) -> torch.Tensor:
    """Columns of a (M, K), zeros behind them, in slabs (S, M, L)."""
    slab = 256 // a.dtype.itemsize
    a = torch.nn.functional.pad(a, (0, -a.shape[1] % slab))
    return a.view(len(a), -1, slab).transpose(0, 1).contiguous()


def columns_product(
    a: torch.Tensor, b: torch.Tensor, origin: torch.Tensor | None = None
) -> torch.Tensor:
    found = slab_columns_product(in_slabs(a), b, origin)
    assert not found[a.shape[1] :].any() or bool(b.isnan().any())
    return found[: a.shape[1]]


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-30))


@pytest.mark.parametrize(("kind", "limit"), KINDS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shared", ["none", "one", "of clouds"])
def test_against_plain_products(
    size: tuple[int, int, int, int], kind: torch.dtype, limit: float, shared: str
) -> None:
    clouds, points, columns, others = size
    x = numbers(clouds, points, columns, kind=kind)
    origin = {
        "none": None,
        "one": numbers(columns, kind=kind, seed=1),
        "of clouds": numbers(clouds, columns, kind=kind, seed=1),
    }[shared]
    taken = x if origin is None else x - (origin if shared == "one" else origin[:, None])
    plain = taken.reshape(-1, columns).double()
    right = numbers(columns, others, kind=kind, seed=2)
    out = torch.full((clouds * points, others), torch.nan, dtype=kind)
    assert (
        difference(rows_product(x, panels_of(right), out, origin), plain @ right.double()) < limit
    )
    a = numbers(clouds * points, others, kind=kind, seed=3)
    assert difference(columns_product(a, x, origin), a.double().T @ plain) < limit
    if shared == "one":
        assert origin is not None
        square, sums = square_product(x.reshape(-1, columns), origin, points)
        assert difference(square, plain.T @ plain) < limit
        assert torch.equal(square, square.T)
        assert difference(sums, plain.view(clouds, points, columns).sum(1)) < limit
    factor = numbers(clouds * points, 1, kind=kind, seed=4)
    rows = x.reshape(-1, columns)
    found, expected = (
        symmetric_product(rows, factor * rows),
        rows.double().T @ (factor * rows).double(),
    )
    assert difference(found, expected) < 10 * limit  # the factors' signs cancel
    assert torch.equal(found, found.T)


def test_rows_as_they_lie() -> None:
    wide = numbers(2, 9, 24, kind=torch.float64)
    part, turned = wide[..., 3:10], wide.transpose(0, 1)
    assert strided(part)[1] == 24
    right = numbers(7, 3, kind=torch.float64, seed=1)
    out = rows_product(part, panels_of(right), torch.empty(18, 3, dtype=torch.float64))
    assert difference(out, part.reshape(18, 7) @ right) < 1e-13
    assert (
        difference(
            columns_product(turned.reshape(18, 24), turned), torch.einsum("abi,abj->ij", wide, wide)
        )
        < 1e-13
    )


@pytest.mark.parametrize("kind", [kind for kind, _ in KINDS])
@pytest.mark.parametrize("size", SIZES)
def test_slabs_give_the_same_bits(size: tuple[int, int, int, int], kind: torch.dtype) -> None:
    clouds, points, columns, _ = size
    slab, rows = 256 // kind.itemsize, clouds * points
    x = numbers(clouds, points, columns, kind=kind)
    right = numbers(columns, 3 * slab, kind=kind, seed=1)
    expected = rows_product(x, panels_of(right), torch.empty(rows, 3 * slab, dtype=kind), x.mean(1))
    slabs = torch.full((3, rows, slab), torch.nan, dtype=kind)
    rows_product(x, panels_of(right), slabs, x.mean(1))
    assert torch.equal(slabs, in_slabs(expected))
    assert torch.equal(rows_of(slabs), expected)
    back = panels_of(right.T.contiguous())
    found = slab_rows_product(slabs, back, torch.empty(rows, columns, dtype=kind))
    assert torch.equal(found, rows_product(expected, back, torch.empty_like(found)))


def test_far_from_the_origin() -> None:
    """What is centred is centred before it is multiplied."""
    near = numbers(300, 20, kind=torch.float32).round(decimals=1)
    origin = torch.full((20,), 2.0**18)
    square, sums = square_product(near.mul(8).round().div(8) + origin, origin, 300)
    plain = near.mul(8).round().div(8).double()
    assert difference(square, plain.T @ plain) < 1e-6
    assert difference(sums, plain.sum(0)[None]) < 1e-6


def test_what_is_no_number_stays_so() -> None:
    x = numbers(50, 40, kind=torch.float32)
    x[20, 3], x[30, 4] = torch.nan, torch.inf
    right = numbers(40, 35, kind=torch.float32, seed=1)
    out = rows_product(x, panels_of(right), torch.empty(50, 35))
    assert torch.equal(out.isnan(), (x @ right).isnan())
    assert torch.equal(columns_product(x, x).isnan(), (x.T @ x).isnan())


def test_same_bits_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    x, right = numbers(3, 333, 70, kind=torch.float32), numbers(70, 90, kind=torch.float32)
    results = []
    for threads in (1, 2, 2):
        monkeypatch.setattr(
            products_cpu, "use_torch_threads", lambda n=threads: numba.set_num_threads(n)
        )
        out = rows_product(x, panels_of(right), torch.empty(999, 90), x.mean(1))
        results.append((out, columns_product(out, x), *square_product(out, out[0], 333)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize(("kind", "limit"), KINDS)
@pytest.mark.parametrize("points", [1, 31, 64, 2200])
def test_products_by_bits(points: int, kind: torch.dtype, limit: float) -> None:
    clouds, columns, channels = 2, 32, 640
    chance = np.random.default_rng(0)
    truth = chance.integers(0, 2, (clouds, points, channels), np.uint8)
    bits = np.packbits(truth.reshape(-1, channels), axis=1, bitorder="little").view(np.uint64)
    long = np.zeros((clouds, -(-points // 64) * 64, channels), np.uint8)
    long[:, :points] = truth
    words = long.reshape(clouds, -1, 32, channels).transpose(0, 1, 3, 2)
    turned = np.packbits(words, axis=-1, bitorder="little").view(np.uint32)[..., 0]
    place = chance.integers(0, points, (clouds, channels)).astype(np.uint32)
    factor, extra = numbers(2, clouds, channels, kind=kind)
    matrix = factor[:, None] * torch.from_numpy(truth)
    index = torch.from_numpy(place.astype(np.int64))[:, None]
    matrix = matrix.scatter_add(1, index, extra[:, None])

    weight, base = numbers(channels, columns, kind=kind), numbers(clouds, columns, kind=kind)
    before = numbers(clouds, points, columns, kind=kind, seed=1)
    out, vector = before.clone(), 128 // kind.itemsize
    bit_products_cpu.add_chosen_channels(
        *(np.ascontiguousarray(bits.T), points, weight.view(-1).numpy(), columns, factor.numpy()),
        *(base.view(-1).numpy(), place, extra.numpy(), out.view(-1).numpy(), vector),
    )
    assert difference(out, before + base[:, None] + matrix @ weight) < limit
    found, origin = torch.empty(channels, columns, dtype=kind), numbers(columns, kind=kind)
    bit_products_cpu.sum_chosen_points(
        *(np.ascontiguousarray(turned), points, before.view(-1).numpy(), columns, origin.numpy()),
        *(factor.numpy(), place, extra.numpy(), found.view(-1).numpy(), vector),
    )
    assert difference(found, torch.einsum("bnd,bnc->dc", matrix, before - origin)) < limit


def test_rows_are_rounded_as_torch_does() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, (37, 32), np.uint64).astype(np.uint32)
    # Halfway between two, up and down to the even one; none, with all bits and with the lowest.
    bits[0, :6] = 0x3F808000, 0x3F818000, 0xFFFFFFFF, 0x7F800001, 0x7F800000, 1
    x = torch.from_numpy(bits.view(np.float32))
    found = np.empty(x.numel(), np.uint16)
    pool_kernels_cpu.halve_rows(x.reshape(-1).numpy(), np.zeros(32, np.float32), found, 16)
    rounded = torch.from_numpy(found).view(torch.bfloat16).view(x.shape)
    assert torch.equal(rounded.isnan(), x.isnan())
    assert torch.equal(rounded.nan_to_num(0), x.bfloat16().nan_to_num(0))

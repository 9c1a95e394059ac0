"""The second layer over edges, by kernels and by blocks, against the whole edge tensor."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import pytest
import torch

from pixcloud.ops import edge_pairs, edge_pairs_blocks, edge_pairs_cpu
from pixcloud.ops.edge_pairs import edge_pair_extreme, edge_pair_statistics
from pixcloud.ops.neighbour_sum import gather_by_rank, neighbour_sum, spread_by_rank
from reference.plain_edge_pairs import plain_edge_pairs
from reference.plain_ops import plain_gather_reduce

KINDS = {  # clouds, points, neighbours, channels in, channels out
    "random": (3, 40, 7, 24, 20),
    "one cloud": (1, 70, 5, 16, 32),
    "one point": (2, 1, 1, 16, 16),
    "k is N": (2, 33, 33, 3, 5),
    "ties": (2, 30, 6, 16, 16),
    "far from zero": (2, 60, 8, 16, 16),
}


class Case(NamedTuple):
    """Operands, gradients of both results, and the operands that get gradients."""

    p: torch.Tensor
    q: torch.Tensor
    index: torch.Tensor
    weight: torch.Tensor
    sign: torch.Tensor
    of_extreme: torch.Tensor
    of_variance: torch.Tensor


def case(kind: str, dtype: torch.dtype = torch.float64) -> Case:
    batch, points, k, channels, out = KINDS[kind]
    torch.manual_seed(0)
    p, q = (torch.randn(batch, points, channels, dtype=torch.float64) for _ in range(2))
    weight = torch.randn(out, channels, dtype=torch.float64)
    index = torch.stack([torch.randperm(points)[:k] for _ in range(batch * points)])
    sign = torch.where(torch.arange(out) % 3 == 0, -1.0, 1.0)
    if kind == "ties":  # neighbours twice, equal neighbours, and an edge at the kink
        index[:, 1] = index[:, 0]
        p[:, 1:4] = p[:, :1]
        p[:, 5], q[:, 5] = 1, -1
    if kind == "far from zero":
        q = q + 1e4
    of_extreme = torch.randn(batch, points, out, dtype=torch.float64)
    of_variance = torch.randn(out, dtype=torch.float64)
    floats = [t.to(dtype) for t in (p, q, weight, sign, of_extreme, of_variance)]
    return Case(*floats[:2], index.view(batch, points, k), *floats[2:])


def results(kind: str, case: Case, training: bool) -> list[torch.Tensor]:
    """Extremes (less the mean in training), moments, and gradients of p, q and W."""
    p, q, weight = (t.clone().requires_grad_() for t in (case.p, case.q, case.weight))
    operands = (p, q, case.index, weight, case.sign)
    if kind == "plain":
        extreme, mean, var = plain_edge_pairs(*operands)
        extreme = extreme - mean if training else extreme
    elif training:
        extreme, mean, var = edge_pair_statistics(*operands)
        assert not mean.requires_grad
    else:
        extreme = edge_pair_extreme(*operands)
        mean = var = torch.zeros(0)
    loss = (extreme * case.of_extreme).sum()
    if training:
        loss = loss + (var * case.of_variance).sum()
    values = [extreme, mean, var] if training else [extreme]
    return [*(v.detach() for v in values), *torch.autograd.grad(loss, [p, q, weight])]


both = pytest.mark.parametrize("kernels", [edge_pairs_cpu, edge_pairs_blocks])


@both
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_equals_the_whole_edge_tensor(
    kind: str, training: bool, kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_pairs, "_kernels", lambda x: kernels)
    monkeypatch.setattr(edge_pairs_blocks, "BLOCK_ENTRIES", 1000)  # several blocks per cloud
    given = case(kind)
    ours, plain = (results(form, given, training) for form in ("ours", "plain"))
    scale = 1e6 if kind == "far from zero" else 1.0  # digits are lost in the plain form
    for place, (a, b) in enumerate(zip(ours, plain, strict=True)):
        if kind == "ties" and a.shape == given.p.shape and place == len(ours) - 3:
            a, b = a.sum(1), b.sum(1)  # equal neighbours share a gradient in some way
        assert torch.allclose(a, b, rtol=1e-12 * scale, atol=1e-11 * scale), place


@both
def test_single_precision_keeps_the_variance(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far from zero, where E[z^2] - E[z]^2 would have no digit left."""
    monkeypatch.setattr(edge_pairs, "_kernels", lambda x: kernels)
    given = case("random", torch.float32)
    given = given._replace(q=given.q + 300)
    double = given._replace(**{k: v.double() for k, v in given._asdict().items() if k != "index"})
    for a, b in zip(results("ours", given, True), results("plain", double, True), strict=True):
        assert float((a - b).norm() / b.norm()) < 2e-4
    near = case("random", torch.float32)
    double = near._replace(**{k: v.double() for k, v in near._asdict().items() if k != "index"})
    for a, b in zip(results("ours", near, True), results("plain", double, True), strict=True):
        assert float((a - b).norm() / b.norm()) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_threads_do_not_change_a_bit(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    index = torch.randint(0, 300, (3, 300, 9))
    p, q = (torch.randn(3, 300, 32, dtype=dtype) for _ in range(2))
    weight, sign = torch.randn(16, 32, dtype=dtype), torch.ones(16, dtype=dtype)
    of_extreme, of_variance = torch.randn(3, 300, 16, dtype=dtype), torch.ones(16, dtype=dtype)
    given = Case(p, q, index, weight, sign, of_extreme, of_variance)
    before = torch.get_num_threads()
    try:
        runs = []
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            runs.append(results("ours", given, True))
    finally:
        torch.set_num_threads(before)
    for values in zip(*runs, strict=True):
        assert all(torch.equal(values[0], value) for value in values[1:])


@both
def test_what_is_no_number_stays_visible(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the plain form: in evaluation at the edges that it reaches, in training everywhere."""
    monkeypatch.setattr(edge_pairs, "_kernels", lambda x: kernels)
    given = case("random")
    given.p[0, 3] = float("nan")
    operands = given[:5]
    ours, plain = edge_pair_extreme(*operands), plain_edge_pairs(*operands)[0]
    assert 0 < ours.isnan().sum() < ours.numel()
    assert torch.equal(ours.isnan(), plain.isnan())
    extreme, _, var = edge_pair_statistics(*operands)
    assert extreme.isnan().all()
    assert var.isnan().all()


def test_infinite_values() -> None:
    given = case("one cloud")
    given.p[0, 3] = float("inf")
    ours, plain = edge_pair_extreme(*given[:5]), plain_edge_pairs(*given[:5])[0]
    assert torch.equal(ours.isinf(), plain.isinf())
    assert torch.equal(ours.isnan(), plain.isnan())


@pytest.mark.parametrize("device", ["cpu", "elsewhere"])
@pytest.mark.parametrize("channels", [3, 16, 37])
def test_neighbour_sum(channels: int, device: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 50, channels, dtype=torch.float64, requires_grad=True)
    index = torch.randint(0, 50, (3, 50, 7))
    given = torch.randn(3, 50, channels, dtype=torch.float64)
    plain = plain_gather_reduce(x, index, torch.ones(channels))[1]
    (expected,) = torch.autograd.grad((plain * given).sum(), x)
    if device == "cpu":
        total = neighbour_sum(x, index)
        (grad,) = torch.autograd.grad((total * given).sum(), x)
    else:  # the operators for other devices, which serve this one as well
        total = gather_by_rank(x.detach(), index)
        grad = spread_by_rank(given, index)
    assert torch.allclose(total, plain, rtol=1e-12, atol=1e-12)
    assert torch.allclose(grad, expected, rtol=1e-12, atol=1e-12)


def test_neighbours_are_checked() -> None:
    x, index = torch.rand(2, 5, 16), torch.zeros(2, 5, 3, dtype=torch.int64)
    for wrong in (-1, 5):
        bad = index.clone()
        bad[1, 4, 2] = wrong
        for call in (
            lambda bad=bad: neighbour_sum(x, bad),
            lambda bad=bad: edge_pair_extreme(x, x, bad, torch.rand(4, 16), torch.ones(4)),
        ):
            with pytest.raises(ValueError, match=f"neighbour {wrong} in a cloud of 5 points"):
                call()
    with pytest.raises(ValueError, match=r"are expected, got \(2, 5, 16\) and \(2, 4, 3\)"):
        neighbour_sum(x, index[:, :4])
    with pytest.raises(ValueError, match=r"a weight \(D, C\) are expected"):
        edge_pair_statistics(x, x, index, torch.rand(4, 15), torch.ones(4))

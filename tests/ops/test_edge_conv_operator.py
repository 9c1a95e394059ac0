"""EdgeConv as one operator against the whole edge tensor: both directions, kernels and torch."""

from __future__ import annotations

import numba
import pytest
import torch
from torch import nn

from pixcloud.encoders.edgeconv import EdgeConv
from pixcloud.ops import edge_conv as operator
from pixcloud.ops import edge_conv_cpu
from pixcloud.ops.adjacency_cpu import joined_neighbours, reversed_neighbours
from pixcloud.ops.edge_conv import edge_conv
from reference.plain_ops import PlainEdgeConv, plain_knn

CHANNELS = 20  # no whole number of vectors


def pair(
    channels: int, k: int, kind: torch.dtype = torch.float64
) -> tuple[EdgeConv, PlainEdgeConv]:
    """The layer and its twin, with BN scales of both signs, one of them zero."""
    torch.manual_seed(0)
    ours = EdgeConv(channels, CHANNELS, k)
    with torch.no_grad():
        ours.bn.weight.normal_()
        ours.bn.weight[3] = 0
        ours.bn.bias.normal_()
        ours.bn.running_mean.normal_()  # type: ignore[union-attr]
        ours.bn.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    plain = PlainEdgeConv(channels, CHANNELS, k)
    plain.load_state_dict(ours.state_dict())
    return ours.to(kind), plain.to(kind)


def both_ways(layer: nn.Module, x: torch.Tensor, index: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output, gradients and running statistics after one step."""
    x = x.clone().requires_grad_()
    out = layer(x, index)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    names, parameters = zip(*layer.named_parameters(), strict=True)
    grads = torch.autograd.grad((out * weight).sum(), [x, *parameters])
    found = dict(zip(["grad x", *(f"grad {n}" for n in names)], grads, strict=True))
    statistics = {n: b.clone() for n, b in layer.named_buffers()}
    return {"out": out.detach(), **found, **statistics}


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative to the norm of b."""
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm().clamp_min(1e-30)) if not torch.equal(a, b) else 0.0


def clouds(kind: str) -> tuple[torch.Tensor, int]:
    """x (B, N, C) and k."""
    torch.manual_seed(2)
    x = torch.randn(3, 150, 5, dtype=torch.float64)
    if kind == "duplicates":  # as dropped points give: most of them are point 0
        x[:, 9:] = x[:, :1]
    elif kind == "one cloud":
        return x[:1], 7
    elif kind == "one point":
        return x[:, :1], 1
    elif kind == "k = N":
        return x[:, :40], 40
    elif kind == "many neighbours":  # their ranks need more than one byte
        return torch.randn(1, 300, 3, dtype=torch.float64), 300
    elif kind == "slice":
        return torch.randn(3, 150, 64, dtype=torch.float64)[..., 8:13], 7
    return x, 7


KINDS = ["random", "duplicates", "one cloud", "one point", "k = N", "many neighbours", "slice"]


@pytest.mark.parametrize("way", ["kernels", "torch"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_against_the_edge_tensor(
    kind: str, training: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator, "has_kernels", lambda x: way == "kernels")
    x, k = clouds(kind)
    ours, plain = pair(x.shape[2], k)
    index = plain_knn(x, k)
    found = both_ways(ours.train(training), x, index)
    expected = both_ways(plain.train(training), x, index)
    if kind == "duplicates":
        # Products of equal rows may differ in the last bit, so any of them may have the maximum.
        for result in (found, expected):
            result["grad x"][:, 0] += result["grad x"][:, 9:].sum(1)
            result["grad x"] = result["grad x"][:, :9]
    for name, value in expected.items():
        assert difference(found[name], value) < 1e-9, (name, difference(found[name], value))


@pytest.mark.parametrize("way", ["kernels", "torch"])
@pytest.mark.parametrize("training", [True, False])
def test_of_ties_the_first_neighbour_has_the_gradient(
    training: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small whole numbers, whose mean is zero: all products are exact, and most neighbours tie."""
    monkeypatch.setattr(operator, "has_kernels", lambda x: way == "kernels")
    generator = torch.Generator().manual_seed(4)
    half = torch.randint(-2, 3, (3, 75, 5), generator=generator).double()
    half[:, 40:] = half[:, :1]
    x = torch.cat([half, -half], dim=1)
    ours, plain = pair(5, 7)
    with torch.no_grad():
        for layer in (ours, plain):
            weights = [p for p in layer.parameters() if p.dim() > 1]
            assert len(weights) == 1
            numbers = torch.Generator().manual_seed(5)
            whole = torch.randint(-3, 4, weights[0].shape, generator=numbers)
            weights[0].copy_(whole.double())
    index = plain_knn(x, 7)  # equal distances by index
    found = both_ways(ours.train(training), x, index)
    expected = both_ways(plain.train(training), x, index)
    for name, value in expected.items():
        assert difference(found[name], value) < 1e-9, (name, difference(found[name], value))
    # The rule decides: with neighbours in another order the gradients of points are other ones.
    turned = both_ways(plain.train(training), x, index.flip(2))
    assert difference(turned["grad x"], expected["grad x"]) > 0.01


@pytest.mark.parametrize("training", [True, False])
def test_in_single_precision(training: bool) -> None:
    x = torch.randn(4, 200, 32, generator=torch.Generator().manual_seed(3))
    index = plain_knn(x, 9)
    ours, plain = pair(32, 9, torch.float32)
    found = both_ways(ours.train(training), x, index)
    expected = both_ways(plain.double().train(training), x.double(), index)
    for name, value in expected.items():
        limit = 1e-5 if name == "out" else 1e-4 if name.startswith("grad") else 1e-6
        assert difference(found[name], value) < limit, (name, difference(found[name], value))


def test_far_from_the_origin() -> None:
    """1e6 away in fp32, all that the input still holds is kept: BN takes any offset off again."""
    x = torch.randn(2, 200, 3, generator=torch.Generator().manual_seed(4)) + 1e6
    near = x.double() - 1e6
    index = plain_knn(near, 9)
    ours, plain = pair(3, 9, torch.float32)
    found = both_ways(ours, x, index)
    expected = both_ways(plain.double(), near, index)
    # What the offset does to the mean of an edge, W2 x, goes into the running mean alone.
    offset = plain.linear.weight[:, 3:].double().sum(1) * 1e6
    expected["bn.running_mean"] += 0.1 * offset.detach()
    for name, value in expected.items():
        limit = 1e-5 if name == "out" else 1e-4 if name.startswith("grad") else 1e-6
        assert difference(found[name], value) < limit, (name, difference(found[name], value))


@pytest.mark.parametrize("size", [(3, 150), (5, 900)])  # in one block of clouds, and in three
def test_without_gradients_in_evaluation(size: tuple[int, int]) -> None:
    x, k = torch.randn(*size, 5, dtype=torch.float64), 7
    ours, plain = pair(5, k)
    index = plain_knn(x, k)
    with torch.no_grad():
        assert difference(ours.eval()(x, index), plain.eval()(x, index)) < 1e-12


def test_what_is_no_number_reaches_its_own_cloud() -> None:
    x, k = clouds("random")
    ours, plain = pair(5, k)
    index = plain_knn(x, k)
    x[1, 4] = torch.nan
    with torch.no_grad():
        expected = plain.eval()(x, index).isnan()
        found = ours.eval()(x, index).isnan()
    with_gradients = ours(x.requires_grad_(), index).isnan()
    for mask in (found, with_gradients):
        assert bool(mask[expected].all())
        assert not bool(mask[[0, 2]].any())
    assert both_ways(ours.train(), x.detach(), index)["out"].isnan().all()


@pytest.mark.parametrize("channels", [32, 48])  # whole slabs, and whole vectors
@pytest.mark.parametrize("training", [True, False])
def test_output_goes_where_it_is_wanted(training: bool, channels: int) -> None:
    x = torch.randn(2, 50, 5)
    index = plain_knn(x, 4)
    layer = EdgeConv(5, channels, 4).train(training)
    memory = torch.zeros(2, 50, channels + 32)
    expected = layer(x, index)
    with torch.set_grad_enabled(training):
        found = layer(x, index, out=memory[..., 16:-16])
    assert torch.equal(found, memory[..., 16:-16])
    assert difference(found, expected) < 1e-6
    assert not memory[..., :16].any()
    assert not memory[..., -16:].any()


def test_same_bits_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    x, k = torch.randn(3, 700, 5), 7
    ours, _ = pair(5, k, torch.float32)
    index = plain_knn(x, k)
    start = {key: value.clone() for key, value in ours.state_dict().items()}
    results = []
    for threads in (1, 2, 2):
        monkeypatch.setattr(
            edge_conv_cpu, "use_torch_threads", lambda n=threads: numba.set_num_threads(n)
        )
        ours.load_state_dict(start)
        results.append(both_ways(ours, x, index))
    for other in results[1:]:
        assert all(torch.equal(other[name], value) for name, value in results[0].items())


def test_derivatives() -> None:
    x = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    bn = nn.BatchNorm1d(5).double()
    index = torch.randint(0, 6, (2, 6, 3))
    assert torch.autograd.gradcheck(lambda a, w: edge_conv(a, index, w, bn), (x, weight))
    out = edge_conv(x, index, weight, bn)
    (grad,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_refuses_what_does_not_fit() -> None:
    layer = EdgeConv(3, 8, 4)
    x = torch.rand(2, 9, 3)
    index = torch.zeros(2, 9, 2, dtype=torch.int64)
    index[1, 3, 0] = 9
    with pytest.raises(ValueError, match=r"neighbours \[9, 0\] of point 3 of cloud 1"):
        layer(x, index)
    with pytest.raises(ValueError, match=r"index \(B, N, k\) are expected, got \(2, 9, 3\)"):
        layer(x, torch.zeros(9, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="k = 4 neighbours of a cloud of 3 points"):
        layer(x[:, :3])


def test_the_way_back() -> None:
    index = torch.randint(0, 30, (2, 30, 4), generator=torch.Generator().manual_seed(5))
    near = joined_neighbours(index)
    start, who, which = reversed_neighbours(near, 30)
    for j in range(60):
        entries = list(
            zip(who[start[j] : start[j + 1]], which[start[j] : start[j + 1]], strict=True)
        )
        assert entries == [(i, r) for i in range(60) for r in range(4) if near[i, r] == j]


def test_under_autocast_only_gradients_are_of_half_precision() -> None:
    x, k = clouds("random")
    layer, _ = pair(x.shape[2], k, torch.float32)
    index = plain_knn(x, k)
    start = {name: value.clone() for name, value in layer.state_dict().items()}
    expected = both_ways(layer, x.float(), index)
    layer.load_state_dict(start)
    with torch.autocast("cpu", torch.bfloat16):
        found = both_ways(layer, x.float(), index)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        if name in ("grad x", "grad linear.weight"):
            assert 1e-6 < difference(found[name], value) < 0.02, name
        else:
            assert torch.equal(found[name], value), name

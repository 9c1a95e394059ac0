"""The last layer of DGCNN and its pooling against torch's own layers, in both directions."""

from __future__ import annotations

import numba
import pytest
import torch
from torch import nn

from pixcloud.ops import linear_pool as operator
from pixcloud.ops import linear_pool_cpu
from pixcloud.ops.linear_pool import linear_bn_pool
from pixcloud.ops.side_by_side import SideBySide


def layers(kind: torch.dtype, out: int = 300) -> tuple[torch.Tensor, nn.BatchNorm1d]:
    """W (out, 24), and a BN with scales of both signs, one of them zero."""
    torch.manual_seed(0)
    bn = nn.BatchNorm1d(out)
    with torch.no_grad():
        bn.weight.normal_()
        bn.weight[3] = 0
        bn.bias.normal_()
        bn.running_mean.normal_()  # type: ignore[union-attr]
        bn.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return (torch.randn(out, 24) / 5).to(kind), bn.to(kind)


def plain(x: torch.Tensor, weight: torch.Tensor, bn: nn.BatchNorm1d) -> torch.Tensor:
    h = nn.functional.leaky_relu(bn((x @ weight.T).transpose(1, 2)), 0.2)
    return torch.cat([h.max(dim=2).values, h.mean(dim=2)], dim=1)


def both_ways(
    way: object, x: torch.Tensor, weight: torch.Tensor, bn: nn.BatchNorm1d
) -> dict[str, torch.Tensor]:
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    start = {key: value.clone() for key, value in bn.state_dict().items()}
    out = way(x, weight, bn)  # type: ignore[operator]
    factor = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    wanted = {"x": x, "weight": weight, "scale": bn.weight, "bias": bn.bias}
    grads = torch.autograd.grad((out * factor).sum(), list(wanted.values()))
    found = {f"grad {n}": g for n, g in zip(wanted, grads, strict=True)}
    statistics = {n: b.clone() for n, b in bn.named_buffers()}
    bn.load_state_dict(start)
    return {"out": out.detach(), **found, **statistics}


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm().clamp_min(1e-30)) if not torch.equal(a, b) else 0.0


def clouds(kind: str) -> torch.Tensor:
    x = torch.randn(3, 333, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    if kind == "duplicates":
        x[:, 9:] = x[:, :1]
    elif kind == "one cloud":
        return x[:1]
    elif kind == "one point":
        return x[:, :1]
    elif kind == "far":
        return x + 1e6
    elif kind == "blocks":  # as long as three runs of rows, the last one no whole word of bits
        return torch.randn(2, 4207, 24, dtype=torch.float64)
    return x


@pytest.mark.parametrize("way", ["kernels", "torch"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "kind", ["random", "duplicates", "one cloud", "one point", "far", "blocks"]
)
def test_against_torch(
    kind: str, training: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator, "has_kernels", lambda x: way == "kernels")
    x = clouds(kind)
    weight, bn = layers(torch.float64)
    bn.train(training)
    found, expected = (both_ways(f, x, weight, bn) for f in (linear_bn_pool, plain))
    if kind == "duplicates":
        # Products of equal rows may differ in the last bit, so any of them may have the maximum.
        for result in (found, expected):
            result["grad x"][:, 0] += result["grad x"][:, 9:].sum(1)
            result["grad x"] = result["grad x"][:, :9]
    elif kind == "far" and training:
        del expected["grad weight"]  # a difference of terms of size 1e6: lost in either form
    for name, value in expected.items():
        limit = 1e-7 if kind == "far" else 1e-9  # of 1e6 as many digits are lost in either form
        assert difference(found[name], value) < limit, (name, difference(found[name], value))
    with torch.no_grad():
        bn.eval()
        assert difference(linear_bn_pool(x, weight, bn), plain(x, weight, bn)) < 1e-9


@pytest.mark.parametrize("training", [True, False])
def test_in_single_precision(training: bool) -> None:
    x = clouds("random")
    weight, bn = layers(torch.float32)
    found = both_ways(linear_bn_pool, x.float(), weight, bn.train(training))
    expected = both_ways(plain, x.float().double(), weight.double(), bn.double())
    for name, value in expected.items():
        limit = 1e-5 if name == "out" else 1e-4 if name.startswith("grad") else 1e-6
        assert difference(found[name], value) < limit, (name, difference(found[name], value))


def test_what_is_no_number_stays_so() -> None:
    x = clouds("random")
    weight, bn = layers(torch.float64)
    x[1, 200] = torch.nan
    with torch.no_grad():
        expected = plain(x, weight, bn.eval()).isnan()
        assert torch.equal(linear_bn_pool(x, weight, bn).isnan(), expected)
    assert torch.equal(linear_bn_pool(x.requires_grad_(), weight, bn).isnan(), expected)


def test_same_bits_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    x = clouds("random").float()
    weight, bn = layers(torch.float32)
    results = []
    for threads in (1, 2, 2):
        monkeypatch.setattr(
            linear_pool_cpu, "use_torch_threads", lambda n=threads: numba.set_num_threads(n)
        )
        results.append(both_ways(linear_bn_pool, x, weight, bn))
    for other in results[1:]:
        assert all(torch.equal(other[name], value) for name, value in results[0].items())


def test_a_graph_serves_twice_and_for_first_derivatives_only() -> None:
    x = clouds("random").requires_grad_()
    weight, bn = layers(torch.float64)
    out = linear_bn_pool(x, weight, bn)
    (first,) = torch.autograd.grad(out.square().sum(), x, retain_graph=True)
    (second,) = torch.autograd.grad(out.square().sum(), x)
    assert torch.equal(first, second)
    out = linear_bn_pool(x, weight, bn)
    (grad,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_a_single_point_has_no_batch_statistics() -> None:
    weight, bn = layers(torch.float32)
    with pytest.raises(ValueError, match="batch statistics of a single point"):
        linear_bn_pool(torch.rand(1, 1, 24), weight, bn)


def test_side_by_side() -> None:
    memory = SideBySide(2, 5, [3, 4], like=torch.zeros(1))
    outputs = [torch.rand(2, 5, 3, requires_grad=True), torch.rand(2, 5, 4, requires_grad=True)]
    factor = torch.rand(2, 5, 7)
    copied = memory.join(outputs)
    for part, output in zip(memory.parts, outputs, strict=True):
        assert part is not None
        part.copy_(output.detach())
    in_place = [part.requires_grad_() for part in memory.parts if part is not None]
    joined = memory.join(in_place)
    assert torch.equal(joined, copied)
    assert joined.data_ptr() == memory.parts[0].data_ptr()  # type: ignore[union-attr]
    found = torch.autograd.grad((joined * factor).sum(), in_place)
    expected = torch.autograd.grad((copied * factor).sum(), outputs)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))

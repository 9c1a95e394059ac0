"""Operators against their plain twins, on random and on nasty input."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from pixcloud.ops.gather_reduce import gather_reduce, in_degree
from pixcloud.ops.linear_max import linear_bn_max
from pixcloud.ops.neighbours import knn
from reference.plain_ops import plain_gather_reduce, plain_linear_bn_max


def clouds(kind: str) -> torch.Tensor:
    torch.manual_seed(0)
    x = torch.randn(3, 40, 3, dtype=torch.float64)
    if kind == "duplicates":  # as dropped points give: most of them are point 0
        x[:, 5:] = x[:, :1]
    elif kind == "grid":  # ties everywhere
        x = torch.stack(torch.meshgrid(*[torch.arange(3.0)] * 3, indexing="ij"), -1)
        x = x.reshape(1, 27, 3).double()
    elif kind == "huge":
        x = x + 1e6
    elif kind == "one point":
        x = x[:, :1]
    elif kind == "same":
        x = torch.ones(2, 9, 3, dtype=torch.float64)
    return x


KINDS = ["random", "duplicates", "grid", "huge", "one point", "same"]


@pytest.mark.parametrize("kind", KINDS)
def test_gather_reduce(kind: str) -> None:
    x = clouds(kind)
    index = knn(x, min(4, x.shape[1]))
    torch.manual_seed(1)
    u = torch.randn(*x.shape[:2], 6, dtype=torch.float64, requires_grad=True)
    sign = torch.tensor([1.0, -1, 1, -1, -1, 1], dtype=torch.float64)
    weights = torch.randn(2, *u.shape, dtype=torch.float64)
    results = []
    for way in (gather_reduce, plain_gather_reduce):
        extreme, total = way(u, index, sign)
        (grad,) = torch.autograd.grad((extreme * weights[0] + total * weights[1]).sum(), u)
        results.append((extreme, total, grad))
    for ours, plain in zip(*results, strict=True):
        assert torch.allclose(ours, plain, rtol=1e-12, atol=1e-12)


def test_gather_reduce_gradcheck() -> None:
    torch.manual_seed(2)
    u = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)
    index = torch.randint(0, 7, (2, 7, 3))
    sign = torch.tensor([1.0, -1, 1], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v: gather_reduce(v, index, sign), u)


def test_in_degree() -> None:
    index = torch.randint(0, 9, (2, 9, 4), generator=torch.Generator().manual_seed(3))
    degree = in_degree(index, torch.float64)
    for b in range(2):
        assert degree[b].tolist() == [int((index[b] == j).sum()) for j in range(9)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_linear_bn_max(training: bool, kind: str) -> None:
    x = clouds(kind).clone().requires_grad_()
    torch.manual_seed(4)
    weight = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    layers = [nn.BatchNorm1d(6).double().train(training) for _ in range(2)]
    results = []
    for layer, way in zip(layers, (linear_bn_max, plain_linear_bn_max), strict=True):
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([1.0, -1, 0.5, -2, 0.01, 3]))
            layer.bias.copy_(torch.arange(6.0))
        out = way(x, weight, layer)
        loss = (out * torch.arange(1.0, 7.0)).sum()
        grads = torch.autograd.grad(loss, [x, weight, layer.weight, layer.bias])
        # where points tie, the gradient may go to either of them: its sum is what is defined
        of_x = grads[0] if kind in ("random", "grid") else grads[0].sum(1)
        results.append([out, of_x, *grads[1:], layer.running_mean, layer.running_var])
    # The gradient of a weight is then a difference of terms of size 1e6: its digits are lost.
    tolerance = 1e-7 if kind == "huge" else 1e-9
    if kind == "huge":
        results = [[r[0], r[-2], r[-1]] for r in results]
    if kind == "same" and training:  # zero variance: eps alone, gradients of either way are noise
        results = [r[:1] for r in results]
    for ours, plain in zip(*results, strict=True):
        assert torch.allclose(ours, plain, rtol=tolerance, atol=tolerance)


def test_the_first_kernel_leaves_torch_its_threads() -> None:
    program = (
        "import torch\n"
        "torch.set_num_threads(1)\n"
        "from pixcloud.ops.neighbours import knn\n"
        "knn(torch.rand(1, 8, 3), 2)\n"
        "print(torch.get_num_threads())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr

"""Factored EdgeConv and DGCNN against the textbook forms, in float64."""

from __future__ import annotations

import pytest
import torch

from pixcloud.encoders import build_encoder
from pixcloud.encoders.edgeconv import EdgeConv
from reference.plain_ops import PlainDGCNN, PlainEdgeConv, plain_knn


def pair(k: int = 5) -> tuple[EdgeConv, PlainEdgeConv]:
    torch.manual_seed(0)
    ours, plain = EdgeConv(3, 8, k).double(), PlainEdgeConv(3, 8, k).double()
    with torch.no_grad():
        ours.bn.weight.copy_(torch.tensor([1.0, -1, 0.3, -0.2, 0.01, 2, -3, 1]))
        ours.bn.bias.normal_()
        ours.bn.running_mean.normal_()  # type: ignore[union-attr]
        ours.bn.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    plain.load_state_dict(ours.state_dict())
    return ours, plain


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["random", "dropped", "one cloud", "one point", "huge", "k > N"])
def test_edge_conv(training: bool, kind: str) -> None:
    ours, plain = pair(50 if kind == "k > N" else 5)
    x = torch.randn(3, 24, 3, dtype=torch.float64)
    if kind == "dropped":
        x[:, 3:] = x[:, :1]
    elif kind == "one cloud":
        x = x[:1]
    elif kind == "one point":
        x = x[:, :1]
    elif kind == "huge":
        x = x + 1e6
    index = plain_knn(x, min(ours.k, x.shape[1]))
    x.requires_grad_()
    results = []
    for layer in (ours.train(training), plain.train(training)):
        out = layer(x, index)
        weight = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape)
        grads = torch.autograd.grad((out * weight).sum(), [x, *layer.parameters()])
        # equal points tie for the maximum and share its gradient in some way: compare the sum
        of_x = grads[0] if kind in ("random", "one cloud", "k > N") else grads[0].sum(1)
        results.append([out, of_x, *grads[1:], *layer.buffers()])
    tolerance = 1e-7 if kind == "huge" else 1e-9
    for place, (a, b) in enumerate(zip(*results, strict=True)):
        # The gradient of a weight is then a difference of terms of size 1e6, whose digits are
        # lost in either form; outputs and statistics must still agree.
        if kind == "huge" and 0 < place < len(results[0]) - 3:
            continue
        assert torch.allclose(a.double(), b.double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("training", [True, False])
def test_dgcnn(training: bool) -> None:
    torch.manual_seed(1)
    ours = build_encoder("dgcnn", k=4, embed_dim=16, widths=[8, 8, 16, 16]).double()
    plain = PlainDGCNN(4, 16, [8, 8, 16, 16]).double()
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, 30, 3, dtype=torch.float64)
    results = []
    for model in (ours.train(training), plain.train(training)):
        out = model(x)
        out = out if isinstance(out, torch.Tensor) else out.pooled
        weight = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape)
        grads = torch.autograd.grad((out * weight).sum(), list(model.parameters()))
        results.append([out, *grads, *model.buffers()])
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a.double(), b.double(), rtol=1e-9, atol=1e-10)


def test_zero_scale_gives_the_bias() -> None:
    """At a BN scale of zero every neighbour ties; the value is defined, its subgradient is not."""
    ours, plain = pair()
    x = torch.randn(2, 12, 3, dtype=torch.float64)
    for layer in (ours, plain):
        torch.nn.init.zeros_(layer.bn.weight)
    assert torch.allclose(ours(x), plain(x), rtol=1e-12)
    ours(x).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in ours.parameters() if p.grad is not None)

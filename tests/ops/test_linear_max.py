"""The kernels of the last layer of PointNet against the plain path that other devices take."""

from __future__ import annotations

import pytest
import torch

from pixcloud.ops import linear_max

SAME = ("ties", "duplicates")


def inputs(kind: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 50, 7, generator=generator, dtype=dtype)
    if kind == "ties":
        x = x.round()
    elif kind == "duplicates":
        x = x[:, :5].repeat(1, 10, 1)
    elif kind == "one point":
        x = x[:, :1]
    elif kind == "huge":
        x = x + 1e6
    weight = torch.randn(300, 7, generator=generator, dtype=dtype)
    sign = torch.where(torch.rand(300, generator=generator) < 0.3, -1.0, 1.0).to(dtype)
    return x, weight, sign


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["random", "ties", "duplicates", "one point", "huge"])
@pytest.mark.parametrize("entries", [1, 1 << 20])
def test_both_paths_agree(
    kind: str, dtype: torch.dtype, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear_max, "BLOCK_ENTRIES", entries)
    results = []
    x, weight, sign = inputs(kind, dtype)
    upstream = torch.randn(3, 300, generator=torch.Generator().manual_seed(1), dtype=dtype)
    for way in (linear_max._anywhere, linear_max._on_cpu):
        leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        out = way(*leaves, sign)
        out.backward(upstream)
        grad_x, grad_weight = (leaf.grad for leaf in leaves)
        assert grad_x is not None
        # Products of equal rows may differ in the last bit, so which of them wins is open.
        results.append([out.detach(), grad_x.sum(1) if kind in SAME else grad_x, grad_weight])
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for plain, ours in zip(*results, strict=True):
        assert (plain - ours).norm() <= tolerance * plain.norm()


def test_the_number_of_threads_changes_no_bit() -> None:
    before, results = torch.get_num_threads(), []
    x, weight, sign = inputs("random", torch.float32)
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            leaf = x.clone().requires_grad_()
            linear_max._on_cpu(leaf, weight, sign).square().sum().backward()
            results.append(leaf.grad)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])

"""NT-Xent and the objective against the paper's sums."""

from __future__ import annotations

import pytest
import torch

from pixcloud import losses
from pixcloud.encoders import build_encoder
from pixcloud.encoders.image import ImageEncoder
from pixcloud.losses import nt_xent
from pixcloud.objective import CrossModalObjective
from reference.plain_ops import plain_nt_xent


@pytest.mark.parametrize("kind", ["random", "equal", "opposite", "huge", "two"])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_nt_xent(kind: str, temperature: float) -> None:
    torch.manual_seed(0)
    a = torch.randn(6, 5, dtype=torch.float64)
    b = torch.randn(6, 5, dtype=torch.float64)
    if kind == "equal":
        b = a.clone()
    elif kind == "opposite":
        b = -a
    elif kind == "huge":
        a, b = a * 1e8, b * 1e-8
    elif kind == "two":
        a, b = a[:2], b[:2]
    results = []
    for way in (nt_xent, plain_nt_xent):
        x, y = a.clone().requires_grad_(), b.clone().requires_grad_()
        loss = way(x, y, temperature)
        results.append([loss, *torch.autograd.grad(loss, [x, y])])
    for ours, plain in zip(*results, strict=True):
        assert torch.allclose(ours, plain, rtol=1e-9, atol=1e-12)


def test_nt_xent_in_blocks_and_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    z = torch.randn(2, 7, 4, dtype=torch.float64, requires_grad=True)
    whole = nt_xent(z[0], z[1])
    (expected,) = torch.autograd.grad(whole, z)
    for entries in (1, 30, 1 << 20):
        monkeypatch.setattr(losses, "BLOCK_ENTRIES", entries)
        parts = [nt_xent(z[0], z[1], rows=slice(low, low + 3)) for low in (0, 3, 6)]
        (grad,) = torch.autograd.grad(sum(parts), z)
        assert torch.allclose(sum(parts), whole, rtol=1e-12)
        assert torch.allclose(grad, expected, rtol=1e-9, atol=1e-12)
        assert nt_xent(z[0], z[1], rows=slice(2, 2)).item() == 0


def test_nt_xent_is_symmetric_and_permutes() -> None:
    torch.manual_seed(1)
    a, b = torch.randn(2, 7, 4, dtype=torch.float64)
    order = torch.randperm(7)
    assert nt_xent(a, b) == pytest.approx(nt_xent(b, a).item())
    assert nt_xent(a[order], b[order]) == pytest.approx(nt_xent(a, b).item())


def test_nt_xent_refuses() -> None:
    with pytest.raises(ValueError, match="at least 2 pairs"):
        nt_xent(torch.rand(1, 4), torch.rand(1, 4))
    with pytest.raises(ValueError, match="share the shape"):
        nt_xent(torch.rand(3, 4), torch.rand(2, 4))


def test_objective_sums_both_losses() -> None:
    torch.manual_seed(2)
    objective = CrossModalObjective(
        build_encoder("pointnet", embed_dim=16, widths=[8]),
        ImageEncoder("resnet-tiny"),
        point_hidden=8,
        image_hidden=8,
        projection_dim=6,
        temperature=0.2,
        intra_weight=0.5,
        cross_weight=2.0,
    )
    z1, z2, h = torch.randn(3, 5, 6, dtype=torch.float64)
    found = objective.losses(torch.stack([z1, z2, h], dim=1))
    assert found["intra"] == pytest.approx(plain_nt_xent(z1, z2, 0.2).item())
    assert found["cross"] == pytest.approx(plain_nt_xent((z1 + z2) / 2, h, 0.2).item())
    assert found["loss"] == pytest.approx((0.5 * found["intra"] + 2 * found["cross"]).item())
    half = objective.losses(torch.stack([z1, z2, h], dim=1).bfloat16())
    assert half["loss"].dtype == torch.float32

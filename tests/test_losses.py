"""NT-Xent and the objective against the paper's sums."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pixcloud import losses
from pixcloud.config import OptimConfig
from pixcloud.encoders import build_encoder
from pixcloud.encoders.image import ImageEncoder
from pixcloud.losses import nt_xent, relation_loss
from pixcloud.objective import CrossModalObjective
from pixcloud.optimizer import build_optimizer
from reference.plain_ops import plain_contrast, plain_nt_xent, plain_relation


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


@pytest.mark.parametrize("kind", ["random", "equal", "opposite", "two"])
@pytest.mark.parametrize(
    "options", [{"between": True}, {"hardness": 1.5}, {"between": True, "hardness": 0.5}, {}]
)
@pytest.mark.parametrize("earlier", [0, 1, 6])
def test_forms_of_contrast(kind: str, options: dict[str, Any], earlier: int) -> None:
    """Values and gradients, that of a learned temperature too."""
    torch.manual_seed(4)
    memory = torch.randn(2, earlier, 4, dtype=torch.float64, requires_grad=True)
    a = torch.randn(5, 4, dtype=torch.float64)
    b = {"equal": a.clone(), "opposite": -a}.get(kind, torch.randn(5, 4, dtype=torch.float64))
    if kind == "two":
        a, b = a[:2], b[:2]
    results = []
    for way in (nt_xent, plain_contrast):
        given = a.clone(), b.clone(), torch.tensor(0.2, dtype=torch.float64)
        x, y, temperature = (value.requires_grad_() for value in given)
        loss = way(x, y, temperature, memory=tuple(memory), **options)
        results.append([loss, *torch.autograd.grad(loss, [x, y, temperature])])
    for ours, plain in zip(*results, strict=True):
        assert torch.allclose(ours, plain, rtol=1e-9, atol=1e-11)


EARLIER = torch.arange(24.0, dtype=torch.float64).sin().view(2, 3, 4)


@pytest.mark.parametrize(
    "options", [{}, {"between": True, "hardness": 0.5, "memory": tuple(EARLIER)}]
)
def test_nt_xent_in_blocks_and_parts(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    torch.manual_seed(3)
    z = torch.randn(2, 7, 4, dtype=torch.float64, requires_grad=True)
    warmth = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    whole = nt_xent(z[0], z[1], warmth, **options)
    expected, of_warmth = torch.autograd.grad(whole, [z, warmth])
    for entries in (1, 30, 1 << 20):
        monkeypatch.setattr(losses, "BLOCK_ENTRIES", entries)
        parts = [nt_xent(*z, warmth, slice(low, low + 3), **options) for low in (0, 3, 6)]
        grad, slope = torch.autograd.grad(sum(parts), [z, warmth])
        assert torch.allclose(slope, of_warmth, rtol=1e-9)
        assert torch.allclose(sum(parts), whole, rtol=1e-12)
        assert torch.allclose(grad, expected, rtol=1e-9, atol=1e-12)
        assert nt_xent(z[0], z[1], rows=slice(2, 2)).item() == 0


@pytest.mark.parametrize("kind", ["random", "equal", "opposite", "two"])
def test_relations(kind: str) -> None:
    """Values and gradients of the clouds; pictures get none; parts over rows add up."""
    torch.manual_seed(5)
    z = torch.randn(6, 5, dtype=torch.float64)
    h = {"equal": z.clone(), "opposite": -z}.get(kind, torch.randn(6, 3, dtype=torch.float64))
    if kind == "two":
        z, h = z[:2], h[:2]
    z.requires_grad_(), h.requires_grad_()
    ours, plain = relation_loss(z, h, 0.3), plain_relation(z, h, 0.3)
    assert ours.item() == pytest.approx(plain.item(), rel=1e-12)
    gradient = torch.autograd.grad(ours, [z, h], allow_unused=True)
    torch.testing.assert_close(gradient[0], torch.autograd.grad(plain, z)[0], atol=1e-12, rtol=1e-9)
    assert gradient[1] is None
    parts = [relation_loss(z, h, 0.3, rows) for rows in (slice(0, 1), slice(1, None))]
    assert sum(parts).item() == pytest.approx(ours.item(), rel=1e-12)  # type: ignore[union-attr]


def test_relations_refuse() -> None:
    with pytest.raises(ValueError, match="one picture for each cloud: 3 and 2"):
        relation_loss(torch.rand(3, 4), torch.rand(2, 4))
    with pytest.raises(ValueError, match="at least 2 pairs"):
        relation_loss(torch.rand(1, 4), torch.rand(1, 4))


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


def small_objective(**options: Any) -> CrossModalObjective:
    torch.manual_seed(2)
    return CrossModalObjective(
        build_encoder("pointnet", embed_dim=16, widths=[8]),
        ImageEncoder("resnet-tiny"),
        point_hidden=8,
        image_hidden=8,
        projection_dim=6,
        **options,
    )


def test_objective_with_every_option() -> None:
    objective = small_objective(
        temperature=0.2,
        cross_temperature=0.3,
        learn_temperature=True,
        intra_contrast="between",
        cross_views="each",
        hardness=0.7,
        ema=0.9,
        teacher=True,
    ).double()
    z1, z2, h, t1, t2 = torch.randn(5, 4, 6, dtype=torch.float64)
    found = objective.losses(torch.stack([z1, z2, h, t1, t2], dim=1))
    pairs = [(z1, t2), (z2, t1)]
    intra = [plain_contrast(*pair, 0.2, between=True, hardness=0.7) for pair in pairs]
    cross = [plain_contrast(z, h, 0.3, hardness=0.7) for z in (z1, z2)]
    assert found["intra"].item() == pytest.approx((sum(intra) / 2).item())
    assert found["cross"].item() == pytest.approx((sum(cross) / 2).item())
    assert objective.measured() == pytest.approx({"temperature": 0.2, "cross_temperature": 0.3})


def test_objective_with_earlier_pairs_and_relations() -> None:
    """Of three steps with a memory of five pairs; evaluation adds nothing."""
    objective = small_objective(queue=5, relation_weight=0.5, relation_temperature=0.4).double()
    steps = torch.randn(3, 4, 3, 6, dtype=torch.float64)
    kept: list[torch.Tensor] = []
    for z in steps:
        z1, z2, h = z.unbind(1)
        past = torch.stack(kept[-5:]) if kept else torch.empty(0, 3, 6, dtype=torch.float64)
        p1, p2, ph = past.unbind(1)
        memory = (p1, p2), ((p1 + p2) / 2, ph)
        for mode in (False, True):
            found = objective.train(mode).losses(z)
            intra = plain_contrast(z1, z2, 0.1, memory=memory[0])
            cross = plain_contrast((z1 + z2) / 2, h, 0.1, memory=memory[1])
            relation = plain_relation((z1 + z2) / 2, h, 0.4)
            assert found["intra"].item() == pytest.approx(intra.item())
            assert found["cross"].item() == pytest.approx(cross.item())
            assert found["loss"].item() == pytest.approx((intra + cross + relation / 2).item())
        kept += list(z)
    assert objective.earlier is not None
    objective.earlier.add(torch.arange(7.0).view(7, 1, 1).expand(7, 3, 6))  # more than it keeps
    assert sorted(objective.earlier.rows()[:, 0, 0].tolist()) == [2, 3, 4, 5, 6]


def test_objective_averages_several_pictures() -> None:
    objective = small_objective()
    views, pictures = torch.randn(2, 3, 9, 3), torch.rand(3, 2, 3, 16, 16)
    objective.eval()
    z = objective.project(*views, pictures.flatten(0, 1))
    each = [objective.project_pictures(pictures[:, place]) for place in (0, 1)]
    torch.testing.assert_close(z[:, 2], (each[0] + each[1]) / 2)


def test_learned_temperatures_stay_in_bounds() -> None:
    objective = small_objective(learn_temperature=True)
    assert objective.log_temperature is not None
    with torch.no_grad():
        objective.log_temperature.copy_(torch.tensor([-9.0, 3.0]))
    objective.after_step()
    assert list(objective.measured().values()) == pytest.approx([0.01, 1.0])
    groups = build_optimizer(OptimConfig(weight_decay=0.1), objective).param_groups
    assert [(len(g["params"]) == 1, g["weight_decay"]) for g in groups] == [
        (False, 0.1),
        (True, 0.0),
    ]


@pytest.mark.parametrize("teacher", [False, True])
def test_averaged_encoder(teacher: bool) -> None:
    """Against the sums, weight by weight; the encoder that is exported is the average."""
    objective = small_objective(ema=0.5, teacher=teacher)
    encoder, head = objective.exported
    assert encoder is not objective.point_encoder
    plain = {n: v.clone() for n, v in objective.point_encoder.state_dict().items()}
    for step in range(1, 13):
        with torch.no_grad():
            for weight in objective.point_encoder.parameters():
                weight += torch.randn_like(weight)
        objective.point_encoder.train()(torch.randn(3, 9, 3))
        objective.after_step()
        keep = min(0.5, step / (step + 9))
        for name, now in objective.point_encoder.state_dict().items():
            if "running" in name and teacher:
                continue  # its own, of batches that it sees
            mixed = keep * plain[name] + (1 - keep) * now
            plain[name] = mixed if now.is_floating_point() else now.clone()
    for name, value in encoder.state_dict().items():
        if not (teacher and name.endswith(("running_mean", "running_var", "tracked"))):
            torch.testing.assert_close(value, plain[name])
    before = encoder.state_dict()[_running(encoder)].clone()
    z = objective.project(torch.randn(3, 9, 3), torch.randn(3, 9, 3), torch.rand(3, 3, 16, 16))
    assert z.shape == (3, 5 if teacher else 3, 6)
    assert torch.equal(before, encoder.state_dict()[_running(encoder)]) is not teacher
    if teacher:
        assert not torch.equal(z[:, 3:], z[:, :2])
        z.sum().backward()
        assert all(weight.grad is None for weight in head.parameters())


def _running(encoder: torch.nn.Module) -> str:
    return next(name for name in encoder.state_dict() if name.endswith("running_mean"))

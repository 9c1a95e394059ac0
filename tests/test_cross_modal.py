"""Both towers on disk: as trained, from an export or a checkpoint, and what cannot be embedded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pixcloud import load_cross_modal, save_encoder
from pixcloud.building import build_objective, export_objective
from pixcloud.checkpoint import last_good
from pixcloud.config import pretrain_config
from pixcloud.cross_modal import CrossModal
from pixcloud.data.views import unit_sphere
from pixcloud.encoders import build_encoder
from pixcloud.errors import WeightsError
from pixcloud.export import load_encoder, weights_sha256
from pixcloud.export_tower import build_tower, save_tower


@pytest.fixture(scope="module")
def model(held_run: Path) -> CrossModal:
    return load_cross_modal(held_run)


def test_as_trained(held_run: Path, model: CrossModal) -> None:
    """The projections are those of the objective's own modules, whose weights a checkpoint has."""
    saved = last_good(held_run / "checkpoints")
    assert saved is not None
    for name, value in model.state_dict().items():
        assert torch.equal(value, saved.model[name]), name
    assert (model.num_points, model.picture_size, model.dim) == (32, 24, 8)
    assert model.origin["held_out"] == 0.25
    assert model.origin["pairs_sha256"] == saved.state["pairs"]
    assert not model.training
    assert weights_sha256(load_encoder(held_run)) == weights_sha256(model.point_encoder)
    points = torch.rand(5, 40, 3) + 7
    z = model.point_head(model.point_encoder(unit_sphere(points)).pooled)
    expected = z / z.norm(dim=1, keepdim=True)
    assert torch.allclose(model.embed_points(points.numpy()), expected, atol=1e-6)
    pictures = torch.randint(0, 256, (3, 3, 24, 24), dtype=torch.uint8)
    h = model.image_head(model.image_encoder(pictures.float() / 255))
    expected = h / h.norm(dim=1, keepdim=True)
    assert torch.allclose(model.embed_images(pictures), expected, atol=1e-6)
    assert torch.allclose(model.embed_images(pictures / 255), expected, atol=1e-6)
    assert model.embed_images(pictures[0]).shape == (8,)
    assert model.embed_points(points[0]).shape == (8,)


def test_a_picture_tower_goes_into_another_run(
    held_run: Path, model: CrossModal, tmp_path: Path
) -> None:
    """Of a run, of its export and of a saved tower: the weights as they are, frozen or not."""
    save_tower(tmp_path / "tower", model.image_encoder)
    for name in (held_run, held_run / "encoder", tmp_path / "tower"):
        image = {"name": str(name), "frozen": True}
        objective = build_objective(pretrain_config("demo", image=image))
        tower = objective.image_encoder
        assert weights_sha256(tower) == weights_sha256(model.image_encoder)
        assert not any(weight.requires_grad for weight in tower.parameters())
    config = pretrain_config("demo", image={"name": str(held_run)}, data={"num_points": 32})
    export_objective(tmp_path / "e", build_objective(config), config, {})
    shutil.move(tmp_path / "tower", tmp_path / "away")
    again = load_cross_modal(tmp_path / "e")  # it needs nothing but itself
    assert weights_sha256(again.image_encoder) == weights_sha256(model.image_encoder)
    shutil.copytree(held_run / "encoder", tmp_path / "broken")
    meta = json.loads((tmp_path / "broken" / "config.json").read_text())
    (tmp_path / "broken" / "config.json").write_text(json.dumps(meta | {"picture": None}))
    with pytest.raises(WeightsError, match="does not describe it"):
        build_tower(str(tmp_path / "broken"))


def test_of_a_run_without_an_export(held_run: Path, model: CrossModal, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(held_run, cut)
    shutil.rmtree(cut / "encoder")
    state = torch.get_rng_state()
    again = load_cross_modal(cut)
    assert torch.equal(state, torch.get_rng_state())
    assert weights_sha256(again) == weights_sha256(model)
    assert again.origin["pairs_sha256"] == model.origin["pairs_sha256"]
    # An export of an earlier version has no picture tower.
    shutil.copytree(held_run / "encoder", cut / "encoder")
    (cut / "encoder" / "picture.safetensors").unlink()
    assert weights_sha256(load_cross_modal(cut)) == weights_sha256(model)


def test_without_picture_tower(held_run: Path, tmp_path: Path) -> None:
    save_encoder(tmp_path / "e", build_encoder("pointnet", embed_dim=8, widths=[4]))
    with pytest.raises(WeightsError, match=r"e/picture\.safetensors: missing.*give a run"):
        load_cross_modal(tmp_path / "e")
    with pytest.raises(WeightsError, match="no such folder"):
        load_cross_modal(tmp_path / "nowhere")
    shutil.copytree(held_run / "encoder", tmp_path / "f")
    meta = json.loads((tmp_path / "f" / "config.json").read_text())
    (tmp_path / "f" / "config.json").write_text(json.dumps({**meta, "picture": None}))
    with pytest.raises(WeightsError, match=r"config\.json beside it does not describe it"):
        load_cross_modal(tmp_path / "f")
    meta["picture"]["name"] = "resnet18"
    (tmp_path / "f" / "config.json").write_text(json.dumps(meta))
    with pytest.raises(WeightsError, match=r"picture\.safetensors: does not fit"):
        load_cross_modal(tmp_path / "f")
    (tmp_path / "f" / "picture.safetensors").write_bytes(b"broken")
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        load_cross_modal(tmp_path / "f")


def test_nasty_input(model: CrossModal) -> None:
    for points in (np.zeros((2, 5, 2)), np.zeros((2, 0, 3)), np.zeros(3), np.full((1, 4, 3), 1e99)):
        with pytest.raises(ValueError, match="points"):
            model.embed_points(points)
    for images in (np.zeros((2, 5, 5)), np.zeros((1, 3, 0, 4)), np.full((3, 8, 8), 2.0)):
        with pytest.raises(ValueError, match="images must be"):
            model.embed_images(images)
    with pytest.raises(ValueError, match="images hold NaN"):
        model.embed_images(np.full((3, 8, 8), np.nan))
    # A cloud whose points coincide has a direction like any other.
    assert model.embed_points(np.ones((1, 9, 3))).norm() == pytest.approx(1)
    # Modes come back as they were, frozen ones too.
    model.train()
    model.image_encoder.backbone.eval()
    model.embed_images(np.zeros((1, 3, 24, 24)))
    assert model.point_head.training
    assert not model.image_encoder.backbone.training
    model.eval()

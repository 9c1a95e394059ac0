"""DGCNN for parts with its head: the numbers of the original, and every key accounted for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import pixcloud
from pixcloud import cli
from pixcloud.errors import WeightsError
from pixcloud.evaluate.segmenter import PointSegmenter, load_segmenter
from pixcloud.export import load_head
from pixcloud.import_segmenter import import_dgcnn_partseg
from pixcloud.import_weights import import_crosspoint
from pixcloud.weight_files import read_state_dict

NAME = "fixtures/dgcnn_partseg_with_head_fp16.pth"


@pytest.fixture(scope="module")
def imported(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("partseg") / "imported"
    words = ["import", "dgcnn_partseg", str(shared / NAME), str(folder), "--k", "15"]
    assert cli.main(words) == 0
    return folder


@pytest.mark.parametrize(("kind", "bound"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_the_numbers_of_the_original(
    shared: Path, imported: Path, kind: torch.dtype, bound: float
) -> None:
    with np.load(shared / "fixtures/dgcnn_partseg_with_head_expected.npz") as file:
        points, category, expected = (file[name] for name in ("points", "category", "logits"))
    model = load_segmenter(imported / "segmenter").to(kind)
    with torch.no_grad():
        logits = model(torch.tensor(points, dtype=kind), torch.tensor(category))
    away = np.linalg.norm(logits.double().numpy() - expected)
    assert away < bound * np.linalg.norm(expected)


def test_both_folders_hold_the_same_encoder(imported: Path) -> None:
    segmenter = pixcloud.from_pretrained(imported / "segmenter")
    assert isinstance(segmenter, PointSegmenter)
    assert list(segmenter.part_names)[:2] == ["airplane", "bag"]
    theirs = segmenter.encoder.state_dict()
    for name, ours in pixcloud.load_encoder(imported).state_dict().items():
        assert torch.equal(ours, theirs[name])
    assert load_head(imported)[3].out_features == 256


def test_every_key_must_fit(shared: Path, tmp_path: Path) -> None:
    state = read_state_dict(shared / NAME)
    plain = {key: value for key, value in state.items() if not key.startswith("inv_head")}
    torch.save({"model": {f"module.{key}": v for key, v in plain.items()}}, tmp_path / "w.t7")
    said = import_dgcnn_partseg(str(tmp_path / "w.t7"), str(tmp_path / "plain"))
    assert "projection head" not in said
    assert pixcloud.load_encoder(tmp_path / "plain").spec["settings"]["k"] == 40
    for key, value, words in (
        (
            "conv11.weight",
            None,
            "missing: conv11.weight; without a head for parts: pixcloud import",
        ),
        ("bn9.bias", None, "not a DGCNN for parts with its head; missing: bn9.bias"),
        (
            "conv4.0.weight",
            None,
            "not a CrossPoint DGCNN for segmentation state dict; missing: conv4",
        ),
        ("conv12.weight", torch.ones(1), "not known here: conv12.weight"),
        ("bn8.bias", torch.ones(256), "bn8.bias and conv8.1.bias are one layer but differ"),
        (
            "conv11.weight",
            torch.ones(7, 128, 1),
            r"shape: conv11.weight \(7, 128\) instead of \(50",
        ),
        ("conv7.0.weight", torch.ones(64, 16, 3), "conv7.0.weight has shape .*expected a 1 x 1"),
    ):
        changed = {k: v for k, v in {**plain, key: value}.items() if v is not None}
        torch.save(changed, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match=words):
            import_dgcnn_partseg(str(tmp_path / "w.pth"), str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()
    with pytest.raises(WeightsError, match="exists already"):
        import_dgcnn_partseg(str(shared / NAME), str(tmp_path / "plain"))


def test_every_fixture_is_read_by_a_command(shared: Path, tmp_path: Path) -> None:
    """A new one needs an import, and a test of its numbers."""
    known = {"dgcnn.pth", "dgcnn_partseg.pth", Path(NAME).name, "pct_fp16.pth"}
    assert {path.name for path in (shared / "fixtures").glob("*.pth")} == known
    full = pixcloud.build_encoder("dgcnn").state_dict()
    assert full["fuse.weight"].shape == (1024, 512)  # `dgcnn_full_size` of the list of shapes
    with pytest.raises(WeightsError, match="a head for parts: pixcloud import dgcnn_partseg"):
        import_crosspoint(str(shared / NAME), str(tmp_path / "out"))

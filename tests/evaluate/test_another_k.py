"""`--segment.k` and `--finetune.k`: the same weights, another number of neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_clouds import one_thread  # noqa: F401 (a fixture of the module)

from pixcloud import cli, load_classifier, load_encoder, load_segmenter, save_encoder
from pixcloud.data.shapenetpart import write_shapenetpart
from pixcloud.encoders import ENCODERS, PointEncoder, build_encoder, register_encoder
from pixcloud.errors import ConfigError
from pixcloud.evaluate.neighbours import with_neighbours
from pixcloud.evaluate.results import read_rows
from pixcloud.types import LabelledClouds, PointFeatures

PARTS = {"rod": ["lower", "upper"], "disc": ["inner", "outer"]}
SIZES = {
    "dgcnn": {"embed_dim": 16, "widths": [8, 8]},
    "dgcnn_seg": {"embed_dim": 16, "widths": [8, 8, 8, 8, 8]},
    "pct": {"channels": 8, "centres": [16, 8], "embed_dim": 16, "attentions": 1},
}
FIT = ["--fit.epochs", "1", "--fit.batch_size", "4"]


class Widened(PointEncoder):
    """An encoder of somebody's own, with a weight for each neighbour."""

    def __init__(self, k: int = 4) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, k)
        self.point_dim, self.pooled_dim = None, k

    def forward(self, points: torch.Tensor) -> PointFeatures:
        return PointFeatures(None, self.linear(points).amax(1))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Clouds with parts, and an encoder of k = 4."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        labels = np.tile([0, 1], 4)
        points = rng.normal(size=(8, 32, 3)).astype(np.float32)
        clouds = LabelledClouds(
            name="shapes",
            split=split,
            points=points,
            labels=labels,
            classes=list(PARTS),
            parts=2 * labels[:, None] + (points[..., 1] > 0),
        )
        write_shapenetpart(tmp_path / "data", clouds, PARTS)
    save_encoder(tmp_path / "enc", build_encoder("dgcnn_seg", k=4, **SIZES["dgcnn_seg"]))
    return tmp_path


@pytest.mark.parametrize("command", ["segment", "finetune"])
def test_k_is_used_saved_and_told(command: str, place: Path) -> None:
    words = [command, f"{place}/enc", "--data.source", f"{place}/data", *FIT]
    words += [f"--{command}.num_points", "24", "--baseline", "scratch", "--save", f"{place}/saved"]
    assert cli.main([*words, f"--{command}.k", "9"]) == 0
    load = load_segmenter if command == "segment" else load_classifier
    assert load(place / "saved").encoder.spec["settings"]["k"] == 9
    rows = read_rows(place / "enc" / "results.jsonl")
    assert {row.settings[command]["k"] for row in rows} == {9}
    assert {row.settings["architecture"]["settings"]["k"] for row in rows} == {9}
    assert len({row.encoder for row in rows}) == 2  # the one from scratch is of the same k
    assert cli.main(words) == 0
    assert load(place / "saved").encoder.spec["settings"]["k"] == 4
    assert load_encoder(place / "enc").spec["settings"]["k"] == 4


@pytest.mark.parametrize("name", SIZES)
def test_the_weights_stay(name: str) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(name, k=4, **SIZES[name]).double().eval()
    points = torch.rand(2, 32, 3).double()
    state = torch.random.get_rng_state()
    changed = with_neighbours(encoder, 6, 32, "segment.k")
    assert torch.equal(torch.random.get_rng_state(), state)
    expected = build_encoder(name, k=6, **SIZES[name]).double().eval()
    expected.load_state_dict(encoder.state_dict())
    assert torch.equal(changed(points).pooled, expected(points).pooled)
    assert not torch.equal(changed(points).pooled, encoder(points).pooled)
    assert not changed.training
    assert encoder.spec["settings"]["k"] == 4
    assert with_neighbours(encoder, 0, 32, "segment.k") is encoder


def test_a_k_that_does_not_fit(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(encoder: str, *words: str) -> str:
        source = ["--data.source", f"{place}/data", "--segment.num_points", "24"]
        assert cli.main(["segment", f"{place}/{encoder}", *source, *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    line = fails("enc", "--segment.k", "25")
    assert "segment.k = 25: of clouds of segment.num_points = 24; set segment.k to that" in line
    assert "segment.k is -1: expected at least 1, or 0" in fails("enc", "--segment.k", "-1")
    save_encoder(place / "mute", build_encoder("pointnet", embed_dim=8, widths=[8]))
    line = fails("mute", "--segment.k", "8")
    assert "segment.k = 8: encoder pointnet has no number of neighbours k; leave segment.k" in line
    save_encoder(place / "pct", build_encoder("pct", k=4, **SIZES["pct"]))
    assert "k = 20 be at most each" in fails("pct", "--segment.k", "20")


def test_weights_that_depend_on_k(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixcloud.encoders.ENCODERS", dict(ENCODERS))
    register_encoder("widened", Widened)
    with pytest.raises(
        ConfigError, match=r"finetune\.k = 5: the weights of encoder widened depend"
    ):
        with_neighbours(build_encoder("widened", k=4), 5, 32, "finetune.k")

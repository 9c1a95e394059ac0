"""The picture tower of the original: a ResNet-50 with torchvision's names, and its head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pixcloud import cli
from pixcloud.encoders.image import IMAGENET_MEAN, IMAGENET_STD, RESNETS, ImageEncoder
from pixcloud.errors import WeightsError
from pixcloud.export_tower import load_tower, load_tower_head, save_tower
from pixcloud.import_pictures import import_crosspoint_pictures, tower_names
from reference.textbook_resnet import TextbookResNet50


class Original(nn.Module):
    """The original's picture side: 64 wide, and less where the sizes do not matter."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.resnet = TextbookResNet50(width)
        self.inv_head = nn.Sequential(
            nn.Linear(32 * width, 8 * width, bias=False),
            nn.BatchNorm1d(8 * width),
            nn.ReLU(),
            nn.Linear(8 * width, 4 * width, bias=False),
        )


def test_every_name_and_shape_of_the_published_sizes() -> None:
    with torch.device("meta"):
        theirs, tower = Original().state_dict(), ImageEncoder("resnet50")
    weights = {key: value for key, value in theirs.items() if not key.startswith("inv_head.")}
    name, names = tower_names(weights, "file")
    assert name == "resnet50"
    assert sorted(names.values()) == sorted(weights)
    for ours, value in tower.state_dict().items():
        assert value.shape == weights[names[ours]].shape


def test_the_function_is_the_original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    original = Original(width=2).eval()
    for layer in original.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
            nn.init.uniform_(layer.weight, -0.5, 1)
    narrow = {"hidden_sizes": (8, 16, 32, 64), "embedding_size": 2}
    monkeypatch.setitem(RESNETS, "resnet50", narrow)
    wrapped = {f"module.module.{key}": value for key, value in original.state_dict().items()}
    torch.save({"model": wrapped, "epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "w.pth")
    words = ["import", "crosspoint_pictures", str(tmp_path / "w.pth"), str(tmp_path / "tower")]
    assert cli.main(words) == 0
    tower, head = load_tower(tmp_path / "tower"), load_tower_head(tmp_path / "tower")
    assert not tower.training
    pictures = torch.rand(2, 3, 40, 40)
    mean, std = (torch.tensor(x)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
    for kind, bound in ((torch.float32, 1e-5), (torch.float64, 1e-9)):
        ours, theirs, projection = (module.to(kind) for module in (tower, original, head))
        with torch.no_grad():
            # Our mean and deviation are those of fp32 in both.
            pooled = ours(pictures.to(kind))
            expected = theirs.resnet((pictures.to(kind) - mean.to(kind)) / std.to(kind))
            projected, wanted = projection(pooled), theirs.inv_head(expected)
        for found, right in ((pooled, expected), (projected, wanted)):
            assert float((found - right).norm() / right.norm()) < bound


def small(**changes: Any) -> dict[str, torch.Tensor]:
    """The names of a ResNet-18 with weights of wrong sizes, which no error needs to be right."""
    one = torch.ones(1)
    names = ["conv1.weight", *bn("bn1")]
    for stage in range(1, 5):
        for block in range(2):
            own = f"layer{stage}.{block}"
            names += [f"{own}.conv{n}.weight" for n in (1, 2)] + bn(f"{own}.bn1") + bn(f"{own}.bn2")
        if stage > 1:
            names += [f"layer{stage}.0.downsample.0.weight", *bn(f"layer{stage}.0.downsample.1")]
    state = dict.fromkeys(names, one) | changes
    return {name: value for name, value in state.items() if value is not None}


def bn(name: str) -> list[str]:
    parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return [f"{name}.{part}" for part in parts]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"fc.weight": torch.ones(1)},
            "not the state dict of a resnet18; not known here: fc.weight",
        ),
        ({"layer2.1.bn1.bias": None}, "missing: layer2.1.bn1.bias"),
        (
            {"layer4.1.conv1.weight": None},
            "not the state dict of a ResNet-50 or ResNet-18; its layer1",
        ),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    torch.save(small(**changes), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=words):
        import_crosspoint_pictures(str(tmp_path / "w.pth"), str(tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]


def test_tower_folders(tmp_path: Path) -> None:
    tower = ImageEncoder("resnet-tiny").eval()
    save_tower(tmp_path / "a", tower)
    pictures = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(load_tower(tmp_path / "a")(pictures), tower(pictures))
    with pytest.raises(WeightsError, match="missing"):
        load_tower_head(tmp_path / "a")
    with pytest.raises(WeightsError, match=r"no picture tower there; expected config.json"):
        load_tower(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(WeightsError, match="holds something that is no picture tower"):
        save_tower(tmp_path / "notes", tower)
    config = tmp_path / "a" / "config.json"
    config.write_text(config.read_text().replace('"weights_sha256": "', '"weights_sha256": "0'))
    with pytest.raises(WeightsError, match=r"not the weights that config.json beside it describes"):
        load_tower(tmp_path / "a")
    config.write_text('{"format": 1}')
    with pytest.raises(WeightsError, match="describes no picture tower"):
        load_tower(tmp_path / "a")

"""PCT: the numbers of the best-known port, its per-point features, and its weights from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import pixcloud
from pixcloud.cli import main
from pixcloud.encoders import build_encoder
from pixcloud.encoders.pct import interpolated
from pixcloud.errors import ConfigError, WeightsError
from pixcloud.evaluate.features import embed_clouds
from pixcloud.import_classifiers import import_dgcnn, import_pct
from pixcloud.weight_files import read_state_dict

SMALL = {"k": 4, "embed_dim": 16, "channels": 4, "centres": [12, 8]}


@pytest.fixture(scope="module")
def imported(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pct") / "imported"
    assert main(["import", "pct", str(shared / "fixtures/pct_fp16.pth"), str(folder)]) == 0
    return folder


@pytest.mark.parametrize(("kind", "bound"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_the_numbers_of_the_port(
    shared: Path, imported: Path, kind: torch.dtype, bound: float
) -> None:
    with np.load(shared / "fixtures/pct_expected.npz") as file:
        points, feature, logits = (file[name] for name in ("points", "feature", "logits"))
    classifier = pixcloud.load_classifier(imported / "classifier").to(kind)
    with torch.no_grad():
        clouds = torch.tensor(points, dtype=kind)
        pooled = pixcloud.load_encoder(imported).to(kind)(clouds).pooled
        said = classifier(clouds)
    for ours, expected in ((pooled, feature), (said, logits)):
        away = np.linalg.norm(ours.double().numpy() - expected)
        assert away < bound * np.linalg.norm(expected)


def test_every_key_must_fit(shared: Path, tmp_path: Path) -> None:
    state = read_state_dict(shared / "fixtures/pct_fp16.pth")
    wrapped = {f"module.{key}": value for key, value in state.items()}
    no_head = {k: v for k, v in state.items() if not k.startswith(("linear", "bn6", "bn7"))}
    for number, content in enumerate((wrapped, no_head)):
        torch.save(content, tmp_path / "fine.pth")
        said = import_pct(str(tmp_path / "fine.pth"), str(tmp_path / f"fine{number}"))
        assert f"all {len(content)} keys matched" in said
        assert (tmp_path / f"fine{number}/classifier").exists() == (number == 0)
    different = {**state, "pt_last.sa2.k_conv.weight": state["pt_last.sa2.k_conv.weight"] + 1}
    for content, words in (
        ({**state, "extra.weight": torch.ones(1)}, "not known here: extra.weight"),
        ({k: v for k, v in state.items() if k != "bn7.bias"}, "missing: bn7.bias"),
        ({**state, "linear3.bias": torch.ones(3)}, "linear3.weight (40, 256) instead of (3, 256)"),
        (different, "pt_last.sa2.q_conv.weight and pt_last.sa2.k_conv.weight are one layer but"),
        ({**state, "conv1.weight": torch.ones(64, 3, 2)}, "expected a 1 x 1 convolution"),
    ):
        torch.save(content, tmp_path / "broken.pth")
        with pytest.raises(WeightsError) as told:
            import_pct(str(tmp_path / "broken.pth"), str(tmp_path / "broken"))
        assert words in str(told.value)
        assert not (tmp_path / "broken").exists()


def test_a_plain_dgcnn_classifier(tmp_path: Path) -> None:
    """A file with the names of the original code, made from weights of ours."""
    torch.manual_seed(0)
    encoder = build_encoder("dgcnn", k=5, embed_dim=16, widths=[8, 8, 8, 8]).eval()
    ours = encoder.state_dict()
    state: dict[str, torch.Tensor] = {}
    for number in range(1, 6):
        linear, bn = ("fuse", "bn")
        if number < 5:
            linear, bn = f"convs.{number - 1}.linear", f"convs.{number - 1}.bn"
        kernel = ours[f"{linear}.weight"]
        state[f"conv{number}.0.weight"] = kernel.reshape(*kernel.shape, *(1,) * (2 - number // 5))
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            state[f"bn{number}.{part}"] = state[f"conv{number}.1.{part}"] = ours[f"{bn}.{part}"]
    torch.save({f"module.{k}": v for k, v in state.items()}, tmp_path / "plain.t7")
    said = import_dgcnn(str(tmp_path / "plain.t7"), str(tmp_path / "out"), k=5)
    assert "all 55 keys matched" in said
    clouds = torch.rand(2, 32, 3)
    found = pixcloud.load_encoder(tmp_path / "out")
    with torch.no_grad():
        assert torch.equal(found(clouds).pooled, encoder(clouds).pooled)
    with pytest.raises(WeightsError, match="exists already"):
        import_dgcnn(str(tmp_path / "plain.t7"), str(tmp_path / "out"))
    with pytest.raises(
        WeightsError, match="not the state dict of a PCT classifier; missing: conv_fuse"
    ):
        import_pct(str(tmp_path / "plain.t7"), str(tmp_path / "other"))


def test_per_point_features_change_nothing_else() -> None:
    torch.manual_seed(0)
    with_points = build_encoder("pct", **SMALL, point_features=True).eval()
    without = build_encoder("pct", **SMALL).eval()
    without.load_state_dict(with_points.state_dict())
    clouds = torch.randn(2, 30, 3)
    with torch.no_grad():
        per_point, pooled = with_points(clouds)
        none, same = without(clouds)
    assert none is None
    assert per_point is not None
    assert per_point.shape == (2, 30, with_points.point_dim)
    assert torch.allclose(pooled, same, atol=1e-6)


def test_interpolation_is_exact_at_the_centres() -> None:
    centres, x = torch.randn(2, 5, 3), torch.randn(2, 5, 4)
    assert torch.allclose(interpolated(centres, centres, x), x, atol=1e-4)
    middle = centres[:, :2].mean(dim=1, keepdim=True)
    two = interpolated(middle, centres[:, :2], x[:, :2])
    assert torch.allclose(two, x[:, :2].mean(dim=1, keepdim=True), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"centres": [8, 12]}, "must not grow"),
        ({"k": 13}, "be at most each"),
        ({"start": "last"}, "one of farthest, first"),
        ({"attentions": 0}, "attentions = 0"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_encoder("pct", **{**SMALL, **settings})


def test_clouds_that_are_too_small_are_told() -> None:
    encoder = build_encoder("pct", **SMALL)
    with pytest.raises(ConfigError, match=r"keeps 12 points .* smaller encoder\.settings\.centres"):
        embed_clouds(encoder, np.zeros((1, 10, 3)), num_points=10)

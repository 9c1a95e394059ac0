"""Picture towers: built here, or from a folder of transformers, never half loaded."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pixcloud.encoders.image import IMAGENET_MEAN, IMAGENET_STD, ImageEncoder
from pixcloud.encoders.resnet import ConvLayer, ResNet
from pixcloud.errors import WeightsError

VISION: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 32,
    "patch_size": 16,
}
TEXT: dict[str, Any] = {
    **{k: v for k, v in VISION.items() if k not in ("image_size", "patch_size")},
    "vocab_size": 50,
    "max_position_embeddings": 8,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def build(kind: str) -> Any:
    """A tiny model of transformers."""
    import transformers as hf

    torch.manual_seed(0)
    if kind == "vit":
        return hf.ViTModel(hf.ViTConfig(**VISION))
    if kind == "vit without pooler":
        return hf.ViTModel(hf.ViTConfig(**VISION), add_pooling_layer=False)
    if kind == "classifier":
        return hf.ViTForImageClassification(hf.ViTConfig(**VISION))
    if kind == "dinov2":
        sizes = {**VISION, "patch_size": 8, "mlp_ratio": 1}
        del sizes["intermediate_size"]
        return hf.Dinov2Model(hf.Dinov2Config(**sizes))
    if kind == "convnext":
        return hf.ConvNextModel(hf.ConvNextConfig(hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1]))
    if kind == "clip":
        return hf.CLIPModel(hf.CLIPConfig(text_config=TEXT, vision_config=VISION))
    if kind == "siglip":
        return hf.SiglipModel(hf.SiglipConfig(text_config=TEXT, vision_config=VISION))
    return hf.BertModel(hf.BertConfig(**TEXT))


def saved(kind: str, tmp_path: Path) -> Path:
    build(kind).save_pretrained(tmp_path / "tower")
    return tmp_path / "tower"


def normalised(pictures: torch.Tensor) -> torch.Tensor:
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return (pictures - mean[:, None, None]) / std[:, None, None]


def test_resnet50_as_published() -> None:
    """Its sizes; that its blocks are those of transformers is shown by narrow ones below."""
    tower = ImageEncoder("resnet50")
    assert sum(p.numel() for p in tower.parameters()) == 23_508_032
    assert tower.eval()(torch.rand(1, 3, 64, 64)).shape == (1, 2048)
    assert tower.pooled_dim == 2048


@pytest.mark.parametrize(("name", "dim"), [("resnet18", 512), ("resnet-tiny", 128)])
def test_smaller_resnets(name: str, dim: int) -> None:
    tower = ImageEncoder(name)
    assert tower.pooled_dim == dim
    assert tower(torch.rand(2, 3, 40, 40)).shape == (2, dim)
    assert all(p.requires_grad for p in tower.parameters())
    assert tower.mean.flatten().tolist() == pytest.approx(IMAGENET_MEAN)


@pytest.mark.parametrize("narrow", [True, False])
def test_resnets_are_those_of_transformers(narrow: bool) -> None:
    """Key by key: outputs, gradients and batch statistics, with the same weights."""
    import transformers as hf

    sizes: dict[str, Any] = {"depths": (2, 1, 2, 1), "hidden_sizes": (16, 24, 32, 40)}
    sizes["embedding_size"] = 12
    kind = "bottleneck" if narrow else "basic"
    twin = hf.ResNetModel(hf.ResNetConfig(**sizes, layer_type=kind)).double()
    ours = ResNet(**sizes, narrow=narrow).double()
    ours.load_state_dict(twin.state_dict())
    pictures = torch.rand(4, 3, 40, 40, dtype=torch.float64)
    outputs = twin(pixel_values=pictures).pooler_output.flatten(1), ours(pictures)
    assert torch.allclose(*outputs, rtol=0, atol=1e-10)
    target = torch.rand_like(outputs[0])
    for output in outputs:
        (output * target).sum().backward()
    for expected, found in zip(twin.parameters(), ours.parameters(), strict=True):
        assert expected.grad is not None
        assert found.grad is not None
        assert (expected.grad - found.grad).norm() <= 1e-9 * expected.grad.norm()
    for key, value in twin.state_dict().items():
        assert torch.allclose(value, ours.state_dict()[key], rtol=0, atol=1e-10), key


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [1, 8, 9])
def test_products_in_half_precision(side: int, stride: int) -> None:
    """1 x 1 convolutions as products: outputs and gradients to the digits of bf16."""
    torch.manual_seed(0)
    layer = ConvLayer(24, 40, kernel=1, stride=stride, last=True)
    layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    twin = copy.deepcopy(layer).double()
    maps = torch.randn(5, 24, side, side).contiguous(memory_format=torch.channels_last)
    inputs = maps.clone().requires_grad_(), maps.double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(inputs[0])
    expected = twin(inputs[1])
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=torch.channels_last)
    target = torch.randn_like(expected)
    for output in (found, expected):
        (output * target).sum().backward()
    pairs = [(found, expected), tuple(t.grad for t in inputs)]
    pairs += [(a.grad, b.grad) for a, b in zip(layer.parameters(), twin.parameters(), strict=True)]
    pairs += list(zip(layer.buffers(), twin.buffers(), strict=True))[:2]
    for a, b in pairs:
        assert (a - b).norm() < 0.01 * b.norm()
    kernel = layer.convolution.weight
    assert kernel.grad is not None
    assert kernel.grad.dtype == torch.float32


def test_frozen() -> None:
    """No gradient, no change of batch statistics, whatever the mode of what it is part of."""
    tower = ImageEncoder("resnet-tiny", frozen=True)
    before = {k: v.clone() for k, v in tower.state_dict().items()}
    whole = torch.nn.Sequential(tower).train()
    assert tower.training
    assert not tower.backbone.training
    assert not whole(torch.rand(4, 3, 32, 32)).requires_grad
    assert not any(p.requires_grad for p in tower.parameters())
    assert all(torch.equal(before[k], v) for k, v in tower.state_dict().items())


@pytest.mark.parametrize(
    "kind", ["vit", "vit without pooler", "classifier", "dinov2", "convnext", "clip", "siglip"]
)
def test_local_backbone(kind: str, tmp_path: Path) -> None:
    """The same numbers as the model that was saved, at its own and at another picture size."""
    tower = ImageEncoder(str(saved(kind, tmp_path))).eval()
    assert tower.pooled_dim == 16
    pictures = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        found = tower(pictures)
        model = build(kind).eval()
        model = getattr(model, "vision_model", getattr(model, "vit", model))
        out = model(pixel_values=normalised(pictures))
    if kind in ("vit without pooler", "classifier"):  # [CLS]
        expected = out.last_hidden_state[:, 0]
    else:
        expected = out.pooler_output
    assert found.shape == (2, 16)
    assert torch.allclose(found, expected, atol=1e-5)
    larger = tower.train()(torch.rand(2, 3, 64, 64))
    assert larger.shape == (2, 16)
    assert larger.requires_grad


def test_two_towers_give_the_vision_side_alone(tmp_path: Path) -> None:
    tower = ImageEncoder(str(saved("clip", tmp_path)))
    assert not any("text" in name for name, _ in tower.named_parameters())


def test_own_normalisation(tmp_path: Path) -> None:
    folder = saved("convnext", tmp_path)
    settings = folder / "preprocessor_config.json"
    settings.write_text(json.dumps({"image_mean": [0.5, 0.4, 0.3], "image_std": [0.25] * 3}))
    tower = ImageEncoder(str(folder))
    assert tower.mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    assert tower.std.flatten().tolist() == [0.25] * 3
    settings.write_text(json.dumps({"do_normalize": False}))
    tower = ImageEncoder(str(folder))
    assert (tower.mean.abs().max(), tower.std.min()) == (0, 1)
    for text in ("{", "[]", '{"image_mean": [1, 2]}', '{"image_std": "x"}'):
        settings.write_text(text)
        with pytest.raises(WeightsError, match=r"preprocessor_config\.json: cannot be read"):
            ImageEncoder(str(folder))


def test_half_precision_files_become_fp32(tmp_path: Path) -> None:
    build("vit").half().save_pretrained(tmp_path / "tower")
    tower = ImageEncoder(str(tmp_path / "tower"))
    assert {p.dtype for p in tower.parameters()} == {torch.float32}
    assert tower(torch.rand(1, 3, 32, 32)).dtype == torch.float32


def spoil(folder: Path, kind: str) -> str:
    from safetensors.torch import load_file, save_file

    weights = folder / "model.safetensors"
    if kind == "cut":
        weights.write_bytes(weights.read_bytes()[:200])
        return "not loadable"
    if kind == "pickle":
        weights.unlink()
        torch.save({}, folder / "pytorch_model.bin")
        return "safetensors"
    if kind == "other size":
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**settings, "hidden_size": 32}))
        return "not loadable"
    if kind == "missing":
        tensors = load_file(weights)
        del tensors["layernorm.weight"]
        save_file(tensors, weights, {"format": "pt"})
        return r"lacks weights of the architecture: layernorm\.weight"
    shutil.rmtree(folder)
    folder.mkdir()
    return "not loadable"


@pytest.mark.parametrize("kind", ["cut", "pickle", "other size", "missing", "empty"])
def test_damaged_folders_are_refused(kind: str, tmp_path: Path) -> None:
    folder = saved("vit", tmp_path)
    words = spoil(folder, kind)
    with pytest.raises(WeightsError, match=words) as caught:
        ImageEncoder(str(folder))
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_models_of_words_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="takes input_ids, not pictures"):
        ImageEncoder(str(saved("bert", tmp_path)))


def test_unknown_names() -> None:
    with pytest.raises(WeightsError, match="'resnet51': not built in and no folder; the nearest"):
        ImageEncoder("resnet51")
    with pytest.raises(WeightsError, match="'nobody/nothing': not one of resnet50, resnet18"):
        ImageEncoder("nobody/nothing")

"""Weights of the original implementation: the same numbers, strictly, without executing pickles."""

from __future__ import annotations

import contextlib
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pixcloud
from pixcloud import cli
from pixcloud.errors import ConfigError, WeightsError
from pixcloud.export import load_head
from pixcloud.import_weights import import_crosspoint
from pixcloud.losses import nt_xent
from pixcloud.weight_files import read_state_dict


@pytest.fixture(scope="module", params=["dgcnn", "dgcnn_partseg"])
def fixture(shared: Path, request: pytest.FixtureRequest) -> tuple[Path, dict[str, np.ndarray]]:
    folder = shared / "fixtures"
    with np.load(folder / f"{request.param}_expected.npz") as file:
        return folder / f"{request.param}.pth", dict(file)


def relative(ours: torch.Tensor, expected: np.ndarray) -> float:
    difference = ours.detach().double() - torch.as_tensor(expected)
    return float(difference.norm() / np.linalg.norm(expected))


def load(folder: Path, kind: torch.dtype) -> tuple[torch.nn.Module, torch.nn.Module]:
    return pixcloud.load_encoder(folder).to(kind), load_head(folder).to(kind)


def test_evaluation_mode(fixture: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    weights, expected = fixture
    assert cli.main(["import", "crosspoint", str(weights), str(tmp_path / "imported")]) == 0
    for kind, bound in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        encoder, head = load(tmp_path / "imported", kind)
        with torch.no_grad():
            feature = encoder(torch.tensor(expected["points_t1"], dtype=kind)).pooled
            projection = head(feature)
        assert relative(feature, expected["eval_feature"]) < bound
        assert relative(projection, expected["eval_projection"]) < bound


def test_training_step(fixture: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    """One forward and backward of t1 ++ t2 in float64, given projections of the pictures."""
    weights, expected = fixture
    import_crosspoint(str(weights), str(tmp_path / "imported"))
    encoder, head = load(tmp_path / "imported", torch.float64)
    encoder.train()
    head.train()
    both = np.concatenate([expected["points_t1"], expected["points_t2"]])
    projection = head(encoder(torch.tensor(both)).pooled)
    assert relative(projection, expected["train_projection"]) < 1e-9
    z1, z2 = projection.chunk(2)
    intra = nt_xent(z1, z2, 0.1)
    cross = nt_xent((z1 + z2) / 2, torch.tensor(expected["image_projection"]), 0.1)
    assert relative(intra, expected["loss_imid"]) < 1e-9
    assert relative(cross, expected["loss_cmid"]) < 1e-9
    (intra + cross).backward()

    segments = weights.stem == "dgcnn_partseg"
    rename = original_segmentation if segments else original
    parameters = {rename(name): p for name, p in encoder.named_parameters()}
    parameters |= {f"inv_head.{name}": p for name, p in head.named_parameters()}
    checked = 0
    for key, norm in expected.items():
        if not key.startswith("grad_norm/"):
            continue
        gradient = parameters.pop(key.removeprefix("grad_norm/")).grad
        assert gradient is not None
        if norm < 1e-12:  # zero: before a BN, or before a matrix of zeros
            assert gradient.norm() < 1e-12
        else:
            assert abs(float(gradient.norm()) / norm - 1) < 1e-7, key
        checked += 1
    assert checked == (41 if segments else 21)
    assert not parameters, "parameters that the reference does not have"

    buffers = {rename(name): b for name, b in encoder.named_buffers()}
    buffers |= {f"inv_head.{name}": b for name, b in head.named_buffers()}
    no_layer = ("bn7.", "bn8.", "bn9.", "bn10.")  # which the original makes and does not call
    names = [key.removeprefix("after_step/") for key in expected if "after_step/" in key]
    statistics = [f"after_step/{name}" for name in names if not name.startswith(no_layer)]
    assert len(statistics) == (24 if segments else 12)
    for key in statistics:
        assert relative(buffers[key.removeprefix("after_step/")], expected[key]) < 1e-9, key


def original(name: str) -> str:
    """Our name of a DGCNN weight as the original calls it."""
    if name == "fuse.weight":
        return "conv5.0.weight"
    if name.startswith("bn."):
        return name.replace("bn.", "bn5.")
    _, number, layer, part = name.split(".")
    place = int(number) + 1
    return f"conv{place}.0.{part}" if layer == "linear" else f"bn{place}.{part}"


def original_segmentation(name: str) -> str:
    """Our name of a weight of the DGCNN for segmentation as the original calls it."""
    prefix = "transform_net." if name.startswith("transform.") else ""
    name = name.removeprefix("transform.")
    whole = {
        "linear.weight": "conv3.0.weight",
        "cloud.0.weight": "linear1.weight",
        "cloud.3.weight": "linear2.weight",
        "matrix.weight": "transform.weight",
        "matrix.bias": "transform.bias",
        "fuse.weight": "conv6.0.weight",
    }
    if name in whole:
        return prefix + whole[name]
    layer, part = name.rsplit(".", 1)
    layers = {"cloud.1": "bn3", "cloud.4": "bn4", "bn": "conv3.1" if prefix else "bn6"}
    if layer in layers:
        return f"{prefix}{layers[layer]}.{part}"
    conv, kind = layer.rsplit(".", 1)
    number = {"conv": 1, "convs.0": 1, "convs.1": 3, "convs.2": 5}[conv]
    number += kind.startswith("second_")
    return f"{prefix}conv{number}.0.{part}" if "linear" in kind else f"{prefix}bn{number}.{part}"


def state_dict(embed: int = 16) -> dict[str, torch.Tensor]:
    """A small state dict with the original's keys."""
    torch.manual_seed(0)
    state: dict[str, torch.Tensor] = {}
    shapes = [(8, 6), (8, 16), (8, 16), (8, 16), (embed, 32)]
    for layer, (c_out, c_in) in enumerate(shapes, 1):
        kernel = (1, 1) if layer < 5 else (1,)
        state[f"conv{layer}.0.weight"] = torch.randn(c_out, c_in, *kernel)
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"bn{layer}.{part}"] = state[f"conv{layer}.1.{part}"] = torch.rand(c_out)
        count = torch.tensor(3)
        state[f"bn{layer}.num_batches_tracked"] = count
        state[f"conv{layer}.1.num_batches_tracked"] = count
    state |= {"inv_head.0.weight": torch.randn(4, 2 * embed), "inv_head.0.bias": torch.rand(4)}
    for part in ("weight", "bias", "running_mean", "running_var"):
        state[f"inv_head.1.{part}"] = torch.rand(4)
    state["inv_head.1.num_batches_tracked"] = torch.tensor(3)
    state |= {"inv_head.3.weight": torch.randn(5, 4), "inv_head.3.bias": torch.rand(5)}
    return state


def test_all_keys_match(tmp_path: Path) -> None:
    torch.save(state_dict(), tmp_path / "w.pth")
    said = import_crosspoint(str(tmp_path / "w.pth"), str(tmp_path / "out"), k=4)
    assert "all 64 keys matched" in said
    assert "32-4-5" in said
    encoder = pixcloud.load_encoder(tmp_path / "out")
    assert encoder.embed(torch.rand(2, 20, 3)).shape == (2, 32)
    assert encoder.spec["settings"]["k"] == 4


@pytest.mark.parametrize("kind", ["wrapped", "twice", "compiled", "no counters"])
def test_what_training_scripts_wrap_around(kind: str, tmp_path: Path) -> None:
    plain = state_dict()
    content: dict[str, Any] = {"state_dict": plain, "epoch": 7, "optimizer": {"lr": 0.1}}
    if kind == "twice":
        content = {"model": {f"module.module.{k}": v for k, v in plain.items()}}
    elif kind == "compiled":
        content = {f"_orig_mod.module.{k}": v for k, v in plain.items()}
    elif kind == "no counters":
        content = {k: v.half() for k, v in plain.items() if not k.endswith("batches_tracked")}
    torch.save(content, tmp_path / "w.pth")
    said = import_crosspoint(str(tmp_path / "w.pth"), str(tmp_path / "out"), k=4)
    words = {
        "wrapped": "all 64 keys matched: DGCNN",
        "twice": "all 64 keys matched ('module.module.' before all of them is taken off)",
        "compiled": "all 64 keys matched ('_orig_mod.module.' before all of them is taken off)",
        "no counters": "all 53 keys matched (it has no counters of batches, which are set to 0)",
    }
    assert words[kind] in said
    encoder = pixcloud.load_encoder(tmp_path / "out")
    weight = plain["conv2.0.weight"].flatten(1)
    same = weight.half().float() if kind == "no counters" else weight
    assert torch.equal(encoder.state_dict()["convs.1.linear.weight"], same)


def spoil(kind: str) -> tuple[dict[str, Any], str]:
    state: dict[str, Any] = state_dict()
    if kind == "missing":
        del state["conv3.0.weight"]
        return state, r"missing: conv3\.0\.weight"
    if kind == "extra":
        state["conv6.0.weight"] = torch.zeros(1)
        return state, r"not known here: conv6\.0\.weight"
    if kind == "prefix":
        state["module.bn1.bias"] = state.pop("bn1.bias")
        return state, "some names begin with 'module.' and others do not"
    if kind == "counter":
        del state["bn3.num_batches_tracked"]
        return state, r"missing: bn3\.num_batches_tracked"
    if kind == "several":
        return {"model": state, "state_dict": state}, r"several state dicts \(state_dict, model\)"
    if kind == "unusual":
        return {"student": state, "epoch": 3}, "no named tensors: student, epoch"
    if kind == "twins":
        state["conv2.1.bias"] = state["bn2.bias"] + 1
        return state, r"bn2\.bias and conv2\.1\.bias are one layer but differ"
    if kind == "shape":
        state["bn2.bias"] = state["conv2.1.bias"] = torch.rand(9)
        return state, r"of another shape: bn2\.bias \(9,\) instead of \(8,\)"
    if kind == "kernel":
        state["conv1.0.weight"] = torch.randn(8, 6, 3, 3)
        return state, r"expected a 1 x 1 convolution"
    if kind == "head":
        state["inv_head.0.weight"] = torch.randn(4, 32, 1)
        return state, r"inv_head\.0\.weight has shape \(4, 32, 1\); expected a matrix"
    if kind == "narrow head":
        state["inv_head.0.weight"] = torch.randn(4, 31)
        return state, r"inv_head\.0\.weight takes 31 features, the encoder gives 32"
    if kind in ("nan", "infinite"):
        state["conv5.0.weight"][0, 0] = float(kind.removesuffix("inite"))
        return state, r"these hold NaN or infinity: conv5\.0\.weight"
    if kind == "nan twins":
        state["bn2.weight"][0] = state["conv2.1.weight"][0] = float("nan")
        return state, r"these hold NaN or infinity: bn2\.weight, conv2\.1\.weight"
    if kind in ("int32", "complex64"):
        state["conv3.0.weight"] = state["conv3.0.weight"].to(getattr(torch, kind))
        return state, rf"these are no real numbers \({kind}\): conv3\.0\.weight"
    if kind == "numbers":
        return {**state, 3: torch.zeros(1)}, "these entries are no named tensors: 3"
    return {"epoch": 3, **state}, "these entries are no named tensors: epoch"


@pytest.mark.parametrize(
    "kind",
    [
        *("missing", "extra", "prefix", "twins", "shape", "kernel", "head", "numbers"),
        *("not tensors", "counter", "several", "unusual", "narrow head"),
        *("nan", "infinite", "nan twins", "int32", "complex64"),
    ],
)
def test_refuses_by_name(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, words = spoil(kind)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=words):
        import_crosspoint(str(tmp_path / "w.pth"), str(tmp_path / "out"))
    assert cli.main(["import", "crosspoint", str(tmp_path / "w.pth"), str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1
    assert "w.pth" in message
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.pth"], "something stayed behind"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pct_fp16.pth", "not a CrossPoint DGCNN state dict; .*not known here"),
        (
            "dgcnn_partseg_with_head_fp16.pth",
            "not a CrossPoint DGCNN for segmentation state dict; .*not known here: conv10.* are "
            "a head for parts: pixcloud import dgcnn_partseg",
        ),
    ],
)
def test_other_architectures_are_refused(
    name: str, words: str, shared: Path, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=words):
        import_crosspoint(str(shared / "fixtures" / name), str(tmp_path / "out"))


def test_refuses_a_segmentation_encoder_by_name(shared: Path, tmp_path: Path) -> None:
    state = read_state_dict(shared / "fixtures" / "dgcnn_partseg.pth")

    def refused(words: str, key: str, value: torch.Tensor | None) -> None:
        kept = {k: v for k, v in {**state, key: value}.items() if v is not None}
        torch.save(kept, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match=words):
            import_crosspoint(str(tmp_path / "w.pth"), str(tmp_path / "out"))
        assert [p.name for p in tmp_path.iterdir()] == ["w.pth"]

    net = "transform_net"
    refused(r"missing: bn9\.bias", "bn9.bias", None)
    refused(rf"missing: {net}\.transform\.bias", f"{net}.transform.bias", None)
    refused(
        rf"{net}\.bn2\.bias and {net}\.conv2\.1\.bias are one layer but differ",
        f"{net}.conv2.1.bias",
        torch.full((128,), 7.0),
    )
    refused(
        r"of another shape: transform_net\.transform\.weight \(9, 8\) instead of \(9, 256\)",
        f"{net}.transform.weight",
        torch.zeros(9, 8),
    )


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self.target,))


def test_pickled_code_is_not_executed(tmp_path: Path) -> None:
    target = tmp_path / "executed"
    torch.save({"weights": Bomb(target)}, tmp_path / "new.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Bomb(target), protocol=2))
    for name in ("new.pth", "old.pth"):
        with pytest.raises(WeightsError, match=rf"{name}: .*asks for [\w.]+.*never executed"):
            read_state_dict(tmp_path / name)
    assert not target.exists()


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    torch.save(state_dict(), tmp_path / "w.pth")
    content = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match=r"w\.pth: cannot be read as weights"):
        read_state_dict(tmp_path / "w.pth")
    (tmp_path / "w.safetensors").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        read_state_dict(tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="no such file"):
        read_state_dict(tmp_path / "absent.pth")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(WeightsError, match="expected a state dict, found Tensor"):
        read_state_dict(tmp_path / "tensor.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_damage_anywhere_is_an_error_in_words(zipped: bool, tmp_path: Path) -> None:
    """Bytes changed, cut off or made up; the reader of pickles breaks in many ways."""
    torch.save(state_dict(), tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    content = (tmp_path / "w.pth").read_bytes()
    rng = np.random.default_rng(0)
    for attempt in range(60):
        damaged = bytearray(content)
        if attempt % 3 == 0:
            damaged = damaged[: rng.integers(len(damaged))]
        elif attempt % 3 == 1:
            for place in rng.integers(2000, size=20):
                damaged[place] = rng.integers(256)
        else:
            damaged = bytearray(rng.bytes(rng.integers(1, 400)))
        (tmp_path / "w.pth").write_bytes(damaged)
        with contextlib.suppress(WeightsError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import_crosspoint(str(tmp_path / "w.pth"), str(tmp_path / "out"))
        shutil.rmtree(tmp_path / "out", ignore_errors=True)  # a changed weight is none of its shape
        assert [p.name for p in tmp_path.iterdir()] == ["w.pth"]


def test_k_is_checked(tmp_path: Path) -> None:
    torch.save(state_dict(), tmp_path / "w.pth")
    with pytest.raises(ConfigError, match="k = 0: whole numbers"):
        import_crosspoint(str(tmp_path / "w.pth"), str(tmp_path / "out"), k=0)
    assert [p.name for p in tmp_path.iterdir()] == ["w.pth"]


def test_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(state_dict(), tmp_path / "w.pth")
    words = ["import", "crosspoint", str(tmp_path / "w.pth"), str(tmp_path / "w.pth" / "out")]
    assert cli.main(words) == 2
    assert "cannot be written (Not a directory)" in capsys.readouterr().err


def test_existing_folder_stays(tmp_path: Path) -> None:
    torch.save(state_dict(), tmp_path / "w.pth")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(WeightsError, match="exists already; give a new folder"):
        import_crosspoint(str(tmp_path / "w.pth"), str(tmp_path / "out"))
    assert (tmp_path / "out" / "mine").read_text() == "mine"

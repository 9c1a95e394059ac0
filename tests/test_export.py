"""Encoders on disk: whole or absent, nothing of the user's lost, strictly read back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pixcloud import export
from pixcloud.encoders import DGCNN, PointEncoder, build_encoder
from pixcloud.errors import WeightsError
from pixcloud.export import load_encoder, load_head, save_encoder, weights_sha256
from pixcloud.heads import ProjectionHead
from pixcloud.share.models import open_model


def small(seed: int = 0) -> PointEncoder:
    torch.manual_seed(seed)
    return build_encoder("pointnet", embed_dim=8, widths=[4])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_folder(tmp_path: Path) -> None:
    encoder, head = small(), ProjectionHead(8, 4, 3, bias=False)
    save_encoder(str(tmp_path / "e"), encoder, head, {"seed": 3})
    assert names(tmp_path) == ["e"]
    assert names(tmp_path / "e") == ["config.json", "encoder.safetensors", "projection.safetensors"]
    meta = json.loads((tmp_path / "e" / "config.json").read_text())
    assert meta["encoder"] == {"name": "pointnet", "settings": {"embed_dim": 8, "widths": [4]}}
    assert (meta["point_dim"], meta["pooled_dim"], meta["origin"]) == (4, 8, {"seed": 3})
    assert meta["weights_sha256"] == weights_sha256(encoder)
    again = load_head(tmp_path / "e")
    assert weights_sha256(again) == weights_sha256(head)
    assert not again.training
    # the same encoder gives the same bytes
    save_encoder(tmp_path / "f", small(), head, {"seed": 3})
    for name in names(tmp_path / "e"):
        assert (tmp_path / "e" / name).read_bytes() == (tmp_path / "f" / name).read_bytes()


def test_hash_sees_names_shapes_and_bits() -> None:
    a = torch.nn.Linear(2, 3)
    before = weights_sha256(a)
    assert before == weights_sha256(a)
    with torch.no_grad():
        a.weight[0, 0] = torch.nextafter(a.weight[0, 0], torch.tensor(9.0))
    assert weights_sha256(a) != before
    assert weights_sha256(torch.nn.Linear(3, 2)) != weights_sha256(torch.nn.Linear(2, 3))


def test_replacing_keeps_other_files(tmp_path: Path) -> None:
    save_encoder(tmp_path / "e", small(), ProjectionHead(8, 4, 3))
    (tmp_path / "e" / "README.md").write_text("mine")
    (tmp_path / "e" / "figures").mkdir()
    (tmp_path / "e" / "figures" / "a.txt").write_text("mine too")
    save_encoder(tmp_path / "e", small(1))
    assert names(tmp_path / "e") == ["README.md", "config.json", "encoder.safetensors", "figures"]
    assert (tmp_path / "e" / "figures" / "a.txt").read_text() == "mine too"
    assert weights_sha256(load_encoder(tmp_path / "e")) == weights_sha256(small(1))
    assert names(tmp_path) == ["e"]


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.tex").write_text("years")
    with pytest.raises(WeightsError, match="papers: holds something that is no encoder"):
        save_encoder(tmp_path / "papers", small())
    (tmp_path / "file").write_text("x")
    with pytest.raises(WeightsError, match="file: holds something that is no encoder"):
        save_encoder(tmp_path / "file", small())
    assert names(tmp_path) == ["file", "papers"]
    assert names(tmp_path / "papers") == ["thesis.tex"]
    (tmp_path / "empty").mkdir()
    save_encoder(tmp_path / "empty", small())
    load_encoder(tmp_path / "empty")


@pytest.mark.parametrize("call", [1, 2])
def test_a_failed_exchange_leaves_the_old_one(
    call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_encoder(tmp_path / "e", small())
    original, calls = os.replace, []

    def replace(source: Path, target: Path) -> None:
        if Path(target).name in ("e", ".e.old"):
            calls.append(target)
            if len(calls) == call:
                raise OSError(28, "No space left on device")
        original(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(WeightsError, match=r"cannot be written .No space left on device"):
        save_encoder(tmp_path / "e", small(1))
    assert names(tmp_path) == ["e"]
    assert weights_sha256(load_encoder(tmp_path / "e")) == weights_sha256(small())


def test_leftovers_of_a_kill_go_with_the_next_save(tmp_path: Path) -> None:
    for name in (".e.saving", ".e.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("x")
    save_encoder(tmp_path / "e", small())
    assert names(tmp_path) == ["e"]


def test_an_encoder_without_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"DGCNN: .*make it with build_encoder"):
        save_encoder(tmp_path / "e", DGCNN(k=2, embed_dim=4, widths=[4]))
    assert names(tmp_path) == []


@pytest.mark.parametrize("kind", [torch.float64, torch.float16])
def test_other_precisions_become_fp32(kind: torch.dtype, tmp_path: Path) -> None:
    encoder = small().to(kind)
    save_encoder(tmp_path / "e", encoder)
    again = load_encoder(tmp_path / "e")
    assert next(again.parameters()).dtype == torch.float32
    for (name, ours), theirs in zip(
        again.state_dict().items(), encoder.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs.to(ours.dtype)), name


def spoil(folder: Path, kind: str) -> str:
    weights, config = folder / export.WEIGHTS, folder / export.CONFIG
    meta, tensors = json.loads(config.read_text()), load_file(weights)
    if kind == "cut":
        weights.write_bytes(weights.read_bytes()[:100])
        return r"encoder\.safetensors: cannot be read as safetensors"
    if kind == "bit":
        tensors["last.bn.bias"] += 1
        save_file(tensors, weights)
        return "not the weights that config.json beside it describes"
    if kind == "missing":
        del tensors["last.bn.bias"]
        save_file(tensors, weights)
        return r"does not fit PointNet; missing: last\.bn\.bias"
    if kind == "extra":
        save_file({**tensors, "more": torch.zeros(1)}, weights)
        return "not known here: more"
    if kind == "shape":
        tensors["last.bn.bias"] = torch.zeros(9)
        save_file(tensors, weights)
        return r"of another shape: last\.bn\.bias \(9,\) instead of \(8,\)"
    if kind == "no json":
        config.write_text("{")
        return r"config\.json: cannot be read"
    changes = {
        "format": {"format": 99},
        "name": {"encoder": {"name": "pointnett", "settings": {}}},
        "settings": {"encoder": {"name": "pointnet", "settings": {"embed_dim": "x"}}},
        "no settings": {"encoder": {"name": "pointnet"}},
    }
    config.write_text(json.dumps({**meta, **changes[kind]}))
    if kind == "format":
        return "not an encoder of format 1"
    return "names no encoder known here"


@pytest.mark.parametrize(
    "kind",
    [
        *("cut", "bit", "missing", "extra", "shape", "no json"),
        *("format", "name", "settings", "no settings"),
    ],
)
def test_what_does_not_fit_is_refused(kind: str, tmp_path: Path) -> None:
    save_encoder(tmp_path / "e", small())
    words = spoil(tmp_path / "e", kind)
    with pytest.raises(WeightsError, match=words) as caught:
        load_encoder(tmp_path / "e")
    assert "\n" not in str(caught.value)


def test_heads_that_are_none(tmp_path: Path) -> None:
    save_encoder(tmp_path / "e", small())
    with pytest.raises(WeightsError, match="saved without its projection head"):
        load_head(tmp_path / "e")
    save_file({"0.weight": torch.zeros(3)}, tmp_path / "e" / export.HEAD)
    with pytest.raises(WeightsError, match=r"projection\.safetensors: not a projection head"):
        load_head(tmp_path / "e")


def test_places_without_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="no such folder; give a run, an exported encoder"):
        load_encoder(tmp_path / "none")
    with pytest.raises(WeightsError, match=r"no encoder there; expected config\.json and encoder"):
        load_encoder(tmp_path)
    with pytest.raises(WeightsError, match="nobody/nothing: neither a folder here nor to be had"):
        load_encoder("nobody/nothing")


def test_a_misspelt_run_is_no_owner_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs" / "first").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for load in (load_encoder, open_model):
        with pytest.raises(
            WeightsError, match=r"runs/frist: no such folder; in runs/ there.* first"
        ):
            load("runs/frist")

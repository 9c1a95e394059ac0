"""The Hub: what would be uploaded is a folder that loads, with a card that says what it is."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

import pixcloud
from pixcloud import cli, encoders
from pixcloud.config import pretrain_config
from pixcloud.config_files import save_config
from pixcloud.encoders import build_encoder
from pixcloud.encoders.image import ImageEncoder
from pixcloud.errors import WeightsError
from pixcloud.evaluate.classifier import PointClassifier, save_classifier
from pixcloud.evaluate.results import ResultRow, append_rows, read_rows
from pixcloud.evaluate.segmenter import PointSegmenter, save_segmenter
from pixcloud.export import PictureSide, save_encoder, weights_sha256
from pixcloud.heads import ProjectionHead
from pixcloud.share.card_results import select

SETTINGS = {"embed_dim": 8, "widths": [4, 4]}
ROW = ResultRow(
    protocol="svm C by cross-validation on train",
    dataset="modelnet40",
    split="test",
    metric="accuracy",
    value=0.875,
    ci95=(0.851, 0.896),
    n=2468,
    seed=0,
    encoder="",
    encoder_sha256="",
    settings={"c": 0.125, "architecture": {"name": "pointnet"}, "source": "modelnet40:/secret/m40"},
    seconds=1.0,
)
LICENCES = ["--license", "apache-2.0", "--data_license", "ShapeNet terms of use"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run on real data, with results of its encoder, of baselines, and of other weights."""
    path = tmp_path / "secret" / "run"
    config = pretrain_config(
        "crosspoint",
        run=str(path),
        seed=3,
        data={"source": "pairs:/secret/crosspoint"},
        encoder={"name": "pointnet", "settings": SETTINGS},
        trainer={"epochs": 1},
    )
    encoder = build_encoder("pointnet", **SETTINGS)
    origin = {"method": "CrossPoint", "source": "pairs:/secret/crosspoint", "epoch": 0}
    save_encoder(path / "encoder", encoder, ProjectionHead(8, 4, 3), origin)
    save_config(config, path / "config.yaml")
    line = {"kind": "epoch", "step": 10, "epoch": 0, "loss": 2.0, "intra": 1.0, "cross": 1.0}
    (path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    own = dataclasses.replace(ROW, encoder=str(path), encoder_sha256=weights_sha256(encoder))
    change = dataclasses.replace
    rows = [
        change(own, value=0.5),  # measured again below
        own,
        change(own, protocol="few-shot 5-way 10-shot (CrossPoint: frozen)", ci95=None, value=0.9),
        change(own, encoder=f"{path}, untrained", encoder_sha256="1" * 64, value=0.625),
        change(own, encoder=f"{path}, untrained", dataset="elsewhere", value=0.111),
        change(own, encoder="other", encoder_sha256="2" * 64, value=0.999),
    ]
    append_rows(path / "results.jsonl", rows)
    return path


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    _, header, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(header), text


def test_a_run_as_a_folder(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "hub"
    assert cli.main(["push", str(run), "me/points", "--out", str(out), *LICENCES]) == 0
    assert "nothing was uploaded" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == [
        *("README.md", "config.json", "encoder.safetensors", "projection.safetensors"),
        *("recipe.yaml", "results.jsonl"),
    ]
    clouds = torch.rand(2, 16, 3)
    for load in (pixcloud.load_encoder, pixcloud.from_pretrained):
        assert torch.equal(load(out).embed(clouds), pixcloud.load_encoder(run).embed(clouds))
    for path in out.iterdir():
        assert b"secret" not in path.read_bytes(), f"{path.name} tells a folder of this machine"
    assert {row.encoder for row in read_rows(out / "results.jsonl")} == {
        "me/points: these weights",
        "me/points: the same, untrained",
    }
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    assert recipe["data"]["source"] == "pairs:crosspoint"
    assert recipe["seed"] == 3
    assert "run" not in recipe


def test_the_card(run: Path, tmp_path: Path) -> None:
    words = ["--data", "13 kinds of shapes with 24 pictures each."]
    assert (
        cli.main(["push", str(run), "me/points", "--out", f"{tmp_path}/hub", *LICENCES, *words])
        == 0
    )
    header, text = card_of(tmp_path / "hub")
    assert header["license"] == "apache-2.0"
    assert header["library_name"] == "pixcloud"
    assert {"point-cloud", "pointnet", "self-supervised"} <= set(header["tags"])
    assert "synthetic-data" not in header["tags"]
    assert header["datasets"] == ["pairs:crosspoint"]
    assert header["metrics"] == ["accuracy"]
    assert header["data_license"] == "ShapeNet terms of use"
    card = huggingface_hub.ModelCard.load(tmp_path / "hub" / "README.md")
    assert card.data.eval_results is not None
    accuracy = {result.metric_name: result for result in card.data.eval_results}
    result = accuracy["accuracy, svm C by cross-validation on train"]
    assert result.metric_value == 0.875
    assert result.metric_args == {"n": 2468, "seed": 0, "ci95": [0.851, 0.896]}
    assert len(accuracy) == 2
    own, untrained = re.findall(r"^\| modelnet40 test \| svm.*", text, re.MULTILINE)
    assert "these weights | 87.5 | 85.1 to 89.6 | 2,468 | 0 |" in own
    assert "the same, untrained | 62.5 |" in untrained
    assert "Few-shot, CrossPoint: frozen:\n\n| data |" in text, "a table of its own"
    assert "99.9" not in text
    assert "11.1" not in text
    assert "13 kinds of shapes" in text
    assert "weights: apache-2.0" in text
    assert "trained on: ShapeNet terms of use" in text
    assert "pixcloud pretrain --recipe crosspoint --run RUN --seed 3" in text
    assert "the weights are those of epoch 1; all settings" in text
    assert "Synthetic" not in text
    program = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert program is not None
    assert program[1].count("\n") <= 5
    names: dict[str, Any] = {}
    exec(program[1].replace("me/points", str(tmp_path / "hub")), names)
    assert names["features"].shape == (8, 8)


def test_tables_of_their_own_and_the_picture_tower(run: Path, tmp_path: Path) -> None:
    """Retrieval with its chance level, parts by each rule; pictures can ask what was shared."""
    encoder = pixcloud.load_encoder(run)
    side = PictureSide(
        tower=ImageEncoder("resnet-tiny"),
        head=ProjectionHead(128, 4, 3, bias=False),
        name="resnet-tiny",
        size=24,
        num_points=16,
    )
    save_encoder(run / "encoder", encoder, ProjectionHead(8, 4, 3), {}, side)
    own = dataclasses.replace(ROW, encoder=str(run), encoder_sha256=weights_sha256(encoder))
    parts = "part segmentation, all weights, 5 % of shapes (any part)"
    found = {"metric": "picture to cloud recall@1", "settings": {"chance": 0.0077}}
    kept = {"outcomes": "outcomes/1.npz", "request": "2", "words": "of the user"}
    append_rows(
        run / "results.jsonl",
        [
            dataclasses.replace(own, protocol=parts, metric="instance_mIoU"),
            dataclasses.replace(own, protocol="retrieval", value=0.195, extra=kept, **found),
        ],
    )
    out = tmp_path / "hub"
    assert cli.main(["push", str(run), "me/points", "--out", str(out), *LICENCES]) == 0
    text = card_of(out)[1]
    assert "\n\nPart segmentation, any part:\n\n| data |" in text
    assert "\n\nRetrieval:\n\n| data |" in text
    assert "| 19.5 | 85.1 to 89.6 | 0.77 | 2,468 | 0 |" in text
    assert [row.extra for row in read_rows(out / "results.jsonl") if row.extra] == [
        {"words": "of the user"}
    ]
    assert pixcloud.load_cross_modal(out).embed_images(torch.rand(3, 24, 24)).shape == (3,)


def test_baselines_of_other_encoders_stay_out() -> None:
    """A results file may hold several encoders, each with its own."""
    rows = [
        dataclasses.replace(ROW, encoder=name, encoder_sha256=sha256, value=value)
        for name, sha256, value in (
            ("a", "A", 0.9),
            ("a, untrained", "UA", 0.5),
            ("b", "B", 0.7),
            ("b, untrained", "UB", 0.2),
        )
    ]
    found = select(rows, "A")
    assert {name: [row.value for row in own] for name, own in found.items()} == {
        "these weights": [0.9],
        "the same, untrained": [0.5],
    }
    # Of a classifier, the rows of that one fine-tuning: other data and shares have other weights.
    tuned = [
        dataclasses.replace(ROW, encoder="a", encoder_sha256="A", protocol=protocol, settings=own)
        for protocol, own in (
            ("fine-tuned, all weights, 1 % of labels", {"model_sha256": "M1"}),
            ("frozen encoder, mlp head, 5 % of labels", {"model_sha256": "M5"}),
        )
    ]
    assert select(tuned, "M5") == {"these weights": [tuned[1]]}


def test_synthetic_data_are_called_so(tmp_path: Path) -> None:
    encoder = build_encoder("pointnet", **SETTINGS)
    save_encoder(tmp_path / "e", encoder, origin={"source": "synthetic"})
    words = ["--license", "My own terms", "--data_license", "Apache-2.0"]
    row = dataclasses.replace(ROW, encoder_sha256=weights_sha256(encoder), dataset="synthetic-27")
    append_rows(tmp_path / "results.jsonl", [row])
    words += ["--results", f"{tmp_path}/results.jsonl", "--out", f"{tmp_path}/hub"]
    assert cli.main(["push", f"{tmp_path}/e", "me/e", *words]) == 0
    header, text = card_of(tmp_path / "hub")
    assert (header["license"], header["license_name"]) == ("other", "My own terms")
    assert "synthetic-data" in header["tags"]
    assert "**Synthetic data.**" in text
    assert "| synthetic-27 test |" in text


def test_nothing_is_made_up(tmp_path: Path) -> None:
    save_encoder(tmp_path / "e", build_encoder("pointnet", **SETTINGS))
    assert cli.main(["push", f"{tmp_path}/e", "me/e", "--out", f"{tmp_path}/hub", *LICENCES]) == 0
    header, text = card_of(tmp_path / "hub")
    assert not {"datasets", "metrics", "model-index"} & set(header)
    assert "Nothing is known of the data" in text
    assert "No results of these weights are at hand." in text
    assert "nothing more is known of how they were made" in text


@pytest.mark.parametrize("kind", ["classifier", "segmenter"])
def test_fine_tuned_models(kind: str, tmp_path: Path) -> None:
    encoder = build_encoder("pointnet", **SETTINGS)
    model: Any = PointClassifier(encoder, ["cup", "mug"])
    save: Any = save_classifier
    if kind == "segmenter":
        model, save = PointSegmenter(encoder, {"cup": ["handle", "bowl"]}), save_segmenter
    origin = {"encoder": "/secret/run", "encoder_sha256": "a" * 64, "trained_on": "mine train"}
    save(tmp_path / kind, model.eval(), origin)
    row = dataclasses.replace(ROW, protocol="fine-tuned, all weights", encoder_sha256="a" * 64)
    row = dataclasses.replace(row, settings={"model_sha256": weights_sha256(model)})
    other = dataclasses.replace(row, protocol="svm", settings=ROW.settings)
    append_rows(tmp_path / "results.jsonl", [row, other])
    words = ["--results", f"{tmp_path}/results.jsonl", "--out", f"{tmp_path}/hub", *LICENCES]
    assert cli.main(["push", f"{tmp_path}/{kind}", "me/cups", *words]) == 0
    header, text = card_of(tmp_path / "hub")
    assert "secret" not in text + (tmp_path / "hub" / "config.json").read_text()
    program = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert program is not None
    names: dict[str, Any] = {}
    exec(program[1].replace("me/cups", str(tmp_path / "hub")), names)
    if kind == "segmenter":
        assert names["parts"].shape == (8, 2048)
        return
    assert set(names["names"]) <= {"cup", "mug"}
    assert [r["metrics"][0]["value"] for r in header["model-index"][0]["results"]] == [0.875]
    found = pixcloud.from_pretrained(tmp_path / "hub")
    points = np.random.default_rng(0).normal(size=(2, 64, 3))
    assert isinstance(found, PointClassifier)
    assert np.array_equal(found.predict(points).probabilities, model.predict(points).probabilities)


def test_the_card_of_an_own_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lines load it, once they say where its code is, which is not in the repository."""
    monkeypatch.setattr(encoders, "ENCODERS", dict(encoders.ENCODERS))  # forgotten at the end
    example = Path(__file__).resolve().parents[2] / "examples" / "own_encoder.py"
    name = pixcloud.import_encoder(f"{example}:DeepSets")
    save_encoder(tmp_path / "e", build_encoder(name))
    assert cli.main(["push", f"{tmp_path}/e", "me/e", "--out", f"{tmp_path}/hub", *LICENCES]) == 0
    _, text = card_of(tmp_path / "hub")
    program = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert program is not None
    assert 'pixcloud.import_encoder("PATH/own_encoder.py:DeepSets")' in program[1]
    assert not [path for path in (tmp_path / "hub").iterdir() if path.suffix == ".py"]
    names: dict[str, Any] = {}
    del encoders.ENCODERS[name]
    lines = program[1].replace("me/e", str(tmp_path / "hub"))
    exec(lines.replace("PATH", str(example.parent)), names)
    assert len(names["features"]) == 8


class FakeHub:
    """Stands for `huggingface_hub.HfApi`; keeps what is asked of it."""

    calls: list[tuple[str, Any]]
    error: Exception | None = None

    def __init__(self) -> None:
        pass

    def create_repo(self, repo_id: str, **options: Any) -> None:
        if self.error:
            raise self.error
        self.calls.append(("create_repo", {"repo_id": repo_id, **options}))

    def create_branch(self, repo_id: str, **options: Any) -> None:
        self.calls.append(("create_branch", options))

    def upload_folder(self, *, folder_path: Path, **options: Any) -> Any:
        names = sorted(path.name for path in Path(folder_path).iterdir())
        self.calls.append(("upload_folder", {"names": names, **options}))
        return SimpleNamespace(commit_url="https://hub/me/points/commit/abc")


def test_upload(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FakeHub, "calls", [], raising=False)
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)
    words = ["push", str(run), "me/points", *LICENCES, "--private", "true", "--revision", "v1"]
    assert cli.main(words) == 0
    assert "https://hub/me/points/commit/abc" in capsys.readouterr().out
    (_, made), (_, branch), (_, sent) = FakeHub.calls
    assert made == {"repo_id": "me/points", "private": True, "exist_ok": True}
    assert branch == {"branch": "v1", "exist_ok": True}
    assert sent["revision"] == "v1"
    assert "README.md" in sent["names"]
    assert not [name for name in sent["names"] if name.endswith((".pt", ".pth", ".bin", ".pkl"))]
    sha256 = json.loads((run / "encoder" / "config.json").read_text())["weights_sha256"]
    assert sent["commit_message"].startswith(f"encoder {sha256[:12]}")
    refused = HTTPError("Client error")
    refused.response = SimpleNamespace(status_code=401)  # type: ignore[attr-defined]
    for error, told in (
        (HTTPError("[Errno -2] Name or service not known"), "no network ([Errno -2] Name or"),
        (refused, "not logged in, or not allowed to write there; 'hf auth login'"),
    ):
        monkeypatch.setattr(FakeHub, "error", error)
        assert cli.main(words) == 2
        line = capsys.readouterr().err
        assert len(line.splitlines()) == 1
        assert f"me/points: not uploaded to the Hugging Face Hub: {told}" in line


def test_mistakes(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*words: str) -> str:
        assert cli.main(["push", *words]) == 2
        return capsys.readouterr().err

    source = str(run)
    assert "--license is missing: the licence of the weights is never" in told(source, "me/a")
    missing = told(source, "me/a", "--license", "mit", "--data_license", " ")
    assert "--data_license is missing" in missing
    assert "repo_id = points: owner/name is expected" in told(source, "points", *LICENCES)
    assert "repo_id = me/a@v1: owner/name" in told(source, "me/a@v1", *LICENCES)
    assert "no such folder" in told(str(tmp_path / "none"), "me/a", *LICENCES)
    full = told(source, "me/a", "--out", source, *LICENCES)
    assert "exists already; give a new folder" in full
    results = told(source, "me/a", "--out", f"{tmp_path}/o", "--results", "none.jsonl", *LICENCES)
    assert "none.jsonl: missing" in results
    assert not (tmp_path / "o").exists()


def test_download(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, Any]] = []

    def fetch(name: str, **options: Any) -> str:
        asked.append((name, options))
        return str(run / "encoder")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    pixcloud.load_encoder("someone/points")
    pixcloud.load_encoder("someone/points@v1")
    found = pixcloud.from_pretrained("someone/points", revision="v2")
    assert weights_sha256(found) == weights_sha256(pixcloud.load_encoder(run))
    patterns = ["*.json", "*.safetensors"]
    assert asked == [
        ("someone/points", {"revision": revision, "allow_patterns": patterns})
        for revision in (None, "v1", "v2")
    ]
    with pytest.raises(WeightsError, match=r"a revision \('v1'\) needs a Hub id"):
        pixcloud.from_pretrained(str(run), revision="v1")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(run))
    with pytest.raises(WeightsError, match="someone/points: a repository without an encoder"):
        pixcloud.load_encoder("someone/points")

    def away(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("Got: ConnectError: [Errno -2] Name unknown\nMore lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", away)
    assert cli.main(["export", "someone/points", "nowhere"]) == 2
    line = capsys.readouterr().err
    assert len(line.splitlines()) == 1
    assert "someone/points: neither a folder here nor to be had" in line
    assert "no network, and there is no copy here (Got: ConnectError: [Errno -2] Name" in line

"""`pixcloud evaluate`: what the data allow, in one file, gone on with after an interruption."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from conftest import write_pair_tree
from pixcloud import cli, save_encoder
from pixcloud.data.modelnet import write_modelnet
from pixcloud.encoders import build_encoder
from pixcloud.evaluate import training_command
from pixcloud.evaluate.protocols import PROTOCOLS
from pixcloud.evaluate.results import ResultRow, append_rows, noting, read_rows
from pixcloud.evaluate.training_settings import FinetuneConfig
from pixcloud.types import LabelledClouds

QUICK = [
    *("--probe.num_points", "24", "--probe.baselines", "false", "--probe.threads", "1"),
    *("--fewshot.num_points", "24", "--fewshot.ways", "2", "--fewshot.shots", "2"),
    *("--fewshot.queries", "3", "--fewshot.trials", "2", "--fewshot.baseline", "false"),
    *("--retrieve.baselines", "false"),
]
ROW = ResultRow(
    protocol="p",
    dataset="d",
    split="s",
    metric="m",
    value=0.5,
    ci95=None,
    n=1,
    seed=0,
    encoder="e",
    encoder_sha256="",
    settings={},
    seconds=0.0,
)


def write_labelled(root: Path, seed: int = 0) -> Path:
    labels = np.repeat(np.arange(3), 8)
    for number, split in enumerate(("train", "test")):
        rng = np.random.default_rng([seed, number])
        points = rng.normal(size=(24, 24, 3)) * (1, 1, 0.1) ** labels[:, None, None]
        clouds = LabelledClouds(
            name="toy",
            split=split,
            points=points.astype(np.float32),
            labels=labels,
            classes=["a", "b", "c"],
        )
        write_modelnet(root, clouds)
    return root


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated") / "e"
    save_encoder(folder, build_encoder("pointnet", embed_dim=16, widths=[8]))
    return folder


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled(tmp_path_factory.mktemp("labelled"))


def evaluate(*words: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.main(["evaluate", *map(str, words), *QUICK])
    out, err = capsys.readouterr()
    return code, out, err


def test_all_that_the_data_allow(
    encoder: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.jsonl"
    words = (encoder, "--data.source", labelled, "--out", out)
    code, shown, err = evaluate(*words, capsys=capsys)
    assert code == 0, err
    for step in ("1/3 probe", "2/3 fewshot", "3/3 retrieve"):
        assert step in err
    for title in ("Linear probe", "Few-shot", "Retrieval"):
        assert title in shown
    rows = read_rows(out)
    assert [row.protocol.split()[0] for row in rows] == ["svm"] * 4 + ["few-shot"] + 4 * [
        "retrieval"
    ]
    assert len({row.extra["request"] for row in rows}) == 3
    # again: nothing is computed, and the same is shown
    content = out.read_bytes()
    code, again, err = evaluate(*words, capsys=capsys)
    assert (code, again) == (0, shown)
    assert err.count("are in") == 3
    assert out.read_bytes() == content
    # another setting of one protocol, and only that is done anew
    changed = ("--fewshot.seed", 7, "--probe.cache", "false")
    evaluate(*words, *changed, capsys=capsys)
    assert [row.seed for row in read_rows(out)[9:]] == [7]


def test_what_rows_depend_on(
    encoder: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other clouds in the same place, or other weights, are evaluated anew."""
    out, data = tmp_path / "r.jsonl", write_labelled(tmp_path / "data")
    words = ("--out", out, "--protocols", "[fewshot]", "--data.source")
    evaluate(encoder, *words, data, capsys=capsys)
    evaluate(encoder, *words, labelled, capsys=capsys)  # the same clouds elsewhere
    assert len(read_rows(out)) == 1
    write_labelled(data, seed=1)
    evaluate(encoder, *words, data, capsys=capsys)
    assert len(read_rows(out)) == 2
    save_encoder(tmp_path / "f", build_encoder("pointnet", embed_dim=16, widths=[8]))
    evaluate(tmp_path / "f", *words, data, capsys=capsys)
    assert len(read_rows(out)) == 3


def test_an_interruption_leaves_what_was_done(
    encoder: Path,
    labelled: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "r.jsonl"
    words = (encoder, "--data.source", labelled, "--out", out)
    with monkeypatch.context() as patch:
        patch.setattr(training_command, "_encoder", interrupted)
        code, _, _ = evaluate(*words, capsys=capsys)
    assert code == 130
    assert len(read_rows(out)) == 4
    code, _, err = evaluate(*words, capsys=capsys)
    assert code == 0
    assert "probe: 4 rows of the same weights" in err
    assert len(read_rows(out)) == 9


def test_named_protocols(
    encoder: Path,
    labelled: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Training runs only if it is named, with its own settings."""
    out, asked = tmp_path / "r.jsonl", []

    def run(config: FinetuneConfig) -> None:
        asked.append(config)
        append_rows(out, [ROW])

    finetune = dataclasses.replace(PROTOCOLS["finetune"], run=run)
    monkeypatch.setitem(PROTOCOLS, "finetune", finetune)
    words = (encoder, "--data.source", labelled, "--out", out)
    code, shown, err = evaluate(
        *words, "--protocols", "[finetune]", "--fit.epochs", 3, "--finetune.votes", 2, capsys=capsys
    )
    assert code == 0, err
    assert "Fine-tuning" in shown
    assert "1/1 finetune" in err
    config = asked[0]
    assert (config.fit.epochs, config.finetune.votes, config.baseline) == (3, 2, "none")
    assert (config.encoder, config.data.source) == (str(encoder), str(labelled))
    code, _, err = evaluate(*words, "--protocols", "[prob]", capsys=capsys)
    assert code == 2
    assert "unknown protocol 'prob': the nearest known one is 'probe'" in err


def test_what_cannot_be_done_is_skipped_and_said(
    encoder: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.jsonl"
    code = cli.main(
        ["evaluate", str(encoder), "--data.source", str(labelled), "--out", str(out), *QUICK[:6]]
    )
    shown, err = capsys.readouterr()
    assert code == 0
    assert "fewshot skipped: the clouds have 24 points" in shown
    assert "fewshot skipped" in err
    pairs = write_pair_tree(tmp_path / "pairs", models=4)
    words = (encoder, "--data.source", pairs, "--out", out)
    code, _, err = evaluate(*words, capsys=capsys)  # pairs alone, and no picture tower
    assert code == 2
    assert "nothing could be evaluated: probe: " in err
    assert "holds no labelled clouds" in err
    assert "saved without its picture tower" in err
    code, _, err = evaluate(*words, "--protocols", "[probe]", capsys=capsys)
    assert code == 2
    assert "error: probe: " in err


def test_notes(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with noting(a=1), noting(b=2):
        append_rows(path, [ROW])
    append_rows(path, [ROW])
    assert [each.extra for each in read_rows(path)] == [{"a": 1, "b": 2}, {}]


def test_every_protocol_is_a_command() -> None:
    assert set(PROTOCOLS) <= set(cli.COMMANDS)

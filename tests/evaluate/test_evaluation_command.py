"""`pixcloud evaluate`: what the data allow, in one file, gone on with after an interruption."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import write_pair_tree
from pixcloud import cli, save_encoder
from pixcloud.data.modelnet import write_modelnet
from pixcloud.encoders import ENCODERS, build_encoder, import_encoder
from pixcloud.evaluate import training_command
from pixcloud.evaluate.evaluation import evaluate_encoder
from pixcloud.evaluate.evaluation_settings import EvaluateConfig
from pixcloud.evaluate.metrics import mcnemar_exact
from pixcloud.evaluate.probe import DESCRIPTOR
from pixcloud.evaluate.protocols import PROTOCOLS
from pixcloud.evaluate.results import ResultRow, append_rows, noting, read_rows
from pixcloud.evaluate.retrieval_settings import RetrievalData
from pixcloud.evaluate.segment_settings import SegmentConfig
from pixcloud.evaluate.settings import ProbeSettings
from pixcloud.evaluate.training_settings import FinetuneConfig
from pixcloud.machine import CODE_VARIABLE
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
    for title in ("Linear probe", "Few-shot", "Retrieval", "All results"):
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


def test_a_row_that_a_kill_cut_off_is_done_again(
    encoder: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.jsonl"
    words = (encoder, "--data.source", labelled, "--out", out)
    evaluate(*words, "--protocols", "[probe]", capsys=capsys)
    content = out.read_bytes()
    out.write_bytes(content + content[:50])
    code, _, err = evaluate(*words, capsys=capsys)
    assert code == 0
    assert "skipped" not in err
    assert err.count("line 5: cut off") == 1
    assert "probe: 4 rows of the same weights" in err
    assert len(read_rows(out)) == 9
    broken = out.read_bytes().replace(b'{"protocol"', b'{"protocol', 1)
    out.write_bytes(broken)
    code, _, err = evaluate(*words, capsys=capsys)
    assert code == 2
    assert f"error: {out}, line 1: broken" in err
    assert "1/3 probe" not in err


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
    code, _, err = evaluate(*words, "--protocols", "[all]", "--fit.epochs", 3, capsys=capsys)
    assert code == 0
    assert len(asked) == 2
    assert "6/6 segment" in err
    assert "segment skipped" in err
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


def test_several_encoders(
    encoder: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each number of each with its paired test, recomputed here from what was kept."""
    out, other = tmp_path / "r.jsonl", tmp_path / "other"
    torch.manual_seed(1)
    save_encoder(other, build_encoder("pointnet", embed_dim=16, widths=[8, 8]))
    words = (encoder, "--data.source", labelled, "--out", out, "--against", f"[{other}]")
    words += ("--table", tmp_path / "table.md")
    code, shown, err = evaluate(*words, capsys=capsys)
    assert code == 0, err
    assert f"2/3 fewshot of {other}" in err
    assert "Side by side" in shown
    rows = read_rows(out)
    kept = [row for row in rows if row.metric == "accuracy" and row.protocol == rows[0].protocol]
    assert [row.encoder for row in kept] == [str(encoder), str(other)]
    scores = [np.load(tmp_path / row.extra["outcomes"])["scores"] for row in kept]
    assert [found.mean() for found in scores] == pytest.approx([row.value for row in kept])
    assert all(row.value == pytest.approx(_kept_mean(tmp_path, row)) for row in _with_kept(rows))
    table = (tmp_path / "table.md").read_text()
    p = mcnemar_exact(*(found.astype(int) for found in scores[::-1]), np.ones(24, int))
    gain = 100 * (scores[1] - scores[0]).mean()
    lines = [each for each in table.splitlines() if kept[0].protocol in each]
    line = next(each for each in lines if str(other) in each)
    assert f"| {gain:+.1f} |" in line
    assert f"| {p:.2g} (McNemar exact) |" in line
    assert "sign flips" in table
    assert "untrained" not in table
    # again: read from the file; without what was kept there is no test
    assert evaluate(*words, capsys=capsys)[:2] == (0, shown)
    (tmp_path / kept[1].extra["outcomes"]).write_bytes(b"PK\x03\x04")
    evaluate(*words, capsys=capsys)
    assert (tmp_path / "table.md").read_text().count("outcomes not kept") == 1


def test_the_descriptor_is_shown_once(encoder: Path, labelled: Path, tmp_path: Path) -> None:
    save_encoder(tmp_path / "other", build_encoder("pointnet", embed_dim=16, widths=[8, 8]))
    config = EvaluateConfig(
        encoder=str(encoder),
        against=[str(tmp_path / "other")],
        data=RetrievalData(source=str(labelled)),
        protocols=["probe"],
        probe=ProbeSettings(num_points=24, threads=1),
        out=str(tmp_path / "r.jsonl"),
    )
    for _ in range(2):  # computed, and read from the file
        shown = evaluate_encoder(config).rows["probe"]
        names = [row.encoder for row in shown if row.metric == "accuracy"]
        assert len(names) == 2 * 4 + 1
        assert names.count(DESCRIPTOR) == 1
        assert names.count(str(tmp_path / "other")) == 2


def _with_kept(rows: list[ResultRow]) -> list[ResultRow]:
    found = [row for row in rows if "outcomes" in row.extra and "mAP" not in row.metric]
    assert len(found) == 2 * (2 + 1 + 3)  # of each encoder: probe, few-shot, recall
    return found


def _kept_mean(folder: Path, row: ResultRow) -> float:
    return float(np.load(folder / row.extra["outcomes"])["scores"].mean())


def test_an_encoder_is_not_compared_with_itself(
    encoder: Path, labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (encoder, "--data.source", labelled, "--against", f"[{encoder}]")
    code, _, err = evaluate(*words, capsys=capsys)
    assert code == 2
    assert f"against: {encoder} is given twice" in err


def test_notes(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with noting(a=1), noting(b=2):
        append_rows(path, [ROW])
    append_rows(path, [ROW])
    assert [each.extra for each in read_rows(path)] == [{"a": 1, "b": 2}, {}]


def test_every_protocol_is_a_command() -> None:
    assert {name.partition("-")[0] for name in PROTOCOLS} <= set(cli.COMMANDS)


def test_both_ways_of_few_shot_have_tables_of_their_own(
    encoder: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_encoder(tmp_path / "other", build_encoder("pointnet", embed_dim=16, widths=[8, 8]))
    words = (encoder, "--data.source", labelled, "--out", tmp_path / "r.jsonl")
    words += ("--protocols", "[fewshot,fewshot-point-bert]", "--fit.epochs", 1)
    words += ("--against", f"[{tmp_path}/other]", "--table", tmp_path / "t.md")
    code, _, err = evaluate(*words, capsys=capsys)
    assert code == 0, err
    assert "2/2 fewshot-point-bert" in err
    tables = (tmp_path / "t.md").read_text().split("## Side by side, ")[1:]
    ways = ("CrossPoint: queries from train", "Point-BERT: queries from test")
    assert [table.partition(",")[0] for table in tables] == list(ways)
    assert all(way not in table for table, way in zip(tables, ways[::-1], strict=True))
    assert "rows of the same weights" in evaluate(*words, capsys=capsys)[2]


def test_changed_code_of_an_own_encoder_is_measured_anew(
    labelled: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(CODE_VARIABLE, "")
    example = Path(__file__).resolve().parents[2] / "examples" / "own_encoder.py"
    code, before = tmp_path / "own.py", dict(ENCODERS)
    code.write_text(example.read_text())
    named = f"{code}:DeepSets"
    words = (tmp_path / "e", "--data.source", labelled, "--protocols", "[probe]", "--code", named)
    try:
        save_encoder(tmp_path / "e", build_encoder(import_encoder(named), width=8))
        assert evaluate(*words, capsys=capsys)[0] == 0
        assert "rows of the same weights" in evaluate(*words, capsys=capsys)[2]
        for name in set(ENCODERS) - set(before):
            del ENCODERS[name]
        code.write_text(code.read_text() + "\n\n# Something else.\n")
        assert "rows of the same weights" not in evaluate(*words, capsys=capsys)[2]
    finally:
        for name in set(ENCODERS) - set(before):
            del ENCODERS[name]


def test_segment_trains_as_its_own_command_does() -> None:
    given = EvaluateConfig(encoder="e")
    made, own = PROTOCOLS["segment"].settings(given), SegmentConfig(encoder="e")
    assert (made.fit, made.augment) == (own.fit, own.augment)
    changed = dataclasses.replace(given.augment, rotation=360.0)
    given.fit, given.augment = dataclasses.replace(given.fit, epochs=3), changed
    made = PROTOCOLS["segment"].settings(given)
    assert made.fit == dataclasses.replace(own.fit, epochs=3)
    assert made.augment == dataclasses.replace(own.augment, rotation=360.0)


def test_segment_is_one_of_them(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its rows are found again, until a part of the data is another one."""
    for place in range(8):
        points = np.random.default_rng(place).normal(size=(40, 3))
        (tmp_path / "mine" / "mug").mkdir(parents=True, exist_ok=True)
        path = tmp_path / "mine" / "mug" / f"{place}.npz"
        np.savez(path, points=points, labels=points[:, 1] > 0)
    words = (encoder, "--data.source", f"folder:{tmp_path}/mine", "--out", tmp_path / "r.jsonl")
    words += ("--protocols", "[segment]", "--segment.num_points", 32, "--fit.epochs", 1)
    code, shown, err = evaluate(*words, capsys=capsys)
    assert code == 0, err
    own = shown.partition("All results")[0].split("Part segmentation, ")[1:]
    rules = ("parts of the category", "any part")
    for table, rule, other in zip(own, rules, rules[::-1], strict=True):
        assert table.startswith(rule)
        assert f"mIoU by category, {rule}" in table
        assert other not in table
    assert "rows of the same weights" in evaluate(*words, capsys=capsys)[2]
    np.savez(path, points=points, labels=points[:, 1] > 0.5)
    assert "rows of the same weights" not in evaluate(*words, capsys=capsys)[2]
    assert len(read_rows(tmp_path / "r.jsonl")) == 12

"""`pixcloud retrieve` and retrieval during training, through the surfaces that a user touches."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import pretrain_small, write_ply
from pixcloud import cli, load_cross_modal, pretrain, pretrain_config, save_encoder
from pixcloud.cross_modal import CrossModal
from pixcloud.data.shapenet import Pair, pairs_sha256, split_pairs
from pixcloud.data.sources import open_labelled, open_pairs
from pixcloud.encoders import build_encoder
from pixcloud.errors import ConfigError, DataError, FileFormatError
from pixcloud.evaluate.pairs_in_space import embed_pairs
from pixcloud.evaluate.results import read_rows
from pixcloud.evaluate.retrieval import choose_pairs, cross_modal_ranks
from pixcloud.evaluate.retrieval_settings import RetrievalSettings
from pixcloud.types import LabelledClouds
from reference import plain_retrieval


@pytest.fixture(scope="module")
def model(held_run: Path) -> CrossModal:
    return load_cross_modal(held_run)


def retrieve(*words: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.main(["retrieve", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_during_training(held_run: Path, labelled_pairs: Path, model: CrossModal) -> None:
    lines = [json.loads(line) for line in (held_run / "metrics.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    assert ["retrieval_pairs" in line for line in epochs] == [False, True, True]
    last = epochs[-1]
    assert last["retrieval_pairs"] == 4
    held = split_pairs(open_pairs(f"pairs:{labelled_pairs}"), 0.25)[1]
    found = cross_modal_ranks(embed_pairs(model, held, views="first"))
    for direction, numbers in found.items():
        for k in (1, 5, 10):
            key = f"{direction} recall {k}".replace(" ", "_")
            assert last[key] == numbers.recall(k).mean()
        assert last[f"{direction} map".replace(" ", "_")] == numbers.precision.mean()
    assert last["cloud_to_picture_recall_5"] == 1.0  # of four
    assert (last["chance_recall_1"], last["chance_recall_10"]) == (0.25, 1.0)
    assert last["chance_map"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_training_is_the_same_without_it(
    held_run: Path, labelled_pairs: Path, tmp_path: Path
) -> None:
    """Retrieval draws nothing and leaves the modules as they were."""
    saved = json.loads((held_run / "encoder" / "config.json").read_text())
    pretrain_small(tmp_path / "run", labelled_pairs)
    again = json.loads((tmp_path / "run" / "encoder" / "config.json").read_text())
    assert again["weights_sha256"] == saved["weights_sha256"]


def test_command(
    held_run: Path, labelled_pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.jsonl"
    words = (held_run, "--data.source", labelled_pairs, "--out", out, "--retrieve.num_points", 32)
    code, shown, err = retrieve(*words, capsys=capsys)
    assert code == 0, err
    assert "1 clouds are alone in their class" in err
    assert "chance" in shown
    assert "mine pairs, held out" in shown
    rows = read_rows(out)
    names = [row.metric for row in rows]
    assert names == [
        f"{direction} {what}"
        for direction in ("picture to cloud", "cloud to picture", *2 * ("cloud to cloud",))
        for what in ("recall@1", "recall@5", "recall@10", "mAP")
    ]
    assert [row.split for row in rows] == ["held out"] * 8 + ["test"] * 8
    assert [row.n for row in rows] == [12] * 4 + [4] * 4 + [8] * 8
    names = [str(held_run)] * 12 + [f"{held_run}, untrained"] * 4
    assert [row.encoder for row in rows] == names
    assert len({row.encoder_sha256 for row in rows}) == 2
    assert {row.protocol for row in rows} == {"retrieval"}
    chances = [row.settings["chance"] for row in rows]
    assert chances[:3] == [0.25, 1.0, 1.0]
    assert chances[4] == pytest.approx(plain_retrieval.chance(3, 12, 1)[0])
    assert chances[7] == pytest.approx(plain_retrieval.chance(3, 12, 1)[1])
    assert chances[8:10] == pytest.approx([3 / 8, plain_retrieval.chance(3, 8, 5)[0]])
    for row in rows:
        assert row.ci95 is not None
        assert row.ci95[0] <= row.value <= row.ci95[1]
        assert row.settings["source"] == str(labelled_pairs)
    # the same again, bit for bit
    retrieve(*words, capsys=capsys)
    twice = [row.value for row in read_rows(out)]
    assert twice[:16] == twice[16:]


def test_of_a_run_that_was_cut_short(
    held_run: Path, labelled_pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The newest checkpoint serves, for pictures and for clouds."""
    cut, rows = tmp_path / "cut", {}
    shutil.copytree(held_run, cut)
    for folder in (held_run, cut):
        shutil.rmtree(cut / "encoder", ignore_errors=folder == cut)
        words = (
            folder,
            "--data.source",
            labelled_pairs,
            "--out",
            tmp_path / f"{folder.name}.jsonl",
        )
        code, _, err = retrieve(*words, "--retrieve.num_points", 32, capsys=capsys)
        assert code == 0, err
        assert ("the newest checkpoint serves" in err) == (folder == cut)
        rows[folder] = read_rows(tmp_path / f"{folder.name}.jsonl")
    assert [row.metric for row in rows[cut]] == [row.metric for row in rows[held_run]]
    assert [row.value for row in rows[cut]] == [row.value for row in rows[held_run]]


def test_numbers_are_those_of_the_slow_way(model: CrossModal, labelled_pairs: Path) -> None:
    pairs = open_pairs(f"pairs:{labelled_pairs}")[:6]
    space = embed_pairs(model, pairs, batch_size=4)
    assert space.shapes.tolist() == np.repeat(np.arange(6), 3).tolist()
    for direction, found in cross_modal_ranks(space).items():
        sides = [(space.pictures, space.shapes), (space.clouds, np.arange(6))]
        (asking, mine), (asked, theirs) = sides if direction[0] == "p" else sides[::-1]
        slow = plain_retrieval.scores(asking, asked, mine.tolist(), theirs.tolist(), (1, 5))
        assert found.recall(1).tolist() == [recalls[0] for recalls, _ in slow]
        assert found.recall(5).tolist() == [recalls[1] for recalls, _ in slow]
        assert found.precision == pytest.approx([precision for _, precision in slow])
    first = embed_pairs(model, pairs, views="first", batch_size=100)
    assert np.allclose(first.pictures, space.pictures[::3], atol=1e-5)
    assert np.allclose(first.clouds, space.clouds, atol=1e-5)
    mean = embed_pairs(model, pairs, views="mean")
    sums = space.pictures.reshape(6, 3, -1).sum(axis=1)
    expected = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    assert np.allclose(mean.pictures, expected, atol=1e-5)


def test_shapes_count_once_whatever_their_pictures(
    held_run: Path, labelled_pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Values, intervals, chance and what is kept for paired tests are of the same mean."""
    tree, other = tmp_path / "pairs", tmp_path / "other"
    shutil.copytree(labelled_pairs, tree)
    pairs = open_pairs(f"pairs:{tree}")
    for pair in pairs[4:]:
        for name in pair.pictures[1:]:
            (Path(pair.folder) / name).unlink()
    pretrain_small(other, tree, epochs=1)
    words = ["--data.source", f"pairs:{tree}", "--protocols", "[retrieve]", "--retrieve.pairs"]
    words += ["all", "--retrieve.kind", "pictures", "--out", str(tmp_path / "r.jsonl")]
    words += ["--against", f"[{other}]", "--table", str(tmp_path / "t.md")]
    assert cli.main(["evaluate", str(held_run), *words]) == 0, capsys.readouterr().err
    rows = read_rows(tmp_path / "r.jsonl")
    assert [row.n for row in rows] == 2 * ([4 * 3 + 12] * 4 + [16] * 4)
    for row in rows:
        with np.load(tmp_path / row.extra["outcomes"]) as kept:
            assert kept["scores"].shape == (16,)
            assert row.value == pytest.approx(kept["scores"].mean())
        assert row.ci95[0] <= row.value <= row.ci95[1]
    space = embed_pairs(load_cross_modal(held_run), open_pairs(f"pairs:{tree}"))
    found = cross_modal_ranks(space)["picture to cloud"].recall(5)
    means = [found[space.shapes == shape].mean() for shape in range(16)]
    assert rows[1].metric == "picture to cloud recall@5"
    assert rows[1].value == pytest.approx(np.mean(means))
    assert rows[1].value != pytest.approx(found.mean())
    assert rows[1].settings["chance"] == 5 / 16
    lines = [line.split(" | ") for line in (tmp_path / "t.md").read_text().splitlines()]
    for mine, theirs in zip(rows[:8], rows[8:], strict=True):
        (gain,) = (line[4] for line in lines if line[1:3] == [mine.metric, str(other)])
        assert float(gain) == pytest.approx(100 * (theirs.value - mine.value), abs=0.051)


def test_what_was_seen(labelled_pairs: Path) -> None:
    """By the hash of the pairs trained on, not by what somebody says."""
    pairs, ask = open_pairs(f"pairs:{labelled_pairs}"), RetrievalSettings()
    trained, held = split_pairs(pairs, 0.25)
    assert (len(trained), len(held)) == (12, 4)
    assert not {p.name for p in trained} & {p.name for p in held}
    assert split_pairs(pairs[::-1], 0.25)[1] == held[::-1]
    assert {p.name for p in held} <= {p.name for p in split_pairs(pairs, 0.5)[1]}
    assert len(split_pairs(pairs, 1e-9)[1]) == 1
    origin = {"held_out": 0.25, "pairs_sha256": pairs_sha256(trained)}
    assert choose_pairs(pairs, origin, ask) == (held, "held out")
    everything = RetrievalSettings(pairs="all")
    assert choose_pairs(pairs, origin, everything) == (pairs, "partly seen")
    assert choose_pairs(pairs[1:], origin, ask)[1] == "other pairs"
    assert choose_pairs(pairs, {}, ask) == (pairs, "other pairs")
    on_all = {"pairs_sha256": pairs_sha256(pairs)}
    assert choose_pairs(pairs, on_all, ask) == (pairs, "seen in training")


def test_seen_pairs_are_called_so(
    held_run: Path, labelled_pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.jsonl"
    words = ("--data.source", f"pairs:{labelled_pairs}", "--out", out, "--retrieve.pairs", "all")
    code, _, err = retrieve(held_run, *words, "--retrieve.kind", "pictures", capsys=capsys)
    assert code == 0
    assert "most of these pairs were seen in training" in err
    assert {row.split for row in read_rows(out)} == {"partly seen"}


def test_clouds_of_any_encoder(
    labelled_pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An encoder without its picture tower is asked by clouds alone, and it is said."""
    save_encoder(tmp_path / "e", build_encoder("pointnet", embed_dim=8, widths=[4]))
    words = [tmp_path / "e", "--data.source", labelled_pairs, "--retrieve.cache", "false"]
    words += ["--retrieve.baselines", "false"]
    code, _, err = retrieve(*words, capsys=capsys)
    assert code == 0
    assert "nothing between pictures and clouds" in err
    assert len(read_rows(tmp_path / "e" / "results.jsonl")) == 4
    code, _, err = retrieve(*words, "--retrieve.kind", "pictures", capsys=capsys)
    assert code == 2
    assert "saved without its picture tower" in err
    labelled = tmp_path / "labelled"
    shutil.copytree(
        labelled_pairs / "modelnet40_ply_hdf5_2048", labelled / "modelnet40_ply_hdf5_2048"
    )
    words[2] = labelled
    code, _, err = retrieve(*words, "--retrieve.kind", "pictures", capsys=capsys)
    assert code == 2
    assert "nothing to retrieve" in err
    assert "holds no pairs" in err


def test_pictures_are_scored_where_no_cloud_has_another_of_its_class(
    held_run: Path,
    labelled_pairs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def alone(*words: str) -> LabelledClouds:
        clouds = open_labelled(*words)
        first = np.unique(clouds.labels, return_index=True)[1]
        return dataclasses.replace(clouds, points=clouds.points[first], labels=clouds.labels[first])

    monkeypatch.setattr("pixcloud.data.sources.open_labelled", alone)
    out = tmp_path / "r.jsonl"
    words = (held_run, "--data.source", labelled_pairs, "--out", out, "--retrieve.num_points", 32)
    code, _, err = retrieve(*words, capsys=capsys)
    assert code == 0, err
    assert "nothing between clouds: " in err
    assert len(read_rows(out)) == 8
    code, _, err = retrieve(*words, "--retrieve.kind", "clouds", capsys=capsys)
    assert code == 2
    assert "no class has two clouds" in err


def test_refuses(model: CrossModal, labelled_pairs: Path, tmp_path: Path) -> None:
    config = pretrain_config(
        run=str(tmp_path / "r"), trainer={"retrieve_every": 1, "batch_size": 4}
    )
    config.data.source = f"pairs:{labelled_pairs}"
    with pytest.raises(ConfigError, match=r"0 pairs are held out.*set data\.held_out"):
        pretrain(config)
    assert not (tmp_path / "r").exists()
    with pytest.raises(ConfigError, match=r"data\.held_out = 1: nothing"):
        pretrain_config(data={"held_out": 1})
    with pytest.raises(ConfigError, match=r"retrieve\.batch_size is 0"):
        RetrievalSettings(batch_size=0)
    pairs = open_pairs(f"pairs:{labelled_pairs}")
    with pytest.raises(DataError, match="at least two"):
        embed_pairs(model, pairs[:1])
    write_ply(tmp_path / "few.ply", np.eye(3))
    few = Pair(name="x/few", cloud=str(tmp_path / "few.ply"), folder="", pictures=("none.png",))
    with pytest.raises(FileFormatError, match=r"few\.ply: 3 points, and retrieval takes 32"):
        embed_pairs(model, [pairs[0], few])
    with pytest.raises(FileFormatError, match="there is no such picture"):
        embed_pairs(model, [pairs[0], few], num_points=3)
    broken = copy.deepcopy(model)
    with torch.no_grad():
        next(broken.point_head.parameters()).fill_(torch.nan)
    with pytest.raises(DataError, match="projections of clouds hold NaN"):
        embed_pairs(broken, pairs[:2])

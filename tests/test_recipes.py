"""The comparison of recipes: equal samples, nothing twice, validation only, then test once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import write_pair_tree
from pixcloud.config import flatten, pretrain_config
from pixcloud.data.modelnet import write_modelnet
from pixcloud.data.synthetic.dataset import SyntheticSettings
from pixcloud.types import LabelledClouds

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import recipes, recipes_final, recipes_folds


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs with labelled clouds beside them: two classes that differ in their longest axis."""
    root = write_pair_tree(tmp_path_factory.mktemp("recipes"), models=40, points=48)
    for seed, split in enumerate(("train", "test")):
        rng = np.random.default_rng(seed)
        labels = np.arange(20) % 2
        longest = np.where(labels[:, None], [1, 3, 1], [3, 1, 1])
        clouds = LabelledClouds(
            name="pairs",
            split=split,
            points=(rng.normal(size=(20, 64, 3)) * longest[:, None]).astype(np.float32),
            labels=labels,
            classes=["flat", "tall"],
        )
        write_modelnet(root, clouds)
    return root


def words(tree: Path, out: Path, *more: str, variants: str = "crosspoint mild") -> list[str]:
    given = ["--scale", "tiny", "--source", str(tree), "--out", str(out), "--threads", "1"]
    return [*given, "--variants", *variants.split(), *more]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_variants_are_trained_once_and_scored(
    tree: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[str] = []
    original = recipes.pretrain
    monkeypatch.setattr(
        recipes, "pretrain", lambda config: opened.append(config.run) or original(config)
    )
    assert recipes.main(words(tree, tmp_path, "--final")) == 0
    said = capsys.readouterr().out
    assert len(opened) == 2
    found = lines(tmp_path / "results.jsonl")
    assert [line["variant"] for line in found] == ["crosspoint", "mild"]
    assert {line["samples"] for line in found} == {40}
    for line in found:
        assert 0 <= line["accuracy"] <= 1
        assert line["settings"]["trainer.probe_every"] == 1
        folder = tmp_path / line["run"]
        assert (folder / "encoder").is_dir()
        assert not (folder / "checkpoints").exists()
    scored = lines(tmp_path / "final.jsonl")
    assert {line["clouds"] for line in scored} == set(recipes_final.TURNS)
    assert {line["variant"] for line in scored} == {"crosspoint", "mild", "untrained"}
    assert {line["n"] for line in scored} == {20}
    assert "| as they stand | mild |" in said
    assert "| mild | crosspoint (" in said

    monkeypatch.setattr(recipes_final, "load_encoder", None)  # what is scored is not looked at
    assert recipes.main(words(tree, tmp_path, "--final")) == 0
    assert capsys.readouterr().out == said
    assert len(opened) == 2


def test_one_run_under_two_names(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recipes.main(words(tree, tmp_path, "--final", variants="mild-lr-2e-3")) == 0
    capsys.readouterr()
    again = words(tree, tmp_path, "--final", variants="pixcloud mild-lr-2e-3")
    assert recipes.main(again) == 0
    said = capsys.readouterr().out
    assert len(lines(tmp_path / "results.jsonl")) == 1
    assert "| as they stand | pixcloud |" in said
    assert "nan" not in said
    other = tmp_path / "other"
    assert recipes.main(words(tree, other, variants="pixcloud mild-lr-2e-3")) == 0
    assert len(lines(other / "results.jsonl")) == 1


def test_every_train_cloud_is_predicted_once(
    tree: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert recipes.main(words(tree, tmp_path, "--folds")) == 0
    said = capsys.readouterr().out
    scored = lines(tmp_path / "folds.jsonl")
    assert [line["variant"] for line in scored] == ["crosspoint", "mild"]
    # Round a cloud's own axis flat stays flat, so that an encoder of any weights can tell them.
    assert all(line["n"] == 20 and line["accuracy"] > 0.5 for line in scored)
    assert all((20 * line["accuracy"]).is_integer() for line in scored)
    assert said.count("| mild |") == 2  # of the trainer's validation, and of the folds

    monkeypatch.setattr(recipes_folds, "load_encoder", None)  # what is scored is not looked at
    assert recipes.main(words(tree, tmp_path, "--folds")) == 0
    assert capsys.readouterr().out == said


def test_the_test_split_is_not_read_before_the_end(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "tree"
    copy.mkdir()
    for part in tree.iterdir():
        (copy / part.name).symlink_to(part)
    (copy / "modelnet40_ply_hdf5_2048").unlink()
    folder = copy / "modelnet40_ply_hdf5_2048"
    folder.mkdir()
    for file in (tree / "modelnet40_ply_hdf5_2048").iterdir():
        if "test" not in file.name:
            (folder / file.name).symlink_to(file)
    out = tmp_path / "out"
    assert recipes.main(words(copy, out, "--folds", variants="mild")) == 0
    assert recipes.main(words(copy, out, "--final", variants="mild")) == 2


def test_mistakes_are_named(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert recipes.main(["--variants", "crosspiont", "--source", str(tree)]) == 2
    assert "unknown variant 'crosspiont'" in capsys.readouterr().err
    assert recipes.main(["--scale", "smal", "--source", str(tree)]) == 2
    assert "unknown scale 'smal'" in capsys.readouterr().err
    assert recipes.main(["--file", str(tmp_path / "none.yaml")]) == 2
    assert "cannot be read as scales and variants" in capsys.readouterr().err
    (tmp_path / "results.jsonl").write_text("[]\n")
    assert recipes.main(words(tree, tmp_path)) == 2
    assert "no results of this command" in capsys.readouterr().err


def test_every_variant_is_valid_on_the_same_encoder() -> None:
    known = recipes.read_variants()
    keys = set()
    for name in known["variants"]:
        for scale in known["scales"]:
            config = recipes.config_of(known, scale, name, {})
            flat, first = (
                flatten(config),
                flatten(recipes.config_of(known, scale, "crosspoint", {})),
            )
            shared = [k for k in flat if k.split(".")[0] in ("encoder", "image", "data")]
            assert {k: flat[k] for k in shared} == {k: first[k] for k in shared}
            assert config.trainer.epochs == known["scales"][scale]["trainer"]["epochs"]
            keys.add(recipes.key_of(config))
    # All differ, but for the recipe that was made of one of them.
    assert len(keys) == (len(known["variants"]) - 1) * len(known["scales"])
    same = [recipes.config_of(known, "small", name, {}) for name in ("pixcloud", "mild-lr-2e-3")]
    assert len({recipes.key_of(config) for config in same}) == 1


def test_objects_to_choose_by_are_no_others_of_the_embedded_data() -> None:
    assert recipes.VALIDATION.seed != SyntheticSettings().seed


def test_keys_leave_out_what_changes_nothing() -> None:
    a = pretrain_config("demo", seed=1, run="here", data={"workers": 3})
    b = pretrain_config("demo", seed=1, run="there")
    assert recipes.key_of(a) == recipes.key_of(b)
    assert recipes.key_of(a) != recipes.key_of(pretrain_config("demo", seed=2))


def test_tables() -> None:
    curve = [{"epoch": e, "seconds": 3.0 * e + 3, "probe_validation": 0.2 * e} for e in range(4)]
    slow = [{**line, "probe_validation": line["probe_validation"] / 2} for line in curve]
    records = [
        {"variant": name, "seed": seed, "accuracy": c[-1]["probe_validation"], "curve": c}
        for name, c in (("slow", slow), ("fast", curve))
        for seed in (0, 1)
    ]
    assert recipes.table(records, "slow")[2:] == [
        "| slow | 2 | 30.0 (30.0, 30.0) | +0.0 |  |",
        "| fast | 2 | 60.0 (60.0, 60.0) | +30.0 | ± 0.0 |",
    ]
    rows = recipes_final.times(records)[2:]
    assert rows[0] == "| slow | fast (60.0 %) | 0 | never |  |"
    assert rows[2] == "| fast | slow (30.0 %) | 0 | 3 | 9 |"

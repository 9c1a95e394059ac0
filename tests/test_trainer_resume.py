"""A run is a function of its config: kills, resumption and workers change no bit of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load

from conftest import write_pair_tree
from killable import fingerprint, run
from pixcloud.config import PretrainConfig, from_dict, merge, pretrain_config

STEPS_PER_EPOCH, EPOCHS = 6, 4


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pair_tree(tmp_path_factory.mktemp("resume"), models=26, points=48)


def config(tree: Path, folder: Path, *, workers: int = 0, **trainer: Any) -> PretrainConfig:
    return pretrain_config(
        run=str(folder),
        resume=True,
        seed=3,
        data={"source": str(tree), "num_points": 32, "picture_size": 24, "workers": workers},
        encoder={"name": "dgcnn", "settings": {"k": 4, "embed_dim": 32, "widths": [8, 8, 8, 8]}},
        image={"name": "resnet-tiny"},
        objective={"point_hidden": 16, "image_hidden": 16, "projection_dim": 8},
        trainer={
            "epochs": EPOCHS,
            "batch_size": 4,
            "log_every": 4,
            "checkpoint_every": 2,
            "threads": 1,
            **trainer,
        },
    )


@pytest.fixture(scope="module")
def undisturbed(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert run(config(tree, folder)) == 0
    return fingerprint(folder)


def test_twelve_kills_change_no_bit(
    tree: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    rng = np.random.default_rng(20)
    # Three kills in the second epoch (steps 7 to 12), at random delays after a step's end; four
    # inside a save, at each stage of it; the others anywhere.
    moments: list[dict[str, Any]] = [
        {"step": 1, "delay": 0.0},
        {"save": 1, "call": 0},
        {"step": int(rng.integers(3, 5)), "delay": float(rng.uniform(0, 0.05))},
        {"save": 2, "call": 2},
        {"step": 7, "delay": float(rng.uniform(0, 0.05))},
        {"step": 9, "delay": 0.0},
        {"step": 11, "delay": float(rng.uniform(0, 0.05))},
        {"save": 1, "call": 1},
        {"save": 2, "call": 3},
        {"step": int(rng.integers(17, 19)), "delay": float(rng.uniform(0, 0.05))},
        {"step": 20, "delay": 0.0},
        {"step": 23, "delay": 0.0},
    ]
    folder = tmp_path / "run"
    for moment in moments:
        assert run(config(tree, folder), moment) == -9, f"the kill at {moment} did not fire"
    assert run(config(tree, folder)) == 0
    killed = fingerprint(folder)
    assert killed["metrics"] == undisturbed["metrics"]
    assert killed == undisturbed
    # each step logged once
    steps = [line["step"] for line in killed["metrics"] if line["kind"] == "step"]
    assert steps == list(range(4, STEPS_PER_EPOCH * EPOCHS + 1, 4))
    assert not list((folder / "checkpoints").glob(".saving-*")), "a half-written save stayed"


STRONGER = {
    "objective": {
        "learn_temperature": True,
        "hardness": 0.5,
        "ema": 0.9,
        "teacher": True,
        "queue": 7,
        "relation_weight": 0.5,
    },
    "views": {"pictures": 2, "crop": 0.5, "hole": 0.3, "stretch": 1.2, "dropout_fill": "others"},
}


def test_learned_temperatures_and_the_average_are_resumed(tree: Path, tmp_path: Path) -> None:
    for folder, moment in ((tmp_path / "whole", None), (tmp_path / "cut", {"step": 3, "delay": 0})):
        stronger = merge(dataclasses.asdict(config(tree, folder, epochs=1)), STRONGER)
        if moment:
            assert run(from_dict(PretrainConfig, stronger), moment) == -9
        assert run(from_dict(PretrainConfig, stronger)) == 0
    whole, cut = fingerprint(tmp_path / "whole"), fingerprint(tmp_path / "cut")
    assert whole == cut
    assert whole["metrics"][0]["temperature"] != 0.1
    weights = load(whole["model"])
    exported = load(whole["encoder"])
    for name, value in exported.items():
        assert torch.equal(value, weights[f"averaged.encoder.{name}"])
    changed = [n for n in exported if not torch.equal(exported[n], weights[f"point_encoder.{n}"])]
    assert changed, "the average is not what was trained"


def test_workers_change_nothing(tree: Path, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    assert run(config(tree, tmp_path / "run", workers=2)) == 0
    assert fingerprint(tmp_path / "run") == undisturbed


def test_damaged_checkpoint_is_passed_over(
    tree: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert run(config(tree, folder), {"step": 15, "delay": 0.0}) == -9
    last = sorted((folder / "checkpoints").iterdir())[-1] / "model.safetensors"
    last.write_bytes(last.read_bytes()[:-100])
    assert run(config(tree, folder)) == 0
    assert "passing over a damaged checkpoint" in (folder / "train.log").read_text()
    assert fingerprint(folder) == undisturbed


def test_another_seed_gives_another_run(
    tree: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    other = config(tree, tmp_path / "run")
    other.seed = 4
    assert run(other) == 0
    assert fingerprint(tmp_path / "run")["model"] != undisturbed["model"]

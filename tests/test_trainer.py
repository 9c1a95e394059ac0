"""Pre-training through the surfaces that a user touches."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import write_pair_tree, write_picture, write_ply
from pixcloud import cli
from pixcloud.config import pretrain_config
from pixcloud.config_files import load_config
from pixcloud.errors import CheckpointError, ConfigError, FileFormatError, TrainingError
from pixcloud.export import load_encoder
from pixcloud.objective import CrossModalObjective
from pixcloud.optimizer import build_optimizer
from pixcloud.selection import Selection
from pixcloud.step import Step
from pixcloud.trainer import pretrain
from pixcloud.types import PairBatch

SMALL = {
    "data": {"num_points": 32, "picture_size": 24, "workers": 0},
    "encoder": {"name": "pointnet", "settings": {"embed_dim": 32, "widths": [8, 16]}},
    "image": {"name": "resnet-tiny"},
    "objective": {"point_hidden": 16, "image_hidden": 16, "projection_dim": 8},
    "trainer": {"epochs": 2, "batch_size": 4, "log_every": 1},
}
FLAGS = [
    *("--data.num_points", "32", "--data.picture_size", "24", "--data.workers", "0"),
    *("--encoder.name", "pointnet", "--encoder.settings", '{"embed_dim": 32, "widths": [8, 16]}'),
    *("--image.name", "resnet-tiny", "--trainer.batch_size", "4", "--trainer.log_every", "1"),
    *("--trainer.precision", "32"),  # what is measured may differ on a busy machine
]


def small(tree: Path, run: Path, **changes: dict[str, object]):  # type: ignore[no-untyped-def]
    merged = {k: {**v, **changes.get(k, {})} for k, v in SMALL.items()}
    merged["data"]["source"] = str(tree)
    merged.update({k: v for k, v in changes.items() if k not in merged})
    return pretrain_config(run=str(run), **merged)


def lines(run: Path, kind: str = "step") -> list[dict[str, float]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == kind]


def test_run_folder(pair_tree: Path, tmp_path: Path) -> None:
    result = pretrain(small(pair_tree, tmp_path / "run"))
    assert result.steps == 6
    run = tmp_path / "run"
    assert {p.name for p in run.iterdir()} == {
        *("config.yaml", "metrics.jsonl", "train.log", "checkpoints", "encoder")
    }
    assert load_config(run / "config.yaml").trainer.threads == len(os.sched_getaffinity(0))
    steps = lines(run)
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    for line in steps:
        assert line["loss"] == pytest.approx(line["intra"] + line["cross"])
    epoch = lines(run, "epoch")[1]
    assert epoch["intra"] == pytest.approx(np.mean([line["intra"] for line in steps[3:]]))
    encoder = load_encoder(run)
    assert encoder.embed(torch.rand(3, 40, 3)).shape == (3, 32)
    assert not encoder.training


def test_of_equal_validation_accuracies_the_later_epoch_is_kept(
    pair_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small validation part soon says 100 %; less than before keeps what was better."""
    said = iter([0.5, 1.0, 1.0, 0.75])
    monkeypatch.setattr(Selection, "probe", lambda self, encoder, epoch: next(said))
    run = tmp_path / "run"
    pretrain(small(pair_tree, run, trainer={"epochs": 4}))
    origin = json.loads((run / "encoder" / "config.json").read_text())["origin"]
    assert (origin["epoch"], origin["probe_validation"]) == (2, 1.0)


def test_weights_of_the_losses(pair_tree: Path, tmp_path: Path) -> None:
    pretrain(small(pair_tree, tmp_path / "run", objective={"cross_weight": 0.25}))
    for line in lines(tmp_path / "run"):
        assert line["loss"] == pytest.approx(line["intra"] + 0.25 * line["cross"])


def test_original_tree_is_read_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two synsets, stray files, a cloud without pictures; absolute, relative, symlinked roots."""
    tree = write_pair_tree(tmp_path / "set", models=9)
    rendering = tree / "ShapeNetRendering/03001627/model001/rendering"
    (rendering / "rendering_metadata.txt").write_text("0 25 0 0.9 25\n")
    (rendering / "renderings.txt").write_text("00.png\n")
    (tree / "ShapeNet/03001627/.DS_Store").write_bytes(b"\0")
    (tree / "ShapeNet/readme.txt").write_text("stray")
    (tree / "ShapeNet/02691156/list.txt").write_text("stray")
    write_picture(rendering / "07.png", np.random.default_rng(1))
    write_ply(tree / "ShapeNet/03001627/lonely.ply", np.random.default_rng(2).normal(size=(64, 3)))
    write_picture(
        tree / "ShapeNetRendering/03001627/orphan/rendering/00.png", np.random.default_rng(3)
    )

    arguments = ["pretrain", "--run", str(tmp_path / "a"), *FLAGS, "--trainer.epochs", "1"]
    assert cli.main([*arguments, "--data.source", str(tree)]) == 2
    message = capsys.readouterr().err
    assert "1 of 10 clouds have no pictures (03001627/lonely)" in message
    assert "--data.unpaired skip" in message
    assert len(message.splitlines()) == 1
    assert not (tmp_path / "a").exists()

    arguments += ["--data.unpaired", "skip"]
    assert cli.main([*arguments, "--data.source", f"pairs:{tree}"]) == 0
    assert lines(tmp_path / "a", "epoch")[-1]["step"] == 2
    (tmp_path / "link").symlink_to(tree)
    monkeypatch.chdir(tmp_path)
    for name, source in (("b", str(tmp_path / "link")), ("c", "set")):
        arguments[2] = str(tmp_path / name)
        assert cli.main([*arguments, "--data.source", source]) == 0
        # the same files in the same order, whatever the way to them
        first, other = lines(tmp_path / "a"), lines(tmp_path / name)
        assert [x["loss"] for x in first] == [x["loss"] for x in other]


def test_shapenet55_layout(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    root = tmp_path / "set"
    (root / "shapenet_pc").mkdir(parents=True)
    (root / "ShapeNet-55").mkdir()
    names = [f"02691156-m{i}" for i in range(8)]
    for name in names:
        np.save(root / "shapenet_pc" / f"{name}.npy", rng.normal(size=(64, 3)).astype(np.float32))
        write_picture(root / "shapenet_img" / f"{name}.png", rng)
    (root / "ShapeNet-55/train.txt").write_text("".join(f"{n}.npy\n" for n in names))
    assert pretrain(small(root, tmp_path / "run")).steps == 4


def test_existing_run_is_not_overwritten(pair_tree: Path, tmp_path: Path) -> None:
    config = small(pair_tree, tmp_path / "run")
    pretrain(config)
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match="holds a run already; go on with --resume true"):
        pretrain(config)
    changed = small(pair_tree, tmp_path / "run", resume=True, optim={"lr": 0.5})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"other settings: optim.lr: 0.001 in the run, 0.5 now"):
        pretrain(changed)
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before


def test_a_run_is_not_resumed_with_other_pairs(pair_tree: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(pair_tree, tree)
    pretrain(small(tree, tmp_path / "run"))
    cloud = next((tree / "ShapeNet").glob("*/*.ply"))
    cloud.unlink()
    shutil.rmtree(tree / "ShapeNetRendering" / cloud.parent.name / cloud.stem)
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match="not those that the run began with"):
        pretrain(small(tree, tmp_path / "run", resume=True))  # type: ignore[arg-type]
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before


def test_broken_sample_stops_with_its_name(
    pair_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(pair_tree, tree)
    for picture in (tree / "ShapeNetRendering").glob("*/*/rendering/*.png"):
        picture.write_bytes(picture.read_bytes()[:60])
    code = cli.main(
        ["pretrain", "--run", str(tmp_path / "run"), *FLAGS, "--data.source", str(tree)]
    )
    message = capsys.readouterr().err.splitlines()[-1]
    assert code == 2
    assert not (tmp_path / "run").exists(), "the folder would block the next try"
    assert re.search(r"model\d+/rendering/\d+\.png", message)


def test_clouds_too_small_for_the_encoder(pair_tree: Path, tmp_path: Path) -> None:
    encoder = {"name": "dgcnn", "settings": {"k": 200}}
    config = small(pair_tree, tmp_path / "run", encoder=encoder)
    with pytest.raises(ConfigError, match=r"data.num_points = \d+: this encoder looks at 200"):
        pretrain(config)
    assert not (tmp_path / "run").exists(), "the folder would block the next try"


def test_loss_that_is_not_finite(pair_tree: Path, tmp_path: Path) -> None:
    config = small(pair_tree, tmp_path / "run", objective={"temperature": 1e-40})
    with pytest.raises(TrainingError, match=r"not finite at step \d+ \(pairs \["):
        pretrain(config)


def test_gradient_that_is_not_finite(pair_tree: Path, tmp_path: Path) -> None:
    settings = {"objective": {"temperature": 1e-30}, "optim": {"clip_norm": 1.0}}
    config = small(pair_tree, tmp_path / "run", **settings)
    with pytest.raises(TrainingError, match=r"gradient is not finite at step \d+"):
        pretrain(config)


def test_steps_without_a_finite_gradient_are_skipped(
    pair_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second step's loss is made NaN: its pairs are named, and nothing of it stays."""
    calls: list[int] = []
    states: list[dict[str, torch.Tensor]] = []
    original = CrossModalObjective.losses

    def losses(self: CrossModalObjective, z: torch.Tensor) -> dict[str, torch.Tensor]:
        calls.append(1)
        found = original(self, z)
        return {k: v * float("nan") for k, v in found.items()} if len(calls) == 2 else found

    step = Step.__call__

    def recorded(self: Step, batches: list[PairBatch], lr: float) -> tuple[torch.Tensor, bool]:
        result = step(self, batches, lr)
        states.append({k: v.clone() for k, v in self.objective.state_dict().items()})
        return result

    monkeypatch.setattr(CrossModalObjective, "losses", losses)
    monkeypatch.setattr(Step, "__call__", recorded)
    trainer = {"on_nonfinite": "skip", "log_every": 1, "epochs": 1}
    pretrain(small(pair_tree, tmp_path / "run", trainer=trainer))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not all(torch.equal(states[1][key], states[2][key]) for key in states[0])
    written = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    (skipped,) = (line for line in map(json.loads, written) if line["kind"] == "skipped")
    assert skipped["step"] == 2
    assert len(skipped["pairs"]) == 4


def test_a_run_that_only_skips_ends(pair_tree: Path, tmp_path: Path) -> None:
    settings = {"objective": {"temperature": 1e-40}, "trainer": {"on_nonfinite": "skip"}}
    settings["trainer"]["epochs"] = 20
    config = small(pair_tree, tmp_path / "run", **settings)
    with pytest.raises(TrainingError, match=r"not finite at step 20 .* as in 19 steps before"):
        pretrain(config)


def test_accumulation_is_the_mean_gradient(
    pair_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    original = Step.__call__

    def step(self: Step, batches: list[PairBatch], lr: float) -> tuple[torch.Tensor, bool]:
        parts, finite = original(self, batches, lr)
        seen.append(len(parts))
        return parts, finite

    monkeypatch.setattr(Step, "__call__", step)
    config = small(pair_tree, tmp_path / "run", trainer={"accumulate": 3})
    assert pretrain(config).steps == 2
    assert seen == [3, 3]


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_optimisers_clipping_and_bf16(pair_tree: Path, tmp_path: Path, name: str) -> None:
    config = small(
        pair_tree,
        tmp_path / name,
        optim={"name": name, "clip_norm": 0.1, "warmup_epochs": 0.5, "schedule": "cosine-step"},
        trainer={"precision": "bf16", "epochs": 1},
    )
    assert pretrain(config).steps == 3
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    assert type(build_optimizer(config.optim, torch.nn.Linear(2, 2))) is kinds[name]


def test_frozen_tower_does_not_change(pair_tree: Path, tmp_path: Path) -> None:
    from pixcloud.building import build_objective
    from pixcloud.checkpoint import last_good

    config = small(pair_tree, tmp_path / "run", image={"frozen": True})
    before = build_objective(config).state_dict()
    pretrain(config)
    saved = last_good(tmp_path / "run/checkpoints")
    assert saved is not None
    for key, value in before.items():
        same = torch.equal(value, saved.model[key])
        assert same == key.startswith("image_encoder."), key


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_resumes(pair_tree: Path, tmp_path: Path, number: signal.Signals) -> None:
    """To the whole process group, reading processes too, as a terminal or a scheduler sends it."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "pixcloud.cli", "pretrain", "--run", str(run)]
    flags = [*FLAGS, "--data.source", str(pair_tree), "--trainer.epochs", "16"]
    flags += ["--trainer.checkpoint_every", "1000", "--trainer.threads", "1"]
    flags += ["--data.workers", "2"]
    process = subprocess.Popen(
        [*command, *flags], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() or len(lines(run)) < 5:
        assert process.poll() is None, process.stderr.read()  # type: ignore[union-attr]
        assert time.monotonic() < until
        time.sleep(0.02)
    os.killpg(process.pid, number)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "the state is saved" in message.splitlines()[-1]
    assert "Traceback" not in message
    (saved,) = (run / "checkpoints").iterdir()
    step = int(saved.name.removeprefix("step-"))
    assert [line["step"] for line in lines(run)] == list(range(1, step + 1))
    # the run's own settings are taken up again, without repeating the flags
    done = subprocess.run([*command, "--resume", "true"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"from step {step}" in done.stderr
    assert [line["step"] for line in lines(run)] == list(range(1, 49))


def test_checkpoints_of_another_encoder_are_refused(pair_tree: Path, tmp_path: Path) -> None:
    pretrain(small(pair_tree, tmp_path / "run"))
    (tmp_path / "run/config.yaml").unlink()
    encoder = {"name": "pointnet", "settings": {"embed_dim": 24}}
    config = small(pair_tree, tmp_path / "run", resume=True, encoder=encoder)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="of a run with other settings than these"):
        pretrain(config)


def test_a_file_that_breaks_during_a_run_costs_nothing(pair_tree: Path, tmp_path: Path) -> None:
    tree, run = tmp_path / "tree", tmp_path / "run"
    shutil.copytree(pair_tree, tree)
    cloud = sorted((tree / "ShapeNet").glob("*/*.ply"))[0]
    whole = cloud.read_bytes()
    undisturbed = pretrain(small(tree, tmp_path / "undisturbed", data={"workers": 0}))
    # Broken files that are in the first batch stop the run before it has a folder.
    for cloud in sorted((tree / "ShapeNet").glob("*/*.ply")):
        whole = cloud.read_bytes()
        cloud.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(FileFormatError, match="truncated") as refusal:
            pretrain(small(tree, run, data={"workers": 0}))
        cloud.write_bytes(whole)
        if run.exists():
            break
    assert "--resume true" in str(refusal.value)
    resumed = pretrain(small(tree, run, resume=True, data={"workers": 0}))  # type: ignore[arg-type]
    assert resumed.steps == undisturbed.steps
    assert resumed.losses == undisturbed.losses

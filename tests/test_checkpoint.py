"""Checkpoints: whole or absent, damage recognised, no pickle."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pixcloud import checkpoint as module
from pixcloud.checkpoint import (
    Checkpoint,
    generator_states,
    last_good,
    load_checkpoint,
    save_checkpoint,
)
from pixcloud.errors import CheckpointError

FILES = ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]


def make(
    step: int, kind: str = "adam"
) -> tuple[Checkpoint, torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(step)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    makers = {
        "adam": lambda p: torch.optim.Adam(p, 1e-3, weight_decay=1e-6),
        "adamw": lambda p: torch.optim.AdamW(p, 1e-3),
        "sgd": lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9),
    }
    optimizer = makers[kind](model.parameters())
    model(torch.randn(8, 3)).square().sum().backward()
    optimizer.step()
    saved = Checkpoint(
        model=model.state_dict(),
        optimizer=optimizer.state_dict(),
        state={"step": step, "interval": [0.1 + 0.2, 1e-300], "best": {}},
        generators=generator_states("cpu"),
    )
    return saved, model, optimizer


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_round_trip(kind: str, tmp_path: Path) -> None:
    saved, _, optimizer = make(3, kind)
    path = save_checkpoint(tmp_path, saved, keep=2)
    loaded = load_checkpoint(path)
    assert loaded.state == saved.state
    assert list(loaded.generators) == ["cpu"]
    assert torch.equal(loaded.generators["cpu"], saved.generators["cpu"])
    assert all(torch.equal(loaded.model[k], v) for k, v in saved.model.items())
    _, _, fresh = make(4, kind)
    fresh.load_state_dict(loaded.optimizer)
    ours, theirs = fresh.state_dict(), optimizer.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    for key, values in theirs["state"].items():
        for name, value in values.items():
            assert torch.equal(torch.as_tensor(ours["state"][key][name]), torch.as_tensor(value))


def test_the_last_ones_stay(tmp_path: Path) -> None:
    for step in (1, 2, 10, 11):
        save_checkpoint(tmp_path, make(step)[0], keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000010", "step-00000011"]


@pytest.mark.parametrize("again", [False, True])
def test_a_kill_while_an_old_one_goes_leaves_no_half(
    again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is one too many, or one of the same step that is written again."""
    for step in (1, 2):
        save_checkpoint(tmp_path, make(step)[0], keep=2)

    def killed(path: Path, **_: bool) -> None:
        (path / FILES[1]).unlink(missing_ok=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(module.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, make(2 if again else 3)[0], keep=2)
    monkeypatch.undo()
    kept = sorted(tmp_path.glob("step-*"))
    assert [p.name for p in kept] == [f"step-0000000{n}" for n in ([1] if again else [2, 3])]
    for path in kept:
        load_checkpoint(path)
    save_checkpoint(tmp_path, make(4)[0], keep=2)
    assert [p.name for p in sorted(tmp_path.iterdir())] == [kept[-1].name, "step-00000004"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "empty"])
def test_damage_is_recognised(file: str, damage: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, make(1)[0], keep=2)
    last = save_checkpoint(tmp_path, make(2)[0], keep=2) / file
    content = bytearray(last.read_bytes())
    if damage == "cut":
        last.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        last.write_bytes(content)
    elif damage == "empty":
        last.write_bytes(b"")
    else:
        last.unlink()
    said: list[str] = []
    good = last_good(tmp_path, said.append)
    assert good is not None
    assert good.state["step"] == 1
    assert len(said) == 1
    assert "step-00000002" in said[0]


@pytest.mark.parametrize("keep", [1, 2])
def test_damaged_newer_ones_do_not_push_out_good_ones(keep: int, tmp_path: Path) -> None:
    """Two damaged checkpoints, then the run goes on from the one before them."""
    for step in (10, 20, 30):
        path = save_checkpoint(tmp_path, make(step)[0], keep=3)
        if step > 10:
            (path / "state.json").write_text("{}")
    assert last_good(tmp_path, lambda _: None).state["step"] == 10  # type: ignore[union-attr]
    save_checkpoint(tmp_path, make(15)[0], keep=keep)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["step-00000010", "step-00000015"][-keep:]
    assert last_good(tmp_path).state["step"] == 15  # type: ignore[union-attr]


def test_a_manifest_that_leaves_files_out_proves_nothing(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, make(1)[0], keep=1)
    (path / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"cannot be read \('model\.safetensors'\)"):
        load_checkpoint(path)


def test_nothing_there(tmp_path: Path) -> None:
    assert last_good(tmp_path / "absent") is None
    assert last_good(tmp_path) is None


@pytest.mark.parametrize("call", [1, 2])
def test_full_disk_leaves_what_was_there(
    call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, make(1)[0], keep=2)
    original, calls = module.save_file, []

    def full(tensors: dict[str, torch.Tensor], path: Path) -> None:
        calls.append(path)
        if len(calls) == call:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(tensors, path)

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*go on with --resume true"):
        save_checkpoint(tmp_path, make(2)[0], keep=2)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    monkeypatch.setattr(module, "save_file", original)
    save_checkpoint(tmp_path, make(2)[0], keep=2)
    assert last_good(tmp_path).state["step"] == 2  # type: ignore[union-attr]


def test_truly_full_disk(tmp_path: Path) -> None:
    """A limit of the system on the size of files stands for the full disk."""
    pytest.importorskip("resource")
    save_checkpoint(tmp_path, make(1)[0], keep=2)
    program = (
        "import resource, sys, torch\n"
        "from pathlib import Path\n"
        "from pixcloud.checkpoint import Checkpoint, save_checkpoint\n"
        "from pixcloud.errors import CheckpointError\n"
        "model = torch.nn.Linear(100, 100)\n"
        "new = Checkpoint(model=model.state_dict(), optimizer={'state': {}, 'param_groups': []},\n"
        "                 state={'step': 2}, generators={'cpu': torch.get_rng_state()})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "try:\n"
        "    save_checkpoint(Path(sys.argv[1]), new, keep=2)\n"
        "except CheckpointError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "step-00000002: cannot be written" in done.stdout
    assert "go on with --resume true" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_leftovers_of_a_kill_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".saving-step-00000009").mkdir(parents=True)
    assert last_good(tmp_path) is None
    save_checkpoint(tmp_path, make(1)[0], keep=2)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_other_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORMAT", 99)
    path = save_checkpoint(tmp_path, make(1)[0], keep=1)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 99, this version reads format 2"):
        load_checkpoint(path)
    # It is whole: passing over it would start over and overwrite the run.
    with pytest.raises(CheckpointError, match="end the run with the version that began it"):
        last_good(tmp_path)


def test_a_run_without_a_whole_checkpoint_is_not_started_over(tmp_path: Path) -> None:
    for step in (1, 2):
        (save_checkpoint(tmp_path, make(step)[0], keep=2) / "state.json").unlink()
    with pytest.raises(CheckpointError, match="2 checkpoints, and none is whole; put"):
        last_good(tmp_path, lambda _: None)


def test_what_the_system_does_not_let_read_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    for step in (1, 2):
        save_checkpoint(tmp_path, make(step)[0], keep=2)
    monkeypatch.setattr(module, "_sha256", refuse)
    with pytest.raises(CheckpointError, match="step-00000002: cannot be read "):
        last_good(tmp_path)


def test_no_pickle(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, make(1)[0], keep=1)
    assert sorted(p.name for p in path.iterdir()) == sorted(FILES)

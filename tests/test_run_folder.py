"""The run folder where the system refuses: full disks and places that cannot be written."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from killable import fingerprint
from pixcloud import run_folder
from pixcloud.checkpoint import checkpoint_folders, load_checkpoint
from pixcloud.config import PretrainConfig, pretrain_config
from pixcloud.errors import CheckpointError
from pixcloud.run_folder import RunFolder, read_metrics
from pixcloud.trainer import pretrain

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")


def folder(path: Path) -> RunFolder:
    return RunFolder(pretrain_config(run=str(path)))


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """A file takes what fits and refuses the rest, as a disk that fills up does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def refuse(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = folder(tmp_path / "file" / "run")
    with pytest.raises(CheckpointError, match=r"file/run: cannot be written \(Not a directory\)"):
        run.start(0)


def test_a_folder_that_cannot_be_looked_into(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot be read .* give another folder with --run"):
        folder(tmp_path / ("x" * 300))


def test_a_start_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = folder(tmp_path / "run")
    run.start(0)
    for step in range(3):
        run.log(step=step)
    before = run.metrics.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "write_text", refuse)
        with pytest.raises(CheckpointError, match=r"metrics\.jsonl: cannot be written \(No space"):
            run.start(1)
        patch.setattr(run_folder, "save_config", refuse)
        with pytest.raises(CheckpointError, match=r"config\.yaml: cannot be written \(No space"):
            run.start(1)
    assert run.metrics.read_bytes() == before
    run.start(1)
    assert [line["step"] for line in read_metrics(run.metrics)] == [0, 1]


def test_a_line_is_whole_or_absent(tmp_path: Path) -> None:
    run = folder(tmp_path / "run")
    run.start(0)
    run.log(step=1)
    run.note("first")
    before = {path: path.read_bytes() for path in (run.metrics, run.path / "train.log")}
    for path, write in (
        (run.metrics, lambda: run.log(step=2, text="x" * 100)),
        (run.path / "train.log", lambda: run.note("y" * 100)),
    ):
        with (
            no_file_above(len(before[path]) + 20),
            pytest.raises(CheckpointError, match=rf"{path.name}: cannot be written \(File too la"),
        ):
            write()
        assert path.read_bytes() == before[path]
        write()
        assert path.read_bytes().startswith(before[path])


@needs_full
def test_what_to_do_is_said(tmp_path: Path) -> None:
    run = folder(tmp_path / "run")
    run.start(0)
    (run.path / "train.log").symlink_to(FULL)
    with pytest.raises(CheckpointError) as caught:
        run.say("hello")
    assert str(caught.value) == (
        f"{run.path / 'train.log'}: cannot be written (No space left on device); make room or mend "
        "the folder, then go on with --resume true: checkpoints stay as they are"
    )


def test_metrics_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: cannot be read"):
        read_metrics(tmp_path / "metrics.jsonl")
    with pytest.raises(CheckpointError, match=r"none\.jsonl: cannot be read"):
        read_metrics(tmp_path / "none.jsonl")


def tiny(tree: Path, run: Path) -> PretrainConfig:
    return pretrain_config(
        run=str(run),
        resume=True,
        data={"source": str(tree), "num_points": 32, "picture_size": 24, "workers": 0},
        encoder={"name": "pointnet", "settings": {"embed_dim": 32, "widths": [8, 16]}},
        image={"name": "resnet-tiny"},
        objective={"point_hidden": 16, "image_hidden": 16, "projection_dim": 8},
        trainer={
            "epochs": 2,
            "batch_size": 4,
            "log_every": 1,
            "checkpoint_every": 1,
            "threads": 1,
        },
    )


@needs_full
@pytest.mark.parametrize("name", ["metrics.jsonl", "train.log"])
def test_a_disk_that_fills_up_keeps_the_last_checkpoint(
    pair_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pretrain(tiny(pair_tree, tmp_path / "undisturbed"))
    run = tmp_path / "run"
    original = RunFolder.log

    def filling(self: RunFolder, **values: Any) -> None:
        if values["step"] == 3 and not (run / "aside").exists():
            (run / name).rename(run / "aside")
            (run / name).symlink_to(FULL)
        original(self, **values)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "log", filling)
        with pytest.raises(CheckpointError, match=rf"{name}: cannot be written \(No space"):
            pretrain(tiny(pair_tree, run))
    saved = checkpoint_folders(run / "checkpoints")
    assert [load_checkpoint(path).state["step"] for path in saved] == [1, 2]
    (run / "aside").replace(run / name)
    pretrain(tiny(pair_tree, run))
    assert fingerprint(run) == fingerprint(tmp_path / "undisturbed")

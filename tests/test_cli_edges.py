"""The command line where layers meet, where the system refuses, and where the reader goes away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from pixcloud import cli
from pixcloud.config import pretrain_config
from pixcloud.config_files import save_config

FLAGS = [
    *("--data.num_points", "16", "--data.picture_size", "16", "--data.workers", "0"),
    *("--encoder.name", "pointnet", "--encoder.settings.embed_dim", "8"),
    *("--image.name", "resnet-tiny", "--trainer.epochs", "1", "--trainer.batch_size", "4"),
]


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, dict[str, object]]:
    assert cli.main(["pretrain", *words, "--print_config"]) == 0
    return yaml.safe_load(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(["pretrain", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_another_encoder_in_the_config_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recipe's k means nothing to it."""
    file = tmp_path / "c.yaml"
    file.write_text("recipe: crosspoint\nencoder: {name: pointnet}\n")
    assert printed(capsys, "--config", str(file))["encoder"] == {"name": "pointnet", "settings": {}}
    file.write_text("recipe: crosspoint\nencoder: {name: dgcnn}\n")
    assert printed(capsys, "--config", str(file))["encoder"]["settings"]["k"] == 15
    file.write_text("recipe: crosspoint\nencoder: {name: pointnet, settings: {embed_dim: 8}}\n")
    assert printed(capsys, "--config", str(file))["encoder"]["settings"] == {"embed_dim": 8}


def test_numbers_as_people_write_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """YAML takes 1e-4 for text; it is a number all the same."""
    (tmp_path / "c.yaml").write_text("optim: {lr: 1e-4, weight_decay: 0}\n")
    config = printed(capsys, "--config", str(tmp_path / "c.yaml"), "--optim.clip_norm", "1e1")
    assert config["optim"]["lr"] == 1e-4
    assert config["optim"]["weight_decay"] == 0
    assert config["optim"]["clip_norm"] == 10


@pytest.mark.parametrize("word", ["true", "True", "yes"])
def test_resuming_takes_the_settings_of_the_run(
    word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = pretrain_config("crosspoint", run=str(tmp_path / "run"), trainer={"epochs": 3})
    save_config(config, tmp_path / "run" / "config.yaml")
    words = ["--run", str(tmp_path / "run")]
    for found in (
        printed(capsys, *words, "--resume", word),
        printed(capsys, *words, f"--resume={word}"),
    ):
        assert found["trainer"]["epochs"] == 3
        assert found["encoder"]["settings"]["k"] == 15
    (tmp_path / "c.yaml").write_text(f"resume: true\nrun: {tmp_path / 'run'}\n")
    found = printed(capsys, "--config", str(tmp_path / "c.yaml"))
    assert (found["trainer"]["epochs"], found["resume"]) == (3, True)
    assert printed(capsys, *words)["trainer"]["epochs"] == 100


def test_a_damaged_config_of_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("trainer: {epoch: 3}\n")
    line = refused(capsys, "--run", str(tmp_path), "--resume", "true")
    assert f"{tmp_path / 'config.yaml'}: unknown setting 'trainer.epoch'" in line


@pytest.mark.parametrize("word", ["--config", "--recipe", "--run", "--resume"])
def test_layers_need_a_value(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{word} needs a value" in refused(capsys, word)
    assert f"{word} needs a value" in refused(capsys, word, "--seed", "3")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--encoder.settings.k", "3"], "unknown setting 'k' of pointnet"),
        (["--encoder.settings.embed_dim", "-3"], "embed_dim = -3: whole numbers"),
        (["--encoder.settings.widths", "[]"], "widths = []: whole numbers"),
        (["--encoder.name", "dgcn"], "unknown encoder 'dgcn': the nearest known one is 'dgcnn'"),
        (["--image.name", "resnet51"], "the nearest known one is 'resnet50'"),
        (["--trainer.device", "cudaa"], "trainer.device = 'cudaa': it must be one of auto, cpu"),
        (["--data.num_points", "65"], "64 points, and data.num_points asks for 65"),
        (["--seed", "-1"], "seed = -1: it must be at least 0"),
    ],
)
def test_settings_that_cannot_be(
    words: list[str],
    message: str,
    pair_tree: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = cli.main(
        [
            "pretrain",
            "--run",
            str(tmp_path / "run"),
            "--data.source",
            str(pair_tree),
            *FLAGS,
            *words,
        ]
    )
    err = capsys.readouterr().err
    assert code == 2
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ['{"epoch": 3}'],
            "unknown option '--trainer.epoch': the nearest known one is 'trainer.",
        ),
        (
            ["{epochs: 3, batchsize: 4}"],
            "'--trainer.batchsize': the nearest known one is",
        ),
        (
            ['{"epochs": 3}'],
            "--trainer has options of its own, such as --trainer.epochs; give",
        ),
        (["3"], "--trainer has options of its own, such as --trainer."),
        (["{"], "--trainer has options of its own, such as --trainer."),
        ([], "--trainer has options of its own, such as --trainer."),
    ],
)
def test_a_group_of_settings_in_one_word(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, "--trainer", *words)
    assert message in refused(capsys, f"--trainer={''.join(words)}")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what must be missing")
def test_a_device_that_is_not_there(
    pair_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--run", str(tmp_path / "run"), "--data.source", str(pair_tree), *FLAGS]
    line = refused(capsys, *words, "--trainer.device", "cuda")
    assert "trainer.device = cuda: there is none here; use cpu, or auto" in line
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_cannot_be_made(
    pair_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    words = ["pretrain", "--run", str(tmp_path / "file" / "run"), "--data.source", str(pair_tree)]
    assert cli.main([*words, *FLAGS]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("pixcloud: error: ")
    assert "Not a directory" in line


def test_other_faults_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are ours, and the traceback is what helps to mend them."""

    def broken() -> str:
        raise FileNotFoundError(2, "No such file or directory", "a file of ours")

    monkeypatch.setattr("pixcloud.doctor.doctor", broken)
    with pytest.raises(FileNotFoundError):
        cli.main(["doctor"])


def test_interrupts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("pixcloud.doctor.doctor", interrupted)
    assert cli.main(["doctor"]) == 130
    assert capsys.readouterr().err == "pixcloud: interrupted\n"


@pytest.mark.parametrize("buffered", [True, False])
def test_a_reader_that_goes_away(buffered: bool) -> None:
    """As in `pixcloud --help | head -1`."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    if not buffered:
        environment["PYTHONUNBUFFERED"] = "1"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "pixcloud.cli", "--help"],
        stdout=write,
        stderr=subprocess.PIPE,
        env=environment,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "launcher", [("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")]
)
def test_copies_of_a_command_that_runs_in_one_process(
    launcher: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Under torchrun or srun each would do all of it; none begins, and one says why."""
    words = ["data", "make", str(tmp_path), str(tmp_path / "out")]
    for rank in ("0", "1"):
        monkeypatch.setenv(launcher[0], rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        monkeypatch.setenv(launcher[1], "2")
        for command in (["finetune", "nowhere"], words, ["embed", "e", "f", "--out", "x"]):
            assert cli.main(command) == 2
            err = capsys.readouterr().err
            assert ("runs in one process, and a launcher started 2" in err) is (rank == "0")
    assert not (tmp_path / "out").exists()
    assert cli.main(["finetune", "--help"]) == 0
    assert cli.main(["doctor", "--help"]) == 0

"""Several processes through the command line: one set of lines and files, errors told once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from distributed.several import free_port
from pixcloud.cli import main
from pixcloud.data.loading import PairOrder, check_shares
from pixcloud.distributed import ALONE, World
from pixcloud.errors import ConfigError
from pixcloud.export import load_encoder
from pixcloud.launch import Place, find_place

PRETRAIN = [sys.executable, "-m", "pixcloud.cli", "pretrain"]
FLAGS = [
    *("--data.num_points", "48", "--data.picture_size", "16", "--data.workers", "0"),
    *("--encoder.name", "pointnet", "--encoder.settings", '{"embed_dim": 16, "widths": [8]}'),
    *("--image.name", "resnet-tiny", "--objective.point_hidden", "8"),
    *("--objective.image_hidden", "8", "--objective.projection_dim", "6"),
    *("--trainer.batch_size", "4", "--trainer.log_every", "1", "--trainer.precision", "32"),
]


def pretrain(run: Path, tree: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [*PRETRAIN, "--run", str(run), *FLAGS, "--data.source", str(tree), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


def pretrain_here(run: Path, tree: Path, *flags: str) -> int:
    """One process needs none of its own, which takes seconds to start."""
    threads = torch.get_num_threads()
    try:
        return main(["pretrain", "--run", str(run), *FLAGS, "--data.source", str(tree), *flags])
    finally:
        torch.set_num_threads(threads)


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_one_command_starts_all_and_another_number_goes_on(pair_tree: Path, tmp_path: Path) -> None:
    flags = [
        "--trainer.epochs",
        "3",
        "--trainer.keep_checkpoints",
        "9",
        "--trainer.rank_log",
        "true",
    ]
    alone, run = tmp_path / "alone", tmp_path / "run"
    assert pretrain_here(alone, pair_tree, *flags) == 0
    two = pretrain(run, pair_tree, *flags, "--trainer.devices", "2")
    assert two.returncode == 0, two.stderr
    lines = two.stderr.splitlines()
    assert sum("2 processes of" in line for line in lines) == 1
    assert len(lines) == len(set(lines)) == 5, "a start, three epochs, the end"
    assert {path.name for path in (run / "logs").iterdir()} == {"rank-00000.log", "rank-00001.log"}
    for one, several in zip(metrics(alone), metrics(run), strict=True):
        assert one["step"] == several["step"]
        if one["step"] <= 2:  # rounding grows from step to step, with so few pairs quickly
            assert several["loss"] == pytest.approx(one["loss"], rel=1e-3)
    # The run without its last two epochs goes on with one process.
    for step in (6, 9):
        shutil.rmtree(run / f"checkpoints/step-{step:08d}")
    before = metrics(run)
    going_on = ("--trainer.devices", "1", "--resume", "true")
    assert pretrain_here(run, pair_tree, *flags, *going_on) == 0
    assert [line["step"] for line in metrics(run)] == [line["step"] for line in before]
    fourth = [[m["loss"] for m in found if m["step"] == 4] for found in (before, metrics(run))]
    assert fourth[0] == pytest.approx(fourth[1], rel=1e-3)
    assert load_encoder(str(run)).pooled_dim == 16


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--data.source", "/nowhere/at/all"], "/nowhere/at/all does not exist"),
        (["--trainer.batch_size", "5"], "cannot be shared evenly by 2 processes; set it to 4 or 6"),
        (["--trainer.nodes", "2"], "they need a place to meet"),
    ],
)
def test_errors_are_told_once(
    pair_tree: Path, tmp_path: Path, flags: list[str], words: str
) -> None:
    failed = pretrain(tmp_path / "run", pair_tree, "--trainer.devices", "2", *flags)
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr
    assert failed.stderr.count(words) == failed.stderr.count("pixcloud: error:") == 1
    assert not (tmp_path / "run").exists()


def test_a_file_broken_for_one_process_stops_all(pair_tree: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(pair_tree, tree)
    broken = next(iter(sorted((tree / "ShapeNet").glob("*/*.ply"))))
    broken.write_bytes(broken.read_bytes()[:200])
    failed = pretrain(tmp_path / "run", tree, "--trainer.devices", "2", "--trainer.epochs", "2")
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr
    assert failed.stderr.count("pixcloud: error:") == 1
    assert broken.name in failed.stderr


def start_pair(run: Path, tree: Path, slurm: bool, *flags: str) -> list[subprocess.Popen[str]]:
    """Two processes as srun, or another launcher without restarts, would start them."""
    port, started = free_port(), []
    for rank in range(2):
        numbers: dict[str, object] = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": 2,
            "LOCAL_WORLD_SIZE": 2,
        }
        numbers |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        if slurm:
            numbers = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_STEP_NUM_TASKS": 2}
            numbers |= {"SLURM_NTASKS_PER_NODE": 2, "SLURM_STEP_NODELIST": "localhost"}
            numbers |= {"SLURM_JOB_ID": 10000 + port % 10000, "MASTER_PORT": port}
        environment = {**os.environ, **{key: str(value) for key, value in numbers.items()}}
        command = [*PRETRAIN, "--run", str(run), *FLAGS, "--data.source", str(tree), *flags]
        started.append(
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        )
    return started


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGTERM])
def test_one_process_stops(pair_tree: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Silent, it is noticed without a collective; asked to end, all save and end together."""
    run = tmp_path / "run"
    flags = ["--trainer.epochs", "4000", "--trainer.heartbeat", "6"]
    processes = start_pair(run, pair_tree, number == signal.SIGTERM, *flags)
    until = time.monotonic() + 150
    while not (run / "metrics.jsonl").exists() or len(metrics(run)) < 4:
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < until
        time.sleep(0.05)
    processes[1].send_signal(number)
    said = processes[0].communicate(timeout=60)[1]
    if number == signal.SIGSTOP:
        processes[1].kill()
        processes[1].communicate()
        assert processes[0].returncode == 1
        assert "process 1 has not been heard of for" in said
    else:
        processes[1].communicate(timeout=60)
        assert [process.returncode for process in processes] == [143, 143]
        assert "the state is saved" in said
    assert "Traceback" not in said


def test_places() -> None:
    torchrun = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    torchrun |= {"MASTER_ADDR": "host", "MASTER_PORT": "29500"}
    assert find_place(torchrun) == Place(3, 4, 1, 2, "host", 29500)
    slurm = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}
    slurm |= {"SLURM_NTASKS_PER_NODE": "4", "SLURM_JOB_ID": "123456"}
    slurm |= {"SLURM_STEP_NODELIST": "gpu[07-08]"}
    assert find_place(slurm) == Place(5, 8, 1, 4, "gpu07", 15000 + 3456)
    for nodes, first in (("a1,b[2-3]", "a1"), ("n[003,5-7]-ib,x", "n003-ib"), ("solo", "solo")):
        place = find_place({**slurm, "SLURM_STEP_NODELIST": nodes})
        assert place is not None
        assert place.address == first
    assert find_place({**slurm, **torchrun}) == Place(3, 4, 1, 2, "host", 29500)
    assert find_place({"SLURM_JOB_ID": "1", "SLURM_PROCID": "0"}) is None, "a script without srun"
    with pytest.raises(ConfigError, match="must be whole numbers"):
        find_place({**torchrun, "RANK": "first"})


def test_shares() -> None:
    every = [World(rank, 3).share(10) for rank in range(3)]
    assert [i for part in every for i in range(10)[part]] == list(range(10))
    whole = list(PairOrder(24, 8, 2, seed=1))
    for micro in (0, 4):
        parts = [
            list(PairOrder(24, 8, 2, seed=1, world=World(rank, 2), micro_batch=micro))
            for rank in range(2)
        ]
        for step, batch in enumerate(whole):
            shared = [pair for part in parts for pair in part[step]]
            assert sorted(shared) == sorted(batch)
            assert len(set(shared)) == len(batch)
    with pytest.raises(ConfigError, match=r"it must divide trainer\.batch_size = 8; sizes"):
        check_shares(8, 3, 1)
    with pytest.raises(ConfigError, match=r"micro_batch = 4 cannot .* start 1, 2, 4 processes"):
        check_shares(8, 4, 3)


def test_alone_is_the_identity() -> None:
    x = torch.rand(3, 2, requires_grad=True)
    assert ALONE.sum_with_gradient(x) is ALONE.gather_with_gradient(x) is x
    assert ALONE.decide(lambda: 5) == ALONE.agree(lambda: 5) == 5
    assert ALONE.largest([1, 2]) == [1, 2]

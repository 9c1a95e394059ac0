"""What a logger costs training: TensorBoard, and Weights & Biases with a server that is dead.

One run trains on; in turns it has no logger, or one that is started for that turn and ended after
it, so that each turn pays for a start and a first attempt. A server that refuses is found out at
once; one that accepts and never answers is the worst.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.timing import ratio, spread

GOAL = 1.05
SECONDS = 15.0  # of a turn
SETTINGS = {
    "data.num_points": 1024,
    "data.picture_size": 64,
    "data.workers": 0,
    "encoder.name": "pointnet",
    "image.name": "resnet-tiny",
    "trainer.batch_size": 8,
    "trainer.log_every": 1,
    "trainer.precision": "32",
    "trainer.progress": "false",
    "trainer.epochs": 1000000,
    "trainer.checkpoint_every": 1000000,
}
WAYS = ("none", "tensorboard", "wandb-refused", "wandb-silent")


def run(rounds: int = 5, *, small: bool = False) -> dict[str, Any]:
    """Steps per second without a logger over those with each."""
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    shares: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder, servers() as urls:
        place = Path(folder) / "run"
        with training(_pairs(Path(folder) / "pairs", 32), place):
            for number in range(rounds):
                # each round begins with another way
                for way in WAYS[number % len(WAYS) :] + WAYS[: number % len(WAYS)]:
                    rate, share = _turn(way, place, urls, 1.0 if small else SECONDS)
                    rates[way].append(rate)
                    shares[way].append(share)
    results = {
        way: {
            "steps_per_s": spread(rates[way]),
            "slower": ratio(rates["none"], rates[way]),
            "share_of_a_core": spread(shares[way]),
            "goal": GOAL,
        }
        for way in WAYS
    }
    return {"benchmark": "loggers", "machine": machine(), "rounds": rounds, "results": results}


def table(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines for the terminal."""
    lines = []
    for way, result in report["results"].items():
        rate, slower = result["steps_per_s"], result["slower"]
        share = 100 * result["share_of_a_core"]["median"]
        lines.append(
            (
                f"{way}: {rate['median']:.1f} ({rate['min']:.1f} to {rate['max']:.1f}) steps/s",
                f"{slower['median']:.3f} ({slower['min']:.3f} to {slower['max']:.3f}) x the time, "
                f"goal {result['goal']:g}; {share:.1f} % of a core",
            )
        )
    return lines


@contextlib.contextmanager
def servers() -> Iterator[dict[str, str]]:
    """Addresses of a port where nobody listens, and of one that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        with socket.create_server(("127.0.0.1", 0)) as free:
            nobody = free.getsockname()[1]
        yield {
            "wandb-refused": f"http://127.0.0.1:{nobody}",
            "wandb-silent": f"http://127.0.0.1:{silent.getsockname()[1]}",
        }


def _pairs(root: Path, count: int) -> Path:
    """Clouds and pictures of noise: reading them costs what it costs."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from conftest import write_pair_tree

    return Path(write_pair_tree(root, models=count, points=1024, size=64))


@contextlib.contextmanager
def training(tree: Path, place: Path) -> Iterator[None]:
    """A run that goes on until the block ends."""
    settings: dict[str, Any] = {**SETTINGS, "run": place, "data.source": tree}
    words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "pixcloud.cli", "pretrain", *words]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while _steps(place) < 20:  # past what only the first steps do
            if process.poll() is not None:
                raise RuntimeError(f"training ended with code {process.returncode}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def _steps(place: Path) -> int:
    """Steps that the run has logged."""
    with contextlib.suppress(FileNotFoundError):
        return (place / "metrics.jsonl").read_bytes().count(b'"kind": "step"')
    return 0


def _turn(way: str, place: Path, urls: dict[str, str], seconds: float) -> tuple[float, float]:
    """Steps per second in one turn, and the share of a core that the logger took."""
    from pixcloud.config_files import load_config
    from pixcloud.loggers.follow import end_process
    from pixcloud.loggers.followers import start_follower
    from pixcloud.loggers.target import target_of

    config = load_config(place / "config.yaml")
    config.wandb.url = urls.get(way, "")
    steps, start = _steps(place), time.perf_counter()
    if way == "none":
        time.sleep(seconds)
    else:
        follower = start_follower(target_of(config, way.split("-")[0], place))
        time.sleep(seconds)
    rate = (_steps(place) - steps) / (time.perf_counter() - start)
    if way != "none":
        used = _processor_seconds(follower.pid)
        end_process(follower.pid)
        follower.wait()
        return rate, used / seconds
    return rate, 0.0


def _processor_seconds(pid: int) -> float:
    """What a process and those that it started have used."""
    import psutil

    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(sum(member.cpu_times()[:4]) for member in family)  # its own, and of ended children

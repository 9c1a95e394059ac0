"""Pre-training on one process and on two, with one thread each, and what exchange costs them.

The recipe "demo" at its own batch of 64 pairs, which two processes share. In turns: one process;
two; and two whose losses compare with the pairs of their own process only, so that nothing is
exchanged for the loss. The exchange is measured by itself as well: its time per step between two
processes that do nothing else.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import machine
from benchmarks.timing import ratio, spread
from pixcloud.launch import processes

# Processes, and settings over the recipe's.
WAYS: dict[str, tuple[int, list[str]]] = {
    "1 process": (1, []),
    "2 processes": (2, []),
    "2 processes, local negatives": (2, ["--objective.negatives", "local"]),
}
PAIRS, PROJECTION = 32, 128  # of one process, and P
REPEATS = 200


def run(rounds: int = 3, *, small: bool = False) -> dict[str, Any]:
    """Pairs per second of each way, and seconds per step of the exchange."""
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for way, (count, flags) in WAYS.items():
                place = Path(folder) / f"{way}-{number}"
                rates[way].append(_rate(place, count, flags, small))
        exchange = _exchange(Path(folder), 5 if small else REPEATS)
    one, two = rates["1 process"], rates["2 processes"]
    seconds = [64 / rate for rate in two]
    return {
        "benchmark": "processes",
        "machine": machine(),
        "results": {
            "rates": {way: spread(values) for way, values in rates.items()},
            "two_over_one": ratio(two, one),
            "local_over_global": ratio(rates["2 processes, local negatives"], two),
            "exchange_seconds": exchange,
            "exchange_share": spread([exchange["median"] / s for s in seconds]),
        },
    }


def table(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows of (what, value)."""
    found = report["results"]
    rows = [(way, f"{_range(values)} pairs/s") for way, values in found["rates"].items()]
    rows.append(("2 processes over 1", f"{_range(found['two_over_one'])} times"))
    rows.append(("local over global negatives", f"{_range(found['local_over_global'])} times"))
    milliseconds = {k: 1000 * v for k, v in found["exchange_seconds"].items()}
    rows.append(("exchange for the loss, per step", f"{_range(milliseconds)} ms"))
    shares = {k: 100 * v for k, v in found["exchange_share"].items()}
    rows.append(("share of a step of 2 processes", f"{_range(shares)} %"))
    return rows


def _range(values: dict[str, float]) -> str:
    return f"{values['median']:.2f} ({values['min']:.2f} to {values['max']:.2f})"


def _rate(place: Path, count: int, flags: list[str], small: bool) -> float:
    """Pairs per second, the median of the logged ones after the first."""
    command = [sys.executable, "-m", "pixcloud.cli", "pretrain", "--recipe", "demo"]
    command += ["--run", str(place), "--trainer.devices", str(count), "--trainer.threads", "1"]
    command += ["--trainer.epochs", "1", "--trainer.log_every", "2", *flags]
    if small:
        command += ["--data.num_points", "32", "--data.picture_size", "16"]
    subprocess.run(command, check=True, capture_output=True)
    lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    rates = [line["pairs_per_s"] for line in lines if line["kind"] == "step"]
    return statistics.median(rates[1:])


def _exchange(folder: Path, repeats: int) -> dict[str, float]:
    """Seconds of gathering projections and bringing their gradients back, between two processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for rank in range(2):
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
        environment = {**os.environ, **{key: str(value) for key, value in numbers.items()}}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = [sys.executable, "-m", "benchmarks.processes", str(folder / "seconds.json")]
        started.append(subprocess.Popen([*command, str(repeats)], env=environment))
    if any(process.wait() for process in started):
        raise RuntimeError("a process of the exchange failed; it has said why")
    return spread(json.loads((folder / "seconds.json").read_text()))


def measure(out: Path, repeats: int) -> None:
    """One of the two processes."""
    torch.set_num_threads(1)
    with processes("cpu") as world:
        z = torch.randn(PAIRS, 3, PROJECTION, requires_grad=True)
        seconds = []
        for number in range(repeats + 3):
            start = time.perf_counter()
            world.gather_with_gradient(z).sum().backward()
            if number >= 3:
                seconds.append(time.perf_counter() - start)
        if world.first:
            out.write_text(json.dumps(seconds), encoding="utf-8")


if __name__ == "__main__":
    measure(Path(sys.argv[1]), int(sys.argv[2]))

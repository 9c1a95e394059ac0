"""Loggers whose server hangs, refuses or dies: the same weights, at the rate of none.

Runs without a logger stand before, between and after those with one: each rate is compared with the
mean of its two neighbours, so that a machine that slowly changes its speed does so for both.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.faults.children import Children
from benchmarks.faults.fault import Fault, Setting
from benchmarks.faults.hostile_servers import HostileServer, closed_port
from benchmarks.faults.launched_run import last_step
from benchmarks.faults.tiny_run import STEPS_PER_EPOCH, differences, train, words, write_pairs

KINDS = ("silent", "refusing", "dying")
EPOCHS = 30
OPTIONS = {"trainer__epochs": EPOCHS, "trainer__log_every": 10}
# Of the rate without a logger.
LEAST = 0.95
# A run that waits for a server must come to an end by itself.
LIMIT = 600.0


def impossible() -> str:
    """Why this part cannot run here; empty if it can."""
    with tempfile.TemporaryDirectory() as place, Children(Path(place)) as children:
        words = ["-m", "pixcloud.cli", "pretrain", "--help"]
        _, said = children.finish(words, Path(place) / "help.log")
    if not re.search(r"--log\s", said):
        return "pixcloud pretrain has no --log: not available in this version"
    if importlib.util.find_spec("wandb") is None:
        return "wandb is not installed"
    return ""


def faults(count: int, setting: Setting) -> Iterator[Fault]:
    """`count` runs with a hostile server, of each kind in turn, and the comparison of rates."""
    pairs = write_pairs(setting.work / "pairs")
    log = setting.work / "output.log"
    ratios: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with Children(setting.work / "cache") as children:
        children.environment.update(
            WANDB_API_KEY="0" * 40,
            WANDB_CONFIG_DIR=str(setting.work / "wandb"),
            WANDB_CACHE_DIR=str(setting.work / "wandb"),
        )
        without: list[float] = []

        def run_without(number: int) -> tuple[Path, float]:
            start = time.monotonic()
            run = train(children, words(pairs, setting.work / f"none-{number}", **OPTIONS), log)
            without.append(rate_of(run))
            return run, time.monotonic() - start

        undisturbed, seconds = run_without(0)
        for number in range(count):
            kind = KINDS[number % len(KINDS)]
            run = setting.work / f"{kind}-{number}"
            fault = run_against(kind, children, words(pairs, run, **OPTIONS), log, seconds)
            if not fault.violated:
                fault.violated = differences(run, undisturbed)
                fault.what += f", {rate_of(run):.0f} pairs/s"
            yield fault
            run_without(number + 1)
            if not fault.violated:
                ratios[kind].append(rate_of(run) / statistics.mean(without[-2:]))
    for kind in KINDS[:count]:
        yield compared(kind, ratios[kind], without)


def rate_of(run: Path) -> float:
    """Median of the logged pairs per second, less the first epoch's, in which all is cold."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(text) for text in lines]
    return statistics.median(
        record["pairs_per_s"]
        for record in records
        if record["kind"] == "step" and record["step"] > STEPS_PER_EPOCH
    )


def run_against(
    kind: str, children: Children, arguments: list[str], log: Path, seconds: float
) -> Fault:
    """One run that logs to a server of this kind; `seconds` is what one without a logger takes."""
    run = Path(arguments[arguments.index("--run") + 1])
    values: dict[str, Any] = {"kind": kind}
    with HostileServer(answers=kind == "dying") as server:
        port = server.port if kind != "refusing" else closed_port()
        address = ["--log", "wandb", "--wandb.url", f"http://127.0.0.1:{port}"]
        start = time.monotonic()
        child = children.start(["-m", *arguments, *address], log)
        if kind == "dying":
            middle = EPOCHS * STEPS_PER_EPOCH // 2
            while child.poll() is None and last_step(run / "metrics.jsonl") < middle:
                time.sleep(0.02)
            server.die()
        try:
            code = child.wait(LIMIT)
        except subprocess.TimeoutExpired:
            child.kill()
            code = child.wait()
        values["seconds_more_than_none"] = round(time.monotonic() - start - seconds, 1)
        connections = server.accepted
    what = f"{kind} server, {connections} connections, {server.answered} answers"
    violated = [] if code == 0 else [f"exit code {code}: {tail(log)}"]
    if kind != "refusing" and connections == 0:
        violated.append("did not fire: the run never asked the server")
    return Fault(what=what, violated=violated, values=values)


def tail(path: Path) -> str:
    """The last that was said."""
    return path.read_text(encoding="utf-8", errors="replace")[-300:]


def compared(kind: str, ratios: list[float], without: list[float]) -> Fault:
    """The rates of one kind over those of no logger; what the latter differ by says how sure."""
    if not ratios:
        return Fault(what=f"{kind}: rate", violated=["no run of it ended well"], counted=False)
    ratio = statistics.median(ratios)
    own = [after / before for before, after in itertools.pairwise(without)]
    noise = max(max(own), 1 / min(own)) - 1
    violated = []
    if ratio < LEAST:
        violated.append(f"less than {LEAST}")
        if noise > 1 - LEAST:
            violated.append("and this machine is too busy to tell: repeat it on a quiet one")
    return Fault(
        what=f"{kind}: {ratio:.3f} of the rate without a logger ({min(ratios):.3f} to "
        f"{max(ratios):.3f}; runs without one differ by up to {100 * noise:.0f} %)",
        violated=violated,
        counted=False,
        values={f"{kind}_rate_ratio": round(ratio, 4)},
    )

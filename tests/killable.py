"""A training run that kills itself with SIGKILL at a chosen moment, in a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from pixcloud.config import PretrainConfig

# The server imports the heavy libraries once; each run is then a fork of it.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["pixcloud.trainer", "kornia.enhance", "torch._dynamo"])

# What may differ between two equal runs.
VOLATILE = ("pairs_per_s", "memory_mib", "seconds")


def run(config: PretrainConfig, moment: dict[str, Any] | None = None) -> int | None:
    """Run to the end, or to the moment; returns the exit code, -9 after SIGKILL."""
    process = _CONTEXT.Process(target=_main, args=(config, moment))
    process.start()
    process.join(timeout=120)
    return process.exitcode


def _main(config: PretrainConfig, moment: dict[str, Any] | None) -> None:
    from pixcloud.trainer import pretrain

    if moment is not None:
        _arm(moment)
    pretrain(config)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _arm(moment: dict[str, Any]) -> None:
    """{"step": n, "delay": s}: s seconds after step n ended; {"save": k, "call": c}: in the k-th
    save, at its c-th file system call (0 and 1 are the tensor files, 2 before and 3 after the
    rename that makes it count)."""
    from pixcloud import checkpoint, trainer

    if "step" in moment:
        original = trainer.Trainer.train_step

        def train_step(self: Any, batches: Any) -> float:
            lr = original(self, batches)
            if self.progress.step == moment["step"]:
                if moment["delay"] <= 0:
                    _die()
                threading.Thread(target=lambda: (time.sleep(moment["delay"]), _die())).start()
            return lr

        trainer.Trainer.train_step = train_step  # type: ignore[method-assign]
        return

    state = {"save": 0, "call": 0}
    original_save, original_parts = checkpoint.save_file, checkpoint._write_parts
    original_replace = os.replace

    def save_file(*arguments: Any) -> None:
        original_save(*arguments)
        if state["save"] == moment["save"] and state["call"] == moment["call"]:
            _die()
        state["call"] += 1

    def write_parts(*arguments: Any) -> None:
        state["save"] += 1
        state["call"] = 0
        original_parts(*arguments)
        if state["save"] == moment["save"] and moment["call"] == 2:
            _die()

    def replace(source: Any, target: Any) -> None:
        original_replace(source, target)
        is_checkpoint = Path(target).name.startswith(checkpoint.PREFIX)
        if is_checkpoint and state["save"] == moment["save"] and moment["call"] == 3:
            _die()

    checkpoint.save_file = save_file
    checkpoint._write_parts = write_parts
    os.replace = replace  # type: ignore[assignment]


def fingerprint(folder: Path) -> dict[str, Any]:
    """Everything of a finished run that must be the same bits: weights, optimiser, metrics."""
    last = sorted((folder / "checkpoints").iterdir())[-1]
    metrics = []
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        metrics.append({k: v for k, v in record.items() if k not in VOLATILE})
    return {
        "checkpoint": last.name,
        "model": (last / "model.safetensors").read_bytes(),
        "optimizer": (last / "optimizer.safetensors").read_bytes(),
        "encoder": (folder / "encoder" / "encoder.safetensors").read_bytes(),
        "metrics": metrics,
    }

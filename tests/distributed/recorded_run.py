"""Runs for comparison: pre-training through the package's own trainer, every step on record.

`python recorded_run.py JOBS.json`, in one process or several. A job has the settings of a run, its
precision (64 trains in double precision) and where the first process writes what it saw: losses,
gradients, buffers and weights of every step.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from pixcloud import building, step, trainer
from pixcloud.config import pretrain_config
from pixcloud.types import PairBatch


def record(job: dict[str, Any]) -> None:
    building.PRECISIONS["32"] = "64-true" if job["precision"] == 64 else "32-true"
    torch.set_default_dtype(torch.float64 if job["precision"] == 64 else torch.float32)
    seen: list[dict[str, Any]] = []

    class Recorded(step.Step):
        def __call__(self, batches: list[PairBatch], lr: float) -> tuple[torch.Tensor, bool]:
            parts, finite = super().__call__(batches, lr)
            losses = self.world.sum(parts)
            grads = {n: p.grad.clone() for n, p in self.objective.named_parameters()}
            states = {n: v.clone() for n, v in self.objective.state_dict().items()}
            seen.append({"losses": losses, "grads": grads, "states": states})
            return parts, finite

    trainer.Step = Recorded  # type: ignore[misc]
    try:
        trainer.pretrain(pretrain_config(**job["settings"]))
    finally:
        trainer.Step = step.Step  # type: ignore[misc]
    if int(__import__("os").environ.get("RANK", "0")) == 0:
        torch.save(seen, job["out"])


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as stream:
        for each in json.load(stream):
            record(each)

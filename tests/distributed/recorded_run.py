"""Runs for comparison: pre-training through the package's own trainer, every step on record.

`python recorded_run.py JOBS.json`, in one process or several. A job has the settings of a run,
where the first process writes what it saw (losses, gradients, buffers and weights of every step),
and:

precision: 64 trains in double precision.
fixed: neighbours follow from the places of points in the cloud, not from their coordinates.
synchronized: false leaves batch statistics to each process.
frozen: BN uses its running statistics, which do not depend on the batch.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch._dynamo  # as torch.optim does: before processes part

from pixcloud import step, trainer
from pixcloud.config import pretrain_config
from pixcloud.encoders import edgeconv
from pixcloud.objective import CrossModalObjective
from pixcloud.types import PairBatch


class Recorded(step.Step):
    seen: list[dict[str, Any]]

    def __call__(self, batches: list[PairBatch], lr: float) -> tuple[torch.Tensor, bool]:
        parts, finite = super().__call__(batches, lr)
        weights = dict(self.objective.named_parameters())
        # An averaged encoder's have no gradient.
        grads = {n: p.grad.clone() for n, p in weights.items() if p.requires_grad}
        states = {n: v.clone() for n, v in self.objective.state_dict().items()}
        self.seen.append({"losses": self.world.sum(parts), "grads": grads, "states": states})
        return parts, finite

    def _views(self, batch: PairBatch) -> step.Views:
        view1, view2, pictures = (x.to(torch.get_default_dtype()) for x in super()._views(batch))
        return view1, view2, pictures


def by_place(x: torch.Tensor, k: int) -> torch.Tensor:
    batch, points, _ = x.shape
    return ((torch.arange(points)[:, None] + torch.arange(k)) % points).repeat(batch, 1, 1)


def train_frozen(self: CrossModalObjective, mode: bool = True) -> CrossModalObjective:
    torch.nn.Module.train(self, mode)
    for module in self.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    return self


@contextlib.contextmanager
def arranged(job: dict[str, Any]) -> Iterator[None]:
    wide = job.get("precision") == 64
    torch.set_default_dtype(torch.float64 if wide else torch.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "Step", Recorded)
        if job.get("fixed"):
            patch.setattr(edgeconv, "knn", by_place)
        if not job.get("synchronized", True):
            patch.setattr(trainer, "synchronize", lambda objective, world: None)
        if job.get("frozen"):
            patch.setattr(CrossModalObjective, "train", train_frozen)
        yield


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as stream:
        jobs = json.load(stream)
    for job in jobs:
        Recorded.seen = []
        with arranged(job):
            trainer.pretrain(pretrain_config(**job["settings"]))
        if os.environ.get("RANK", "0") == "0":
            torch.save(Recorded.seen, job["out"])


if __name__ == "__main__":
    main()

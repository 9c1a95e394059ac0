"""A process that saves checkpoints again and again until it is killed; their content is known.

Imported by a server process once; each saving process is a fork of it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, MutableSequence
from pathlib import Path
from typing import Any

import torch

from pixcloud.checkpoint import Checkpoint, last_good, save_checkpoint
from pixcloud.config import pretrain_config
from pixcloud.optimizer import build_optimizer
from pixcloud.trainer import build_objective

KEEP = 2
# Places in the memory that is shared with the parent: numbers of saves, and nanoseconds.
BEGUN, DONE, BEGUN_AT, LASTED = range(4)


def template() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """State dicts of a real objective and its optimiser, a few MB, with random values in [0, 1)."""
    config = pretrain_config(
        encoder={"name": "pointnet", "settings": {"embed_dim": 256, "widths": [32, 32]}},
        image={"name": "resnet-tiny"},
        objective={"point_hidden": 512, "image_hidden": 512, "projection_dim": 128},
    )
    objective = build_objective(config)
    optimizer = build_optimizer(config.optim, objective)
    for parameter in objective.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    model, state = objective.state_dict(), optimizer.state_dict()
    generator = torch.Generator().manual_seed(5)
    for tensor in _tensors(model, state):
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype))
    return model, state


def _tensors(model: dict[str, torch.Tensor], optimizer: dict[str, Any]) -> Iterator[torch.Tensor]:
    yield from model.values()
    for values in optimizer["state"].values():
        yield from (value for value in values.values() if isinstance(value, torch.Tensor))


def content(model: dict[str, torch.Tensor], optimizer: dict[str, Any], step: int) -> Checkpoint:
    """The checkpoint of a step: every number in it is another one than at any other step."""
    state = {
        key: {
            name: value + step if isinstance(value, torch.Tensor) else value
            for name, value in values.items()
        }
        for key, values in optimizer["state"].items()
    }
    return Checkpoint(
        model={name: value.detach() + step for name, value in model.items()},
        optimizer={"state": state, "param_groups": optimizer["param_groups"]},
        state={"step": step, "interval": [step + 0.1] * 4, "pairs": f"{step:x}" * 8},
        generators={"cpu": torch.full((64,), step % 256, dtype=torch.uint8)},
    )


def same(ours: Checkpoint, theirs: Checkpoint) -> bool:
    """Whether two checkpoints are equal to the last bit."""
    if ours.state != theirs.state or ours.generators.keys() != theirs.generators.keys():
        return False
    if ours.model.keys() != theirs.model.keys():
        return False
    if ours.optimizer["param_groups"] != theirs.optimizer["param_groups"]:
        return False
    pairs = [(ours.model[name], theirs.model[name]) for name in ours.model]
    pairs += [(ours.generators[name], theirs.generators[name]) for name in ours.generators]
    mine, others = ours.optimizer["state"], theirs.optimizer["state"]
    if mine.keys() != others.keys():
        return False
    for key, values in mine.items():
        if values.keys() != others[key].keys():
            return False
        pairs += [(torch.as_tensor(values[n]), torch.as_tensor(others[key][n])) for n in values]
    return all(torch.equal(a, b) for a, b in pairs)


def save_forever(folder: Path, shared: MutableSequence[int], last: int) -> None:
    """Go on from the newest checkpoint in `folder`, as a run does; until killed, or step `last`."""
    model, optimizer = template()
    found = last_good(folder)
    first = found.state["step"] + 1 if found else 1
    for step in itertools.count(first):
        checkpoint = content(model, optimizer, step)
        shared[BEGUN_AT] = time.monotonic_ns()
        shared[BEGUN] = step
        save_checkpoint(folder, checkpoint, KEEP)
        shared[DONE] = step
        shared[LASTED] = time.monotonic_ns() - shared[BEGUN_AT]
        if step == last:
            break

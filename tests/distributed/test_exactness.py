"""Several processes train as one does: losses, gradients, statistics and weights, step by step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import write_pair_tree
from distributed.several import run_several

WORKER = str(Path(__file__).with_name("recorded_run.py"))
SETTINGS: dict[str, Any] = {
    "data": {"num_points": 48, "picture_size": 32, "workers": 0},
    "image": {"name": "resnet-tiny"},
    "objective": {"point_hidden": 24, "image_hidden": 16, "projection_dim": 12},
    "optim": {"lr": 1e-3},
    "trainer": {
        **{"batch_size": 8, "epochs": 2, "log_every": 1, "precision": "32", "threads": 1},
        **{"progress": False, "device": "cpu"},
    },
}
ENCODERS = {
    "pointnet": {"embed_dim": 32, "widths": [16, 16], "transforms": True},
    "dgcnn": {"k": 6, "embed_dim": 32, "widths": [16, 16, 16, 32]},
    "dgcnn_seg": {"k": 6, "embed_dim": 32, "widths": [16, 16, 16, 16, 16]},
}
# name: encoder, precision, settings over those above, and which run to compare with
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    **{f"{name}-64": (name, 64, {}) for name in ENCODERS},
    "dgcnn-32": ("dgcnn", 32, {}),
    "micro-64": ("dgcnn", 64, {"trainer": {"micro_batch": 4}}),
    "accumulate-64": ("pointnet", 64, {"trainer": {"batch_size": 4, "accumulate": 2}}),
    "local-64": ("dgcnn", 64, {"objective": {"negatives": "local"}}),
}


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    return {k: {**base.get(k, {}), **over.get(k, {})} for k in {**base, **over}}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], list[Any]]:
    """(case, processes) -> what was seen at each of five steps or more."""
    folder = tmp_path_factory.mktemp("runs")
    tree = write_pair_tree(folder / "tree", models=24, points=48, size=32)
    found = {}
    for count in (1, 2, 4):
        jobs = []
        for name, (encoder, precision, over) in CASES.items():
            settings = merged(SETTINGS, over)
            settings["data"]["source"] = f"pairs:{tree}"
            settings["encoder"] = {"name": encoder, "settings": ENCODERS[encoder]}
            settings["run"] = str(folder / f"{name}-{count}")
            out = folder / f"{name}-{count}.pt"
            jobs.append({"settings": settings, "precision": precision, "out": str(out)})
        given = folder / f"jobs-{count}.json"
        given.write_text(json.dumps(jobs))
        run_several(count, [WORKER, str(given)])
        for name in CASES:
            found[name, count] = torch.load(folder / f"{name}-{count}.pt", weights_only=True)
    return found


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """Distance relative to the norm; integers must be equal."""
    if not a.is_floating_point():
        return 0.0 if torch.equal(a, b) else float("inf")
    return float((a - b).norm() / a.norm().clamp_min(1e-300))


def without_gradient(name: str) -> bool:
    """Biases in front of BN: their gradient is zero, and what is left is rounding."""
    return name in ("point_head.0.bias", "image_head.0.bias")


def worst(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> tuple[float, str]:
    assert one.keys() == other.keys()
    return max((apart(one[n], other[n]), n) for n in one if not without_gradient(n))


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("case", [name for name in CASES if name[-2:] == "64" and name != "local-64"])
def test_double_precision(records: Any, case: str, count: int) -> None:
    one, several = records[case, 1], records[case, count]
    assert len(one) == len(several) >= 5
    for step, (a, b) in enumerate(zip(one[:5], several[:5], strict=True)):
        assert apart(a["losses"], b["losses"]) < 1e-10, step
        assert worst(a["grads"], b["grads"]) < (1e-10, ""), step
        assert worst(a["states"], b["states"]) < (1e-10, ""), step

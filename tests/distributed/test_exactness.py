"""Several processes train as one does: losses, gradients, statistics and weights, step by step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import write_pair_tree
from distributed.several import finish, start_several

WORKER = str(Path(__file__).with_name("recorded_run.py"))
SETTINGS: dict[str, Any] = {
    "data": {"num_points": 48, "picture_size": 32, "workers": 0},
    "image": {"name": "resnet-tiny"},
    "objective": {"point_hidden": 24, "image_hidden": 16, "projection_dim": 12},
    # Not Adam: where a gradient is zero, as for a bias that the BN behind takes off again, it
    # divides what rounding left by its eps of 1e-8.
    "optim": {"name": "sgd", "lr": 1e-3},
    "trainer": {
        # Over fewer pairs BN amplifies rounding: from batches of 8 on, tenfold at every other step.
        "batch_size": 24,
        "epochs": 1,
        "log_every": 2,
        "precision": "32",
        "threads": 1,
        "progress": False,
        "device": "cpu",
        "heartbeat": 0.0,
    },
}
ADAM = {"optim": {"name": "adam", "lr": 1e-3}}
# In fp32 rounding grows with the sharpness of the loss: at a temperature of 0.1 it is 2e-5 in the
# picture tower's BN layers.
SINGLE = {"objective": {"temperature": 0.5}}
MICRO = {"trainer": {"micro_batch": 12}}
# Everything that may stand beside the published objective.
STRONGER = {
    "objective": {
        "cross_temperature": 0.2,
        "learn_temperature": True,
        "intra_contrast": "between",
        "cross_views": "each",
        "hardness": 0.5,
        "ema": 0.9,
        "teacher": True,
        "queue": 30,
        "relation_weight": 0.5,
    },
    "views": {"pictures": 2, "crop": 0.5, "hole": 0.3, "stretch": 1.2, "dropout_fill": "others"},
}
ENCODERS = {
    "pointnet": {"embed_dim": 32, "widths": [16, 16], "transforms": True},
    "dgcnn": {"k": 6, "embed_dim": 32, "widths": [16, 16, 16, 32]},
    "dgcnn_seg": {"k": 6, "embed_dim": 32, "widths": [16, 16, 16, 16, 16]},
    "patch_transformer": {
        "width": 12,
        "depth": 1,
        "heads": 3,
        "groups": 8,
        "group_size": 6,
        "patch_widths": [8, 12, 16],
    },
    "pct": {"k": 6, "embed_dim": 32, "channels": 8, "centres": [24, 12]},
}
# name: numbers of processes, encoder, settings over those above, how it is arranged
CASES: dict[str, tuple[tuple[int, ...], str, dict[str, Any], dict[str, Any]]] = {
    "pointnet": ((1, 2, 4), "pointnet", {}, {"precision": 64}),
    "dgcnn": ((1, 2, 4), "dgcnn", ADAM, {"precision": 64}),
    "dgcnn_seg": ((1, 2), "dgcnn_seg", {}, {"precision": 64}),
    "pct": ((1, 2), "pct", {}, {"precision": 64}),
    "patches": ((1, 2), "patch_transformer", {}, {"precision": 64}),
    "accumulate": (
        *((1, 2), "pointnet", {"trainer": {"batch_size": 12, "accumulate": 2}}, {"precision": 64}),
    ),
    "single": ((1, 2, 4), "dgcnn", SINGLE, {"precision": 32, "fixed": True}),
    "micro": ((1, 2), "dgcnn", MICRO, {"precision": 64}),
    "stronger": ((1, 2), "dgcnn", STRONGER, {"precision": 64}),
    "stronger micro": ((1, 2), "dgcnn", {**STRONGER, **MICRO}, {"precision": 64}),
    "apart": ((2,), "dgcnn", {}, {"precision": 64, "synchronized": False}),
    "frozen": ((1,), "dgcnn", {}, {"precision": 64, "frozen": True}),
    "frozen micro": ((1, 2), "dgcnn", MICRO, {"precision": 64, "frozen": True}),
    "local": ((2,), "dgcnn", {"objective": {"negatives": "local"}}, {"precision": 64}),
}
# The clouds' head, and PCT's offset-attention: its columns sum up to 1, so that the bias of the
# values reaches the BN as a constant, too. So does what the patch transformer ends with.
BEFORE_BN = (
    *("point_head.0.bias", "averaged.head.0.bias", ".out.bias", ".value.bias"),
    "point_encoder.norm.bias",
)
Records = dict[tuple[str, int], list[dict[str, Any]]]


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    return {k: {**base.get(k, {}), **over.get(k, {})} for k in {**base, **over}}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    """(case, processes) -> what was seen at each step."""
    folder = tmp_path_factory.mktemp("runs")
    tree = write_pair_tree(folder / "tree", models=120, points=48, size=32)
    started, outs = [], {}
    for count in (1, 2, 4):
        jobs = []
        for name, (counts, encoder, over, arranged) in CASES.items():
            if count in counts:
                settings = merged(SETTINGS, over)
                settings["data"]["source"] = f"pairs:{tree}"
                settings["encoder"] = {"name": encoder, "settings": ENCODERS[encoder]}
                settings["run"] = str(folder / f"{name}-{count}")
                outs[name, count] = folder / f"{name}-{count}.pt"
                jobs.append({"settings": settings, "out": str(outs[name, count]), **arranged})
        given = folder / f"jobs-{count}.json"
        given.write_text(json.dumps(jobs))
        started.append(start_several(count, [WORKER, str(given)]))
        if count == 2:  # one of them and two share the time they wait, four have it for themselves
            for process in started:
                finish(process)
    finish(started[-1])
    found = {key: torch.load(out, weights_only=True) for key, out in outs.items()}
    assert all(len(steps) == 5 for steps in found.values())
    return found


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """Distance relative to the norm; integers must be equal."""
    if not a.is_floating_point():
        return 0.0 if torch.equal(a, b) else float("inf")
    return float((a - b).norm() / a.norm().clamp_min(1e-300))


def worst(
    one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], leave: tuple[str, ...] = ()
) -> tuple[float, str]:
    """The largest distance of all tensors, and whose it is.

    Biases in front of a BN are left out: their gradient is zero, and what there is of it is
    rounding. So are names that end with one of `leave`.
    """
    assert one.keys() == other.keys()
    names = [name for name in one if not name.endswith((*BEFORE_BN, *leave))]
    return max((apart(one[n], other[n]), n) for n in names)


@pytest.mark.parametrize(
    ("case", "count"),
    [
        *(("pointnet", 2), ("pointnet", 4), ("dgcnn", 2), ("dgcnn", 4), ("dgcnn_seg", 2)),
        *(("pct", 2), ("patches", 2), ("accumulate", 2), ("micro", 2), ("frozen micro", 2)),
        *(("stronger", 2), ("stronger micro", 2)),
    ],
)
def test_double_precision(records: Records, case: str, count: int) -> None:
    for step, (one, several) in enumerate(zip(records[case, 1], records[case, count], strict=True)):
        assert apart(one["losses"], several["losses"]) < 1e-10, step
        assert worst(one["grads"], several["grads"]) < (1e-10, ""), step
        assert worst(one["states"], several["states"]) < (1e-10, ""), step


@pytest.mark.parametrize("count", [2, 4])
def test_single_precision_with_fixed_neighbours(records: Records, count: int) -> None:
    """One forward and backward.

    The BN layers of the picture tower amplify rounding about a hundredfold: over initial weights
    their gradients are 0.7e-5 to 2e-5 apart, so that 1e-5 is not theirs to keep.
    """
    one, several = records["single", 1][0], records["single", count][0]
    assert apart(one["losses"], several["losses"]) < 1e-5
    tower = ("normalization.weight", "normalization.bias")
    assert worst(one["grads"], several["grads"], leave=tower) < (1e-5, "")
    assert worst(one["grads"], several["grads"]) < (4e-5, "")


def test_micro_batches_are_processes_without_synchronised_statistics(records: Records) -> None:
    for micro, processes in zip(records["micro", 1], records["apart", 2], strict=True):
        assert apart(micro["losses"], processes["losses"]) < 1e-10
        assert worst(micro["grads"], processes["grads"]) < (1e-10, "")
        # Running statistics have seen half of the batches there, and move twice here.
        running = ("running_mean", "running_var", "num_batches_tracked")
        assert worst(micro["states"], processes["states"], running) < (1e-10, "")


def test_micro_batches_without_batch_statistics_are_the_whole_batch(records: Records) -> None:
    for whole, micro in zip(records["frozen", 1], records["frozen micro", 1], strict=True):
        assert apart(whole["losses"], micro["losses"]) < 1e-10
        assert worst(whole["grads"], micro["grads"]) < (1e-10, "")
        assert worst(whole["states"], micro["states"]) < (1e-10, "")


def test_temperatures_and_the_teacher_move(records: Records) -> None:
    """The control of the case "stronger": what it adds is there, and changes."""
    first, last = (records["stronger micro", 1][n]["states"] for n in (0, -1))
    names = ("log_temperature", next(n for n in first if n.startswith("averaged.encoder")))
    for name in names:
        assert apart(first[name], last[name]) > 1e-6, name


def test_local_negatives_are_told_apart(records: Records) -> None:
    """The control: the same comparison fails where negatives are not gathered."""
    one, local = records["dgcnn", 1][0], records["local", 2][0]
    loss, (gradient, name) = (
        apart(one["losses"], local["losses"]),
        worst(one["grads"], local["grads"]),
    )
    print(f"local negatives: loss off by {loss:.2g}, gradient of {name} by {gradient:.2g}")
    assert loss > 1e-2
    assert gradient > 1e-2

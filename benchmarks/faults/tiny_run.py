"""A tiny pre-training run: pairs, command, and whether two runs ended with the same bits."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.faults.children import Children
from pixcloud.data.ply import cloud_ply_bytes

PAIRS, BATCH = 80, 4
STEPS_PER_EPOCH = PAIRS // BATCH
# What may differ between two equal runs.
VOLATILE = ("pairs_per_s", "memory_mib", "seconds")
STARTED = re.compile(r"pre-training .*?, from (?:step (\d+)|scratch);")


class FaultRunError(Exception):
    """The fault run itself cannot go on, for example because an undisturbed run fails."""


def write_pairs(root: Path) -> Path:
    """The original CrossPoint tree with random clouds and pictures; written once."""
    rng = np.random.Generator(np.random.Philox(0))
    for number in range(PAIRS):
        synset, model = ("02691156", "03001627")[number % 2], f"model{number:03d}"
        cloud = (rng.normal(size=(48, 3)) * rng.uniform(0.2, 1, 3)).astype(np.float32)
        rendering = root / "ShapeNetRendering" / synset / model / "rendering"
        rendering.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (20, 20, 4), dtype=np.uint8)
        Image.fromarray(pixels).save(rendering / "00.png")
        path = root / "ShapeNet" / synset / f"{model}.ply"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cloud_ply_bytes(cloud))
    return root


def words(pairs: Path, run: Path, **options: Any) -> list[str]:
    """Arguments of `python -m` for the run; `options` are settings with "__" for dots."""
    settings: dict[str, Any] = {
        "run": run,
        "resume": "true",
        "seed": 3,
        "data.source": pairs,
        "data.num_points": 32,
        "data.picture_size": 24,
        "data.workers": 0,
        "encoder.name": "pointnet",
        "encoder.settings": json.dumps({"embed_dim": 32, "widths": [16, 16]}),
        "image.name": "resnet-tiny",
        "objective.point_hidden": 16,
        "objective.image_hidden": 16,
        "objective.projection_dim": 8,
        "trainer.batch_size": BATCH,
        "trainer.precision": "32",
        "trainer.device": "cpu",
        "trainer.threads": 1,
        **{key.replace("__", "."): value for key, value in options.items()},
    }
    flags = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    return ["pixcloud.cli", "pretrain", *flags]


def train(children: Children, arguments: list[str], log: Path) -> Path:
    """Run it to its end without a fault; returns the run folder.

    Raises:
        FaultRunError: if it does not end well.
    """
    code, said = children.finish(["-m", *arguments], log)
    if code != 0:
        raise FaultRunError(f"an undisturbed run ended with exit code {code}: {said[-800:]}")
    return Path(arguments[arguments.index("--run") + 1])


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a file of JSON lines, less what may differ."""
    records = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in record.items() if k not in VOLATILE} for record in records]


def checkpoints(run: Path) -> list[Path]:
    """Folders named like finished checkpoints, oldest first."""
    folder = run / "checkpoints"
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


def starts(run: Path) -> list[int]:
    """The step that each start of the run went on from, as its log says."""
    path = run / "train.log"
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return [int(found[1] or 0) for found in STARTED.finditer(text)]


def differences(run: Path, undisturbed: Path) -> list[str]:
    """What of a finished run is not as in the undisturbed one, in words; nothing if all is."""
    found = []
    ours, theirs = checkpoints(run), checkpoints(undisturbed)
    if not ours or ours[-1].name != theirs[-1].name:
        last = ours[-1].name if ours else "none"
        return [f"the last checkpoint is {last}, not {theirs[-1].name}"]
    files = [f"checkpoints/{theirs[-1].name}/{part}.safetensors" for part in ("model", "optimizer")]
    files += [f"encoder/{path.name}" for path in sorted((undisturbed / "encoder").iterdir())]
    for name in files:
        if not (run / name).is_file():
            found.append(f"{name} is missing")
        elif (run / name).read_bytes() != (undisturbed / name).read_bytes():
            found.append(f"{name} differs from the undisturbed run's")
    if _state(ours[-1]) != _state(theirs[-1]):
        found.append("state.json differs from the undisturbed run's")
    lines = read_lines(run / "metrics.jsonl")
    twice = [key for key, n in Counter((r["kind"], r["step"]) for r in lines).items() if n > 1]
    if twice:
        found.append(f"metrics.jsonl: {len(twice)} steps more than once, such as {twice[0]}")
    if lines != read_lines(undisturbed / "metrics.jsonl"):
        found.append("metrics.jsonl: other lines than the undisturbed run's")
    if left := leftovers(run):
        found.append(f"leftovers: {', '.join(left)}")
    return found


def leftovers(run: Path) -> list[str]:
    """Names of what was begun to be written, anywhere in the run folder."""
    return sorted(
        p.name for p in run.rglob(".*") if p.name.startswith((".saving-", ".tmp-", ".enc"))
    )


def _state(checkpoint: Path) -> dict[str, Any]:
    content = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    content["state"].pop("seconds", None)
    return dict(content)

"""Reading and augmentation against the training step that waits for them, in pairs/s.

The question is which of them limits a run: reading happens in other processes while the step runs,
so it must be at least as fast as the step. The textbook way to read parses the cloud once per
view, lists the picture folder per sample, and composes each augmentation per sample.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.machine import machine
from benchmarks.timing import in_turns, ratio, spread
from pixcloud.building import build_objective
from pixcloud.config import PretrainConfig, pretrain_config
from pixcloud.data.files import write_cloud_ply
from pixcloud.data.loading import PairDataset, PairOrder, collate_pairs, pair_batches
from pixcloud.data.sources import open_pairs
from pixcloud.data.views import augment_clouds, augment_pictures
from pixcloud.optimizer import build_optimizer
from pixcloud.types import PairBatch

# Batches that are read before the first counted one: what was read ahead while nothing trained
# must be used up, and the reading process is four batches ahead.
AHEAD = 5
MOST_SECONDS = 120  # of counted batches, beyond twice those read ahead


def run(rounds: int = 5, *, small: bool = False) -> dict[str, Any]:
    """Measure on files as the published set has them: 2,048 points, 24 pictures of 137 x 137."""
    with tempfile.TemporaryDirectory() as folder:
        source = _write_pairs(Path(folder), models=4 if small else 128)
        results = {
            name: _measure(name, source, rounds, small)
            for name in (("demo",) if small else ("demo", "crosspoint"))
        }
    return {"benchmark": "loader", "machine": machine(), "results": results}


def _measure(recipe: str, source: str, rounds: int, small: bool) -> dict[str, Any]:
    batch_size = 4 if small else pretrain_config(recipe).trainer.batch_size
    config = pretrain_config(recipe, trainer={"batch_size": batch_size}, data={"source": source})
    dataset = PairDataset(open_pairs(source), config.data, config.views, seed=0)
    keys = [(0, index) for index in range(batch_size)]
    batch = collate_pairs([dataset[key] for key in keys])
    assert isinstance(batch, PairBatch)
    step = _step(config, batch)
    ways = {
        "read": lambda: collate_pairs([dataset[key] for key in keys]),
        "read, textbook": lambda: [_textbook(dataset, *key) for key in keys],
        "augment": lambda: _augment(batch),
        "step": step,
    }
    seconds = in_turns(ways, rounds)
    rates = {name: spread([batch_size / s for s in values]) for name, values in seconds.items()}
    count = 2 if small else counted_batches(rounds, statistics.median(seconds["step"]))
    beside = _beside(dataset, step, batch_size, count)
    rates["training, 1 process reading beside"] = beside["pairs_per_s"]
    both = [a + b for a, b in zip(seconds["read"], seconds["augment"], strict=True)]
    return {
        "batch": batch_size,
        "pairs_per_s": rates,
        "reading over step": ratio(seconds["step"], seconds["read"]),
        "reading and augmentation over step": ratio(seconds["step"], both),
        "textbook reading over ours": ratio(seconds["read, textbook"], seconds["read"]),
        "waiting for pairs, share of the time": beside["waiting"],
    }


def counted_batches(rounds: int, step_seconds: float) -> int:
    """Four for each round; fewer where steps are slow, but beyond what was read ahead.

    >>> counted_batches(5, 0.5), counted_batches(5, 8.0), counted_batches(1, 60.0)
    (20, 15, 10)
    """
    return max(2 * AHEAD, min(4 * rounds, int(MOST_SECONDS / step_seconds)))


def _step(config: PretrainConfig, batch: PairBatch) -> Any:
    objective = build_objective(config).train()
    optimizer = build_optimizer(config.optim, objective)

    def step() -> None:
        optimizer.zero_grad()
        view1, view2, pictures = _augment(batch)
        objective(view1, view2, pictures)["loss"].backward()
        optimizer.step()

    return step


def _augment(batch: PairBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    view1, view2 = augment_clouds(batch.points, batch.draws)
    return view1, view2, augment_pictures(batch.pictures, batch.draws)


def _beside(
    dataset: PairDataset, step: Any, batch_size: int, count: int
) -> dict[str, dict[str, float]]:
    """Whole training, one process reading: pairs/s, and the share of the time spent waiting."""
    order = PairOrder(len(dataset), batch_size, epochs=1000, seed=0)
    batches = pair_batches(dataset, order, workers=1)
    rates, waiting = [], []
    for number in range(AHEAD + count):
        start = time.perf_counter()
        next(batches)
        read = time.perf_counter()
        step()
        end = time.perf_counter()
        if number >= AHEAD:
            rates.append(batch_size / (end - start))
            waiting.append((read - start) / (end - start))
    return {"pairs_per_s": spread(rates), "waiting": spread(waiting)}


def _textbook(dataset: PairDataset, epoch: int, index: int) -> tuple[Any, ...]:
    """One sample the way that the published loaders read it, with general libraries."""
    import trimesh

    pair = dataset.pairs[index]
    rng = np.random.default_rng((epoch, index))
    views = []
    for _ in range(2):
        with open(pair.cloud, "rb") as stream:
            mesh: Any = trimesh.load(stream, file_type="ply")
        points = np.asarray(mesh.vertices, dtype=np.float32)
        points = points - points.mean(0)
        points = points / np.linalg.norm(points, axis=1).max() * rng.uniform(0.5, 2)
        angle = rng.uniform(0, 2 * np.pi)
        c, s = np.cos(angle), np.sin(angle)
        points = points @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
        points = points + rng.uniform(-0.5, 0.5, 3) * (points.max(0) - points.min(0))
        points = points + np.clip(0.01 * rng.standard_normal(points.shape), -0.05, 0.05)
        points[rng.random(len(points)) < rng.uniform(0, 0.875)] = points[0]
        views.append(torch.from_numpy(points).float())
    names = sorted(path for path in Path(pair.folder).iterdir() if path.suffix == ".png")
    with Image.open(names[rng.integers(len(names))]) as picture:
        rgba = picture.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    size = dataset.data.picture_size
    rgb = (
        Image.alpha_composite(white, rgba)
        .convert("RGB")
        .resize((size, size), Image.Resampling.BILINEAR)
    )
    return (*views, torch.from_numpy(np.array(rgb)).permute(2, 0, 1))


def _write_pairs(root: Path, models: int) -> str:
    rng = np.random.default_rng(0)
    for number in range(models):
        cloud = root / "ShapeNet" / "shapes" / f"{number:03d}.ply"
        cloud.parent.mkdir(parents=True, exist_ok=True)
        write_cloud_ply(cloud, rng.normal(size=(2048, 3)).astype(np.float32))
        folder = root / "ShapeNetRendering" / "shapes" / f"{number:03d}" / "rendering"
        folder.mkdir(parents=True)
        for view in range(24):
            _smooth_picture(rng).save(folder / f"{view:02d}.png")
    return f"pairs:{root}"


def _smooth_picture(rng: np.random.Generator) -> Image.Image:
    """RGBA, 137 x 137, with about as many bytes as a render: smooth, with a transparent border."""
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    pixels = np.array(coarse.resize((137, 137), Image.Resampling.BICUBIC))
    y, x = np.mgrid[-1:1:137j, -1:1:137j]
    alpha = np.where(x**2 + y**2 < 0.6, 255, 0).astype(np.uint8)
    return Image.fromarray(np.dstack([pixels, alpha]))


def table(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows of text for the terminal."""
    rows = []
    for name, result in report["results"].items():
        for what, rate in result["pairs_per_s"].items():
            rows.append((f"{name}, batch {result['batch']}: {what}", _text(rate, "pairs/s")))
        for what in result:
            if " over " in what:
                rows.append((f"{name}: {what}", _text(result[what], "x")))
            elif what.startswith("waiting"):
                share = {key: 100 * value for key, value in result[what].items()}
                rows.append((f"{name}: {what}", _text(share, "%")))
    return rows


def _text(value: dict[str, float], unit: str) -> str:
    return f"{value['median']:8.1f} {unit} ({value['min']:.1f} to {value['max']:.1f})"

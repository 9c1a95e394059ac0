"""What several tests need: small data on disk, written with other code than the package's own."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("PIXCLOUD_CACHE", str(cache))


@pytest.fixture(autouse=True, scope="session")
def _one_precision() -> Iterator[None]:
    """Runs that are compared are of one precision, whatever a busy machine measures in between."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "pixcloud.machine_settings.choose_precision", lambda device: ("32", "for tests")
        )
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference outputs and real meshes, where it is there."""
    if not SHARED.is_dir():
        pytest.skip(f"reference material not found at {SHARED}")
    return SHARED


def write_ply(path: Path, points: np.ndarray) -> None:
    """A binary PLY with vertices and one face, as other programs write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = (
        "ply\nformat binary_little_endian 1.0\ncomment made by a test\n"
        f"element vertex {len(points)}\nproperty float x\nproperty float y\nproperty float z\n"
        "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    )
    face = struct.pack("<Biii", 3, 0, 1, 2)
    path.write_bytes(header.encode() + points.astype("<f4").tobytes() + face)


def write_picture(path: Path, rng: np.random.Generator, size: int = 20) -> None:
    """An RGBA picture with a transparent border."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (size, size, 4), dtype=np.uint8)
    pixels[:3, :, 3] = 0
    Image.fromarray(pixels).save(path)


def write_pair_tree(
    root: Path, models: int = 12, points: int = 64, pictures: int = 3, size: int = 20
) -> Path:
    """The original CrossPoint tree: two synsets, `models` clouds in all."""
    rng = np.random.default_rng(0)
    for number in range(models):
        synset, model = ("02691156", "03001627")[number % 2], f"model{number:03d}"
        cloud = rng.normal(size=(points, 3)) * rng.uniform(0.2, 1, 3)
        write_ply(root / "ShapeNet" / synset / f"{model}.ply", cloud)
        rendering = root / "ShapeNetRendering" / synset / model / "rendering"
        for picture in range(pictures):
            write_picture(rendering / f"{picture:02d}.png", rng, size)
    return root


@pytest.fixture(scope="session")
def pair_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small pair tree; tests do not change it."""
    return write_pair_tree(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="session")
def labelled_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 pairs with labelled clouds of three classes beside them, one of a single cloud."""
    from pixcloud.data.modelnet import write_modelnet
    from pixcloud.types import LabelledClouds

    root = write_pair_tree(tmp_path_factory.mktemp("labelled-pairs") / "mine", 16, points=48)
    labels = np.repeat([0, 1, 2], [4, 4, 1])
    points = np.random.default_rng(0).normal(size=(9, 48, 3)) * (1 + labels[:, None, None])
    for split in ("train", "test"):
        clouds = LabelledClouds(
            name="mine",
            split=split,
            points=points.astype(np.float32),
            labels=labels,
            classes=["a", "b", "c"],
        )
        write_modelnet(root, clouds)
    return root


# A small run, but for where its pairs are.
HELD_RUN: dict[str, dict[str, Any]] = {
    "data": {"num_points": 32, "picture_size": 24, "workers": 0, "held_out": 0.25},
    "encoder": {"name": "pointnet", "settings": {"embed_dim": 32, "widths": [8, 16]}},
    "image": {"name": "resnet-tiny"},
    "objective": {"point_hidden": 16, "image_hidden": 16, "projection_dim": 8},
    "trainer": {"epochs": 3, "batch_size": 6, "threads": 1},
}


def pretrain_small(run: Path, pairs: Path, **trainer: Any) -> Path:
    """A run of `HELD_RUN` with more settings of the trainer."""
    from pixcloud import pretrain, pretrain_config

    settings = {name: dict(values) for name, values in HELD_RUN.items()}
    settings["data"]["source"] = f"pairs:{pairs}"
    settings["trainer"] |= trainer
    threads = torch_threads()
    pretrain(pretrain_config(run=str(run), **settings))
    torch_threads(threads)
    return run


def torch_threads(count: int = 0) -> int:
    """Set torch's threads if `count` is given, and return how many there were."""
    import torch

    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    return before


@pytest.fixture(scope="session")
def held_run(labelled_pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that holds out 4 of 16 pairs and retrieves them every other epoch, and at the end."""
    run = tmp_path_factory.mktemp("held") / "run"
    return pretrain_small(run, labelled_pairs, retrieve_every=2)

"""The examples run, on small data."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

import pixcloud
from conftest import write_ply
from pixcloud.encoders import ENCODERS
from pixcloud.evaluate.settings import ProbeSettings

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_contact_sheet(pair_tree: Path) -> None:
    sheet = load("contact_sheet").sheet_of_pairs(str(pair_tree), columns=3, size=16)
    assert sheet.size == (48, 16)


def test_embed_clouds(tmp_path: Path) -> None:
    encoder = pixcloud.build_encoder("pointnet", embed_dim=8)
    pixcloud.save_encoder(tmp_path / "encoder", encoder)
    files = []
    for number in range(3):
        files.append(str(tmp_path / f"{number}.ply"))
        write_ply(Path(files[-1]), np.random.default_rng(number).normal(size=(50 + number, 3)))
    features = load("embed_clouds").embed_files(
        str(tmp_path / "encoder"), str(tmp_path / "out.npz"), files
    )
    assert features.shape == (3, 8)
    assert np.load(tmp_path / "out.npz")["features"].shape == (3, 8)


def test_own_encoder(pair_tree: Path, tmp_path: Path) -> None:
    """As a program beside the package uses it: pre-trained, probed, saved, loaded."""
    pixcloud.register_encoder("deepsets", load("own_encoder").DeepSets)
    try:
        config = pixcloud.pretrain_config(
            run=str(tmp_path / "run"),
            data={"source": str(pair_tree), "num_points": 32, "picture_size": 24, "workers": 0},
            encoder={"name": "deepsets", "settings": {"width": 8}},
            image={"name": "resnet-tiny"},
            trainer={"epochs": 1, "batch_size": 4, "precision": "32"},
        )
        pixcloud.pretrain(config)
        encoder = pixcloud.load_encoder(tmp_path / "run")
        assert encoder.embed(torch.rand(9, 3)).shape == (16,)
        pixcloud.save_encoder(tmp_path / "saved", encoder)
        rng = np.random.default_rng(0)
        for kind in ("flat", "round"):
            for number in range(12):
                (tmp_path / "shapes" / kind).mkdir(parents=True, exist_ok=True)
                points = rng.normal(size=(40, 3)) * (1, 1 if kind == "round" else 0.1, 1)
                np.savetxt(tmp_path / "shapes" / kind / f"{number}.txt", points)
        settings = ProbeSettings(num_points=32)
        probe = pixcloud.ProbeConfig(encoder=str(tmp_path / "saved"), probe=settings)
        probe.data.source = f"folder:{tmp_path / 'shapes'}"
        assert "saved" in {Path(row.encoder).name for row in pixcloud.probe(probe).rows}
    finally:
        ENCODERS.pop("deepsets")

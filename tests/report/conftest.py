"""Run folders as training and probes leave them, small enough to make anew for every test."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pixcloud.config import pretrain_config
from pixcloud.config_files import save_config
from pixcloud.data import sources
from pixcloud.encoders import build_encoder
from pixcloud.evaluate.results import ResultRow, append_rows
from pixcloud.export import save_encoder, weights_sha256
from pixcloud.types import LabelledClouds

MakeRun = Callable[..., Path]
CLASSES = ["chair", "<script>alert(1)</script>", 'a "quoted" & odd name']


@pytest.fixture
def labelled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The source name of a labelled data set of 24 clouds in three classes."""

    def read(root: Path, split: str) -> LabelledClouds:
        rng = np.random.default_rng(split == "test")
        labels = np.arange(24) % 3
        stretch = np.eye(3)[labels][:, None] + 0.2
        points = (rng.normal(size=(24, 40, 3)) * stretch).astype(np.float32)
        return LabelledClouds(
            name="tiny", split=split, points=points, labels=labels, classes=CLASSES
        )

    monkeypatch.setitem(sources.LABELLED_READERS, "tiny", (read, ("tiny.marker",)))
    return f"tiny:{tmp_path}"


@pytest.fixture
def make_run(tmp_path: Path, labelled: str, pair_tree: Path) -> MakeRun:
    """Make a run folder; by default a whole one."""

    def make(
        name: str = "run",
        *,
        epochs_done: int = 3,
        encoder: bool = True,
        rows: bool = True,
        **overrides: object,
    ) -> Path:
        path = tmp_path / name
        path.mkdir(parents=True)
        settings = {"data": {"source": f"pairs:{pair_tree}"}, **overrides}
        config = pretrain_config(
            run=str(path),
            encoder={"name": "pointnet", "settings": {"embed_dim": 16, "widths": [8, 8, 8, 8]}},
            trainer={"epochs": 3, "batch_size": 4, "probe_source": labelled, "device": "cpu"},
            **settings,
        )
        save_config(config, path / "config.yaml")
        _write_metrics(path / "metrics.jsonl", epochs_done)
        (path / "train.log").write_text("2025-01-02 03:04:05 begun\n2025-01-02 03:09:05 done\n")
        module = build_encoder("pointnet", **config.encoder.settings)
        if encoder:
            save_encoder(path / "encoder", module, origin={"epoch": 2, "probe_validation": 0.75})
        if rows:
            append_rows(path / "results.jsonl", result_rows(str(path), weights_sha256(module)))
        return path

    return make


def _write_metrics(path: Path, epochs: int) -> None:
    lines: list[dict[str, object]] = []
    for step in range(1, 3 * epochs + 2):
        losses = {"loss": 3.0 / step, "intra": 1.0 / step, "cross": 2.0 / step}
        line = {"kind": "step", "step": step, "epoch": (step - 1) // 3, **losses}
        lines.append({**line, "lr": 1e-3, "pairs_per_s": 10.0 + step, "memory_mib": 500})
        if step % 3 == 0:
            whole = {"kind": "epoch", "step": step, "epoch": step // 3 - 1, **losses}
            lines.append({**whole, "seconds": 20.0 * step, "probe_validation": 0.25 * step / 3})
    if epochs == 3:
        lines.pop()  # the last step of a whole run ends an epoch
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def result_rows(encoder: str, sha256: str, dataset: str = "tiny") -> list[ResultRow]:
    """Rows as a linear probe with its baselines writes them."""
    row = ResultRow(
        protocol="svm C by cross-validation on train",
        dataset=dataset,
        split="test",
        metric="accuracy",
        value=0.75,
        ci95=(0.551, 0.88),
        n=24,
        seed=0,
        encoder=encoder,
        encoder_sha256=sha256,
        settings={"c": 0.125, "architecture": {"name": "pointnet"}, "num_points": 32},
        seconds=1.0,
    )
    change = dataclasses.replace
    fixed = change(row, protocol="svm C=0.01 (published)", value=0.625, ci95=(0.427, 0.788))
    return [
        row,
        change(row, metric="class_mean_accuracy", ci95=None),
        fixed,
        change(row, encoder=f"{encoder}, untrained", encoder_sha256="0" * 64, value=0.5),
        change(
            row,
            encoder="shape distributions (hand-made)",
            encoder_sha256="1" * 64,
            value=0.25,
            ci95=(0.12, 0.449),
            settings={"c": 2000.0, "architecture": "shape distributions"},
        ),
    ]

"""Every encoder under every protocol of whole clouds; `test_segment` has the one of points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_clouds import ellipsoids, one_thread, silent  # noqa: F401 (a fixture of the module)

from pixcloud.encoders import ENCODERS, build_encoder
from pixcloud.evaluate.few_shot import run_few_shot
from pixcloud.evaluate.finetune import run_finetune
from pixcloud.evaluate.probe import run_probe
from pixcloud.evaluate.results import read_rows
from pixcloud.evaluate.retrieval import retrieve_clouds
from pixcloud.evaluate.retrieval_settings import RetrievalSettings
from pixcloud.evaluate.settings import ProbeSettings
from pixcloud.evaluate.training_settings import (
    FewShotConfig,
    FewShotSettings,
    FinetuneConfig,
    FinetuneSettings,
    FitSettings,
)

TINY: dict[str, dict[str, Any]] = {
    "pointnet": {"embed_dim": 16, "widths": [8]},
    "dgcnn": {"k": 4, "embed_dim": 16, "widths": [8, 8]},
    "dgcnn_seg": {"k": 4, "embed_dim": 16, "widths": [8] * 5},
    "pct": {"channels": 8, "centres": [16, 8], "k": 4, "embed_dim": 16, "attentions": 1},
    "patch_transformer": {
        "width": 12,
        "depth": 1,
        "heads": 3,
        "groups": 8,
        "group_size": 6,
        "patch_widths": [8, 12, 16],
    },
}
FIT = FitSettings(epochs=1, batch_size=12)


def test_all_are_here() -> None:
    assert set(TINY) == set(ENCODERS)


@pytest.mark.parametrize("name", sorted(TINY))
def test_every_protocol(name: str, tmp_path: Path) -> None:
    train, test = (ellipsoids(split, seed, 6) for seed, split in enumerate(("train", "test")))
    encoder = build_encoder(name, **TINY[name]).eval()
    data, out = (encoder, name, train, test), tmp_path / "results.jsonl"
    probe = ProbeSettings(num_points=48, baselines=False, cache=False, threads=1)
    run_probe(*data, probe, out=out, say=silent)
    trials = FewShotSettings(
        ways=2, shots=2, queries=3, trials=2, num_points=48, baseline=False, cache=False
    )
    for protocol in ("crosspoint", "point-bert"):
        config = FewShotConfig(encoder="", protocol=protocol, fewshot=trials, fit=FIT)
        run_few_shot(*data, config, out=out, say=silent)
    for freeze in (False, True):
        settings = FinetuneSettings(num_points=48, votes=1, freeze=freeze)
        run_finetune(*data, FinetuneConfig("", finetune=settings, fit=FIT), out=out, say=silent)
    settings = RetrievalSettings(num_points=48, baselines=False, cache=False)
    rows = [*read_rows(out), *retrieve_clouds(encoder, name, test, settings, silent)]
    kinds = {row.protocol.partition(" ")[0] for row in rows}
    assert kinds == {"svm", "few-shot", "fine-tuned,", "frozen", "retrieval"}
    assert all(0 <= row.value <= 1 and np.isfinite(row.value) for row in rows)
    assert {row.encoder_sha256 for row in rows} == {rows[0].encoder_sha256}  # none has changed it

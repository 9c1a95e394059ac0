"""Precision `auto`: measured once, written into the run, kept by a resumed run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pixcloud import machine_settings, precision
from pixcloud.config import pretrain_config
from pixcloud.config_files import load_config
from pixcloud.precision import choose_precision
from pixcloud.run_folder import RunFolder


@pytest.mark.parametrize(("bf16", "expected"), [(400.0, "bf16"), (110.0, "32"), (1.0, "32")])
def test_the_faster_one_is_taken(
    monkeypatch: pytest.MonkeyPatch, bf16: float, expected: str
) -> None:
    rates = {torch.float32: 100.0, torch.bfloat16: bf16}
    monkeypatch.setattr(
        precision, "product_rates", lambda device, *kinds: [rates[k] for k in kinds]
    )
    chosen, measured = choose_precision("cpu")
    assert chosen == expected
    assert measured == f"products in fp32 100, in bf16 {bf16:.0f} GFLOP/s"


def test_a_resumed_run_keeps_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_settings, "choose_precision", lambda device: ("bf16", "measured"))
    config = pretrain_config(run=str(tmp_path / "run"))
    assert config.trainer.precision == "auto"
    resolved, notes = machine_settings.resolve(config)
    assert resolved.trainer.precision == "bf16"
    assert notes == ["trainer.precision auto takes bf16: measured"]
    RunFolder(resolved).start(0)
    assert load_config(tmp_path / "run/config.yaml").trainer.precision == "bf16"
    monkeypatch.setattr(
        machine_settings, "choose_precision", lambda device: ("32", "another machine")
    )
    resumed = pretrain_config(run=str(tmp_path / "run"), resume=True)
    again, notes = machine_settings.resolve(resumed)
    assert again.trainer.precision == "bf16"
    assert notes == []

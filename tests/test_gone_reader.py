"""Nobody reads what a run says any more: it goes on, and a signal still ends it cleanly."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SETTINGS = {
    "--data.picture_size": "24",
    "--data.num_points": "32",
    "--data.workers": "1",
    "--encoder.name": "pointnet",
    "--image.name": "resnet-tiny",
    "--trainer.batch_size": "4",
    "--trainer.precision": "32",
    "--trainer.threads": "1",
}


@pytest.mark.parametrize(("epochs", "number", "code"), [("6", 0, 0), ("900", signal.SIGTERM, 143)])
def test_a_run_without_a_reader(
    pair_tree: Path, tmp_path: Path, epochs: str, number: int, code: int
) -> None:
    run = tmp_path / "run"
    words = [word for setting in SETTINGS.items() for word in setting]
    words += ["--run", str(run), "--data.source", str(pair_tree), "--trainer.epochs", epochs]
    process = subprocess.Popen(
        [sys.executable, "-m", "pixcloud.cli", "pretrain", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        while process.poll() is None and not list((run / "checkpoints").glob("step-*")):
            time.sleep(0.05)
        assert process.stderr is not None
        process.stderr.close()
        if number:
            process.send_signal(number)
        assert process.wait(timeout=120) == code
    finally:
        process.kill()
    assert (run / "encoder").exists() == (code == 0)

"""Stage 7, the run folder: `config.yaml`, `metrics.jsonl`, `train.log` and where the rest lies."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from pixcloud.atomic import write_text
from pixcloud.config import PretrainConfig, differences, load_config, save_config
from pixcloud.errors import CheckpointError, ConfigError, some


class RunFolder:
    """A run's files. Nothing is written before `start`.

    Args:
        config: of the run.

    Raises:
        CheckpointError: if the folder holds a run already and `config.resume` is false.
        ConfigError: if it holds a run with other settings and `config.resume` is true.
    """

    def __init__(self, config: PretrainConfig) -> None:
        self.path = Path(config.run).expanduser()
        self.config = config
        saved = self.path / "config.yaml"
        if self.path.exists() and not self.path.is_dir():
            raise CheckpointError(f"{self.path}: is a file; give another folder with --run")
        if not saved.exists():
            return
        if not config.resume:
            raise CheckpointError(
                f"{self.path}: holds a run already; go on with --resume true, or give another "
                "folder with --run"
            )
        if changed := differences(load_config(saved), config):
            raise ConfigError(
                f"{self.path}: the run to resume has other settings: {some(changed, 4)}; leave "
                "them as they were, or start a new run"
            )

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def encoder(self) -> Path:
        return self.path / "encoder"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def start(self, step: int) -> None:
        """Make the folder, and forget what was logged after `step`, which will be run again."""
        self.path.mkdir(parents=True, exist_ok=True)
        save_config(self.config, self.path / "config.yaml")
        if self.metrics.exists():
            kept = [line for line in read_metrics(self.metrics) if line["step"] <= step]
            write_text(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))

    def log(self, **values: Any) -> None:
        """Append one object to `metrics.jsonl`."""
        with open(self.metrics, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(values) + "\n")

    def say(self, message: str) -> None:
        """One line for the person at the terminal, and into `train.log` once the run began."""
        sys.stderr.write(message + "\n")
        self.note(message)

    def note(self, message: str) -> None:
        """One line into `train.log` alone."""
        if self.path.is_dir():
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            with open(self.path / "train.log", "a", encoding="utf-8") as stream:
                stream.write(f"{stamp} {message}\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`; a last line that a kill cut short is left out.

    Raises:
        CheckpointError: if another line is no JSON object with a step.
    """
    lines = path.read_text(encoding="utf-8").split("\n")
    records = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            record = json.loads(line)
            record["step"]
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):  # no line break behind it: cut short
                break
            raise CheckpointError(f"{path}:{number}: not a metrics line ({error})") from error
        records.append(record)
    return records

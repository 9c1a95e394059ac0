"""Stage 7, the run folder: `config.yaml`, `metrics.jsonl`, `train.log` and where the rest lies."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from pixcloud.atomic import write_text
from pixcloud.config import PretrainConfig
from pixcloud.config_files import differences, load_config, save_config
from pixcloud.distributed import ALONE, World
from pixcloud.errors import CheckpointError, ConfigError, some


class RunFolder:
    """A run's files. Nothing is written before `start`; of several processes the first one writes.

    Args:
        config: of the run.
        world: its processes.

    Whatever cannot be written is a `CheckpointError` that names the file. It ends the run, and
    touches no checkpoint: with room made, `--resume true` goes on from the last one.

    Raises:
        CheckpointError: if the folder holds a run already and `config.resume` is false, or cannot
            be read.
        ConfigError: if it holds a run with other settings and `config.resume` is true.
    """

    def __init__(self, config: PretrainConfig, world: World = ALONE) -> None:
        self.path = Path(config.run).expanduser()
        self.config, self.world = config, world
        if not world.first:
            return
        saved = self.path / "config.yaml"
        try:
            there = saved.exists()
            if self.path.exists() and not self.path.is_dir():
                raise CheckpointError(f"{self.path}: is a file; give another folder with --run")
        except OSError as error:
            raise CheckpointError(
                f"{self.path}: cannot be read ({error.strerror}); give another folder with --run"
            ) from error
        if not there:
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
        """Make the folder, and forget what was logged after `step`, which will be run again.

        Raises:
            CheckpointError: if it cannot be written; what is there stays as it was.
        """
        if not self.world.first:
            return
        place = self.path
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            place = self.path / "config.yaml"
            save_config(self.config, place)
            if self.metrics.exists():
                place = self.metrics
                kept = [line for line in read_metrics(place) if line["step"] <= step]
                write_text(place, "".join(json.dumps(line) + "\n" for line in kept))
        except OSError as error:
            raise _cannot_write(place, error) from error

    def log(self, **values: Any) -> None:
        """Append one object to `metrics.jsonl`.

        Raises:
            CheckpointError: if it cannot be written.
        """
        if self.world.first:
            # JSON has no NaN; what has no value is null.
            plain = {key: None if value != value else value for key, value in values.items()}
            _append(self.metrics, json.dumps(plain))

    def say(self, message: str) -> None:
        """One line for the person at the terminal, and into `train.log` once the run began.

        Nobody may be there to read it any more: that does not end a run.

        Raises:
            CheckpointError: if `train.log` cannot be written.
        """
        self.trace(message)
        if not self.world.first:
            return
        self.note(message)
        with contextlib.suppress(OSError):
            sys.stderr.write(message + "\n")

    def note(self, message: str) -> None:
        """One line into `train.log` alone.

        Raises:
            CheckpointError: if it cannot be written.
        """
        if self.path.is_dir():
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            _append(self.path / "train.log", f"{stamp} {message}")

    def trace(self, message: str) -> None:
        """One line into this process's own log, if `trainer.rank_log` asks for it.

        Raises:
            CheckpointError: if it cannot be written.
        """
        if not self.config.trainer.rank_log:
            return
        path = self.path / "logs" / f"rank-{self.world.rank:05d}.log"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot_write(path, error) from error
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        where = f"process {self.world.rank} of {self.world.size} on {socket.gethostname()}"
        _append(path, f"{stamp} {where}: {message}")


def _append(path: Path, line: str) -> None:
    """Append a line: all of it, or on a full disk nothing."""
    size = None
    try:
        with open(path, "ab", buffering=0) as stream:
            size = stream.tell()
            content = f"{line}\n".encode()
            while content:  # a disk that fills up takes a part, and then says why
                content = content[stream.write(content) :]
    except OSError as error:
        if size is not None:
            with suppress(OSError):
                os.truncate(path, size)
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{path}: cannot be written ({error.strerror or error}); make room or mend the folder, "
        "then go on with --resume true: checkpoints stay as they are"
    )


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`; a last line that a kill cut short is left out.

    Raises:
        CheckpointError: if it cannot be read, or another line is no JSON object with a step.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}); is it a run's own file?"
        ) from error
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

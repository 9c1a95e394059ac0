"""Settings of a run on disk: `config.yaml`, and what may differ when the run is taken up again.

Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from pixcloud.atomic import write_text
from pixcloud.config import PretrainConfig, WandbConfig, flatten, from_dict, validate
from pixcloud.errors import ConfigError

# What may differ between a run and its resumption, because no result depends on it.
VOLATILE = (
    "run",
    "resume",
    "data.workers",
    "trainer.keep_checkpoints",
    "trainer.checkpoint_every",
    "trainer.progress",
    "trainer.devices",
    "trainer.nodes",
    "trainer.rendezvous",
    "trainer.on_nonfinite",
    "trainer.heartbeat",
    "trainer.rank_log",
    "log",
    *(f"wandb.{item.name}" for item in dataclasses.fields(WandbConfig)),
)


def save_config(config: Any, path: Path) -> None:
    """Write a config as YAML, whole or not at all."""
    write_text(path, yaml.safe_dump(dataclasses.asdict(config), sort_keys=False))


def load_config(path: Path) -> PretrainConfig:
    """Read a config that `save_config` wrote.

    Raises:
        ConfigError: if it is no YAML, or holds an unknown key.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as settings ({error})") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected settings, one 'key: value' per line")
    try:
        config: PretrainConfig = from_dict(PretrainConfig, values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    validate(config)
    return config


def differences(saved: Any, now: Any) -> list[str]:
    """Settings that differ and that results depend on, as "key: saved value, now value"."""
    old, new = flatten(saved), flatten(now)
    if any(old[key] != new[key] for key in ("trainer.devices", "trainer.nodes")):
        new["trainer.threads"] = old["trainer.threads"]  # they share other cores now
    return [
        f"{key}: {old[key]!r} in the run, {new[key]!r} now"
        for key in old
        if key not in VOLATILE and old[key] != new[key]
    ]

"""Stage 7, settings that the machine decides: a config -> the same with device, threads, precision.

What was open is filled in once, goes into the run's `config.yaml`, and is kept when it is resumed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from pixcloud.config import PretrainConfig
from pixcloud.config_files import load_config
from pixcloud.errors import ConfigError
from pixcloud.launch import find_place
from pixcloud.machine import available_cores
from pixcloud.precision import choose_precision


def resolve(config: PretrainConfig) -> tuple[PretrainConfig, list[str]]:
    """The config with what depends on the machine filled in, so that it is on record; and why.

    Raises:
        ConfigError: for a device that is not there.
    """
    trainer = config.trainer
    if place := find_place():  # a launcher has the last word
        nodes = max(1, place.size // place.local_size)
        trainer = dataclasses.replace(trainer, devices=place.local_size, nodes=nodes)
    saved = Path(config.run).expanduser() / "config.yaml"
    if config.resume and saved.is_file():
        # What was left open then was filled in then, perhaps on another machine.
        before = load_config(saved).trainer
        moved = (before.devices, before.nodes) != (trainer.devices, trainer.nodes)
        trainer = dataclasses.replace(
            trainer,
            device=before.device if trainer.device == "auto" else trainer.device,
            threads=0 if moved else trainer.threads or before.threads,
            precision=before.precision if trainer.precision == "auto" else trainer.precision,
        )
    device = trainer.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu" and not torch.get_device_module(device).is_available():
        raise ConfigError(f"trainer.device = {device}: there is none here; use cpu, or auto")
    threads = trainer.threads or max(1, available_cores() // trainer.devices)
    trainer, notes = dataclasses.replace(trainer, device=device, threads=threads), []
    if trainer.precision == "auto":
        torch.set_num_threads(threads)
        chosen, measured = choose_precision(device)
        trainer = dataclasses.replace(trainer, precision=chosen)
        notes = [f"trainer.precision auto takes {chosen}: {measured}"]
    return dataclasses.replace(config, trainer=trainer), notes

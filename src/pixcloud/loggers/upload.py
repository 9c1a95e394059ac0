"""Stage 7, uploads: a run folder -> what a logger has missed of it, brought over now."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from pixcloud.config import WandbConfig, from_dict, validate
from pixcloud.config_files import load_config
from pixcloud.errors import CheckpointError, ConfigError, LoggerError, nearest
from pixcloud.loggers.follow import Follower, only_one
from pixcloud.loggers.kept import account, forget, missing, read_kept
from pixcloud.loggers.target import BACKENDS, require_packages, target_of


def log(
    run: str,
    to: str = "wandb",
    mode: Literal["online", "offline"] = "online",
    url: str = "",
    project: str = "",
    entity: str = "",
    name: str = "",
    seconds: float = 600.0,
    again: bool = False,
) -> str:
    """Bring what a logger has missed of a run to it: lines, results, config and pictures.

    What is there already is not sent again.

    Args:
        run: the run folder.
        to: tensorboard or wandb.
        mode: online sends to a server; offline writes files for `wandb sync`.
        url: a server of your own; empty takes that of the run, or the public one.
        project: empty takes that of the run.
        entity: user or team; empty takes that of the run.
        name: shown for the run; empty takes that of the run.
        seconds: how long to try.
        again: send everything, as a new run.

    Returns:
        A line that says how much is where.

    Raises:
        CheckpointError: if there is no such run.
        LoggerError: if not all could be brought over; what is missing stays in the run folder.
    """
    if to not in BACKENDS:
        raise ConfigError(f"--to {to}: no logger: {nearest(to, BACKENDS)}")
    require_packages(to)
    path = Path(run).expanduser()
    if not (path / "metrics.jsonl").is_file():
        raise CheckpointError(
            f"{path / 'metrics.jsonl'}: missing; give a run folder that pixcloud pretrain made"
        )
    config = load_config(path / "config.yaml")
    given = {"url": url, "project": project, "entity": entity, "name": name}
    given = {key: value for key, value in given.items() if value}
    settings = {**dataclasses.asdict(config.wandb), **given, "mode": mode, "drain": seconds}
    config.wandb = from_dict(WandbConfig, settings, "wandb.")
    validate(config)
    target = target_of(config, to, path)
    with only_one(target, lambda: False) as held:
        if not held:
            raise LoggerError(
                f"{path}: another process is bringing it to {to}; wait until it is done"
            )
        if again:
            forget(target)
        done = Follower(target, parent=None, patience=seconds, persistent=True).go()
    left, total = missing(target, kept := read_kept(target))
    if not done or left:
        raise LoggerError(
            f"{to}: {left} of {total} lines are not there ({kept.error}); metrics.jsonl keeps "
            "them: mend that and run the same command again"
        )
    return account(target)

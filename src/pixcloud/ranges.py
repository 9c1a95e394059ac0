"""Settings in, nothing out: types and ranges are checked before anything else happens."""

from __future__ import annotations

import dataclasses
import math
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pixcloud.errors import ConfigError, nearest

# key: (lowest, highest, whether the lowest itself is allowed)
RANGES: dict[str, tuple[float, float, bool]] = {
    "seed": (0, 2**63 - 1, True),
    "data.num_points": (1, 1 << 24, True),
    "data.picture_size": (1, 1 << 14, True),
    "data.held_out": (0, 1, True),
    "data.workers": (-1, 1024, True),
    "views.scale_low": (0, 1e6, False),
    "views.scale_high": (0, 1e6, False),
    "views.rotation": (0, 360, True),
    "views.jitter": (0, 1e6, True),
    "views.jitter_clip": (0, 1e6, True),
    "views.dropout": (0, 1, True),
    "views.shift": (0, 1e6, True),
    "views.brightness": (0, 1, True),
    "views.contrast": (0, 1, True),
    "views.saturation": (0, 1, True),
    "views.flip": (0, 1, True),
    "views.stretch": (1, 1000, True),
    "views.crop": (0, 0.95, True),
    "views.hole": (0, 0.95, True),
    "views.pictures": (1, 1024, True),
    "objective.temperature": (0, 1e6, False),
    "objective.cross_temperature": (0, 1e6, True),
    "objective.hardness": (0, 1000, True),
    "objective.ema": (0, 0.99999, True),
    "objective.queue": (0, 1 << 24, True),
    "objective.relation_weight": (0, 1e6, True),
    "objective.relation_temperature": (0, 1e6, False),
    "objective.intra_weight": (0, 1e6, True),
    "objective.cross_weight": (0, 1e6, True),
    "objective.projection_dim": (1, 1 << 20, True),
    "objective.point_hidden": (1, 1 << 20, True),
    "objective.image_hidden": (1, 1 << 20, True),
    "optim.lr": (0, 1e6, False),
    "optim.lr_end": (0, 1e6, True),
    "optim.weight_decay": (0, 1e6, True),
    "optim.momentum": (0, 1, True),
    "optim.warmup_epochs": (0, 1e6, True),
    "optim.clip_norm": (0, 1e12, True),
    "trainer.epochs": (1, 1e9, True),
    "trainer.batch_size": (2, 1e9, True),
    "trainer.accumulate": (1, 1e9, True),
    "trainer.devices": (1, 1 << 16, True),
    "trainer.nodes": (1, 1 << 20, True),
    "trainer.micro_batch": (0, 1e9, True),
    "trainer.heartbeat": (0, 1e6, True),
    "trainer.threads": (0, 4096, True),
    "trainer.log_every": (1, 1e9, True),
    "trainer.checkpoint_every": (0, 1e12, True),
    "trainer.keep_checkpoints": (1, 1e9, True),
    "trainer.probe_every": (0, 1e9, True),
    "trainer.retrieve_every": (0, 1e9, True),
    "trainer.validation_share": (0, 1, False),
    "wandb.drain": (0, 3600, True),
    "wandb.timeout": (0, 3600, False),
}

# What a learned temperature is held between; CLIP (arXiv:2103.00020) has the same lower end.
LEARNED_TEMPERATURES = (0.01, 1.0)
LOGGERS = ("tensorboard", "wandb")
DEVICES = ("auto", "cpu", "cuda", "mps")


def check_types(config: Any, prefix: str = "") -> None:
    """Check that every value of a config dataclass, and of those in it, is of its declared type.

    Whole numbers pass for real ones; booleans pass for neither, NaN and infinity never.

    Raises:
        ConfigError: naming the key, its value and what is expected.
    """
    hints = get_type_hints(type(config))
    for item in dataclasses.fields(config):
        key, value, hint = f"{prefix}{item.name}", getattr(config, item.name), hints[item.name]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, hint):  # type: ignore[arg-type]
                raise ConfigError(f"{key} = {value!r}: settings of its own are expected")
            check_types(value, f"{key}.")
        elif expected := _mismatch(value, hint):
            raise ConfigError(f"{key} = {value!r}: {expected} is expected")


def _mismatch(value: Any, hint: Any) -> str:
    """What is expected instead of `value`, or nothing if it fits."""
    if get_origin(hint) is Literal:
        known = get_args(hint)
        return "" if value in known else "one of " + ", ".join(map(repr, known))
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return "" if number and math.isfinite(value) else "a finite number"
    if hint is int:
        return "" if type(value) is int else "a whole number"
    kind = get_origin(hint) or hint
    if isinstance(kind, type) and kind is not UnionType and not isinstance(value, kind):
        return {bool: "true or false", str: "text", dict: "a mapping"}.get(kind, kind.__name__)
    return ""


def check_ranges(flat: dict[str, Any]) -> None:
    """Check dotted keys and values of a `PretrainConfig` against `RANGES`.

    Raises:
        ConfigError: naming the key, its value and what is allowed.
    """
    for key, (low, high, inclusive) in RANGES.items():
        value = flat[key]
        if not ((low <= value if inclusive else low < value) and value <= high):
            bound = "at least" if inclusive else "more than"
            limit = f" and at most {high:g}" if high <= 4096 or value > high else ""
            raise ConfigError(f"{key} = {value}: it must be {bound} {low:g}{limit}")
    if flat["trainer.validation_share"] == 1:
        raise ConfigError("trainer.validation_share = 1: nothing would be left to fit on")
    if flat["data.held_out"] == 1:
        raise ConfigError("data.held_out = 1: nothing would be left to train on")
    if flat["views.scale_high"] < flat["views.scale_low"]:
        raise ConfigError(
            f"views.scale_high = {flat['views.scale_high']} is below views.scale_low = "
            f"{flat['views.scale_low']}; set it to at least that"
        )
    check_objective(flat)
    if flat["trainer.device"] not in DEVICES:
        raise ConfigError(
            f"trainer.device = {flat['trainer.device']!r}: it must be one of {', '.join(DEVICES)}"
        )
    logger_names(flat["log"])
    url = flat["wandb.url"]
    if url and not url.startswith(("http://", "https://")):
        raise ConfigError(f"wandb.url = {url!r}: it must begin with http:// or https://")


def check_objective(flat: dict[str, Any]) -> None:
    """Check settings of the objective that only go together.

    Raises:
        ConfigError: naming the key, its value and what is allowed.
    """
    if flat["objective.teacher"] and not flat["objective.ema"]:
        raise ConfigError(
            "objective.teacher = True: the teacher is the averaged encoder; set objective.ema to "
            "more than 0, such as 0.99"
        )
    if flat["objective.queue"] and flat["objective.negatives"] == "local":
        raise ConfigError(
            "objective.queue: earlier pairs are those of all processes; set objective.negatives to "
            "global, or objective.queue to 0"
        )
    if not flat["objective.learn_temperature"]:
        return
    low, high = LEARNED_TEMPERATURES
    for key in ("objective.temperature", "objective.cross_temperature"):
        value = flat[key]
        if not low <= value <= high and (value or key == "objective.temperature"):
            raise ConfigError(
                f"{key} = {value}: with objective.learn_temperature it is where learning begins, "
                f"and must be at least {low:g} and at most {high:g}"
            )


def logger_names(log: str) -> list[str]:
    """The loggers in a comma-separated list, each once.

    Raises:
        ConfigError: for an unknown one; the nearest known one is named.

    >>> logger_names("wandb, tensorboard")
    ['wandb', 'tensorboard']
    """
    names = list(dict.fromkeys(name.strip() for name in log.split(",") if name.strip()))
    for name in names:
        if name not in LOGGERS:
            raise ConfigError(f"log = {log!r}: unknown logger '{name}': {nearest(name, LOGGERS)}")
    return names

"""Stage 10, provenance: `RunRecord` -> the command, settings, weights and versions behind a page.

Before it: `pixcloud.report.record`. After it: `pixcloud.report.page`.
"""

from __future__ import annotations

import json
import shlex
from typing import Any

import yaml

from pixcloud._version import __version__
from pixcloud.config import PretrainConfig, flatten, pretrain_config
from pixcloud.config_files import VOLATILE
from pixcloud.errors import ConfigError
from pixcloud.report.markup import Html, section, table, tag
from pixcloud.report.record import RunRecord


def provenance(record: RunRecord) -> Html:
    """A section with all that one needs to make the run again."""
    settings = (record.path / "config.yaml").read_text(encoding="utf-8")
    children = [
        tag("pre", command(record.config), class_="command"),
        table(["what", "value"], _facts(record)),
        tag("details", tag("summary", "All settings (config.yaml)"), tag("pre", settings)),
    ]
    if record.encoder:
        described = yaml.safe_dump(record.encoder, sort_keys=False, allow_unicode=True)
        children.append(
            tag("details", tag("summary", "The encoder (config.json)"), tag("pre", described))
        )
    lead = "This command makes such a run again; device and threads are those that were used."
    return section("provenance", "How it was made", lead, *children)


def command(config: PretrainConfig) -> str:
    """The command whose settings are those of a run: what differs from its recipe, as flags.

    >>> command(pretrain_config("crosspoint", run="runs/a", seed=3))
    'pixcloud pretrain --recipe crosspoint --run runs/a --seed 3'
    """
    recipe = config.recipe
    try:
        base = flatten(pretrain_config(recipe))
    except ConfigError:  # a recipe that this version does not know
        base, recipe = flatten(pretrain_config()), ""
    words = ["pixcloud", "pretrain"]
    words += ["--recipe", recipe] if recipe else []
    words += ["--run", config.run]
    for key, value in flatten(config).items():
        if key not in (*VOLATILE, "recipe") and value != base[key]:
            words += [f"--{key}", _flag(value)]
    return shlex.join(words)


def _flag(value: Any) -> str:
    if isinstance(value, dict | list | bool):
        return json.dumps(value)
    return str(value)


def _facts(record: RunRecord) -> list[list[str]]:
    encoder = record.encoder or {}
    facts = [
        ("run folder", str(record.path)),
        ("data", record.config.data.source),
        ("train.log", " to ".join(record.log) if record.log else ""),
        ("encoder", json.dumps(encoder.get("encoder")) if encoder else ""),
        ("features per cloud", str(encoder.get("pooled_dim", ""))),
        ("weights, SHA-256", record.sha256),
        ("encoder of epoch", _origin_epoch(encoder)),
        ("pixcloud that trained", str(encoder.get("pixcloud_version", ""))),
        ("pixcloud that evaluated", ", ".join(sorted({r.pixcloud_version for r in record.rows}))),
        ("pixcloud that made this page", __version__),
    ]
    return [[name, tag("code", value)] for name, value in facts if value]


def _origin_epoch(encoder: dict[str, Any]) -> str:
    origin = encoder.get("origin") or {}
    if "epoch" not in origin:
        return ""
    chosen = origin.get("probe_validation")
    why = f", the best on validation ({100 * chosen:.1f} %)" if chosen is not None else ""
    return f"{origin['epoch'] + 1}{why}"

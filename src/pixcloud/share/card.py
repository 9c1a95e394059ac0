"""Stage 9, the model card: a model with its run -> README.md with the Hub's metadata.

Before it: `pixcloud.share.models`, `pixcloud.report.record` (the run) and
`pixcloud.share.card_results`. After it: `pixcloud.share.push`. Licences are what they were said to
be; nothing of this machine's folders is told.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import yaml

from pixcloud._version import __version__
from pixcloud.config import PretrainConfig, from_dict
from pixcloud.config_files import VOLATILE
from pixcloud.encoders.code import is_code
from pixcloud.evaluate.results import SYNTHETIC, ResultRow
from pixcloud.report.provenance import command
from pixcloud.report.record import RunRecord
from pixcloud.share.card_results import metadata, select, tables
from pixcloud.share.models import Model

# What the Hub knows by itself; any other licence is "other" there, with its name beside it.
LICENCES = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "gpl-3.0", "lgpl-3.0", "agpl-3.0"),
    *("cc0-1.0", "cc-by-4.0", "cc-by-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0"),
    *("cc-by-nc-nd-4.0", "mpl-2.0", "unlicense", "openrail", "other"),
)
SETTINGS_SHOWN = ("encoder", "image", "views", "objective", "optim", "trainer", "seed", "recipe")


@dataclass(kw_only=True)
class CardFacts:
    """What a card is written from.

    repo_id: "owner/name"; model; record: the run, where there is one; rows: of results; license of
    the weights and data_license, as they were given; data: words on the data, or "".
    """

    repo_id: str
    model: Model
    license: str
    data_license: str
    record: RunRecord | None = None
    rows: Sequence[ResultRow] = field(default_factory=list)
    data: str = ""

    @property
    def results(self) -> dict[str, list[ResultRow]]:
        """Rows of these weights, and their baselines'."""
        return select(self.rows, self.model.sha256)

    @property
    def sources(self) -> list[str]:
        """Names of the data that the weights come from, without folders."""
        origin = self.model.meta.get("origin") or {}
        known = [self.record.config.data.source] if self.record else []
        known += [str(origin[key]) for key in ("source", "trained_on") if origin.get(key)]
        return sorted({without_folders(name) for name in known})

    @property
    def synthetic(self) -> bool:
        """Whether the weights or results come from the embedded data."""
        scored = any(
            row.dataset.startswith(SYNTHETIC) for rows in self.results.values() for row in rows
        )
        trained = any(name.startswith(SYNTHETIC) for name in self.sources)
        return scored or trained or bool(self.record and self.record.synthetic)


def without_folders(text: str) -> str:
    """An absolute path, or NAME:/path, by its last part; anything else as it is.

    >>> [without_folders(text) for text in ("pairs:/home/me/crosspoint", "/a/b", "a/b")]
    ['pairs:crosspoint', 'b', 'a/b']
    """
    name, colon, path = text.rpartition(":")
    if path.startswith("//") or not path.startswith(("/", "~")):
        return text
    return f"{name}{colon}{PurePath(path).name}"


def model_card(facts: CardFacts) -> str:
    """The card, in Markdown with YAML metadata before it.

    Example:
        >>> model_card(facts).splitlines()[0]  # doctest: +SKIP
        '---'
    """
    header = yaml.safe_dump(_metadata(facts), sort_keys=False, allow_unicode=True)
    parts = [
        f"---\n{header}---",
        f"# {facts.repo_id.split('/')[-1]}",
        _what(facts),
        "## Use\n\n```python\n" + _use(facts) + "\n```",
        "## Data\n\n" + _data(facts),
        "## Results\n\n" + _results(facts),
        "## Recipe\n\n" + _recipe(facts),
        "## Licences\n\n"
        f"- weights: {facts.license}\n- data that they were trained on: {facts.data_license}",
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(facts: CardFacts) -> dict[str, Any]:
    from huggingface_hub import ModelCardData

    known = facts.license in LICENCES
    found = facts.results
    tags = ["point-cloud", "3d", "pixcloud", str(facts.model.encoder.spec["name"])]
    tags += ["self-supervised"] if facts.record else []
    tags += ["synthetic-data"] if facts.synthetic else []
    scored = [row for rows in found.values() for row in rows]
    card = ModelCardData(
        license=facts.license if known else "other",
        license_name=None if known else facts.license,
        library_name="pixcloud",
        tags=tags,
        datasets=facts.sources or None,
        metrics=sorted({row.metric for row in scored}) or None,
        model_name=facts.repo_id.split("/")[-1],
        eval_results=metadata(found) or None,
        data_license=facts.data_license,
    )
    return dict(yaml.safe_load(card.to_yaml()))


def _what(facts: CardFacts) -> str:
    encoder = facts.model.encoder
    name = type(encoder).__name__
    gives = f"{encoder.pooled_dim:,} numbers per cloud"
    if encoder.point_dim is not None:
        gives += f", {encoder.point_dim:,} per point"
    lines = [f"A point-cloud encoder: {name}, {gives}."]
    if facts.model.kind == "segmenter":
        parts = facts.model.meta["part_names"]
        count = sum(map(len, parts.values()))
        lines = [f"A segmenter of point clouds: {name} with a head for {count} parts of:"]
        lines += [", ".join(parts) + "."]
    if facts.model.kind == "classifier":
        classes = facts.model.meta["classes"]
        lines = [f"A classifier of point clouds: {name} with a head for {len(classes)} classes:"]
        lines += [", ".join(classes) + "."]
    lines += [f"Weights, SHA-256 `{facts.model.sha256}`; safetensors, no pickles."]
    text = " ".join(lines)
    if facts.synthetic:
        text += (
            "\n\n**Synthetic data.** Weights or results come from procedural objects that are "
            "generated by the library. The numbers compare rows of one table with each other; they "
            "say nothing of real shapes, and compare with nothing that is published."
        )
    return text


def _use(facts: CardFacts) -> str:
    lines = ["import numpy as np, pixcloud", ""]
    code = str(facts.model.encoder.spec["name"])
    if is_code(code):  # somebody's own class, which the repository does not hold
        where = f"PATH/{code}" if ".py:" in code else code
        lines += [f'pixcloud.import_encoder("{where}")  # its code, which is not here']
    if facts.model.kind == "classifier":
        lines += [
            f'classifier = pixcloud.from_pretrained("{facts.repo_id}")  # or owner/name@commit'
        ]
        lines += ["points = np.random.rand(8, 1024, 3)  # (B, N, 3), y up"]
        lines += ["names = classifier.predict(points).names"]
    elif facts.model.kind == "segmenter":
        category = next(iter(facts.model.meta["part_names"]))
        lines += [
            f'segmenter = pixcloud.from_pretrained("{facts.repo_id}")  # or owner/name@commit'
        ]
        lines += ["points = np.random.rand(8, 2048, 3)  # (B, N, 3), y up"]
        lines += [f'parts = segmenter.predict(points, ["{category}"] * 8)  # (8, 2048)']
    else:
        lines += [f'encoder = pixcloud.load_encoder("{facts.repo_id}")  # or owner/name@commit']
        lines += ["points = np.random.rand(8, 1024, 3)  # (B, N, 3), any unit, y up"]
        lines += [f"features = encoder.embed(points)  # (8, {facts.model.encoder.pooled_dim})"]
    return "\n".join(lines)


def _data(facts: CardFacts) -> str:
    lines = [facts.data] if facts.data else []
    if facts.sources:
        named = ", ".join(f"`{name}`" for name in facts.sources)
        lines.append(f"Trained on {named} (the library's name of the reader, and the folder).")
    if facts.record:
        config = facts.record.config
        lines.append(
            f"Pairs seen: {facts.record.pairs_seen:,}, epochs: {facts.record.epochs_done}; clouds "
            f"of {config.data.num_points:,} points."
        )
    return " ".join(lines) or "Nothing is known of the data that these weights were trained on."


def _results(facts: CardFacts) -> str:
    found = facts.results
    if not found:
        return "No results of these weights are at hand."
    # How weights of others were chosen is not known: many were, by their test accuracy.
    chosen = "C, epochs and weights" if facts.record else "C and epochs of these evaluations"
    note = (
        f"Values and intervals in percent. {chosen} are chosen without the test split "
        'unless the protocol says "published", which fixes C. Each number has its settings in '
        "`results.jsonl`."
    )
    return f"{tables(found)}\n\n{note}"


def _recipe(facts: CardFacts) -> str:
    origin = facts.model.meta.get("origin") or {}
    made = f"PixCloud {facts.model.meta.get('pixcloud_version', __version__)}"
    if facts.record is None:
        known = {key: without_folders(str(value)) for key, value in origin.items()}
        if not known:
            return f"Written by {made}; nothing more is known of how they were made."
        return f"Written by {made}.\n\n```yaml\n{yaml.safe_dump(known)}```"
    settings = recipe_of(facts.record)
    line = command(from_dict(PretrainConfig, {**settings, "run": "RUN"}))
    shown = {key: settings[key] for key in SETTINGS_SHOWN if key in settings}
    text = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)
    if "epoch" in origin:
        made += f"; the weights are those of epoch {origin['epoch'] + 1}"
    if origin.get("probe_validation") is not None:
        made += f", the best on validation ({100 * origin['probe_validation']:.1f} %)"
    return f"{made}; all settings are in `recipe.yaml`.\n\n```\n{line}\n```\n\n```yaml\n{text}```"


def recipe_of(record: RunRecord) -> dict[str, Any]:
    """All settings of a run that a result depends on, without folders of this machine."""
    values = dataclasses.asdict(record.config)
    for key in VOLATILE:
        group, _, inner = key.partition(".")
        if inner:
            values.get(group, {}).pop(inner, None)
        else:
            values.pop(group, None)
    return {key: shortened(value) for key, value in values.items() if value != {}}


def shortened(value: Any) -> Any:
    """A JSON value with `without_folders` applied to every text in it."""
    if isinstance(value, dict):
        return {key: shortened(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [shortened(inner) for inner in value]
    return without_folders(value) if isinstance(value, str) else value

"""Stage 9, the protocols by name: what each one needs, and how `pixcloud evaluate` starts it.

Before it: the commands of the protocols. After it: `pixcloud.evaluate.evaluation`. To add a
protocol, write a function from `EvaluateConfig` to its command's config and put one line into
`PROTOCOLS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pixcloud.errors import ConfigError, nearest
from pixcloud.evaluate.command import probe
from pixcloud.evaluate.evaluation_settings import EvaluateConfig
from pixcloud.evaluate.results import ResultRow, format_table
from pixcloud.evaluate.retrieval_command import retrieve
from pixcloud.evaluate.retrieval_settings import RetrieveConfig
from pixcloud.evaluate.segment_settings import SegmentConfig
from pixcloud.evaluate.settings import LabelledConfig, ProbeConfig
from pixcloud.evaluate.training_command import fewshot, finetune, segment
from pixcloud.evaluate.training_settings import (
    AugmentSettings,
    FewShotConfig,
    FinetuneConfig,
    FitSettings,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

Settings = TypeVar("Settings", FitSettings, AugmentSettings)


def _probe_config(config: EvaluateConfig) -> ProbeConfig:
    data = LabelledConfig(source=config.data.source)
    return ProbeConfig(encoder=config.encoder, data=data, probe=config.probe, out=config.out)


def _fewshot_config(config: EvaluateConfig) -> FewShotConfig:
    data = LabelledConfig(source=config.data.source)
    return FewShotConfig(encoder=config.encoder, data=data, fewshot=config.fewshot, out=config.out)


def _point_bert_config(config: EvaluateConfig) -> FewShotConfig:
    return dataclasses.replace(
        _fewshot_config(config),
        protocol="point-bert",
        fit=config.fit,
        optim=config.optim,
        augment=config.augment,
    )


def _retrieve_config(config: EvaluateConfig) -> RetrieveConfig:
    return RetrieveConfig(
        encoder=config.encoder, data=config.data, retrieve=config.retrieve, out=config.out
    )


def _finetune_config(config: EvaluateConfig) -> FinetuneConfig:
    return FinetuneConfig(
        encoder=config.encoder,
        data=LabelledConfig(source=config.data.source),
        finetune=config.finetune,
        fit=config.fit,
        optim=config.optim,
        augment=config.augment,
        baseline=config.baseline,
        out=config.out,
    )


def _segment_config(config: EvaluateConfig) -> SegmentConfig:
    own = SegmentConfig(
        encoder=config.encoder,
        data=LabelledConfig(source=config.data.source),
        segment=config.segment,
        optim=config.optim,
        baseline=config.baseline,
        out=config.out,
    )
    return dataclasses.replace(
        own, fit=_changed(config.fit, own.fit), augment=_changed(config.augment, own.augment)
    )


def _changed(given: Settings, own: Settings) -> Settings:
    """A protocol's own settings, with what is not as it is by default for all of them."""
    default = type(given)()
    fields = [field.name for field in dataclasses.fields(default)]
    changed = {
        name: getattr(given, name)
        for name in fields
        if getattr(given, name) != getattr(default, name)
    }
    return dataclasses.replace(own, **changed)


def _accuracies(rows: Sequence[ResultRow], title: str) -> RenderableType:
    return format_table(rows, title=title)


def _retrieved(rows: Sequence[ResultRow], title: str) -> RenderableType:
    from pixcloud.evaluate.retrieval import retrieval_table

    return retrieval_table(rows, title)


def _segmented(rows: Sequence[ResultRow], title: str) -> RenderableType:
    from pixcloud.evaluate.part_result import segment_tables

    return segment_tables(rows, title)


@dataclass(frozen=True)
class Protocol:
    """One protocol.

    title: of its table; needs: "labels", or "any" of pairs and labels; settings: makes its
    command's config; run: the command; table: shows its rows, in one table or more; by_default:
    whether it runs unless others are named.
    """

    title: str
    needs: Literal["labels", "any"]
    settings: Callable[[EvaluateConfig], Any]
    run: Callable[[Any], Any]
    table: Callable[[Sequence[ResultRow], str], RenderableType] = _accuracies
    by_default: bool = True


PROTOCOLS: dict[str, Protocol] = {
    "probe": Protocol("Linear probe", "labels", _probe_config, probe),
    "fewshot": Protocol("Few-shot", "labels", _fewshot_config, fewshot),
    "fewshot-point-bert": Protocol(
        "Few-shot, Point-BERT's way", "labels", _point_bert_config, fewshot, by_default=False
    ),
    "retrieve": Protocol("Retrieval", "any", _retrieve_config, retrieve, _retrieved),
    "finetune": Protocol("Fine-tuning", "labels", _finetune_config, finetune, by_default=False),
    "segment": Protocol(
        "Part segmentation", "labels", _segment_config, segment, _segmented, by_default=False
    ),
}

ALL = "all"


def chosen_protocols(names: Sequence[str]) -> list[str]:
    """The named protocols in the order of the table, or those that run by default; "all" are all.

    Raises:
        ConfigError: for an unknown name.

    >>> chosen_protocols([]), chosen_protocols(["finetune", "probe"])
    (['probe', 'fewshot', 'retrieve'], ['probe', 'finetune'])
    >>> len(chosen_protocols(["all"])) == len(PROTOCOLS)
    True
    """
    if list(names) == [ALL]:
        return list(PROTOCOLS)
    for name in names:
        if name not in PROTOCOLS:
            raise ConfigError(f"protocols: unknown protocol '{name}': {nearest(name, PROTOCOLS)}")
    return [
        name for name, each in PROTOCOLS.items() if (name in names if names else each.by_default)
    ]

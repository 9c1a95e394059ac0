"""Stage 9, settings of `pixcloud evaluate`: those of every protocol that it runs.

Read by `pixcloud.evaluate.evaluation`. No torch, so that help is fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pixcloud.config import OptimConfig
from pixcloud.evaluate.retrieval_settings import RetrievalData, RetrievalSettings
from pixcloud.evaluate.segment_settings import SegmentSettings
from pixcloud.evaluate.settings import ProbeSettings
from pixcloud.evaluate.training_settings import (
    AugmentSettings,
    FewShotSettings,
    FinetuneSettings,
    FitSettings,
)


@dataclass
class EvaluateConfig:
    """All protocols that the data allow.

    Args:
        encoder: a run, an exported or imported encoder, or a Hugging Face Hub id.
        data: pairs of clouds and pictures, labelled clouds with a train and a test split, or both.
        protocols: which ones of probe, fewshot (CrossPoint's way), fewshot-point-bert, retrieve,
            finetune and segment, such as [probe,finetune]. Empty takes those without training that
            the data allow, [all] takes all of them; what is left out is said. Of those that are
            named, one that cannot be done is an error.
        probe: of `pixcloud probe`.
        fewshot: of `pixcloud fewshot`, for both ways.
        retrieve: of `pixcloud retrieve`.
        finetune: of `pixcloud finetune`.
        segment: of `pixcloud segment`.
        fit: of what trains: `pixcloud finetune`, `segment` and Point-BERT's few-shot. What is as it
            is by default is for `segment` as it is by default there (batches of 16).
        optim: likewise.
        augment: likewise (shifts of up to 0.1 in `segment`).
        baseline: of `pixcloud finetune` and `segment`.
        against: other encoders, which go through the same; the last table then compares each with
            the first by paired tests.
        table: Markdown file for the last table: of all results of the encoder, or with `against`
            of the encoders side by side.
        out: file to append the results to; the run's results.jsonl where the encoder is a run,
            else results.jsonl beside the encoder, or here for one from the Hub. What it holds
            already, of the same weights, data and settings, is shown and not computed again.
    """

    encoder: str
    data: RetrievalData = field(default_factory=RetrievalData)
    protocols: list[str] = field(default_factory=list)
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    fewshot: FewShotSettings = field(default_factory=FewShotSettings)
    retrieve: RetrievalSettings = field(default_factory=RetrievalSettings)
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    segment: SegmentSettings = field(default_factory=SegmentSettings)
    fit: FitSettings = field(default_factory=FitSettings)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    baseline: Literal["none", "scratch"] = "none"
    against: list[str] = field(default_factory=list)
    table: str = ""
    out: str = ""

"""Stage 9, `pixcloud finetune`, `fewshot`, `segment`: a saved encoder, labelled data -> rows.

Their options are in `pixcloud.evaluate.training_settings` and `segment_settings`; the work is done
by `pixcloud.evaluate.finetune`, `few_shot` and `segment`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pixcloud.evaluate.command import lasting, results_file
from pixcloud.evaluate.segment_settings import SegmentConfig
from pixcloud.evaluate.training_settings import FewShotConfig, FinetuneConfig

if TYPE_CHECKING:
    from pixcloud.encoders import PointEncoder
    from pixcloud.evaluate.few_shot import FewShotResult
    from pixcloud.evaluate.finetune import FinetuneResult
    from pixcloud.evaluate.part_result import SegmentResult


def finetune(config: FinetuneConfig) -> FinetuneResult:
    """Fine-tune an encoder for classification, and score it on the test split once.

    Args:
        config: see `FinetuneConfig`.

    Returns:
        The rows, which are appended to the results file too; printing it shows a table.

    Raises:
        PixCloudError: for an encoder, data or settings that the user can mend.

    Example:
        >>> finetune(FinetuneConfig(encoder="runs/demo"))  # doctest: +SKIP
    """
    from pixcloud.data.sources import open_labelled
    from pixcloud.evaluate.finetune import run_finetune

    out = results_file(config.out, config.encoder)
    return run_finetune(
        _encoder(config.encoder),
        config.encoder,
        open_labelled(config.data.source, "train"),
        open_labelled(config.data.source, "test"),
        config,
        out=out,
        say=_say,
        source=lasting(config.data.source),
    )


def fewshot(config: FewShotConfig) -> FewShotResult:
    """Score an encoder on few-shot trials, CrossPoint's or Point-BERT's way.

    Args:
        config: see `FewShotConfig`.

    Returns:
        The rows, which are appended to the results file too; printing it shows a table.

    Raises:
        PixCloudError: for an encoder, data or settings that the user can mend.

    Example:
        >>> fewshot(FewShotConfig(encoder="runs/demo"))  # doctest: +SKIP
    """
    from pixcloud.data.sources import open_labelled
    from pixcloud.evaluate.few_shot import run_few_shot

    out = results_file(config.out, config.encoder)
    return run_few_shot(
        _encoder(config.encoder),
        config.encoder,
        open_labelled(config.data.source, "train"),
        open_labelled(config.data.source, "test"),
        config,
        out=out,
        say=_say,
        source=lasting(config.data.source),
    )


def segment(config: SegmentConfig) -> SegmentResult:
    """Train a part segmenter on an encoder, and score it on the test split once.

    Args:
        config: see `SegmentConfig`.

    Returns:
        The rows, which are appended to the results file too; printing it shows a table of them and
        one of the categories for each rule.

    Raises:
        PixCloudError: for an encoder, data or settings that the user can mend.

    Example:
        >>> segment(SegmentConfig(encoder="runs/demo"))  # doctest: +SKIP
    """
    from pixcloud.data.sources import open_parts, split_there
    from pixcloud.evaluate.part_splits import joined
    from pixcloud.evaluate.segment import run_segment

    out, source = results_file(config.out, config.encoder), config.data.source
    train = open_parts(source, "train")
    if config.segment.with_val and split_there(source, "val"):
        train = joined(train, open_parts(source, "val"))
    return run_segment(
        _encoder(config.encoder),
        config.encoder,
        train,
        open_parts(source, "test"),
        config,
        out=out,
        say=_say,
        source=lasting(source),
    )


def _encoder(name: str) -> PointEncoder:
    import torch

    from pixcloud.export import load_encoder

    encoder = load_encoder(name)
    return encoder.cuda() if torch.cuda.is_available() else encoder


def _say(message: str) -> None:
    print(message, file=sys.stderr)

"""Stage 9, `pixcloud finetune` and `fewshot`: a saved encoder and a labelled source -> rows.

Their options are in `pixcloud.evaluate.training_settings`; the work is done by
`pixcloud.evaluate.finetune` and `few_shot`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pixcloud.evaluate.command import lasting, results_file
from pixcloud.evaluate.training_settings import FewShotConfig, FinetuneConfig

if TYPE_CHECKING:
    from pixcloud.encoders import PointEncoder
    from pixcloud.evaluate.few_shot import FewShotResult
    from pixcloud.evaluate.finetune import FinetuneResult


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


def _encoder(name: str) -> PointEncoder:
    import torch

    from pixcloud.export import load_encoder

    encoder = load_encoder(name)
    return encoder.cuda() if torch.cuda.is_available() else encoder


def _say(message: str) -> None:
    print(message, file=sys.stderr)

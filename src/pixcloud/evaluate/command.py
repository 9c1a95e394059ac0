"""Stage 9, `pixcloud probe`: a saved encoder and a labelled source -> rows of `results.jsonl`.

The options stand here without torch, so that their help is fast; the work is done by
`pixcloud.evaluate.probe`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pixcloud.evaluate.settings import ProbeSettings

if TYPE_CHECKING:
    from pixcloud.evaluate.probe import ProbeResult


@dataclass(kw_only=True)
class LabelledConfig:
    """Labelled clouds.

    Args:
        source: NAME:/path, or a path that is recognised by what lies there; "synthetic" is the
            embedded data.
    """

    source: str = "synthetic"


@dataclass(kw_only=True)
class ProbeConfig:
    """A linear probe.

    Args:
        encoder: a run, an exported or imported encoder, or a Hugging Face Hub id.
        data: labelled clouds with a train and a test split.
        probe: how the features are scored.
        out: file to append the results to; the run's results.jsonl where the encoder is a run,
            else results.jsonl beside the encoder, or here for one from the Hub.
    """

    encoder: str
    data: LabelledConfig = field(default_factory=LabelledConfig)
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    out: str = ""


def probe(config: ProbeConfig) -> ProbeResult:
    """Score frozen features by a linear SVM, beside an untrained encoder and a descriptor.

    Args:
        config: see `ProbeConfig`.

    Returns:
        The rows, which are appended to `config.out` too; printing it shows a table.

    Raises:
        PixCloudError: for an encoder, data or settings that the user can mend.

    Example:
        >>> probe(ProbeConfig(encoder="runs/demo"))  # doctest: +SKIP
    """
    from pixcloud.data.sources import open_labelled
    from pixcloud.evaluate.probe import run_probe
    from pixcloud.export import load_encoder

    encoder = load_encoder(config.encoder)
    train = open_labelled(config.data.source, "train")
    test = open_labelled(config.data.source, "test")
    return run_probe(
        encoder,
        config.encoder,
        train,
        test,
        config.probe,
        out=_results_file(config),
        say=lambda message: print(message, file=sys.stderr),
    )


def _results_file(config: ProbeConfig) -> Path:
    if config.out:
        return Path(config.out)
    folder = Path(config.encoder).expanduser()
    return (folder if folder.is_dir() else Path()) / "results.jsonl"

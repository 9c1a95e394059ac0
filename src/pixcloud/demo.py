"""The whole journey on the embedded data: pairs, pre-training, linear probe, table, page."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pixcloud.evaluate.probe import ProbeResult


def demo(run: str = "runs/demo", seed: int = 0) -> ProbeResult:
    """Make the embedded data, pre-train on it, probe the encoder and write a page.

    Called again, it takes up what is there: the data, a run cut short, features.

    Args:
        run: the run folder.
        seed: of the pre-training run.

    Returns:
        The results; printing them shows a table.
    """
    from pixcloud.config import pretrain_config
    from pixcloud.data.synthetic import ensure_synthetic
    from pixcloud.evaluate.command import probe
    from pixcloud.evaluate.settings import ProbeConfig
    from pixcloud.report.page import report
    from pixcloud.trainer import pretrain

    start = time.perf_counter()

    def say(message: str) -> None:
        print(f"[{time.perf_counter() - start:4.0f} s] {message}", file=sys.stderr)

    say("1/4 the embedded data: procedural shapes, pictures of them, labels")
    say(f"    in {ensure_synthetic()}")
    say("2/4 pre-training, without labels")
    pretrain(pretrain_config("demo", run=run, seed=seed, resume=True))
    say("3/4 linear probe on held-out shapes")
    result = probe(ProbeConfig(encoder=run))
    say("4/4 the page")
    say(f"    {report([run])}")
    return result

"""Stage 9, is an ONNX file the model? Both on the same clouds -> how far each output is apart.

After `pixcloud.share.onnx_file` has written the file. A wrong file differs nearly everywhere. A
right one may still differ here and there: points at nearly the same distance compete for the last
place among the neighbours, other rounding lets another one win, and what depends on it changes a
little. So nearly all values must be equal up to rounding, and the rest may be near.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pixcloud.errors import WeightsError

# Differences are told as shares of the output's largest value.
CLOSE, CLOSE_SHARE, NEAR = 1e-5, 0.99, 2e-2
_STREAM = 0x0E


@dataclass(kw_only=True, frozen=True)
class Agreement:
    """output: its name; largest: difference, as a share of the output's largest value; close: share
    of its values that are within `CLOSE`.
    """

    output: str
    largest: float
    close: float

    @property
    def holds(self) -> bool:
        return self.largest <= NEAR and self.close >= CLOSE_SHARE

    def __str__(self) -> str:
        return (
            f"{self.output}: largest difference {self.largest:.1e} of the largest value, "
            f"{100 * self.close:.2f} % of the values within {CLOSE:.0e}"
        )


def clouds(batch: int, num_points: int) -> np.ndarray:
    """Clouds (B, N, 3) float32 that a file is checked with: normal draws, off the origin."""
    seeds = np.random.SeedSequence([_STREAM, batch, num_points])
    draws = np.random.Generator(np.random.Philox(seeds)).normal(size=(batch, num_points, 3))
    return (draws * [1.0, 0.7, 0.4] + 0.5).astype(np.float32)


def compare(
    path: Path,
    module: nn.Module,
    outputs: Sequence[str],
    batches: Sequence[dict[str, torch.Tensor]],
) -> list[Agreement]:
    """Run a file and the module that it was made of on the same input.

    Args:
        path: ONNX file.
        module: inputs to a tuple of outputs.
        outputs: their names.
        batches: input name to tensor.

    Returns:
        For each output the worst over the batches.

    Raises:
        WeightsError: if the file cannot be run, or an output is not the module's.
    """
    worst: dict[str, Agreement] = {}
    session = _session(path)
    for given in batches:
        arrays = {name: tensor.numpy() for name, tensor in given.items()}
        with _told():
            found = session.run(list(outputs), arrays)
        with torch.no_grad():
            expected = module(*given.values())
        for name, ours, theirs in zip(outputs, expected, found, strict=True):
            _keep_worse(worst, _agreement(name, ours.numpy(), np.asarray(theirs)))
    for agreement in worst.values():
        if not agreement.holds:
            raise WeightsError(
                f"the ONNX file does not give what the model gives, so it is not kept; {agreement};"
                f" at least {100 * CLOSE_SHARE:.0f} % and at most {NEAR:.0e} are expected"
            )
    return list(worst.values())


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; that a constant is not used is none
    with _told():
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """The runtime's errors in one line."""
    try:
        yield
    except Exception as error:  # the runtime's errors have no base of their own
        line = str(error).strip().splitlines()[0][:200]
        raise WeightsError(f"the ONNX file cannot be run, so it is not kept ({line})") from error


def _agreement(name: str, ours: np.ndarray, theirs: np.ndarray) -> Agreement:
    if ours.shape != theirs.shape or not np.isfinite(theirs).all():
        return Agreement(output=name, largest=float("inf"), close=0.0)
    # The largest size makes it relative; of a single number near zero nobody asks for digits.
    away = np.abs(ours - theirs) / max(float(np.abs(ours).max()), 1e-12)
    return Agreement(output=name, largest=float(away.max()), close=float((away <= CLOSE).mean()))


def _keep_worse(worst: dict[str, Agreement], new: Agreement) -> None:
    old = worst.get(new.output, new)
    worst[new.output] = Agreement(
        output=new.output, largest=max(old.largest, new.largest), close=min(old.close, new.close)
    )

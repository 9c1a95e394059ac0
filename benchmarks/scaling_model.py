"""What 64 and 1,024 GPUs would exchange and wait for: a small model, and a plot of it.

`python -m benchmarks.scaling_model` prints the table of docs/distributed.md and writes its plot.
Bytes are counted from the recipe "crosspoint"; times follow from the constants below, which are
assumptions wherever no measurement is named: no GPU has been measured for them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from benchmarks.plot import BLUE, GREY, INK, ORANGE, _line, _picture, _text
from pixcloud.distributed import FEW

PLOT = Path(__file__).resolve().parents[1] / "docs" / "images" / "distributed-scaling.svg"
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Model:
    """Constants of the recipe (counted) and of the machines (assumed).

    weights: trained numbers of both encoders and heads; layers, channels: BN layers, and their
    channels together; pairs: of one process; projection: P; compute: seconds of forward and
    backward for `pairs`; latency: seconds of one step of a collective's tree; bandwidth: bytes per
    second out of one GPU, within a machine of `local` GPUs and beyond it; overlap: share of the
    backward pass behind which gradients can be exchanged.
    """

    weights: int = 27_669_184
    layers: int = 60
    channels: int = 29_632
    pairs: int = 20
    projection: int = 256
    compute: float = 0.080
    latency: float = 8e-6
    bandwidth: float = 300e9
    beyond: float = 25e9
    local: int = 8
    overlap: float = 0.6

    def bytes(self, world: int) -> dict[str, float]:
        """Sent by one process in a step, for each purpose."""
        ring = (world - 1) / world
        batch = world * self.pairs
        return {
            "gradients": 2 * ring * 4 * self.weights,
            # Projections of two views and a picture, gathered; their gradients, scattered.
            "loss": 2 * ring * batch * 3 * self.projection * 4,
            # Moments forward; two sums backward.
            "batch statistics": self._moments(world) + 2 * ring * 8 * 2 * self.channels,
        }

    def _moments(self, world: int) -> float:
        """Means, variances and counts in double precision: gathered of few, else added up."""
        numbers = 8 * (2 * self.channels + self.layers)
        return (world - 1) * numbers if world <= FEW else 2 * (world - 1) / world * numbers

    def seconds(self, world: int) -> dict[str, float]:
        """Of a step: computing, and waiting for each exchange."""
        if world == 1:
            return {"compute": self.compute, "gradients": 0, "loss": 0, "batch statistics": 0}
        speed = self.bandwidth if world <= self.local else self.beyond
        sent = self.bytes(world)
        hop = self.latency * math.ceil(math.log2(world))
        gradients = sent["gradients"] / speed + 2 * hop
        hidden = self.overlap * self.compute * 2 / 3
        return {
            "compute": self.compute,
            "gradients": max(0.0, gradients - hidden),
            "loss": sent["loss"] / speed + 2 * hop,
            # A gathering or two sums forward, a sum backward, of each layer; they hide behind
            # nothing. A sum goes up and down the tree.
            "batch statistics": (3 if world <= FEW else 6) * self.layers * hop
            + sent["batch statistics"] / speed,
        }

    def efficiency(self, world: int) -> float:
        """Pairs per second and process, over those of one process alone."""
        return self.compute / sum(self.seconds(world).values())


def rows(model: Model) -> list[str]:
    """The table of the document."""
    lines = [
        "| GPUs | batch | gradients, MB | loss, MB | statistics, MB | waiting, ms | efficiency |",
        "|---|---|---|---|---|---|---|",
    ]
    for world in (2, 8, 64, 1024):
        sent, times = model.bytes(world), model.seconds(world)
        waiting = 1000 * (sum(times.values()) - times["compute"])
        megabytes = " | ".join(f"{sent[k] / 1e6:,.1f}" for k in sent)
        lines.append(
            f"| {world:,} | {world * model.pairs:,} | {megabytes} | {waiting:.1f} | "
            f"{100 * model.efficiency(world):.0f} % |"
        )
    return lines


def plot(model: Model) -> str:
    """Efficiency against GPUs, for the assumed compute time and for half and twice of it."""
    left, right, top, bottom = 70, 690, 60, 320
    parts = [_text(40, 30, "Rate per GPU, of one GPU alone (model)", weight="600", size=15)]

    def place(world: int, share: float) -> tuple[float, float]:
        return (
            left + (right - left) * math.log2(world) / math.log2(SIZES[-1]),
            bottom - (bottom - top) * share,
        )

    for share in (0, 0.25, 0.5, 0.75, 1):
        _, y = place(1, share)
        parts.append(_line(left, y, right, y, GREY))
        parts.append(_text(left - 8, y + 4, f"{100 * share:.0f} %", anchor="end", size=12))
    for world in SIZES:
        x, _ = place(world, 0)
        parts.append(_text(x, bottom + 20, f"{world:,}", anchor="middle", size=12))
    parts.append(_text((left + right) / 2, bottom + 42, "GPUs, 20 pairs each", anchor="middle"))
    for factor, color in ((2.0, INK), (1.0, BLUE), (0.5, ORANGE)):
        changed = Model(compute=model.compute * factor)
        dots = [place(world, changed.efficiency(world)) for world in SIZES]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2.5"/>')
        x, y = dots[-1]
        label = f"{1000 * changed.compute:.0f} ms of computing"
        parts.append(_text(x + 8, y + 4, label, color=color, size=12))
    return _picture(860, 380, parts)


if __name__ == "__main__":
    PLOT.write_text(plot(Model()), encoding="utf-8")
    print("\n".join(rows(Model())))

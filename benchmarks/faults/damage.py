"""Truncated and bit-flipped checkpoints: resuming passes over them and ends with the same bits.

One run is killed half-way with four checkpoints; each fault damages a copy of its folder and goes
on from there.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.faults.children import Children
from benchmarks.faults.fault import Fault, Setting
from benchmarks.faults.tiny_run import (
    STEPS_PER_EPOCH,
    FaultRunError,
    checkpoints,
    differences,
    starts,
    train,
    words,
    write_pairs,
)

FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")
OPTIONS = {
    "trainer__epochs": 4,
    "trainer__log_every": 4,
    "trainer__checkpoint_every": 5,
    "trainer__keep_checkpoints": 4,
}
HALF = 2 * STEPS_PER_EPOCH + 3


@dataclass(frozen=True)
class Damage:
    """newest: how many of the newest checkpoints; the kind and the file go on by one for each."""

    newest: int
    kinds: tuple[str, ...]
    files: tuple[str, ...]


def plan(count: int) -> list[Damage]:
    """Each file cut and flipped in the newest one, then the same over several newest ones."""
    alone = [Damage(1, (kind,), (file,)) for kind in ("cut", "flip") for file in FILES]
    several = [
        Damage(newest, ("cut", "flip", "cut"), tuple(FILES[(first + n) % 4] for n in range(3)))
        for newest, first in ((2, 0), (3, 1), (2, 2), (3, 3))
    ]
    # The first few are of all sorts, for small counts.
    mixed = [alone[0], several[0], alone[5], *alone[1:5], *alone[6:], *several[1:]]
    return list(itertools.islice(itertools.cycle(mixed), count))


def impossible() -> str:
    """Why this part cannot run here; empty if it can."""
    return ""


def faults(count: int, setting: Setting) -> Iterator[Fault]:
    """`count` damaged runs, each gone on with to its end."""
    pairs = write_pairs(setting.work / "pairs")
    log = setting.work / "output.log"
    with Children(setting.work / "cache") as children:
        undisturbed = train(children, words(pairs, setting.work / "undisturbed", **OPTIONS), log)
        half = setting.work / "half"
        stop_half_way(children, words(pairs, half, **OPTIONS), half, log)
        for number, damage in enumerate(plan(count)):
            run = setting.work / f"damaged-{number}"
            shutil.copytree(half, run)
            rng = np.random.Generator(
                np.random.Philox(np.random.SeedSequence([setting.seed, 2, number]))
            )
            done = [spoil(path, *how, rng) for path, how in _places(run, damage)]
            code, said = children.finish(["-m", *words(pairs, run, **OPTIONS)], log)
            yield Fault(
                what="; ".join(done),
                violated=wrong(run, undisturbed, damage.newest, code, said),
                values={"kind": f"{damage.newest} newest"},
            )
            shutil.rmtree(run)


def stop_half_way(children: Children, arguments: list[str], run: Path, log: Path) -> None:
    """Start the run and kill it when it has four checkpoints and is half-way.

    Raises:
        FaultRunError: if it ends before.
    """
    child = children.start(["-m", *arguments], log)
    half = f"step-{HALF // 5 * 5:08d}"
    while not (found := checkpoints(run)) or found[-1].name < half:
        if child.poll() is not None:
            raise FaultRunError(f"the run to be damaged ended with exit code {child.returncode}")
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()


def _places(run: Path, damage: Damage) -> list[tuple[Path, tuple[str]]]:
    newest = list(reversed(checkpoints(run)))[: damage.newest]
    return [
        (path / file, (kind,))
        for path, file, kind in zip(newest, damage.files, damage.kinds, strict=False)
    ]


def spoil(path: Path, kind: str, rng: np.random.Generator) -> str:
    """Cut the file at a random place, or flip one random bit of it; says what was done."""
    content = bytearray(path.read_bytes())
    place = int(rng.integers(len(content)))
    name = f"{path.parent.name}/{path.name}"
    if kind == "cut":
        path.write_bytes(content[:place])
        return f"{name} cut to {place} of {len(content)} bytes"
    bit = int(rng.integers(8))
    content[place] ^= 1 << bit
    path.write_bytes(content)
    return f"{name} with bit {bit} of byte {place} flipped"


def wrong(run: Path, undisturbed: Path, newest: int, code: int, said: str) -> list[str]:
    """What does not hold after the damaged run was gone on with."""
    if code != 0:
        return [f"exit code {code}: {said[-300:]}"]
    found = differences(run, undisturbed)
    log = (run / "train.log").read_text(encoding="utf-8")
    passed = [text for text in log.splitlines() if "passing over a damaged checkpoint" in text]
    last = HALF // 5 * 5
    # It may have saved once more before the kill reached it.
    first = max(int(text.split("step-")[1][:8]) for text in passed) if passed else last
    for step in range(first, first - 5 * newest, -5):
        if not any(f"step-{step:08d}" in text for text in passed):
            found.append(f"no line names the damaged step-{step:08d}")
    if len(passed) != newest:
        found.append(f"{len(passed)} lines of damaged checkpoints, not {newest}")
    if starts(run)[-1] != first - 5 * newest:
        found.append(f"it went on from step {starts(run)[-1]}, not {first - 5 * newest}")
    return found

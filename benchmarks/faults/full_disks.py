"""Disks that fill up during a run: one line and exit code 2, nothing lost, and on with room made.

Every disk leaves another number of pages free, so that another file of the run does not fit: what
a run writes before it is known to the page from the undisturbed run.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.faults.children import Children
from benchmarks.faults.fault import Fault, Setting
from benchmarks.faults.small_disk import PAGE, cannot_mount, leave_pages, make_room, small_disk
from benchmarks.faults.tiny_run import (
    checkpoints,
    differences,
    leftovers,
    starts,
    train,
    words,
    write_pairs,
)

EVERY = 20
# So few lines that config.yaml, train.log and metrics.jsonl take one page each.
OPTIONS = {"trainer__epochs": 4, "trainer__log_every": 10, "trainer__checkpoint_every": EVERY}
FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")


@dataclass(frozen=True)
class Place:
    """Where a run meets the end of the disk: a file, and for checkpoints' files the how-manieth."""

    file: str
    save: int = 0


PLACES = (
    Place("optimizer.safetensors", 3),
    Place("metrics.jsonl"),
    Place("train.log"),
    Place("model.safetensors", 2),
    Place("manifest.json", 2),
    Place("state.json", 3),
    Place("model.safetensors", 1),
    Place("manifest.json", 1),
    Place("state.json", 1),
    Place("optimizer.safetensors", 2),
)


def impossible() -> str:
    """Why this part cannot run here; empty if it can."""
    return cannot_mount()


def faults(count: int, setting: Setting) -> Iterator[Fault]:
    """`count` full disks, each freed and gone on with to the end of the run."""
    pairs = write_pairs(setting.work / "pairs")
    log = setting.work / "output.log"
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([setting.seed, 3])))
    with Children(setting.work / "cache") as children:
        undisturbed = train(children, words(pairs, setting.work / "undisturbed", **OPTIONS), log)
        sizes = pages_of(undisturbed)
        size = 4 * sum(sizes.values()) * PAGE + 2**20
        for number, place in enumerate(itertools.islice(itertools.cycle(PLACES), count)):
            with small_disk(setting.work / f"disk-{number}", size) as disk:
                free = pages_left(place, sizes, rng)
                leave_pages(disk, free)
                arguments = ["-m", *words(pairs, disk / "run", **OPTIONS)]
                code, said = children.finish(arguments, log)
                violated = wrong_when_full(disk / "run", place, code, said)
                make_room(disk)
                code, said = children.finish(arguments, log)
                violated += wrong_at_the_end(disk / "run", undisturbed, place, code, said)
            where = f"{place.file} of save {place.save}" if place.save else place.file
            yield Fault(
                what=f"disk full at {where}, {free * PAGE // 1024} KiB were free",
                violated=violated,
                values={"kind": place.file},
            )


def pages_of(run: Path) -> dict[str, int]:
    """Pages of each file of a checkpoint."""
    last = checkpoints(run)[-1]
    return {name: -(-(last / name).stat().st_size // PAGE) for name in FILES}


def pages_left(place: Place, sizes: dict[str, int], rng: np.random.Generator) -> int:
    """How many free pages make a new run fail at this place."""
    if not place.save:
        return {"config.yaml": 0, "train.log": 1, "metrics.jsonl": 2}[place.file]
    before = 3 + (place.save - 1) * sum(sizes.values())
    before += sum(sizes[name] for name in itertools.takewhile(lambda n: n != place.file, FILES))
    # Any part of the file may fit, but not all of it.
    return before + int(rng.integers(sizes[place.file]))


def wrong_when_full(run: Path, place: Place, code: int, said: str) -> list[str]:
    """What does not hold when the disk is full."""
    from pixcloud.checkpoint import load_checkpoint
    from pixcloud.errors import CheckpointError

    found = []
    errors = [text for text in said.splitlines() if text.startswith("pixcloud: error:")]
    if code != 2:
        found.append(f"exit code {code}, not 2: {said[-300:]}")
    if "Traceback" in said or len(errors) != 1 or said.splitlines()[-1] != errors[0]:
        found.append(f"not one line at the end: {said[-300:]}")
    name = f"checkpoints/step-{place.save * EVERY:08d}" if place.save else place.file
    if errors and str(run / name) not in errors[0]:
        found.append(f"the line does not name {name}: {errors[0]}")
    kept = [path.name for path in checkpoints(run)]
    expected = [f"step-{n * EVERY:08d}" for n in range(1, max(place.save, 1))][-2:]
    if kept != expected:
        found.append(f"checkpoints {', '.join(kept) or 'none'} are there, not {expected}")
    for path in checkpoints(run):
        try:
            load_checkpoint(path)
        except CheckpointError as error:
            found.append(f"an earlier checkpoint is not whole: {error}")
    if left := leftovers(run):
        found.append(f"leftovers take room: {', '.join(left)}")
    return found


def wrong_at_the_end(run: Path, undisturbed: Path, place: Place, code: int, said: str) -> list[str]:
    """What does not hold when there is room again and the run has gone on to its end."""
    if code != 0:
        return [f"with room made: exit code {code}: {said[-300:]}"]
    found = differences(run, undisturbed)
    last = max(place.save - 1, 0) * EVERY
    if starts(run)[-1] != last:
        found.append(f"it went on from step {starts(run)[-1]}, not {last}")
    return found

"""SIGKILLs during a save: every checkpoint is whole or absent, never half.

A child saves again and again and says through shared memory when each save begins and ends; the
parent kills it at a random moment of one of them. A kill between two saves does not count.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.fault import Fault, Setting

_CONTEXT = multiprocessing.get_context("forkserver")
LIMIT = 60.0


def impossible() -> str:
    """Why this part cannot run here; empty if it can."""
    return "" if hasattr(signal, "SIGKILL") else "no SIGKILL on this system"


def faults(count: int, setting: Setting) -> Iterator[Fault]:
    """`count` kills within saves, one after the other in one folder."""
    from benchmarks.faults import saving

    # What each child would import by itself; a name that is not there is passed over.
    late = "torch._dynamo"
    _CONTEXT.set_forkserver_preload(["benchmarks.faults.saving", late])
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([setting.seed, 1])))
    folder = setting.work / "checkpoints"
    made = saving.template()
    lasted: list[float] = []
    fired = missed = 0
    while fired < count:
        shared = _CONTEXT.RawArray("q", 4)
        if not kill_in_a_save(folder, shared, rng, lasted):
            missed += 1
            if missed > 3 * count + 10:
                yield Fault(what="kills", violated=["most of them hit no save"], counted=False)
                return
            continue
        fired += 1
        saved, done = shared[saving.BEGUN], shared[saving.DONE]
        stage = stage_of(folder, saved)
        violated = wrong(folder, saved, done, made)
        yield Fault(
            what=f"SIGKILL in the save of step {saved}, {stage}",
            violated=violated,
            values={"kind": stage},
        )
    yield last_word(folder, made, missed, lasted)


def kill_in_a_save(
    folder: Path, shared: Any, rng: np.random.Generator, lasted: list[float]
) -> bool:
    """Start a child and kill it at a random moment of a random save; whether it was within one."""
    from benchmarks.faults import saving

    child = _CONTEXT.Process(target=saving.save_forever, args=(folder, shared, 0))
    child.start()
    try:
        first = wait_for(child, shared, saving.BEGUN, 1)
        # The second one at least: its length is known, and a leftover of before must be gone.
        target = first + int(rng.integers(1, 5))
        wait_for(child, shared, saving.DONE, target - 1)
        lasted.append(shared[saving.LASTED] / 1e9)
        share = float(rng.uniform(0, 1.05)) * statistics.median(lasted[-9:])
        wait_for(child, shared, saving.BEGUN, target)
        moment = shared[saving.BEGUN_AT] / 1e9 + share
        while (left := moment - time.monotonic()) > 0:
            time.sleep(min(left, 0.001))
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
    finally:
        if child.is_alive():
            child.kill()
        child.join()
    assert child.exitcode == -signal.SIGKILL, f"the child ended with {child.exitcode}"
    return bool(shared[saving.BEGUN] == shared[saving.DONE] + 1)


def wait_for(child: BaseProcess, shared: Any, place: int, value: int) -> int:
    """Wait until the number at `place` is at least `value`; returns it."""
    start = time.monotonic()
    while shared[place] < value:
        if not child.is_alive() or time.monotonic() - start > LIMIT:
            raise RuntimeError(f"the saving process does not save (exit code {child.exitcode})")
        time.sleep(0.0002)
    return int(shared[place])


def stage_of(folder: Path, saved: int) -> str:
    """How far the save had come, from what it left."""
    if (folder / f"step-{saved:08d}").exists():
        return "after the rename"
    left = list(folder.glob(".saving-*"))
    names = {path.name for path in left[0].iterdir()} if left else set()
    for name in ("manifest.json", "state.json", "optimizer.safetensors", "model.safetensors"):
        if name in names:
            return f"up to {name}"
    return "before its first file"


def wrong(folder: Path, saved: int, done: int, made: Any) -> list[str]:
    """What does not hold in the folder after a kill in the save of step `saved`."""
    from benchmarks.faults import saving
    from pixcloud.checkpoint import load_checkpoint
    from pixcloud.errors import CheckpointError

    found = []
    names = sorted(path.name for path in folder.iterdir())
    for name in (n for n in names if n.startswith("step-")):
        try:
            loaded = load_checkpoint(folder / name)
        except CheckpointError as error:
            kept = sorted(path.name for path in (folder / name).iterdir())
            found.append(f"{name} is half there, with {', '.join(kept) or 'no file'}: {error}")
            continue
        if not saving.same(loaded, saving.content(made[0], made[1], int(name[5:]))):
            found.append(f"{name} is not what was saved")
    step = "step-{:08d}".format
    if step(done) not in names:
        found.append(f"{step(done)}, the newest finished one, is gone")
    # The one before it goes once the new one is there, not sooner.
    if done > 1 and step(saved) not in names and step(done - 1) not in names:
        found.append(f"{step(done - 1)} went too soon")
    # Of hidden ones only what this save was writing or removing, nothing of an earlier one.
    parts = [(step(saved), ("", ".saving-")), (step(done), ("",))]
    parts += [(step(done - 1), ("", ".saving-old-"))]
    allowed = {before + name for name, befores in parts for before in befores}
    if others := [name for name in names if name not in allowed]:
        found.append(f"also there: {', '.join(others)}")
    return found


def last_word(folder: Path, made: Any, missed: int, lasted: list[float]) -> Fault:
    """A child that nobody kills: its saves clean up."""
    from benchmarks.faults import saving
    from pixcloud.checkpoint import last_good

    newest = last_good(folder)
    step = newest.state["step"] + 2 if newest else 2
    child = _CONTEXT.Process(
        target=saving.save_forever, args=(folder, _CONTEXT.RawArray("q", 4), step)
    )
    child.start()
    child.join(LIMIT)
    violated = wrong(folder, step, step, made) if child.exitcode == 0 else ["it did not end"]
    names = sorted(path.name for path in folder.iterdir())
    if names != [f"step-{n:08d}" for n in (step - 1, step)]:
        violated.append(f"left: {', '.join(names)}")
    milliseconds = 1000 * statistics.median(lasted)
    return Fault(
        what=f"a save takes {milliseconds:.0f} ms, {missed} kills hit none; the last one cleans up",
        violated=violated,
        counted=False,
        values={"missed": missed, "save_ms": round(milliseconds, 2)},
    )

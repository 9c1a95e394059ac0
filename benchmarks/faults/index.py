"""SIGKILLs while vectors are added to a store: what was confirmed is there, nothing half is.

A child adds batch after batch and confirms each through a pipe; the parent kills it at a random
moment, opens the store and compares every vector with what it must be.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.faults.fault import Fault, Setting

_CONTEXT = multiprocessing.get_context("fork")
DIM, BATCH = 256, 256


def impossible() -> str:
    """Why this part cannot run here; empty if it can."""
    return "" if hasattr(signal, "SIGKILL") else "no SIGKILL on this system"


def faults(count: int, setting: Setting) -> Iterator[Fault]:
    """`count` kills while one store grows."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([setting.seed, 6])))
    folder, confirmed = setting.work / "index", -1
    for _ in range(count):
        reading, writing = os.pipe()
        child = _CONTEXT.Process(target=_keep_adding, args=(folder, writing))
        child.start()
        os.close(writing)
        with os.fdopen(reading) as lines:
            for _ in range(int(rng.integers(1, 6))):
                confirmed = int(lines.readline())
            time.sleep(float(rng.uniform(0, 0.03)))
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            confirmed = max([confirmed, *map(int, lines.read().split())])
        there, violated = _compared(folder, confirmed)
        yield Fault(
            what=f"SIGKILL while adding, {confirmed + 1} batches confirmed, {there} there",
            violated=violated,
            values={"batches": there},
        )


def vectors_of(batch: int) -> np.ndarray:
    """The vectors (BATCH, DIM) of a batch, of unit length, from its number alone."""
    vectors = np.random.default_rng(batch).standard_normal((BATCH, DIM))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _keep_adding(folder: Path, said: int) -> None:
    from pixcloud.store import About, VectorStore

    with VectorStore(folder, About(dim=DIM)) as store:
        for batch in range(len(store) // BATCH, 1_000_000):
            store.add([f"{batch}-{n}" for n in range(BATCH)], vectors_of(batch))
            os.write(said, b"%d\n" % batch)


def _compared(folder: Path, confirmed: int) -> tuple[int, list[str]]:
    """How many batches are there, and what does not hold."""
    from pixcloud.store import VectorStore

    with VectorStore(folder) as store:
        names, vectors = store.vectors()
    batches, rest = divmod(len(names), BATCH)
    violated = [f"{rest} vectors of a batch that is not whole"] if rest else []
    if not confirmed + 1 <= batches <= confirmed + 2:
        violated.append(f"{confirmed + 1} batches were confirmed, {batches} are there")
    for batch in range(batches):
        own = slice(BATCH * batch, BATCH * (batch + 1))
        named = names[own] == [f"{batch}-{n}" for n in range(BATCH)]
        if not named or not np.allclose(vectors[own], vectors_of(batch), atol=1e-6):
            violated.append(f"batch {batch} is not what was added")
    return batches, violated

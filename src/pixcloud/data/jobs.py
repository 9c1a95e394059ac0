"""Stages 1 and 2, many files at once: jobs -> results, over all cores of one machine.

The maker of pairs and the synthetic data hand in a function and its jobs. Workers are fresh
processes (spawn: the same on every system, and no locks of the parent's threads are copied), have
one thread each, and end by themselves when the parent is killed.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from pixcloud.errors import DataError, PixCloudError

Job = TypeVar("Job")
Result = TypeVar("Result")

log = logging.getLogger(__name__)
DIED = "its worker process died: out of memory, or a fault in a library"
NO_MEMORY = "not enough memory"


@dataclass(frozen=True)
class JobFailure:
    """A job that could not be done: its place in the sequence of jobs, and the reason."""

    index: int
    reason: str


@dataclass
class JobResults(Generic[Result]):
    """What became of a sequence of jobs: results by place, and failures in order."""

    results: dict[int, Result]
    failures: list[JobFailure]


def worker_count(workers: int) -> int:
    """The number of processes: `workers`, or for 0 one for each core this process may use."""
    if workers < 0:
        raise DataError(f"workers = {workers}: give 0 for all cores, or a number of processes")
    if workers:
        return workers
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_jobs(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    workers: int = 0,
    label: str = "",
    strict: bool = False,
    describe: Callable[[Job], str] | None = None,
) -> JobResults[Result]:
    """Call `work` on every job, in parallel, with a progress bar on a terminal.

    Args:
        work: A function of a module (it is pickled by name). `PixCloudError` and `MemoryError`
            mean that this one job cannot be done; any other error ends the whole run.
        jobs: Its arguments, picklable.
        workers: Processes; 0 means all cores, 1 means no other process at all.
        label: What the bar says.
        strict: Stop at a failure and raise it: the first one in the order of the jobs, whatever
            the number of workers.
        describe: What to call a job in the reason of a failure that cannot name it itself.

    Returns:
        Results and failures. A job whose process dies is tried once more, alone, and counts as a
        failure if it dies again; the others go on.

    Raises:
        PixCloudError: a job's own error, if `strict`.
        DataError: if `workers` is negative.

    Example:
        >>> run_jobs(abs, [-1, 2], workers=1).results
        {0: 1, 1: 2}
    """
    count = min(worker_count(workers), len(jobs))
    outcome: JobResults[Result] = JobResults({}, [])
    with progress_bar(label, len(jobs)) as advance:

        def settle(index: int, call: Callable[[], Result]) -> None:
            try:
                outcome.results[index] = call()
            except (PixCloudError, MemoryError, BrokenProcessPool) as problem:
                reason = str(problem)
                if not isinstance(problem, PixCloudError):
                    reason = NO_MEMORY if isinstance(problem, MemoryError) else DIED
                    reason = f"{describe(jobs[index])}: {reason}" if describe else reason
                if strict and isinstance(problem, PixCloudError):
                    raise
                if strict:
                    raise DataError(reason) from problem
                outcome.failures.append(JobFailure(index, reason))
            advance()

        suspects: list[int] = []
        if count <= 1 or not run_in_pool(work, jobs, count, settle, suspects, strict):
            for index, job in enumerate(jobs):
                settle(index, lambda job=job: work(job))  # type: ignore[misc]
        for index in suspects:
            settle(index, lambda index=index: run_alone(work, jobs[index]))  # type: ignore[misc]
    outcome.failures.sort(key=lambda failure: failure.index)
    return outcome


def run_in_pool(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    count: int,
    settle: Callable[[int, Callable[[], Result]], None],
    suspects: list[int],
    strict: bool,
) -> bool:
    """Run jobs over `count` processes; False, with nothing run, if none can be started.

    When a process dies, the jobs under way are added to `suspects` and a new pool takes the rest.
    """
    waiting = list(range(len(jobs)))[::-1]
    while waiting:
        with worker_pool(count) as pool:
            if not can_start(pool):
                if len(waiting) == len(jobs):
                    log.warning(
                        "worker processes cannot start (a script needs `if __name__ == "
                        '"__main__":`); one process does all the work'
                    )
                    return False
                suspects.extend(reversed(waiting))
                return True
            running: dict[Future[Result], int] = {}
            broken = False
            while (waiting or running) and not broken:
                # Few are under way at any time, so that a dead process makes few suspects.
                while waiting and len(running) < 2 * count and not broken:
                    index = waiting.pop()
                    try:
                        running[pool.submit(work, jobs[index])] = index
                    except BrokenProcessPool:
                        waiting.append(index)
                        broken = True
                finished = wait(running, return_when=FIRST_COMPLETED).done if running else ()
                for future in sorted(finished, key=lambda done: running[done]):
                    index = running.pop(future)
                    if isinstance(future.exception(), BrokenProcessPool):
                        suspects.append(index)
                        broken = True
                        continue
                    if strict and future.exception() is not None:
                        # Jobs begin in order: one under way before this one may fail as well.
                        earlier = sorted((i, f) for f, i in running.items() if i < index)
                        for number, other in earlier:
                            settle(number, other.result)
                    settle(index, future.result)
            suspects.extend(sorted(running.values()))
    return True


def run_alone(work: Callable[[Job], Result], job: Job) -> Result:
    """Run one job in a process of its own.

    Raises:
        BrokenProcessPool: if that process dies.
    """
    with worker_pool(1) as pool:
        return pool.submit(work, job).result()


def can_start(pool: ProcessPoolExecutor) -> bool:
    """Whether the pool's processes live long enough to answer."""
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool:
        return False
    return True


@contextmanager
def worker_pool(count: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh single-threaded processes; jobs not yet begun are dropped on an error."""
    pool = ProcessPoolExecutor(
        count, mp_context=multiprocessing.get_context("spawn"), initializer=start_worker
    )
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def start_worker() -> None:
    """Make a process a good worker: one thread, no reaction to Ctrl-C, no life after the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers it and ends the pool
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on the terminal, if there is one; the block calls what it gets after each job."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        disable=not (label and console.is_terminal),
    ) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)

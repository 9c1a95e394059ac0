"""SIGKILLs of workers and launchers: nothing is lost beyond the last checkpoint.

`torchrun` launches a run of several processes. A worker that dies is brought back by the launcher;
after the launcher's own death its workers must end, and the command is started again. However
often, each run ends with the bits of the undisturbed one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import psutil

from benchmarks.faults.children import Children, alive, seconds_until_gone
from benchmarks.faults.fault import Fault, Setting
from benchmarks.faults.launched_run import BACK_WITHIN, GONE_WITHIN, LaunchedRun
from benchmarks.faults.tiny_run import (
    STEPS_PER_EPOCH,
    FaultRunError,
    differences,
    starts,
    words,
    write_pairs,
)

EPOCHS, EVERY, PER_RUN = 10, 5, 13
# So many times the planned runs at most, if some end before all of their kills.
MORE = 2
TOTAL = EPOCHS * STEPS_PER_EPOCH
OPTIONS = {
    "trainer__epochs": EPOCHS,
    "trainer__log_every": 1,
    "trainer__checkpoint_every": EVERY,
}


@dataclass(frozen=True)
class Kill:
    """target: worker, reader (of a worker's data) or launcher; step: once so many are logged, 0:
    so soon after the fault before that the run is hardly back; delay: seconds after that moment;
    choice: in [0, 1), which of several."""

    target: str
    step: int
    delay: float
    choice: float


def plan(count: int, seed: int) -> list[list[Kill]]:
    """The kills of each run, in order: a function of the seed."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 4])))
    runs = max(round(count / PER_RUN), 1)
    sizes = [count // runs + (number < count % runs) for number in range(runs)]
    return [plan_run(size, rng, readers=number % 2 == 1) for number, size in enumerate(sizes)]


def plan_run(count: int, rng: np.random.Generator, *, readers: bool) -> list[Kill]:
    """Kills over the life of one run, three of them in one epoch."""
    soon, together = count // 6, min(3, count)
    epoch = int(rng.integers(1, EPOCHS - 1))
    # Not at its very end: some steps pass between the look at the log and the kill.
    steps = list(epoch * STEPS_PER_EPOCH + rng.integers(1, STEPS_PER_EPOCH - 5, together))
    steps += list(rng.integers(2, TOTAL - 15, count - together - soon))
    steps.sort()
    inside = [place for place, s in enumerate(steps) if s // STEPS_PER_EPOCH == epoch]
    # Until they notice that their launcher is gone, workers train on: out of the epoch, perhaps.
    forced = inside[:-1]
    free = [place for place in range(len(steps) + 1) if place not in inside[1:]]
    for place in sorted(rng.choice(free, soon), reverse=True):
        steps.insert(int(place), 0)
        forced = [p + 1 if p >= place else p for p in forced]
    launchers = min(max(round(0.3 * count), 1), count - len(forced))
    others = ["launcher"] * launchers + ["worker"] * (count - len(forced) - launchers)
    rng.shuffle(others)
    targets = ["worker" if place in forced else others.pop() for place in range(count)]
    kills = []
    for place, (target, step) in enumerate(zip(targets, steps, strict=True)):
        if readers and target == "worker" and step and place % 3 == 0:
            target = "reader"
        delay = rng.uniform(0, 8.0) if step == 0 else rng.uniform(0, 0.1)
        kills.append(Kill(target, int(step), float(delay), float(rng.uniform())))
    return kills


def impossible() -> str:
    """Why this part cannot run here; empty if it can."""
    return ""


def faults(count: int, setting: Setting) -> Iterator[Fault]:
    """`count` kills over a few runs, and a check at the end of each run."""
    pairs = write_pairs(setting.work / "pairs")
    log = setting.work / "output.log"
    with Children(setting.work / "cache") as children:

        def launched(name: str, workers: int, restarts: int) -> LaunchedRun:
            run = setting.work / name
            return LaunchedRun(
                children,
                words(pairs, run, data__workers=workers, **OPTIONS),
                run,
                log,
                processes=setting.processes,
                restarts=restarts,
            )

        undisturbed = launched("undisturbed", 0, 0)
        undisturbed.start()
        if (code := undisturbed.launcher.wait(600)) != 0:
            said = log.read_text(encoding="utf-8", errors="replace")[-800:]
            raise FaultRunError(f"the undisturbed run ended with exit code {code}: {said}")
        runs, number, most = plan(count, setting.seed), 0, 0
        limit = MORE * len(runs)
        while number < len(runs):
            kills, name = runs[number], f"run {number + 1}"
            killed = launched(f"run-{number}", number % 2, len(kills) + 5)
            epochs: Counter[int] = Counter()
            for fault in run_with(killed, kills, name):
                epochs[fault.values["step"] // STEPS_PER_EPOCH] += 1
                yield fault
            most = max([most, *epochs.values()])
            yield at_the_end(killed, undisturbed, name)
            number += 1
            fired = epochs.total()
            if fired < len(kills) and number < limit:  # it ended too soon for them
                runs.append(kills[fired:])
    violated = [] if most >= min(3, count) else ["fewer than three"]
    yield Fault(what=f"{most} kills within one epoch of one run", violated=violated, counted=False)


def run_with(launched: LaunchedRun, kills: list[Kill], name: str) -> Iterator[Fault]:
    """Start the run, kill as planned, see it come back each time; ends early if the run does."""
    launched.start()
    seen = 0
    for number, kill in enumerate(kills):
        if not wait_for(kill, launched, seen):
            return
        seen = len(launched.begun)
        fault = fire(kill, launched, name)
        if number + 1 == len(kills) or kills[number + 1].step:
            see_it_back(launched, fault, seen)
        yield fault


def wait_for(kill: Kill, launched: LaunchedRun, seen: int) -> bool:
    """Wait for the moment of the kill; False if the run ends before.

    seen: starts of the run before the last fault.
    """

    def going() -> bool:
        if len(launched.begun) == seen:
            return False
        # One step of its own at least: the run goes on between two kills.
        return launched.reached >= max(kill.step, launched.begun[-1].from_step + 1)

    def there() -> bool:
        return bool(launched.trainers())

    if kill.step and not launched.wait_until(going, BACK_WITHIN):
        return False
    if not launched.wait_until(there, BACK_WITHIN):
        return False
    launched.watch_for(kill.delay)
    return launched.wait_until(there, BACK_WITHIN)


def fire(kill: Kill, launched: LaunchedRun, name: str) -> Fault:
    """Kill, and see to what follows at once; a launcher is started again."""
    trainers, readers = launched.trainers(), launched.readers()
    launched.children.watch(trainers + readers)
    target, among = kill.target, trainers
    if target == "reader":
        target, among = ("reader", readers) if readers else ("worker", trainers)
    victim = among[int(kill.choice * len(among))] if target != "launcher" else launched.process
    fault = Fault(what="", values={"kind": target, "pid": victim.pid})
    began = time.monotonic()
    if reason := launched.kill(victim):
        fault.violated.append(f"did not fire: {reason}")
        fault.counted = False
    launched.look()
    fault.values["step"] = launched.reached
    fault.what = f"{name}: SIGKILL to {target} {victim.pid} at step {launched.reached}"
    if target == "launcher":
        seconds = seconds_until_gone(trainers + readers, GONE_WITHIN)
        if seconds is None:
            left = [process for process in trainers + readers if alive(process)]
            fault.violated.append(f"{len(left)} of its workers still ran after {GONE_WITHIN:.0f} s")
            end_all(left)
        else:
            waited = time.monotonic() - began
            fault.values["seconds_until_workers_gone"] = round(waited, 2)
            launched.look()
            fault.what += f", its workers gone after {waited:.1f} s at step {launched.reached}"
        launched.start()
    return fault


def end_all(processes: list[psutil.Process]) -> None:
    """Kill what should have ended by itself."""
    for process in processes:
        if alive(process):
            process.kill()
    seconds_until_gone(processes, 10)


def see_it_back(launched: LaunchedRun, fault: Fault, seen: int) -> None:
    """Wait until the run has begun again; add to the fault what was lost."""
    began, launcher = time.monotonic(), launched.launcher.pid
    back = launched.wait_until(lambda: len(launched.begun) > seen, BACK_WITHIN)
    if not back:
        fault.violated.append(
            f"it did not come back by itself (launcher: {launched.launcher.poll()}); "
            "it is started again"
        )
        end_all([launched.process, *launched.trainers(), *launched.readers()])
        launched.start()
        return
    assert launched.launcher.pid == launcher
    fault.values["seconds_until_back"] = round(time.monotonic() - began, 2)
    fault.values["steps_lost"] = sum(start.lost for start in launched.begun[seen:])
    last = launched.begun[-1].from_step
    for start in launched.begun[seen:]:
        if start.missed:
            fault.violated.append(
                f"it went on from step {start.from_step}, and there was a checkpoint of step "
                f"{launched.newest_at_death}"
            )
        if start.lost > EVERY:
            fault.violated.append(f"{start.lost} steps were lost, with a save every {EVERY}")
    fault.what += f", back from step {last}, {fault.values['steps_lost']} steps lost"


def at_the_end(launched: LaunchedRun, undisturbed: LaunchedRun, name: str) -> Fault:
    """Wait for the end of the run and compare it with the undisturbed one."""
    ended = launched.wait_until(lambda: launched.launcher.poll() is not None, 600)
    code = launched.launcher.poll()
    if not ended or code != 0:
        return Fault(what=f"{name} ends", violated=[f"exit code {code}"], counted=False)
    violated = differences(launched.run, undisturbed.run)
    logged = starts(launched.run)
    if logged[0] != 0 or len(logged) < len(launched.begun):
        violated.append(f"train.log tells of starts from {logged}")
    return Fault(
        what=f"{name} ends with the undisturbed bits, {len(logged)} starts in its log",
        violated=violated,
        counted=False,
    )

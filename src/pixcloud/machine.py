"""What the package asks of the machine before heavy libraries are there."""

from __future__ import annotations

import os

# Who started this process: read early, for it may be gone by the time that libraries are there.
STARTER = os.getppid()

# Encoders of the user's own that saved weights may need, comma-separated: `--code` writes it, so
# that processes which are started later know them, too.
CODE_VARIABLE = "PIXCLOUD_CODE"

# Turns of the loop in which a thread waits for work before it sleeps; by default they are 300,000.
# GNU's OpenMP, which torch's builds for Linux bring, knows it.
SPINS = 10_000


def available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def let_threads_sleep() -> None:
    """Let idle threads of the tensor library sleep soon; before it is imported.

    A spinning thread keeps a core from the processes that read ahead, and from everybody else: with
    one other busy process on two cores a training step took 1.7 times as long. But waking a thread
    takes as long as many of a step's thousands of operators: where they never spin, a step takes a
    tenth longer. So they spin for a moment. The user's own settings are kept.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))

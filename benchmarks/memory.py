"""Peak memory and time of one way in a fresh process, by `python -m benchmarks.memory`.

    python -m benchmarks.memory NAME CASE WAY [small]

A tiny version runs first, so that libraries and compiled kernels are there; then the inputs are
made, freed memory goes back to the system, the peak is reset, and what the measured call adds to
the memory in use is printed in MiB, and its seconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import resource
import subprocess
import sys
import time
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def in_fresh_process(
    benchmark: str, case: int, way: str, *, small: bool = False
) -> tuple[float, float]:
    """MiB above the inputs and seconds of one call, measured in a process of its own.

    Raises:
        RuntimeError: if that process fails; its last words are told.
    """
    command = [sys.executable, "-m", "benchmarks.memory", benchmark, str(case), way]
    done = subprocess.run(
        [*command, *(["small"] if small else [])],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parent.parent,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])}: {done.stderr.strip().splitlines()[-1:]}")
    mib, seconds = done.stdout.split()[-2:]
    return float(mib), float(seconds)


def module_of(benchmark: str) -> str:
    """Module of a benchmark.

    >>> module_of("dgcnn-train")
    'benchmarks.dgcnn_train'
    """
    return f"benchmarks.{benchmark.replace('-', '_')}"


def _read(field: str) -> float:
    """A field of this process's status in MiB."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise OSError(f"{STATUS}: no {field}")


def _give_back() -> None:
    """Return to the system what is free, so that the measured call cannot hide in it."""
    gc.collect()
    buffers_cpu = sys.modules.get("pixcloud.ops.buffers_cpu")
    if buffers_cpu is not None:
        buffers_cpu.MEMORY.clear()
    with contextlib.suppress(OSError, AttributeError):  # a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _measure(benchmark: str, case: int, way: str, small: bool) -> tuple[float, float]:
    cases = importlib.import_module(module_of(benchmark)).cases(small)
    cases[case].ways[way](True)()
    _give_back()
    call = cases[case].ways[way](False)
    _give_back()
    before, resettable = _memory(), _reset_peak()
    start = time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    return (_read("VmHWM") if resettable else _peak()) - before, seconds


def _memory() -> float:
    """MiB in use now or, where the system does not tell, the peak so far."""
    return _read("VmRSS") if STATUS.exists() else _peak()


def _reset_peak() -> bool:
    """Let the peak start anew; False where the system cannot."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _peak() -> float:
    """MiB of the greatest use since the process began."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    name, number, which, *rest = sys.argv[1:]
    print("{:.1f} {:.4f}".format(*_measure(name, int(number), which, bool(rest))))

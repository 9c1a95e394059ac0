"""Many jobs at once: results in place, failures told apart, dead workers, dead parents."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pixcloud.data.jobs import DIED, NO_MEMORY, JobFailure, run_jobs, worker_count
from pixcloud.errors import DataError, FileFormatError


def double(number: int) -> int:
    if number == 13:
        raise FileFormatError("thirteen.off: broken")
    if number == 7:
        raise MemoryError
    if number == 99:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 1000:
        raise KeyError("a fault of ours")
    return 2 * number


@pytest.mark.parametrize("workers", [1, 2])
def test_results_and_failures(workers: int) -> None:
    jobs = [1, 13, 2, 7, 3]
    outcome = run_jobs(double, jobs, workers=workers)
    assert outcome.results == {0: 2, 2: 4, 4: 6}
    assert outcome.failures == [
        JobFailure(1, "thirteen.off: broken"),
        JobFailure(3, NO_MEMORY),
    ]
    with pytest.raises(FileFormatError, match="thirteen"):
        run_jobs(double, jobs, workers=workers, strict=True)
    with pytest.raises(DataError, match=f"job 7: {NO_MEMORY}"):
        run_jobs(double, [1, 7], workers=workers, strict=True, describe="job {}".format)
    with pytest.raises(KeyError):
        run_jobs(double, [1, 1000, 2], workers=workers)


def test_a_job_that_kills_its_worker_fails_alone() -> None:
    jobs = [1, 2, 99, 3, 4, 5, 6]
    outcome = run_jobs(double, jobs, workers=2, describe="job {}".format)
    assert outcome.failures == [JobFailure(2, f"job 99: {DIED}")]
    assert outcome.results == {0: 2, 1: 4, 3: 6, 4: 8, 5: 10, 6: 12}


def test_no_jobs_and_numbers_of_workers() -> None:
    assert run_jobs(double, []).results == {}
    assert worker_count(0) >= 1
    assert worker_count(3) == 3
    with pytest.raises(DataError, match="workers = -1"):
        worker_count(-1)


def test_a_script_without_a_main_guard_still_runs(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from pixcloud.data.jobs import run_jobs\n"
        "print(run_jobs(abs, [-1, -2], workers=2).results)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip().splitlines()[-1] == "{0: 1, 1: 2}", done.stderr


def test_workers_end_when_the_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, pathlib, time\n"
        "from pixcloud.data.jobs import run_jobs\n"
        "def work(folder):\n"
        "    pathlib.Path(folder, str(os.getpid())).touch()\n"
        "    time.sleep(120)\n"
        "if __name__ == '__main__':\n"
        f"    run_jobs(work, [{str(tmp_path / 'pids')!r}] * 2, workers=2)\n"
    )
    (tmp_path / "pids").mkdir()
    parent = subprocess.Popen([sys.executable, script])
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "pids").iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = [int(path.name) for path in (tmp_path / "pids").iterdir()]
    parent.kill()
    parent.wait()
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(workers) == 2
    assert not any(alive(pid) for pid in workers)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"

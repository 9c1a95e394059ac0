"""Several processes for a test: started, waited for, and their outputs.

`python several.py COUNT PORT SCRIPT ARGUMENTS`: as this file is run, it imports SCRIPT, and calls
its `main` in COUNT processes. They are forked, so that what takes seconds to import, torch
above all, is imported once.
"""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_several(count: int, arguments: list[str]) -> subprocess.Popen[str]:
    """`main` of a Python script in `count` processes that find each other."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    places = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    return subprocess.Popen(
        [sys.executable, __file__, str(count), str(free_port()), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_several(count: int, arguments: list[str], timeout: float = 280) -> None:
    """The same, to the end."""
    finish(start_several(count, arguments), timeout)


def finish(process: subprocess.Popen[str], timeout: float = 280) -> None:
    output = process.communicate(timeout=timeout)[0]
    assert process.returncode == 0, output


def _become(rank: int, count: int, port: str, script: Any) -> None:
    """Call `script.main` as one of `count` processes, and end. The variables are torchrun's."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ.update({key: str(value) for key, value in numbers.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    code = 1
    try:
        from pixcloud import heartbeat

        heartbeat.STARTER = os.getppid()
        script.main()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    count, port, file = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    sys.path.insert(0, str(file.parent))
    script = importlib.import_module(file.stem)
    sys.argv = sys.argv[3:]
    children = []
    for rank in range(count):
        child = os.fork()
        if not child:
            _become(rank, count, port, script)
        children.append(child)
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    sys.exit(next((1 for end in ends if end), 0))


if __name__ == "__main__":
    main()

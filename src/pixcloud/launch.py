"""Stage 0, starting processes and finding each other: settings -> a `World`, and its end.

Three ways lead here. `torchrun` and SLURM's `srun` start the processes and tell each its place in
environment variables. Without either, `trainer.devices` makes the command start its processes
itself, through torch's elastic agent, which is what torchrun is made of (`in_processes`).
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from pixcloud.distributed import ALONE, World
from pixcloud.errors import ConfigError, LostProcessError, PixCloudError
from pixcloud.heartbeat import Heartbeat

# A heartbeat notices the dead; a process may wait as long as it takes for one that works.
COLLECTIVE_TIMEOUT = timedelta(days=7)
MEETING_TIMEOUT = timedelta(minutes=10)
CONNECTING_TIMEOUT = (
    timedelta(minutes=1) if "TORCHELASTIC_RUN_ID" in os.environ else MEETING_TIMEOUT
)
# Between a signal to the launcher and the end of its processes by force: they finish a step, save.
GRACE_SECONDS = 600


@dataclass(frozen=True)
class Place:
    """What a launcher tells a process: its numbers, and where the first process is met."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    port: int


def find_place(environment: Mapping[str, str] = os.environ) -> Place | None:
    """This process's place among those that a launcher started, or None without a launcher.

    Raises:
        ConfigError: if a variable that the launcher should have set is missing or no number.

    Example:
        >>> find_place({}) is None
        True
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        address, port = environment.get("MASTER_ADDR", ""), environment.get("MASTER_PORT", "")
    elif "SLURM_STEP_NUM_TASKS" in environment and "SLURM_PROCID" in environment:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE")
        address, port = _slurm_address(environment)
    else:
        return None
    values = {names[2]: "0", names[3]: "1", **environment}
    try:
        numbers = [int(values[name]) for name in names]
        rank, size, local_rank, local_size = numbers
        return Place(rank, size, local_rank, local_size, address, int(port or 0))
    except ValueError as error:
        raise ConfigError(
            f"the launcher's variables {', '.join(names)} and MASTER_PORT must be whole numbers "
            f"({error}); start with torchrun or srun"
        ) from error


def _slurm_address(environment: Mapping[str, str]) -> tuple[str, str]:
    """Host of the first task, and a port that all tasks of the job know without asking."""
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    # "gpu[07-08,11],login" begins with gpu07.
    first = re.sub(r"^([^,\[]*)(?:\[(\w+)[^\]]*\])?([^,]*).*", r"\1\2\3", nodes or "127.0.0.1")
    port = 15000 + int(environment.get("SLURM_JOB_ID", "0")) % 10000
    return environment.get("MASTER_ADDR", first), environment.get("MASTER_PORT", str(port))


def restarted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the launcher has started this run before, and a process of it was lost."""
    return int(environment.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def processes_here(devices: int) -> int:
    """How many processes of the run are, or will be, on this machine."""
    place = find_place()
    return place.local_size if place else devices


@contextlib.contextmanager
def processes(device: str, heartbeat: float = 60.0) -> Iterator[World]:
    """The processes that a launcher started, met within the block; `ALONE` without a launcher.

    Args:
        device: cpu (gloo) or cuda (NCCL, each process on the GPU of its local rank).
        heartbeat: seconds after which a silent process counts as dead; 0 does not watch.

    Raises:
        LostProcessError: in place of the communication error that a lost process leaves behind.
        ConfigError: if the processes do not meet.
    """
    place = find_place()
    if place is None:
        yield ALONE
        return
    world = World(place.rank, place.size, place.local_size, place.local_rank)
    if device == "cuda":
        torch.cuda.set_device(place.local_rank)
    try:
        with Heartbeat(world, heartbeat) as heart:
            if world.size > 1:
                heart.share(_store(place, device))
            yield world
            if world.size > 1:
                dist.barrier()  # the store may live in the first process: it leaves last
    except RuntimeError as error:
        if isinstance(error, PixCloudError) or not _is_lost(error):
            raise
        raise LostProcessError(
            "another process of this run ended or cannot be reached any more; without a launcher "
            "that starts it again, go on with --resume true"
        ) from error


# The launcher's store, and a part of it for each block of `processes`.
_stores: list[Any] = []


def _store(place: Place, device: str) -> Any:
    """A part of the store that nobody has used, of processes that have met."""
    if not dist.is_initialized():
        _stores[:] = [_meet(place, device)]
        # Processes stay together until they end: a program may train and then evaluate.
        atexit.register(_part)
    _stores.append(dist.PrefixStore(f"block-{len(_stores)}", _stores[0]))
    return _stores[-1]


def _part() -> None:
    with contextlib.suppress(RuntimeError):
        dist.destroy_process_group()


def _is_lost(error: RuntimeError) -> bool:
    words = str(error).lower()
    signs = ("gloo", "connection", "nccl", "socket", "timed out", "broken pipe", "tcpstore")
    return isinstance(error, dist.DistError) or any(sign in words for sign in signs)


def _meet(place: Place, device: str) -> dist.Store:
    os.environ.update(
        RANK=str(place.rank),
        WORLD_SIZE=str(place.size),
        LOCAL_RANK=str(place.local_rank),
        LOCAL_WORLD_SIZE=str(place.local_size),
        MASTER_ADDR=place.address,
        MASTER_PORT=str(place.port),
    )
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    try:
        meeting = dist.rendezvous("env://", place.rank, place.size, timeout=CONNECTING_TIMEOUT)
        store = this_attempt(next(iter(meeting))[0], place.rank, place.size)
        store.set_timeout(MEETING_TIMEOUT)
        dist.init_process_group(
            backend,
            store=dist.PrefixStore("group", store),
            rank=place.rank,
            world_size=place.size,
            timeout=COLLECTIVE_TIMEOUT,
            device_id=torch.device("cuda", place.local_rank) if device == "cuda" else None,
        )
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"{place.size} processes did not meet at {place.address}:{place.port} ("
            f"{str(error).splitlines()[0]}); check that all were started and can reach that host"
        ) from error
    return store


def this_attempt(store: Any, rank: int, size: int) -> Any:
    """A part of the store for the processes that live now.

    Launchers keep their store when they start a run again, and no count of theirs is the same on
    all machines. So the first process makes a name up, and tells it to whoever asks with a name of
    its own: what the dead have left there has neither.

    Raises:
        RuntimeError: if not all processes come.
    """
    own, until = uuid.uuid4().hex, time.monotonic() + MEETING_TIMEOUT.total_seconds()
    others = range(1, size)
    answered: dict[int, str] = {}
    while time.monotonic() < until:
        if rank:
            store.set(f"hello/{rank}", own)
            told = _read(store, f"answer/{rank}")
            if told.startswith(own):
                name = told.removeprefix(own)
                store.set(f"met/{name}/{rank}", "")
                return dist.PrefixStore(name, store)
        else:
            for other in others:
                hello = _read(store, f"hello/{other}")
                if hello != answered.get(other, ""):
                    answered[other] = hello
                    store.set(f"answer/{other}", hello + own)
            if store.check([f"met/{own}/{other}" for other in others]):
                return dist.PrefixStore(own, store)
        time.sleep(0.05)
    raise RuntimeError("timed out")


def _read(store: Any, key: str) -> str:
    return store.get(key).decode() if store.check([key]) else ""


def in_processes(
    function: str, config: Any, devices: int, nodes: int = 1, rendezvous: str = ""
) -> Any:
    """Run `function(config)` in processes started here, and return the first one's result.

    Args:
        function: "module:name", of a config dataclass.
        config: plain values in dataclasses.
        devices: processes on this machine.
        nodes: machines; the same command runs on each.
        rendezvous: host:port of one of them, where they meet; not needed with one.

    Raises:
        ConfigError: for several machines without a place to meet.
        ProcessesEnded: if a process failed; it has told why.
    """
    if nodes > 1 and not rendezvous:
        raise ConfigError(
            f"trainer.nodes = {nodes}: they need a place to meet; give all of them the same "
            "--trainer.rendezvous HOST:PORT, HOST being one of them, or start with torchrun"
        )
    import dataclasses
    import logging

    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # Its words on failures are for other readers: the process that failed has said why.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    logging.getLogger("torch.distributed.launcher").setLevel(logging.CRITICAL)
    launch = LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=devices,
        run_id="pixcloud" if rendezvous else f"pixcloud-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint=rendezvous or "localhost:0",
        local_addr=None if rendezvous else "localhost",
        max_restarts=0,
        monitor_interval=0.2,
        logs_specs=DefaultLogsSpecs(),
        shutdown_timeout=GRACE_SECONDS,
    )
    with tempfile.TemporaryDirectory(prefix="pixcloud-") as folder:
        given, answer = Path(folder) / "config.json", Path(folder) / "result.json"
        given.write_text(json.dumps(dataclasses.asdict(config)), encoding="utf-8")
        command = ["-m", "pixcloud.launched", function, str(given), str(answer)]
        try:
            elastic_launch(launch, sys.executable)(*command)
        except ChildFailedError as error:
            codes = [failure.exitcode for failure in error.failures.values()]
            raise ProcessesEnded(max(codes)) from error
        except SignalException as error:
            raise ProcessesEnded(128 + int(error.sigval)) from error
        return json.loads(answer.read_text(encoding="utf-8")) if answer.exists() else {}


class ProcessesEnded(Exception):
    """Processes that were started here failed, and have told why; `exit_code` sums it up."""

    def __init__(self, exit_code: int) -> None:
        # A process that was killed has the negative number of its signal.
        self.exit_code = exit_code if exit_code > 0 else 1
        super().__init__(
            ""
            if exit_code in (2, 130, 143)
            else "a process of the run ended unexpectedly; go on with --resume true"
        )

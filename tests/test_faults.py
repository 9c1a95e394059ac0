"""The fault runs run: the cheapest part as a person starts it, and what the others are made of."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.faults import damage, full_disks, kills, saves, small_disk, tiny_run  # noqa: E402
from benchmarks.faults.children import Children, alive  # noqa: E402
from benchmarks.faults.fault import Fault, Outcome, line, table  # noqa: E402
from benchmarks.faults.hostile_servers import HostileServer, closed_port  # noqa: E402
from pixcloud.checkpoint import Checkpoint, last_good, save_checkpoint  # noqa: E402
from pixcloud.errors import CheckpointError  # noqa: E402


def test_kills_within_saves() -> None:
    command = [sys.executable, "-m", "benchmarks.faults", "saves", "--counts", "saves=4"]
    done = subprocess.run(
        [*command, "--json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = [json.loads(text) for text in done.stdout.splitlines()]
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert [record.get("number") for record in lines] == [1, 2, 3, 4, None, None]
    assert all("SIGKILL in the save of step" in record["what"] for record in lines[:4])
    assert (lines[-1]["asked"], lines[-1]["fired"], lines[-1]["violated"]) == (4, 4, 0)


def test_a_violation_is_told_and_counts() -> None:
    outcome = Outcome(part="kills", asked=2)
    outcome.faults = [
        Fault(what="first", values={"kind": "worker", "steps_lost": 2, "pid": 7}),
        Fault(what="second", violated=["the weights differ"], values={"kind": "launcher"}),
    ]
    assert not outcome.good
    assert line(outcome, outcome.faults[1], False).endswith(": VIOLATED: the weights differ")
    assert outcome.kinds() == {"launcher": 1, "worker": 1}
    assert list(outcome.figures()) == ["steps_lost"]
    assert table([outcome])[1].split()[:4] == ["kills", "2", "2", "1"]
    outcome.faults[1].violated.clear()
    assert outcome.good
    outcome.asked = 3  # one did not fire
    assert not outcome.good
    outcome.skipped = "no right to mount"
    assert "left out: no right to mount" in table([outcome])[1]


def test_the_plan_of_kills() -> None:
    runs = kills.plan(50, seed=0)
    assert runs == kills.plan(50, seed=0)
    assert runs != kills.plan(50, seed=1)
    assert sum(map(len, runs)) == 50
    assert {kill.target for run in runs for kill in run} == {"launcher", "worker", "reader"}
    for run in runs:
        steps = [kill.step for kill in run if kill.step]
        assert steps == sorted(steps)
        epochs = [step // tiny_run.STEPS_PER_EPOCH for step in steps]
        assert max(map(epochs.count, epochs)) >= 3
        assert max(steps) < kills.TOTAL
    assert [len(run) for run in kills.plan(3, seed=0)] == [3]
    assert {kill.target for kill in kills.plan(3, seed=0)[0]} == {"launcher", "worker"}


def test_every_file_is_damaged_both_ways_and_several_at_once() -> None:
    done = {(d.newest, d.kinds[0], d.files[0]) for d in damage.plan(10)}
    assert {(1, kind, file) for kind in ("cut", "flip") for file in damage.FILES} <= done
    assert {newest for newest, _, _ in done} >= {1, 2, 3}


@pytest.mark.parametrize("kind", ["cut", "flip"])
@pytest.mark.parametrize("file", damage.FILES)
def test_all_damage_is_noticed(kind: str, file: str, tmp_path: Path) -> None:
    """At whichever byte: the manifest has some that hold no number."""
    whole = save_checkpoint(
        tmp_path / "whole",
        Checkpoint(
            model=torch.nn.Linear(2, 2).state_dict(),
            optimizer={"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []},
            state={"step": 1},
            generators={},
        ),
        keep=1,
    )
    rng = np.random.default_rng(3)
    for number in range(20):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder / whole.name)
        damage.spoil(folder / whole.name / file, kind, rng)
        with pytest.raises(CheckpointError, match="none is whole"):
            last_good(folder, lambda _: None)


def test_a_half_checkpoint_is_called_one(tmp_path: Path) -> None:
    from benchmarks.faults import saving

    made = saving.template()
    for step in (1, 2):
        path = save_checkpoint(tmp_path, saving.content(*made, step), saving.KEEP)
    assert saves.wrong(tmp_path, 2, 2, made) == []
    (path / "state.json").unlink()
    (tmp_path / ".saving-step-00000001").mkdir()
    found = saves.wrong(tmp_path, 2, 2, made)
    assert "step-00000002 is half there" in found[0]
    assert found[1] == "also there: .saving-step-00000001"


def test_a_disk_with_so_many_pages(tmp_path: Path) -> None:
    if reason := small_disk.cannot_mount():
        pytest.skip(reason)
    with small_disk.small_disk(tmp_path / "disk", 2**20) as disk:
        small_disk.leave_pages(disk, 2)
        (disk / "fits").write_bytes(bytes(2 * small_disk.PAGE))
        with pytest.raises(OSError, match="No space left"):
            (disk / "more").write_bytes(b"1")
        small_disk.make_room(disk)
        (disk / "more").write_bytes(b"1")
    assert not any((tmp_path / "disk").iterdir())


def test_where_a_disk_ends() -> None:
    sizes = dict(zip(full_disks.FILES, (10, 20, 1, 1), strict=True))
    rng = np.random.default_rng(0)
    assert full_disks.pages_left(full_disks.Place("metrics.jsonl"), sizes, rng) == 2
    free = full_disks.pages_left(full_disks.Place("optimizer.safetensors", 2), sizes, rng)
    assert 3 + 32 + 10 <= free < 3 + 32 + 30


def test_hostile_servers() -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", closed_port()), timeout=5)
    with HostileServer(answers=False) as silent:
        caller = socket.create_connection(("127.0.0.1", silent.port), timeout=0.2)
        caller.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(TimeoutError):
            caller.recv(1)
        assert (silent.accepted, silent.answered) == (1, 0)
        caller.close()
    with HostileServer(answers=True) as dying:
        connection = http.client.HTTPConnection("127.0.0.1", dying.port, timeout=5)
        for _ in range(2):
            connection.request("POST", "/graphql", body=b"{}")
            assert json.load(connection.getresponse()) == {"data": {}}
        dying.die()
        with pytest.raises(OSError):
            _ = [connection.request("POST", "/graphql", body=b"{}"), connection.getresponse()]
        connection.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", dying.port), timeout=5)


def test_children_end_with_their_parent(tmp_path: Path) -> None:
    import psutil

    program = (
        "import subprocess, sys, time; "
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)']); "
        "print('ready', flush=True); time.sleep(100)"
    )
    with Children(tmp_path) as children:
        child = psutil.Process(children.start(["-c", program], tmp_path / "log").pid)
        while "ready" not in (tmp_path / "log").read_text():
            assert alive(child)
        family = [child, *child.children()]
        assert len(family) == 2
    assert not any(map(alive, family))

"""What counts as work: the watch of one process, on beats that a test writes."""

from __future__ import annotations

import pytest
import torch.distributed as dist

from pixcloud import heartbeat
from pixcloud.distributed import World
from pixcloud.heartbeat import Heartbeat


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> tuple[Heartbeat, list[float]]:
    """A watch of two processes that has not begun, and its clock."""
    now = [0.0]
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now[0])
    heart = Heartbeat(World(0, 2, 2, 0), limit=60)
    heart.store = dist.HashStore()
    return heart, now


def beats(heart: Heartbeat, number: int, first: float, second: float) -> str:
    heart.store.set("beat/0", f"{number} {first}")
    heart.store.set("beat/1", f"{number} {second}")
    return heart._look()


def test_one_that_works_alone_is_no_death(watch: tuple[Heartbeat, list[float]]) -> None:
    heart, now = watch
    for number in range(200):
        now[0] += 5
        assert beats(heart, number, 3.0 + 5 * number, 2.0) == ""


def test_all_that_wait_are_told(watch: tuple[Heartbeat, list[float]]) -> None:
    heart, now = watch
    said = []
    for number in range(13):
        now[0] += 5
        said.append(beats(heart, number, 3.0, 2.0))
    assert said[:12] == [""] * 12
    assert said[-1].startswith("no process has worked for")


def test_a_stopped_one_is_named_although_nobody_works(
    watch: tuple[Heartbeat, list[float]],
) -> None:
    heart, now = watch
    said = []
    for number in range(12):
        now[0] += 5
        heart.store.set("beat/0", f"{number} 3.0")
        heart.store.set("beat/1", "1 1.0")
        said.append(heart._look())
    assert next(filter(None, said)) == "process 1 has not been heard of for 50 s"


def test_one_that_falls_silent_is_named(watch: tuple[Heartbeat, list[float]]) -> None:
    heart, now = watch
    for number in range(12):
        now[0] += 5
        heart.store.set("beat/0", f"{number} {5 * number}")
        heart.store.set("beat/1", "1 1.0")
        said = heart._look()
    assert said == "process 1 has not been heard of for 55 s"


def test_time_of_children_that_ended_is_not_missed(watch: tuple[Heartbeat, list[float]]) -> None:
    """Reading processes had 5,000 s and end; their parent then works for itself."""
    heart, now = watch
    assert beats(heart, 0, 5000.0, 1.0) == ""
    for number in range(1, 100):
        now[0] += 5
        assert beats(heart, number, 10.0 + 5 * number, 1.0) == ""

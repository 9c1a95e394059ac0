"""Memory of the kernels: reused when nobody looks at it any more, and never before."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from pixcloud.ops import buffers_cpu
from pixcloud.ops.buffers_cpu import empty, flat_rows
from pixcloud.ops.kept_memory import KeptMemory

MIB = 1 << 20


def free(memory: KeptMemory) -> float:
    """MiB that nobody uses."""
    return memory.free_bytes() / MIB


def test_memory_is_used_again() -> None:
    memory = KeptMemory(64 * MIB)
    first = memory.array(4 * MIB)
    place = first.ctypes.data
    del first
    assert free(memory) == 4
    second = memory.array(4 * MIB)
    assert second.ctypes.data == place
    assert free(memory) == 0


def test_a_block_serves_in_parts() -> None:
    memory = KeptMemory(64 * MIB)
    whole = memory.array(8 * MIB)
    place = whole.ctypes.data
    del whole
    parts = [memory.array(size * MIB) for size in (4, 1, 3)]
    assert [(part.ctypes.data - place) // MIB for part in parts] == [0, 4, 5]
    assert free(memory) == 0
    del parts[1], parts[1], parts[0]
    assert memory.array(8 * MIB).ctypes.data == place  # they have joined again


def test_the_smallest_that_fits_is_taken() -> None:
    memory = KeptMemory(64 * MIB)
    blocks = [memory.array(size * MIB) for size in (9, 5, 3)]
    places = [block.ctypes.data for block in blocks]
    del blocks
    assert memory.array(4 * MIB).ctypes.data == places[1]


def test_other_sizes_push_out_old_ones() -> None:
    memory = KeptMemory(64 * MIB)
    blocks = [memory.array(size * MIB) for size in (2, 2, 8)]
    blocks.clear()
    big = memory.array(9 * MIB)
    assert free(memory) <= 2
    del big
    assert 9 <= free(memory) <= 11


def test_little_is_kept() -> None:
    memory = KeptMemory(10 * MIB)
    blocks = [memory.array(4 * MIB) for _ in range(5)]
    blocks.clear()
    assert free(memory) == 8


def test_nobody_shares_what_several_threads_take() -> None:
    memory = KeptMemory(64 * MIB)
    wrong = []

    def work(number: int) -> None:
        rng = np.random.Generator(np.random.Philox(number))
        for _ in range(60):
            arrays = [memory.array(int(n)) for n in rng.integers(1, 2 * MIB, 3)]
            for n, array in enumerate(arrays):
                array[:] = 3 * number + n
            wrong.extend(n for n, a in enumerate(arrays) if not (a == 3 * number + n).all())

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    "look",
    [
        lambda x: x[5:9],
        lambda x: x.numpy()[5:9],
        lambda x: torch.from_numpy(x.numpy()[5:9]),
        lambda x: flat_rows(x.view(4, -1, 16))[0],
        lambda x: x.view(-1, 2).requires_grad_().detach(),
    ],
)
def test_what_is_looked_at_stays(look: object, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = KeptMemory(64 * MIB)
    monkeypatch.setattr(buffers_cpu, "MEMORY", memory)
    x = empty(MIB, like=torch.zeros(1)).fill_(7)
    assert x.data_ptr() % 64 == 0
    seen = look(x)  # type: ignore[operator]
    del x
    assert free(memory) == 0
    others = [empty(MIB, like=torch.zeros(1)).fill_(1) for _ in range(3)]
    assert bool((seen == 7).all())
    del seen
    assert 4 <= free(memory) < 5
    del others


def test_blocks_never_pile_up() -> None:
    """Parts of a block that come back while there is more than enough must not be lost with it."""
    memory = KeptMemory(64 * MIB)
    rng = np.random.default_rng(0)
    blocks: dict[int, int] = {}
    for _ in range(200):
        used = [memory.array(int(size)) for size in rng.integers(1, 40 * MIB, 4)]
        rng.shuffle(used)  # type: ignore[arg-type]
        while used:
            used.pop()
        blocks = {id(part.block): len(part.block) for part in memory._free}
        assert sum(blocks.values()) == memory.free_bytes() <= 64 * MIB
    memory.clear()
    assert memory.free_bytes() == 0

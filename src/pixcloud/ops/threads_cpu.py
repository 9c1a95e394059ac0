"""Stage 4, threads of the processor kernels (`*_cpu.py`): as many as torch has been given.

Every parallel kernel calls `use_torch_threads` first, so that `torch.set_num_threads` governs all.
"""

from __future__ import annotations

import numba
import torch


def use_torch_threads() -> None:
    """Let numba's kernels run on as many threads as torch's operators, in this Python thread.

    Numba starts its threads once, as many as there are cores (or NUMBA_NUM_THREADS); more than
    these cannot be had.

    Example:
        >>> use_torch_threads()
        >>> numba.get_num_threads() <= torch.get_num_threads()
        True
    """
    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    wanted = torch.get_num_threads()
    numba.set_num_threads(max(1, min(wanted, most)))
    # The first call starts numba's threads; under OpenMP that sets torch's number to that of the
    # cores, too, and operators would cut their sums differently from then on.
    if torch.get_num_threads() != wanted:
        torch.set_num_threads(wanted)

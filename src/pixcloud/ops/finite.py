"""Stage 4, what the searches ask of numbers: x (B, N, C) -> x, finite and safe to square.

Used by neighbours and samples. One pass over x finds the greatest size of each cloud, which also
tells whether all of it is finite.
"""

from __future__ import annotations

import torch

from pixcloud.errors import NotFiniteError

# Sizes between these can be squared and summed in fp32.
LEAST, GREATEST = 2.0**-40, 2.0**50


def safe_to_square(*clouds: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The clouds (B, N, C), scaled together by powers of two where their squares would not do.

    Such a factor changes no digit, and so no order of distances; each sample has its own.

    Raises:
        NotFiniteError: for NaN or infinite values; it names the first sample that holds them.

    Example:
        >>> safe_to_square(torch.tensor([[[0.5]], [[1e30]]]))[0].flatten().tolist()
        [0.5, 0.7888609170913696]
    """
    # The greatest and the least keep NaN, and take a tenth of the time of a norm.
    ends = [f(x.flatten(1), 1) for x in clouds if x.numel() for f in (torch.amax, torch.amin)]
    if not ends:
        return clouds
    size = torch.stack(ends).abs().amax(0)
    bad = ~size.isfinite()
    if bad.any():
        raise NotFiniteError(
            f"sample {int(bad.nonzero()[0])} of the batch (counted from 0) holds NaN or infinite "
            "values: remove these points, or, if the network made them, lower the learning rate"
        )
    unsafe = (size > 0) & ((size < LEAST) | (size > GREATEST))
    if not unsafe.any():
        return clouds
    exponent = torch.where(unsafe, -torch.frexp(size).exponent, 0).clamp_max(120)
    factor = torch.ldexp(torch.ones_like(size), exponent)[:, None, None]
    return tuple(x * factor for x in clouds)

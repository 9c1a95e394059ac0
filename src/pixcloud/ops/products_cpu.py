"""Stage 4, products of the processor operators: rows times a matrix, and columns with columns.

The library's products need centred copies of their input, and do all of a product that is
symmetric. These centre what they read, and give the same bits on any number of threads. On an AMD
processor with AVX-512 they run at nine tenths of its peak, the library's at four fifths; on an
Intel one the library's are faster by 5 to 20 %; with AVX2 alone they have not been timed. The tiles
are in `product_kernels_cpu`.

What lies in slabs, (S, M, L), is a matrix (M, S L) whose columns are cut into S runs of L, each
with all of its rows: rows that are gathered from one slab stay in the cache.

Shape legend: M rows of B clouds, K columns in, C columns out; W columns of a tile.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from pixcloud.ops import product_kernels_cpu as kernels
from pixcloud.ops.buffers_cpu import flat, lanes, room
from pixcloud.ops.threads_cpu import use_torch_threads
from pixcloud.ops.vector_cpu import TILE_BYTES

CHUNK_ROWS = 256  # rows of a sum that is made in registers
CHUNKS = 8  # chunks that are packed together


def _width(dtype: torch.dtype) -> int:
    """Columns of a tile."""
    return TILE_BYTES // dtype.itemsize


def strided(x: torch.Tensor) -> tuple[np.ndarray, int]:
    """Rows of x (..., K) as they lie, if they are evenly apart: a flat array, and the step.

    Example:
        >>> strided(torch.zeros(2, 5, 8)[..., :3])[1]
        8
    """
    x = x.detach()
    steps = [n for n, size in zip(x.stride()[:-1], x.shape[:-1], strict=True) if size > 1]
    sizes = [size for size in x.shape[:-1] if size > 1]
    step = steps[-1] if steps else x.shape[-1]
    even = x.stride(-1) == 1 and step >= x.shape[-1]
    even = even and steps == [step * math.prod(sizes[n + 1 :]) for n in range(len(sizes))]
    if not even:
        x, step = x.contiguous(), x.shape[-1]
    rows = math.prod(x.shape[:-1])
    numbers: np.ndarray = x.as_strided(((rows - 1) * step + x.shape[-1],), (1,)).numpy()
    return numbers, step


def _origins(origin: torch.Tensor | None, x: torch.Tensor) -> tuple[np.ndarray, int]:
    """Origins (B, K) as a flat array, and how many rows share one."""
    rows, columns = math.prod(x.shape[:-1]), x.shape[-1]
    if origin is None:
        return np.zeros(columns, flat(x[:0].reshape(-1)).dtype), rows
    return flat(origin.contiguous()), rows // max(1, origin.numel() // columns)


def panels_of(right: torch.Tensor) -> np.ndarray:
    """A matrix (K, C) as panels (P, K, W), for `rows_product`; zeros behind the columns."""
    deep, columns = right.shape
    width = _width(right.dtype)
    panels = torch.zeros(-(-columns // width), deep, width, dtype=right.dtype)
    whole = columns // width * width
    panels[: whole // width] = right[:, :whole].reshape(deep, -1, width).transpose(0, 1)
    if whole < columns:
        panels[-1, :, : columns - whole] = right[:, whole:]
    numbers: np.ndarray = panels.detach().numpy()
    return numbers


def rows_product(
    x: torch.Tensor, panels: np.ndarray, out: torch.Tensor, origin: torch.Tensor | None = None
) -> torch.Tensor:
    """(x - origin) times a matrix.

    Args:
        x: (..., K), M rows in all, fp32 or fp64.
        panels: `panels_of` the matrix (K, C).
        out: (M, C), contiguous, to be filled; or slabs (S, M, L), where L is a whole
            number of W, and S L = C.
        origin: (B, K) or (K,), for runs of M / B rows each; None takes nothing off.

    Example:
        >>> x, right = torch.rand(5, 3), torch.rand(3, 2)
        >>> torch.allclose(rows_product(x, panels_of(right), torch.empty(5, 2)), x @ right)
        True
    """
    use_torch_threads()
    numbers, step = strided(x)
    shared, cloud = _origins(origin, x)
    columns = out.shape[1] if out.dim() == 2 else len(out) * out.shape[2]
    kernels.multiply_rows(
        *(numbers, step, 0, x.shape[-1], math.prod(x.shape[:-1]), cloud, shared),
        *(panels, flat(out), out.shape[-1], columns),
    )
    return out


def slab_rows_product(x: torch.Tensor, panels: np.ndarray, out: torch.Tensor) -> torch.Tensor:
    """A matrix in slabs (S, M, L) times another one, (S L, C), of which there are `panels_of`.

    Example:
        >>> x, right = torch.rand(2, 5, 16), torch.rand(32, 3)
        >>> found = slab_rows_product(x, panels_of(right), torch.empty(5, 3))
        >>> torch.allclose(found, rows_of(x) @ right)
        True
    """
    use_torch_threads()
    slabs, rows, width = x.shape
    kernels.multiply_rows(
        *(flat(x), width, rows * width, width, rows, rows, np.zeros(slabs * width, flat(x).dtype)),
        *(panels, flat(out), out.shape[1], out.shape[1]),
    )
    return out


def rows_of(x: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """A copy of slabs (S, M, L) as a matrix (M, S L).

    Example:
        >>> rows_of(torch.rand(2, 5, 16)).shape
        torch.Size([5, 32])
    """
    slabs, rows, width = x.shape
    out = torch.empty(rows, slabs, width, dtype=dtype or x.dtype)
    return out.copy_(x.transpose(0, 1)).view(rows, slabs * width)


def _chunks(rows: int, cloud: int) -> np.ndarray:
    """(chunks, 2): runs of rows of one cloud, the first one of each and their number."""
    found = [
        (first + low, min(CHUNK_ROWS, min(cloud, rows - first) - low))
        for first in range(0, rows, cloud)
        for low in range(0, min(cloud, rows - first), CHUNK_ROWS)
    ]
    return np.array(found, np.int64).reshape(-1, 2)


class _Panels:
    """Columns of x (..., K) less its origin, as panels of some chunks of rows at a time."""

    def __init__(self, x: torch.Tensor, origin: torch.Tensor | None, chunks: np.ndarray) -> None:
        self.columns, width = x.shape[-1], _width(x.dtype)
        self.numbers, self.step = strided(x)
        self.origin, self.cloud = _origins(origin, x)
        self.count, self.vector = -(-self.columns // width), lanes(x.dtype)
        shape = (min(CHUNKS, len(chunks)), self.count, int(chunks[:, 1].max()), width)
        self.memory = room(shape, self.numbers.dtype)

    def pack(self, chunks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Panels (chunks, P, most rows, W), and sums (chunks, K) of the columns."""
        packed = self.memory[: len(chunks)]
        sums = np.empty((len(chunks), self.count * packed.shape[3]), self.numbers.dtype)
        kernels.pack_columns(
            *(self.numbers, self.step, self.columns, self.cloud, self.origin),
            *(chunks, packed, sums, self.vector),
        )
        return packed, sums[:, : self.columns]


class _Slabs:
    """Slabs (S, M, L): they are panels as they lie."""

    def __init__(self, x: torch.Tensor) -> None:
        slabs, rows, self.step = x.shape
        self.columns, width = slabs * self.step, _width(x.dtype)
        self.numbers, self.count = flat(x), -(-self.columns // width)
        low = np.arange(self.count) * width
        self.begin = low // self.step * (rows * self.step) + low % self.step

    def places(self, chunks: np.ndarray) -> np.ndarray:
        """Where the panels of the chunks begin."""
        places: np.ndarray = chunks[:, :1] * self.step + self.begin
        return places


def _packed_places(packed: np.ndarray) -> np.ndarray:
    """The same of panels that are packed, (chunks, P, most rows, W)."""
    chunks, panels, most, width = packed.shape
    return np.arange(chunks * panels).reshape(chunks, panels) * (most * width)


def _result(left: _Panels | _Slabs, right: _Panels) -> np.ndarray:
    width = right.memory.shape[3]
    return np.zeros((left.count * width, right.count * width), right.memory.dtype)


def _multiply(
    left: np.ndarray, right: np.ndarray, chunks: np.ndarray, tasks: np.ndarray, out: np.ndarray
) -> None:
    """out += left^T right over some chunks, of packed panels."""
    kernels.multiply_columns(
        *(left.reshape(-1), _packed_places(left), left.shape[3], right, chunks, tasks, out)
    )


def symmetric_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a^T b, (K, K), of a and b (M, K) where that is known to be symmetric, for half the work.

    Example:
        >>> a = torch.rand(5, 3)
        >>> b = torch.rand(5, 1) * a
        >>> torch.allclose(symmetric_product(a, b), a.T @ b)
        True
    """
    use_torch_threads()
    chunks = _chunks(len(a), len(a))
    left, right = _Panels(a, None, chunks), _Panels(b, None, chunks)
    out, tasks = _result(left, right), _tasks(left, right, symmetric=True)
    for low in range(0, len(chunks), CHUNKS):
        some = chunks[low : low + CHUNKS]
        _multiply(left.pack(some)[0], right.pack(some)[0], some, tasks, out)
    return _mirrored(torch.from_numpy(out[: left.columns, : right.columns]))


def slab_columns_product(
    a: torch.Tensor, b: torch.Tensor, origin: torch.Tensor | None = None
) -> torch.Tensor:
    """a^T (b - origin), (S L, C), of a in slabs and b in rows.

    Args:
        a: (S, M, L), contiguous; L is a whole number of W.
        b: (..., C), M rows in all.
        origin: (B, C) or (C,), for runs of M / B rows of b each; None takes nothing off.

    Example:
        >>> a, b = torch.rand(2, 5, 32), torch.rand(5, 3)
        >>> torch.allclose(slab_columns_product(a, b), rows_of(a).T @ b)
        True
    """
    use_torch_threads()
    chunks = _chunks(a.shape[1], _origins(origin, b)[1])
    left, right = _Slabs(a), _Panels(b, origin, chunks)
    out, tasks = _result(left, right), _tasks(left, right, symmetric=False)
    for low in range(0, len(chunks), CHUNKS):
        some = chunks[low : low + CHUNKS]
        kernels.multiply_columns(
            *(left.numbers, left.places(some), left.step),
            *(right.pack(some)[0], some, tasks, out),
        )
    return torch.from_numpy(out[: left.columns, : right.columns])


def _tasks(left: _Panels | _Slabs, right: _Panels, symmetric: bool) -> np.ndarray:
    """Panels of both sides, (tasks, 2): all pairs, or those that reach the diagonal or above."""
    pairs = [(p, q) for q in range(right.count) for p in range(q + 1 if symmetric else left.count)]
    return np.array(pairs, np.int64)


def _mirrored(upper: torch.Tensor) -> torch.Tensor:
    """A symmetric matrix from its part above the diagonal."""
    upper = upper.triu()
    return (upper + upper.T).fill_diagonal_(0) + upper.diagonal().diag()


def square_product(
    x: torch.Tensor, origin: torch.Tensor, cloud: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(x - origin)^T (x - origin) over all rows, and the sums of x - origin over each cloud.

    Args:
        x: (M, K).
        origin: (K,).
        cloud: N, rows of a cloud.

    Returns:
        (K, K), and (B, K) in double precision.

    Example:
        >>> x = torch.rand(6, 3)
        >>> square, sums = square_product(x, torch.zeros(3), cloud=2)
        >>> torch.allclose(square, x.T @ x), sums.shape
        (True, torch.Size([3, 3]))
    """
    use_torch_threads()
    chunks = _chunks(len(x), cloud)
    side = _Panels(x, origin, chunks)
    out = _result(side, side)
    tasks = _tasks(side, side, symmetric=True)
    sums = torch.zeros(len(x) // cloud, side.columns, dtype=torch.float64)
    for low in range(0, len(chunks), CHUNKS):
        some = chunks[low : low + CHUNKS]
        packed, found = side.pack(some)
        _multiply(packed, packed, some, tasks, out)
        sums.index_add_(0, torch.from_numpy(some[:, 0] // cloud), torch.from_numpy(found).double())
    return _mirrored(torch.from_numpy(out[: side.columns, : side.columns])), sums

"""Stage 9, late rows: numbers (S,) and unit vectors (S, D) that came after the index, in memory.

Used by `pixcloud.store.vectors`. A number is never used twice and its vector never changes, so what
was read once stays true; only rows that were removed since have to be left out.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pixcloud.store.exact import promising


class LateRows:
    """Rows of one matrix that grows at its end, so that a query is one product.

    Args:
        dim: D.
    """

    def __init__(self, dim: int) -> None:
        self.first = 0  # all rows after this number up to `last` were read
        self.last = 0
        self._numbers = np.empty(0, np.int64)
        self._vectors = np.empty((0, dim), np.float32)
        self._count = 0

    @property
    def numbers(self) -> np.ndarray:
        """Numbers (S,) of the rows, ascending."""
        return self._numbers[: self._count]

    @property
    def vectors(self) -> np.ndarray:
        """Their unit vectors (S, D) float32."""
        return self._vectors[: self._count]

    def begin_after(self, number: int) -> None:
        """Forget the rows up to a number, which the index holds now."""
        if number < self.first:  # an older index was put back: rows are missing here
            self.keep(np.zeros(self._count, bool))
            self.last = number
        elif self._count and self._numbers[0] <= number:
            self.keep(self.numbers > number)
        self.first, self.last = number, max(self.last, number)

    def append(self, blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        """Add rows with higher numbers, some at a time."""
        for numbers, vectors in blocks:
            end = self._count + len(numbers)
            if end > len(self._numbers):
                self._grow(max(end, 2 * len(self._numbers)))
            self._numbers[self._count : end] = numbers
            self._vectors[self._count : end] = vectors
            self._count, self.last = end, int(numbers[-1])

    def keep(self, which: np.ndarray) -> None:
        """Keep the rows that (S,) bool names, in memory of their size."""
        self._numbers, self._vectors = self.numbers[which], self.vectors[which]
        self._count = len(self._numbers)

    def candidates(self, query: np.ndarray, k: int) -> np.ndarray:
        """Numbers of rows (C,) int64 among which the best k of (D,) are."""
        return self.numbers[promising(query, self.vectors, k)]

    def _grow(self, size: int) -> None:
        numbers, vectors = self.numbers, self.vectors
        self._numbers = np.empty(size, np.int64)
        self._vectors = np.empty((size, vectors.shape[1]), np.float32)
        self._numbers[: self._count], self._vectors[: self._count] = numbers, vectors

"""Stage 9, approximate search: stored vectors (S, D) -> an index that looks at a part of them.

Used by `pixcloud.store.vectors`. FAISS (Johnson et al. 2019, arXiv:1702.08734): an inverted file of
about 4 sqrt(S) cells with numbers of 8 bits. How many cells are looked at is measured when the
index is made, on some of the vectors themselves.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pixcloud.atomic import replaced_folder
from pixcloud.errors import StoreError
from pixcloud.store.exact import nearest

FOLDER, FILE, NOTE = "nearest", "index.faiss", "index.json"
RECALL = 0.98  # of the ten best, that the measured number of cells has to reach
LEAST = 0.95  # an index that finds fewer of them is not asked
_MOST_CELLS = 4096
_SAMPLE = 200  # vectors that the recall is measured on
_CANDIDATES = 8  # for each wanted one: their exact cosines decide


class ApproximateIndex:
    """The index in a store's folder, loaded when it is first asked.

    Args:
        folder: of the store; the index lies in its folder `nearest`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self.last = 0  # the highest number of a row that is in it
        self.recall = math.nan
        self._index: Any = None
        self._stamp: tuple[int, int] | None = None

    def load(self) -> bool:
        """Whether there is an index; it is read anew if another process made it anew.

        A damaged one counts as none: all that it would give can be computed.
        """
        path = self.folder / FILE
        try:
            state = path.stat()
            stamp = state.st_mtime_ns, state.st_ino
            if stamp != self._stamp:
                note = json.loads((self.folder / NOTE).read_text(encoding="utf-8"))
                index = _faiss().read_index(str(path))
                index.nprobe = int(note["cells"])
                if index.ntotal != note["vectors"]:
                    return False  # another process has just put a new one in its place
                self.last, self.recall = int(note["last"]), float(note["recall"])
                self._index, self._stamp = index, stamp
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, StoreError):
            return False
        return True

    @property
    def size(self) -> int:
        """Vectors in it, those among them that were removed since."""
        return int(self._index.ntotal)

    @property
    def useful(self) -> bool:
        """Whether it finds enough of the nearest; of vectors without structure none does."""
        return self.recall >= LEAST

    def candidates(self, query: np.ndarray, k: int) -> np.ndarray:
        """Numbers of rows (C,) int64 among which the best k of (D,) are, as a rule."""
        wanted = min(_CANDIDATES * k + 16, int(self._index.ntotal))
        numbers = self._index.search(query[None], wanted)[1][0]
        return numbers[numbers >= 0]

    def build(
        self, numbers: np.ndarray, vectors: np.ndarray, say: Callable[[str], None] = print
    ) -> None:
        """Make the index of rows (S,) and their unit vectors (S, D), and put it in place whole.

        Raises:
            StoreError: if FAISS is not installed.
            OSError: if it cannot be written.
        """
        faiss = _faiss()
        cells = max(1, min(_MOST_CELLS, round(4 * math.sqrt(len(vectors))), len(vectors) // 40))
        index = faiss.index_factory(vectors.shape[1], f"IVF{cells},SQ8", faiss.METRIC_INNER_PRODUCT)
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((0, len(vectors)))))
        drawn = rng.choice(len(vectors), min(len(vectors), 64 * cells), replace=False)
        index.train(vectors[np.sort(drawn)])
        index.add_with_ids(vectors, numbers)
        looked, recall = self._tune(index, numbers, vectors, cells, rng)
        note = {
            "vectors": len(vectors),
            "last": int(numbers[-1]),
            "cells": looked,
            "of": cells,
            "recall": recall,
        }
        with replaced_folder(self.folder) as temporary:
            faiss.write_index(index, str(temporary / FILE))
            (temporary / NOTE).write_text(json.dumps(note), encoding="utf-8")
        say(
            f"index of {len(vectors):,} vectors: {looked} of {cells} cells are looked at, which "
            f"found {100 * recall:.1f} % of the ten nearest of {min(_SAMPLE, len(vectors))} vectors"
        )
        if recall < LEAST:
            say(
                "warning: these vectors have too little structure for an index; every search "
                "compares with all of them"
            )

    @staticmethod
    def _tune(
        index: Any,
        numbers: np.ndarray,
        vectors: np.ndarray,
        cells: int,
        rng: np.random.Generator,
    ) -> tuple[int, float]:
        """How many cells to look at, and the recall of the ten nearest then."""
        k = min(11, len(vectors))  # each finds itself, which says nothing
        sample = rng.choice(len(vectors), min(_SAMPLE, len(vectors)), replace=False)
        truth = [set(nearest(vectors[i], vectors, numbers, k)[0]) - {numbers[i]} for i in sample]
        looked, recall = 1, 0.0
        while True:
            index.nprobe = looked
            found = index.search(vectors[sample], min(_CANDIDATES * 10 + 16, len(vectors)))[1]
            hits = sum(len(own & set(row)) for own, row in zip(truth, found, strict=True))
            recall = hits / max(1, sum(map(len, truth)))
            if recall >= RECALL or looked >= min(cells, 512):
                return looked, recall
            looked = min(2 * looked, cells, 512)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise StoreError(
            'an index of very many vectors needs FAISS: pip install "pixcloud[search]"; without '
            "it every search compares with all of them"
        ) from error
    return faiss

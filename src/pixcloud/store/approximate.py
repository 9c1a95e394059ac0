"""Stage 9, approximate search: stored vectors (S, D) -> an index that looks at a part of them.

Used by `pixcloud.store.vectors`. FAISS (Johnson et al. 2019, arXiv:1702.08734): an inverted file of
about 4 sqrt(S) cells with numbers of 8 bits. How many cells are looked at is measured when the
index is made, on some of the vectors themselves; later ones are put into the same cells.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pixcloud.atomic import TEMPORARY_PREFIX, replaced_folder
from pixcloud.errors import StoreError
from pixcloud.store.exact import nearest

FOLDER, FILE, NOTE = "nearest", "index.faiss", "index.json"
RECALL = 0.98  # of the ten best, that the measured number of cells has to reach
LEAST = 0.95  # an index that finds fewer of them is not asked
_MOST_CELLS = 4096
_SAMPLE = 200  # vectors that the recall is measured on
_MOST_LOOKED = 512
_CANDIDATES = 8  # for each wanted one: their exact cosines decide
_LEFT_OVER = 3600  # seconds after which nobody writes an index any more
_LATER_SAMPLE = 64  # of later vectors, that it is measured on whether they are found too


class ApproximateIndex:
    """The index in a store's folder, loaded when it is first asked.

    Args:
        folder: of the store; the index lies in its folder `nearest`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self.last = 0  # the highest number of a row that is in it
        self.made = 0  # vectors that it was made of; those beyond were put in later
        self.recall = math.nan
        self._note: dict[str, Any] = {}
        self._index: Any = None
        self._stamp: tuple[int, int] | None = None

    def load(self) -> bool:
        """Whether there is an index; it is read anew if another process made it anew.

        A damaged one counts as none: all that it would give can be computed. One that was read
        before stays good, since numbers of rows are never used twice.
        """
        try:
            stamp = self._stamp_there()
            if stamp != self._stamp:
                note = json.loads((self.folder / NOTE).read_text(encoding="utf-8"))
                index = _faiss().read_index(str(self.folder / FILE))
                if index.ntotal != note["vectors"]:
                    return self._index is not None  # another process is just putting a new one
                self._take(index, note, stamp)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, StoreError):
            return self._index is not None
        return True

    def noted(self) -> tuple[int, int] | None:
        """The highest number of a row and the number of vectors, without reading the index."""
        try:
            if self._index is not None and self._stamp_there() == self._stamp:
                return self.last, self.size
            note = json.loads((self.folder / NOTE).read_text(encoding="utf-8"))
            return int(note["last"]), int(note["vectors"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

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
            "made": len(vectors),
            "last": int(numbers[-1]),
            "cells": looked,
            "of": cells,
            "recall": recall,
        }
        self._write(index, note)
        say(
            f"index of {len(vectors):,} vectors: {looked} of {cells} cells are looked at, which "
            f"found {100 * recall:.1f} % of the ten nearest of {min(_SAMPLE, len(vectors))} vectors"
        )
        if recall < LEAST:
            say(
                "warning: these vectors have too little structure for an index; every search "
                "compares with all of them"
            )

    def extend(self, numbers: np.ndarray, vectors: np.ndarray) -> None:
        """Put later rows (S,) and their unit vectors (S, D) into the cells that there are.

        It is done if the later vectors are found as well as those that the index was made of,
        perhaps by a look at more cells. Otherwise they stay outside, where all are compared.

        Raises:
            OSError: if it cannot be written; what lies in the folder stays as it was.
        """
        index, note, stamp = self._index, dict(self._note), self._stamp
        # From here on it holds more than `last` says: nobody may ask it before all is done.
        self._index, self._stamp = None, None
        index.add_with_ids(vectors, numbers)
        looked, recall = self._found_later(index, numbers, vectors, int(note["of"]))
        if recall < LEAST or stamp != self._stamp_there():  # or another process made a new one
            return
        last = int(numbers[-1])
        note |= {"vectors": index.ntotal, "made": self.made, "last": last, "cells": looked}
        self._write(index, note)
        self._take(index, note, self._stamp_there())

    def _take(self, index: Any, note: dict[str, Any], stamp: tuple[int, int]) -> None:
        """Ask this one from now on."""
        index.nprobe = int(note["cells"])
        self.last, self.recall = int(note["last"]), float(note["recall"])
        self.made = int(note.get("made", note["vectors"]))
        self._note, self._index, self._stamp = note, index, stamp

    def _stamp_there(self) -> tuple[int, int]:
        state = (self.folder / FILE).stat()
        return state.st_mtime_ns, state.st_ino

    def _write(self, index: Any, note: dict[str, Any]) -> None:
        for path in self.folder.parent.glob(f"{TEMPORARY_PREFIX}*-{FOLDER}"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _LEFT_OVER:  # of a process that was killed
                    shutil.rmtree(path)
        with replaced_folder(self.folder) as temporary:
            _faiss().write_index(index, str(temporary / FILE))
            (temporary / NOTE).write_text(json.dumps(note), encoding="utf-8")

    @staticmethod
    def _found_later(
        index: Any, numbers: np.ndarray, vectors: np.ndarray, cells: int
    ) -> tuple[int, float]:
        """How many cells to look at, and the share of the ten nearest that is not missed then.

        Missed is a later vector that is nearer than the tenth that the index names; whether it
        finds the earlier ones was measured when it was made.
        """
        places = np.linspace(0, len(vectors) - 1, min(_LATER_SAMPLE, len(vectors))).astype(int)
        scores, k = vectors[places] @ vectors.T, min(10, len(vectors) - 1)
        scores[np.arange(len(places)), places] = -np.inf  # each finds itself, which says nothing
        best = np.argpartition(-scores, k, axis=1)[:, :k]
        scores = np.take_along_axis(scores, best, axis=1)
        looked = index.nprobe
        while True:
            index.nprobe = looked
            own, found = index.search(vectors[places], min(_CANDIDATES * 10 + 16, index.ntotal))
            missed = scores > own[:, [min(k, own.shape[1] - 1)]]
            missed &= [~np.isin(a, b) for a, b in zip(numbers[best], found, strict=True)]
            recall = 1 - float(missed.mean()) if k else 1.0
            if recall >= RECALL or looked >= min(cells, _MOST_LOOKED):
                return looked, recall
            looked = min(2 * looked, cells, _MOST_LOOKED)

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
            if recall >= RECALL or looked >= min(cells, _MOST_LOOKED):
                return looked, recall
            looked = min(2 * looked, cells, _MOST_LOOKED)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise StoreError(
            'an index of very many vectors needs FAISS: pip install "pixcloud[search]"; without '
            "it every search compares with all of them"
        ) from error
    return faiss

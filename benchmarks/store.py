"""A store of a million vectors: recall, milliseconds per query, seconds to fill, bytes on disk.

Vectors of 256 numbers. "shapes": 2,000 clusters, each with 16 directions of its own and a little
noise, as features of shapes of some kinds have; "noise": no structure at all, which no index can
make use of. Queries are further vectors of the same kind, each asked alone as a user would; every
answer's ten names are compared with those of the exact search.

`python -m benchmarks.store FEATURES.npy` takes vectors of a real encoder, as
`benchmarks.store_features` makes them: the last 200 ask, all others are stored.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from pixcloud.store import About, VectorStore

Maker = Callable[[int, int], np.ndarray]
DIM, K = 256, 10
KINDS = ("shapes", "noise")
_BATCH = 10_000


def run(rounds: int = 200, *, small: bool = False) -> dict[str, Any]:
    """Of each kind of vectors: `rounds` queries."""
    count = 5_000 if small else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        results = {
            kind: _measure(Path(folder) / kind, kind, _maker(kind), count, 20 if small else rounds)
            for kind in KINDS[: 1 if small else 2]
        }
    return {"benchmark": "store", "machine": machine(), "results": results}


def table(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows of (what, value)."""
    rows = []
    for kind, found in report["results"].items():
        what = f"{found['vectors']:,} vectors, {kind}"
        indexed, exact = found["indexed_ms"], found["exact_ms"]
        rows += [
            (f"{what}: recall at 10", f"{found['recall']:.3f}"),
            (f"{what}: ms per query", f"{indexed['median']:.1f} ({indexed['p99']:.1f} at 99 %)"),
            (f"{what}: ms, exact", f"{exact['median']:.1f} ({exact['p99']:.1f} at 99 %)"),
            (f"{what}: seconds to add, to index", f"{found['add_s']:.0f}, {found['index_s']:.0f}"),
            (f"{what}: MiB on disk, of the index", f"{found['mib']:.0f}, {found['index_mib']:.0f}"),
        ]
    return rows


def _measure(folder: Path, kind: str, make: Maker, count: int, queries: int) -> dict[str, Any]:
    with VectorStore(folder, About(dim=make(-1, 1).shape[1], encoder=kind)) as store:
        start = time.perf_counter()
        for first in range(0, count, _BATCH):
            size = min(_BATCH, count - first)
            store.add([f"{n}" for n in range(first, first + size)], make(first, size))
        add_s = time.perf_counter() - start
        start = time.perf_counter()
        store.build_index()
        index_s = time.perf_counter() - start
        asked = make(-1, queries)
        exact, exact_ms = _ask(store, asked[: max(20, queries // 4)], exact=True)
        found, indexed_ms = _ask(store, asked, exact=False)
    hits = [len(set(a) & set(b)) / K for a, b in zip(found, exact, strict=False)]
    index = sum(path.stat().st_size for path in (folder / "nearest").iterdir())
    return {
        "vectors": count,
        "recall": statistics.mean(hits),
        "indexed_ms": indexed_ms,
        "exact_ms": exact_ms,
        "add_s": add_s,
        "index_s": index_s,
        "mib": sum(p.stat().st_size for p in folder.glob("vectors*")) / 2**20,
        "index_mib": index / 2**20,
    }


def _ask(
    store: VectorStore, queries: np.ndarray, *, exact: bool
) -> tuple[list[list[str]], dict[str, float]]:
    """Names of each query's best, and median and 99th percentile of milliseconds."""
    store.search(queries[:1], K, exact=exact)  # reads what stays in memory
    names, milliseconds = [], []
    for query in queries:
        start = time.perf_counter()
        names.append(store.search(query[None], K, exact=exact).names[0])
        milliseconds.append(1000 * (time.perf_counter() - start))
    p99 = float(np.percentile(milliseconds, 99))
    return names, {"median": statistics.median(milliseconds), "p99": p99}


def _maker(kind: str) -> Maker:
    """Makes some vectors (S, D) from their first number alone."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((2000, DIM), np.float32)
    own = 0.3 * rng.standard_normal((2000, 16, DIM), np.float32)

    def make(first: int, size: int) -> np.ndarray:
        draw = np.random.default_rng([1, first + 1])
        if kind == "noise":
            return draw.standard_normal((size, DIM), np.float32)
        places = draw.integers(0, len(centres), size)
        inner = draw.standard_normal((size, 16), np.float32)
        noise = 0.1 * draw.standard_normal((size, DIM), np.float32)
        vectors = centres[places] + noise
        for start in range(0, size, 1000):
            some = slice(start, start + 1000)
            vectors[some] += np.einsum("sk,skd->sd", inner[some], own[places[some]])
        return vectors

    return make


def stored(features: np.ndarray) -> Maker:
    """Hands out features (F, D): from the first on, or, for the first number -1, the last ones."""

    def make(first: int, size: int) -> np.ndarray:
        return features[-size:] if first < 0 else features[first : first + size]

    return make


def main(path: str, queries: int = 200) -> None:
    """Measure a store of the vectors of a file; its last `queries` ask and are not stored."""
    features = np.load(path, mmap_mode="r", allow_pickle=False)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        found = _measure(store, path, stored(features), len(features) - queries, queries)
    for what, value in table({"results": {"of an encoder": found}}):
        print(f"  {what:<72} {value}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))

"""A trained encoder and the embedded data's objects -> a million vectors for `benchmarks.store`.

    python -m benchmarks.store_features RUN runs/features.npy
    python -m benchmarks.store runs/features.npy

Projections into the space of pictures, P numbers each, of the clouds of objects that no split of
the embedded data has: four of each object, at headings of their own, of different points of its
surface. Nothing is written until all are there. The objects are synthetic, of 27 categories.
"""

from __future__ import annotations

import argparse
import functools
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixcloud.atomic import replaced_file
from pixcloud.data.jobs import run_jobs
from pixcloud.data.pair_writer import named_generator
from pixcloud.data.surface import surface_points, unit_mesh
from pixcloud.data.synthetic.catalog import CATEGORIES, build_object
from pixcloud.data.synthetic.primitives import rotation
from pixcloud.errors import PixCloudError
from pixcloud.evaluate.embedder import Embedder, load_embedder

COUNT, QUERIES, CLOUDS = 1_000_000, 200, 4
# Of the objects; the embedded data has 0, the choice of recipes 1.
SEED = 2
_OBJECTS = 500  # of a job


@dataclass(frozen=True)
class _Job:
    run: str
    first: int
    objects: int
    points: int


def features(run: str, clouds: int, points: int = 256, workers: int = 0) -> np.ndarray:
    """Vectors (clouds, P) float32, object by object, the categories in turn.

    Args:
        run: a run of `pixcloud pretrain`, with its picture tower.
        clouds: how many, a multiple of four.
        points: of each cloud.
        workers: processes of one thread each; 0 takes all cores.

    Raises:
        WeightsError: if the run has no two towers.
    """
    load_embedder(run, "shared", points)  # an error of the run comes before any work
    objects = clouds // CLOUDS
    jobs = [
        _Job(run, first, min(_OBJECTS, objects - first), points)
        for first in range(0, objects, _OBJECTS)
    ]
    done = run_jobs(_embed, jobs, workers=workers, label="features", strict=True).results
    return np.concatenate([done[place] for place in range(len(jobs))])


@functools.lru_cache(maxsize=1)
def _embedder(run: str, points: int) -> Embedder:
    return load_embedder(run, "shared", points)


def _embed(job: _Job) -> np.ndarray:
    clouds = [
        cloud
        for number in range(job.first, job.first + job.objects)
        for cloud in _clouds(number, job.points)
    ]
    return _embedder(job.run, job.points).raw(np.stack(clouds), batch_size=64)


def _clouds(number: int, points: int) -> np.ndarray:
    """Four clouds (4, N, 3) of one object, each turned about the y axis."""
    category = list(CATEGORIES)[number % len(CATEGORIES)]
    mesh = unit_mesh(build_object(category, SEED, number))
    rng = named_generator(SEED, "store", category, str(number))
    drawn, _, _ = surface_points(mesh, CLOUDS * points, rng)  # independent: any part is a draw
    turns = [rotation("y", degrees).T for degrees in rng.uniform(0, 360, CLOUDS)]
    return (drawn.reshape(CLOUDS, points, 3) @ np.stack(turns)).astype(np.float32)


def main(words: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.store_features",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", help="a run of `pixcloud pretrain`")
    parser.add_argument("out", type=Path, help="the file, .npy")
    parser.add_argument("--count", type=int, default=COUNT, help="vectors, without the queries")
    parser.add_argument("--points", type=int, default=256, help="of each cloud")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0 takes all cores")
    arguments = parser.parse_args(words)
    if arguments.count < CLOUDS or arguments.count % CLOUDS:
        parser.error(f"--count {arguments.count}: expected a multiple of {CLOUDS}")
    try:
        found = features(
            arguments.run, arguments.count + QUERIES, arguments.points, arguments.workers
        )
    except PixCloudError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with replaced_file(arguments.out) as temporary, temporary.open("wb") as file:
        np.save(file, found)
    print(f"{found.shape[0]:,} vectors of {found.shape[1]} numbers are in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

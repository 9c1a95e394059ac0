"""Stages 1 and 2, the work on one mesh: `ShapeJob` -> the record of its cloud, and its pair.

`make` says what is to be done and hands the functions below to `run_jobs`, which calls them in
processes of its own: whatever they take and return is picklable.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pixcloud.data import make_record as memory
from pixcloud.data.mesh_companions import mesh_sha256
from pixcloud.data.mesh_folders import SourceShape
from pixcloud.errors import DataError
from pixcloud.types import Mesh


@dataclass(frozen=True)
class MakeSettings:
    """The settings that decide the bytes of the output; see `pixcloud.data.make.make_pairs`."""

    views: int
    size: int
    points: int
    up: str
    test_share: float
    pairs: str
    seed: int

    def __post_init__(self) -> None:
        for name, least in (("views", 1), ("size", 8), ("points", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise DataError(f"{name} = {getattr(self, name)}: at least {least} is needed")
        if not 0 <= self.test_share < 1:
            raise DataError(f"test_share = {self.test_share}: a share from 0 to below 1 is needed")
        for name, known in (("up", ("y", "z")), ("pairs", ("train", "all"))):
            if getattr(self, name) not in known:
                raise DataError(f"{name} = {getattr(self, name)!r}: give one of {known}")


@dataclass(frozen=True)
class ShapeJob:
    """One mesh to work on: picklable."""

    shape: SourceShape
    out: Path
    settings: MakeSettings


def source_file(job: ShapeJob) -> str:
    """The mesh file of a job."""
    return str(job.shape.path)


def load_shape(job: ShapeJob) -> Mesh:
    """Read a job's mesh with y up.

    Raises:
        FileFormatError: if it cannot be read.
    """
    from pixcloud.data.files import read_mesh
    from pixcloud.data.surface import y_up

    mesh = read_mesh(job.shape.path)
    return y_up(mesh) if job.settings.up == "z" else mesh


def sample_shape(job: ShapeJob) -> str:
    """Record the cloud of a mesh, unless the record of this very file is there.

    Returns:
        The SHA-256 of the mesh file and of its companions.

    Raises:
        DataError: if the mesh cannot be used; it names the file.
    """
    from pixcloud.data.pair_writer import remove_pair, sample_cloud

    shape, names = job.shape, (job.shape.category, job.shape.model)
    try:
        sha256 = mesh_sha256(shape.path)
    except OSError as problem:
        raise DataError(f"{shape.path}: cannot be read: {problem.strerror}") from None
    if memory.recorded_sha256(job.out, *names) == sha256:
        return sha256
    # An older pair is of another mesh: it goes before the record that would vouch for it.
    memory.forget(job.out, *names)
    remove_pair(job.out, *names)
    mesh = load_shape(job)
    try:
        cloud, normals, _ = sample_cloud(mesh, job.settings.points, job.settings.seed, *names)
    except DataError as problem:
        raise DataError(f"{shape.path}: {problem}") from None
    memory.write_record(job.out, *names, sha256, cloud, normals)
    return sha256


def render_shape(job: ShapeJob) -> None:
    """Write the pair of a mesh whose cloud is recorded.

    Raises:
        DataError: if the mesh cannot be used; it names the file.
    """
    from pixcloud.data.pair_writer import write_pair

    settings = job.settings
    mesh = load_shape(job)
    try:
        write_pair(
            job.out,
            job.shape.category,
            job.shape.model,
            mesh,
            points=settings.points,
            views=settings.views,
            size=settings.size,
            seed=settings.seed,
        )
    except DataError as problem:
        raise DataError(f"{job.shape.path}: {problem}") from None

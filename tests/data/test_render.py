"""Pictures of meshes: in frame whatever their size, right way up, clean at edges, repeatable."""

from __future__ import annotations

import numpy as np
import pytest
from small_meshes import box

from pixcloud.data.render import camera_ring, render_views
from pixcloud.data.shading import prepare_surface
from pixcloud.data.surface import unit_mesh
from pixcloud.errors import DataError
from pixcloud.types import Mesh

AZIMUTHS = np.array([0.0, 33.0, 93.0, 201.0])
ELEVATIONS = np.array([27.0, 25.0, 30.0, 28.0])


def sphere(rows: int = 24) -> Mesh:
    """A sphere of 2 * rows columns, its poles closed by triangles without area."""
    theta = np.linspace(0, np.pi, rows + 1)[:, None]
    phi = np.linspace(0, 2 * np.pi, 2 * rows + 1)[None]
    grid = np.stack(
        [np.sin(theta) * np.cos(phi), np.cos(theta) + 0 * phi, np.sin(theta) * np.sin(phi)], axis=-1
    )
    place = np.arange(grid[..., 0].size).reshape(grid.shape[:2])
    a, b, c, d = place[:-1, :-1], place[:-1, 1:], place[1:, 1:], place[1:, :-1]
    faces = np.concatenate([np.stack(x, -1).reshape(-1, 3) for x in ((a, b, c), (a, c, d))])
    return Mesh(vertices=grid.reshape(-1, 3), faces=faces)


def in_frame(pictures: np.ndarray) -> bool:
    """Whether nothing touches the border."""
    alpha = pictures[..., 3]
    return not any(x.any() for x in (alpha[:, 0], alpha[:, -1], alpha[..., 0], alpha[..., -1]))


SHAPES = {
    "cube": (1, 1, 1),
    "pole": (0.01, 5, 0.01),
    "plank": (5, 0.01, 1),
    "sheet": (3, 2, 0),
    "needle": (1e-4, 1e-4, 1),
}


@pytest.mark.parametrize("size", [8, 61, 137])
@pytest.mark.parametrize("name", SHAPES)
def test_the_whole_shape_is_in_frame(name: str, size: int) -> None:
    pictures = render_views(box(*SHAPES[name]), AZIMUTHS, ELEVATIONS, size)
    assert in_frame(pictures)
    if size == 137 and name != "needle":
        assert pictures[..., 3].any(axis=(1, 2)).all()


@pytest.mark.parametrize(
    ("scale", "offset"), [(1e-9, 0), (1e9, 0), (1, 1e5), (1e-3, -1e3), (1e100, 0)]
)
def test_size_and_place_of_the_shape_do_not_matter(scale: float, offset: float) -> None:
    usual = render_views(box(1, 2, 3), AZIMUTHS, ELEVATIONS, 48)
    moved = Mesh(vertices=box(1, 2, 3).vertices * scale + offset, faces=box().faces)
    pictures = render_views(moved, AZIMUTHS, ELEVATIONS, 48)
    assert in_frame(pictures)
    # Rounding may move an edge by a hair's breadth.
    assert np.abs(pictures.astype(int) - usual).mean() < 0.2


def test_the_shape_fills_the_frame_and_is_centred() -> None:
    alpha = render_views(sphere(), AZIMUTHS, ELEVATIONS)[..., 3] > 127
    for picture in alpha:
        rows, columns = np.flatnonzero(picture.any(1)), np.flatnonzero(picture.any(0))
        for span in (rows, columns):
            assert 119 <= len(span) <= 130
            assert abs(span[0] + span[-1] - 136) <= 2


def test_up_is_up_and_right_is_right() -> None:
    # A tall post at x = 0, y up, with a red flag at its top towards +x.
    post, flag = box(0.2, 4, 0.2), box(1.5, 0.6, 0.1)
    flag.vertices = flag.vertices + [0.2, 3.4, 0]
    mesh = Mesh(
        vertices=np.concatenate([post.vertices, flag.vertices]),
        faces=np.concatenate([post.faces, flag.faces + 8]),
        face_colors=np.repeat([[40, 40, 40], [220, 30, 30]], 12, axis=0).astype(np.uint8),
    )
    front, back = render_views(mesh, np.array([0.0, 180.0]), np.array([25.0, 25.0]), 64)
    for picture, on_right in ((front, True), (back, False)):
        red = (picture[..., 0] > 100) & (picture[..., 1] < 90) & (picture[..., 3] == 255)
        rows, columns = np.nonzero(red)
        post_column = np.nonzero(picture[40:, :, 3])[1].mean()
        assert rows.mean() < 25
        assert (columns.mean() > post_column) == on_right


def test_alpha_is_coverage() -> None:
    picture = render_views(sphere(60), np.array([10.0]), np.array([25.0]))[0]
    alpha = picture[..., 3].astype(float) / 255
    assert set(np.unique(picture[..., 3])) > {0, 255}
    assert 0.005 < ((alpha > 0) & (alpha < 1)).mean() < 0.05
    radius = np.sqrt(alpha.sum() / np.pi)
    spans = [np.flatnonzero((alpha > 0.5).any(axis)) for axis in (0, 1)]
    assert radius == pytest.approx(np.mean([len(s) for s in spans]) / 2, abs=0.7)
    assert (picture[alpha == 0] == [255, 255, 255, 0]).all()


def test_thin_poles_leave_no_gaps() -> None:
    pole = box(0.012, 4, 0.012)  # a third of a pixel wide
    frame = box(4, 0.05, 0.05)
    mesh = Mesh(
        vertices=np.concatenate([pole.vertices, frame.vertices + [-2, 0, 0]]),
        faces=np.concatenate([pole.faces, frame.faces + 8]),
    )
    alpha = render_views(mesh, np.array([3.0]), np.array([25.0]), 137)[0, ..., 3]
    rows = np.flatnonzero((alpha > 0).any(axis=1))
    assert np.array_equal(rows, np.arange(rows[0], rows[-1] + 1))


def test_pictures_repeat_and_do_not_depend_on_each_other() -> None:
    all_views = render_views(sphere(8), AZIMUTHS, ELEVATIONS, 40)
    assert all_views.shape == (4, 40, 40, 4)
    assert all_views.dtype == np.uint8
    for view in range(4):
        one = slice(view, view + 1)
        alone = render_views(sphere(8), AZIMUTHS[one], ELEVATIONS[one], 40)
        assert np.array_equal(alone[0], all_views[view])


def test_winding_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    mesh = sphere(12)
    turned = mesh.faces.copy()
    some = rng.random(len(turned)) < 0.5
    turned[some] = turned[some, ::-1]
    usual = render_views(mesh, AZIMUTHS[:1], ELEVATIONS[:1], 64).astype(int)
    mixed = render_views(
        Mesh(vertices=mesh.vertices, faces=turned), AZIMUTHS[:1], ELEVATIONS[:1], 64
    )
    assert np.abs(mixed - usual).max() <= 3


def test_smooth_normals_stop_at_creases() -> None:
    cube = unit_mesh(box())
    surface = prepare_surface(cube)
    for corner in range(3):  # a cube's edges are creases: each corner has its face's normal
        assert np.allclose(surface.normals[corner], surface.flat, atol=1e-6)
    ball = unit_mesh(sphere())
    surface = prepare_surface(ball)
    places = ball.vertices[ball.faces].transpose(1, 2, 0)
    real = np.linalg.norm(surface.flat, axis=0) > 0
    error = np.linalg.norm(surface.normals - places, axis=1)[:, real]
    assert error.max() < 0.1


def test_colors_come_through() -> None:
    mesh = box()
    mesh.face_colors = np.tile(np.array([[30, 60, 200]], np.uint8), (12, 1))
    picture = render_views(mesh, AZIMUTHS[:1], ELEVATIONS[:1], 48)[0]
    inside = picture[picture[..., 3] == 255].astype(int)
    assert (inside[:, 2] > inside[:, 0] + 30).all()


def test_camera_ring() -> None:
    azimuths, elevations = camera_ring(24, np.random.default_rng(0))
    gaps = np.diff(np.sort(azimuths), append=np.sort(azimuths)[0] + 360)
    assert gaps.min() >= 7.5 - 1e-9
    assert gaps.max() <= 22.5 + 1e-9
    assert elevations.min() >= 25
    assert elevations.max() <= 30
    assert len(camera_ring(1, np.random.default_rng(0))[0]) == 1
    with pytest.raises(ValueError, match="at least one"):
        camera_ring(0, np.random.default_rng(0))


def test_meshes_that_cannot_be_seen() -> None:
    for vertices in (np.ones((8, 3)), np.full((8, 3), np.nan), box(1, 0, 0).vertices):
        with pytest.raises(DataError, match="the mesh has"):
            render_views(Mesh(vertices=vertices, faces=box().faces), AZIMUTHS, ELEVATIONS, 16)

"""Points on surfaces: uniform, on the surface, the same for the same seed; meshes without area."""

from __future__ import annotations

import numpy as np
import pytest
from small_meshes import box

from pixcloud.data.surface import surface_points, unit_mesh, unit_sphere, y_up
from pixcloud.errors import DataError
from pixcloud.types import Mesh


def test_faces_are_chosen_by_area_and_filled_evenly() -> None:
    mesh, count = box(1, 2, 5), 40_000
    points, normals, faces = surface_points(mesh, count, np.random.default_rng(0))
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    expected = count * area / area.sum()
    seen = np.bincount(faces, minlength=12)
    assert ((seen - expected) ** 2 / expected).sum() < 31.3  # chi-square, 11 degrees, 0.1 %
    # Within one face: barycentric coordinates of uniform points have mean 1/3, variance 1/18.
    chosen = int(np.argmax(area))
    inside = points[faces == chosen] - a[chosen]
    edges = np.stack([b[chosen] - a[chosen], c[chosen] - a[chosen]], axis=1)
    share = np.linalg.lstsq(edges, inside.T, rcond=None)[0]
    assert np.allclose(share.mean(axis=1), 1 / 3, atol=0.01)
    assert np.allclose(share.var(axis=1), 1 / 18, atol=0.003)
    assert share.min() > -1e-5
    assert share.sum(axis=0).max() < 1 + 1e-5
    assert np.abs(np.einsum("ij,ij->i", points - a[faces], normals)).max() < 1e-6
    assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)


def test_points_are_a_function_of_the_generator() -> None:
    first, again, other = (
        surface_points(box(), 100, np.random.default_rng(seed))[0] for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.dtype == np.float32
    assert surface_points(box(), 0, np.random.default_rng(0))[0].shape == (0, 3)


def test_faces_without_area_are_never_chosen() -> None:
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [2, 0, 0]], float)
    mesh = Mesh(vertices=corners, faces=np.array([[0, 1, 3], [0, 1, 2], [1, 1, 1]]))
    _, _, faces = surface_points(mesh, 500, np.random.default_rng(0))
    assert (faces == 1).all()


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e150])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_unit_mesh_of_any_size(scale: float, offset: float) -> None:
    shape = Mesh(vertices=(box(1, 2, 3).vertices + offset) * scale, faces=box().faces)
    expected = box(1, 2, 3).vertices - [0.5, 1, 1.5]
    expected /= np.linalg.norm(expected, axis=1).max()
    assert np.allclose(unit_mesh(shape).vertices, expected, atol=1e-8)


def test_vertices_that_no_face_names_do_not_count() -> None:
    extra = np.array([[np.nan, 0, 0], [1e9, 0, 0]])
    mesh = Mesh(vertices=np.concatenate([box().vertices, extra]), faces=box().faces)
    assert np.array_equal(unit_mesh(mesh).vertices[:8], unit_mesh(box()).vertices)
    assert np.isfinite(surface_points(mesh, 50, np.random.default_rng(0))[0]).all()


BAD = {
    "no faces": (box().vertices, np.empty((0, 3), int)),
    "NaN or infinite": (np.where(box().vertices == 1, np.nan, 0), box().faces),
    "1 vertices that are NaN or infinite": (
        np.where(box().vertices.sum(1, keepdims=True) == 3, np.inf, box().vertices),
        box().faces,
    ),
    "no extent": (np.ones((8, 3)), box().faces),
    "no area": (box(1, 0, 0).vertices, box().faces),
    "too large": (np.where(box().vertices == 1, 1.7e308, -1.7e308), box().faces),
}


@pytest.mark.parametrize("reason", BAD)
def test_meshes_that_have_no_surface(reason: str) -> None:
    vertices, faces = BAD[reason]
    with pytest.raises(DataError, match=reason):
        surface_points(Mesh(vertices=vertices, faces=faces), 10, np.random.default_rng(0))


def test_unit_sphere_and_y_up() -> None:
    points = np.random.default_rng(0).normal(size=(99, 3)) * 7 + 100
    unit = unit_sphere(points)
    assert np.allclose(unit.mean(axis=0), 0, atol=1e-6)
    assert np.linalg.norm(unit, axis=1).max() == pytest.approx(1, abs=1e-6)
    assert np.array_equal(unit_sphere(np.full((4, 3), 5.0)), np.zeros((4, 3)))
    turned = y_up(Mesh(vertices=np.array([[1.0, 2, 3]]), faces=np.zeros((1, 3), int)))
    assert turned.vertices.tolist() == [[1, 3, -2]]

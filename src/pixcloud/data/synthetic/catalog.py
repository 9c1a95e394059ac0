"""Stage 1, the embedded objects: (category, seed, index) -> `Mesh`; `make` writes sets of them.

Everything about an object is a function of these three, drawn from a counter-based generator.
"""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np

from pixcloud.data.synthetic import (
    cycles,
    devices,
    flight,
    furniture,
    handheld,
    seating,
    tools,
    vehicles,
    vessels,
)
from pixcloud.data.synthetic.model import Category, Model, Values
from pixcloud.data.synthetic.primitives import rotation
from pixcloud.errors import DataError, nearest
from pixcloud.types import Mesh

VARIATION = 1.0
STRETCH = 1.3

_IN_ORDER = (
    flight.AIRPLANE, furniture.BED, seating.BENCH, cycles.BICYCLE, furniture.BOOKSHELF,
    vessels.BOTTLE, furniture.CABINET, vehicles.CAR, seating.CHAIR, handheld.GUITAR,
    tools.HAMMER, handheld.HAT, devices.HEADPHONE, tools.KNIFE, devices.LAMP, devices.LAPTOP,
    devices.MONITOR, vessels.MUG, flight.ROCKET, cycles.SKATEBOARD, seating.SOFA, seating.STOOL,
    furniture.TABLE, vessels.TEAPOT, vehicles.TRUCK, handheld.UMBRELLA, vessels.VASE,
)  # fmt: skip

CATEGORIES: dict[str, Category] = {category.name: category for category in _IN_ORDER}

# What a draw is for, next to the seed, the category and the index.
_FORM, _DETAIL, _STRETCH = range(3)


def object_rng(seed: int, category: str, index: int, purpose: int) -> np.random.Generator:
    """The generator of one purpose of one object."""
    entropy = [seed, zlib.crc32(category.encode()), index, purpose]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))


def draw_values(
    category: Category, seed: int, index: int, variation: float = VARIATION
) -> tuple[dict[str, float], dict[str, str]]:
    """The parameters and variants of one object."""
    rng = object_rng(seed, category.name, index, _FORM)
    numbers = {}
    for name, (low, high) in category.parameters.items():
        middle, half = (low + high) / 2, (high - low) / 2
        numbers[name] = middle + half * variation * (2 * rng.random() - 1)
    choices = {
        name: options[int(rng.integers(len(options)))]
        for name, options in category.variants.items()
    }
    return numbers, choices


def build_object(
    category: str, seed: int, index: int, *, variation: float = VARIATION, stretch: float = STRETCH
) -> Mesh:
    """One object, with colours and part numbers per face.

    Args:
        category: A name in `CATEGORIES`.
        seed: Of the set.
        index: Of the object in the category; every index is another object.
        variation: Share of the parameters' ranges that is used, about their middles, in (0, 1].
        stretch: Greatest factor by which an axis is stretched or shrunk beyond the parameters.

    Returns:
        A mesh with y up that stands on y = 0 with the y axis through the middle of its bounding
        box. Its heading is the category's own: see `at_heading`. Its unit differs by category.

    Raises:
        DataError: if there is no such category.

    Example:
        >>> mesh = build_object("chair", seed=0, index=0)
        >>> float(mesh.vertices[:, 1].min())
        0.0
    """
    if category not in CATEGORIES:
        raise DataError(f"no category '{category}' of objects: {nearest(category, CATEGORIES)}")
    kind = CATEGORIES[category]
    numbers, choices = draw_values(kind, seed, index, variation)
    model = Model(kind.parts, object_rng(seed, category, index, _DETAIL))
    kind.builder(Values(numbers), Values(choices), model)
    mesh = model.mesh()
    limit = np.log(stretch)
    draws = object_rng(seed, category, index, _STRETCH).uniform(-limit, limit, 3)
    factors = [
        1.0 if axis == "-" else float(np.exp(draws["xyz".index(axis)])) for axis in kind.stretch
    ]
    vertices = mesh.vertices * factors
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    middle = (low + high) / 2
    return replace(mesh, vertices=vertices - (middle[0], low[1], middle[2]))


def at_heading(mesh: Mesh, degrees: float) -> Mesh:
    """A mesh turned about the y axis."""
    return replace(mesh, vertices=mesh.vertices @ rotation("y", degrees).T)

"""Stage 1, one object: solids with part names and colours -> `Mesh`; categories fill it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixcloud.data.synthetic.curves import cross
from pixcloud.data.synthetic.materials import draw_color
from pixcloud.data.synthetic.primitives import Solid
from pixcloud.types import Mesh

LEAST_AREA = 1e-10  # of a face, in squared units of an object about 1 in size


class Values:
    """The drawn numbers or variants of one object, read as attributes.

    >>> Values({"height": 0.5}).height
    0.5
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_values"][name]
        except KeyError:
            raise AttributeError(name) from None


class Model:
    """An object while it is built.

    Args:
        parts: Names of the category's parts; a part's number is its place here.
        rng: For colours and small details.
    """

    def __init__(self, parts: tuple[str, ...], rng: np.random.Generator) -> None:
        self.parts = parts
        self.rng = rng
        self._pieces: list[tuple[int, Solid, np.ndarray]] = []

    def add(self, part: str, solid: Solid, color: np.ndarray) -> None:
        """Add a piece of one colour (3,) uint8 to a part."""
        self._pieces.append((self.parts.index(part), solid, color))

    def color(self, *materials: str) -> np.ndarray:
        """A random colour of one of these materials; see `materials.MATERIALS`."""
        return draw_color(self.rng, *materials)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self.rng.random() < probability)

    def mesh(self) -> Mesh:
        """All pieces as one mesh, without faces that have no area."""
        solids = [solid for _, solid, _ in self._pieces]
        counts = [len(solid.faces) for solid in solids]
        starts = np.cumsum([0] + [len(solid.vertices) for solid in solids[:-1]])
        vertices = np.concatenate([solid.vertices for solid in solids])
        faces = np.concatenate([s.faces + start for s, start in zip(solids, starts, strict=True)])
        a, b, c = (vertices[faces[:, k]] for k in range(3))
        extent = np.ptp(vertices, axis=0).max()
        area = np.square(cross(b - a, c - a)).sum(axis=1) / extent**4
        keep = area > LEAST_AREA**2
        return Mesh(
            vertices=vertices,
            faces=faces[keep].astype(np.int64),
            face_colors=np.repeat([color for _, _, color in self._pieces], counts, axis=0)[keep],
            face_parts=np.repeat([part for part, _, _ in self._pieces], counts)[keep],
        )


@dataclass(frozen=True, kw_only=True)
class Category:
    """A kind of object.

    Args:
        name: Lower case, the name of its folder.
        parts: Names in the order of their numbers, 2 to 6 of them; an object may lack some.
        parameters: Name to range (low, high) of a uniform draw, about in metres or degrees.
        variants: Name to choices of equal chance.
        builder: Fills a model, given the drawn parameters and variants.
        stretch: Which axes are stretched at random beyond the parameters: one letter each for x, y
            and z; equal letters share a factor (a round mug stays round), "-" is left alone.
    """

    name: str
    parts: tuple[str, ...]
    parameters: Mapping[str, tuple[float, float]]
    variants: Mapping[str, tuple[str, ...]]
    builder: Callable[[Values, Values, Model], None]
    stretch: str = "xyz"

"""Stage 1, what furniture stands on: a style's name and sizes -> solids; furniture uses it."""

from __future__ import annotations

import numpy as np

from pixcloud.data.synthetic.curves import arc, smooth
from pixcloud.data.synthetic.primitives import Solid, beam, box, cylinder, joined, rod, tube

CORNERS = ((1, 1), (1, -1), (-1, -1), (-1, 1))


def support(
    style: str, width: float, depth: float, height: float, thick: float, splay: float = 0.0
) -> Solid:
    """Legs or a base from the ground up to `height`, under a plate of width x depth.

    Args:
        style: One of `SUPPORTS`.
        width: Of the plate along x.
        depth: Of the plate along z.
        height: At which the plate begins.
        thick: Of one leg.
        splay: How far round legs lean outwards, as a share of the height.
    """
    return SUPPORTS[style](width, depth, height, thick, splay)


def square_legs(width: float, depth: float, height: float, thick: float, splay: float) -> Solid:
    x, z = (width - thick) / 2, (depth - thick) / 2
    return joined(
        *(
            beam((a * x, 0, b * z), (a * x, height, b * z), thick, thick, 1 - 2 * splay)
            for a, b in CORNERS
        )
    )


def round_legs(width: float, depth: float, height: float, thick: float, splay: float) -> Solid:
    x, z, out = width / 2 - thick, depth / 2 - thick, splay * height
    return joined(
        *(
            rod(
                (a * (x + out), 0, b * (z + out)), (a * x, height, b * z), thick * 0.35, thick * 0.6
            )
            for a, b in CORNERS
        )
    )


def sled(width: float, depth: float, height: float, thick: float, splay: float) -> Solid:
    x, z, r = width / 2 - thick, depth / 2 - thick, thick * 0.45
    runner = smooth(
        [(0, height, z), (0, 0.1 * height, z), (0, r, z - 0.1 * height)]
        + [(0, r, -z + 0.1 * height), (0, 0.1 * height, -z), (0, height, -z)],
        20,
    )
    return joined(*(tube(runner, r, 8).at(a * x) for a in (-1, 1)))


def pedestal(width: float, depth: float, height: float, thick: float, splay: float) -> Solid:
    foot = min(width, depth) * (0.3 + splay)
    return joined(
        cylinder(foot, thick * 0.6, foot * 0.85, thick * 0.2),
        cylinder(thick * 0.8, height, sides=20),
        cylinder(thick * 0.8, thick, thick * 2.2, sides=20).at(y=height - thick),
    )


def star(width: float, depth: float, height: float, thick: float, splay: float) -> Solid:
    reach, wheel = min(width, depth) * (0.45 + splay), thick * 0.55
    arms = []
    for angle in 2 * np.pi * np.arange(5) / 5:
        x, z = reach * np.cos(angle), reach * np.sin(angle)
        arms.append(rod((0, height * 0.3, 0), (x, 2 * wheel, z), thick * 0.6, thick * 0.4, 8))
        caster = cylinder(wheel, wheel, sides=12).turned("x", 90).at(z=-wheel / 2)
        arms.append(caster.turned("y", -np.degrees(angle)).at(x, wheel, z))
    return joined(rod((0, height * 0.25, 0), (0, height, 0), thick * 0.6, sides=16), *arms)


def panels(width: float, depth: float, height: float, thick: float, splay: float) -> Solid:
    plate = box(thick, height, depth * 0.96)
    x = (width - thick) / 2
    rail = box(width - 2 * thick, height * 0.2, thick * 0.6).at(y=height * 0.7)
    return joined(plate.at(x), plate.at(-x), rail)


def crossed(width: float, depth: float, height: float, thick: float, splay: float) -> Solid:
    x, z = width / 2 - thick, depth / 2 - thick / 2
    bars = [
        beam((a * x, 0, b * z), (-a * x, height, b * z), thick, thick * 0.8)
        for a in (-1, 1)
        for b in (-1, 1)
    ]
    return joined(*bars, rod((0, height / 2, -z), (0, height / 2, z), thick * 0.3, sides=10))


def trestle(width: float, depth: float, height: float, thick: float, splay: float) -> Solid:
    x = width * 0.36
    post, foot = (
        box(thick, height, thick * 1.8),
        box(thick * 1.4, thick, depth * (0.7 + splay), thick * 0.3),
    )
    pairs = [
        joined(post.at(a * x), foot.at(a * x), foot.at(a * x, height - thick)) for a in (-1, 1)
    ]
    return joined(*pairs, box(2 * x, thick * 1.4, thick * 0.7).at(y=height * 0.35))


def drum(width: float, depth: float, height: float, thick: float, splay: float) -> Solid:
    radius = (0.3 + splay) * min(width, depth)
    return cylinder(radius, height, radius * (1 - 2 * splay), thick * 0.2).scaled(
        x=width / min(width, depth), z=depth / min(width, depth)
    )


def hairpin(width: float, depth: float, height: float, thick: float, splay: float) -> Solid:
    x, z, r, gap = width / 2 - 1.5 * thick, depth / 2 - 1.5 * thick, thick * 0.2, thick * 1.4
    bend = arc(r * 2, 180, 360, 6)
    path = np.array([(gap, height, 0), *((p[0], p[1] + 3 * r, 0) for p in bend[::-1])])
    path = np.concatenate([path, [(-gap, height, 0)]])
    pin = tube(path, r, 6)
    return joined(
        *(
            pin.turned("y", 45 * a * b).at(a * (x + splay * height * 0.3), 0, b * z)
            for a, b in CORNERS
        )
    )


def tripod(width: float, depth: float, height: float, thick: float, splay: float) -> Solid:
    reach = min(width, depth) * (0.42 + splay)
    legs = []
    for angle in 2 * np.pi * (np.arange(3) + 0.25) / 3:
        x, z = reach * np.cos(angle), reach * np.sin(angle)
        legs.append(rod((x, 0, z), (x * 0.25, height, z * 0.25), thick * 0.4, thick * 0.55))
    return joined(*legs)


SUPPORTS = {
    "square": square_legs,
    "round": round_legs,
    "sled": sled,
    "pedestal": pedestal,
    "star": star,
    "panels": panels,
    "crossed": crossed,
    "trestle": trestle,
    "drum": drum,
    "hairpin": hairpin,
    "tripod": tripod,
}

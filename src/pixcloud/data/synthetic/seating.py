"""Stage 1, categories of seats: chair, stool, bench, sofa; `catalog` lists them."""

from __future__ import annotations

import numpy as np

from pixcloud.data.synthetic.curves import smooth
from pixcloud.data.synthetic.materials import shade_of
from pixcloud.data.synthetic.model import Category, Model, Values
from pixcloud.data.synthetic.primitives import (
    Solid,
    both_sides,
    box,
    cylinder,
    ellipsoid,
    joined,
    rod,
    sheet,
    tube,
)
from pixcloud.data.synthetic.supports import support


def back_rest(style: str, width: float, height: float, thick: float, count: int) -> Solid:
    """An upright back of width x height about x = 0, its foot at y = 0, facing +z."""
    post = max(0.03, thick * 0.6)
    x = (width - post) / 2
    if style == "solid":
        return box(width, height, thick, thick * 0.45)
    if style == "shell":
        u, v = np.meshgrid(np.linspace(-1, 1, 13), np.linspace(0, 1, 9))
        half = width / 2 * (1 - 0.35 * v**3)
        points = np.stack([u * half, v * height, 0.18 * width * u**2 - 0.04 * v], axis=-1)
        return sheet(points, thick * 0.5, axis=2)
    posts = both_sides(rod((x, 0, 0), (x, height, 0), post / 2))
    top = box(width, height * 0.16, post * 0.9, post * 0.4).at(y=height * 0.86)
    if style == "ladder":
        rail = box(width - post, height * 0.5 / count, post * 0.5, post * 0.2)
        heights = np.linspace(0.2, 0.72, count) * height
        return joined(posts, top, *(rail.at(y=y) for y in heights))
    places = np.linspace(-1, 1, count + 2)[1:-1] * x
    if style == "slats":
        slat = box(0.9 * x / count, height * 0.9, post * 0.5)
        return joined(posts, top, *(slat.at(p) for p in places))
    spindle = rod((0, 0, 0), (0, height * 0.9, 0), post * 0.26, sides=8)
    return joined(posts, top, *(spindle.at(p) for p in places))


def arm_pair(
    style: str, width: float, depth: float, low: float, height: float, thick: float
) -> Solid:
    """Two arms outside a seat of width x depth whose top is at `low`; `height` above it."""
    x, front, back = width / 2 + thick * 0.2, depth * 0.42, -depth * 0.48
    if style == "slab":
        side = box(thick * 1.6, height + 0.1, depth * 0.95, thick * 0.5).at(x, low - 0.1)
        return both_sides(side)
    if style == "loop":
        path = smooth(
            [(x, low - 0.02, front * 0.6), (x, low + height * 0.6, front)]
            + [(x, low + height, front * 0.4), (x, low + height * 1.02, back)],
            16,
        )
        return both_sides(tube(path, thick * 0.42, 8))
    post = rod((x, low - 0.02, front * 0.8), (x, low + height, front * 0.8), thick * 0.4, sides=8)
    rest = box(thick * 1.5, thick * 0.8, front - back, thick * 0.35)
    return both_sides(joined(post, rest.at(x, low + height - thick * 0.2, (front + back) / 2)))


# Share of a round seat's width and depth between legs that stand in a square below it.
ROUND = 0.76


def build_chair(p: Values, v: Values, m: Model) -> None:
    frame, cover = (
        m.color("wood", "metal", "plastic"),
        m.color("fabric", "leather", "wood", "plastic"),
    )
    width, depth, top = p.width, p.depth, p.seat_height
    seat_y = top - p.thickness
    if v.seat == "round":
        seat = cylinder(0.5, p.thickness, bevel=p.thickness * 0.35).scaled(x=width, z=depth)
    elif v.seat == "cushion":
        seat = joined(
            box(width, p.thickness, depth),
            box(width * 0.96, p.thickness * 1.2, depth * 0.94, p.thickness * 0.55).at(
                y=p.thickness
            ),
        )
    else:
        seat = box(width, p.thickness, depth, p.thickness * 0.4)
    m.add("seat", seat.at(y=seat_y), cover if v.seat == "cushion" else frame)
    wide = p.back_width
    if v.seat == "round":  # what stands at the corners of other seats moves in
        width, depth, wide = width * ROUND, depth * ROUND, min(wide, 0.95)
    m.add("legs", support(v.base, width, depth, seat_y, p.leg, p.splay), frame)
    back = back_rest(v.back, width * wide, p.back_height, p.thickness * 0.8, 2 + int(p.bars))
    gap = p.back_gap if v.back in ("solid", "shell") and p.back_gap > 0.03 else 0.0
    back = back.at(y=gap).turned("x", -p.recline).at(y=top - 0.01, z=-depth / 2 + p.thickness * 0.4)
    m.add("back", back, cover if v.back in ("solid", "shell") else frame)
    if gap > 0:
        post = rod((width * 0.25, -0.02, 0), (width * 0.25, gap + 0.08, 0), p.leg * 0.35, sides=8)
        post = both_sides(post).turned("x", -p.recline)
        m.add("back", post.at(y=top - 0.01, z=-depth / 2 + p.thickness * 0.4), frame)
    if v.arms != "none":
        reach = p.width * 0.9 if v.seat == "round" else width
        m.add("arms", arm_pair(v.arms, reach, depth, top, p.arm_height, p.leg * 1.2), frame)


def build_stool(p: Values, v: Values, m: Model) -> None:
    frame, cover = (
        m.color("wood", "metal", "plastic"),
        m.color("leather", "fabric", "wood", "plastic"),
    )
    wide, depth, y = p.width, p.width * p.oblong, p.height - p.thickness
    if v.seat == "round":
        seat = cylinder(0.5, p.thickness, bevel=p.thickness * 0.4).scaled(x=wide, z=depth)
    elif v.seat == "saddle":
        u, w = np.meshgrid(np.linspace(-1, 1, 15), np.linspace(-1, 1, 9))
        points = np.stack([u * wide / 2, 0.12 * wide * u**2, w * depth / 2], axis=-1)
        seat = sheet(points, p.thickness * 0.7)
    else:
        seat = box(wide, p.thickness, depth, p.thickness * 0.4)
    m.add("seat", seat.at(y=y), cover)
    if v.seat == "round" and v.base in ("square", "round", "panels", "crossed"):
        wide, depth = wide * ROUND, depth * ROUND
    m.add("legs", support(v.base, wide, depth, y, p.leg, p.splay), frame)
    if v.back == "low":
        rest = box(wide * 0.9, p.back_height, p.leg, p.leg * 0.4)
        m.add("back", rest.at(y=p.height + 0.04, z=-depth / 2), cover)
        low, high = (
            (wide * 0.3, p.height - 0.04, -depth / 2),
            (wide * 0.3, p.height + 0.08, -depth / 2),
        )
        post = rod(low, high, p.leg * 0.4, sides=8)
        m.add("back", both_sides(post), frame)
    if v.base in ("square", "round", "tripod") and m.chance(0.8):
        rung = p.rung * y
        out = 0.0 if v.base == "square" else p.splay * y * (1 - p.rung) - p.leg / 2
        reach, deep = wide / 2 - p.leg / 2 + out, depth / 2 - p.leg / 2 + out
        if v.base == "tripod":
            ring = tube(_ring(reach * 0.75, deep * 0.75, rung), p.leg * 0.3, 8, ring=True)
            m.add("rungs", ring, frame)
        else:
            sides = both_sides(rod((reach, rung, -deep), (reach, rung, deep), p.leg * 0.3, sides=8))
            ends = both_sides(
                rod((-reach, rung, deep), (reach, rung, deep), p.leg * 0.3, sides=8), "z"
            )
            m.add("rungs", joined(sides, ends), frame)


def _ring(x: float, z: float, y: float, points: int = 28) -> np.ndarray:
    angle = np.arange(points) * (2 * np.pi / points)
    return np.stack([x * np.cos(angle), np.full(points, y), z * np.sin(angle)], axis=1)


def _planks(width: float, depth: float, thick: float, count: int) -> Solid:
    each = depth / count
    plank = box(width, thick, each * 0.82, thick * 0.2)
    return joined(*(plank.at(z=(k + 0.5) * each - depth / 2) for k in range(count)))


def build_bench(p: Values, v: Values, m: Model) -> None:
    frame, wood = m.color("metal", "wood", "dark"), m.color("wood", "paint", "light")
    y = p.height - p.thickness
    count = 2 + int(p.planks)
    if v.seat == "planks":
        m.add("seat", _planks(p.width, p.depth, p.thickness, count).at(y=y), wood)
        rail = box(p.leg * 0.6, p.leg * 0.6, p.depth * 0.97)
        m.add("seat", both_sides(rail.at(p.width * 0.36, y - p.leg * 0.58)), frame)
    elif v.seat == "padded":
        m.add(
            "seat",
            box(p.width, p.thickness * 2, p.depth, p.thickness * 0.9).at(y=y),
            m.color("fabric", "leather"),
        )
    else:
        m.add("seat", box(p.width, p.thickness, p.depth, p.thickness * 0.25).at(y=y), wood)
    m.add("legs", support(v.base, p.width * 0.94, p.depth, y, p.leg, p.splay), frame)
    if v.back != "none":
        if v.back == "planks":
            rest = _planks(p.width, p.back_height, p.thickness * 0.7, count).turned("x", 90)
            rest = rest.at(y=p.back_height / 2 + 0.06)
            posts = both_sides(
                box(p.leg * 0.7, p.back_height + 0.06, p.leg * 0.5).at(
                    p.width * 0.4, 0, -p.leg * 0.2
                )
            )
            rest = joined(rest, posts)
        else:
            rest = back_rest(v.back, p.width * 0.98, p.back_height, p.leg * 1.1, 4 + 2 * count)
        m.add(
            "back", rest.turned("x", -p.recline).at(y=p.height - 0.02, z=-p.depth / 2 + 0.02), wood
        )
    if v.arms != "none" and v.back != "none":
        m.add(
            "arms", arm_pair(v.arms, p.width * 0.95, p.depth, p.height, p.arm_height, p.leg), frame
        )


def _cushions(width: float, height: float, depth: float, count: int) -> Solid:
    each = width / count
    cushion = box(each * 0.97, height, depth, min(height, depth) * 0.32, steps=3)
    return joined(*(cushion.at((k + 0.5) * each - width / 2) for k in range(count)))


def build_sofa(p: Values, v: Values, m: Model) -> None:
    cover = m.color("fabric", "leather")
    accent = shade_of(cover, m.rng.uniform(0.8, 1.3)) if m.chance(0.7) else m.color("fabric")
    foot, arm = p.foot, p.arm_width if v.arms != "none" else 0.0
    inner, base = p.width - 2 * arm, p.seat_height - p.cushion
    count = 1 + int(p.seats)
    m.add("seat", box(p.width, base - foot, p.depth, 0.03).at(y=foot), cover)
    cushions = _cushions(inner, p.cushion, p.depth * 0.8, count).at(y=base, z=p.depth * 0.1)
    m.add("cushions", cushions, accent)
    back = box(p.width, p.back_height + base - foot, p.back_depth, p.back_depth * 0.4, steps=3)
    m.add("back", back.at(y=foot, z=(p.back_depth - p.depth) / 2), cover)
    if v.back == "pillows":
        pillow = _cushions(inner, p.back_height * 0.8, p.back_depth * 0.9, count)
        pillow = pillow.turned("x", -p.recline)
        m.add("cushions", pillow.at(y=p.seat_height, z=-p.depth / 2 + p.back_depth * 1.3), accent)
    if v.arms in ("box", "low"):
        rise = p.arm_height * (0.45 if v.arms == "low" else 1.0)
        side = box(arm, base + rise - foot, p.depth, 0.05, steps=3)
        m.add("arms", both_sides(side.at((p.width - arm) / 2, foot)), cover)
    elif v.arms == "rolled":
        side = box(arm * 0.7, base + p.arm_height - foot, p.depth * 0.96, 0.02)
        roll = cylinder(arm * 0.62, p.depth, bevel=0.03, sides=24).turned("x", 90)
        roll = roll.at(p.width / 2 - arm * 0.35, base + p.arm_height, -p.depth / 2)
        m.add("arms", both_sides(joined(side.at(p.width / 2 - arm * 0.5, foot), roll)), cover)
    if v.form == "chaise":
        long = box(inner / count, base - foot, p.chaise, 0.03).at(
            inner / 2 - inner / count / 2, foot, p.depth / 2 + p.chaise / 2 - 0.02
        )
        pad = _cushions(inner / count, p.cushion, p.chaise, 1)
        pad = pad.at(inner / 2 - inner / count / 2, base, p.depth / 2 + p.chaise / 2)
        m.add("seat", long, cover)
        m.add("cushions", pad, accent)
    if m.chance(0.5):
        throw = ellipsoid(0.2, 0.18, 0.07).turned("x", -20).turned("z", m.rng.uniform(-25, 25))
        x = m.rng.uniform(-0.3, 0.3) * inner
        m.add("cushions", throw.at(x, p.seat_height + 0.17, -p.depth * 0.05), m.color("fabric"))
    legs = support("round", p.width * 0.92, p.depth * 0.92, foot, 0.05, 0.1)
    m.add("legs", legs, m.color("wood", "metal"))


CHAIR = Category(
    name="chair",
    parts=("back", "seat", "legs", "arms"),
    parameters={
        "width": (0.34, 0.66), "depth": (0.36, 0.6), "seat_height": (0.3, 0.68),
        "back_height": (0.18, 0.8), "back_width": (0.55, 1.0), "back_gap": (0.0, 0.16),
        "recline": (0, 24), "thickness": (0.025, 0.1), "leg": (0.025, 0.065), "splay": (0, 0.16),
        "arm_height": (0.12, 0.28), "bars": (0, 5),
    },
    variants={
        "base": ("square", "round", "sled", "pedestal", "star", "panels", "crossed", "hairpin"),
        "back": ("solid", "shell", "slats", "spindles", "ladder"),
        "seat": ("flat", "round", "cushion"),
        "arms": ("none", "none", "post", "loop", "slab"),
    },
    builder=build_chair,
)  # fmt: skip

STOOL = Category(
    name="stool",
    parts=("seat", "legs", "rungs", "back"),
    parameters={
        "width": (0.26, 0.56), "oblong": (0.7, 1.05), "height": (0.3, 0.95),
        "thickness": (0.025, 0.14), "leg": (0.025, 0.06), "splay": (0, 0.16), "rung": (0.18, 0.6),
        "back_height": (0.08, 0.28),
    },
    variants={
        "seat": ("round", "round", "square", "saddle"),
        "base": ("square", "round", "tripod", "pedestal", "star", "panels", "crossed", "drum"),
        "back": ("none", "none", "none", "low"),
    },
    builder=build_stool,
)  # fmt: skip

BENCH = Category(
    name="bench",
    parts=("seat", "legs", "back", "arms"),
    parameters={
        "width": (0.8, 2.0), "depth": (0.28, 0.62), "height": (0.32, 0.62),
        "thickness": (0.025, 0.09), "leg": (0.035, 0.11), "splay": (0, 0.1),
        "back_height": (0.25, 0.62), "recline": (0, 22), "arm_height": (0.14, 0.26),
        "planks": (0, 4),
    },
    variants={
        "seat": ("planks", "planks", "padded", "slab"),
        "base": ("square", "panels", "trestle", "sled", "crossed", "round"),
        "back": ("none", "none", "planks", "solid", "slats", "ladder"),
        "arms": ("none", "post", "loop"),
    },
    builder=build_bench,
)  # fmt: skip

SOFA = Category(
    name="sofa",
    parts=("seat", "back", "arms", "cushions", "legs"),
    parameters={
        "width": (0.75, 2.4), "depth": (0.75, 1.05), "seat_height": (0.34, 0.52),
        "cushion": (0.09, 0.2), "back_height": (0.25, 0.65), "back_depth": (0.12, 0.28),
        "arm_width": (0.09, 0.3), "arm_height": (0.16, 0.42), "foot": (0.03, 0.16),
        "seats": (0, 3), "recline": (4, 18), "chaise": (0.4, 0.8),
    },
    variants={
        "arms": ("box", "low", "rolled", "none"),
        "back": ("plain", "pillows"),
        "form": ("straight", "straight", "chaise"),
    },
    builder=build_sofa,
)  # fmt: skip

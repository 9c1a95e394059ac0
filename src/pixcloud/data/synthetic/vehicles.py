"""Stage 1, categories with a motor: car, truck; `catalog` lists them, `cycles` shares the wheels.

Their length lies along x, the front at +x.
"""

from __future__ import annotations

import numpy as np

from pixcloud.data.synthetic.curves import superellipse
from pixcloud.data.synthetic.materials import shade_of
from pixcloud.data.synthetic.model import Category, Model, Values
from pixcloud.data.synthetic.primitives import (
    Solid,
    both_sides,
    box,
    cylinder,
    ellipsoid,
    joined,
    loft,
    rod,
)


def upright_wheel(radius: float, width: float, sides: int = 28) -> Solid:
    """A wheel about the z axis through the origin, its outer side at +z."""
    bevel = min(width * 0.25, radius * 0.2)
    return cylinder(radius, width, bevel=bevel, sides=sides).turned("x", 90).at(z=-width / 2)


def add_wheels(m: Model, places: list[tuple[float, float]], radius: float, width: float) -> None:
    """Pairs of wheels at (x, z of the middle), with hubs, standing on the ground."""
    rubber, metal = m.color("rubber"), m.color("steel")
    for x, z in places:
        wheel = upright_wheel(radius, width).at(x, radius, z)
        hub = upright_wheel(radius * 0.58, width * 1.06, 20).at(x, radius, z)
        m.add("wheels", both_sides(wheel, "z"), rubber)
        m.add("wheels", both_sides(hub, "z"), metal)


def hull_sections(stations: np.ndarray, power: float, sides: int = 28) -> np.ndarray:
    """Cross-sections (S, sides, 3) of a body along x.

    stations (S, 5): x, low y, high y, width at the low edge, width at the high edge.
    """
    unit = superellipse(2, 2, power, sides)
    share = (unit[:, 1] + 1) / 2
    x, low, high, wide, narrow = (stations[:, k, None] for k in range(5))
    y = low + (high - low) * share
    z = unit[:, 0] * (wide + (narrow - wide) * share) / 2
    return np.stack([np.broadcast_to(x, y.shape), y, z], axis=-1)


def _cabin(
    p: Values, v: Values, m: Model, paint: np.ndarray, belt: float, roof: float
) -> tuple[float, float]:
    """The greenhouse of a car: glass between belt and roof, the roof above, pillars.

    Returns the x of the roof's back and front.
    """
    length, width = p.length, p.width
    front = length * (0.5 - p.hood)
    back = {"sedan": -0.32, "hatch": -0.44, "wagon": -0.49, "coupe": -0.36, "van": -0.49}.get(
        v.body, -0.1
    )
    rake = {"van": 0.5, "wagon": 0.8, "coupe": 1.6}.get(v.body, 1.0) * p.rake
    slope = {"sedan": 1.0, "coupe": 2.4, "hatch": 0.6, "wagon": 0.25, "van": 0.15}.get(
        v.body, 0.4
    ) * p.rake
    high = roof - belt
    ends = np.array([[back * length, front], [back * length + slope * high, front - rake * high]])
    if ends[1, 1] - ends[1, 0] < 0.35 * length * 0.4:
        middle = ends[1].mean()
        ends[1] = middle - 0.08 * length, middle + 0.08 * length
    wide = np.array([width * 0.93, width * 0.93 * p.tumble])
    unit = superellipse(2, 2, 7, 28)
    levels = np.array([0.0, 0.86, 0.97, 1.0])
    loops = []
    for t in levels:
        shrink = 1.0 if t < 0.9 else (0.97 if t < 0.99 else 0.88)
        s = min(t / 0.97, 1.0)
        lo, hi = ends[0] * (1 - s) + ends[1] * s
        z = (wide[0] * (1 - s) + wide[1] * s) / 2 * shrink
        loops.append(np.column_stack([
            (lo + hi) / 2 + unit[:, 0] * (hi - lo) / 2 * shrink,
            np.full(28, belt + t * high),
            unit[:, 1] * z,
        ]))  # fmt: skip
    loops_array = np.stack(loops)
    m.add("cabin", loft(loops_array[:2]), m.color("window"))
    m.add("body", loft(loops_array[1:]), paint)
    for share in (0.06, 0.45, 0.92)[: 3 if back < -0.3 else 2]:
        # Where the rounded outline is at this share of its length.
        edge = 0.498 * (1 - abs(2 * share - 1) ** 7) ** (1 / 7)
        low = ends[0, 0] + (ends[0, 1] - ends[0, 0]) * share
        top = ends[1, 0] + (ends[1, 1] - ends[1, 0]) * share
        upper = wide[0] + 0.88 * (wide[1] - wide[0])
        pillar = rod(
            (low, belt, wide[0] * edge), (top, belt + 0.87 * high, upper * edge), 0.035, sides=6
        )
        m.add("body", both_sides(pillar, "z"), paint)
    return float(ends[1, 0]), float(ends[1, 1])


def _car_extra(
    p: Values, v: Values, m: Model, paint: np.ndarray, tail: float, roof: tuple[float, float, float]
) -> None:
    """A spoiler on the tail or roof, or rails upon the roof; roof is (back x, front x, y)."""
    back, front, top = roof
    if v.extra == "spoiler":
        wing = box(0.25, 0.04, p.width * 0.85, 0.015)
        if v.body in ("hatch", "wagon", "van"):
            wing = wing.scaled(z=p.tumble).at(back, top - 0.03)
        else:
            post = box(0.08, 0.2, 0.04).at(-0.45 * p.length, tail - 0.02, p.width * 0.3)
            wing = joined(wing.at(-0.45 * p.length, tail + 0.16), both_sides(post, "z"))
        m.add("body", wing, shade_of(paint, 0.7))
    elif v.extra == "rack":
        z, low, high = (
            p.width * p.tumble * 0.33,
            0.85 * back + 0.15 * front,
            0.2 * back + 0.8 * front,
        )
        rail = rod((low, top + 0.05, z), (high, top + 0.05, z), 0.025)
        feet = (rod((x, top - 0.03, z), (x, top + 0.05, z), 0.02, sides=8) for x in (low, high))
        m.add("body", both_sides(joined(rail, *feet), "z"), m.color("dark", "steel"))


def build_car(p: Values, v: Values, m: Model) -> None:
    paint = m.color("paint")
    length, width, clear = p.length, p.width, p.wheel * 0.75
    belt = clear + p.belly
    hood = belt * (0.92 if v.body != "van" else 0.97)
    tail = belt if v.body in ("sedan", "coupe") else belt * 1.02
    xs = np.array([-0.5, -0.485, -0.4, 0.0, 0.5 - p.hood, 0.4, 0.475, 0.5]) * length
    heights = (
        tail * 0.86, tail * 0.96, tail, belt * 1.01, belt * 1.01, hood * 0.95, hood * 0.85,
        hood * 0.72,
    )  # fmt: skip
    high = np.array(heights)
    low = clear + np.array([0.14, 0.06, 0, 0, 0, 0, 0.05, 0.12])
    wide = width * np.array([0.86, 0.94, 1, 1, 1, 0.98, 0.93, 0.84])
    order = np.argsort(xs)
    stations = np.stack([xs, low, high, wide, wide * 0.94], axis=1)[order]
    m.add("body", loft(hull_sections(stations, 5.5, 32)), paint)
    roof = belt + p.cabin * {"van": 1.25, "coupe": 0.85}.get(v.body, 1.0)
    back_x, front_x = _cabin(p, v, m, paint, belt * 0.985, roof)
    axle = p.wheelbase * length / 2
    add_wheels(m, [(axle, width / 2 - 0.1), (-axle, width / 2 - 0.1)], p.wheel, 0.22)
    lamp = ellipsoid(0.05, 0.075, 0.16, 12, 7)
    front = lamp.at(0.487 * length, clear + p.belly * 0.55, width * 0.3)
    back = lamp.at(-0.49 * length, clear + p.belly * 0.62, width * 0.33)
    m.add("lights", both_sides(front, "z"), m.color("lamplight"))
    m.add("lights", both_sides(back, "z"), np.array([176, 28, 30], np.uint8))
    bumper = box(0.12, 0.13, width * 0.88, 0.04)
    m.add(
        "body",
        joined(bumper.at(0.487 * length, clear + 0.02), bumper.at(-0.49 * length, clear + 0.04)),
        m.color("dark", "steel"),
    )
    _car_extra(p, v, m, paint, tail, (back_x, front_x, roof))


def _cab(p: Values, v: Values, m: Model, paint: np.ndarray, floor: float) -> float:
    """The cab of a truck; returns the x of its back."""
    length, width, high = p.length, p.width, p.cab_height
    deep = p.cab * length
    nose = length / 2
    if v.cab == "bonnet":
        hood = p.hood * length
        m.add(
            "cab",
            box(hood + 0.2, high * 0.5, width * 0.86, 0.1, 3).at(nose - hood / 2, floor),
            paint,
        )
        nose -= hood
    body = box(deep, high, width, 0.09, 3).at(nose - deep / 2, floor)
    m.add("cab", body, paint)
    glass = m.color("window")
    screen = box(0.04, high * 0.34, width * 0.84, 0.015).at(nose - 0.005, floor + high * 0.54)
    sides = box(deep * 0.55, high * 0.32, 0.04, 0.01).at(
        nose - deep * 0.42, floor + high * 0.55, width / 2
    )
    m.add("cab", joined(screen, both_sides(sides, "z")), glass)
    lamp = box(0.06, 0.14, 0.24, 0.03).at(length / 2, floor + high * 0.14, width * 0.33)
    m.add("cab", both_sides(lamp, "z"), m.color("lamplight"))
    bumper = box(0.14, 0.18, width, 0.04).at(length / 2, floor - 0.12)
    m.add("chassis", bumper, m.color("dark", "steel"))
    return nose - deep


def _cargo(
    p: Values, v: Values, m: Model, color: np.ndarray, floor: float, tail: float, end: float
) -> None:
    """What a truck carries, between its tail and the back of its cab."""
    long, width = end - tail - p.gap, p.width
    middle = tail + long / 2
    if v.load == "box":
        body = box(long, p.load_height, width * 1.04, 0.03)
        m.add("cargo", body.at(middle, floor + 0.06), color)
    elif v.load == "tank":
        radius = p.load_height * 0.48
        tank = cylinder(radius, long, bevel=p.load_height * 0.18).turned("z", -90)
        tank = tank.scaled(z=min(1.0, width / p.load_height))
        m.add("cargo", tank.at(tail, floor + 0.08 + radius), m.color("steel", "light"))
    elif v.load == "flat":
        bed = box(long, 0.12, width * 1.02).at(middle, floor + 0.06)
        m.add("cargo", bed, m.color("wood", "metal"))
        _crates(p, m, floor + 0.18, tail, end)
    else:
        _tipper(p, m, color, floor, middle, long)
        if v.load == "heap":
            side = p.load_height * 0.45
            heap = ellipsoid(long * 0.46, side * 0.75, width * 0.44, 20, 9)
            m.add("cargo", heap.at(middle, floor + side * 0.8), m.color("wood", "ceramic"))


def _crates(p: Values, m: Model, floor: float, tail: float, end: float) -> None:
    """Crates in a row from the tail on, as many as fit or fewer."""
    x = tail
    while m.chance(0.75) and x < end - 0.9:
        deep = m.rng.uniform(0.4, 0.9)
        high = m.rng.uniform(0.3, 0.8) * p.load_height
        crate = box(deep, high, p.width * m.rng.uniform(0.5, 0.95), 0.02)
        place = crate.at(x + deep / 2 + 0.05, floor)
        m.add("cargo", place, m.color("wood", "light", "plastic"))
        x += deep + 0.1


def _tipper(
    p: Values, m: Model, color: np.ndarray, floor: float, middle: float, long: float
) -> None:
    """An open bed with walls on all four sides."""
    side, wall, width, low = p.load_height * 0.45, 0.07, p.width, floor + 0.06
    m.add("cargo", box(long, wall, width).at(middle, low), color)
    m.add("cargo", both_sides(box(long, side, wall).at(middle, low, width / 2), "z"), color)
    gate = box(wall, side, width)
    gates = (gate.at(middle + a * (long - wall) / 2, low) for a in (-1, 1))
    m.add("cargo", joined(*gates), color)


def build_truck(p: Values, v: Values, m: Model) -> None:
    paint, dark = m.color("paint", "plastic"), m.color("dark")
    length, width, floor = p.length, p.width, p.wheel * 1.25
    end = _cab(p, v, m, paint, floor)
    tail = -length / 2
    load = m.color("light", "paint", "metal")
    long = end - tail - p.gap
    track, radius = width / 2 - 0.16, p.wheel
    m.add("chassis", box(length * 0.94, 0.16, width * 0.5).at(-0.01 * length, floor - 0.1), dark)
    # The load lies above the wheels.
    bed = 2.04 * radius
    rails = box(long, bed + 0.08 - floor, width * 0.4).at(tail + long / 2, floor)
    m.add("chassis", rails, dark)
    _cargo(p, v, m, load, bed, tail, end)
    rear = tail + long * p.axle
    axles = [length / 2 - (0.3 if v.cab == "flat" else 0.5) * p.cab * length - radius * 0.3, rear]
    if length > 6.2 or m.chance(0.3):
        axles.append(rear - 2.15 * radius if rear - 3.2 * radius > tail else rear + 2.15 * radius)
    for x in axles:
        m.add("chassis", rod((x, radius, -track), (x, radius, track), 0.06), dark)
    add_wheels(m, [(x, track) for x in axles], radius, 0.3)


CAR = Category(
    name="car",
    parts=("body", "cabin", "wheels", "lights"),
    parameters={
        "length": (3.1, 5.2), "width": (1.5, 2.0), "wheel": (0.27, 0.46), "wheelbase": (0.54, 0.66),
        "belly": (0.42, 0.72), "cabin": (0.38, 0.72), "hood": (0.12, 0.34), "rake": (0.35, 1.1),
        "tumble": (0.68, 0.95),
    },
    variants={
        "body": ("sedan", "hatch", "wagon", "coupe", "van", "pickup"),
        "extra": ("none", "none", "none", "spoiler", "rack"),
    },
    builder=build_car,
    stretch="--z",
)  # fmt: skip

TRUCK = Category(
    name="truck",
    parts=("cab", "cargo", "wheels", "chassis"),
    parameters={
        "length": (4.2, 8.5), "width": (1.8, 2.5), "wheel": (0.36, 0.55), "cab": (0.18, 0.3),
        "cab_height": (1.2, 2.2), "hood": (0.1, 0.18), "load_height": (1.0, 2.6),
        "gap": (0.03, 0.3),
        "axle": (0.2, 0.38),
    },
    variants={
        "cab": ("flat", "bonnet"),
        "load": ("box", "box", "tank", "flat", "open", "heap"),
    },
    builder=build_truck,
    stretch="--z",
)  # fmt: skip

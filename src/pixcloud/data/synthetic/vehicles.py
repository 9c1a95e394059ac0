"""Stage 1, categories that drive: car, truck, bicycle, skateboard; `catalog` lists them.

Their length lies along x, the front at +x.
"""

from __future__ import annotations

import numpy as np

from pixcloud.data.synthetic.curves import smooth, superellipse
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
    sheet,
    torus,
    tube,
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


def _cabin(p: Values, v: Values, m: Model, paint: np.ndarray, belt: float, roof: float) -> None:
    """The greenhouse of a car: glass between belt and roof, the roof above, pillars."""
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
    for share in (0.02, 0.45, 0.9)[: 3 if back < -0.3 else 2]:
        low = ends[0, 0] + (ends[0, 1] - ends[0, 0]) * share
        top = ends[1, 0] + (ends[1, 1] - ends[1, 0]) * share
        pillar = rod(
            (low, belt, wide[0] * 0.495),
            (top, belt + 0.87 * high, wide[0] * 0.495 + 0.88 * (wide[1] - wide[0]) / 2),
            0.035,
            sides=6,
        )
        m.add("body", both_sides(pillar, "z"), paint)


def build_car(p: Values, v: Values, m: Model) -> None:
    paint = m.color("paint")
    length, width, clear = p.length, p.width, p.wheel * 0.75
    belt = clear + p.belly
    hood = belt * (0.92 if v.body != "van" else 0.97)
    tail = belt if v.body in ("sedan", "coupe") else belt * 1.02
    xs = np.array([-0.5, -0.485, -0.4, 0.0, 0.5 - p.hood, 0.4, 0.475, 0.5]) * length
    high = np.array(
        [
            tail * 0.86,
            tail * 0.96,
            tail,
            belt * 1.01,
            belt * 1.01,
            hood * 0.95,
            hood * 0.85,
            hood * 0.72,
        ]
    )
    low = clear + np.array([0.14, 0.06, 0, 0, 0, 0, 0.05, 0.12])
    wide = width * np.array([0.86, 0.94, 1, 1, 1, 0.98, 0.93, 0.84])
    order = np.argsort(xs)
    stations = np.stack([xs, low, high, wide, wide * 0.94], axis=1)[order]
    m.add("body", loft(hull_sections(stations, 5.5, 32)), paint)
    roof = belt + p.cabin * {"van": 1.25, "coupe": 0.85}.get(v.body, 1.0)
    _cabin(p, v, m, paint, belt * 0.985, roof)
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
    if v.extra == "spoiler":
        wing = box(0.25, 0.04, width * 0.85, 0.015).at(-0.45 * length, tail + 0.16)
        posts = both_sides(box(0.08, 0.2, 0.04).at(-0.45 * length, tail - 0.02, width * 0.3), "z")
        m.add("body", joined(wing, posts), shade_of(paint, 0.7))
    elif v.extra == "rack":
        rails = both_sides(
            rod(
                (-0.3 * length, roof + 0.05, width * 0.33),
                (0.02 * length, roof + 0.05, width * 0.33),
                0.025,
            ),
            "z",
        )
        m.add("body", rails, m.color("dark", "steel"))


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


def build_truck(p: Values, v: Values, m: Model) -> None:
    paint, dark = m.color("paint", "plastic"), m.color("dark")
    length, width, floor = p.length, p.width, p.wheel * 1.25
    end = _cab(p, v, m, paint, floor)
    tail = -length / 2
    load = m.color("light", "paint", "metal")
    long = end - tail - p.gap
    middle = tail + long / 2
    m.add("chassis", box(length * 0.94, 0.16, width * 0.5).at(-0.01 * length, floor - 0.1), dark)
    if v.load == "box":
        m.add("cargo", box(long, p.load_height, width * 1.04, 0.03).at(middle, floor + 0.06), load)
    elif v.load == "tank":
        tank = cylinder(p.load_height * 0.48, long, bevel=p.load_height * 0.18).turned("z", -90)
        m.add(
            "cargo",
            tank.scaled(z=min(1.0, width / p.load_height)).at(
                tail, floor + 0.08 + p.load_height * 0.48
            ),
            m.color("steel", "light"),
        )
    elif v.load == "flat":
        m.add(
            "cargo",
            box(long, 0.12, width * 1.02).at(middle, floor + 0.06),
            m.color("wood", "metal"),
        )
        x = tail
        while m.chance(0.75) and x < end - 0.9:
            deep = m.rng.uniform(0.4, 0.9)
            crate = box(
                deep,
                m.rng.uniform(0.3, 0.8) * p.load_height,
                width * m.rng.uniform(0.5, 0.95),
                0.02,
            )
            m.add(
                "cargo",
                crate.at(x + deep / 2 + 0.05, floor + 0.18),
                m.color("wood", "light", "plastic"),
            )
            x += deep + 0.1
    else:
        side, wall = p.load_height * 0.45, 0.07
        m.add("cargo", box(long, wall, width).at(middle, floor + 0.06), load)
        m.add(
            "cargo",
            both_sides(box(long, side, wall).at(middle, floor + 0.06, width / 2), "z"),
            load,
        )
        m.add(
            "cargo",
            joined(
                *(
                    box(wall, side, width).at(middle + a * (long - wall) / 2, floor + 0.06)
                    for a in (-1, 1)
                )
            ),
            load,
        )
        if v.load == "heap":
            sizes = ellipsoid(long * 0.46, side * 0.75, width * 0.44, 20, 9)
            m.add("cargo", sizes.at(middle, floor + side * 0.8), m.color("wood", "ceramic"))
    track, radius = width / 2 - 0.16, p.wheel
    rear = tail + long * p.axle
    axles = [length / 2 - (0.3 if v.cab == "flat" else 0.5) * p.cab * length - radius * 0.3, rear]
    if length > 6.2 or m.chance(0.3):
        axles.append(rear - 2.15 * radius if rear - 3.2 * radius > tail else rear + 2.15 * radius)
    add_wheels(m, [(x, track) for x in axles], radius, 0.3)


def _bike_wheel(m: Model, x: float, radius: float, tire: float, spokes: int) -> None:
    rubber, metal = m.color("rubber"), m.color("steel")
    m.add("wheels", torus(radius - tire, tire, 40, 10).at(x, radius), rubber)
    m.add("wheels", torus(radius - 2.2 * tire, tire * 0.5, 36, 6).at(x, radius), metal)
    m.add("wheels", rod((x, radius, -0.05), (x, radius, 0.05), 0.025), metal)
    for angle in 2 * np.pi * np.arange(spokes) / spokes:
        end = (radius - 2 * tire) * np.array([np.cos(angle), np.sin(angle)])
        m.add(
            "wheels", rod((x, radius, 0), (x + end[0], radius + end[1], 0), 0.005, sides=4), metal
        )


def build_bicycle(p: Values, v: Values, m: Model) -> None:
    paint, dark = m.color("paint", "plastic"), m.color("dark", "leather")
    r, tire, tubing = p.wheel, p.tire, p.tubing
    front, rear = p.wheelbase / 2, -p.wheelbase / 2
    crank = np.array([rear + 0.42, r * 0.85, 0])
    seat = crank + [-p.seat_angle, p.frame, 0]
    head = np.array([front - p.fork - 0.05, r + p.frame * 0.8, 0])
    fork_top = head + [0.02, -0.1, 0]
    for x in (rear, front):
        _bike_wheel(m, x, r, tire, 8 + 2 * int(p.spokes))
    bars = [(crank, seat), (crank, fork_top)]
    if v.frame == "diamond":
        bars.append((seat - [0, 0.05, 0], head))
    elif v.frame == "sloping":
        bars.append((seat - (seat - crank) * 0.35, head))
    else:
        bars.append((crank + (seat - crank) * 0.3, fork_top + [0, 0.03, 0]))
    m.add("frame", joined(*(rod(a, b, tubing) for a, b in bars)), paint)
    for a in (-1, 1):
        hub = (rear, r, 0.06 * a)
        stays = joined(
            rod(hub, crank, tubing * 0.6, sides=8),
            rod(hub, seat - (seat - crank) * 0.1, tubing * 0.5, sides=8),
        )
        fork = tube(
            np.array(
                [
                    (*fork_top[:2], 0.05 * a),
                    (front - 0.06, r + 0.16, 0.055 * a),
                    (front, r, 0.055 * a),
                ]
            ),
            tubing * 0.65,
            8,
        )
        m.add("frame", joined(stays, fork), paint)
    m.add("frame", rod(fork_top, head + [-0.03, 0.12, 0], tubing * 1.15), paint)
    post = seat + [-0.02, p.saddle, 0]
    m.add("saddle", rod(seat, post, tubing * 0.7), m.color("steel"))
    saddle = loft(
        hull_sections(
            np.array(
                [
                    [-0.13, -0.02, 0.03, 0.1, 0.12],
                    [-0.1, -0.03, 0.045, 0.16, 0.17],
                    [0.02, -0.03, 0.03, 0.09, 0.08],
                    [0.15, -0.02, 0.02, 0.04, 0.03],
                ]
            ),
            2.5,
            16,
        )
    )
    m.add("saddle", saddle.at(*post), dark)
    _handlebar(p, v, m, head + [-0.03, 0.12, 0], dark)
    m.add(
        "pedals",
        cylinder(0.1, 0.012, sides=24).turned("x", 90).at(*crank).at(z=0.04),
        m.color("steel", "dark"),
    )
    angle = m.rng.uniform(0, 2 * np.pi)
    for a in (-1, 1):
        tip = crank + [a * 0.17 * np.cos(angle), a * 0.17 * np.sin(angle), 0.07 * a]
        m.add("pedals", rod(crank + [0, 0, 0.07 * a], tip, 0.013, sides=8), m.color("steel"))
        m.add("pedals", box(0.09, 0.025, 0.08).at(*(tip + [0, -0.012, 0.05 * a])), dark)


def _handlebar(p: Values, v: Values, m: Model, stem: np.ndarray, dark: np.ndarray) -> None:
    half, metal = p.bar / 2, m.color("steel", "dark")
    top = stem + [0.05, p.stem, 0]
    m.add("handlebar", rod(stem, top, 0.018), metal)
    if v.bar == "drop":
        knots = [
            (0, 0, 0),
            (0, 0, half * 0.9),
            (0.1, 0, half),
            (0.14, -0.07, half),
            (0.06, -0.14, half),
            (-0.04, -0.15, half),
        ]
    elif v.bar == "swept":
        knots = [(0, 0, 0), (0.03, 0.03, half * 0.5), (-0.05, 0.05, half), (-0.2, 0.04, half * 1.1)]
    else:
        knots = [(0, 0, 0), (0, 0.01, half * 0.5), (-0.02, 0.02, half)]
    path = smooth(knots, 14)
    m.add("handlebar", both_sides(tube(path, 0.014, 8), "z").at(*top), metal)
    m.add("handlebar", both_sides(rod(path[-4], path[-1], 0.02, sides=8), "z").at(*top), dark)


def build_skateboard(p: Values, v: Values, m: Model) -> None:
    length, width = p.length, p.width
    u, w = np.meshgrid(np.linspace(-1, 1, 33), np.linspace(-1, 1, 9), indexing="ij")
    flat = 1 - p.kick
    bend = np.clip((np.abs(u) - flat) / p.kick, 0, 1) ** 1.5
    rise = np.where(u > 0, p.nose, p.tail if v.deck != "cruiser" else p.tail * 1.3) * bend
    power = {"pill": 2.6, "long": 4.0}.get(v.deck, 3.0)
    taper = (1 - np.abs(u) ** power * 0.985) ** (1 / power)
    if v.deck == "cruiser":
        taper = taper * (1 - 0.25 * np.clip(u, 0, 1))
    elif v.deck == "fish":
        taper = taper * (0.8 + 0.2 * np.cos(2.6 * u))
    base = p.wheel * 2 + p.truck
    y = base + rise * length + p.concave * width * w**2
    points = np.stack([u * length / 2, y, w * taper * width / 2], axis=-1)
    m.add("deck", sheet(points, p.thickness), m.color("wood", "plastic", "paint"))
    grip = points + (0, p.thickness + 0.002, 0)
    m.add("deck", sheet(grip * (0.985, 1, 0.96)), m.color("dark", "plastic", "dark"))
    metal, rubber = m.color("metal", "steel"), m.color("light", "plastic", "rubber")
    half = width * p.track / 2
    for x in (p.axle * length / 2, -p.axle * length / 2):
        m.add("trucks", rod((x, p.wheel, -half), (x, p.wheel, half), 0.011), metal)
        m.add("trucks", box(0.07, base - p.wheel, 0.055, 0.01).at(x, p.wheel), metal)
        m.add("trucks", box(0.09, 0.012, 0.06).at(x, base - 0.01), metal)
        wheel = upright_wheel(p.wheel, p.wheel * 1.3, 24).at(x, p.wheel, half)
        m.add("wheels", both_sides(wheel, "z"), rubber)
    if v.handle == "scooter":
        paint, x = m.color("paint", "steel"), length * 0.44
        top = p.handle
        m.add("handle", rod((x, base, 0), (x - 0.1, top, 0), 0.017), paint)
        m.add("handle", rod((x - 0.1, top, -0.17), (x - 0.1, top, 0.17), 0.015), m.color("dark"))


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

BICYCLE = Category(
    name="bicycle",
    parts=("frame", "wheels", "handlebar", "saddle", "pedals"),
    parameters={
        "wheel": (0.24, 0.38), "tire": (0.012, 0.035), "wheelbase": (0.9, 1.15),
        "frame": (0.32, 0.58),
        "seat_angle": (0.1, 0.22), "fork": (0.06, 0.2), "saddle": (0.06, 0.26), "bar": (0.36, 0.68),
        "stem": (0.02, 0.2), "tubing": (0.014, 0.024), "spokes": (0, 4),
    },
    variants={
        "frame": ("diamond", "sloping", "step"),
        "bar": ("flat", "drop", "swept"),
    },
    builder=build_bicycle,
    stretch="--z",
)  # fmt: skip

SKATEBOARD = Category(
    name="skateboard",
    parts=("deck", "trucks", "wheels", "handle"),
    parameters={
        "length": (0.55, 1.15), "width": (0.16, 0.27), "thickness": (0.01, 0.02),
        "kick": (0.18, 0.4), "nose": (0.0, 0.11), "tail": (0.02, 0.11), "concave": (0.0, 0.06),
        "wheel": (0.022, 0.045), "truck": (0.02, 0.05), "axle": (0.5, 0.76), "track": (0.75, 1.05),
        "handle": (0.55, 0.9),
    },
    variants={
        "deck": ("popsicle", "pill", "long", "cruiser", "fish"),
        "handle": ("none", "none", "none", "none", "scooter"),
    },
    builder=build_skateboard,
    stretch="-yz",
)  # fmt: skip

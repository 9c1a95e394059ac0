"""Stage 1, categories driven by one's own feet: bicycle, skateboard; `catalog` lists them.

Their length lies along x, the front at +x.
"""

from __future__ import annotations

import numpy as np

from pixcloud.data.synthetic.curves import smooth
from pixcloud.data.synthetic.model import Category, Model, Values
from pixcloud.data.synthetic.primitives import (
    both_sides,
    box,
    cylinder,
    joined,
    loft,
    rod,
    sheet,
    torus,
    tube,
)
from pixcloud.data.synthetic.vehicles import hull_sections, upright_wheel

# Stations of a saddle, back to front, as `hull_sections` takes them.
SADDLE = (
    (-0.13, -0.02, 0.03, 0.1, 0.12), (-0.1, -0.03, 0.045, 0.16, 0.17),
    (0.02, -0.03, 0.03, 0.09, 0.08), (0.15, -0.02, 0.02, 0.04, 0.03),
)  # fmt: skip


def _bike_wheel(m: Model, x: float, radius: float, tire: float, spokes: int) -> None:
    rubber, metal = m.color("rubber"), m.color("steel")
    m.add("wheels", torus(radius - tire, tire, 40, 10).at(x, radius), rubber)
    m.add("wheels", torus(radius - 2.2 * tire, tire * 0.5, 36, 6).at(x, radius), metal)
    m.add("wheels", rod((x, radius, -0.05), (x, radius, 0.05), 0.025), metal)
    spoke = rod((0, 0, 0), (radius - 2 * tire, 0, 0), 0.005, sides=4)
    turned = (spoke.turned("z", 360 * k / spokes) for k in range(spokes))
    m.add("wheels", joined(*turned).at(x, radius), metal)


def _frame(
    p: Values,
    v: Values,
    m: Model,
    crank: np.ndarray,
    seat: np.ndarray,
    head: np.ndarray,
    paint: np.ndarray,
) -> None:
    """The tubes between crank, seat and head, the stays to the rear hub, the fork to the front."""
    r, tubing, front, rear = p.wheel, p.tubing, p.wheelbase / 2, -p.wheelbase / 2
    fork_top = head + [0.02, -0.1, 0]
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
        chain_stay = rod(hub, crank, tubing * 0.6, sides=8)
        seat_stay = rod(hub, seat - (seat - crank) * 0.1, tubing * 0.5, sides=8)
        knots = (
            (*fork_top[:2], 0.05 * a), (front - 0.06, r + 0.16, 0.055 * a), (front, r, 0.055 * a),
        )  # fmt: skip
        fork = tube(np.array(knots), tubing * 0.65, 8)
        m.add("frame", joined(chain_stay, seat_stay, fork), paint)
    m.add("frame", rod(fork_top, head + [-0.03, 0.12, 0], tubing * 1.15), paint)


def _pedals(m: Model, crank: np.ndarray, dark: np.ndarray) -> None:
    """The chain ring about the crank's axle, both arms at a random angle, a pedal on each."""
    ring = cylinder(0.1, 0.012, sides=24).turned("x", 90).at(*crank).at(z=0.04)
    m.add("pedals", ring, m.color("steel", "dark"))
    angle = m.rng.uniform(0, 2 * np.pi)
    for a in (-1, 1):
        tip = crank + [a * 0.17 * np.cos(angle), a * 0.17 * np.sin(angle), 0.07 * a]
        m.add("pedals", rod(crank + [0, 0, 0.07 * a], tip, 0.013, sides=8), m.color("steel"))
        m.add("pedals", box(0.09, 0.025, 0.08).at(*(tip + [0, -0.012, 0.05 * a])), dark)


def build_bicycle(p: Values, v: Values, m: Model) -> None:
    paint, dark = m.color("paint", "plastic"), m.color("dark", "leather")
    r, tire, tubing = p.wheel, p.tire, p.tubing
    front, rear = p.wheelbase / 2, -p.wheelbase / 2
    crank = np.array([rear + 0.42, r * 0.85, 0])
    seat = crank + [-p.seat_angle, p.frame, 0]
    head = np.array([front - p.fork - 0.05, r + p.frame * 0.8, 0])
    for x in (rear, front):
        _bike_wheel(m, x, r, tire, 8 + 2 * int(p.spokes))
    _frame(p, v, m, crank, seat, head, paint)
    post = seat + [-0.02, p.saddle, 0]
    m.add("saddle", rod(seat, post, tubing * 0.7), m.color("steel"))
    saddle = loft(hull_sections(np.array(SADDLE), 2.5, 16))
    m.add("saddle", saddle.at(*post), dark)
    _handlebar(p, v, m, head + [-0.03, 0.12, 0], dark)
    _pedals(m, crank, dark)


def _handlebar(p: Values, v: Values, m: Model, stem: np.ndarray, dark: np.ndarray) -> None:
    half, metal = p.bar / 2, m.color("steel", "dark")
    top = stem + [0.05, p.stem, 0]
    m.add("handlebar", rod(stem, top, 0.018), metal)
    if v.bar == "drop":
        knots = [
            (0, 0, 0), (0, 0, half * 0.9), (0.1, 0, half), (0.14, -0.07, half),
            (0.06, -0.14, half), (-0.04, -0.15, half),
        ]  # fmt: skip
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

"""Stage 1, categories that fly: airplane, rocket; `catalog` lists them."""

from __future__ import annotations

import numpy as np

from pixcloud.data.synthetic.curves import smooth
from pixcloud.data.synthetic.model import Category, Model, Values
from pixcloud.data.synthetic.primitives import (
    Solid,
    both_sides,
    box,
    cylinder,
    ellipsoid,
    joined,
    lathe,
    loft,
    rod,
)

# Half of an aerofoil: (place along the chord, half thickness), front to back.
FOIL = np.array([(0.0, 0.0), (0.04, 0.45), (0.15, 0.85), (0.35, 1.0), (0.65, 0.7), (1.0, 0.03)])


def fin(root: float, tip: float, span: float, sweep: float, thick: float, rows: int = 2) -> Solid:
    """A wing along +y from its root at y = 0, its leading edge at x = 0 and the chord along -x.

    Args:
        root: Chord at y = 0.
        tip: Chord at y = span.
        span: Its height.
        sweep: How far the tip's leading edge lies behind the root's.
        thick: Thickness as a share of the chord.
        rows: Cross-sections.
    """
    loop = np.concatenate([FOIL, FOIL[-2:0:-1] * (1, -1)])
    share = np.linspace(0, 1, rows)[:, None]
    chord = root + (tip - root) * share
    x = -sweep * share - chord * loop[:, 0]
    z = chord * thick / 2 * loop[:, 1]
    y = np.broadcast_to(span * share, x.shape)
    return loft(np.stack([x, y, z], axis=-1))


def wing_pair(solid: Solid, dihedral: float) -> Solid:
    """A fin along +y laid down to both sides (along z), its tips raised by `dihedral` degrees."""
    return both_sides(solid.turned("x", 90 - dihedral), "z")


def _engines(
    p: Values, v: Values, m: Model, wing_y: float, half: float, profile: np.ndarray
) -> None:
    """Engines under the wings, beside the tail or as a propeller; profile (P, 2) of (radius, x)."""
    metal, dark = m.color("steel", "light", "paint"), m.color("dark")
    radius = p.radius
    r, long = radius * p.engine, radius * p.engine * 3.4
    pod = lathe(
        smooth([(r * 0.8, 0), (r, long * 0.3), (r * 0.9, long * 0.7), (r * 0.5, long)], 10), 20
    )
    pod = pod.turned("z", 90)
    mouth = cylinder(r * 0.7, 0.02, sides=20).turned("z", 90)
    if v.engine == "wing":
        pylon = box(long * 0.5, r * 1.15, r * 0.22).at(-long * 0.5)
        for k in range(1 + int(p.engines)):
            share = 0.32 + 0.26 * k
            z = half * share
            x = p.wing_x + 0.02 - p.sweep * share + r
            y = wing_y + z * np.tan(np.radians(p.dihedral)) - r * 1.15
            m.add("engines", both_sides(joined(pod, pylon).at(x, y, z), "z"), metal)
            m.add("engines", both_sides(mouth.at(x + 0.012, y, z), "z"), dark)
    elif v.engine == "tail":
        x, y = -0.5 + p.tail_cone * 0.9, radius * 0.3
        side = float(np.interp(x - long * 0.5, profile[:, 1], profile[:, 0]))
        pylon = box(long * 0.5, r * 0.22, r * 1.6).at(-long * 0.5, 0, -r * 0.8)
        z = side + r * 1.1
        m.add("engines", both_sides(joined(pod, pylon).at(x, y, z), "z"), metal)
        m.add("engines", both_sides(mouth.at(x + 0.012, y, z), "z"), dark)
    elif v.engine == "propeller":
        cone = ellipsoid(0.05, radius * 0.35, radius * 0.35, 16, 9).at(0.5)
        m.add("engines", cone, dark)
        blade = box(0.012, radius * 2.2, 0.035, 0.005).at(0.51)
        turn = m.rng.uniform(0, 180)
        count = 2 + int(m.rng.integers(2))
        blades = joined(*(blade.turned("x", turn + 360 * k / count) for k in range(count)))
        m.add("engines", blades, dark)


def build_airplane(p: Values, v: Values, m: Model) -> None:
    paint, trim = m.color("light", "paint", "steel"), m.color("paint", "plastic", "steel")
    r, half = p.radius, p.span / 2
    nose = 0.5 - p.nose
    profile = smooth([(0.0, -0.5), (r * 0.22, -0.49), (r * 0.62, -0.5 + p.tail_cone * 0.6),
                      (r, -0.5 + p.tail_cone * 1.2),
                      (r, nose), (r * 0.8, 0.5 - p.nose * 0.45), (0.0, 0.5)], 26)  # fmt: skip
    profile[:, 0] = np.maximum(profile[:, 0], 0)
    m.add("fuselage", lathe(profile, 24).turned("z", -90), paint)
    wing_y = {"low": -0.6, "high": 0.85, "mid": 0.0}[v.wing] * r
    foil = fin(p.root, p.root * p.taper, half, p.sweep, 0.11, 3)
    m.add(
        "wings",
        wing_pair(foil.at(p.wing_x), p.dihedral).at(y=wing_y),
        trim if m.chance(0.4) else paint,
    )
    if v.second == "biplane":
        m.add("wings", wing_pair(foil.at(p.wing_x + 0.03), p.dihedral).at(y=wing_y + r * 2.4), trim)
        for z in (0.35 * half, 0.75 * half):
            x = p.wing_x - p.root * 0.4 - p.sweep * z / half
            y = wing_y + z * np.tan(np.radians(p.dihedral))
            strut = rod((x, y, z), (x, y + r * 2.4, z), 0.006, sides=6)
            m.add("wings", both_sides(strut, "z"), m.color("wood", "steel"))
    rudder = fin(p.tail_chord, p.tail_chord * 0.55, p.fin, p.tail_chord * 0.6, 0.1)
    back = -0.5 + p.tail_chord
    m.add("tail", rudder.at(back, r * 0.3), trim)
    plane = fin(p.tail_chord * 0.85, p.tail_chord * 0.45, p.tail_span / 2, p.tail_chord * 0.5, 0.1)
    tail_y = r * 0.3 + p.fin * 0.94 if v.tail == "tee" else r * 0.25
    x = back - (p.tail_chord * 0.6 if v.tail == "tee" else 0)
    m.add("tail", wing_pair(plane, 3).at(x, tail_y), trim)
    _engines(p, v, m, wing_y, half, profile)
    glass = m.color("window")
    m.add(
        "fuselage",
        ellipsoid(r * 1.1, r * 0.5, r * 0.62, 16, 9).at(0.5 - p.nose * 0.9, r * 0.62),
        glass,
    )
    if v.gear == "down":
        wheel = cylinder(0.025, 0.02, sides=16).turned("x", 90)
        for x, z in ((0.36, 0.0), (p.wing_x - p.root * 0.5, r * 1.2)):
            leg = rod((x, 0, z * 0.5), (x, -r - 0.05, z), 0.007, sides=6)
            piece = joined(leg, wheel.at(x, -r - 0.05, z - 0.01))
            m.add("gear", both_sides(piece, "z") if z > 0 else piece, m.color("dark"))


def _body_profile(p: Values, v: Values) -> np.ndarray:
    r, top = p.radius, 1 - p.nose
    if v.body == "cigar":
        return smooth(
            [(r * p.base, 0.06), (r, 0.3 * top), (r * 1.02, 0.6 * top), (r * 0.72, top)], 20
        )
    if v.body == "stage":
        step = p.step * top
        return np.array([(r, 0.06), (r, step), (r * 0.78, step + 0.05), (r * 0.78, top)])
    return np.array([(r, 0.06), (r, top * 0.5), (r, top)])


def _rocket_nose(p: Values, v: Values, m: Model, body: np.ndarray, color: np.ndarray) -> None:
    """The tip of a rocket upon its body's profile (P, 2) of (radius, y)."""
    top, neck = body[-1, 1], body[-1, 0]
    if v.nose == "cone":
        tip = np.array([(neck, top), (neck * 0.5, top + p.nose * 0.5), (0.0, top + p.nose)])
    elif v.nose == "blunt":
        knots = (
            (neck, top), (neck * 0.95, top + p.nose * 0.35),
            (neck * 0.6, top + p.nose * 0.75), (0, top + p.nose * 0.9),
        )  # fmt: skip
        tip = smooth(knots, 10)
    else:
        knots = (
            (neck, top), (neck * 0.85, top + p.nose * 0.3),
            (neck * 0.45, top + p.nose * 0.7), (0, top + p.nose),
        )  # fmt: skip
        tip = smooth(knots, 10)
    m.add("nose", lathe(tip), color)
    if v.nose == "tower":
        tower = rod((0, top + p.nose * 0.8, 0), (0, top + p.nose * 1.6, 0), 0.012, sides=8)
        m.add("nose", tower, m.color("steel"))


def _rocket_fins(p: Values, m: Model, color: np.ndarray) -> None:
    """Fins around the foot of a rocket."""
    count = 3 + int(p.fins)
    blade = fin(p.fin_root, p.fin_root * p.fin_tip, p.fin_span, p.fin_sweep, 0.09)
    # The chord runs along -x; turned upright it runs down the body and the fin sticks out along x.
    blade = blade.turned("z", 90).scaled(x=-1).at(p.radius * 0.8, p.fin_root + 0.07)
    for k in range(count):
        m.add("fins", blade.turned("y", 360 * k / count), color)


def _boosters(p: Values, m: Model, paint: np.ndarray, trim: np.ndarray) -> None:
    """Small rockets around the body, each in one of two colours."""
    r, high, count = p.radius * p.booster, p.booster_height, 2 + int(p.fins)
    profile = ((0, 0.02), (r, 0.02), (r, high), (r * 0.5, high + r * 1.4), (0, high + r * 2))
    booster = lathe(profile, 20).at(p.radius + r * 0.96)
    for k in range(count):
        color = paint if m.chance(0.5) else trim
        m.add("boosters", booster.turned("y", 360 * k / count), color)


def build_rocket(p: Values, v: Values, m: Model) -> None:
    paint, trim = m.color("light", "paint", "steel"), m.color("paint", "plastic")
    body = _body_profile(p, v)
    m.add("body", lathe(np.concatenate([[(0, 0.06)], body, [(0, body[-1, 1])]])), paint)
    top = body[-1, 1]
    _rocket_nose(p, v, m, body, trim)
    metal = m.color("metal", "dark")
    bell = lathe([(p.radius * 0.62, 0), (p.radius * 0.42, 0.035), (p.radius * 0.35, 0.07)], 24)
    m.add("nozzle", bell, metal)
    if v.fins == "fins":
        _rocket_fins(p, m, trim)
    elif v.fins == "boosters":
        _boosters(p, m, paint, trim)
    if v.window == "window":
        for y in (0.8, 0.6)[: 1 + int(m.rng.integers(2))]:
            r = float(np.interp(top * y, body[:, 1], body[:, 0]))
            disc = cylinder(r * 0.32, 0.1 * r, sides=20).turned("x", 90)
            m.add("body", disc.at(0, top * y, r * 0.95), m.color("window"))
    if v.band == "band":
        low = top * m.rng.uniform(0.25, 0.5)
        width = float(np.interp(low, body[:, 1], body[:, 0])) * 1.015
        m.add("body", lathe([(width, low), (width, low + 0.06)]), trim)


AIRPLANE = Category(
    name="airplane",
    parts=("fuselage", "wings", "tail", "engines", "gear"),
    parameters={
        "radius": (0.04, 0.085), "span": (0.6, 1.35), "nose": (0.1, 0.25),
        "tail_cone": (0.15, 0.35),
        "root": (0.14, 0.34), "taper": (0.25, 1.0), "sweep": (0.0, 0.3), "wing_x": (0.08, 0.25),
        "dihedral": (-2, 8), "tail_chord": (0.09, 0.18), "fin": (0.1, 0.22),
        "tail_span": (0.22, 0.5),
        "engine": (0.35, 0.65), "engines": (0, 2),
    },
    variants={
        "wing": ("low", "high", "mid"),
        "second": ("single", "single", "single", "single", "biplane"),
        "tail": ("plain", "plain", "tee"),
        "engine": ("wing", "wing", "tail", "propeller", "none"),
        "gear": ("up", "down"),
    },
    builder=build_airplane,
)  # fmt: skip

ROCKET = Category(
    name="rocket",
    parts=("body", "nose", "fins", "nozzle", "boosters"),
    parameters={
        "radius": (0.06, 0.19), "nose": (0.12, 0.36), "base": (0.5, 0.95), "step": (0.4, 0.75),
        "fin_root": (0.1, 0.32), "fin_tip": (0.2, 0.9), "fin_span": (0.06, 0.22),
        "fin_sweep": (0.0, 0.2), "fins": (0, 2), "booster": (0.4, 0.8),
        "booster_height": (0.25, 0.6),
    },
    variants={
        "body": ("straight", "cigar", "cigar", "stage"),
        "nose": ("ogive", "cone", "blunt", "tower"),
        "fins": ("fins", "fins", "fins", "boosters", "none"),
        "window": ("window", "none"),
        "band": ("band", "none"),
    },
    builder=build_rocket,
    stretch="xyx",
)  # fmt: skip

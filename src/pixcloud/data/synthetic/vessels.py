"""Stage 1, categories of vessels: mug, bottle, vase, teapot; `catalog` lists them."""

from __future__ import annotations

import numpy as np

from pixcloud.data.synthetic.curves import smooth
from pixcloud.data.synthetic.materials import shade_of
from pixcloud.data.synthetic.model import Category, Model, Values
from pixcloud.data.synthetic.primitives import (
    Solid,
    both_sides,
    cylinder,
    ellipsoid,
    lathe,
    torus,
    tube,
)


def hollow(outside: np.ndarray, wall: float) -> Solid:
    """A vessel from its outer profile (P, 2) of (radius, y), bottom first, open at the top."""
    inside = outside[::-1].copy()
    inside[:, 0] = np.maximum(inside[:, 0] - wall, 0.1 * wall)
    inside[:, 1] = np.maximum(inside[:, 1], outside[0, 1] + wall)
    foot, floor = [(0.0, outside[0, 1])], [(0.0, outside[0, 1] + wall)]
    return lathe(np.concatenate([foot, outside, inside, floor]))


def radius_at(profile: np.ndarray, y: float) -> float:
    """The outer radius of a profile (P, 2) at height y."""
    order = np.argsort(profile[:, 1])
    return float(np.interp(y, profile[order, 1], profile[order, 0]))


def handle_path(
    style: str, low: float, high: float, foot: float, head: float, reach: float
) -> np.ndarray:
    """The middle line (P, 3) of a handle in the xy plane, from (head, high) to (foot, low)."""
    tall = high - low
    if style == "square":
        knots = [
            (head, high), (head + reach * 0.85, high), (head + reach, high - 0.12 * tall),
            (head + reach, low + 0.12 * tall), (head + reach * 0.85, low), (foot, low),
        ]  # fmt: skip
    elif style == "ear":
        knots = [
            (head, high), (head + reach * 0.7, high + 0.05 * tall),
            (head + reach, high - 0.3 * tall), (head + reach * 0.55, low + 0.3 * tall), (foot, low),
        ]  # fmt: skip
    else:
        knots = [
            (head, high), (head + reach * 0.8, high - 0.06 * tall),
            (head + reach, (high + low) / 2), (foot + reach * 0.8, low + 0.06 * tall), (foot, low),
        ]  # fmt: skip
    flat = smooth(knots, 22)
    return np.column_stack([flat, np.zeros(len(flat))])


def build_mug(p: Values, v: Values, m: Model) -> None:
    color = m.color("ceramic", "plastic", "steel", "ceramic")
    h, r = p.height, p.height * p.radius
    if v.body == "straight":
        outside = smooth([(r * 0.94, 0), (r, 0.04 * h), (r, h * 0.5), (r, h)], 12)
    elif v.body == "tapered":
        outside = smooth([(r * p.taper, 0), (r * (p.taper + 0.06), 0.05 * h), (r, h)], 12)
    elif v.body == "round":
        outside = smooth(
            [(r * 0.55, 0), (r * 0.95, 0.2 * h), (r * 1.04, 0.45 * h), (r * 0.88, h)], 16
        )
    else:
        outside = smooth(
            [
                (r * 0.6, 0),
                (r * 0.62, 0.05 * h),
                (r * 0.92, 0.25 * h),
                (r * 0.9, 0.7 * h),
                (r * 1.12, h),
            ],
            18,
        )
    m.add("body", hollow(outside, p.wall * r), color)
    if v.band == "stripe":
        low = m.rng.uniform(0.2, 0.6)
        ys = np.linspace(low, low + m.rng.uniform(0.08, 0.2), 4) * h
        ring = np.array([(radius_at(outside, y) * 1.006, y) for y in ys])
        m.add("body", lathe(ring), m.color("ceramic", "plastic"))
    low, high = h * p.handle_low, h * p.handle_high
    reach, thick = p.reach * h, p.handle * h
    foot, head = radius_at(outside, low) - thick * 0.3, radius_at(outside, high) - thick * 0.3
    path = handle_path(v.handle, low, high, foot, head, reach)
    paint = color if m.chance(0.75) else m.color("ceramic", "plastic")
    grip = tube(path, thick, 12, flatten=p.grip)
    m.add("handle", both_sides(grip) if v.count == "two" else grip, paint)
    if v.lid == "lid":
        top = radius_at(outside, h)
        m.add(
            "lid",
            cylinder(top * 1.04, 0.07 * h, top * 0.98, 0.02 * h).at(y=h),
            m.color("plastic", "dark"),
        )


def build_bottle(p: Values, v: Values, m: Model) -> None:
    color = m.color("glass", "plastic", "steel", "light")
    r, n = p.radius, p.radius * p.neck
    waist = p.shoulder * (1 - p.neck_height)
    top = 1 - p.cap
    if v.body == "flask":
        knots = [(r * 0.8, 0), (r, 0.03), (r * 1.02, waist * 0.5), (r * 0.96, waist * 0.9)]
    elif v.body == "waisted":
        knots = [(r * 0.9, 0), (r, 0.04), (r * 0.84, waist * 0.5), (r, waist)]
    elif v.body == "bulb":
        knots = [
            (r * 0.55, 0),
            (r * 0.98, waist * 0.25),
            (r * 1.12, waist * 0.55),
            (r * 0.7, waist),
        ]
    else:
        knots = [(r * 0.9, 0), (r, 0.025), (r, waist * 0.5), (r, waist)]
    rise = (top - waist) * (1 - p.slope)
    low = np.concatenate([[(0, 0)], smooth(knots, 14)])
    high = smooth(
        [
            knots[-1],
            ((knots[-1][0] + n) / 2 * 1.08, waist + rise * 0.3),
            (n, top - rise * 0.45),
            (n, top),
        ],
        14,
    )
    m.add("body", lathe(low), color)
    m.add("neck", lathe(np.concatenate([high, [(0, top)]])), color)
    cap = m.color("plastic", "metal", "dark", "wood")
    if v.cap == "cork":
        m.add("cap", cylinder(n * 0.85, p.cap * 0.8, n * 0.95, 0.005).at(y=top), m.color("wood"))
    elif v.cap == "pump":
        m.add("cap", cylinder(n * 1.2, p.cap * 0.35, bevel=0.01, sides=20).at(y=top), cap)
        m.add("cap", cylinder(n * 0.3, p.cap * 0.9, sides=12).at(y=top), cap)
        spout = tube(
            np.array([(-n * 0.4, 0, 0), (n * 1.5, 0, 0), (n * 2.0, -n * 0.3, 0)]), n * 0.32, 10
        )
        m.add("cap", spout.at(y=top + p.cap * 0.9), cap)
    elif v.cap == "sport":
        m.add("cap", cylinder(n * 1.2, p.cap * 0.6, n * 0.9, 0.01).at(y=top), cap)
        m.add(
            "cap",
            cylinder(n * 0.45, p.cap * 0.5, bevel=0.01, sides=20).at(y=top + p.cap * 0.55),
            cap,
        )
    else:
        m.add("cap", cylinder(n * 1.16, p.cap, bevel=0.006).at(y=top), cap)
    if v.label == "label":
        ys = np.linspace(waist * p.label_low, waist * min(p.label_low + 0.45, 0.85), 6)
        ring = np.array([(radius_at(low[1:], y) * 1.008, y) for y in ys])
        m.add("label", lathe(ring), m.color("light", "paint", "plastic"))


def _flowers(p: Values, v: Values, m: Model, lip: float, top: float) -> None:
    """Stems with blossoms or leaves out of an opening of radius `lip` at height `top`."""
    petal, green = m.color("petal"), m.color("leaf")
    for k in range(2 + int(p.stems)):
        angle = 2.4 * k + m.rng.uniform(-0.4, 0.4)
        out, rise = p.spread * m.rng.uniform(0.3, 1.0), p.rise * m.rng.uniform(0.7, 1.1)
        x, z = np.cos(angle), np.sin(angle)
        path = smooth(
            [(0.2 * lip * x, top * 0.5, 0.2 * lip * z), (0.6 * lip * x, top, 0.6 * lip * z),
             (out * x * 0.7, top + rise * 0.7, out * z * 0.7), (out * x, top + rise, out * z)],
            9,
        )  # fmt: skip
        m.add("stems", tube(path, 0.008, 6), green)
        end, size = path[-1], m.rng.uniform(0.05, 0.1)
        if v.plant == "flowers":
            m.add("flowers", ellipsoid(size, size * 0.7, size, 12, 7).at(*end), petal)
            heart = ellipsoid(size * 0.4, size * 0.4, size * 0.4, 8, 5)
            heart = heart.at(end[0], end[1] + size * 0.5, end[2])
            m.add("flowers", heart, np.array([240, 205, 90], np.uint8))
        else:
            for share in (0.55, 0.8, 1.0):
                spot = path[int(share * 8)]
                leaf = ellipsoid(size * 1.5, 0.012, size * 0.7, 10, 5).at(x=size)
                leaf = leaf.turned("z", 25).turned("y", -np.degrees(angle) + m.rng.uniform(-70, 70))
                m.add("flowers", leaf.at(*spot), shade_of(green, m.rng.uniform(0.85, 1.2)))


def build_vase(p: Values, v: Values, m: Model) -> None:
    color = m.color("ceramic", "glass", "ceramic", "metal")
    h, r = p.height, p.radius
    foot, neck, lip = r * p.foot, r * p.neck, r * p.lip
    if v.body == "amphora":
        knots = [(foot, 0), (foot * 0.8, 0.05 * h), (r, p.belly * h), (neck, 0.82 * h), (lip, h)]
    elif v.body == "cylinder":
        knots = [
            (r * 0.9, 0),
            (r * 0.94, 0.3 * h),
            (r * 0.97, 0.7 * h),
            (r * (0.9 + 0.3 * p.lip), h),
        ]
    elif v.body == "cone":
        knots = [(foot, 0), (foot * 1.05, 0.1 * h), ((foot + r) / 2, 0.5 * h), (r * 1.1, h)]
    elif v.body == "gourd":
        knots = [
            (foot, 0),
            (r, p.belly * 0.6 * h),
            (neck * 1.1, 0.55 * h),
            (r * 0.7, 0.75 * h),
            (neck * 0.9, 0.93 * h),
            (lip, h),
        ]
    else:
        knots = [(foot, 0), (r, p.belly * h), (r * 0.7, 0.75 * h), (neck, h)]
    profile = smooth(knots, 26)
    m.add("body", hollow(profile, 0.05 * r), color)
    # Every vase stands on something of its own, so that none has a single part.
    wide, tall = (1.15, 0.05 * h) if v.base == "foot" else (1.02, 0.02 * h)
    stand = cylinder(profile[0, 0] * wide, tall, profile[0, 0], 0.2 * tall).at(y=-0.8 * tall)
    m.add("foot", stand, shade_of(color, 0.8))
    if v.ears == "two":
        low, high = p.belly * h, 0.86 * h
        path = handle_path(
            "ear",
            low,
            high,
            radius_at(profile, low) - 0.01,
            radius_at(profile, high) - 0.01,
            r * 0.5,
        )
        m.add("body", both_sides(tube(path, 0.06 * r, 8)), color)
    if v.plant != "none":
        _flowers(p, v, m, profile[-1, 0], h)


def _teapot_profile(p: Values, v: Values) -> np.ndarray:
    """The outer profile (20, 2) of (radius, y), bottom first."""
    h, r = p.height, p.radius
    if v.body == "round":
        knots = [
            (r * 0.55, 0), (r * 0.92, 0.2 * h), (r, 0.48 * h), (r * 0.8, 0.85 * h),
            (r * p.mouth, h),
        ]  # fmt: skip
    elif v.body == "tall":
        knots = [(r * 0.8, 0), (r * 0.82, 0.1 * h), (r * 0.68, 0.6 * h), (r * p.mouth, h)]
    else:
        knots = [(r * 0.85, 0), (r * 1.05, 0.12 * h), (r * 0.9, 0.5 * h), (r * p.mouth * 1.05, h)]
    return smooth(knots, 20)


def _spout(p: Values, v: Values, profile: np.ndarray) -> Solid:
    """A spout along +x, thinner towards its end."""
    h, r = p.height, p.radius
    low, reach = p.spout_low * h, p.spout * r
    start, rise = radius_at(profile, low), h * p.spout_rise
    if v.spout == "curved":
        knots = [
            (start - 0.06, low), (start + reach * 0.5, low + 0.1 * rise),
            (start + reach * 0.7, low + 0.6 * rise), (start + reach, rise),
        ]  # fmt: skip
    else:
        bend = (start + reach * 0.4, low + 0.4 * (rise - low))
        knots = [(start - 0.06, low), bend, (start + reach, rise)]
    path = np.column_stack([smooth(knots, 14), np.zeros(14)])
    return tube(path, np.linspace(0.2, 0.075, 14) * r, 14)


def _teapot_handle(p: Values, v: Values, profile: np.ndarray) -> np.ndarray:
    """The middle line (P, 3) of a handle over the lid, or at the back."""
    h = p.height
    if v.handle == "over":
        x = radius_at(profile, 0.85 * h)
        knots = (
            (x, 0.84 * h), (x * 1.05, h * 1.2), (0, h * (1.35 + p.lid)), (-x * 1.05, h * 1.2),
            (-x, 0.84 * h),
        )  # fmt: skip
        return np.column_stack([smooth(knots, 24), np.zeros(24)])
    high, low = 0.86 * h, 0.25 * h
    style = "square" if v.handle == "square" else "round"
    foot, head = radius_at(profile, low) - 0.02, radius_at(profile, high) - 0.02
    path = handle_path(style, low, high, foot, head, p.reach * p.radius)
    path[:, 0] *= -1
    return path


def build_teapot(p: Values, v: Values, m: Model) -> None:
    color = m.color("ceramic", "steel", "ceramic", "metal")
    trim = color if m.chance(0.6) else m.color("wood", "dark", "ceramic")
    h, r = p.height, p.radius
    profile = _teapot_profile(p, v)
    m.add("body", lathe(np.concatenate([[(0, 0)], profile, [(0, h)]])), color)
    top = r * p.mouth
    dome = smooth([(top * 1.06, 0), (top * 0.85, p.lid * 0.6 * h), (0.14 * top, p.lid * h)], 9)
    m.add("lid", lathe(np.concatenate([dome, [(0, p.lid * h)]])).at(y=h), trim)
    m.add("lid", ellipsoid(0.05, 0.045, 0.05, 14, 9).at(y=h * (1 + p.lid) + 0.03), trim)
    m.add("spout", _spout(p, v, profile), color)
    path = _teapot_handle(p, v, profile)
    m.add("handle", tube(path, p.grip * r, 10), trim)
    if v.base == "stand":
        m.add("body", torus(r * 0.6, 0.035).turned("x", 90), shade_of(color, 0.8))


MUG = Category(
    name="mug",
    parts=("body", "handle", "lid"),
    parameters={
        "height": (0.7, 1.15), "radius": (0.28, 0.68), "taper": (0.6, 0.95), "wall": (0.06, 0.14),
        "handle_low": (0.12, 0.38), "handle_high": (0.62, 0.92), "reach": (0.16, 0.45),
        "handle": (0.03, 0.075), "grip": (0.8, 1.9),
    },
    variants={
        "body": ("straight", "straight", "tapered", "round", "flared"),
        "handle": ("round", "square", "ear"),
        "count": ("one", "one", "one", "one", "two"),
        "lid": ("none", "none", "none", "lid"),
        "band": ("plain", "stripe"),
    },
    builder=build_mug,
    stretch="xyx",
)  # fmt: skip

BOTTLE = Category(
    name="bottle",
    parts=("body", "neck", "cap", "label"),
    parameters={
        "radius": (0.12, 0.33), "neck": (0.25, 0.7), "neck_height": (0.08, 0.45),
        "shoulder": (0.6, 0.95), "slope": (0.05, 0.6), "cap": (0.05, 0.14), "label_low": (0.1, 0.4),
    },
    variants={
        "body": ("straight", "straight", "flask", "waisted", "bulb"),
        "cap": ("screw", "screw", "cork", "pump", "sport"),
        "label": ("label", "none"),
    },
    builder=build_bottle,
    stretch="xyz",
)  # fmt: skip

VASE = Category(
    name="vase",
    parts=("body", "foot", "stems", "flowers"),
    parameters={
        "height": (0.55, 1.2), "radius": (0.18, 0.46), "foot": (0.4, 0.9), "neck": (0.25, 0.7),
        "lip": (0.4, 1.0), "belly": (0.25, 0.62), "stems": (0, 6), "spread": (0.12, 0.5),
        "rise": (0.2, 0.7),
    },
    variants={
        "body": ("amphora", "cylinder", "cone", "gourd", "egg"),
        "plant": ("none", "none", "flowers", "leaves"),
        "base": ("foot", "ring"),
        "ears": ("none", "none", "none", "two"),
    },
    builder=build_vase,
)  # fmt: skip

TEAPOT = Category(
    name="teapot",
    parts=("body", "spout", "handle", "lid"),
    parameters={
        "height": (0.5, 1.15), "radius": (0.4, 0.62), "mouth": (0.4, 0.7), "lid": (0.06, 0.3),
        "spout": (0.5, 1.05), "spout_low": (0.2, 0.5), "spout_rise": (0.75, 1.1),
        "reach": (0.45, 0.85), "grip": (0.06, 0.12),
    },
    variants={
        "body": ("round", "tall", "squat"),
        "spout": ("curved", "straight"),
        "handle": ("side", "side", "square", "over"),
        "base": ("plain", "plain", "stand"),
    },
    builder=build_teapot,
)  # fmt: skip

"""Stage 1, categories that a person carries: guitar, umbrella, hat; `catalog` lists them."""

from __future__ import annotations

import numpy as np

from pixcloud.data.synthetic.curves import arc, smooth, smooth_loop
from pixcloud.data.synthetic.materials import shade_of
from pixcloud.data.synthetic.model import Category, Model, Values
from pixcloud.data.synthetic.primitives import (
    Solid,
    box,
    cylinder,
    ellipsoid,
    extrusion,
    joined,
    lathe,
    loft,
    rod,
    sheet,
    tube,
)


def _guitar_outline(p: Values, v: Values) -> np.ndarray:
    low, mid, high, tall = p.lower / 2, p.lower / 2 * p.waist, p.lower / 2 * p.upper, p.body
    right = [(0.0, 0.0), (low * 0.6, 0.02 * tall), (low, 0.25 * tall), (mid, 0.58 * tall),
             (high, 0.82 * tall), (high * 0.55, 0.99 * tall)]  # fmt: skip
    if v.body == "cutaway":
        right[4:] = [
            (high * 0.95, 0.8 * tall),
            (high * 0.8, 0.98 * tall),
            (high * 0.35, 0.86 * tall),
        ]
    elif v.body == "horned":
        right[4:] = [
            (high * 0.95, 0.85 * tall),
            (high * 0.85, 1.12 * tall),
            (high * 0.3, 0.9 * tall),
        ]
    elif v.body == "pear":
        right[2:] = [
            (low, 0.3 * tall),
            (low * 0.85, 0.6 * tall),
            (low * 0.45, 0.88 * tall),
            (low * 0.15, tall),
        ]
    left = [(-x, y) for x, y in right[:0:-1]]
    if v.body == "cutaway":
        left[:3] = [(-high * 0.5, 0.99 * tall), (-high, 0.82 * tall)]
    elif v.body == "horned":
        left[:3] = [(-high * 0.3, 0.9 * tall), (-high * 0.9, 1.2 * tall), (-high, 0.85 * tall)]
    return smooth_loop(np.array(right + left), 64)


def _neck_and_head(p: Values, v: Values, m: Model, front: float) -> None:
    wood, metal = m.color("wood", "dark"), m.color("steel", "brass")
    start, end = p.body * 0.8, p.body + p.neck
    wide = p.neck_width
    neck = loft(np.stack([
        np.column_stack([
            wide * k / 2 * np.cos(a),
            np.full(12, y),
            front + 0.008 - 0.035 * np.clip(-np.sin(a), 0, 1),
        ])
        for y, k in ((start, 1.15), (end, 1.0))
        for a in [np.arange(12) * np.pi / 6]
    ]))  # fmt: skip
    m.add("neck", neck, wood)
    fret = box(wide * 1.04, 0.006, 0.006)
    m.add(
        "neck",
        joined(*(fret.at(y=y, z=front + 0.008) for y in np.linspace(start + 0.05, end, 9))),
        metal,
    )
    head = box(wide * p.head_width, p.head, 0.03, 0.008).turned("x", -12).at(y=end, z=front - 0.005)
    m.add("head", head, wood)
    for a in (-1, 1):
        for share in (0.25, 0.55, 0.85):
            x, y = a * wide * (p.head_width / 2 + 0.12), end + p.head * share
            m.add(
                "head",
                ellipsoid(0.02, 0.012, 0.014, 10, 7).at(x, y, front - 0.02 - 0.2 * share * p.head),
                metal,
            )


def build_guitar(p: Values, v: Values, m: Model) -> None:
    color = m.color("wood", "wood", "paint")
    electric = v.body in ("horned", "cutaway") and p.depth < 0.1
    outline, deep = _guitar_outline(p, v), p.depth * (0.55 if v.body == "horned" else 1.0)
    body = extrusion(outline - (0, 0.45 * p.body), deep, deep * 0.16).at(y=0.45 * p.body)
    m.add("body", body, color)
    front = deep / 2
    if v.hole == "hole" and not electric:
        hole = (
            cylinder(p.lower * p.hole, 0.004, sides=28).turned("x", 90).at(y=p.body * 0.62, z=front)
        )
        ring = (
            cylinder(p.lower * p.hole * 1.2, 0.003, sides=28)
            .turned("x", 90)
            .at(y=p.body * 0.62, z=front)
        )
        m.add("body", ring, m.color("wood", "light"))
        m.add("body", hole, m.color("dark"))
    else:
        for share in (0.45, 0.65):
            m.add(
                "bridge",
                box(p.lower * 0.3, 0.03, 0.02, 0.005).at(y=p.body * share, z=front),
                m.color("dark", "steel"),
            )
        guard = ellipsoid(p.lower * 0.2, p.body * 0.2, 0.004, 16, 5).at(
            p.lower * 0.15, p.body * 0.35, front
        )
        m.add("body", guard, m.color("light", "dark"))
    m.add(
        "bridge",
        box(p.lower * 0.42, 0.035, 0.025, 0.008).at(y=p.body * 0.25, z=front),
        m.color("dark", "wood"),
    )
    _neck_and_head(p, v, m, front)
    strings = [
        rod(
            (x * p.neck_width, p.body * 0.26, front + 0.014),
            (x * p.neck_width, p.body + p.neck, front + 0.012),
            0.0025,
            sides=4,
        )
        for x in np.linspace(-0.36, 0.36, 4)
    ]  # fmt: skip
    m.add("bridge", joined(*strings), m.color("steel"))


def _canopy(p: Values, v: Values, m: Model, color: np.ndarray, top: float) -> None:
    count, rows = 6 + int(p.panels), 9
    per = 6
    angle = np.arange(count * per + 1) * (2 * np.pi / (count * per))
    sag = np.abs(np.sin(angle * count / 2))
    share = np.linspace(0.0, 1.0, rows)[:, None]
    radius = p.radius * np.sin(share * np.pi / 2 * p.round) / np.sin(np.pi / 2 * p.round)
    radius = radius * (1 - p.scallop * sag * share**2)
    fall = (1 - np.cos(share * np.pi / 2 * p.round)) / (1 - np.cos(np.pi / 2 * p.round))
    y = top - p.dome * fall + p.scallop * 0.25 * p.radius * sag * share**3
    points = np.stack([radius * np.cos(angle), y, radius * np.sin(angle)], axis=-1)
    second = m.color("plastic", "light") if v.pattern == "panels" else color
    for k in range(count):
        part = points[:, k * per : (k + 1) * per + 1]
        m.add("canopy", sheet(part), color if k % 2 == 0 else second)
        rib = points[:, k * per] - (0, 0.008, 0)
        m.add("ribs", tube(rib, 0.006, 5), m.color("steel"))


def build_umbrella(p: Values, v: Values, m: Model) -> None:
    color, metal = m.color("plastic", "paint", "fabric"), m.color("steel", "wood", "dark")
    top = p.height
    low = 0.0
    if v.state == "closed":
        s = np.linspace(0, 1, 10)
        fold = p.fold * (0.35 + 0.65 * np.sin(np.pi * np.clip(s * 0.75 + 0.12, 0, 1)))
        angle = np.arange(33)[:-1] * (2 * np.pi / 32)
        wave = 1 + 0.18 * np.cos(8 * angle)
        y = top - s * (top * 0.62)
        radius = fold[:, None] * wave
        loops = np.stack(
            [
                radius * np.cos(angle),
                np.broadcast_to(y[:, None], radius.shape),
                radius * np.sin(angle),
            ],
            axis=-1,
        )
        m.add("canopy", loft(loops), color)
        strap = lathe([(p.fold * 1.18, top * 0.62), (p.fold * 1.18, top * 0.65)], 24)
        m.add("canopy", strap, shade_of(color, 0.7))
    else:
        _canopy(p, v, m, color, top)
    m.add("shaft", rod((0, low, 0), (0, top, 0), p.shaft, sides=10), metal)
    m.add("shaft", rod((0, top, 0), (0, top + p.tip, 0), p.shaft, p.shaft * 0.4, 10), metal)
    grip = m.color("wood", "dark", "plastic")
    if v.handle == "hook":
        r = p.hook
        bend = arc(r, 0, -190, 14)
        path = np.concatenate(
            [[(0, 0.14 * top, 0)], np.column_stack([bend[:, 0] - r, bend[:, 1], np.zeros(14)])]
        )
        m.add("handle", tube(path, p.shaft * 1.7, 10), grip)
    elif v.handle == "grip":
        m.add(
            "handle",
            cylinder(p.shaft * 2.2, 0.14 * top, p.shaft * 1.7, 0.008, 16).at(y=-0.04 * top),
            grip,
        )
    else:
        m.add("handle", cylinder(p.hook * 3.2, 0.05, p.hook * 2.6, 0.015), grip)
        m.add("handle", cylinder(p.shaft * 2.4, 0.12, sides=16).at(y=0.04), grip)


def _brim(p: Values, v: Values, radius: float, deep: float) -> Solid:
    """The brim of a hat around a crown's oval of half axes (radius, deep)."""
    angle = np.linspace(0, 2 * np.pi, 49)
    share = np.linspace(0, 1, 6)[:, None]
    reach = p.brim * np.ones(49)
    if v.brim == "visor":
        angle = np.linspace(-1.15, 1.15, 25) + np.pi / 2
        reach = p.brim * 1.5 * np.cos((angle - np.pi / 2) * 1.25) ** 0.5
    droop = p.droop * p.brim * share**1.5
    if v.brim == "curled":
        droop = droop * 0 - (p.curl * p.brim * share**2) * np.abs(np.cos(angle)) ** 2
    elif v.brim == "visor":
        droop = droop + 0.25 * p.brim * share * np.abs(angle - np.pi / 2) ** 2
    x = (radius + reach * share) * np.cos(angle)
    z = (deep + reach * share) * np.sin(angle)
    y = np.broadcast_to(-droop, x.shape)
    return sheet(np.stack([x, y, z], axis=-1), 0.015)


def build_hat(p: Values, v: Values, m: Model) -> None:
    color = m.color("fabric", "leather", "plastic", "dark", "wood")
    trim = m.color("fabric", "dark", "plastic", "light")
    r, tall = p.radius, p.height
    oval = p.oval
    if v.crown == "top":
        knots = [(r, 0), (r * p.waist, tall * 0.6), (r * (p.waist + 0.06), tall)]
        profile = np.concatenate(
            [smooth(knots, 12), [(r * p.waist, tall * 1.03), (0, tall * 1.02)]]
        )
    elif v.crown == "fedora":
        profile = np.concatenate(
            [
                smooth(
                    [
                        (r, 0),
                        (r * 0.97, tall * 0.4),
                        (r * 0.72, tall * 0.9),
                        (r * 0.5, tall * 0.97),
                    ],
                    14,
                ),
                [(0.0, tall * 0.8)],
            ]
        )
    elif v.crown == "cone":
        profile = smooth(
            [(r, 0), (r * 0.62, tall * 0.45), (r * 0.22, tall * 1.1), (0, tall * 1.5)], 16
        )
    else:
        s = np.linspace(0, np.pi / 2, 14)
        profile = np.column_stack([r * np.cos(s) ** 0.8, tall * 0.85 * np.sin(s)])
    profile[:, 0] = np.maximum(profile[:, 0], 0)
    crown = loft(np.stack([_ring(q, y) for q, y in profile]), caps=False).scaled(z=oval)
    m.add("crown", crown, color)
    if v.crown == "dome" and v.brim == "visor":
        m.add("crown", ellipsoid(0.035, 0.02, 0.035, 10, 7).at(y=tall * 0.85), trim)
    if v.brim != "none":
        brim = trim if v.brim == "visor" and m.chance(0.5) else color
        m.add("brim", _brim(p, v, r * 0.98, r * oval * 0.98), brim)
    if v.band == "band" or v.brim == "none":
        high = tall * p.band
        width = float(np.interp(high, profile[:, 1], profile[:, 0]))
        band = loft(np.stack([_ring(r * 1.02, 0.005), _ring(width * 1.02, high)]), caps=False)
        m.add("band", band.scaled(z=oval), trim)


def _ring(radius: float, y: float, sides: int = 40) -> np.ndarray:
    angle = np.arange(sides) * (2 * np.pi / sides)
    return np.stack([radius * np.cos(angle), np.full(sides, y), radius * np.sin(angle)], axis=1)


GUITAR = Category(
    name="guitar",
    parts=("body", "neck", "head", "bridge"),
    parameters={
        "lower": (0.28, 0.46), "body": (0.36, 0.54), "waist": (0.55, 0.85), "upper": (0.65, 0.9),
        "depth": (0.04, 0.14), "neck": (0.22, 0.58), "neck_width": (0.045, 0.075),
        "head": (0.1, 0.2), "head_width": (1.1, 1.8), "hole": (0.1, 0.16),
    },
    variants={
        "body": ("classic", "classic", "cutaway", "horned", "pear"),
        "hole": ("hole", "hole", "pickups"),
    },
    builder=build_guitar,
)  # fmt: skip

UMBRELLA = Category(
    name="umbrella",
    parts=("canopy", "shaft", "handle", "ribs"),
    parameters={
        "height": (0.7, 1.25), "radius": (0.35, 0.75), "dome": (0.12, 0.45), "round": (0.35, 0.95),
        "scallop": (0.0, 0.14), "panels": (0, 5), "shaft": (0.011, 0.022), "tip": (0.03, 0.12),
        "hook": (0.04, 0.09), "fold": (0.04, 0.1),
    },
    variants={
        "state": ("open", "open", "open", "closed"),
        "handle": ("hook", "grip", "stand"),
        "pattern": ("plain", "panels"),
    },
    builder=build_umbrella,
)  # fmt: skip

HAT = Category(
    name="hat",
    parts=("crown", "brim", "band"),
    parameters={
        "radius": (0.3, 0.4), "height": (0.2, 0.62), "oval": (1.0, 1.3), "brim": (0.1, 0.42),
        "droop": (0.0, 0.55), "curl": (0.1, 0.7), "waist": (0.82, 1.05), "band": (0.12, 0.35),
    },
    variants={
        "crown": ("dome", "dome", "top", "fedora", "cone"),
        "brim": ("flat", "curled", "visor", "none"),
        "band": ("band", "none"),
    },
    builder=build_hat,
)  # fmt: skip

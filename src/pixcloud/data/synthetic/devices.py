"""Stage 1, categories of devices: lamp, laptop, monitor, headphone; `catalog` lists them."""

from __future__ import annotations

import numpy as np

from pixcloud.data.synthetic.curves import rounded_rectangle, smooth
from pixcloud.data.synthetic.materials import shade_of
from pixcloud.data.synthetic.model import Category, Model, Values
from pixcloud.data.synthetic.primitives import (
    Solid,
    both_sides,
    box,
    cylinder,
    ellipsoid,
    extrusion,
    hoop,
    joined,
    lathe,
    loft,
    rod,
    torus,
    tube,
)
from pixcloud.data.synthetic.supports import support


def _shade(p: Values, v: Values) -> Solid:
    """A lamp's shade, open below, its top at y = 0."""
    low, high, tall = p.shade, p.shade * p.shade_top, p.shade_height
    if v.shade == "square":
        corners = [(low, -tall), (high, 0), (high - 0.01, -0.01), (low - 0.01, -tall)]
        loops = []
        for half, y in corners:
            flat = rounded_rectangle(2 * half, 2 * half, half * 0.12, 2)
            loops.append(np.column_stack([flat[:, 0], np.full(len(flat), y), flat[:, 1]]))
        return loft(np.stack(loops), ring=True)
    if v.shade == "globe":
        return ellipsoid(low * 0.9, tall * 0.55, low * 0.9).at(y=-tall * 0.5)
    if v.shade == "dome":
        out = smooth(
            [(low, -tall), (low * 0.92, -tall * 0.5), (low * 0.55, -tall * 0.1), (0.02, 0)], 12
        )
    else:
        out = np.array([(low, -tall), (high, 0)])
    inside = out[::-1] - (0.008, 0.004)
    inside[:, 0] = np.maximum(inside[:, 0], 0.004)
    return loft(np.stack([lathe_loop(r, y) for r, y in np.concatenate([out, inside])]), ring=True)


def lathe_loop(radius: float, y: float, sides: int = 32) -> np.ndarray:
    """A horizontal circle (sides, 3)."""
    angle = np.arange(sides) * (2 * np.pi / sides)
    return np.stack([radius * np.cos(angle), np.full(sides, y), radius * np.sin(angle)], axis=1)


def _lamp_base(p: Values, v: Values, m: Model, color: np.ndarray) -> float:
    """The base; returns the height at which the pole begins."""
    r = p.base
    if v.base == "disc":
        m.add("base", cylinder(r, 0.03, r * 0.9, 0.01), color)
        return 0.03
    if v.base == "tripod":
        height = p.height * 0.7
        m.add("base", support("tripod", 2.6 * r, 2.6 * r, height, 0.03, 0.1), color)
        hub = 2.6 * r * 0.52 * 0.25 + 0.015  # the circle on which the legs end
        m.add("base", cylinder(hub, 0.03, bevel=0.008).at(y=height - 0.02), color)
        return height
    if v.base == "block":
        m.add("base", box(1.6 * r, 0.05, 1.6 * r, 0.015), color)
        return 0.05
    tall = p.height * p.body
    if v.base == "gourd":
        knots = [
            (r * 0.75, 0),
            (r * 1.05, 0.35 * tall),
            (r * 0.4, 0.72 * tall),
            (r * 0.5, 0.85 * tall),
            (r * 0.18, tall),
        ]
    else:
        knots = [(r * 0.6, 0), (r * 0.45, 0.12 * tall), (r * 0.85, 0.55 * tall), (r * 0.3, tall)]
    profile = smooth(knots, 22)
    m.add("base", lathe(np.concatenate([[(0, 0)], profile, [(0, tall)]])), color)
    return tall


def build_lamp(p: Values, v: Values, m: Model) -> None:
    color, cover = (
        m.color("metal", "ceramic", "wood", "brass"),
        m.color("linen", "lamplight", "fabric"),
    )
    shade = _shade(p, v)
    start, metal = _lamp_base(p, v, m, color), m.color("metal", "brass", "dark")
    # The shade stays above the base and the ground.
    top = max(p.height, start + 0.45 * p.shade_height + 0.05, 0.85 * p.shade_height + 0.05)
    if v.pole == "straight" or v.base in ("gourd", "urn"):
        m.add("pole", rod((0, start - 0.02, 0), (0, top, 0), p.pole), metal)
        tip = np.array([0, top + p.shade_height * 0.55, 0])
        m.add("pole", rod((0, top, 0), (0, tip[1] - 0.02, 0), p.pole * 0.6, sides=8), metal)
        turn = 0.0
    elif v.pole == "arc":
        knots = [
            (0, start - 0.02, 0),
            (0.02, top * 0.6, 0),
            (p.reach * 0.35, top * 1.02, 0),
            (p.reach, top * 0.92, 0),
        ]
        m.add("pole", tube(smooth(knots, 24), p.pole, 10), metal)
        tip, turn = np.array([p.reach, top * 0.92, 0]), 0.0
    else:
        elbow = np.array([-0.4 * p.reach, start + (top - start) * 0.55, 0])
        tip = np.array([p.reach * 0.8, top, 0])
        m.add(
            "pole", joined(rod((0, start - 0.01, 0), elbow, p.pole), rod(elbow, tip, p.pole)), metal
        )
        m.add("pole", ellipsoid(p.pole * 2, p.pole * 2, p.pole * 2, 14, 9).at(*elbow), metal)
        turn = p.tilt
    scale = 1.0 if v.pole == "straight" or v.base in ("gourd", "urn") else 0.75
    m.add("shade", shade.scaled(scale, scale, scale).turned("z", turn).at(*tip), cover)
    bulb = ellipsoid(0.045, 0.06, 0.045, 14, 9).at(y=-p.shade_height * 0.5 * scale)
    m.add("bulb", bulb.turned("z", turn).at(*tip), m.color("lamplight"))


def build_laptop(p: Values, v: Values, m: Model) -> None:
    color = m.color("steel", "dark", "light", "plastic")
    width, depth, thick = p.width, p.width * p.aspect, p.thickness
    m.add("base", box(width, thick, depth, thick * 0.35), color)
    dark = m.color("dark", "light") if m.chance(0.8) else shade_of(color, 0.7)
    rows, columns, left = 4, 11, width * 0.88
    pitch_x, pitch_z = left / columns, depth * p.keys / rows
    key = box(pitch_x * 0.8, 0.006, pitch_z * 0.78)
    start = -depth * 0.36
    keys = [
        key.at((c + 0.5) * pitch_x - left / 2, thick, start + (r + 0.5) * pitch_z)
        for r in range(rows)
        for c in range(columns)
    ]
    m.add("keyboard", joined(*keys), dark)
    pad = box(width * p.pad, 0.004, depth * 0.2, 0.0).at(y=thick, z=depth * 0.3)
    m.add("keyboard", pad, shade_of(color, 0.8))
    panel = box(width, depth * p.lid, thick * 0.6, thick * 0.25)
    glass = box(width * p.bezel, depth * p.lid * (p.bezel - 0.02), 0.006).at(
        y=depth * p.lid * 0.04, z=thick * 0.3
    )
    angle = {"open": 90 - p.opening, "wide": 70 - p.opening * 0.5 - 90 + 40, "tent": 75}[v.pose]
    hinge = (0, thick * 1.0, -depth / 2 + thick * 0.3)
    m.add("screen", panel.turned("x", angle).at(*hinge), color)
    m.add("screen", glass.turned("x", angle).at(*hinge), m.color("screen"))
    barrel = rod(
        (-width * 0.35, thick, -depth / 2 + thick * 0.3),
        (width * 0.35, thick, -depth / 2 + thick * 0.3),
        thick * 0.5,
    )
    m.add("base", barrel, shade_of(color, 0.6))


def _panel_grid(width: float, height: float, depth: float, bend: float) -> np.ndarray:
    """A loop of cross-sections for a panel that bends towards the viewer at its sides."""
    columns = np.linspace(-1, 1, 15)
    loops = []
    for u in columns:
        z = bend * width * u**2
        loops.append(
            [
                (u * width / 2, 0, z - depth),
                (u * width / 2, 0, z),
                (u * width / 2, height, z),
                (u * width / 2, height, z - depth),
            ]
        )
    return np.array(loops)


def build_monitor(p: Values, v: Values, m: Model) -> None:
    color, screen = m.color("dark", "steel", "light"), m.color("screen")
    width, height, thick = p.width, p.width * p.aspect, p.thickness
    if v.turned == "portrait":
        width, height = height, width
    bend = p.bend if v.panel == "curved" else 0.0
    low, lean = p.neck, p.tilt
    panel = loft(_panel_grid(width, height, thick, bend))
    inner = loft(_panel_grid(width * 0.95, height * 0.93, 0.004, bend)).at(
        y=height * 0.035, z=0.006
    )
    m.add("panel", panel.turned("x", -lean).at(y=low), color)
    m.add("panel", inner.turned("x", -lean).at(y=low), screen)
    if v.panel == "deep":
        tail = loft(np.stack([
            np.column_stack([s, np.full(len(s), z)]) for s, z in (
                (rounded_rectangle(width * 0.96, height * 0.95, 0.03), 0.0),
                (rounded_rectangle(width * 0.6, height * 0.6, 0.03), -p.box * width),
            )
        ]))  # fmt: skip
        m.add("panel", tail.at(y=height / 2, z=-thick).turned("x", -lean).at(y=low), color)
    metal = m.color("dark", "steel", "light")
    if v.base == "feet":
        foot = both_sides(
            rod((0.36 * width, 0.01, 0.13), (0.36 * width, low + 0.03, -thick / 2), 0.011, sides=8)
        )
        back = both_sides(
            rod((0.36 * width, 0.01, -0.16), (0.36 * width, low + 0.03, -thick / 2), 0.011, sides=8)
        )
        m.add("neck", joined(foot, back), metal)
        return
    # The post leans with the panel, behind it.
    rise, behind = height * 0.35, -thick - p.post * 0.4
    middle = ((p.post, 0.0, behind), (p.post * 0.9, low, behind),
              (p.post * 0.8, low + rise, behind - rise * np.tan(np.radians(lean))))  # fmt: skip
    loops = [lathe_loop(r, y) * (1, 1, 0.45) + (0, 0, z) for r, y, z in middle]
    m.add("neck", loft(np.stack(loops)), metal)
    if v.base == "disc":
        m.add("base", cylinder(p.base, 0.02, bevel=0.006).scaled(z=0.75).at(z=-thick), metal)
    elif v.base == "plate":
        m.add("base", box(2 * p.base, 0.02, 1.4 * p.base, 0.008).at(z=-thick), metal)
    else:
        arm = both_sides(rod((0, 0.02, -0.05), (p.base * 1.3, 0.01, p.base * 0.9), 0.014, sides=8))
        m.add(
            "base", joined(arm, rod((0, 0.02, 0), (0, 0.01, -p.base * 0.8), 0.014, sides=8)), metal
        )


def build_headphone(p: Values, v: Values, m: Model) -> None:
    color, soft = m.color("plastic", "dark", "light", "steel"), m.color("dark", "leather", "fabric")
    x, tall, cup = p.width / 2, p.height, p.cup
    angle = np.linspace(0, np.pi, 28)
    band = np.stack([x * np.cos(angle), cup + tall * np.sin(angle) ** 0.9, np.zeros(28)], axis=1)
    m.add("band", tube(band, p.band, 12, flatten=p.flat), color)
    if v.band == "padded":
        m.add(
            "band", tube(band[7:21] - (0, p.band * 1.2, 0), p.band * 1.3, 12, flatten=p.flat), soft
        )
    elif v.band == "double":
        m.add(
            "band",
            tube(
                band * (0.98, 0.84, 1) + (0, 0.12 * cup, 0), p.band * 0.8, 8, flatten=p.flat * 1.4
            ),
            soft,
        )
    deep = p.depth
    if v.cup == "square":
        shell = extrusion(rounded_rectangle(cup * 1.5, cup * 2, cup * 0.45, 5), deep, deep * 0.3)
        pad = hoop(
            rounded_rectangle(cup * 1.5, cup * 2, cup * 0.45, 5),
            rounded_rectangle(cup * 0.8, cup * 1.2, cup * 0.3, 5),
            deep * 0.7,
        )
    elif v.cup == "oval":
        shell = (
            cylinder(1, deep, bevel=deep * 0.35)
            .turned("x", 90)
            .scaled(cup * 0.75, cup, 1)
            .at(z=-deep / 2)
        )
        pad = torus(0.72, 0.28, 28, 10).scaled(cup * 0.75, cup, deep * 1.6)
    else:
        shell = cylinder(cup * 0.92, deep, bevel=deep * 0.3).turned("x", 90).at(z=-deep / 2)
        pad = torus(cup * 0.66, cup * 0.27, 28, 10).scaled(z=max(0.5, deep / cup))
    shell, pad = shell.turned("y", 90), pad.turned("y", 90)
    m.add(
        "cups",
        both_sides(shell.at(x + deep * 0.35, cup)),
        color if m.chance(0.6) else m.color("dark", "plastic"),
    )
    m.add("cushions", both_sides(pad.at(x - deep * 0.3, cup)), soft)
    if v.mic == "mic":
        path = smooth(
            [
                (x + deep * 0.3, cup, 0.02),
                (x + deep * 0.3, cup * 0.7, cup * 0.9),
                (x * 0.6, cup * 0.35, cup * 1.9),
            ],
            12,
        )
        m.add("mic", tube(path, 0.012, 8), m.color("dark"))
        m.add("mic", ellipsoid(0.04, 0.03, 0.03, 12, 7).at(*path[-1]), m.color("dark"))


LAMP = Category(
    name="lamp",
    parts=("base", "pole", "shade", "bulb"),
    parameters={
        "height": (0.3, 1.5), "base": (0.1, 0.24), "body": (0.5, 0.95), "pole": (0.009, 0.03),
        "reach": (0.2, 0.55), "tilt": (0, 60), "shade": (0.12, 0.34), "shade_top": (0.35, 1.0),
        "shade_height": (0.12, 0.4),
    },
    variants={
        "base": ("disc", "disc", "block", "tripod", "gourd", "urn"),
        "pole": ("straight", "straight", "arc", "elbow"),
        "shade": ("cone", "cone", "square", "dome", "globe"),
    },
    builder=build_lamp,
)  # fmt: skip

LAPTOP = Category(
    name="laptop",
    parts=("base", "screen", "keyboard"),
    parameters={
        "width": (0.8, 1.2), "aspect": (0.58, 0.86), "thickness": (0.025, 0.09),
        "keys": (0.36, 0.46),
        "pad": (0.2, 0.4), "lid": (0.85, 1.0), "bezel": (0.88, 0.97), "opening": (85, 150),
    },
    variants={"pose": ("open", "open", "open", "wide", "tent")},
    builder=build_laptop,
)  # fmt: skip

MONITOR = Category(
    name="monitor",
    parts=("panel", "neck", "base"),
    parameters={
        "width": (0.6, 1.5), "aspect": (0.4, 0.8), "thickness": (0.025, 0.1), "neck": (0.06, 0.35),
        "tilt": (-2, 18), "post": (0.03, 0.09), "base": (0.14, 0.3), "bend": (0.03, 0.12),
        "box": (0.2, 0.5),
    },
    variants={
        "panel": ("flat", "flat", "curved", "deep"),
        "base": ("disc", "plate", "vee", "feet"),
        "turned": ("landscape", "landscape", "landscape", "portrait"),
    },
    builder=build_monitor,
)  # fmt: skip

HEADPHONE = Category(
    name="headphone",
    parts=("band", "cups", "cushions", "mic"),
    parameters={
        "width": (0.6, 0.95), "height": (0.3, 0.85), "cup": (0.14, 0.32), "depth": (0.08, 0.22),
        "band": (0.014, 0.04), "flat": (1.0, 3.6),
    },
    variants={
        "cup": ("round", "oval", "square"),
        "band": ("plain", "padded", "double"),
        "mic": ("none", "none", "mic"),
    },
    builder=build_headphone,
)  # fmt: skip

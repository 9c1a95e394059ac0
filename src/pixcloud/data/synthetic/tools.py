"""Stage 1, categories of hand tools: hammer, knife; `catalog` lists them."""

from __future__ import annotations

import numpy as np

from pixcloud.data.synthetic.flight import fin
from pixcloud.data.synthetic.model import Category, Model, Values
from pixcloud.data.synthetic.primitives import (
    both_sides,
    box,
    cylinder,
    ellipsoid,
    joined,
    loft,
    rod,
    tube,
)


def build_hammer(p: Values, v: Values, m: Model) -> None:
    steel, grip = m.color("steel", "metal"), m.color("wood", "wood", "plastic")
    long, r = p.length, p.grip
    xs = np.linspace(0, long, 12)
    swell = (
        r * (1 + p.swell * np.cos(np.linspace(0, 2.2 * np.pi, 12))) * np.linspace(1, p.taper, 12)
    )
    path = np.column_stack([xs, np.zeros(12), np.zeros(12)])
    m.add("handle", tube(path, swell, 16, flatten=p.oval), grip)
    if v.grip == "sleeve":
        m.add(
            "handle",
            tube(path[:5], swell[:5] * 1.16, 16, flatten=p.oval),
            m.color("plastic", "rubber"),
        )
    w, h = p.head_width, p.head
    if v.head == "mallet":
        head = cylinder(h * 0.75, w * 1.2, bevel=h * 0.12).turned("x", 90).at(z=-w * 0.6)
        steel = m.color("wood", "rubber", "dark")
    elif v.head == "sledge":
        head = box(h * 1.2, h * 1.2, w, h * 0.2).at(y=-h * 0.6)
    else:
        poll = cylinder(h * 0.55, w * 0.2, bevel=h * 0.08, sides=24).turned("x", 90).at(z=w * 0.32)
        throat = rod((0, 0, 0), (0, 0, w * 0.34), h * 0.5, h * 0.34, 20)
        head = joined(poll, throat, box(h * 0.9, h * 0.95, w * 0.26, h * 0.15).at(y=-h * 0.47))
        if v.head == "claw":
            s = np.linspace(0, 1, 8)
            claw = np.column_stack([-0.5 * p.claw * w * s**2, np.zeros(8), -w * (0.1 + 0.5 * s)])
            prong = tube(claw, h * np.linspace(0.36, 0.1, 8), 10)
            spread = np.linspace(0.05, 0.32, 2) * h
            head = joined(head, *(prong.turned("z", 0).at(y=a * spread[1]) for a in (-1, 1)))
        elif v.head == "ball":
            neck = rod((0, 0, 0), (0, 0, -w * 0.4), h * 0.34, sides=16)
            head = joined(head, neck, ellipsoid(h * 0.5, h * 0.5, h * 0.5, 20, 11).at(z=-w * 0.42))
        else:
            wedge = fin(h * 1.0, h * 0.95, w * 0.6, -h * 0.1, 0.75, 2).turned("x", -90).at(h * 0.5)
            head = joined(head, wedge.scaled(y=1.1))
    m.add("head", head.at(long + h * 0.1), steel)


def build_knife(p: Values, v: Values, m: Model) -> None:
    steel, grip = m.color("steel"), m.color("wood", "dark", "plastic", "metal")
    long, high = p.blade, p.height
    x = np.linspace(0, 1, 22)
    if v.blade == "chef":
        edge, spine = -high * (1 - x**3.2), high * 0.12 * (1 - x) - 0.25 * high * x**3
    elif v.blade == "cleaver":
        edge, spine = -high * 1.7 * np.ones(22), 0.05 * high * np.ones(22)
        edge[-2:] *= (0.97, 0.85)
    elif v.blade == "bread":
        edge, spine = (
            -high * (0.8 - 0.5 * x**6) + 0.05 * high * (np.arange(22) % 2),
            0.1 * high * (1 - x**8),
        )
    elif v.blade == "dagger":
        edge, spine = -high * 0.6 * (1 - x**2.5), high * 0.6 * (1 - x**2.5)
    else:
        edge, spine = -high * (0.75 - 0.1 * x - 0.9 * x**7), high * 0.1 + 0.3 * high * x**2
    thick = p.thickness / 2
    middle = (edge + spine) / 2 if v.blade == "dagger" else spine
    outline = [
        (spine, 0.0 if v.blade == "dagger" else thick),
        (middle, thick),
        (edge, 0.0),
        (middle, -thick),
    ]
    loops = np.stack([np.column_stack([x * long, y, np.full(22, z)]) for y, z in outline], axis=1)
    loops[:, 3, 1] = spine if v.blade != "dagger" else loops[:, 3, 1]
    blade = loft(loops)
    m.add("blade", blade.turned("x", 90), steel)
    s = np.linspace(0, 1, 14)
    bend = -p.bend * p.handle * s**2
    swell = p.grip * (1 + 0.18 * np.sin(s * 2 * np.pi + 0.8)) * (1 - 0.1 * s)
    middle_y = {"dagger": 0.0, "cleaver": -high * 0.35}.get(v.blade, -high * 0.3)
    path = np.column_stack([-s * p.handle, middle_y + bend, np.zeros(14)])
    handle = tube(path, swell, 16, flatten=p.flat)
    if abs(p.bend) < 1e-3:
        handle = handle.scaled(z=p.flat)
    m.add("handle", handle.turned("x", 90), grip)
    if v.rivets == "rivets":
        for share in (3, 7, 11):
            spot = path[share]
            rivet = ellipsoid(0.012, 0.006, 0.012, 10, 5).at(spot[0], p.grip * p.flat, spot[1])
            m.add("handle", both_sides(rivet, "y"), m.color("brass", "steel"))
    if v.guard == "guard":
        bar = box(0.035, p.thickness * 1.5 + p.grip, p.guard, 0.01).at(
            0, -p.grip / 2 - p.thickness * 0.75, middle_y
        )
        m.add("guard", bar, m.color("brass", "steel", "dark"))
    elif v.guard == "bolster":
        m.add(
            "guard",
            ellipsoid(0.03, p.grip * 0.9, p.grip * 1.3, 14, 9).at(0, 0, middle_y),
            m.color("brass", "steel"),
        )


HAMMER = Category(
    name="hammer",
    parts=("head", "handle"),
    parameters={
        "length": (0.5, 1.2), "grip": (0.025, 0.05), "swell": (0.0, 0.22), "taper": (0.65, 1.0),
        "oval": (1.0, 1.5), "head_width": (0.24, 0.55), "head": (0.07, 0.18), "claw": (0.2, 0.8),
    },
    variants={
        "head": ("claw", "claw", "ball", "wedge", "mallet", "sledge"),
        "grip": ("plain", "sleeve"),
    },
    builder=build_hammer,
)  # fmt: skip

KNIFE = Category(
    name="knife",
    parts=("blade", "handle", "guard"),
    parameters={
        "blade": (0.35, 0.85), "height": (0.07, 0.18), "thickness": (0.012, 0.03),
        "handle": (0.24, 0.48), "grip": (0.028, 0.055), "flat": (0.5, 0.9), "bend": (-0.1, 0.22),
        "guard": (0.12, 0.26),
    },
    variants={
        "blade": ("chef", "cleaver", "bread", "dagger", "hunting"),
        "guard": ("none", "bolster", "guard"),
        "rivets": ("rivets", "plain"),
    },
    builder=build_knife,
)  # fmt: skip

"""Stage 1, categories of furniture: table, bed, cabinet, bookshelf; `catalog` lists them."""

from __future__ import annotations

import itertools

import numpy as np

from pixcloud.data.synthetic.curves import superellipse
from pixcloud.data.synthetic.materials import shade_of
from pixcloud.data.synthetic.model import Category, Model, Values
from pixcloud.data.synthetic.primitives import (
    both_sides,
    box,
    cylinder,
    ellipsoid,
    extrusion,
    joined,
    rod,
)
from pixcloud.data.synthetic.seating import back_rest
from pixcloud.data.synthetic.supports import support


def build_table(p: Values, v: Values, m: Model) -> None:
    wood = m.color("wood", "light", "metal")
    frame = wood if m.chance(0.5) else m.color("metal", "wood", "plastic")
    depth, y = p.width * p.oblong, p.height - p.thickness
    if v.top == "round":
        top = cylinder(0.5, p.thickness, bevel=p.thickness * 0.3).scaled(x=p.width, z=depth)
        inset = 0.72
    elif v.top == "soft":
        outline = superellipse(p.width, depth, 3.5, 40)
        top = (
            extrusion(outline, p.thickness, p.thickness * 0.3).turned("x", 90).at(y=p.thickness / 2)
        )
        inset = 0.84
    else:
        top, inset = box(p.width, p.thickness, depth, p.thickness * 0.2), 1 - p.overhang
    m.add("top", top.at(y=y), wood)
    base = support(v.base, p.width * inset, depth * inset, y, p.leg, p.splay)
    m.add("legs", base, frame)
    if v.extra == "shelf":
        plate = box(p.width * inset * 0.94, p.thickness * 0.6, depth * inset * 0.94)
        m.add("shelf", plate.at(y=p.shelf * y), frame)
    elif v.extra == "apron":
        rail = box(p.width * inset * 0.98, p.apron, depth * inset * 0.98)
        m.add("drawers", rail.at(y=y - p.apron), frame)
    elif v.extra == "drawers":
        wide = p.width * inset * 0.3
        chest = box(wide, y * (0.5 + p.shelf), depth * inset * 0.9)
        x = p.width * inset / 2 - wide / 2
        chest = chest.at(x, y - y * (0.5 + p.shelf))
        m.add("drawers", both_sides(chest) if m.chance(0.3) else chest, wood)
        knob = ellipsoid(0.018, 0.018, 0.018, 10, 7)
        for k in range(3):
            m.add(
                "drawers", knob.at(x, y * (0.9 - 0.2 * k), depth * inset * 0.46), m.color("metal")
            )


def build_bed(p: Values, v: Values, m: Model) -> None:
    wood, sheets = m.color("wood", "metal", "fabric"), m.color("linen", "linen", "fabric")
    width, length, y = p.width, p.length, p.frame_height
    if v.base == "legs":
        m.add("frame", box(width, p.rail, length, 0.01).at(y=y - p.rail), wood)
        m.add("frame", support("square", width, length, y - p.rail, 0.07), wood)
    elif v.base == "platform":
        m.add("frame", box(width * 1.08, y * 0.6, length * 1.03, 0.01).at(y=y * 0.4), wood)
        m.add("frame", box(width * 0.8, y * 0.4, length * 0.85), shade_of(wood, 0.5))
    else:
        m.add("frame", box(width, y, length, 0.02), wood)
    m.add(
        "mattress", box(width * 0.96, p.mattress, length * 0.97, 0.06, 3).at(y=y), m.color("linen")
    )
    top = y + p.mattress
    if v.cover != "none":
        share = p.cover if v.cover == "half" else 0.74
        cover = box(width * 1.0, p.mattress * 0.75 + 0.03, length * share, 0.05, 3)
        m.add(
            "mattress", cover.at(y=top - p.mattress * 0.75, z=length * (0.985 - share) / 2), sheets
        )
    count = 1 if width < 1.15 else 2
    pillow = ellipsoid(0.42 * width / count, 0.08, 0.2)
    for k in range(count):
        x = (k + 0.5 - count / 2) * width * 0.46
        m.add("pillows", pillow.turned("x", 12).at(x, top + 0.06, -length * 0.39), m.color("linen"))
    head = p.head_height
    if v.head != "none":
        style = "slats" if v.head == "slats" else "solid"
        board = back_rest(style, width * 1.02, top + head, p.board, 7)
        thick = max(0.03, p.board * 0.6) if style == "slats" else p.board
        m.add("headboard", board.at(z=-length / 2 - thick * 0.4), wood)
    if v.foot == "board":
        m.add(
            "headboard",
            box(width * 1.02, top + 0.25 * head, p.board * 0.8, 0.02).at(z=length / 2),
            wood,
        )
    if v.canopy == "posts":
        high = top + 2.2 * head + 0.4
        posts = [
            rod((a * width / 2, 0, b * length / 2), (a * width / 2, high, b * length / 2), 0.035)
            for a in (-1, 1) for b in (-1, 1)
        ]  # fmt: skip
        m.add("frame", joined(*posts), wood)
        corner = (width / 2, high, length / 2)
        beams = [
            both_sides(rod((width / 2, high, -length / 2), corner, 0.03)),
            both_sides(rod((-width / 2, high, length / 2), corner, 0.03), "z"),
        ]
        m.add("frame", joined(*beams), wood)


def _fronts(m: Model, v: Values, width: float, height: float, depth: float, rows: int, columns: int,
            y: float, color: np.ndarray) -> None:  # fmt: skip
    """Doors or drawers with handles on the front of a body that begins at height y."""
    metal = m.color("metal", "dark", "wood")
    wide, high = width / columns, height / rows
    for row in range(rows):
        for column in range(columns):
            x = (column + 0.5 - columns / 2) * wide
            front = box(wide * 0.94, high * 0.94, 0.022, 0.006)
            m.add("doors", front.at(x, y + (row + 0.03) * high, depth / 2 + 0.006), color)
            middle = y + (row + 0.5) * high
            tall = high > 1.3 * wide
            side = (0.38 if column % 2 == 0 else -0.38) * wide if tall else 0.0
            if v.handle == "knob":
                knob = ellipsoid(0.02, 0.02, 0.02, 12, 7).at(z=0.01)
            elif tall:
                knob = rod((0, -0.07, 0), (0, 0.07, 0), 0.009, sides=8)
            else:
                knob = rod((-0.2 * wide, 0, 0), (0.2 * wide, 0, 0), 0.009, sides=8)
            m.add("handles", knob.at(x + side, middle, depth / 2 + 0.025), metal)


def build_cabinet(p: Values, v: Values, m: Model) -> None:
    wood = m.color("wood", "light", "paint")
    front = wood if m.chance(0.4) else m.color("wood", "light", "paint")
    foot = p.foot if v.base != "plinth" else 0.05
    m.add("body", box(p.width, p.height - foot, p.depth, 0.008).at(y=foot), wood)
    if v.top == "plate":
        m.add("body", box(p.width * 1.05, 0.03, p.depth * 1.06, 0.01).at(y=p.height), wood)
    elif v.top == "crown":
        m.add("body", box(p.width * 1.08, 0.06, p.depth * 1.1, 0.025).at(y=p.height), wood)
    rows = 1 if v.fronts == "doors" else 1 + int(p.rows)
    columns = 1 + int(p.columns) if v.fronts != "drawers" else 1 + int(p.columns) // 2
    y, height = foot + 0.01, p.height - foot - 0.02
    if v.fronts == "mixed":
        _fronts(m, v, p.width, height * 0.6, p.depth, 1, max(2, columns), y, front)
        _fronts(m, v, p.width, height * 0.4, p.depth, max(1, rows - 2), 1, y + height * 0.6, front)
    else:
        _fronts(m, v, p.width, height, p.depth, rows, columns, y, front)
    if v.base == "plinth":
        m.add("legs", box(p.width * 0.94, foot, p.depth * 0.92), shade_of(wood, 0.6))
    else:
        legs = support(v.base, p.width * 0.98, p.depth * 0.96, foot, 0.05, 0.05)
        m.add("legs", legs, m.color("wood", "metal"))


def _books(
    m: Model, left: float, right: float, y: float, room: float, depth: float, fill: float
) -> None:
    """A row of books, the last of them leaning, on a board at height y."""
    x = left + 0.01
    until = left + (right - left) * fill
    while x < until:
        thick, high = m.rng.uniform(0.022, 0.06), room * m.rng.uniform(0.55, 0.92)
        if x + thick > right - 0.01:
            break
        deep = depth * m.rng.uniform(0.6, 0.85)
        book = box(thick * 0.94, high, deep).at(x + thick / 2, y, (depth - deep) * 0.3)
        m.add("books", book, m.color("fabric", "plastic", "leather", "paint"))
        x += thick


def build_bookshelf(p: Values, v: Values, m: Model) -> None:
    wood = m.color("wood", "light", "metal")
    foot = p.foot if v.base == "feet" else 0.0
    rows, columns = 2 + int(p.rows), 1 + int(p.columns)
    height, thick = p.height - foot, p.thickness
    side = box(thick, height, p.depth).at((p.width - thick) / 2, foot)
    if v.sides == "open":
        post = box(thick, p.height, thick)
        x, z = (p.width - thick) / 2, (p.depth - thick) / 2
        side = joined(post.at(x, 0, z), post.at(x, 0, -z))
    m.add("frame", both_sides(side), wood)
    if v.back == "closed" and v.sides != "open":
        m.add("frame", box(p.width, height, 0.01).at(y=foot, z=-p.depth / 2), shade_of(wood, 0.85))
    board = box(p.width - (0 if v.sides == "open" else 2 * thick), thick, p.depth)
    levels = foot + np.linspace(0, height - thick, rows + 1)
    m.add("shelves", joined(*(board.at(y=y) for y in levels)), wood)
    edges = np.linspace(-(p.width - thick) / 2, (p.width - thick) / 2, columns + 1)
    if columns > 1:
        wall = box(thick, height - thick, p.depth * 0.98)
        m.add("frame", joined(*(wall.at(x, foot) for x in edges[1:-1])), wood)
    if v.base == "feet":
        m.add("frame", support("square", p.width, p.depth, foot, thick * 1.4), wood)
    room = levels[1] - levels[0] - thick
    for y in levels[:-1]:
        for left, right in itertools.pairwise(edges):
            if m.chance(p.fill):
                inner = (left + thick / 2, right - thick / 2)
                fill = m.rng.uniform(0.3, 1.0)
                _books(m, *inner, y + thick, min(room, 0.34), p.depth, fill)


TABLE = Category(
    name="table",
    parts=("top", "legs", "shelf", "drawers"),
    parameters={
        "width": (0.5, 1.8), "oblong": (0.4, 1.0), "height": (0.34, 0.95),
        "thickness": (0.02, 0.09), "leg": (0.03, 0.1), "splay": (0, 0.12), "overhang": (0, 0.3),
        "shelf": (0.15, 0.5), "apron": (0.05, 0.16),
    },
    variants={
        "top": ("square", "square", "round", "soft"),
        "base": (
            "square", "round", "sled", "pedestal", "panels", "crossed", "trestle", "hairpin",
            "tripod", "drum",
        ),
        "extra": ("none", "none", "shelf", "apron", "drawers"),
    },
    builder=build_table,
)  # fmt: skip

BED = Category(
    name="bed",
    parts=("mattress", "frame", "headboard", "pillows"),
    parameters={
        "width": (0.75, 2.0), "length": (1.6, 2.15), "frame_height": (0.14, 0.45),
        "rail": (0.06, 0.14), "mattress": (0.12, 0.32), "head_height": (0.15, 0.75),
        "board": (0.04, 0.13), "cover": (0.25, 0.6),
    },
    variants={
        "base": ("legs", "platform", "box"),
        "head": ("solid", "solid", "slats", "none"),
        "foot": ("none", "none", "board"),
        "cover": ("full", "half", "none"),
        "canopy": ("none", "none", "none", "posts"),
    },
    builder=build_bed,
)  # fmt: skip

CABINET = Category(
    name="cabinet",
    parts=("body", "doors", "handles", "legs"),
    parameters={
        "width": (0.38, 1.6), "height": (0.42, 1.9), "depth": (0.3, 0.65), "foot": (0.08, 0.25),
        "rows": (1, 5), "columns": (0, 4),
    },
    variants={
        "fronts": ("doors", "drawers", "mixed"),
        "base": ("plinth", "plinth", "round", "square"),
        "top": ("plain", "plate", "crown"),
        "handle": ("knob", "bar"),
    },
    builder=build_cabinet,
)  # fmt: skip

BOOKSHELF = Category(
    name="bookshelf",
    parts=("frame", "shelves", "books"),
    parameters={
        "width": (0.45, 1.6), "height": (0.6, 2.1), "depth": (0.22, 0.42),
        "thickness": (0.018, 0.05),
        "foot": (0.08, 0.2), "rows": (0, 5), "columns": (0, 3), "fill": (0.1, 0.85),
    },
    variants={
        "sides": ("closed", "closed", "open"),
        "back": ("closed", "open"),
        "base": ("floor", "feet"),
    },
    builder=build_bookshelf,
)  # fmt: skip

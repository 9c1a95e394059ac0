"""Two small SVG plots of a run of the benchmarks; no library, so that any machine can draw them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

BLUE, ORANGE, GREY, INK = "#0b62ad", "#d9630a", "#c9d1d9", "#24292f"
STYLE = f'font-family="system-ui, sans-serif" font-size="13" fill="{INK}"'
Bar = tuple[str, float, float | None, float]


def ratio_bars(bars: Sequence[Bar]) -> str:
    """Bars of (name, times faster, goal or None, what the floor allows), on a logarithmic axis."""
    left, right, top, line = 330, 890, 58, 34
    most = max(max(value, goal or 1, bound) for _, value, goal, bound in bars) * 1.3
    scale = (right - left) / math.log(max(most, 2))

    def x(value: float) -> float:
        return left + scale * math.log(max(value, 1))

    height = top + line * len(bars) + 44
    parts = [_text(20, 26, "Times faster than the textbook form", weight="600", size=16)]
    for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500):
        if tick <= most:
            parts.append(_line(x(tick), top - 8, x(tick), height - 40, GREY))
            parts.append(_text(x(tick), height - 22, f"{tick}", anchor="middle", size=12))
    for place, (name, value, goal, bound) in enumerate(bars):
        y = top + line * place
        parts.append(_text(left - 58, y + 16, name, anchor="end"))
        # Before the bar, so that no mark strikes it through and it names none of them.
        parts.append(_text(left - 12, y + 16, f"{value:.1f}", anchor="end", weight="600"))
        parts.append(_box(left, y + 3, max(x(value) - left, 1), 17, BLUE))
        parts.append(_line(x(bound), y, x(bound), y + 23, INK, width=2, dash="2 2"))
        if goal:
            parts.append(_line(x(goal), y, x(goal), y + 23, ORANGE, width=3))
    parts.append(_line(540, 22, 540, 36, ORANGE, width=3) + _text(548, 33, "goal", size=12))
    legend = _text(608, 33, "what the floor of operations and bytes allows", size=12)
    parts.append(_line(600, 22, 600, 36, INK, width=2, dash="2 2") + legend)
    return _picture(940, height, parts)


def scaling_lines(results: dict[str, dict[str, Any]]) -> str:
    """Seconds and MiB against points, both axes logarithmic, ours and the textbook form."""
    panels = (("seconds", "time, s", 60), ("peak_mib", "peak memory above the input, MiB", 510))
    parts = []
    for key, title, left in panels:
        lines = {
            way: [(int(n), r[way][key]) for n, r in results.items() if way in r]
            for way in ("textbook", "ours")
        }
        parts += _panel(lines, title, left)
    return _picture(930, 380, parts)


def _panel(lines: dict[str, list[tuple[int, float]]], title: str, left: int) -> list[str]:
    right, top, bottom = left + 380, 60, 320
    points = [p for line in lines.values() for p in line]
    xs, ys = [p[0] for p in points], [max(p[1], 1e-3) for p in points]
    low, high = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
    high = max(high, low + 1)

    def place(n: float, value: float) -> tuple[float, float]:
        span = math.log(max(xs) / min(xs)) or 1.0
        across = math.log(n / min(xs)) / span
        up = (math.log10(max(value, 1e-3)) - low) / (high - low)
        return left + across * (right - left), bottom - up * (bottom - top)

    parts = [_text(left - 30, 30, title, weight="600", size=15)]
    for power in range(low, high + 1):
        _, y = place(min(xs), 10.0**power)
        parts.append(_line(left, y, right, y, GREY))
        parts.append(_text(left - 8, y + 4, f"{10.0**power:g}", anchor="end", size=12))
    for n in sorted(set(xs)):
        x, _ = place(n, 10.0**low)
        label = f"{n // 1024}k" if n >= 1024 else str(n)
        parts.append(_text(x, bottom + 20, label, anchor="middle", size=12))
    parts.append(_text((left + right) / 2, bottom + 42, "points", anchor="middle", size=12))
    for (way, line), color in zip(lines.items(), (ORANGE, BLUE), strict=True):
        dots = [place(*p) for p in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2.5"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"/>' for x, y in dots]
        if dots:
            x, y = dots[-1]
            parts.append(_text(x - 8, y - 10, way, anchor="end", color=color, weight="600"))
    return parts


def _picture(width: float, height: float, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" {STYLE}>\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    weight: str = "400",
    size: int = 13,
    color: str = INK,
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" '
        f'font-size="{size}" fill="{color}">{escape(words)}</text>'
    )


def _line(
    x1: float, y1: float, x2: float, y2: float, color: str, *, width: float = 1, dash: str = ""
) -> str:
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" '
        f'stroke-width="{width:g}"{dashes}/>'
    )


def _box(x: float, y: float, width: float, height: float, color: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2" '
        f'fill="{color}"/>'
    )

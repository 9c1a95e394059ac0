"""Stage 10, charts: records of runs -> Plotly figures as plain dictionaries.

Before it: `pixcloud.report.record`. After it: `pixcloud.report.sections` puts them on the page. A
colour such as "@k1" names a CSS variable, which the page's script fills in for light and dark.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from pixcloud.evaluate.results import ResultRow, table_of
from pixcloud.report.record import HANDMADE, PRETRAINED, UNTRAINED, RunRecord

COLORS = tuple(f"@k{place}" for place in range(1, 9))
ROLE_COLORS = {PRETRAINED: "@k1", UNTRAINED: "@quiet", HANDMADE: "@k6"}
MOST_POINTS = 1500  # of one curve; beyond it neighbouring log lines are averaged

Figure = dict[str, Any]


def thin(values: Sequence[float | None], most: int = MOST_POINTS) -> list[float | None]:
    """Means of equal groups, so that at most `most` numbers remain.

    >>> thin([1.0, 3.0, 5.0, 7.0, 9.0], most=3)
    [2.0, 6.0, 9.0]
    """
    size = math.ceil(len(values) / most)
    if size <= 1:
        return list(values)
    means: list[float | None] = []
    for start in range(0, len(values), size):
        group = [v for v in values[start : start + size] if v is not None]
        means.append(sum(group) / len(group) if group else None)
    return means


def layout(x: str, y: str, **more: Any) -> Figure:
    """Axes with titles; fonts, grids and backgrounds come from the page's script."""
    return {
        "margin": {"l": 58, "r": 16, "t": 12, "b": 48},
        "xaxis": _axis(x) | {"tickangle": 0, "rangemode": "tozero"},
        "yaxis": _axis(y),
        "hovermode": "closest",
        "showlegend": False,
        **more,
    }


def _axis(title: str) -> Figure:
    words = {"text": title, "standoff": 8}
    return {"title": words, "zeroline": False, "automargin": True, "nticks": 7}


def legend() -> Figure:
    """A legend in a row above the chart."""
    return {
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "margin": {"l": 58, "r": 16, "t": 56, "b": 48},
    }


def _pairs(record: RunRecord, lines: list[dict[str, Any]]) -> list[float]:
    return [float(line["step"] * record.pairs_per_step) for line in lines]


def _line(
    record: RunRecord, key: str, name: str, color: str, unit: str, *, square: bool = False
) -> list[Figure]:
    """Logged steps as a thin line and, where there are any, means of epochs as marks."""
    dash = "dot" if square else "solid"
    steps = [line for line in record.steps if key in line]
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "legendgroup": name,
            "x": thin(_pairs(record, steps)),
            "y": thin([line[key] for line in steps]),
            "opacity": 0.55,
            "line": {"color": color, "width": 1.4, "dash": dash},
            "showlegend": not any(key in line for line in record.epochs),
            "hovertemplate": f"{name}: %{{y:.4~f}}{unit}<br>%{{x:,}} pairs seen<extra></extra>",
        }
    ]
    epochs = [line for line in record.epochs if key in line]
    if epochs:
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "legendgroup": name,
                "x": _pairs(record, epochs),
                "y": [line[key] for line in epochs],
                "customdata": [line["epoch"] + 1 for line in epochs],
                "line": {"color": color, "width": 2.6, "dash": dash},
                "marker": {
                    "color": color,
                    "size": 7 if len(epochs) <= 40 else 4,
                    "symbol": "square" if square else "circle",
                },
                "hovertemplate": f"{name}, mean of epoch %{{customdata}}: %{{y:.4~f}}{unit}"
                "<br>%{x:,} pairs seen<extra></extra>",
            }
        )
    return traces


def losses(records: list[RunRecord]) -> Figure:
    """Both losses of every run against pairs seen, with the value of guessing."""
    data: list[Figure] = []
    alone = len(records) == 1
    for record, color in zip(records, _cycle(len(records)), strict=True):
        for key in ("intra", "cross"):
            shade = {"intra": "@k1", "cross": "@k2"}[key] if alone else color
            name = _loss_name(key) if alone else html.escape(f"{record.name}: {key}", quote=False)
            data += _line(record, key, name, shade, "", square=key == "cross")
    figure: Figure = {"data": data, "layout": layout("pairs seen", "NT-Xent loss (nats)")}
    figure["layout"] |= legend()
    sizes = sorted({record.config.trainer.batch_size for record in records})
    figure["layout"]["shapes"] = [_level(chance(size)) for size in sizes]
    figure["layout"]["annotations"] = [
        _level_name(size, chance(size), 1 - 0.3 * place) for place, size in enumerate(sizes)
    ]
    return figure


def chance(batch_size: int) -> float:
    """NT-Xent of an encoder that cannot tell clouds apart: ln(2B - 1).

    >>> round(chance(20), 3)
    3.664
    """
    return math.log(2 * batch_size - 1)


def _loss_name(key: str) -> str:
    return {
        "intra": "intra-modal: two views of a cloud",
        "cross": "cross-modal: a cloud and its picture",
    }[key]


def _level(value: float) -> Figure:
    line = {"color": "@quiet", "width": 1, "dash": "dash"}
    ends = {"x0": 0, "x1": 1, "y0": value, "y1": value}
    return {"type": "line", "xref": "paper", "layer": "below", "line": line, **ends}


def _level_name(batch_size: int, value: float, x: float) -> Figure:
    return {
        "xref": "paper",
        "x": x,
        "y": value,
        "xanchor": "right",
        "yanchor": "bottom",
        "showarrow": False,
        "text": f"guessing, ln(2·{batch_size} − 1) = {value:.2f}",
        "font": {"size": 12, "color": "@soft"},
    }


def single(records: list[RunRecord], key: str, title: str, unit: str = "") -> Figure | None:
    """One logged quantity of every run against pairs seen, or None if it was not logged."""
    data: list[Figure] = []
    for record, color in zip(records, _cycle(len(records)), strict=True):
        if any(key in line for line in record.steps + record.epochs):
            name = title if len(records) == 1 else html.escape(record.name, quote=False)
            data += _line(record, key, name, color, unit)
    if not data:
        return None
    if key == "probe_validation":
        data = [trace for trace in data if trace["mode"] != "lines"]
    figure: Figure = {"data": data, "layout": layout("pairs seen", title)}
    figure["layout"]["xaxis"]["nticks"] = 4
    figure["layout"]["yaxis"]["rangemode"] = "tozero"
    return figure


def validation(records: list[RunRecord]) -> Figure | None:
    """Accuracy of the probe on the validation part of train, over the epochs."""
    figure = single(records, "probe_validation", "validation accuracy")
    if figure is not None:
        values = [value for trace in figure["data"] for value in trace["y"]]
        ends = [max(0.0, min(values) - 0.05), min(1.02, max(values) + 0.05)]
        figure["layout"]["yaxis"] |= {"tickformat": ".0%", "range": ends}
        for trace in figure["data"]:
            trace["hovertemplate"] = trace["hovertemplate"].replace("%{y:.4~f}", "%{y:.1%}")
    return figure


def bars(records: list[RunRecord], metric: str = "accuracy") -> Figure | None:
    """The last row of each contender and protocol as bars with 95 % intervals, or None."""
    entries = _entries(records, metric)
    if not entries:
        return None
    entries.reverse()  # Plotly builds from below
    rows = [row for _, row, _ in entries]
    low = [row.value - row.ci95[0] if row.ci95 else 0.0 for row in rows]
    high = [row.ci95[1] - row.value if row.ci95 else 0.0 for row in rows]
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [row.value for row in rows],
        "y": list(range(len(rows))),
        "width": 0.62,
        "marker": {"color": [color for *_, color in entries]},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": high,
            "arrayminus": low,
            "color": "@ink",
            "thickness": 1.6,
            "width": 5,
        },
        "customdata": [[_hover(row.ci95), row.n] for row in rows],
        "hovertemplate": "%{x:.1%}%{customdata[0]}<br>n = %{customdata[1]:,}<extra></extra>",
    }
    figure: Figure = {"data": [trace], "layout": layout(f"{metric}, with 95 % intervals", "")}
    longest = max(row.ci95[1] if row.ci95 else row.value for row in rows)
    figure["layout"]["xaxis"] |= {"tickformat": ".0%", "range": [0, min(1.005, 1.06 * longest)]}
    figure["layout"]["yaxis"] |= {
        "tickmode": "array",
        "tickvals": list(range(len(rows))),
        "ticktext": [label for label, *_ in entries],
        "showgrid": False,
    }
    return figure


def _entries(records: list[RunRecord], metric: str) -> list[tuple[str, ResultRow, str]]:
    """(label, row, color) of each bar; equal evaluations of several runs stand together."""
    found: dict[tuple[str, str, str], list[tuple[str, ResultRow, str]]] = {}
    for record, shade in zip(records, _cycle(len(records)), strict=True):
        for (role, _, protocol, dataset), row in record.latest(metric).items():
            if table_of(protocol):  # not on a scale with the others
                continue
            who = role if role in (PRETRAINED, UNTRAINED) else row.encoder
            color = shade if len(records) > 1 else ROLE_COLORS.get(role, "@quiet")
            label = who if len(records) == 1 else f"{record.name}: {who}"
            label = _two_lines(label, f"{short(protocol)}, {dataset}")
            same = found.setdefault((role, protocol, dataset), [])
            same.append((label, row, color))
    return [entry for group in found.values() for entry in group]


def _two_lines(first: str, second: str) -> str:
    small = html.escape(second, quote=False)
    return f'{html.escape(first, quote=False)}<br><span style="font-size:11px">{small}</span>'


def short(protocol: str) -> str:
    """A protocol's name without what the page says anyway.

    >>> short("svm C by cross-validation on train"), short("svm C=0.01 (published)")
    ('SVM, C by cross-validation', 'SVM, C = 0.01 (published)')
    """
    plain = protocol.replace("svm C by cross-validation on train", "SVM, C by cross-validation")
    return plain.replace("svm C=", "SVM, C = ")


def _hover(ends: tuple[float, float] | None) -> str:
    return f" (95 %: {100 * ends[0]:.1f} to {100 * ends[1]:.1f} %)" if ends else ""


def _cycle(count: int) -> list[str]:
    return [COLORS[place % len(COLORS)] for place in range(count)]

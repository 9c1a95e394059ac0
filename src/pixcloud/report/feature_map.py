"""Stage 10, feature maps: features (S, D) -> points in the plane, coloured by class.

Before it: `pixcloud.report.embedding`. After it: `pixcloud.report.page`. t-SNE (van der Maaten and
Hinton 2008) of the standardized features' first 50 principal components: near clouds stay near,
while distances between groups and their sizes mean little.
"""

from __future__ import annotations

import html
from typing import Any

import numpy as np

from pixcloud.report.embedding import (
    NEIGHBOURS,
    Embedded,
    agreement,
    nearest,
    standardized,
)
from pixcloud.report.markup import Html, figure, join, percent, tag

# Both change from one class to the next, so that colour is never the only difference.
COLORS = tuple(f"k{place}" for place in range(1, 9))
SYMBOLS = (
    ("circle", "M12 5a7 7 0 1 0 .01 0z"),
    ("square", "M6 6h12v12H6z"),
    ("diamond", "M12 3l9 9-9 9-9-9z"),
    ("triangle-up", "M12 4l9 16H3z"),
    ("cross", "M9 4h6v5h5v6h-5v5H9v-5H4V9h5z"),
    ("x", "M7 3l5 5 5-5 4 4-5 5 5 5-4 4-5-5-5 5-4-4 5-5-5-5z"),
    ("triangle-down", "M12 20L3 4h18z"),
    ("star", "M12 2l3 7h7l-6 4.5 2.5 7.5L12 16.5 5.5 21 8 13.5 2 9h7z"),
)


def style(label: int) -> tuple[str, int]:
    """Color name and place in `SYMBOLS` of a class, different for the first 64 classes.

    >>> style(0), style(8), len({style(label) for label in range(64)})
    (('k1', 0), ('k1', 1), 64)
    """
    return COLORS[label % 8], (label + label // 8) % 8


def project(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """t-SNE to the plane, (S, 2) with values in [-1, 1]; a function of (features, seed).

    One thread: sums over several are cut differently from run to run, and t-SNE magnifies that.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    values = standardized(features)
    if not values.any():  # the encoder gives every cloud the same features
        return np.zeros((len(values), 2))
    samples = len(values)
    state = int(np.random.SeedSequence(seed).generate_state(1)[0])
    with threadpool_limits(1):
        wide = min(50, samples, values.shape[1])
        values = PCA(wide, svd_solver="full").fit_transform(values)
        if wide < 2 or not values[:, 1].any():  # all on one line: nothing to spread
            plane = np.stack([values[:, 0], np.zeros(samples)], axis=1)
        else:
            perplexity = min(30.0, max(1.0, (samples - 1) / 3))
            tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=state)
            plane = tsne.fit_transform(values.astype(np.float32))
    plane = plane - (plane.max(axis=0) + plane.min(axis=0)) / 2
    return plane / (np.abs(plane).max() or 1.0)


def maps(embedded: Embedded, seed: int) -> Html:
    """Both maps side by side, with one row of buttons that single out a class in both."""
    figures = []
    for place, (name, features) in enumerate(embedded.features.items()):
        share = agreement(nearest(features), embedded.labels)
        caption = (
            f"{name.capitalize()} encoder: {percent(share)} of the {NEIGHBOURS} nearest neighbours "
            "in feature space are of the same class."
        )
        label = f"map of the features of {len(embedded.labels)} test clouds, {name} encoder"
        spec = _figure(project(features, seed), embedded)
        figures.append(figure(f"map{place}", label, spec, caption, 440))
    chance = float(((np.bincount(embedded.labels) / len(embedded.labels)) ** 2).sum())
    taken, total = len(embedded.labels), embedded.total
    which = "all of them" if taken == total else f"drawn from the seed out of {total:,}"
    classes = len(np.unique(embedded.labels))
    note = (
        f"Shown: {taken:,} test clouds of {embedded.dataset} ({which}) in {classes} classes; "
        f"chance would give {percent(chance)} neighbours of the same class. Positions: t-SNE of "
        "the standardized pooled features; it keeps neighbours near, while distances between "
        "groups mean little."
    )
    return join(
        [
            _keys(embedded),
            tag("div", *figures, class_="row two"),
            tag("p", note, class_="note"),
        ]
    )


def _figure(plane: np.ndarray, embedded: Embedded) -> dict[str, Any]:
    data = []
    for label in np.unique(embedded.labels).tolist():
        chosen = embedded.labels == label
        color, symbol = style(label)
        name = html.escape(embedded.classes[label], quote=False)
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "meta": str(label),
                "x": [round(float(value), 4) for value in plane[chosen, 0]],
                "y": [round(float(value), 4) for value in plane[chosen, 1]],
                "text": [f"{name}, test cloud {place}" for place in np.flatnonzero(chosen)],
                "hovertemplate": "%{text}<extra></extra>",
                "opacity": 0.9,
                "marker": {
                    "color": f"@{color}",
                    "symbol": SYMBOLS[symbol][0],
                    "size": 8 if len(plane) < 400 else 6.5,
                    "line": {"color": "@card", "width": 0.7},
                },
            }
        )
    axis = {"visible": False, "range": [-1.06, 1.06]}
    return {
        "data": data,
        "layout": {
            "margin": {"l": 4, "r": 4, "t": 4, "b": 4},
            "xaxis": axis,
            "yaxis": axis,
            "showlegend": False,
            "hovermode": "closest",
        },
    }


def _keys(embedded: Embedded) -> Html:
    """A button for each class: its mark and name."""
    buttons = []
    for label in np.unique(embedded.labels).tolist():
        color, symbol = style(label)
        path = tag("path", d=SYMBOLS[symbol][1], style=f"fill:var(--{color})")
        mark = tag("svg", path, viewBox="0 0 24 24", aria_hidden="true")
        buttons.append(
            tag(
                "button",
                mark,
                embedded.classes[label],
                type="button",
                data_label=label,
                aria_pressed="false",
            )
        )
    return tag("div", *buttons, class_="keys", role="group", aria_label="show one class alone")

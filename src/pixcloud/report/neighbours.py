"""Stage 10, neighbours: features (S, D) and clouds -> which clouds the encoder finds alike.

Before it: `pixcloud.report.embedding`. After it: `pixcloud.report.page`.
"""

from __future__ import annotations

import numpy as np

from pixcloud.report.clouds import CloudStore
from pixcloud.report.embedding import NEIGHBOURS, Embedded, nearest
from pixcloud.report.gallery import thin_cloud
from pixcloud.report.markup import Html, join, tag

QUERIES = 5
POINTS = 512  # of a thumbnail


def neighbours(embedded: Embedded, clouds: CloudStore) -> Html:
    """For the first test cloud of some classes: its nearest clouds by both encoders."""
    found = {name: nearest(values) for name, values in embedded.features.items()}
    present = np.unique(embedded.labels)
    steps = np.linspace(0, len(present) - 1, min(QUERIES, len(present))).astype(np.int64)
    rows: list[Html] = []
    for label in present[steps].tolist():
        query = int(np.flatnonzero(embedded.labels == label)[0])
        rows += _query(embedded, clouds, query, {n: f[query].tolist() for n, f in found.items()})
    head = tag(
        "tr",
        tag("th", "query", scope="col"),
        tag("th", "encoder", scope="col"),
        *(tag("th", f"nearest {place + 1}", scope="col") for place in range(NEIGHBOURS)),
    )
    words = (
        "Nearest neighbours in feature space by cosine, among the clouds of the map. The queries "
        "are the first test cloud of each of some classes, not chosen by how well they do."
    )
    return join(
        [
            tag("h3", "What it finds alike"),
            tag("p", words, class_="lead"),
            tag("div", tag("table", head, *rows), class_="card neighbours", tabindex=0),
        ]
    )


def _query(
    embedded: Embedded, clouds: CloudStore, query: int, found: dict[str, list[int]]
) -> list[Html]:
    """Two rows: the query before its neighbours by each encoder."""
    rows = []
    for place, (name, others) in enumerate(found.items()):
        first = place == 0
        asked = tag(
            "td",
            _thumbnail(embedded, clouds, query),
            tag("strong", embedded.classes[embedded.labels[query]]),
            rowspan=len(found),
        )
        lead = tag("th", name, scope="row")
        cells = []
        for other in others:
            same = embedded.labels[other] == embedded.labels[query]
            words = f"{'✓' if same else '✗'} {embedded.classes[embedded.labels[other]]}"
            kind = "same" if same else "different"
            cells.append(
                tag(
                    "td",
                    _thumbnail(embedded, clouds, other),
                    tag("span", words, class_=kind, title=f"{kind} class"),
                )
            )
        rows.append(
            tag("tr", asked if first else None, lead, *cells, class_="next" if first else None)
        )
    return rows


def _thumbnail(embedded: Embedded, clouds: CloudStore, place: int) -> Html:
    name = embedded.classes[embedded.labels[place]]
    points = thin_cloud(embedded.points[place], POINTS)
    return clouds.canvas(f"test{place}", points, f"test cloud {place}, {name}")

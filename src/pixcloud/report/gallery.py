"""Stage 10, gallery: the source of a run's pairs (stage 2) -> some pictures beside their clouds.

Before it: `pixcloud.data.sources` and `pixcloud.data.files`. After it: `pixcloud.report.page`. The
data may have gone since the run; then the page says so.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pixcloud.errors import PixCloudError
from pixcloud.report.clouds import CloudStore
from pixcloud.report.markup import Html, plural, section, tag
from pixcloud.report.record import RunRecord

if TYPE_CHECKING:
    from pixcloud.data.shapenet import Pair

SHOWN = 8
MOST_POINTS = 2048
MOST_PIXELS = 224


def gallery(record: RunRecord, clouds: CloudStore) -> Html:
    """A section with pairs spread evenly over the sorted data set."""
    source = record.config.data.source
    try:
        from pixcloud.data.sources import open_pairs

        pairs = open_pairs(source, record.config.data.unpaired)
        chosen = [int(place) for place in np.linspace(0, len(pairs) - 1, min(SHOWN, len(pairs)))]
        cards = [_card(pairs[place], place, clouds) for place in chosen]
    except (PixCloudError, OSError) as error:
        return section(
            "data", "What it saw", None, tag("p", f"No pairs to show: {error}.", class_="note")
        )
    lead = (
        f"{plural(len(cards), 'pair')} of {len(pairs):,}, spread evenly over the sorted data set "
        f"({source}). Clouds are coloured by height; drag one to turn it."
    )
    return section("data", "What it saw", lead, tag("div", *cards, class_="cards"))


def _card(pair: Pair, place: int, clouds: CloudStore) -> Html:
    from pixcloud.data.files import read_cloud

    points = read_cloud(Path(pair.cloud), on_nonfinite="drop").points
    total = len(points)
    shown = thin_cloud(points, MOST_POINTS)
    name = pair.name
    picture = tag(
        "img",
        src=picture_url(Path(pair.folder) / pair.pictures[0]),
        alt=f"picture of {name}",
        loading="lazy",
    )
    canvas = clouds.canvas(f"pair{place}", shown, f"point cloud of {name}")
    words = f"{name}: {total:,} points, {plural(len(pair.pictures), 'picture')}"
    return tag("div", tag("div", picture, canvas, class_="pair"), tag("p", words), class_="card")


def thin_cloud(points: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the points (N, 3), evenly spread over their list.

    >>> thin_cloud(np.zeros((10, 3)), 4).shape
    (4, 3)
    """
    if len(points) <= most:
        return points
    return points[np.linspace(0, len(points) - 1, most).astype(np.int64)]


def picture_url(path: Path) -> str:
    """A picture file as a data URL: composited on white, at most 224 pixels on each side."""
    from PIL import Image

    from pixcloud.data.files import read_picture

    image = Image.fromarray(read_picture(path).transpose(1, 2, 0))
    image.thumbnail((MOST_PIXELS, MOST_PIXELS))
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()

"""Stage 1, a look at the embedded objects: a contact sheet -> PNG; `python -m` runs it.

    python -m pixcloud.data.synthetic docs/images/embedded.png --first 3

draws one object of each category; `--count 10` draws a row of ten for each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from pixcloud.data.contact_sheet import contact_sheet
from pixcloud.data.render import render_views
from pixcloud.data.synthetic.catalog import CATEGORIES, build_object

AZIMUTH, ELEVATION = 32.0, 24.0


def sheet_of_objects(
    count: int = 1, *, columns: int = 9, size: int = 137, seed: int = 0, first: int = 0
) -> np.ndarray:
    """Objects of every category in label order, seen from in front, on transparency.

    Args:
        count: objects of each category, at numbers first, first + 1, ...
        columns: pictures in a row; more than one object per category take a row for themselves.
        size: side of a picture in pixels.
        seed: of the objects.
        first: number of the first object.

    Returns:
        (rows * size, columns * size, 4) uint8 RGBA.
    """
    columns = count if count > 1 else columns
    azimuths, elevations = np.array([AZIMUTH]), np.array([ELEVATION])
    pictures = [
        render_views(build_object(name, seed, number), azimuths, elevations, size)[0]
        for name in CATEGORIES
        for number in range(first, first + count)
    ]
    return contact_sheet(pictures, columns)


def main(arguments: list[str] | None = None) -> None:
    """Write a contact sheet to a file."""
    parser = argparse.ArgumentParser(prog="python -m pixcloud.data.synthetic")
    parser.add_argument("out", type=Path, help="PNG to write")
    parser.add_argument("--count", type=int, default=1, help="objects of each category")
    parser.add_argument("--columns", type=int, default=9, help="pictures in a row")
    parser.add_argument("--size", type=int, default=137, help="side of a picture in pixels")
    parser.add_argument("--seed", type=int, default=0, help="seed of the objects")
    parser.add_argument("--first", type=int, default=0, help="number of the first object")
    settings = vars(parser.parse_args(arguments))
    out = settings.pop("out")
    Image.fromarray(sheet_of_objects(**settings)).save(out, optimize=True)


if __name__ == "__main__":
    main()

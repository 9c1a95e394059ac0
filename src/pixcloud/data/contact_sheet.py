"""Stages 1 and 2, contact sheets: pictures (S, S, C) of one size -> a sheet of rows and columns.

Whoever has pictures calls it: the embedded objects' own sheet, and `examples/contact_sheet.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixcloud.errors import DataError


def contact_sheet(pictures: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Pictures side by side, row by row; what stays free is transparent, or else white.

    Args:
        pictures: Of one shape (height, width, C) uint8, C being 4 with transparency and 3 without.
        columns: Pictures in a row.

    Returns:
        (rows * height, columns * width, C) uint8.

    Raises:
        DataError: if there is no picture, no column, or pictures differ in shape.

    Example:
        >>> contact_sheet([np.zeros((2, 3, 4), np.uint8)] * 5, columns=2).shape
        (6, 6, 4)
    """
    if not pictures or columns < 1:
        raise DataError(
            f"a contact sheet of {len(pictures)} pictures in {columns} columns: at least 1 of each "
            "is needed"
        )
    if len(shapes := sorted({picture.shape for picture in pictures})) > 1:
        raise DataError(f"a contact sheet needs pictures of one size, not of {shapes}")
    height, width, channels = pictures[0].shape
    rows = -(-len(pictures) // columns)
    free = 0 if channels == 4 else 255
    sheet = np.full((rows * columns, height, width, channels), free, np.uint8)
    sheet[: len(pictures)] = pictures
    grid = sheet.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    return grid.reshape(rows * height, columns * width, channels)

"""Contact sheets: every picture at its place, the rest free, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from pixcloud.data.contact_sheet import contact_sheet
from pixcloud.errors import DataError


@pytest.mark.parametrize(("channels", "free"), [(3, 255), (4, 0)])
def test_every_picture_has_its_place(channels: int, free: int) -> None:
    pictures = [np.full((4, 5, channels), 10 + number, np.uint8) for number in range(5)]
    sheet = contact_sheet(pictures, columns=3)
    assert sheet.shape == (8, 15, channels)
    for number in range(6):
        row, column = divmod(number, 3)
        tile = sheet[row * 4 : row * 4 + 4, column * 5 : column * 5 + 5]
        assert (tile == (10 + number if number < 5 else free)).all()


def test_what_is_refused() -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    for pictures, columns in (([], 3), ([picture], 0)):
        with pytest.raises(DataError, match="at least 1 of each is needed"):
            contact_sheet(pictures, columns)
    with pytest.raises(DataError, match="of one size"):
        contact_sheet([picture, picture[:2]], 2)

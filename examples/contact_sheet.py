"""A sheet of pictures of a pair set, one row of shapes per class.

python examples/contact_sheet.py SOURCE OUT.png [--columns 9]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

import pixcloud
from pixcloud.data.contact_sheet import contact_sheet
from pixcloud.data.files import read_picture


def sheet_of_pairs(source: str, columns: int, size: int = 110) -> Image.Image:
    """The first shape of every class, from another side each, `columns` to a row."""
    first = {pair.name.split("/")[0]: pair for pair in reversed(pixcloud.open_pairs(source))}
    pictures = []
    for number, name in enumerate(sorted(first)):
        pair = first[name]
        picture = Path(pair.folder) / pair.pictures[number % len(pair.pictures)]
        pictures.append(read_picture(picture, size=size).transpose(1, 2, 0))
    return Image.fromarray(contact_sheet(pictures, columns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("out")
    parser.add_argument("--columns", type=int, default=9)
    arguments = parser.parse_args()
    sheet_of_pairs(arguments.source, arguments.columns).save(arguments.out)


if __name__ == "__main__":
    main()

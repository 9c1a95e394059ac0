"""Stage 9, `pixcloud search`: a store and a cloud, a mesh or a picture -> the nearest shapes.

Before it: `pixcloud.store` and `pixcloud.evaluate.embedder`. After it: a table for the user.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pixcloud.data.files import PICTURE_SUFFIXES
from pixcloud.data.shapes import SHAPE_SUFFIXES, list_shapes, shape_points
from pixcloud.errors import ConfigError, DataError, FileFormatError, StoreError, WeightsError
from pixcloud.store import About, VectorStore

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(kw_only=True)
class SearchResult:
    """queries (Q): files that asked; names and scores: the best of each, cosines, best first."""

    queries: list[str]
    names: list[list[str]]
    scores: list[list[float]]

    def __rich__(self) -> Table:
        from rich.table import Table

        several = len(self.queries) > 1
        title = "" if several else f"nearest to {self.queries[0]}"
        table = Table(title=title)
        for name in (*(["query"] if several else []), "rank", "shape", "cosine"):
            table.add_column(name)
        for query, names, scores in zip(self.queries, self.names, self.scores, strict=True):
            for rank, (name, score) in enumerate(zip(names, scores, strict=True), 1):
                cells = [str(rank), name, f"{score:.6f}"]
                table.add_row(*([query] if several else []), *cells)
        return table

    def as_json(self) -> str:
        """One object per query: query, and results with name and cosine."""
        rows = [
            {
                "query": query,
                "results": [
                    {"name": name, "cosine": score}
                    for name, score in zip(names, scores, strict=True)
                ],
            }
            for query, names, scores in zip(self.queries, self.names, self.scores, strict=True)
        ]
        return json.dumps(rows, indent=1, ensure_ascii=False)


def search(
    index: str,
    query: str,
    k: int = 10,
    encoder: str = "",
    exact: bool = False,
    up: Literal["y", "z"] = "y",
    seed: int = 0,
    out: str = "",
    strict: bool = False,
) -> SearchResult:
    """The shapes of a store that are nearest to a cloud, a mesh or a picture.

    Args:
        index: folder that pixcloud embed wrote.
        query: a cloud, a mesh or a picture, or a folder of clouds and meshes, each of which asks. A
            picture can ask a store of kind shared.
        k: how many shapes to name.
        encoder: that the store was made with; where it was then, unless given.
        exact: compare with all shapes, also where there is an index.
        up: the axis of the query that points up.
        seed: of the points that are taken of it.
        out: JSON file to write the answer to as well.
        strict: stop at the first file of a folder that cannot be read; otherwise such files are
            left out and named.

    Returns:
        Names and cosines, best first.

    Raises:
        StoreError: if there is no store, or a picture asks one of kind pooled.
        DataError: if the query cannot be read, or no file of the folder.
        ConfigError: if k is below 1.
        WeightsError: if the encoder is missing, or is not the one that the store was made with.

    Example:
        >>> search("index", "photo.png")  # doctest: +SKIP
    """
    if k < 1:
        raise ConfigError(f"k is {k}: expected at least 1")
    asking = Path(query).expanduser()
    known = (*SHAPE_SUFFIXES, *PICTURE_SUFFIXES)
    if asking.is_file() and asking.suffix.lower() not in known:
        raise FileFormatError(
            f"{asking}: neither a cloud or mesh ({' '.join(SHAPE_SUFFIXES)}) nor a picture "
            f"({' '.join(PICTURE_SUFFIXES)}); save it in one of these formats"
        )
    with VectorStore(index) as store:
        about = store.about
        picture = asking.suffix.lower() in PICTURE_SUFFIXES
        if picture and about.kind != "shared":
            raise StoreError(
                f"{store.folder}: holds features of kind {about.kind}, which pictures do not have; "
                "make one with pixcloud embed RUN SHAPES --kind shared"
            )
        embedder = _embedder(store, encoder)
        if embedder.sha256 != about.encoder_sha256:
            raise StoreError(
                f"{store.folder}: was made with other weights than {encoder or about.encoder} has "
                "now; give --encoder those that it was made with, or embed the shapes again"
            )
        if picture:
            names, vectors = [asking.name], embedder.picture(asking)
        else:
            names, vectors = _clouds(embedder, asking, about, up, seed, strict)
        found = store.search(vectors, k, exact=exact)
    result = SearchResult(queries=names, names=found.names, scores=found.scores)
    if out:
        from pixcloud.atomic import write_text

        write_text(Path(out).expanduser(), result.as_json() + "\n")
    return result


def _embedder(store: VectorStore, encoder: str) -> Any:
    """The encoder that is named, or the one that the store was made with."""
    from pixcloud.evaluate.embedder import load_embedder  # torch, once there is work for it

    about = store.about
    try:
        return load_embedder(encoder or about.encoder, about.kind, about.num_points)
    except WeightsError as error:
        if encoder:
            raise
        raise WeightsError(
            f"{store.folder}: was made with the encoder {about.encoder}, which is not to be had "
            f"({error}); say by --encoder where it is now"
        ) from error


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _clouds(
    embedder: Any, asking: Path, about: About, up: str, seed: int, strict: bool
) -> tuple[list[str], np.ndarray]:
    """Names and features (Q, D) of a file, or of those of a folder that can be read."""
    names, vectors, refused = [], [], []
    for path in (paths := list_shapes(asking)):
        name = path.name if path == asking else _name(path, asking)
        try:
            vectors.append(_cloud(embedder, path, name, about, up, seed))
            names.append(name)
        except DataError as error:
            if strict or path == asking:
                raise
            refused.append(str(error))
            print(f"left out: {error}", file=sys.stderr)
    if not names:
        raise DataError(f"{asking}: none of {len(paths)} files can ask; the first: {refused[0]}")
    return names, np.concatenate(vectors)


def _cloud(embedder: Any, path: Path, name: str, about: About, up: str, seed: int) -> np.ndarray:
    # An `Embedder`; its name in this module would bring torch into the help.
    count = about.num_points
    try:
        return embedder.raw(shape_points(path, name, count, up, seed, "embed")[None])
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error

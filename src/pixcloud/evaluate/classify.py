"""Stage 9, `pixcloud classify`: a saved classifier and shapes of a user -> a table of classes.

Before it: `pixcloud.evaluate.classifier`, and the readers of stage 1 (`pixcloud.data.shapes`).
After it: nothing; a CSV file and a summary go to the user.
"""

from __future__ import annotations

import csv
import io
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pixcloud.data.shapes import list_shapes, shape_points
from pixcloud.errors import ConfigError, DataError, some

if TYPE_CHECKING:
    from rich.table import Table

_BLOCK = 256  # shapes read before they are classified, so that memory does not grow with a folder


@dataclass(kw_only=True)
class ClassifiedShapes:
    """files (S), their classes and probabilities; refused: file -> why it was left out.

    Printed, it is a table of the classes with the least certain file of each.
    """

    files: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    def __rich__(self) -> Table:
        from rich.table import Table

        table = Table(title=f"{len(self.files):,} shapes classified")
        for name in ("class", "shapes", "least certain", "its probability"):
            table.add_column(name)
        for name in sorted(set(self.names)):
            own = [place for place, each in enumerate(self.names) if each == name]
            least = min(own, key=lambda place: self.probabilities[place])
            share = f"{self.probabilities[least]:.2f}"
            table.add_row(name, f"{len(own):,}", self.files[least], share)
        if self.refused:
            table.caption = f"{len(self.refused):,} files were left out: {some(self.refused)}"
        return table


def classify(
    classifier: str,
    shapes: str,
    out: str = "classified.csv",
    votes: int = 1,
    up: Literal["y", "z"] = "y",
    seed: int = 0,
    strict: bool = False,
) -> ClassifiedShapes:
    """Classify clouds and meshes by a fine-tuned classifier.

    Of clouds with more points than in training a random part is taken, of those with fewer some
    are repeated; meshes are sampled on their surface.

    Args:
        classifier: folder that pixcloud finetune --save wrote.
        shapes: a cloud or mesh, or a folder whose files are found at any depth.
        out: CSV file to write: file, class, probability, second class and its probability.
        votes: passes whose probabilities are averaged.
        up: the axis of the shapes that points up; training has y up.
        seed: of the points that are taken.
        strict: stop at the first file that cannot be read; otherwise such files are left out and
            named.

    Returns:
        Files, classes and probabilities, in the order of the CSV file.

    Raises:
        DataError: if there is no shape, or none that can be read.
        ConfigError: if `votes` is below 1 or `out` is a folder.
        WeightsError: if the classifier is missing or damaged.

    Example:
        >>> classify("classifiers/cups", "scans")  # doctest: +SKIP
    """
    from pixcloud.atomic import write_text

    if votes < 1:
        raise ConfigError(f"votes is {votes}: expected at least 1")
    target = Path(out).expanduser()
    if target.is_dir():
        raise ConfigError(f"out = {out}: is a folder; give a file, such as {target}/classified.csv")
    root = Path(shapes).expanduser()
    paths = list_shapes(root)
    from pixcloud.evaluate.classifier import load_classifier  # torch, once there is work for it

    model = load_classifier(classifier)
    result, stream = ClassifiedShapes(), io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["file", "class", "probability", "second_class", "second_probability"])
    for start in range(0, len(paths), _BLOCK):
        block = paths[start : start + _BLOCK]
        _classify_block(model, root, block, votes, up, seed, strict, result, writer)
    if not result.files:
        first = next(iter(result.refused.values()))
        raise DataError(f"{root}: none of {len(paths)} files can be classified; the first: {first}")
    write_text(target, stream.getvalue())
    for reason in result.refused.values():
        print(f"left out: {reason}", file=sys.stderr)
    return result


def _classify_block(
    model: Any,  # a PointClassifier; its name here would bring torch into the help
    root: Path,
    paths: list[Path],
    votes: int,
    up: str,
    seed: int,
    strict: bool,
    result: ClassifiedShapes,
    writer: Any,
) -> None:
    names, clouds = [], []
    for path in paths:
        name = path.relative_to(root).as_posix() if path != root else path.name
        try:
            clouds.append(shape_points(path, name, model.num_points, up, seed))
            names.append(name)
        except DataError as error:
            if strict:
                raise
            result.refused[name] = str(error)
    if not clouds:
        return
    found = model.predict(np.stack(clouds), votes=votes)
    order = np.argsort(-found.probabilities, axis=1, kind="stable")
    for name, best, shares in zip(names, order, found.probabilities, strict=True):
        second = best[min(1, len(best) - 1)]
        result.files.append(name)
        result.names.append(model.classes[best[0]])
        result.probabilities.append(float(shares[best[0]]))
        cells = [model.classes[best[0]], f"{shares[best[0]]:.4f}", model.classes[second]]
        writer.writerow([name, *cells, f"{shares[second]:.4f}"])

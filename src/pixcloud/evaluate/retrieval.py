"""Stage 9, retrieval: both towers and pairs, or labelled clouds -> recall, mAP and chance as rows.

Before it: `pixcloud.evaluate.pairs_in_space`, `features` and `retrieval_metrics`. After it:
`pixcloud.evaluate.results`. Between pictures and clouds the same shape is relevant, and projections
are compared; between clouds those of the same class are, and pooled features are compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pixcloud.cross_modal import CrossModal
from pixcloud.data.shapenet import Pair, pairs_sha256, split_pairs
from pixcloud.encoders import PointEncoder
from pixcloud.errors import ConfigError, NothingToFindError
from pixcloud.evaluate.features import cached_features, embed_clouds
from pixcloud.evaluate.metrics import wilson_interval
from pixcloud.evaluate.outcomes import Outcomes, units_of
from pixcloud.evaluate.pairs_in_space import PairsInSpace, embed_pairs
from pixcloud.evaluate.probe import untrained
from pixcloud.evaluate.results import ResultRow
from pixcloud.evaluate.retrieval_metrics import Ranks, bootstrap_interval, chance_of, ranks
from pixcloud.evaluate.retrieval_settings import RetrievalSettings
from pixcloud.export import weights_sha256
from pixcloud.types import LabelledClouds

if TYPE_CHECKING:
    from rich.table import Table

Say = Callable[[str], None]
PROTOCOL = "retrieval"
KS = (1, 5, 10)
TO_CLOUD, TO_PICTURE, SAME_CLASS = "picture to cloud", "cloud to picture", "cloud to cloud"
HELD_OUT, SEEN, PARTLY, OTHER = "held out", "seen in training", "partly seen", "other pairs"


@dataclass(kw_only=True)
class RetrievalResult:
    """The rows; printing it shows them with the chance level beside each."""

    rows: list[ResultRow]

    def __rich__(self) -> Table:
        return retrieval_table(self.rows)


def retrieval_table(rows: Sequence[ResultRow], title: str = "Retrieval") -> Table:
    """Rows as a table for the terminal: each value with its interval and chance."""
    from rich.table import Table

    if any(row.dataset.startswith("synthetic") for row in rows):
        title += " (synthetic data)"
    table = Table(title=title)
    table.add_column("encoder")
    table.add_column("data")
    table.add_column("metric")
    for name in ("value", "95 % interval", "chance", "queries", "among"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        low, high = row.ci95 or (row.value, row.value)
        table.add_row(
            row.encoder,
            f"{row.dataset}, {row.split}",
            row.metric,
            f"{100 * row.value:.1f}",
            f"{100 * low:.1f} to {100 * high:.1f}",
            f"{100 * row.settings['chance']:.2f}",
            f"{row.n:,}",
            f"{row.settings['gallery']:,}",
        )
    return table


def cross_modal_ranks(space: PairsInSpace) -> dict[str, Ranks]:
    """Both directions between pictures and clouds; relevant is the same shape."""
    shapes = np.arange(len(space.clouds))
    return {
        TO_CLOUD: ranks(space.pictures, space.clouds, space.shapes, shapes),
        TO_PICTURE: ranks(space.clouds, space.pictures, shapes, space.shapes),
    }


def choose_pairs(
    pairs: list[Pair], origin: dict[str, Any], settings: RetrievalSettings
) -> tuple[list[Pair], str]:
    """The pairs to ask, and what the encoder knows of them.

    An encoder's export says which share of its pairs was held out, and the hash of those that it
    was trained on: from both follows whether these are the pairs, and which ones it has not seen.

    Args:
        pairs: of the source, sorted.
        origin: of the encoder, see `CrossModal`.
        settings: of the retrieval.

    Returns:
        The pairs, and "held out", "seen in training", "partly seen" or "other pairs". Of the last
        it is known that they are not the set of pairs that the encoder was trained on.
    """
    share = float(origin.get("held_out") or 0.0)
    trained, held_out = split_pairs(pairs, share)
    if not origin.get("pairs_sha256") or pairs_sha256(trained) != origin["pairs_sha256"]:
        return pairs, OTHER
    if not held_out:
        return pairs, SEEN
    return (pairs, PARTLY) if settings.pairs == "all" else (held_out, HELD_OUT)


def retrieve_pictures(
    model: CrossModal,
    encoder_name: str,
    pairs: list[Pair],
    dataset: str,
    settings: RetrievalSettings,
    say: Say = print,
) -> list[ResultRow]:
    """Rows of retrieval between pictures and clouds, in both directions.

    Args:
        model: both towers.
        encoder_name: for the rows.
        pairs: of the source, sorted.
        dataset: its name, for the rows.
        settings: of the retrieval.
        say: takes each line for the reader.

    Raises:
        DataError: as `embed_pairs`.
    """
    started = time.perf_counter()
    chosen, known = choose_pairs(pairs, model.origin, settings)
    if known in (SEEN, PARTLY):
        say(
            f"warning: {dataset}: {'all' if known == SEEN else 'most'} of these pairs were seen in "
            "training, so that this is no retrieval of new shapes; pre-train with --data.held_out "
            "0.1, or give other pairs"
        )
    elif known == OTHER:
        say(f"{dataset}: not the set of pairs that {encoder_name} was trained on; all are asked")
    space = embed_pairs(
        model,
        chosen,
        views=settings.views,
        num_points=settings.num_points,
        batch_size=settings.batch_size,
    )
    shapes = {TO_CLOUD: space.shapes, TO_PICTURE: np.arange(len(space.clouds))}
    details = {
        "pairs": known,
        "shapes": len(chosen),
        "views": settings.views,
        "num_points": settings.num_points or model.num_points,
        "picture_size": model.picture_size,
        "similarity": "cosine of projections",
        "picture_tower_sha256": weights_sha256(model.image_encoder),
    }
    encoder = model.point_encoder
    units = f"pairs {pairs_sha256(chosen)}"
    common = _Common(encoder, encoder_name, dataset, known, settings, details, started, units)
    return [
        row
        for direction, found in cross_modal_ranks(space).items()
        for row in _rows(direction, found, shapes[direction], common)
    ]


def retrieve_clouds(
    encoder: PointEncoder,
    encoder_name: str,
    test: LabelledClouds,
    settings: RetrievalSettings,
    say: Say = print,
) -> list[ResultRow]:
    """Rows of retrieval of clouds of the same class, each cloud by all the others.

    With `settings.baselines` the same encoder with fresh weights is asked too.

    Args:
        encoder: frozen.
        encoder_name: for the rows.
        test: labelled clouds, of a split that nothing was trained on.
        settings: of the retrieval.
        say: takes each line for the reader.

    Raises:
        DataError: as `embed_clouds`.
        NothingToFindError: if no class has two clouds.
    """
    contenders = {encoder_name: encoder}
    if settings.baselines:
        contenders[f"{encoder_name}, untrained"] = untrained(encoder, settings.seed)
    return [
        row
        for name, each in contenders.items()
        for row in _same_class(each, name, test, settings, say)
    ]


def _same_class(
    encoder: PointEncoder, name: str, test: LabelledClouds, settings: RetrievalSettings, say: Say
) -> list[ResultRow]:
    """The rows of one encoder."""
    started = time.perf_counter()
    points = settings.num_points or min(1024, test.points.shape[1])
    options: dict[str, Any] = {"num_points": points, "batch_size": settings.batch_size}
    if settings.cache:
        features = cached_features(encoder, test.points, say=say, **options).values
    else:
        features = embed_clouds(encoder, test.points, **options)
    found = ranks(features, features, test.labels, test.labels, leave_one_out=True)
    if not found.scored.any():
        raise NothingToFindError(
            f"{test.name} {test.split}: no class has two clouds, so none can be found"
        )
    if missing := int((~found.scored).sum()):
        say(f"{test.name} {test.split}: {missing} clouds are alone in their class and do not ask")
    details = {"num_points": points, "similarity": "cosine of pooled features", "relevant": "class"}
    units = units_of(test)
    common = _Common(encoder, name, test.name, test.split, settings, details, started, units)
    return _rows(SAME_CLASS, found, np.arange(len(features)), common)


@dataclass
class _Common:
    """What the rows of one evaluation share."""

    encoder: PointEncoder
    encoder_name: str
    dataset: str
    split: str
    settings: RetrievalSettings
    details: dict[str, Any]
    started: float
    units: str


def _rows(direction: str, found: Ranks, shapes: np.ndarray, common: _Common) -> list[ResultRow]:
    """Recall at 1, 5, 10 and mAP of one direction, each the mean over shapes.

    Pictures of one shape are found together, so each shape counts once, however many it has: in
    the value, in its interval and in paired tests. Chance needs no such mean: it is the same for
    all pictures of a shape.
    """
    asked = found.scored
    seconds = time.perf_counter() - common.started
    _, place, sizes = np.unique(shapes[asked], return_inverse=True, return_counts=True)
    count, single = len(sizes), bool((sizes == 1).all())
    rows = []
    for k in (*KS, 0):
        values = found.recall(k)[asked] if k else found.precision[asked]
        of_shapes = np.bincount(place, weights=values) / sizes
        value = float(of_shapes.mean())
        # Wilson's interval of shares is not empty where all or none are found.
        interval = (
            wilson_interval(value * count, count)
            if k
            else bootstrap_interval(of_shapes, np.arange(count), seed=common.settings.seed)
        )
        details = {
            **common.details,
            "chance": chance_of(found, k),
            "gallery": int(found.size[0]),
            "mean": "over shapes",
            "ties": "count against",
            "interval": "Wilson, shapes counted" if k else "bootstrap of shapes",
            "architecture": getattr(common.encoder, "spec", None),
        }
        rows.append(
            ResultRow(
                protocol=PROTOCOL,
                dataset=common.dataset,
                split=common.split,
                metric=f"{direction} recall@{k}" if k else f"{direction} mAP",
                value=value,
                ci95=interval,
                n=int(asked.sum()),
                seed=common.settings.seed,
                encoder=common.encoder_name,
                encoder_sha256=weights_sha256(common.encoder),
                settings=details,
                seconds=round(seconds, 3),
                outcomes=Outcomes(of_shapes, common.units, single and k > 0),
            )
        )
    return rows


def require_something(kind: str, pictures: str, clouds: str) -> None:
    """Check that what was asked for can be done.

    Args:
        kind: of `RetrievalSettings`.
        pictures: why nothing can be asked between pictures and clouds, or "".
        clouds: why nothing can be asked between clouds, or "".

    Raises:
        ConfigError: saying why not.
    """
    wanted = {"pictures": [pictures], "clouds": [clouds], "all": [pictures, clouds]}[kind]
    if all(wanted):
        raise ConfigError(f"nothing to retrieve: {'; '.join(wanted)}")

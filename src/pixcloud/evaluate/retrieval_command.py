"""Stage 9, `pixcloud retrieve`: a saved encoder and pairs or labelled clouds -> rows.

Its options are in `pixcloud.evaluate.retrieval_settings`; the work is done by
`pixcloud.evaluate.retrieval`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pixcloud.errors import NothingToFindError, WeightsError
from pixcloud.evaluate.command import lasting, results_file
from pixcloud.evaluate.retrieval_settings import RetrieveConfig

if TYPE_CHECKING:
    from pixcloud.cross_modal import CrossModal
    from pixcloud.evaluate.results import ResultRow
    from pixcloud.evaluate.retrieval import RetrievalResult


def retrieve(config: RetrieveConfig) -> RetrievalResult:
    """Find clouds by pictures, pictures by clouds, and clouds of the same class by clouds.

    Args:
        config: see `RetrieveConfig`.

    Returns:
        The rows, which are appended to the results file too; printing it shows a table.

    Raises:
        PixCloudError: for an encoder, data or settings that the user can mend.

    Example:
        >>> retrieve(RetrieveConfig(encoder="runs/demo"))  # doctest: +SKIP
    """
    from pixcloud.data.sources import holds
    from pixcloud.evaluate.results import append_rows
    from pixcloud.evaluate.retrieval import RetrievalResult, require_something

    out, kind = results_file(config.out, config.encoder), config.retrieve.kind
    source = config.data.source
    has_pairs, has_labels = holds(source)
    no_pairs = "" if has_pairs else f"{source} holds no pairs of clouds and pictures"
    no_labels = "" if has_labels else f"{source} holds no labelled clouds"
    model = None
    if kind != "clouds" and has_pairs:
        try:
            model = _both_towers(config.encoder)
        except WeightsError as error:
            if kind == "pictures" or not has_labels:
                raise
            no_pairs = str(error)
    require_something(kind, no_pairs, no_labels)
    rows: list[ResultRow] = []
    if model is not None:
        rows += _pictures(config, model)
    elif kind == "all":
        _say(f"nothing between pictures and clouds: {no_pairs}")
    if kind != "pictures" and has_labels:
        try:
            rows += _clouds(config, model)
        except NothingToFindError as error:
            if not rows:
                raise
            _say(f"nothing between clouds: {error}")
    elif kind == "all":
        _say(f"nothing between clouds: {no_labels}")
    for row in rows:
        row.settings["source"] = lasting(source)
    append_rows(out, rows)
    return RetrievalResult(rows=rows)


def _pictures(config: RetrieveConfig, model: CrossModal) -> list[ResultRow]:
    from pixcloud.data.shapenet import complete_pairs
    from pixcloud.data.sources import SYNTHETIC, open_pair_index
    from pixcloud.evaluate.retrieval import retrieve_pictures

    index = open_pair_index(config.data.source)
    pairs = complete_pairs(index, config.data.unpaired)
    dataset = SYNTHETIC if config.data.source == SYNTHETIC else index.root.name
    return retrieve_pictures(
        model, config.encoder, pairs, f"{dataset} pairs", config.retrieve, _say
    )


def _clouds(config: RetrieveConfig, model: CrossModal | None) -> list[ResultRow]:
    """With the exported encoder; of a run that was cut short, that of its newest checkpoint."""
    import torch

    from pixcloud.data.sources import open_labelled
    from pixcloud.evaluate.retrieval import retrieve_clouds
    from pixcloud.export import load_encoder

    try:
        encoder = load_encoder(config.encoder)
    except WeightsError as error:
        if model is None:
            raise
        _say(f"between clouds, too, the newest checkpoint serves: {error}")
        encoder = model.point_encoder
    if torch.cuda.is_available():
        encoder = encoder.cuda()
    test = open_labelled(config.data.source, "test")
    return retrieve_clouds(encoder, config.encoder, test, config.retrieve, _say)


def _both_towers(name: str) -> CrossModal:
    import torch

    from pixcloud.cross_modal import load_cross_modal

    model = load_cross_modal(name)
    return model.cuda() if torch.cuda.is_available() else model


def _say(message: str) -> None:
    print(message, file=sys.stderr)

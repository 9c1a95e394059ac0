"""Stage 9, splits of clouds with parts: what fits each other and can be learned; two as one.

Before it: the readers (stage 2), `pixcloud.evaluate.splits`. After it: `pixcloud.evaluate.segment`.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from pixcloud.encoders import PointEncoder
from pixcloud.errors import ConfigError, DataError, some
from pixcloud.evaluate.features import first_points, require_points
from pixcloud.evaluate.saved_model import check_place
from pixcloud.evaluate.segment_settings import SegmentConfig
from pixcloud.evaluate.segmenter import KIND, require_point_features
from pixcloud.evaluate.splits import check_splits
from pixcloud.types import LabelledClouds


def joined(train: LabelledClouds, val: LabelledClouds) -> LabelledClouds:
    """Train and val as one split.

    Raises:
        DataError: if they are not splits of one data set.
    """
    check_splits(train, val)
    _same_parts(train, val)
    if train.points.shape[1] != val.points.shape[1]:
        raise DataError(f"{train.name}: clouds of train and val have different numbers of points")
    assert train.parts is not None
    assert val.parts is not None
    return dataclasses.replace(
        train,
        split=f"{train.split} and {val.split}",
        points=np.concatenate([train.points, val.points]),
        labels=np.concatenate([train.labels, val.labels]),
        parts=np.concatenate([train.parts, val.parts]),
    )


def _same_parts(first: LabelledClouds, second: LabelledClouds) -> None:
    for clouds in (first, second):
        if clouds.parts is None or clouds.part_names is None:
            raise DataError(f"{clouds.name} {clouds.split}: its clouds have no parts")
    if (first.part_names, first.part_labels) != (second.part_names, second.part_labels):
        raise DataError(
            f"{first.name} {first.split} and {second.split} do not have the same parts; give two "
            "splits of one data set"
        )


def check_parts(
    encoder: PointEncoder, train: LabelledClouds, test: LabelledClouds, config: SegmentConfig
) -> None:
    """Whether a segmenter can be trained, scored and saved, told before any work.

    Raises:
        DataError: if the splits do not fit each other, or train does not suffice.
        ConfigError: if the encoder or the settings do not fit.
        WeightsError: if something else stands where the segmenter is to be saved.
    """
    settings = config.segment
    require_point_features(encoder)
    check_splits(train, test)
    _same_parts(train, test)
    for clouds in (train, test):
        first_points(clouds.points, settings.num_points, "segment.num_points")
    require_points(encoder, settings.num_points, "segment.num_points")
    if len(train.labels) < 2:
        raise DataError(f"{train.name} {train.split}: a single shape; at least two are needed")
    if unseen := set(test.labels.tolist()) - set(train.labels.tolist()):
        names = some(test.classes[label] for label in sorted(unseen))
        raise DataError(
            f"{test.name} {test.split} holds categories that {train.split} lacks, and which "
            f"nothing can learn: {names}; add training shapes, or leave these categories out"
        )
    if config.save:
        check_place(config.save, KIND)
        if len(settings.fractions) > 1:
            raise ConfigError(
                f"save keeps one segmenter, and segment.fractions has {len(settings.fractions)}: "
                "give a single fraction"
            )

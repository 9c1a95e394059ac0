"""Settings of what a recipe learns from: views of a pair, and the loss on their projections.

Part of `pixcloud.config`, which imports them. Nothing here imports torch, so that help is fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(kw_only=True)
class ViewConfig:
    """Augmentation of clouds and pictures; the defaults are CrossPoint's.

    Args:
        scale_low: least factor of the random scaling of a cloud.
        scale_high: greatest factor of it.
        rotation: rotate about the up axis by an angle in a range this wide, half to each side,
            in degrees.
        shift: translate each axis by up to this share of the cloud's extent.
        jitter: standard deviation of the noise on every coordinate.
        jitter_clip: largest absolute value of that noise.
        dropout: up to this share of the points is replaced by the cloud's first point.
        brightness: factors are drawn from 1 - b to 1 + b.
        contrast: as for brightness.
        saturation: as for brightness.
        flip: probability of mirroring a picture.
        stretch: scale each axis by a factor of its own, from 1 / stretch to stretch; 1 does not.
        crop: up to this share of the points, those that lie farthest along a random direction, is
            replaced by others of the cloud: scans see a shape from one side.
        hole: up to this share of the points, those nearest to a random one, is replaced by others
            of the cloud.
        dropout_fill: what replaces the points that `dropout` takes: the cloud's first point, as
            published, or others that stay, drawn at random, so that the mean is not pulled to one.
        normalize: at the end, centre each view and scale it to the unit sphere, as evaluation does
            with every cloud; scale and shift then change nothing.
        pictures: how many pictures of each shape a step sees, different ones where there are as
            many; the mean of their projections stands for them.
    """

    scale_low: float = 0.5
    scale_high: float = 2.0
    rotation: float = 360.0
    shift: float = 0.5
    jitter: float = 0.01
    jitter_clip: float = 0.05
    dropout: float = 0.875
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    flip: float = 0.5
    stretch: float = 1.0
    crop: float = 0.0
    hole: float = 0.0
    dropout_fill: Literal["first", "others"] = "first"
    normalize: bool = False
    pictures: int = 1


@dataclass(kw_only=True)
class ObjectiveConfig:
    """The loss and its projection heads.

    Args:
        temperature: of both NT-Xent losses; of the one between views where `cross_temperature`
            is given.
        cross_temperature: of the loss between clouds and pictures; 0 takes that of the other.
        learn_temperature: both are weights that training moves, between 0.01 and 1, as in CLIP.
        intra_weight: weight of the loss between the two views of a cloud.
        cross_weight: weight of the loss between clouds and pictures.
        projection_dim: length of the projections.
        point_hidden: width of the projection head of clouds.
        image_hidden: width of the projection head of pictures.
        negatives: of several processes: global compares with the pairs of all of them, as one
            process with the whole batch does; local with those of the same process, for
            comparison.
        intra_contrast: what a vector of the loss between views is compared with: union, all others
            of both views (NT-Xent); between, those of the other view only (as in CLIP).
        cross_contrast: the same of the loss between clouds and pictures.
        cross_views: what stands for the cloud there: mean, that of its views' projections, as
            published; each, one view after the other, and the mean of both losses.
        hardness: of negatives, those that are alike count more, by exp(hardness times cosine).
        ema: share that the average of a cloud encoder's weights keeps at each step (it starts
            lower); that average is what is probed and exported. 0 keeps none.
        teacher: compare each view with the other one as the averaged encoder sees it.
        queue: the projections of so many earlier pairs are further negatives; 0 keeps none.
        relation_weight: weight of a third loss by which clouds shall be alike where their pictures
            are (distillation of relations); 0 has none.
        relation_temperature: temperature of that loss.
    """

    temperature: float = 0.1
    cross_temperature: float = 0.0
    learn_temperature: bool = False
    intra_weight: float = 1.0
    cross_weight: float = 1.0
    projection_dim: int = 256
    point_hidden: int = 1024
    image_hidden: int = 512
    negatives: Literal["global", "local"] = "global"
    intra_contrast: Literal["union", "between"] = "union"
    cross_contrast: Literal["union", "between"] = "union"
    cross_views: Literal["mean", "each"] = "mean"
    hardness: float = 0.0
    ema: float = 0.0
    teacher: bool = False
    queue: int = 0
    relation_weight: float = 0.0
    relation_temperature: float = 0.1

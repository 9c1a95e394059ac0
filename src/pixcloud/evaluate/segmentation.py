"""Stage 9, learning parts: clouds (S, N, 3) with parts (S, N) -> what the supervised loop wants.

Before it: `pixcloud.evaluate.augmentation` and `segmenter`. `pixcloud.evaluate.segment` hands it to
`pixcloud.evaluate.supervised`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pixcloud.data.shapenetpart import part_offsets
from pixcloud.data.views import unit_sphere
from pixcloud.evaluate.augmentation import augmented_batch_with_places
from pixcloud.evaluate.part_metrics import part_scores
from pixcloud.evaluate.segmenter import best_parts
from pixcloud.evaluate.training_settings import AugmentSettings
from pixcloud.types import LabelledClouds


@dataclass(kw_only=True)
class SegmentationTask:
    """Cross-entropy over all parts with label smoothing; instance mIoU on a validation part.

    clouds: a whole split with parts and part_names; places (n,) of the shapes to learn from, parts
    of no other are read but those of validation (v,), which may be empty; num_points: N, of each.
    """

    clouds: LabelledClouds
    places: np.ndarray
    num_points: int
    augment: AugmentSettings
    label_smoothing: float
    seed: int
    validation: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    score_batch: int = 32

    @property
    def size(self) -> int:
        return len(self.places)

    def loss(self, model: nn.Module, places: np.ndarray, epoch: int) -> torch.Tensor:
        """Mean over the points of some of the shapes to learn from; places (B,) in [0, size)."""
        device = next(model.parameters()).device
        chosen = self.places[places]
        points, kept = augmented_batch_with_places(
            self.clouds.points,
            chosen,
            self.augment,
            seed=self.seed,
            epoch=epoch,
            num_points=self.num_points,
            device=device,
        )
        assert self.clouds.parts is not None
        parts = np.take_along_axis(self.clouds.parts[chosen], kept, axis=1)
        logits = model(points, torch.from_numpy(self.clouds.labels[chosen]).to(device))
        target = torch.from_numpy(parts).to(device)
        return F.cross_entropy(
            logits.flatten(0, 1), target.flatten(), label_smoothing=self.label_smoothing
        )

    def score(self, model: nn.Module) -> tuple[float, ...] | None:
        """(instance mIoU, minus the loss) on the validation part; the loss decides among equals."""
        if len(self.validation) == 0:
            return None
        assert self.clouds.parts is not None
        assert self.clouds.part_names is not None
        device, loss, found = next(model.parameters()).device, 0.0, []
        truth = self.clouds.parts[self.validation, : self.num_points]
        labels = self.clouds.labels[self.validation]
        for start in range(0, len(self.validation), self.score_batch):
            some = slice(start, start + self.score_batch)
            points = torch.from_numpy(
                self.clouds.points[self.validation[some], : self.num_points]
            ).to(device)
            kinds = torch.from_numpy(labels[some]).to(device)
            logits = model(unit_sphere(points), kinds).float().cpu()
            loss += float(
                F.cross_entropy(
                    logits.flatten(0, 1), torch.from_numpy(truth[some]).flatten(), reduction="sum"
                )
            )
            found.append(best_parts(logits.numpy(), labels[some], self.clouds.part_names))
        scores = part_scores(
            np.concatenate(found), truth, labels, part_offsets(self.clouds.part_names)
        )
        return scores.instance_miou, -loss / truth.size

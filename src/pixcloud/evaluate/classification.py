"""Stage 9, learning to classify: clouds (S, N, 3) with labels -> what the supervised loop wants.

Before it: `pixcloud.evaluate.augmentation` and `classifier`. `pixcloud.evaluate.finetune` and
`few_shot` hand it to `pixcloud.evaluate.supervised`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pixcloud.data.views import unit_sphere
from pixcloud.evaluate.augmentation import augmented_batch
from pixcloud.evaluate.training_settings import AugmentSettings


@dataclass(kw_only=True)
class ClassificationTask:
    """Cross-entropy with label smoothing on augmented clouds; accuracy on a validation part.

    points (S, M, 3) float32 and labels (S,) int64 of a whole split; places (n,) of the clouds to
    learn from, labels of no other are read but those of validation (v,), which may be empty;
    num_points: N, of each cloud. Augmentation depends on the place in the split, so that a cloud is
    augmented alike whichever others are learned from.
    """

    points: np.ndarray
    labels: np.ndarray
    places: np.ndarray
    num_points: int
    augment: AugmentSettings
    label_smoothing: float
    seed: int
    validation: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    score_batch: int = 128

    @property
    def size(self) -> int:
        return len(self.places)

    def loss(self, model: nn.Module, places: np.ndarray, epoch: int) -> torch.Tensor:
        """Mean cross-entropy of some of the clouds to learn from; places (B,) in [0, size)."""
        device = next(model.parameters()).device
        chosen = self.places[places]
        clouds = augmented_batch(
            self.points,
            chosen,
            self.augment,
            seed=self.seed,
            epoch=epoch,
            num_points=self.num_points,
            device=device,
        )
        target = torch.from_numpy(self.labels[chosen]).to(device)
        return F.cross_entropy(model(clouds), target, label_smoothing=self.label_smoothing)

    def score(self, model: nn.Module) -> tuple[float, ...] | None:
        """(accuracy, minus the loss) on the validation part; the loss decides among equals."""
        if len(self.validation) == 0:
            return None
        device, right, loss = next(model.parameters()).device, 0, 0.0
        for start in range(0, len(self.validation), self.score_batch):
            chosen = self.validation[start : start + self.score_batch]
            clouds = torch.from_numpy(self.points[chosen, : self.num_points]).to(device)
            target = torch.from_numpy(self.labels[chosen]).to(device)
            logits = model(unit_sphere(clouds))
            right += int((logits.argmax(dim=1) == target).sum())
            loss += float(F.cross_entropy(logits, target, reduction="sum"))
        return right / len(self.validation), -loss / len(self.validation)

"""Stage 9, classifiers: clouds (S, N, 3) -> logits (S, K); on disk safetensors and `config.json`.

Before it: an encoder (stage 4) and a head (stage 5). `pixcloud.evaluate.finetune` and `few_shot`
train it; `pixcloud.evaluate.classify` applies a saved one to the files of a user.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pixcloud.data.views import unit_sphere
from pixcloud.encoders import PointEncoder, build_saved_encoder
from pixcloud.evaluate.augmentation import VOTE_STREAM, augmented_batch
from pixcloud.evaluate.features import first_points, require_points
from pixcloud.evaluate.saved_model import check_place, read_model, write_model
from pixcloud.evaluate.training_settings import AugmentSettings
from pixcloud.heads import ClassificationHead

FORMAT = "pixcloud classifier 1"
KIND = "classifier"


@dataclass(kw_only=True, frozen=True)
class Voting:
    """Passes at test time: the cloud as it is, then `passes` - 1 augmented ones."""

    passes: int = 1
    scale: float = 1.25
    rotation: float = 0.0
    seed: int = 0

    @property
    def augmentation(self) -> AugmentSettings:
        return AugmentSettings(
            scale_low=1 / self.scale, scale_high=self.scale, rotation=self.rotation, shift=0.0
        )


@dataclass(kw_only=True, frozen=True)
class Classified:
    """labels (S,) int64; names of these classes; probabilities (S, K) float32."""

    labels: np.ndarray
    names: list[str]
    probabilities: np.ndarray


class PointClassifier(nn.Module):
    """An encoder with a classification head on its pooled feature.

    Args:
        encoder: made by `build_encoder`.
        classes: names in label order.
        head: "mlp" or "linear".
        dropout: of the mlp head.
        num_points: points of the clouds that it is trained on.
        frozen: the encoder keeps its weights, and evaluation mode.

    Example:
        >>> from pixcloud.encoders import build_encoder
        >>> model = PointClassifier(build_encoder("pointnet", embed_dim=16), ["cup", "mug"])
        >>> model.predict(torch.rand(3, 64, 3)).probabilities.shape
        (3, 2)
    """

    def __init__(
        self,
        encoder: PointEncoder,
        classes: Sequence[str],
        *,
        head: str = "mlp",
        dropout: float = 0.5,
        num_points: int = 1024,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.encoder, self.classes, self.num_points = encoder, list(classes), num_points
        self.head_kind, self.dropout, self.frozen = head, dropout, frozen
        width = encoder.pooled_dim
        self.head: nn.Module = (
            nn.Linear(width, len(self.classes))
            if head == "linear"
            else ClassificationHead(width, len(self.classes), dropout)
        )
        encoder.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> PointClassifier:
        """As every module's, but a frozen encoder keeps its batch statistics too."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        """Clouds (B, N, 3), centred and scaled, to logits (B, K)."""
        if self.frozen:
            with torch.no_grad():
                pooled = self.encoder(points).pooled
            return self.head(pooled)
        return self.head(self.encoder(points).pooled)

    def probabilities(
        self, points: np.ndarray, *, batch_size: int = 128, voting: Voting | None = None
    ) -> np.ndarray:
        """Class probabilities of each pass, in evaluation mode, without gradients.

        Args:
            points: (S, N, 3) float; the first `num_points` are taken where there are more.
            batch_size: clouds at a time.
            voting: passes; by default the clouds as they are.

        Returns:
            (passes, S, K) float32; the first pass is of the clouds as they are.

        Raises:
            DataError: for another shape, no clouds, or coordinates that are not finite.
            ConfigError: if the encoder needs more points.
        """
        points = np.asarray(points, np.float32)
        wanted = min(self.num_points, points.shape[1]) if points.ndim == 3 else self.num_points
        points = first_points(points, wanted)
        require_points(self.encoder, wanted, "points per cloud")
        voting = voting or Voting()
        device, modes = next(self.parameters()).device, [(m, m.training) for m in self.modules()]
        self.eval()
        passes = []
        try:
            with torch.no_grad():
                for number in range(voting.passes):
                    parts = [
                        self(self._pass(points, start, batch_size, number, voting, device))
                        for start in range(0, len(points), batch_size)
                    ]
                    passes.append(torch.cat(parts).float().softmax(dim=1).cpu().numpy())
        finally:
            for module, mode in modes:
                module.training = mode
        return np.stack(passes)

    @staticmethod
    def _pass(
        points: np.ndarray,
        start: int,
        batch_size: int,
        number: int,
        voting: Voting,
        device: torch.device,
    ) -> torch.Tensor:
        places = np.arange(start, min(start + batch_size, len(points)))
        if number == 0:
            return unit_sphere(torch.from_numpy(np.ascontiguousarray(points[places])).to(device))
        return augmented_batch(
            points,
            places,
            voting.augmentation,
            seed=voting.seed,
            epoch=number,
            num_points=points.shape[1],
            device=device,
            stream=VOTE_STREAM,
        )

    def predict(self, points: Any, *, votes: int = 1, batch_size: int = 128) -> Classified:
        """The class of each cloud.

        Args:
            points: (S, N, 3), or one cloud (N, 3), as array or tensor; y up, in any unit. The
                first points are taken where there are more than in training.
            votes: passes whose probabilities are averaged.
            batch_size: clouds at a time.

        Raises:
            DataError: for another shape, no clouds, or coordinates that are not finite.
        """
        clouds = points.detach().cpu().numpy() if isinstance(points, torch.Tensor) else points
        clouds = np.asarray(clouds, np.float32)
        batch = clouds[None] if clouds.ndim == 2 else clouds
        voting = Voting(passes=votes)
        mean = self.probabilities(batch, batch_size=batch_size, voting=voting).mean(axis=0)
        labels = mean.argmax(axis=1)
        names = [self.classes[label] for label in labels]
        return Classified(labels=labels, names=names, probabilities=mean)


def build_classifier(
    encoder: PointEncoder,
    classes: Sequence[str],
    *,
    seed: int,
    frozen: bool = False,
    head: str = "mlp",
    dropout: float = 0.5,
    num_points: int = 1024,
) -> PointClassifier:
    """A classifier on a copy of an encoder, its head drawn from the seed.

    Raises:
        ConfigError: if the encoder needs more than `num_points` points.
    """
    require_points(encoder, num_points, "num_points")
    with torch.random.fork_rng():  # the caller's generator is left as it is
        torch.manual_seed(seed)
        model = PointClassifier(
            copy.deepcopy(encoder),
            classes,
            head=head,
            dropout=dropout,
            num_points=num_points,
            frozen=frozen,
        )
    return model.to(next(encoder.parameters()).device)


def save_classifier(
    folder: str | Path, model: PointClassifier, origin: dict[str, Any] | None = None
) -> None:
    """Write a classifier as a folder, whole or not at all.

    Args:
        folder: a classifier in it is replaced.
        model: whose encoder was made by `build_encoder`.
        origin: where the weights come from; JSON values.

    Raises:
        WeightsError: if the folder holds something else, or cannot be written.
    """
    meta = {
        "encoder": model.encoder.spec,
        "classes": model.classes,
        "head": model.head_kind,
        "dropout": model.dropout,
        "num_points": model.num_points,
    }
    write_model(check_place(folder, KIND), model, KIND, FORMAT, meta, origin)


def load_classifier(folder: str | Path) -> PointClassifier:
    """A classifier that `pixcloud finetune --save` wrote, in evaluation mode, on the CPU.

    Raises:
        WeightsError: if none is there, it is damaged, or its weights do not fit.

    Example:
        >>> from pixcloud.encoders import build_encoder
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "cups"
        >>> encoder = build_encoder("pointnet", embed_dim=16)
        >>> save_classifier(folder, PointClassifier(encoder, ["cup", "mug"]))
        >>> load_classifier(folder).predict(torch.rand(64, 3)).labels.shape
        (1,)
    """

    def build(meta: dict[str, Any]) -> PointClassifier:
        spec = meta["encoder"]
        return PointClassifier(
            build_saved_encoder(spec),
            meta["classes"],
            head=meta["head"],
            dropout=meta["dropout"],
            num_points=meta["num_points"],
        )

    return read_model(folder, KIND, FORMAT, build, "pixcloud finetune --save")

"""Stage 9, segmenters: clouds (S, N, 3) and categories (S,) -> part logits (S, N, P); on disk too.

Before it: an encoder (stage 4) and `PartHead` (stage 5). `pixcloud.evaluate.segment` trains it;
`pixcloud.evaluate.label_parts` applies a saved one to the files of a user.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pixcloud.data.shapenetpart import part_offsets
from pixcloud.data.views import unit_sphere
from pixcloud.encoders import PointEncoder, build_saved_encoder
from pixcloud.errors import ConfigError, DataError
from pixcloud.evaluate.features import first_points, require_points
from pixcloud.evaluate.saved_model import check_place, read_model, write_model
from pixcloud.heads import PartHead

FORMAT = "pixcloud segmenter 1"
KIND = "segmenter"


class PointSegmenter(nn.Module):
    """An encoder with a head that tells the part of each point.

    Args:
        encoder: made by `build_encoder`, with per-point features.
        part_names: categories in label order, each with the names of its parts. Parts are numbered
            through over the categories.
        dropout: of the head.
        num_points: points of the clouds that it is trained on.
        frozen: the encoder keeps its weights, and evaluation mode.
        part_labels: the numbers that the user's files give the parts of each category; counted from
            0 if not given.

    Raises:
        ConfigError: if the encoder has no per-point features, or a part has no number of its own.

    Example:
        >>> from pixcloud.encoders import build_encoder
        >>> encoder = build_encoder("dgcnn", k=4, embed_dim=16, widths=[8, 8, 8, 8])
        >>> model = PointSegmenter(encoder, {"mug": ["handle", "cup"], "cap": ["peak", "crown"]})
        >>> model.predict(torch.rand(3, 64, 3), ["mug", "cap", "cap"]).shape
        (3, 64)
    """

    def __init__(
        self,
        encoder: PointEncoder,
        part_names: dict[str, list[str]],
        *,
        dropout: float = 0.5,
        num_points: int = 2048,
        frozen: bool = False,
        part_labels: dict[str, list[int]] | None = None,
    ) -> None:
        super().__init__()
        require_point_features(encoder)
        assert encoder.point_dim is not None
        self.encoder, self.num_points = encoder, num_points
        self.part_names = {name: list(parts) for name, parts in part_names.items()}
        self.part_labels = _own_numbers(self.part_names, part_labels)
        self.dropout, self.frozen = dropout, frozen
        self.head = PartHead(
            encoder.point_dim,
            encoder.pooled_dim,
            categories=len(part_names),
            parts=part_offsets(part_names)[-1],
            dropout=dropout,
        )
        encoder.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> PointSegmenter:
        """As every module's, but a frozen encoder keeps its batch statistics too."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, points: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        """Clouds (B, N, 3), centred and scaled, and categories (B,) int64 to logits (B, N, P)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.encoder(points)
        return self.head(features, categories)

    def logits(
        self, points: np.ndarray, categories: np.ndarray, *, batch_size: int = 32
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """Part logits in evaluation mode, without gradients, some clouds at a time.

        Args:
            points: (S, M, 3) float; the first `num_points` are taken where there are more.
            categories: (S,) int labels.
            batch_size: clouds at a time.

        Yields:
            The clouds' places and their logits (B, N, P) float32, which of 50 parts would be too
            many to hold for all clouds.

        Raises:
            DataError: for another shape, no clouds, or coordinates that are not finite.
            ConfigError: if the encoder needs more points.
        """
        points = np.asarray(points, np.float32)
        wanted = min(self.num_points, points.shape[1]) if points.ndim == 3 else self.num_points
        points = first_points(points, wanted)
        require_points(self.encoder, wanted, "points per cloud")
        device = next(self.parameters()).device
        with _evaluation(self):
            for start in range(0, len(points), batch_size):
                some = slice(start, min(start + batch_size, len(points)))
                clouds = unit_sphere(torch.from_numpy(points[some]).to(device))
                kinds = torch.from_numpy(np.asarray(categories[some], np.int64)).to(device)
                with torch.no_grad():
                    found = self(clouds, kinds)
                yield some, found.float().cpu().numpy()

    def predict(self, points: Any, categories: Any, *, batch_size: int = 32) -> np.ndarray:
        """The part of each point among those of its shape's category.

        Args:
            points: (S, N, 3) as array or tensor; y up, in any unit.
            categories: (S,) names or labels.
            batch_size: clouds at a time.

        Returns:
            (S, N) int64 part numbers, through over the categories; less
            `part_offsets(model.part_names)[label]`, they are places in `model.part_names` and in
            `model.part_labels`, the numbers that the files learned from had.

        Raises:
            DataError: for another shape, no clouds, an unknown category, or coordinates that are
                not finite.
        """
        clouds = points.detach().cpu().numpy() if isinstance(points, torch.Tensor) else points
        labels = self.labels(categories)
        if len(labels) != len(clouds):
            raise DataError(f"{len(clouds)} clouds and {len(labels)} categories: give one of each")
        blocks = [
            best_parts(logits, labels[some], self.part_names)
            for some, logits in self.logits(np.asarray(clouds), labels, batch_size=batch_size)
        ]
        return np.concatenate(blocks)

    def labels(self, categories: Any) -> np.ndarray:
        """Labels (S,) int64 of categories given by name or by label.

        Raises:
            DataError: naming an unknown one.
        """
        known = list(self.part_names)
        labels = []
        for each in categories:
            label = known.index(each) if each in known else each
            if isinstance(label, str) or not 0 <= int(label) < len(known):
                raise DataError(f"unknown category '{each}': expected one of {', '.join(known)}")
            labels.append(int(label))
        return np.array(labels, np.int64)


def _own_numbers(
    part_names: dict[str, list[str]], given: dict[str, list[int]] | None
) -> dict[str, list[int]]:
    """The numbers of each category's parts in the user's files."""
    if given is None:
        return {name: list(range(len(parts))) for name, parts in part_names.items()}
    numbers = {name: [int(number) for number in given.get(name, [])] for name in part_names}
    for name, parts in part_names.items():
        if len(set(numbers[name])) != len(parts):
            raise ConfigError(f"part_labels of {name}: {numbers[name]} for {len(parts)} parts")
    return numbers


def best_parts(
    logits: np.ndarray, labels: np.ndarray, part_names: dict[str, list[str]]
) -> np.ndarray:
    """Logits (S, N, P) -> the best part (S, N) int64 of those of each shape's category (S,)."""
    offsets = part_offsets(part_names)
    best = np.empty(logits.shape[:2], np.int64)
    for place, label in enumerate(labels):
        own = logits[place, :, offsets[label] : offsets[label + 1]]
        best[place] = own.argmax(axis=1) + offsets[label]
    return best


def require_point_features(encoder: PointEncoder) -> None:
    """Whether parts can be told from an encoder's features.

    Raises:
        ConfigError: if it has none for each point.
    """
    if encoder.point_dim is None:
        name = encoder.spec["name"]
        raise ConfigError(
            f"encoder {name} has no features for each point, from which parts could be told; take "
            "one that has, such as dgcnn or dgcnn_seg, or pre-train this one with them"
        )


def build_segmenter(
    encoder: PointEncoder,
    part_names: dict[str, list[str]],
    *,
    seed: int,
    frozen: bool = False,
    dropout: float = 0.5,
    num_points: int = 2048,
    part_labels: dict[str, list[int]] | None = None,
) -> PointSegmenter:
    """A segmenter on a copy of an encoder, its head drawn from the seed.

    Raises:
        ConfigError: if the encoder has no per-point features, or needs more points.
    """
    require_points(encoder, num_points, "num_points")
    with torch.random.fork_rng():  # the caller's generator is left as it is
        torch.manual_seed(seed)
        model = PointSegmenter(
            copy.deepcopy(encoder),
            part_names,
            dropout=dropout,
            num_points=num_points,
            frozen=frozen,
            part_labels=part_labels,
        )
    return model.to(next(encoder.parameters()).device)


def save_segmenter(
    folder: str | Path, model: PointSegmenter, origin: dict[str, Any] | None = None
) -> None:
    """Write a segmenter as a folder, whole or not at all.

    Args:
        folder: a segmenter in it is replaced.
        model: whose encoder was made by `build_encoder`.
        origin: where the weights come from; JSON values.

    Raises:
        WeightsError: if the folder holds something else, or cannot be written.
    """
    meta = {
        "encoder": model.encoder.spec,
        "part_names": model.part_names,
        "part_labels": model.part_labels,
        "dropout": model.dropout,
        "num_points": model.num_points,
    }
    write_model(check_place(folder, KIND), model, KIND, FORMAT, meta, origin)


def load_segmenter(folder: str | Path) -> PointSegmenter:
    """A segmenter that `pixcloud segment --save` wrote, in evaluation mode, on the CPU.

    Raises:
        WeightsError: if none is there, it is damaged, or its weights do not fit.

    Example:
        >>> from pixcloud.encoders import build_encoder
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "cups"
        >>> encoder = build_encoder("dgcnn", k=4, embed_dim=16, widths=[8, 8, 8, 8])
        >>> save_segmenter(folder, PointSegmenter(encoder, {"cup": ["handle", "bowl"]}))
        >>> load_segmenter(folder).part_names
        {'cup': ['handle', 'bowl']}
    """

    def build(meta: dict[str, Any]) -> PointSegmenter:
        spec = meta["encoder"]
        return PointSegmenter(
            build_saved_encoder(spec),
            meta["part_names"],
            dropout=meta["dropout"],
            num_points=meta["num_points"],
            part_labels=meta.get("part_labels"),  # older ones were saved without
        )

    return read_model(folder, KIND, FORMAT, build, "pixcloud segment --save")


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards each module is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode

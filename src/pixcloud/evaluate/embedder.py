"""Stage 9, embedders: a saved encoder, or both towers -> vectors (B, D) of clouds and pictures.

Before it: `pixcloud.export` and `pixcloud.cross_modal`. `pixcloud.evaluate.embed` and `search` use
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixcloud.cross_modal import load_cross_modal
from pixcloud.data.files import read_picture
from pixcloud.evaluate.features import require_points
from pixcloud.export import load_encoder, weights_sha256


@dataclass(kw_only=True)
class Embedder:
    """model: an encoder, or both towers; kind as in `pixcloud.store.About`; dim: D."""

    model: Any
    kind: str
    dim: int
    sha256: str

    def raw(self, clouds: np.ndarray, batch_size: int = 32) -> np.ndarray:
        """Vectors (B, D) float32 of clouds (B, N, 3), centred and scaled first."""
        ask = self.model.embed_points if self.kind == "shared" else self.model.embed
        parts = [
            ask(clouds[start : start + batch_size]).cpu().numpy()
            for start in range(0, len(clouds), batch_size)
        ]
        return np.concatenate(parts)

    def picture(self, path: Path) -> np.ndarray:
        """The vector (1, D) of a picture file, by the picture tower."""
        pixels = read_picture(path, size=self.model.picture_size)
        return self.model.embed_images(np.ascontiguousarray(pixels)[None]).cpu().numpy()


def load_embedder(source: str, kind: str, num_points: int) -> Embedder:
    """What embeds clouds, and pictures where `kind` is "shared".

    Raises:
        WeightsError: if it is missing, damaged, or has no picture tower where one is needed.
        ConfigError: if the encoder needs more points.
    """
    if kind == "shared":
        both = load_cross_modal(source)
        require_points(both.point_encoder, num_points, "num_points")
        model: Any = both
        dim = both.dim
    else:
        encoder = load_encoder(source)
        require_points(encoder, num_points, "num_points")
        model, dim = encoder, encoder.pooled_dim
    model = model.cuda() if torch.cuda.is_available() else model
    return Embedder(model=model, kind=kind, dim=dim, sha256=weights_sha256(model))

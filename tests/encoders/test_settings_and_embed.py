"""Settings that an encoder refuses, and what `embed` takes and gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pixcloud.encoders import build_encoder
from pixcloud.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("dgcnn", {"k": 0}, "settings of encoder dgcnn: k = 0: whole numbers of at least 1"),
        ("dgcnn", {"k": "abc"}, "k = 'abc'"),
        ("dgcnn", {"k": 2.5}, "k = 2.5"),
        ("dgcnn", {"embed_dim": -3}, "embed_dim = -3"),
        ("dgcnn", {"widths": []}, r"widths = \[\]"),
        ("dgcnn_seg", {"widths": [8, 8, 8, 8, 0]}, r"widths = \[8, 8, 8, 8, 0\]: whole numbers"),
        ("pointnet", {"widths": [8, "x"]}, r"widths = \[8, 'x'\]"),
        ("pointnet", {"widths": 8, "embed_dim": True}, "embed_dim = True"),
    ],
)
def test_refused(name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        build_encoder(name, **settings)
    assert "\n" not in str(caught.value)


def test_features_can_be_learned_from() -> None:
    """A classifier on top takes them as they are."""
    encoder = build_encoder("pointnet", embed_dim=8, widths=[4])
    features = encoder.embed(np.random.default_rng(0).normal(size=(3, 20, 3)))
    assert not features.requires_grad
    classifier = nn.Linear(8, 2)
    classifier(features).sum().backward()
    assert classifier.weight.grad is not None


def test_mode_survives_an_error() -> None:
    encoder = build_encoder("dgcnn", k=2, embed_dim=4, widths=[4]).train()
    for points, words in (
        (torch.zeros(0, 3), "without points"),
        (torch.zeros(2, 0, 3), "without points"),
        (torch.full((1, 4, 3), float("inf")), "infinite"),
        (torch.zeros(3), "must be"),
    ):
        with pytest.raises(ValueError, match=words):
            encoder.embed(points)
    assert encoder.training
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    assert encoder.embed(torch.ones(1, 5, 3)).isfinite().all()  # one place five times
    assert all(torch.equal(before[k], v) for k, v in encoder.state_dict().items())

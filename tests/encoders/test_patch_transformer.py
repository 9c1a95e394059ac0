"""The patch transformer: its slow twin, gradients, settings, and every protocol in tiny sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pixcloud import cli
from pixcloud.data.shapenetpart import write_shapenetpart
from pixcloud.encoders import PointEncoder, build_encoder
from pixcloud.errors import ConfigError
from pixcloud.evaluate.features import embed_clouds
from pixcloud.evaluate.results import read_rows
from pixcloud.types import LabelledClouds
from reference.plain_patch_transformer import plain_patch_transformer

SMALL = {
    "width": 12,
    "depth": 2,
    "heads": 3,
    "groups": 6,
    "group_size": 5,
    "mlp_ratio": 2,
    "patch_widths": [4, 6, 8],
}


def small() -> PointEncoder:
    torch.manual_seed(0)
    encoder = build_encoder("patch_transformer", **SMALL).double()
    for _ in range(3):  # running statistics that are not the initial ones
        encoder(torch.randn(4, 20, 3, dtype=torch.double))
    return encoder.eval()


@pytest.mark.parametrize("kind", ["random", "doubled", "few", "far"])
def test_as_written_out(kind: str) -> None:
    encoder = small()
    torch.manual_seed(1)
    points = torch.randn(2, 18, 3, dtype=torch.double)
    if kind == "doubled":  # six patches of nine different points, each of them twice
        points[:, 9:] = points[:, :9]
    if kind == "few":  # fewer different points than patches
        points = points[:, :4].repeat(1, 5, 1)
    if kind == "far":
        points = points + 1000
    with torch.no_grad():
        per_point, pooled = encoder(points)
        sizes = [SMALL[key] for key in ("groups", "group_size", "depth", "heads")]
        slow = plain_patch_transformer(encoder.state_dict(), points, *sizes)
    torch.testing.assert_close(pooled, slow[1], rtol=1e-9, atol=1e-9)
    # Where several centres are the same point, each twin may carry from another of them.
    torch.testing.assert_close(per_point, slow[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_gradients(training: bool) -> None:
    encoder = small().train(training)
    points = torch.randn(2, 12, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(encoder, points, fast_mode=True)


def test_published_sizes() -> None:
    with torch.device("meta"):
        encoder = build_encoder("patch_transformer")
    # By hand: each block 12 width^2 + 10 width; what makes tokens 493,568; places and norm 50,816.
    blocks = 12 * (12 * 384**2 + 10 * 384)
    assert sum(p.numel() for p in encoder.parameters()) == blocks + 493_568 + 50_816
    assert (encoder.point_dim, encoder.pooled_dim, encoder.min_points) == (384, 768, 64)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"heads": 5}, "width = 12: a multiple of heads = 5"),
        ({"patch_widths": [4, 8]}, "three are expected"),
        ({"depth": 0}, "depth = 0"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_encoder("patch_transformer", **{**SMALL, **settings})


def test_clouds_that_are_too_small_are_told() -> None:
    for sizes, words in (
        ({}, r"makes 6 patches of each cloud; .* smaller encoder\.settings\.groups$"),
        (
            {"group_size": 9},
            r"makes patches of 9 points; .* smaller encoder\.settings\.group_size$",
        ),
    ):
        encoder = build_encoder("patch_transformer", **{**SMALL, **sizes})
        with pytest.raises(ConfigError, match=words):
            embed_clouds(encoder, np.zeros((1, 5, 3)), num_points=5)


def labelled(split: str, seed: int) -> LabelledClouds:
    """Rods and discs, with an upper and a lower part each."""
    rng = np.random.default_rng(seed)
    labels, names = np.tile([0, 1], 8), {"rod": ["low", "high"], "disc": ["low", "high"]}
    points = (
        rng.uniform(-1, 1, (16, 40, 3)) * np.array([[0.3, 1, 0.3], [1, 0.1, 1]])[labels][:, None]
    )
    parts = 2 * labels[:, None] + (points[..., 1] > 0)
    return LabelledClouds(
        name="shapes",
        split=split,
        points=points.astype(np.float32),
        labels=labels,
        classes=list(names),
        parts=parts,
        part_names=names,
    )


def test_every_protocol(pair_tree: Path, tmp_path: Path) -> None:
    run, data = str(tmp_path / "run"), tmp_path / "data"
    for split, seed in (("train", 0), ("val", 1), ("test", 2)):
        names = labelled(split, seed).part_names
        assert names is not None
        write_shapenetpart(data, labelled(split, seed), names)
    words = ["pretrain", "--run", run, "--data.source", str(pair_tree), "--data.workers", "0"]
    words += ["--data.num_points", "32", "--data.picture_size", "24", "--image.name", "resnet-tiny"]
    words += ["--encoder.name", "patch_transformer", "--trainer.epochs", "1"]
    words += [
        "--trainer.batch_size",
        "6",
        "--trainer.progress",
        "false",
        "--trainer.precision",
        "32",
    ]
    words += ["--trainer.threads", "1"]
    for key, value in SMALL.items():
        words += [f"--encoder.settings.{key}", str(value)]
    assert cli.main(words) == 0
    one = ["--fit.epochs", "1"]
    few = ["--fewshot.ways", "2", "--fewshot.shots", "2", "--fewshot.queries", "2"]
    few += ["--fewshot.num_points", "32", "--fewshot.trials", "2", *one]
    for protocol in (
        ["probe", "--probe.num_points", "32", "--probe.baselines", "false"],
        ["fewshot", "--protocol", "crosspoint", "--fewshot.baseline", "false", *few],
        ["finetune", "--finetune.num_points", "32", *one],
        ["segment", "--segment.num_points", "32", *one],
    ):
        place = ["--data.source", f"shapenetpart:{data}", "--out", str(tmp_path / "rows.jsonl")]
        assert cli.main([protocol[0], run, *place, *protocol[1:]]) == 0
    protocols = {
        row.protocol.split(",")[0].split(" ")[0] for row in read_rows(tmp_path / "rows.jsonl")
    }
    assert len(protocols) >= 4, protocols

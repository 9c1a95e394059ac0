"""`pixcloud evaluate` after a kill: fractions and trials that were done are not done again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_clouds import (  # noqa: F401 (one_thread is a fixture of the module)
    CLASSES,
    ellipsoids,
    one_thread,
    silent,
)

from pixcloud import cli, load_classifier, load_encoder, load_segmenter, save_encoder
from pixcloud.data.modelnet import write_modelnet
from pixcloud.data.shapenetpart import write_shapenetpart
from pixcloud.encoders import build_encoder
from pixcloud.evaluate import few_shot, finetune, segment
from pixcloud.evaluate.finished import FOLDER, keeping_finished, read_finished, write_finished
from pixcloud.evaluate.results import ResultRow, read_rows
from pixcloud.evaluate.segment_settings import SegmentConfig, SegmentSettings
from pixcloud.evaluate.training_settings import FinetuneConfig, FinetuneSettings, FitSettings
from pixcloud.export import weights_sha256
from pixcloud.types import LabelledClouds

FINETUNE = [
    *("--protocols", "[finetune]", "--finetune.fractions", "[0.25,0.5,1]"),
    *("--finetune.num_points", "40", "--finetune.votes", "2", "--baseline", "scratch"),
    *("--fit.epochs", "2", "--fit.batch_size", "16"),
]
FEW_SHOT = [
    *("--protocols", "[fewshot-point-bert]", "--fewshot.num_points", "40", "--fewshot.ways", "2"),
    *("--fewshot.shots", "2", "--fewshot.queries", "3", "--fewshot.trials", "3"),
    *("--fit.epochs", "2", "--fit.batch_size", "4"),
]
SEGMENT = [
    *("--protocols", "[segment]", "--segment.fractions", "[0.25,0.5,1]"),
    *("--segment.num_points", "40", "--baseline", "scratch"),
    *("--fit.epochs", "2", "--fit.batch_size", "16"),
]
PARTS = {name: ["lower", "upper"] for name in CLASSES}


def with_parts(split: str, seed: int) -> LabelledClouds:
    """Ellipsoids whose upper and lower halves are parts."""
    clouds = ellipsoids(split, seed)
    parts = 2 * clouds.labels[:, None] + (clouds.points[..., 1] > 0)
    return dataclasses.replace(clouds, parts=parts, part_names=PARTS)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled clouds `data`, those with parts `parts`, and an encoder `e`."""
    root = tmp_path_factory.mktemp("killed")
    for number, split in enumerate(("train", "test")):
        write_modelnet(root / "data", ellipsoids(split, number))
        write_shapenetpart(root / "parts", with_parts(split, number), PARTS)
    save_encoder(root / "e", build_encoder("pointnet", embed_dim=16, widths=[8]))
    return root


class Fits:
    """Counts calls of `fit`, and is killed at the one with a number."""

    def __init__(self, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.real, self.calls, self.killed_at = module.fit, 0, 0
        monkeypatch.setattr(module, "fit", self)

    def __call__(self, *given: Any, **more: Any) -> Any:
        self.calls += 1
        if self.calls == self.killed_at:
            raise KeyboardInterrupt
        return self.real(*given, **more)


def told(rows: list[ResultRow]) -> list[ResultRow]:
    """Rows without what is not of the weights, data and settings; outcomes are named by content."""
    return [
        dataclasses.replace(row, seconds=0, extra={"outcomes": row.extra.get("outcomes")})
        for row in rows
    ]


@pytest.mark.parametrize(
    ("module", "data", "words"),
    [
        (finetune, "data", FINETUNE),
        (few_shot, "data", FEW_SHOT),
        (segment, "shapenetpart:parts", SEGMENT),
    ],
)
def test_what_was_done_is_not_done_again(
    module: Any,
    data: str,
    words: list[str],
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    fits, out = Fits(module, monkeypatch), tmp_path / "r.jsonl"

    def evaluate(out: Path, *more: str) -> int:
        fits.calls = 0
        source = ["--data.source", data, "--out", str(out)]
        return cli.main(["evaluate", "e", *source, *words, *more])

    assert evaluate(tmp_path / "whole.jsonl") == 0
    whole = read_rows(tmp_path / "whole.jsonl")
    assert fits.calls == 6
    fits.killed_at = 4
    assert evaluate(out) == 130
    assert not out.exists()
    assert len(list((tmp_path / FOLDER).rglob("*.npz"))) == 3
    fits.killed_at = 2
    assert evaluate(out) == 130  # one more is done by then
    capsys.readouterr()
    fits.killed_at = 0
    assert evaluate(out) == 0
    assert fits.calls == 2
    assert capsys.readouterr().err.count("done before, by a call that did not end") == 4
    assert told(read_rows(out)) == told(whole)
    assert not (tmp_path / FOLDER).exists()
    # Other settings are another request, and share nothing with it.
    fits.killed_at = 2
    assert evaluate(out, "--fit.epochs", "1") == 130
    assert evaluate(out, "--fit.epochs", "3") == 130
    assert len(list((tmp_path / FOLDER).iterdir())) == 2
    fits.killed_at = 0
    assert evaluate(out, "--fit.epochs", "3") == 0
    assert fits.calls == 5
    assert len(list((tmp_path / FOLDER).iterdir())) == 1


def test_what_is_to_be_saved_is_trained(place: Path, tmp_path: Path) -> None:
    """A part that was kept has no weights: none of it stands in for what is to be saved."""
    encoder = load_encoder(str(place / "e"))
    saved = {"encoder": "", "baseline": "scratch", "fit": FitSettings(epochs=1, batch_size=16)}
    of_parts = SegmentConfig(**saved, segment=SegmentSettings(num_points=40))
    of_labels = FinetuneConfig(**saved, finetune=FinetuneSettings(num_points=40))
    runs: list[tuple[Any, Any, Any]] = [
        (segment.run_segment, of_parts, load_segmenter),
        (finetune.run_finetune, of_labels, load_classifier),
    ]
    clouds = with_parts("train", 0), with_parts("test", 1)
    for number, (run, config, load) in enumerate(runs):
        said: list[str] = []
        with keeping_finished(tmp_path / "r.jsonl", str(number)):
            first = run(encoder, "e", *clouds, config, say=silent)
            config = dataclasses.replace(config, save=f"{tmp_path}/{number}")
            again = run(encoder, "e", *clouds, config, say=said.append)
        assert [line.partition(",")[0] for line in said if "done before" in line] == ["scratch"]
        assert told(again.rows) == told(first.rows)
        shas = {row.settings["model_sha256"] for row in again.rows if row.encoder == "e"}
        assert shas == {weights_sha256(load(tmp_path / str(number)))}


def test_a_damaged_part_is_done_again(tmp_path: Path) -> None:
    write_finished("a", {"share": 1})  # kept nowhere
    assert read_finished("a") is None

    def killed() -> None:
        with keeping_finished(tmp_path / "r.jsonl", "request"):
            write_finished("a", {"share": 0.5, "passes": np.ones((2, 3), np.float32)})
            found = read_finished("a", lambda line: None)
            assert found is not None
            assert found["share"] == 0.5
            assert found["passes"].dtype == np.float32
            assert read_finished("b") is None
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    (path,) = (tmp_path / FOLDER).rglob("*.npz")
    path.write_bytes(path.read_bytes()[:50])
    with keeping_finished(tmp_path / "r.jsonl", "request"):
        assert read_finished("a") is None
    assert not (tmp_path / FOLDER).exists()

"""`pixcloud evaluate` after a kill: fractions and trials that were done are not done again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_clouds import ellipsoids, one_thread  # noqa: F401 (a fixture of the module)

from pixcloud import cli, save_encoder
from pixcloud.data.modelnet import write_modelnet
from pixcloud.encoders import build_encoder
from pixcloud.evaluate import few_shot, finetune
from pixcloud.evaluate.finished import FOLDER, keeping_finished, read_finished, write_finished
from pixcloud.evaluate.results import ResultRow, read_rows

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


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled clouds `data` and an encoder `e`."""
    root = tmp_path_factory.mktemp("killed")
    for number, split in enumerate(("train", "test")):
        write_modelnet(root / "data", dataclasses.replace(ellipsoids(split, number), split=split))
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
    """Rows without what is not of the weights, data and settings."""
    return [dataclasses.replace(row, seconds=0, extra={}) for row in rows]


@pytest.mark.parametrize(("module", "words"), [(finetune, FINETUNE), (few_shot, FEW_SHOT)])
def test_what_was_done_is_not_done_again(
    module: Any,
    words: list[str],
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fits, out = Fits(module, monkeypatch), tmp_path / "r.jsonl"

    def evaluate(out: Path, *more: str) -> int:
        fits.calls = 0
        source = ["--data.source", f"{place}/data", "--out", str(out)]
        return cli.main(["evaluate", f"{place}/e", *source, *words, *more])

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

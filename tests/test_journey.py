"""From nothing to a table and a page through the command line, on a small embedded set."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pixcloud import cli
from pixcloud.data.synthetic import SyntheticSettings, ensure_synthetic
from pixcloud.evaluate.results import read_rows

SETTINGS = SyntheticSettings(
    pairs=4, views=2, size=32, train=6, val=1, test=5, points=128, categories=4
)
FLAGS = [
    *("--data.num_points", "64", "--data.picture_size", "32", "--data.workers", "0"),
    *("--encoder.name", "pointnet", "--encoder.settings", '{"embed_dim": 32, "widths": [16]}'),
    *("--image.name", "resnet-tiny", "--trainer.batch_size", "8", "--trainer.epochs", "3"),
]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_synthetic(tmp_path_factory.mktemp("embedded"), settings=SETTINGS, workers=1)


def test_pretrain_probe_report(
    embedded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert cli.main(["pretrain", "--run", str(run), "--data.source", str(embedded), *FLAGS]) == 0
    probe = ["probe", str(run), "--data.source", str(embedded), "--probe.num_points", "100"]
    assert cli.main(probe) == 0
    first = capsys.readouterr()
    assert "95 % interval" in first.out
    rows = [row for row in read_rows(run / "results.jsonl") if row.metric == "accuracy"]
    names = {row.encoder for row in rows}
    assert names == {str(run), f"{run}, untrained", "shape distributions (hand-made)"}
    for row in rows:
        assert row.n == 20
        assert row.ci95 is not None
        assert row.ci95[0] <= row.value <= row.ci95[1]
        assert {"published" in r.protocol for r in rows if r.encoder == str(run)} == {True, False}

    assert cli.main(probe) == 0
    second = capsys.readouterr()
    assert second.err.count("read from the cache") >= 4, "features were computed again"
    assert "embedded in" not in second.err
    again = [row for row in read_rows(run / "results.jsonl") if row.metric == "accuracy"]
    assert [row.value for row in again] == [row.value for row in rows] * 2

    assert cli.main(["report", str(run)]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<html" in page
    assert "untrained" in page


def test_selection_reads_no_test_split(embedded: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(embedded, data)
    for file in data.glob("modelnet40_ply_hdf5_2048/*test*"):
        file.unlink()
    run = tmp_path / "run"
    words = ["pretrain", "--run", str(run), "--data.source", f"pairs:{data}", *FLAGS]
    assert cli.main([*words, "--trainer.probe_every", "2"]) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    probed = {x["epoch"]: x["probe_validation"] for x in lines if "probe_validation" in x}
    assert set(probed) == {1, 2}, "every second epoch and the last"
    origin = json.loads((run / "encoder" / "config.json").read_text())["origin"]
    assert origin["probe_validation"] == max(probed.values())
    assert probed[origin["epoch"]] == max(probed.values())


def test_selection_names_its_source(
    embedded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = ["pretrain", "--run", str(run), "--data.source", str(embedded), *FLAGS]
    words += ["--trainer.probe_every", "1", "--trainer.probe_source", str(tmp_path / "none")]
    assert cli.main(words) == 2
    assert "trainer.probe_source" in capsys.readouterr().err
    assert not run.exists()

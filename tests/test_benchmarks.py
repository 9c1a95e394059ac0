"""Every benchmark runs, at tiny sizes, and its report has what tables and plots take from it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import document, floor, plot, store, store_features  # noqa: E402
from benchmarks.__main__ import NAMES  # noqa: E402


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """As a person runs them, into one file."""
    out = tmp_path_factory.mktemp("benchmarks") / "reports.jsonl"
    command = [sys.executable, "-m", "benchmarks", "all", "--small", "--rounds", "1", "--json"]
    done = subprocess.run(
        [*command, "--out", str(out)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == len(NAMES)
    return document.read_reports(out)


def test_each_reports_times_ratio_floor_and_memory(reports: dict[str, dict[str, Any]]) -> None:
    assert tuple(reports) == NAMES
    for name in ("knn", "edgeconv", "dgcnn-train", "dgcnn-embed", "dgcnn-seg-train"):
        for result in reports[name]["results"].values():
            assert set(result["seconds"]) == {"textbook", "ours"}
            assert result["ratio"]["ours"]["median"] > 0
            assert result["floor_seconds"] > 0
    (train,) = reports["dgcnn-train"]["results"].values()
    assert set(train["peak_mib"]) == {"textbook", "ours"}
    (probe,) = reports["probe"]["results"].values()
    assert probe["same_predictions"] is True
    assert set(reports["points-scaling"]["results"]) == {"128", "256"}


def test_the_page_is_made_of_a_run(
    reports: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "performance.md"
    page.write_text(document.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    kept = tmp_path / "reports.jsonl"
    kept.write_text("".join(json.dumps(report) + "\n" for report in reports.values()))
    monkeypatch.setattr(document, "PAGE", page)
    monkeypatch.setattr(document, "IMAGES", tmp_path / "images")
    monkeypatch.setattr(sys, "argv", ["document", str(kept)])
    assert document.main() == 0
    text = page.read_text(encoding="utf-8")
    assert "| `dgcnn-train` | 2 clouds, 128 points, k 5 |" in text
    assert text.count("![") == 2
    for name in ("ratios", "scaling"):
        picture = (tmp_path / f"images/performance-{name}.svg").read_text(encoding="utf-8")
        assert picture.startswith("<svg")
        assert "nan" not in picture


def test_a_page_without_its_marks_is_named() -> None:
    with pytest.raises(ValueError, match="has no part marked 'machines'"):
        document.fill("no marks", "machines", [])


def test_the_count_of_operations_of_dgcnn() -> None:
    """8 clouds of 2,048 points in the published sizes, by hand."""
    rows, widths = 8 * 2048, (64, 64, 128, 256)
    edges = 2 * (3 * 64 + 64 * 64 + 64 * 128 + 128 * 256)
    distances = 2048 * (3 + 64 + 64 + 128)
    forward, covariance, linear, bits = 2 * 512 * 1024, 512 * 513, 2 * 512 * 512, 512 * 1024 / 2
    cost = floor.dgcnn_cost(8, 2048, widths, 1024, 15, training=True)
    last = forward + covariance + linear + bits
    assert cost.operations == rows * (2 * 3 * edges + distances + last)
    cost = floor.dgcnn_cost(8, 2048, widths, 1024, 15, training=False)
    assert cost.operations == rows * (2 * edges + distances + forward)


def test_a_store_of_an_encoders_vectors(
    held_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "features.npy"
    words = [str(held_run), str(out), "--count", "400", "--points", "32", "--workers", "1"]
    assert store_features.main(words) == 0
    features = np.load(out)
    assert features.shape == (400 + store_features.QUERIES, 8)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    assert len(np.unique(features, axis=0)) == len(features)
    again = store_features.features(str(held_run), 600, points=32, workers=1)
    np.testing.assert_array_equal(features, again)
    store.main(str(out), queries=20)
    assert "580 vectors, of an encoder: recall at 10" in capsys.readouterr().out


def test_a_store_of_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert store_features.main([str(tmp_path / "none"), str(tmp_path / "features.npy")]) == 2
    assert "no such folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        store_features.main([str(tmp_path), str(tmp_path / "features.npy"), "--count", "6"])
    assert "expected a multiple of 4" in capsys.readouterr().err


def test_a_bar_with_and_without_a_goal() -> None:
    picture = plot.ratio_bars([("a < b", 3.0, 14.0, 20.0), ("c", 0.5, None, 2.0)])
    assert "a &lt; b" in picture
    assert picture.count("<rect") == 3

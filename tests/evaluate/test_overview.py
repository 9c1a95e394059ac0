"""One table of everything that `pixcloud evaluate` measured of one encoder."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from small_clouds import ellipsoids, one_thread  # noqa: F401 (a fixture of the module)

from pixcloud import cli, save_encoder
from pixcloud.data.modelnet import write_modelnet
from pixcloud.encoders import build_encoder
from pixcloud.evaluate.overview import HEADING
from pixcloud.evaluate.probe import DESCRIPTOR
from pixcloud.evaluate.results import ResultRow, read_rows

QUICK = [
    *("--probe.num_points", "40", "--probe.threads", "1", "--fewshot.num_points", "40"),
    *("--fewshot.ways", "2", "--fewshot.shots", "2", "--fewshot.queries", "3"),
    *("--fewshot.trials", "2", "--fit.epochs", "1", "--fit.batch_size", "4"),
]
WAYS = (
    "CrossPoint: queries from train, frozen, SVM",
    "Point-BERT: queries from test, fine-tuned",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled clouds `data` and an encoder `e`."""
    root = tmp_path_factory.mktemp("whole")
    for number, split in enumerate(("train", "test")):
        write_modelnet(root / "data", ellipsoids(split, number))
    save_encoder(root / "e", build_encoder("pointnet", embed_dim=16, widths=[8]))
    return root


def sections(path: Path) -> dict[str, list[dict[str, str]]]:
    """Title -> rows of its table, each a column's heading -> cell."""
    found = {}
    for section in path.read_text().split("## ")[1:]:
        title, _, text = section.partition("\n")
        lines = [line for line in text.splitlines() if line.startswith("|")]
        heading, _, *rows = ([cell.strip() for cell in line[1:-1].split(" | ")] for line in lines)
        found[title] = [dict(zip(heading, row, strict=True)) for row in rows]
    return found


def told(row: ResultRow) -> tuple[str, ...]:
    interval = f"{100 * row.ci95[0]:.1f} to {100 * row.ci95[1]:.1f}" if row.ci95 else ""
    metric, value = row.metric.replace("_", " "), f"{100 * row.value:.1f}"
    origin = (str(row.n), str(row.seed), f"{row.dataset} {row.split}")
    return row.protocol, metric, row.encoder, value, interval, *origin


def test_every_row_is_in_the_table_once(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", f"{place}/e", "--data.source", f"{place}/data", *QUICK]
    words += ["--out", f"{tmp_path}/r.jsonl", "--table", f"{tmp_path}/deep/t.md"]
    words += ["--protocols", "[probe,fewshot,fewshot-point-bert,retrieve]", "--fewshot.seed", "3"]
    assert cli.main(words) == 0
    shown, err = capsys.readouterr()
    assert f"table written to {tmp_path}/deep/t.md" in err
    found, rows = sections(tmp_path / "deep" / "t.md"), read_rows(tmp_path / "r.jsonl")
    assert list(found) == [
        "All results",
        *(f"All results, {kind}" for kind in (*WAYS, "retrieval")),
    ]
    cells = [tuple(row[name] for name in HEADING) for own in found.values() for row in own]
    assert sorted(cells) == sorted(told(row) for row in rows)
    assert {row["encoder"] for row in found["All results"]} == {
        f"{place}/e",
        f"{place}/e, untrained",
        DESCRIPTOR,
    }
    for way, other in (WAYS, WAYS[::-1]):
        own = [row["protocol"] for row in found[f"All results, {way}"]]
        assert own
        assert all(way in name and other not in name for name in own)
        assert {row["seed"] for row in found[f"All results, {way}"]} == {"3"}
    # Of one number the baselines stand right below the encoder.
    kinds = [(row["protocol"], row["metric"]) for row in found["All results"]]
    changes = sum(a != b for a, b in itertools.pairwise(kinds))
    assert changes == len(set(kinds)) - 1
    chances = [row["chance"] for row in found["All results, retrieval"]]
    by_row = [f"{100 * row.settings['chance']:.2f}" for row in rows if row.protocol == "retrieval"]
    assert sorted(chances) == sorted(by_row)
    # The terminal ends with the same tables; read from the file, nothing changes.
    last = shown[shown.index("All results") :]
    assert [line.strip() for line in last.splitlines() if "All results" in line] == list(found)
    values = [line.split("│")[4].strip() for line in last.splitlines() if line.startswith("│")]
    assert [each for each in values if each] == [
        row["value"] for own in found.values() for row in own
    ]
    written = (tmp_path / "deep" / "t.md").read_bytes()
    assert cli.main(words) == 0
    assert capsys.readouterr().out == shown
    assert (tmp_path / "deep" / "t.md").read_bytes() == written


def test_rules_of_parts_and_names_with_bars(
    tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(8):
        points = np.random.default_rng(number).normal(size=(40, 3))
        (tmp_path / "mine" / "mug").mkdir(parents=True, exist_ok=True)
        path = tmp_path / "mine" / "mug" / f"{number}.npz"
        np.savez(path, points=points, labels=points[:, 1] > 0)
    (tmp_path / "a|b").symlink_to(place / "e")
    words = ["evaluate", f"{tmp_path}/a|b", "--data.source", f"folder:{tmp_path}/mine"]
    words += ["--protocols", "[segment]", "--segment.num_points", "32", "--fit.epochs", "1"]
    words += ["--out", f"{tmp_path}/r.jsonl", "--table", f"{tmp_path}/t.md"]
    assert cli.main(words) == 0
    assert "All results, any part" in capsys.readouterr().out
    found = sections(tmp_path / "t.md")
    assert list(found) == ["All results, parts of the category", "All results, any part"]
    for own in found.values():
        metrics = [row["metric"] for row in own]
        assert metrics == ["instance mIoU", "class mIoU", "point accuracy"]
        assert all(row["encoder"] == f"{tmp_path}/a\\|b" for row in own)


def test_a_table_that_cannot_be_written(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder is told before any work; what fails later loses no row."""
    words = ["evaluate", f"{place}/e", "--data.source", f"{place}/data", *QUICK]
    words += ["--protocols", "[fewshot]", "--out", f"{tmp_path}/r.jsonl", "--table"]
    assert cli.main([*words, str(tmp_path)]) == 2
    assert f"error: table: {tmp_path} is a folder; name a file" in capsys.readouterr().err
    assert not (tmp_path / "r.jsonl").exists()
    (tmp_path / "file").write_text("in the way")
    assert cli.main([*words, f"{tmp_path}/file/t.md"]) == 2
    assert f"{tmp_path}/file/t.md: the table was not written" in capsys.readouterr().err
    assert len(read_rows(tmp_path / "r.jsonl")) == 2

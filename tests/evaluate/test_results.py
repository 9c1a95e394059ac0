"""results.jsonl: what is appended is read back, a broken line is named, nothing is half-written."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest
from rich.console import Console

from pixcloud.errors import FileFormatError, ResultsError
from pixcloud.evaluate.results import ResultRow, append_rows, format_table, read_rows


def row(**changes: object) -> ResultRow:
    values = {
        "protocol": "svm C=0.01 (published)",
        "dataset": "modelnet40",
        "split": "test",
        "metric": "accuracy",
        "value": 0.912,
        "ci95": (0.9, 0.92),
        "n": 2468,
        "seed": 0,
        "encoder": "dgcnn é",
        "encoder_sha256": "ab" * 32,
        "settings": {"c": 0.01, "grid": [1, 2.5]},
        "seconds": 3.5,
    }
    return ResultRow(**{**values, **changes})


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.jsonl"
    rows = [row(), row(ci95=None, extra={"note": "of a later version"}), row(value=1)]
    append_rows(path, rows[:2])
    append_rows(path, rows[2:])
    append_rows(path, [])
    assert read_rows(path) == rows
    keys = list(json.loads(path.read_text(encoding="utf-8").splitlines()[0]))
    assert keys[:7] == ["protocol", "dataset", "split", "metric", "value", "ci95", "n"]
    assert keys[7:] == [
        "seed",
        "encoder",
        "encoder_sha256",
        "settings",
        "seconds",
        "pixcloud_version",
    ]


@pytest.mark.parametrize("length", [1, 20, 5000])
@pytest.mark.parametrize("before", [0, 2])
def test_a_last_line_that_a_kill_cut_off_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], length: int, before: int
) -> None:
    path, rows = tmp_path / "results.jsonl", [row(seed=seed) for seed in range(before)]
    append_rows(path, [*rows, row(settings={"c": "é" * 3000})])
    whole = path.read_bytes()
    start = len(b"".join(whole.splitlines(keepends=True)[:before]))
    path.write_bytes(whole[: start + length])  # 5000: in the middle of a letter of two bytes
    assert read_rows(path) == rows
    assert f"results.jsonl, line {before + 1}: cut off" in capsys.readouterr().err
    append_rows(path, [row(seed=7)])
    assert "a last line that was cut off is removed" in capsys.readouterr().err
    assert read_rows(path) == [*rows, row(seed=7)]


def test_a_last_line_that_only_lacks_its_end_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_rows(path, [row()])
    path.write_bytes(path.read_bytes()[:-1])
    assert read_rows(path) == [row()]
    append_rows(path, [row(seed=7)])
    assert read_rows(path) == [row(), row(seed=7)]


def test_lines_end_where_a_row_does(tmp_path: Path) -> None:
    path, strange = tmp_path / "results.jsonl", row(encoder="one\u2028and\x85another")
    append_rows(path, [strange])
    assert read_rows(path) == [strange]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", "line 2: expected an object, found list"),
        ('{"protocol": "svm"}', "line 2: no row of results; missing: dataset, split"),
        ("\n{\n", "line 3: broken"),
        ('{"protocol": "s\n{}', "line 2: broken, perhaps cut off"),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "results.jsonl"
    append_rows(path, [row()])
    with open(path, "a") as stream:
        stream.write(line)
    with pytest.raises(FileFormatError, match=message):
        read_rows(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ci95": [0.1]}, "ci95 must be"),
        ({"value": "high"}, "value must be a number"),
        ({"settings": 3}, "settings an object"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, changes: dict, message: str) -> None:
    path = tmp_path / "results.jsonl"
    append_rows(path, [row()])
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes))
    with pytest.raises(FileFormatError, match=message):
        read_rows(path)


def test_missing_and_binary_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"none.jsonl: missing"):
        read_rows(tmp_path / "none.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileFormatError, match="not text in UTF-8"):
        read_rows(tmp_path / "binary.jsonl")


def test_a_number_that_is_none_is_refused_and_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_rows(path, [row()])
    with pytest.raises(ValueError, match="JSON"):
        append_rows(path, [row(), row(value=float("nan"))])
    assert read_rows(path) == [row()]


def test_a_full_disk_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.jsonl"
    append_rows(path, [row()])
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, content: write(handle, content[:10]))
    with pytest.raises(ResultsError, match="No space left on device"):
        append_rows(path, [row()])
    monkeypatch.undo()
    assert read_rows(path) == [row()]


def append_many(path: Path, seed: int) -> None:
    for n in range(50):
        append_rows(path, [row(seed=seed, n=n), row(seed=seed, n=n)])


def test_several_processes_append_whole_rows(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=append_many, args=(path, seed)) for seed in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    rows = read_rows(path)
    for seed in range(2):
        assert [r.n for r in rows if r.seed == seed] == [n for n in range(50) for _ in range(2)]


def printed(rows: list[ResultRow]) -> str:
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(format_table(rows))
    return capture.get()


def test_table_shows_values_and_what_they_share() -> None:
    text = printed([row(), row(metric="class_mean_accuracy", ci95=None)])
    assert "91.2" in text
    assert "90.0 to 92.0" in text
    assert "class mean accuracy" in text
    assert text.count("modelnet40 test, 2,468 samples, seed 0") == 1
    assert "synthetic" not in text


def test_table_says_that_data_are_synthetic() -> None:
    invented = row(dataset="synthetic")
    assert "Results (synthetic data)" in printed([invented])
    assert "Results (partly synthetic data)" in printed([invented, row()])


@pytest.mark.parametrize("place", ["/dev/full", "occupied/results.jsonl"])
def test_a_place_that_cannot_be_written_is_named(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "occupied").write_text("a file, where a folder is wanted")
    if place == "/dev/full" and not Path(place).exists():
        pytest.skip("no device that is always full")
    with pytest.raises(ResultsError, match=r"were not written .*or give another place"):
        append_rows(Path(place), [row()])

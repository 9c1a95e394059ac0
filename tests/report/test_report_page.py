"""The page as a whole: what it holds, that it is safe and complete, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pixcloud.cli import main
from pixcloud.errors import CheckpointError, ConfigError, FileFormatError
from pixcloud.evaluate.results import read_rows
from pixcloud.report.page import report

MakeRun = Callable[..., Path]
VOID = {"br", "img", "meta"}


class Page(HTMLParser):
    """A page taken apart: elements, their attributes, visible text and embedded data."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.scripts, self.data = "", 0, {}
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self._open, "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        opened, attributes = self._open.pop()
        assert opened == tag
        if tag == "script" and attributes.get("type") != "application/json":
            self.scripts += 1

    def handle_data(self, data: str) -> None:
        kind, attributes = self._open[-1] if self._open else ("", {})
        if kind == "script" and attributes.get("type") == "application/json":
            self.data[attributes["id"]] = json.loads(data)
        elif kind not in ("script", "style"):
            self.text += data + " "

    @property
    def sections(self) -> list[str | None]:
        return [attributes.get("id") for tag, attributes in self.elements if tag == "section"]


@pytest.mark.parametrize("kind", [str, Path])
def test_one_run_without_a_list(make_run: MakeRun, kind: type) -> None:
    run = make_run("first")
    assert report(kind(run)) == f"the report is in {run / 'report.html'}"
    assert "pre-training run" in Page(run / "report.html").text
    with pytest.raises(CheckpointError, match="r1: no such run folder"):
        report("r1")
    with pytest.raises(ConfigError, match="at least one run folder"):
        report("")


def test_whole_run(make_run: MakeRun) -> None:
    run = make_run("first")
    assert report([str(run)]) == f"the report is in {run / 'report.html'}"
    page = Page(run / "report.html")
    assert page.sections == ["results", "data", "curves", "features", "provenance"]
    for words in (
        "75.0",
        "95 %: 55.1 to 88.0 %",
        "+25.0 points against the same encoder untrained (the intervals overlap)",
        "+50.0 points against the descriptor.",
        "complete: 3 of 3 epochs",
        "2025-01-02 03:04:05 to 2025-01-02 03:09:05",
        "--trainer.batch_size 4",
        "class mean accuracy",
        "all of them",
        "3 min 0 s",
    ):
        assert words in page.text, words
    assert "What is missing" not in page.text
    assert {"figure-bars", "figure-losses", "figure-map0", "figure-map1", "clouds"} <= set(
        page.data
    )
    names = {trace["name"].split(":")[0] for trace in page.data["figure-losses"]["data"]}
    assert names == {"intra-modal", "cross-modal"}
    canvases = {a["data-cloud"] for tag, a in page.elements if tag == "canvas"}
    assert canvases == set(page.data["clouds"])
    assert sum(name.startswith("pair") for name in canvases if name) == 8
    bars = page.data["figure-bars"]["data"][0]
    assert bars["x"][-1] == 0.75
    assert bars["error_x"]["array"][-1] == pytest.approx(0.13)


def test_page_is_complete_and_safe(make_run: MakeRun) -> None:
    run = make_run("<b>odd & 'name'")
    report([str(run)])
    page = Page(run / "report.html")
    for tag, attributes in page.elements:
        for key in ("src", "href", "data", "poster", "action", "srcset", "style"):
            value = attributes.get(key) or ""
            assert "http" not in value, (tag, key)
            assert not value.startswith("//")
        assert not any(key.startswith("on") for key in attributes)
        assert tag not in ("link", "iframe", "object", "b")
        if tag == "img":
            assert (attributes["src"] or "").startswith("data:image/png;base64,")
            assert attributes["alt"]
    assert page.scripts == 2  # Plotly and the page's own: no name became a script
    assert "<script>alert(1)</script>" in page.text  # as words
    hover = [t for trace in page.data["figure-map0"]["data"] for t in trace["text"]]
    assert any(text.startswith("&lt;script&gt;") for text in hover)
    policy = [a["content"] for t, a in page.elements if a.get("http-equiv")]
    assert policy[0]
    assert "default-src 'none'" in policy[0]
    identifiers = [a["id"] for _, a in page.elements if "id" in a]
    assert len(identifiers) == len(set(identifiers))


def test_same_run_same_page(make_run: MakeRun) -> None:
    run = make_run()
    report([str(run)])
    first = (run / "report.html").read_bytes()
    report([str(run)])
    assert (run / "report.html").read_bytes() == first


def test_run_without_results_and_encoder(make_run: MakeRun) -> None:
    run = make_run(epochs_done=1, encoder=False, rows=False)
    with open(run / "metrics.jsonl", "a") as stream:
        stream.write('{"kind": "st')  # a kill cut the line short
    report([str(run)])
    page = Page(run / "report.html")
    assert page.sections == ["results", "data", "curves", "provenance"]
    for words in (
        "What is missing",
        "1 of 3 epochs complete",
        "There is no encoder yet",
        "There are no evaluation results yet",
        "not finished",
        f"pixcloud pretrain --run {run} --resume true",
    ):
        assert words in page.text, words


def test_run_in_its_first_epoch(make_run: MakeRun) -> None:
    run = make_run(epochs_done=0, encoder=False, rows=False)
    report([str(run)])
    text = Page(run / "report.html").text
    assert "Last losses: step 1: intra 1.000, cross 2.000." in text


def test_data_that_has_gone(make_run: MakeRun, tmp_path: Path) -> None:
    gone = f"pairs:{tmp_path / 'gone'}"
    run = make_run(data={"source": gone})
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("probe_source: tiny:", "probe_source: tiny:/no"))
    report([str(run)])
    page = Page(run / "report.html")
    assert "No pairs to show" in page.text
    assert "No feature maps" in page.text
    assert "clouds" not in page.data


def test_results_of_other_weights(make_run: MakeRun) -> None:
    run = make_run()
    results = run / "results.jsonl"
    sha256 = read_rows(results)[0].encoder_sha256
    results.write_text(results.read_text().replace(sha256, "2" * 64))
    report([str(run)])
    text = Page(run / "report.html").text
    assert "The results are of other weights" in text
    assert "(not this run's encoder)" in text


def test_damaged_encoder_is_named(make_run: MakeRun) -> None:
    run = make_run()
    (run / "encoder" / "config.json").write_text("{")
    report([str(run)])
    assert "The encoder cannot be read" in Page(run / "report.html").text


@pytest.mark.parametrize("where", ["pairs", "labels"])
def test_synthetic_badge(
    make_run: MakeRun, where: str, pair_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("plain")
    report([str(run)])
    assert "synthetic data" not in Page(run / "report.html").text
    if where == "pairs":
        config = run / "config.yaml"
        config.write_text(config.read_text().replace(f"pairs:{pair_tree}", "synthetic"))
        from pixcloud.data import sources

        known = sources.parse_source

        def parse(source: str, key: str = "") -> tuple[str, Path]:
            return ("pairs", pair_tree) if source == "synthetic" else known(source, key)

        monkeypatch.setattr(sources, "parse_source", parse)
    else:
        results = run / "results.jsonl"
        results.write_text(results.read_text().replace('"tiny"', '"synthetic"'))
    report([str(run)])
    page = Page(run / "report.html")
    assert "synthetic data" in page.text
    assert ("li", {"class": "warn"}) in page.elements


def test_several_runs(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [
        make_run("a/run"),
        make_run("b/run", seed=7, optim={"lr": 0.5}),
        make_run("c", epochs_done=1, encoder=False, rows=False),
    ]
    assert report([str(run) for run in runs]) == "the report is in report.html"
    page = Page(tmp_path / "report.html")
    assert page.sections == ["summary", "results", "curves", "settings"]
    assert "optim.lr" in page.text
    assert "seed" in page.text
    assert str(runs[0]) in page.text  # two folders have the same name
    assert "c: " in page.text
    names = {trace["name"] for trace in page.data["figure-losses"]["data"]}
    assert {"c: intra", "c: cross"} < names
    assert len(names) == 6


def test_command_line(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(make_run(name)) for name in ("one", "two")]
    out = tmp_path / "deep" / "x.html"
    assert main(["report", *runs, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"the report is in {out}\n"
    assert "2 runs side by side" in Page(out).text
    assert main(["report"]) == 2
    assert "required: runs" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no such run folder" in error


def test_what_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    with pytest.raises(ConfigError, match="at least one run folder"):
        report([])
    with pytest.raises(ConfigError, match="is a folder; give a file"):
        report([str(run)], out=str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written .* --out"):
        report([str(run)], out=str(tmp_path / "file" / "x.html"))
    (run / "results.jsonl").write_text('{"protocol": 1}\n')
    with pytest.raises(FileFormatError, match=r"results\.jsonl, line 1: no row of results"):
        report([str(run)])
    (run / "results.jsonl").unlink()
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: holds no line yet"):
        report([str(run)])
    (run / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(CheckpointError, match="no line of kind step or epoch"):
        report([str(run)])
    (run / "metrics.jsonl").unlink()
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: missing"):
        report([str(run)])
    shutil.rmtree(run)
    with pytest.raises(CheckpointError, match="no such run folder"):
        report([str(run)])
    assert not list(tmp_path.rglob("*.html"))

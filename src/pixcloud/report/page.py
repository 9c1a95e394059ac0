"""Stage 10, the page: run folders -> one HTML file that needs no network.

`report` reads from top to bottom: records, sections, page. The parts are in the modules beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from pixcloud._version import __version__
from pixcloud.atomic import write_text
from pixcloud.errors import ConfigError, PixCloudError
from pixcloud.report import compare, sections
from pixcloud.report.clouds import CloudStore
from pixcloud.report.gallery import gallery
from pixcloud.report.markup import Html, join, section, tag
from pixcloud.report.provenance import provenance
from pixcloud.report.record import RunRecord, read_record

# The browser itself refuses whatever is not in the file.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)
LINKS = {
    "summary": "At a glance",
    "results": "Results",
    "data": "Pairs",
    "curves": "Curves",
    "features": "Features",
    "settings": "Settings",
    "provenance": "How it was made",
}


def report(runs: list[str] | str | Path, out: str = "") -> str:
    """One page about a run, or about several side by side, in a single file for any browser.

    Args:
        runs: run folders, or one alone; they may be unfinished, or without results.
        out: the HTML file; by default report.html in the run, or here for several runs.

    Returns:
        A line that names the file.

    Raises:
        CheckpointError: if a run folder is missing or has no metrics yet.
        PixCloudError: if a file in it is damaged.

    Example:
        >>> report("runs/demo")  # doctest: +SKIP
        'the report is in runs/demo/report.html'
    """
    if not runs:
        raise ConfigError("runs: give at least one run folder, such as pixcloud report runs/demo")
    if isinstance(runs, str | Path):
        runs = [str(runs)]
    records = [read_record(run) for run in runs]
    alone = len(records) == 1
    target = Path(out).expanduser() if out else Path("report.html")
    if not out and alone:
        target = records[0].path / "report.html"
    if target.is_dir():
        raise ConfigError(f"{target}: is a folder; give a file with --out, such as report.html")
    page = _one(records[0], _say) if alone else _several(records)
    try:
        write_text(target, page)
    except OSError as error:
        raise ConfigError(
            f"{target}: cannot be written ({error.strerror}); give another file with --out"
        ) from error
    return f"the report is in {target}"


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _one(record: RunRecord, say: Callable[[str], None]) -> str:
    clouds = CloudStore()
    body = [
        sections.missing(record),
        sections.tiles(record),
        sections.results(record),
        gallery(record, clouds),
        sections.curves([record]),
        _features(record, clouds, say) if record.encoder else None,
        provenance(record),
        clouds.script(),
    ]
    return _document(record.name, "PixCloud · pre-training run", sections.header(record), body)


def _several(records: list[RunRecord]) -> str:
    _name_apart(records)
    body = [
        compare.missing(records),
        compare.summary(records),
        compare.results(records),
        sections.curves(records),
        compare.settings(records),
    ]
    title = f"{len(records)} runs side by side"
    return _document(title, "PixCloud · comparison", compare.header(records), body)


def _name_apart(records: list[RunRecord]) -> None:
    """Runs whose folders have the same name are called by their whole path."""
    taken = [record.name for record in records]
    for record in records:
        if taken.count(record.name) > 1:
            record.name = str(record.path)


def _features(record: RunRecord, clouds: CloudStore, say: Callable[[str], None]) -> Html:
    """Maps and neighbours, or why there are none."""
    from pixcloud.report.embedding import embed
    from pixcloud.report.feature_map import maps
    from pixcloud.report.neighbours import neighbours

    title = "What it learned"
    try:
        embedded = embed(record, say)
        say(f"report: laying out {len(embedded.labels)} clouds by their features")
        shown = join([maps(embedded, record.config.seed), neighbours(embedded, clouds)])
    except (PixCloudError, OSError) as error:
        words = (
            f"No feature maps: they need a labelled test split beside the pairs, or where "
            f"trainer.probe_source says, and there is none to be had ({error})."
        )
        return section("features", title, None, tag("p", words, class_="note"))
    lead = (
        "Features of labelled test clouds, by the pre-trained encoder and by the same encoder with "
        "fresh weights. Neither was trained on labels. Choose a class to see it alone."
    )
    return section("features", title, lead, shown)


def _document(title: str, over: str, top: Html, body: list[Html | None]) -> str:
    content = join(body)
    links = [
        tag("a", words, href=f"#{place}")
        for place, words in LINKS.items()
        if f'<section id="{place}"' in content
    ]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="generator", content=f"pixcloud {__version__}"),
        tag("title", f"{title} · PixCloud"),
        tag("style", Html(_asset("report.css"))),
    )
    page = tag(
        "body",
        tag(
            "header",
            tag("p", over, class_="over"),
            tag("h1", title),
            top,
            tag("nav", *links, aria_label="parts of this page"),
            class_="top",
        ),
        tag("main", _noscript(), content),
        tag(
            "footer", f"Made by pixcloud {__version__}. This file is complete: it needs no network."
        ),
        tag("script", Html(_plotly())),
        tag("script", Html(_asset("report.js"))),
    )
    return "<!DOCTYPE html>\n" + tag("html", head, page, lang="en") + "\n"


def _noscript() -> Html:
    words = "Charts and point clouds need JavaScript; the tables do not."
    return tag("noscript", tag("p", words, class_="missing"))


def _asset(name: str) -> str:
    return (resources.files("pixcloud.report") / name).read_text(encoding="utf-8")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())

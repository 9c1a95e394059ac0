"""Stage 9, results for a model card: rows of results.jsonl -> tables in Markdown, and metadata.

Before it: `pixcloud.evaluate.results`. After it: `pixcloud.share.card`. Rows of other weights stay
out; beside a row of these weights stand its baselines on the same data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pixcloud.evaluate.part_result import RULES
from pixcloud.evaluate.results import ResultRow, table_of

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

OWN = "these weights"
BASELINES = {", untrained": "the same, untrained", ", from scratch": "the same, from scratch"}
HANDMADE = "hand-made descriptor"


def contender(row: ResultRow, sha256: str, names: set[str]) -> str:
    """Who scored a row: these weights, a baseline of theirs, or "" for any other weights.

    Args:
        row: of a results file, in which other encoders may stand too.
        sha256: of the encoder, or of the classifier or segmenter.
        names: what rows of these weights call them.
    """
    for ending, words in BASELINES.items():
        if row.encoder.endswith(ending):
            return words if row.encoder.removesuffix(ending) in names else ""
    if row.settings.get("architecture") == "shape distributions":
        return HANDMADE
    return OWN if _is_own(row, sha256) else ""


def _is_own(row: ResultRow, sha256: str) -> bool:
    baseline = row.encoder.endswith(tuple(BASELINES))
    return sha256 in (row.encoder_sha256, row.settings.get("model_sha256")) and not baseline


def select(rows: Sequence[ResultRow], sha256: str) -> dict[str, list[ResultRow]]:
    """The last row of each kind, by contender.

    Args:
        rows: in the order of their file.
        sha256: of the encoder whose rows are wanted, or of a classifier or segmenter, whose rows
            are those of that one fine-tuning.

    Returns:
        contender -> its rows; baselines only where these weights have a row of the same protocol,
        data and metric. Empty if these weights have none.
    """
    latest: dict[tuple[str, ...], tuple[str, ResultRow]] = {}
    names = {row.encoder for row in rows if _is_own(row, sha256)}
    for row in rows:
        name = contender(row, sha256, names)
        if name:
            latest[name, *_kind(row)] = name, row
    own = {_kind(row) for name, row in latest.values() if name == OWN}
    found: dict[str, list[ResultRow]] = {}
    for name, row in latest.values():
        if _kind(row) in own:
            found.setdefault(name, []).append(row)
    return found


def _kind(row: ResultRow) -> tuple[str, ...]:
    return row.protocol, row.dataset, row.split, row.metric


def tables(found: dict[str, list[ResultRow]]) -> str:
    """Rows as tables in Markdown; protocols that must not share a table have one each."""
    rows = [(name, row) for name, listed in found.items() for row in listed]
    rows.sort(key=lambda pair: (_kind(pair[1]), -(pair[0] == OWN), pair[0]))
    parts = []
    for title in sorted({table_of(row.protocol) for _, row in rows}):
        lines = [f"{_heading(title)}:", ""] if title else []
        own = [(name, row) for name, row in rows if table_of(row.protocol) == title]
        chance = any("chance" in row.settings for _, row in own)
        beside = " chance |" if chance else ""
        lines += [
            f"| data | protocol | metric | features | value | 95 % interval |{beside} n | seed |"
        ]
        lines += ["|---|---|---|---|---|---|---|---|" + "---|" * chance]
        lines += [_line(name, row, chance) for name, row in own]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _heading(title: str) -> str:
    """What stands above a table of its own.

    >>> _heading("any part"), _heading("retrieval")
    ('Part segmentation, any part', 'Retrieval')
    """
    if title == "retrieval":
        return "Retrieval"
    return f"{'Part segmentation' if title in RULES else 'Few-shot'}, {title}"


def _line(name: str, row: ResultRow, chance: bool) -> str:
    interval = f"{100 * row.ci95[0]:.1f} to {100 * row.ci95[1]:.1f}" if row.ci95 else ""
    cells = [f"{row.dataset} {row.split}", row.protocol, row.metric.replace("_", " "), name]
    cells += [f"{100 * row.value:.1f}", interval]
    if chance:
        cells.append(f"{100 * row.settings['chance']:.2f}" if "chance" in row.settings else "")
    cells += [f"{row.n:,}", str(row.seed)]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def metadata(found: dict[str, list[ResultRow]]) -> list[EvalResult]:
    """Rows of these weights as the Hub's model index has them; values are shares, as measured."""
    from huggingface_hub import EvalResult

    results = []
    for row in found.get(OWN, []):
        details: dict[str, Any] = {"n": row.n, "seed": row.seed}
        if row.ci95:
            details["ci95"] = list(row.ci95)
        results.append(
            EvalResult(
                task_type="other",
                dataset_type=row.dataset,
                dataset_name=row.dataset,
                dataset_split=row.split,
                metric_type=row.metric,
                # The index has one task for each data set, so that protocols can stand only here.
                metric_name=f"{row.metric.replace('_', ' ')}, {row.protocol}",
                metric_value=row.value,
                metric_args=details,
            )
        )
    return results

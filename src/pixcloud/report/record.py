"""Stage 10, records: a run folder (stages 7 to 9) -> `RunRecord`, all that the page tells of it.

Before it: `run_folder`, `export` and `evaluate.results`, which wrote the files. After it: every
other part of `pixcloud.report`. What a run does not have yet is no error; it is listed as missing.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixcloud.config import PretrainConfig
from pixcloud.config_files import load_config
from pixcloud.errors import CheckpointError, PixCloudError
from pixcloud.evaluate.results import RESULTS, SYNTHETIC, ResultRow, read_rows, table_of
from pixcloud.run_folder import read_metrics

# What scored a row: the run's own encoder, its untrained twin, a descriptor, or something else.
PRETRAINED, UNTRAINED, HANDMADE, OTHER = "pre-trained", "untrained", "hand-made", "other"


@dataclass(kw_only=True)
class RunRecord:
    """What a run folder holds.

    steps and epochs: the two kinds of lines of metrics.jsonl; rows: of results.jsonl; encoder: the
    description beside the exported weights, or None; log: (first, last) time in train.log, or
    None; missing: one sentence for each thing that is not there, with what to do.
    """

    path: Path
    name: str
    config: PretrainConfig
    steps: list[dict[str, Any]]
    epochs: list[dict[str, Any]]
    rows: list[ResultRow]
    encoder: dict[str, Any] | None
    log: tuple[str, str] | None
    missing: list[str] = field(default_factory=list)

    @property
    def pairs_per_step(self) -> int:
        return self.config.trainer.batch_size * self.config.trainer.accumulate

    @property
    def last_step(self) -> int:
        return max(int(line["step"]) for line in self.steps + self.epochs)

    @property
    def pairs_seen(self) -> int:
        return self.last_step * self.pairs_per_step

    @property
    def epochs_done(self) -> int:
        return max((int(line["epoch"]) + 1 for line in self.epochs), default=0)

    @property
    def finished(self) -> bool:
        return self.epochs_done >= self.config.trainer.epochs

    @property
    def seconds(self) -> float:
        """Time spent training: as logged up to the last whole epoch, by the rates after it."""
        done = max(self.epochs, key=lambda line: line["step"], default=None)
        seconds, step = (float(done.get("seconds", 0.0)), done["step"]) if done else (0.0, 0)
        for line in self.steps:
            if line["step"] > step and line.get("pairs_per_s"):
                seconds += (line["step"] - step) * self.pairs_per_step / line["pairs_per_s"]
                step = line["step"]
        return seconds

    @property
    def rate(self) -> float | None:
        """Median of the logged pairs per second."""
        rates = [line["pairs_per_s"] for line in self.steps if line.get("pairs_per_s")]
        return statistics.median(rates) if rates else None

    @property
    def synthetic(self) -> bool:
        """Whether pairs or labels are the embedded data, which say nothing of real shapes."""
        sources = (self.config.data.source, self.config.trainer.probe_source)
        return SYNTHETIC in sources or any(row.dataset.startswith(SYNTHETIC) for row in self.rows)

    @property
    def sha256(self) -> str:
        return str((self.encoder or {}).get("weights_sha256", ""))

    def role(self, row: ResultRow) -> str:
        """Which contender scored a row."""
        if row.settings.get("architecture") == "shape distributions":
            return HANDMADE
        if row.encoder.endswith((", untrained", ", from scratch")):
            return UNTRAINED
        return PRETRAINED if row.encoder_sha256 == self.sha256 else OTHER

    def latest(self, metric: str = "accuracy") -> dict[tuple[str, str, str, str], ResultRow]:
        """(role, encoder, protocol, data set) -> the last row of that kind, in file order."""
        found: dict[tuple[str, str, str, str], ResultRow] = {}
        for row in self.rows:
            if row.metric == metric:
                found[self.role(row), row.encoder, row.protocol, row.dataset] = row
        return found

    def headline(self) -> dict[str, ResultRow]:
        """Role -> its honest accuracy: C by cross-validation, on the data set scored last."""
        rows = {
            key: row
            for key, row in self.latest().items()
            if key[0] != OTHER and "cross-validation" in row.protocol
        } or {
            key: row
            for key, row in self.latest().items()
            if key[0] != OTHER and not table_of(row.protocol)
        }
        own = [row for (role, *_), row in rows.items() if role == PRETRAINED]
        dataset = (own or list(rows.values()))[-1].dataset if rows else ""
        return {role: row for (role, *_), row in rows.items() if row.dataset == dataset}


def read_record(run: str) -> RunRecord:
    """Read a run folder, whole or not.

    Args:
        run: the folder.

    Raises:
        CheckpointError: if it is missing or holds no metrics yet.
        PixCloudError: if a file in it is damaged.
    """
    path = Path(run).expanduser()
    metrics = path / "metrics.jsonl"
    if not path.is_dir():
        raise CheckpointError(
            f"{path}: no such run folder; give one that pixcloud pretrain or pixcloud demo made"
        )
    lines = read_metrics(metrics) if metrics.is_file() else []
    if not lines:
        state = "holds no line yet" if metrics.is_file() else "missing"
        raise CheckpointError(
            f"{metrics}: {state}; a run writes it from its first logged step on: give a folder "
            "that pixcloud pretrain made, or wait"
        )
    record = RunRecord(
        path=path,
        name=path.absolute().name,
        config=load_config(path / "config.yaml"),
        steps=[line for line in lines if line.get("kind") == "step"],
        epochs=[line for line in lines if line.get("kind") == "epoch"],
        rows=read_rows(path / RESULTS) if (path / RESULTS).is_file() else [],
        encoder=None,
        log=_log_times(path / "train.log"),
    )
    if not record.steps and not record.epochs:
        raise CheckpointError(f"{metrics}: no line of kind step or epoch; is it a run's own file?")
    _note_missing(record)
    return record


def _note_missing(record: RunRecord) -> None:
    path, total = record.path, record.config.trainer.epochs
    if not record.finished:
        record.missing.append(
            f"The run is at step {record.last_step:,}, with {record.epochs_done} of {total} epochs "
            f"complete: it is still training, or was stopped. To go on: pixcloud pretrain --run "
            f"{path} --resume true"
        )
    if not (path / "encoder").exists():
        record.missing.append(
            "There is no encoder yet, so there are no feature maps and neighbours: a run writes "
            "it when it ends, or when a probe during training finds a better one."
        )
    else:
        try:
            from pixcloud.export import read_meta

            record.encoder = read_meta(path / "encoder")
        except PixCloudError as error:
            record.missing.append(f"The encoder cannot be read, so it is not shown: {error}.")
    if not record.rows:
        record.missing.append(
            "There are no evaluation results yet. To make them: pixcloud probe "
            f"{path} --data.source NAME:/path"
        )
    elif record.encoder and not any(record.role(row) == PRETRAINED for row in record.rows):
        record.missing.append(
            "The results are of other weights than the encoder here, which was trained further or "
            f"replaced since. To score it: pixcloud probe {path} --data.source NAME:/path"
        )


def _log_times(path: Path) -> tuple[str, str] | None:
    """The time stamps of the first and last line of train.log."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    stamps = [line[:19] for line in lines if line[:2] == "20" and len(line) > 19]
    return (stamps[0], stamps[-1]) if stamps else None

"""Stage 7, Weights & Biases: records -> a run on a server, or an offline run below `RUN/logs`.

Before it: `session`. A record's place is also the service's step, so that a run that is taken up
again says by itself where to go on, and nothing is counted twice; charts are drawn over `step`. No
module is watched: nothing of training is in this process.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # before the import, which reads it

import wandb

from pixcloud.config import PretrainConfig
from pixcloud.evaluate.results import ResultRow
from pixcloud.loggers.backend import row_name
from pixcloud.loggers.kept import Kept
from pixcloud.loggers.lines import CHART, NOWHERE, PER_STEP, RANKS, Record, records
from pixcloud.loggers.pictures import ShownPair
from pixcloud.loggers.target import PUBLIC, Target

MOST_CHART_POINTS = 1000  # of the chart of both losses, which is sent anew as it grows
CHART_SECONDS = 60.0
ASK_SECONDS = 20.0  # between questions for what has arrived
PICTURES = 1  # the place of pictures: no step has it
LOSSES = ("loss/intra", "loss/cross")


class WandbRun:
    """See `pixcloud.loggers.backend.Backend`."""

    def __init__(self, target: Target, config: PretrainConfig) -> None:
        self.target, self.config = target, config
        self.offline = target.mode == "offline"
        self.where = ""
        self.run: Any = None
        self.place = self.known = NOWHERE
        self.charted, self.asked = time.monotonic(), time.monotonic()
        self.pairs_per_step = config.trainer.batch_size * config.trainer.accumulate

    def open(self, kept: Kept) -> int:
        folder = self.target.folder
        folder.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            id=kept.run_id,
            name=self.target.title,
            project=self.target.project or None,
            entity=self.target.entity or None,
            dir=str(folder),
            config=dataclasses.asdict(self.config),
            allow_val_change=True,
            mode="offline" if self.offline else "online",
            resume=None if self.offline else "allow",
            settings=self._settings(),
        )
        self.run.define_metric("step", hidden=True)
        self.run.define_metric("*", step_metric="step")
        if self.offline:  # files of its own, which begin at the beginning
            self.where = str(Path(self.run.dir).parent)
        else:
            self.where = str(self.run.url or self.target.server)
            self.place = self.known = int(self.run.starting_step) - 1
        return self.place

    def _settings(self) -> Any:
        """Quiet, nothing of this machine, and no attempt longer than the target's timeout."""
        limit = max(1.0, self.target.timeout / 2)
        return wandb.Settings(
            base_url=self.target.server or PUBLIC,
            silent=True,
            console="off",
            disable_code=True,
            disable_git=True,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            init_timeout=limit,
            finish_timeout=max(1.0, min(limit, self.target.drain)),
            finish_timeout_raises=True,
            x_graphql_timeout_seconds=limit / 2,
            x_graphql_retry_max=1,
            x_file_stream_timeout_seconds=limit / 2,
            x_file_transfer_timeout_seconds=limit,
        )

    def show(self, pairs: Sequence[ShownPair]) -> None:
        if self.place >= PICTURES:
            return
        images = [wandb.Image(pair.side_by_side, caption=pair.name) for pair in pairs]
        clouds = [wandb.Object3D(pair.points) for pair in pairs]
        self._log({"step": 0, "pairs": images, "clouds": clouds}, PICTURES)

    def _log(self, values: dict[str, Any], place: int) -> None:
        self.run.log(values, step=place, commit=True)
        self.place = place

    def write(self, records: Sequence[Record]) -> None:
        for record in records:
            seen = record.step * self.pairs_per_step
            axes = {"step": record.step, "epoch": record.epoch, "pairs_seen": seen}
            due = time.monotonic() - self.charted > CHART_SECONDS
            if due and record.step > self.place // PER_STEP:  # the step before is complete
                self._chart()
            self._log({**axes, **record.numbers}, record.place)

    def _chart(self) -> None:
        """Both losses in one panel, behind the last line.

        As a media file: the service's own chart of several lines goes by way of artifacts, of which
        each update would make another version.
        """
        place = PER_STEP * (self.place // PER_STEP) + CHART
        content = (Path(self.target.run) / "metrics.jsonl").read_bytes()
        curves = [
            (record.step, *(record.numbers[tag] for tag in LOSSES))
            for record in records(content)
            if record.place <= self.place and all(tag in record.numbers for tag in LOSSES)
        ]
        if not curves or self.place >= place:
            return
        every = -(-len(curves) // MOST_CHART_POINTS)
        steps, *losses = zip(*curves[::every], strict=True)
        traces = [
            {"type": "scatter", "mode": "lines", "name": tag, "x": list(steps), "y": list(values)}
            for tag, values in zip(LOSSES, losses, strict=True)
        ]
        from plotly.graph_objects import Figure

        figure = Figure({"data": traces, "layout": {"xaxis": {"title": {"text": "step"}}}})
        self._log({"losses": wandb.Plotly(figure), "step": place // PER_STEP}, place)
        self.charted = time.monotonic()

    def evaluate(self, rows: Sequence[ResultRow], step: int) -> None:
        for row in rows:  # in the summary, where the same row may be written again
            self.run.summary[f"evaluation/{row_name(row)}"] = row.value

    def arrived(self) -> int:
        if self.offline:
            return self.place
        if self.known < self.place and time.monotonic() - self.asked > ASK_SECONDS:
            self.asked = time.monotonic()
            try:
                self.known = max(self.known, self._ask())
            except Exception:  # no answer, so nothing is known; `session` loses patience in time
                traceback.print_exc()
        return self.known

    def _ask(self) -> int:
        """The last step that the server has."""
        api = wandb.Api(
            overrides={"base_url": self.target.server},
            timeout=max(1, int(self.target.timeout / 4)),
        )
        return int(api.run(self.run.path).lastHistoryStep)

    def rewind(self, place: int) -> int:
        return self.place  # the same steps are run again with the same outcome

    def finish(self) -> int:
        if self.place % PER_STEP == RANKS["epoch"]:  # nothing more of this step can come
            self._chart()
        self.run.finish()
        if self.offline:
            self._remove_others()
            return self.place
        # What counts is what the server says, for a moment also after it has taken everything.
        end = time.monotonic() + self.target.drain
        while self.known < self.place and time.monotonic() < end:
            self.known = max(self.known, self._ask())
            time.sleep(0.2 if self.known < self.place else 0)
        return self.known

    def _remove_others(self) -> None:
        """Earlier offline files of this run, which these contain."""
        own = Path(self.where)
        for folder in sorted(own.parent.glob(f"offline-run-*-{self.run.id}")):
            if folder.is_dir() and not folder.is_symlink() and folder != own:
                shutil.rmtree(folder, ignore_errors=True)

"""Stage 7, TensorBoard: records -> event files below `RUN/logs/tensorboard`.

Before it: `session`. Written with TensorBoard's own messages, without torch: the process stays
small. Each session begins a file that withdraws the step it goes on with, so that lines which a
kill left without our notice do not stand twice.
"""

from __future__ import annotations

import dataclasses
import io
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import yaml
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalar
from tensorboard.plugins.text import metadata as text_plugin
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from pixcloud.config import PretrainConfig
from pixcloud.evaluate.results import ResultRow
from pixcloud.loggers.backend import row_name
from pixcloud.loggers.kept import Kept
from pixcloud.loggers.lines import NOWHERE, PER_STEP, Record
from pixcloud.loggers.pictures import ShownPair
from pixcloud.loggers.target import Target

# Charts of the "Custom scalars" page: both losses in one.
CHARTS = {
    "losses": ("loss/intra", "loss/cross"),
    "losses, means of epochs": ("epoch/intra", "epoch/cross"),
    "learning rate": ("train/learning_rate",),
    "pairs per second": ("train/pairs_per_s",),
    "memory in MiB": ("train/memory_mib",),
    "validation accuracy": ("evaluation/probe_validation",),
}


class TensorBoardFiles:
    """See `pixcloud.loggers.backend.Backend`."""

    def __init__(self, target: Target, config: PretrainConfig) -> None:
        self.folder = target.folder / "tensorboard"
        self.where = str(self.folder)
        self.config = config
        self.place = NOWHERE
        self.writer: EventFileWriter | None = None

    def open(self, kept: Kept) -> int:
        place = self._begin(kept.place)
        kept.rows = [step for step in kept.rows if step * PER_STEP <= place]  # others are withdrawn
        return place

    def _begin(self, place: int) -> int:
        """A new file that goes on with the step of `place`, withdrawn from the earlier ones."""
        if self.writer:
            self.writer.close()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.writer = EventFileWriter(str(self.folder))
        step = max(place, 0) // PER_STEP
        start = SessionLog(status=SessionLog.START)
        self.writer.add_event(Event(wall_time=time.time(), step=step, session_log=start))
        self._add(_layout(), 0)
        self._add(
            _text("config", "```\n" + yaml.safe_dump(dataclasses.asdict(self.config)) + "```"), 0
        )
        self.place = NOWHERE if step == 0 else PER_STEP * step - 1
        return self.place

    def _add(self, value: Any, step: int) -> None:
        assert self.writer is not None
        summary = Summary(value=[value])
        self.writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))

    def show(self, pairs: Sequence[ShownPair]) -> None:
        for pair in pairs:
            self._add(_image(f"pairs/{pair.name}", pair.side_by_side), 0)

    def write(self, records: Sequence[Record]) -> None:
        for record in records:
            for tag, number in record.numbers.items():
                self._add(Summary.Value(tag=tag, simple_value=number), record.step)
            self.place = record.place
        assert self.writer is not None
        self.writer.flush()

    def evaluate(self, rows: Sequence[ResultRow], step: int) -> None:
        for row in rows:
            tag = f"evaluation/{row_name(row)}"
            self._add(Summary.Value(tag=tag, simple_value=row.value), step)
        assert self.writer is not None
        self.writer.flush()

    def arrived(self) -> int:
        return self.place

    def rewind(self, place: int) -> int:
        return self._begin(place)

    def finish(self) -> int:
        assert self.writer is not None
        self.writer.close()
        return self.place


def _layout() -> Any:
    """Both losses in one chart; the rest one by one."""
    charts = [
        layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=tags))
        for title, tags in CHARTS.items()
    ]
    layout = layout_pb2.Layout(category=[layout_pb2.Category(title="training", chart=charts)])
    return Summary.Value(
        tag=custom_scalar.CONFIG_SUMMARY_TAG,
        metadata=custom_scalar.create_summary_metadata(),
        tensor=TensorProto(
            dtype="DT_STRING",
            string_val=[layout.SerializeToString()],
            tensor_shape=TensorShapeProto(),
        ),
    )


def _text(tag: str, words: str) -> Any:
    """A text; Markdown."""
    metadata: SummaryMetadata = text_plugin.create_summary_metadata(
        display_name=tag, description=""
    )
    return Summary.Value(
        tag=tag,
        metadata=metadata,
        tensor=TensorProto(
            dtype="DT_STRING", string_val=[words.encode()], tensor_shape=TensorShapeProto()
        ),
    )


def _image(tag: str, pixels: np.ndarray) -> Any:
    """Pixels (H, W, 3) uint8."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    image = Summary.Image(
        height=pixels.shape[0],
        width=pixels.shape[1],
        colorspace=3,
        encoded_image_string=stream.getvalue(),
    )
    return Summary.Value(tag=tag, image=image)

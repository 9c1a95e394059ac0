"""Stage 9, ONNX: an encoder, classifier or segmenter (`pixcloud.share.models`) -> a checked file.

The graph takes points (B, N, 3) in any unit and centres and scales them itself, as `embed` does.
It gives pooled (B, D) and, where there are some, per_point (B, N, C); of a classifier logits (B, K)
and pooled; of a segmenter, which takes category (B,) int64 too, logits (B, N, P) of the parts. B
and N are free unless N is fixed. `pixcloud.share.onnx_check` runs it after this.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pixcloud._version import __version__
from pixcloud.atomic import replaced_file
from pixcloud.data.views import unit_sphere
from pixcloud.errors import ConfigError, WeightsError
from pixcloud.evaluate.classifier import PointClassifier
from pixcloud.evaluate.features import require_points
from pixcloud.evaluate.segmenter import PointSegmenter
from pixcloud.share.models import Model
from pixcloud.share.onnx_check import Agreement, clouds, compare

OPSET = 18
NEEDED = ("onnx", "onnxscript", "onnxruntime")


class PointGraph(nn.Module):
    """What is recorded: points (B, N, 3) to the outputs, in the order of `outputs`."""

    def __init__(self, model: Model, normalize: bool) -> None:
        super().__init__()
        self.inner, self.normalize = model.module, normalize
        self.inputs, self.outputs = ["points"], ["pooled"]
        self.categories = 0
        if isinstance(self.inner, PointSegmenter):
            self.inputs, self.outputs = ["points", "category"], ["logits"]
            self.categories = len(self.inner.part_names)
        elif isinstance(self.inner, PointClassifier):
            self.outputs = ["logits", "pooled"]
        elif model.encoder.point_dim is not None:
            self.outputs = ["pooled", "per_point"]

    def forward(
        self, points: torch.Tensor, category: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        points = unit_sphere(points) if self.normalize else points
        if isinstance(self.inner, PointSegmenter):
            return (self.inner(points, category),)
        if isinstance(self.inner, PointClassifier):
            pooled = self.inner.encoder(points).pooled
            return self.inner.head(pooled), pooled
        features = self.inner(points)
        return tuple(x for x in (features.pooled, features.per_point) if x is not None)

    def example(self, batch: int, num_points: int) -> dict[str, torch.Tensor]:
        """What the graph takes, by name."""
        given = {"points": torch.from_numpy(clouds(batch, num_points))}
        if self.categories:
            given["category"] = torch.arange(batch) % self.categories
        return given


def require_onnx() -> None:
    """Check that the libraries for ONNX are there.

    Raises:
        ConfigError: naming what is missing, and the command that brings it.
    """
    missing = []
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise ConfigError(
            f"ONNX needs {', '.join(missing)}, which is not installed: pip install 'pixcloud[onnx]'"
        )


def write_onnx(
    model: Model, path: Path, *, num_points: int = 0, normalize: bool = True
) -> list[Agreement]:
    """Write a model as an ONNX file, if the file gives what the model gives.

    Args:
        model: what to write.
        path: the file; one that is there is replaced.
        num_points: N of every cloud; 0 leaves it free.
        normalize: whether the graph centres and scales the clouds.

    Returns:
        How far the file and the model were apart, for each output.

    Raises:
        ConfigError: if a library is missing, or the encoder needs more points.
        WeightsError: if the encoder cannot be recorded, the file's outputs differ from the
            model's, or it cannot be written. Nothing is left behind.
    """
    require_onnx()
    encoder = model.encoder
    if num_points:
        require_points(encoder, num_points, "num_points")
    graph = PointGraph(model, normalize).eval()
    sizes = [num_points] * 3 if num_points else _sizes(encoder.min_points)
    program = _recorded(graph, sizes[0], encoder.min_points, free=not num_points)
    _describe(program, model, normalize)
    try:
        with replaced_file(path, durable=True) as temporary:
            program.save(str(temporary), external_data=False)
            given = [graph.example(batch, size) for batch, size in enumerate(sizes, 1)]
            return compare(temporary, graph, graph.outputs, given)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be written ({error.strerror or error})") from error


def _sizes(least: int) -> list[int]:
    """Numbers of points that a file for any number is checked with."""
    return [max(least, 64) + 64, max(least, 2), max(least, 1024)]


def _recorded(graph: PointGraph, num_points: int, least: int, *, free: bool) -> Any:
    """The program that torch's exporter makes of a graph."""
    import onnxscript.optimizer as optimizer

    from pixcloud.share.onnx_points import farthest_points

    axes: dict[int, Any] = {0: torch.export.Dim("batch")}
    if free:
        axes[1] = torch.export.Dim("points", min=max(2, least))
    shapes = (axes, *[{0: axes[0]} for _ in graph.inputs[1:]])
    translations: dict[Any, Any] = {torch.ops.pixcloud.farthest_points.default: farthest_points}
    try:
        with _silence(), torch.no_grad():
            # By itself: the exporter would try other ways after this one, for longer.
            example = tuple(graph.example(2, num_points).values())
            recorded = torch.export.export(graph, example, dynamic_shapes=shapes, strict=False)
            program = torch.onnx.export(
                recorded,
                dynamic_shapes=shapes,
                input_names=graph.inputs,
                output_names=graph.outputs,
                opset_version=OPSET,
                dynamo=True,
                custom_translation_table=translations,
                external_data=False,
                verbose=False,
                # Its rewriting takes a small number that is added, such as 1e-8, for zero.
                optimize=False,
            )
            assert program is not None
            optimizer.fold_constants(program.model)
            optimizer.remove_unused_nodes(program.model)
    except Exception as error:  # the exporter fails with errors of many kinds
        raise WeightsError(
            f"{type(graph.inner).__name__}: cannot be recorded for ONNX ({_reason(error)}); while "
            "torch.compiler.is_exporting() its forward must use torch's operators alone, and no "
            "choice may depend on values"
        ) from error
    return program


def _describe(program: Any, model: Model, normalize: bool) -> None:
    """Say in the file what it holds."""
    facts = {
        "kind": model.kind,
        "encoder": json.dumps(model.encoder.spec),
        "weights_sha256": model.sha256,
        "normalizes": json.dumps(normalize),
        "pixcloud_version": __version__,
    }
    if isinstance(model.module, PointClassifier):
        facts["classes"] = json.dumps(model.module.classes, ensure_ascii=False)
    if isinstance(model.module, PointSegmenter):
        facts["part_names"] = json.dumps(model.module.part_names, ensure_ascii=False)
        facts["part_labels"] = json.dumps(model.module.part_labels, ensure_ascii=False)
    program.model.metadata_props.update({f"pixcloud.{key}": value for key, value in facts.items()})
    program.model.producer_name, program.model.producer_version = "pixcloud", __version__


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without what the exporter says of libraries that nobody asked for, and of its failures."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _reason(error: BaseException) -> str:
    """The first line of what began it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__

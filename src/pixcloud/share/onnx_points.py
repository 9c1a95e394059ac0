"""Stage 9, farthest points as a function of ONNX: x (B, N, C) -> indices (B, M).

What `pixcloud::farthest_points` of a recorded graph (`pixcloud.ops.recorded`) becomes in
`pixcloud.share.onnx_file`: a loop, so that the file does not grow with the number of points. Only
this module imports onnxscript, which the extra "onnx" brings; it reads the function's own source.
"""

# mypy: ignore-errors
# Functions are not called, but read: their operands have no types that Python knows.

import onnxscript
from onnxscript import FLOAT, INT64
from onnxscript import opset18 as op


@onnxscript.script(onnxscript.values.Opset("pixcloud", 1))
def farthest_points(x: FLOAT["B", "N", "C"], m: int, start: int) -> INT64["B", "M"]:  # noqa: F821
    """Each point is the one farthest from all those before it; of equal ones the first."""
    channels = op.Constant(value_ints=[2])
    one = op.Constant(value_ints=[1])
    clouds = op.Concat(op.Shape(x, start=0, end=1), one, axis=0)
    last = op.Expand(op.Reshape(op.Constant(value_int=start), op.Constant(value_ints=[1])), clouds)
    chosen = op.Identity(last)
    shape = op.Shape(op.ReduceSum(x, channels, keepdims=0))
    distance = op.Expand(op.Constant(value_float=3.0e38), shape)
    for _ in range(op.Constant(value_int=m) - 1):
        away = x - op.Unsqueeze(op.GatherND(x, last, batch_dims=1), one)
        distance = op.Min(distance, op.ReduceSum(away * away, channels, keepdims=0))
        last = op.ArgMax(distance, axis=1, keepdims=1)
        chosen = op.Concat(chosen, last, axis=1)
    return chosen

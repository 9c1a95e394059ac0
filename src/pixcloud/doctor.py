"""What this machine can do: device, precision, threads, libraries, data."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from pathlib import Path

LIBRARIES = (
    "torch", "lightning", "transformers", "kornia", "trimesh", "embreex", "scikit-learn",
    "h5py", "jsonargparse", "safetensors", "plotly",
)  # fmt: skip


def doctor(data: str = "") -> str:
    """Look at this machine and say what PixCloud finds.

    Args:
        data: a source to look at too, NAME:/path or a path.

    Returns:
        A line per finding.
    """
    import torch

    from pixcloud._version import __version__
    from pixcloud.data.loading import resolve_workers
    from pixcloud.machine import available_cores

    lines = [f"pixcloud {__version__}, Python {platform.python_version()}, {platform.platform()}"]
    lines.append(
        f"cores {available_cores()}, torch threads {torch.get_num_threads()}, reading processes "
        f"{resolve_workers(-1)}"
    )
    if torch.cuda.is_available():
        for place in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(place)
            memory = properties.total_memory / 2**30
            lines.append(f"device cuda:{place} {properties.name}, {memory:.0f} GiB")
    else:
        lines.append("device cpu (no CUDA device found)")
    rates = {name: _matmul_rate(kind) for name, kind in _precisions().items()}
    ratio = rates["bf16"] / rates["32"]
    advice = "worth it" if ratio > 1.2 else "slower here, keep --trainer.precision 32"
    lines.append(
        f"matrix products: fp32 {rates['32']:.0f}, bf16 {rates['bf16']:.0f} GFLOP/s "
        f"(bf16 {ratio:.2g} x: {advice})"
    )
    versions = []
    for name in LIBRARIES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{name} MISSING")
    lines.append("libraries: " + ", ".join(versions))
    if data:
        lines.append(_look_at(data))
    return "\n".join(lines)


def _precisions() -> dict[str, object]:
    import torch

    return {"32": torch.float32, "bf16": torch.bfloat16}


def _matmul_rate(kind: object) -> float:
    """GFLOP/s of a 512 x 512 x 512 product, best of some within a tenth of a second."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    a = torch.ones(512, 512, dtype=kind, device=device)  # type: ignore[call-overload]
    best, until = float("inf"), time.perf_counter() + 0.1
    while time.perf_counter() < until or best == float("inf"):
        start = time.perf_counter()
        torch.mm(a, a)
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * 512**3 / best / 1e9


def _look_at(source: str) -> str:
    from pixcloud.data.check import check_source
    from pixcloud.errors import PixCloudError

    try:
        return f"data {check_source(source)}"
    except PixCloudError as error:
        return f"data {Path(source)}: {error}"

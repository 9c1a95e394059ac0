"""What this machine can do: device, precision, threads, libraries, data."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path

LIBRARIES = (
    "torch", "transformers", "kornia", "trimesh", "embreex", "scikit-learn",
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
    from pixcloud.precision import choose_precision

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
    chosen, measured = choose_precision("cuda" if torch.cuda.is_available() else "cpu")
    lines.append(f"{measured}: --trainer.precision auto takes {chosen}")
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


def _look_at(source: str) -> str:
    from pixcloud.data.check import check_source
    from pixcloud.errors import PixCloudError

    try:
        return f"data {check_source(source)}"
    except PixCloudError as error:
        return f"data {Path(source)}: {error}"

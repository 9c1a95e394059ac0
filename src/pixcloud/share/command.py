"""Stage 9, `pixcloud export`: a run or model -> safetensors and JSON, or ONNX.

Before it: `pixcloud.share.models`. After it: other programs.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from pixcloud.errors import ConfigError, WeightsError


def export_model(
    source: str,
    out: str,
    to: Literal["safetensors", "onnx"] = "safetensors",
    num_points: int = 0,
    normalize: bool = True,
) -> str:
    """Write a model for other programs.

    As safetensors it is a folder with the weights and config.json, which `pixcloud.load_encoder`
    reads too. As ONNX it is one file from points (B, N, 3) to pooled features (B, D), per-point
    features (B, N, C) where there are some, logits (B, K) of a classifier, or logits (B, N, P) of a
    segmenter, which takes each shape's category (B,) too. It takes any number of clouds. It is run
    after it was written, and kept only if it gives what the model gives.

    Args:
        source: a run folder, the folder of an encoder, classifier or segmenter, or a Hugging Face
            Hub id.
        out: folder to make for safetensors; file to write for ONNX, ending in .onnx.
        to: safetensors, or onnx (needs pip install "pixcloud[onnx]").
        num_points: for ONNX, the points of every cloud; 0 leaves their number free.
        normalize: for ONNX, whether the graph itself centres each cloud and scales it to the unit
            sphere, as `embed` does.

    Returns:
        What was written and, for ONNX, how far it is from the model.

    Raises:
        ConfigError: for options that do not fit, or if libraries for ONNX are missing.
        WeightsError: if nothing is there, or what is written would not be the model.

    Example:
        >>> export_model("runs/mine", "mine.onnx", to="onnx")  # doctest: +SKIP
    """
    place = Path(out).expanduser()
    if num_points < 0:
        raise ConfigError(f"num_points = {num_points}: 0 (any number), or points of each cloud")
    if to == "safetensors":
        return _as_safetensors(source, place)
    if place.suffix != ".onnx" or place.is_dir():
        raise ConfigError(f"out = {out}: a file that ends in .onnx is expected for --to onnx")
    from pixcloud.share.onnx_file import require_onnx, write_onnx

    require_onnx()  # before anything is read
    from pixcloud.share.models import open_model

    model = open_model(source)
    found = write_onnx(model, place, num_points=num_points, normalize=normalize)
    points = str(num_points) if num_points else f"any number, at least {model.encoder.min_points}"
    lines = [
        f"{place}: {place.stat().st_size / 2**20:.1f} MiB, points (B, N, 3) with N = {points}",
        *(f"  {agreement}" for agreement in found),
    ]
    return "\n".join(lines)


def _as_safetensors(source: str, place: Path) -> str:
    from pixcloud.atomic import replaced_folder
    from pixcloud.share.models import open_model

    if place.exists() and any(place.iterdir() if place.is_dir() else [place]):
        raise WeightsError(f"{place}: exists already; give a new folder")
    model = open_model(source)
    try:
        with replaced_folder(place) as temporary:
            for name in model.files:
                shutil.copyfile(model.folder / name, temporary / name)
    except OSError as error:
        raise WeightsError(f"{place}: cannot be written ({error.strerror or error})") from error
    return f"{place}: {model.kind} as {', '.join(model.files)}"

"""Stage 8, weights of other projects: a file -> the layout of this package, strictly.

The original CrossPoint state dict of DGCNN holds each BN twice (`bn1.*` and `conv1.1.*` are the
same layer), kernels of 1 x 1 convolutions, and the projection head as `inv_head`. Widths are read
from the shapes; anything that does not fit is refused by name.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixcloud.errors import WeightsError, some

if TYPE_CHECKING:
    import torch

BN_PARTS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
EDGE_CONVS = 4


def import_crosspoint(file: str, out: str, k: int = 15) -> str:
    """Turn the original CrossPoint DGCNN weights into an encoder folder.

    Args:
        file: state dict saved by torch (.pth, .pt) or safetensors; no pickled code is executed.
        out: folder to write; `pixcloud.load_encoder` reads it.
        k: neighbours per point, which the weights do not tell; pre-training used 15.

    Returns:
        What matched, in one line.

    Raises:
        WeightsError: naming the keys that are missing, unknown, of another shape or contradictory.
    """
    from pixcloud.encoders import build_encoder
    from pixcloud.export import load_strictly, save_encoder
    from pixcloud.heads import ProjectionHead

    path, out = Path(file).expanduser(), str(Path(out).expanduser())
    if Path(out).exists() and any(Path(out).iterdir() if Path(out).is_dir() else [out]):
        raise WeightsError(f"{out}: exists already; give a new folder")
    source = read_state_dict(path)
    encoder_weights, head_weights = translate_dgcnn(source, str(path))
    widths = [len(encoder_weights[f"convs.{i}.linear.weight"]) for i in range(EDGE_CONVS)]
    embed_dim = len(encoder_weights["fuse.weight"])
    encoder = build_encoder("dgcnn", k=k, embed_dim=embed_dim, widths=widths)
    load_strictly(encoder, encoder_weights, str(path))
    pooled, hidden, projection = _head_sizes(head_weights, str(path))
    head = ProjectionHead(pooled, hidden, projection)
    load_strictly(head, head_weights, str(path))
    save_encoder(Path(out), encoder, head, {"imported": "crosspoint", "file": path.name})
    return (
        f"{path}: all {len(source)} keys matched: DGCNN with widths {widths}, embedding "
        f"{embed_dim} and its projection head {pooled}-{hidden}-{projection}; "
        f"k = {k}; written to {out}"
    )


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Names and tensors of a weight file, read without executing pickled code.

    Raises:
        WeightsError: if it is missing, no weight file, or holds anything but named tensors.
    """
    import torch
    from safetensors.torch import load_file

    if not path.is_file():
        raise WeightsError(f"{path}: no such file; expected a state dict (.pth or .safetensors)")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: damaged, or holds more than tensors, and pickled code is never executed; "
            f"save its state dict alone ({_first_line(error)})"
        ) from error
    except Exception as error:  # a damaged pickle can break the reader anywhere
        reason = f"{type(error).__name__}: {_first_line(error)}"
        raise WeightsError(f"{path}: cannot be read as weights ({reason})") from error
    if not isinstance(content, dict) or not content:
        raise WeightsError(f"{path}: expected a state dict, found {type(content).__name__}")
    bad = [
        str(key)
        for key, value in content.items()
        if not isinstance(value, torch.Tensor) or not isinstance(key, str)
    ]
    if bad:
        raise WeightsError(
            f"{path}: these entries are no named tensors: {some(bad)}; save the state dict alone"
        )
    return content


def translate_dgcnn(
    source: dict[str, torch.Tensor], origin: str
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """State dicts of our DGCNN and of its projection head from the original's.

    Raises:
        WeightsError: for missing, unknown or contradictory keys, all named.
    """
    left = dict(source)
    missing: list[str] = []
    encoder: dict[str, torch.Tensor] = {}

    def take(key: str) -> torch.Tensor | None:
        if key not in left:
            missing.append(key)
            return None
        return left.pop(key)

    for layer in range(1, EDGE_CONVS + 2):
        last = layer == EDGE_CONVS + 1
        linear = "fuse.weight" if last else f"convs.{layer - 1}.linear.weight"
        bn = "bn" if last else f"convs.{layer - 1}.bn"
        kernel = take(f"conv{layer}.0.weight")
        if kernel is not None:
            encoder[linear] = _matrix(kernel, f"conv{layer}.0.weight", origin)
        for part in BN_PARTS:
            value, twin = take(f"bn{layer}.{part}"), take(f"conv{layer}.1.{part}")
            if value is None or twin is None:
                continue
            if value.shape != twin.shape or not bool((value == twin).all()):
                raise WeightsError(
                    f"{origin}: bn{layer}.{part} and conv{layer}.1.{part} are one layer but differ"
                )
            encoder[f"{bn}.{part}"] = value
    head_keys = [f"{place}.{part}" for place in (0, 3) for part in ("weight", "bias")]
    head_keys += [f"1.{part}" for part in BN_PARTS]
    head = {key: value for key in head_keys if (value := take(f"inv_head.{key}")) is not None}
    if missing or left:
        problems = [f"missing: {some(missing)}"] if missing else []
        problems += [f"not known here: {some(sorted(left))}"] if left else []
        if any(key.startswith("module.") for key in left):
            problems.append("the names begin with 'module.', as a wrapped model saves them: strip")
        raise WeightsError(f"{origin}: not a CrossPoint DGCNN state dict; {'; '.join(problems)}")
    return encoder, head


def _head_sizes(head: dict[str, torch.Tensor], origin: str) -> tuple[int, int, int]:
    """Widths (in, hidden, out) of the projection head."""
    for key in ("0.weight", "3.weight"):
        if head[key].dim() != 2:
            shape = tuple(head[key].shape)
            raise WeightsError(f"{origin}: inv_head.{key} has shape {shape}; expected a matrix")
    hidden, pooled = head["0.weight"].shape
    return pooled, hidden, len(head["3.weight"])


def _matrix(kernel: torch.Tensor, key: str, origin: str) -> torch.Tensor:
    """A kernel (out, in, 1) or (out, in, 1, 1) as a matrix (out, in)."""
    if kernel.dim() < 2 or any(size != 1 for size in kernel.shape[2:]):
        raise WeightsError(
            f"{origin}: {key} has shape {tuple(kernel.shape)}; expected a 1 x 1 convolution"
        )
    return kernel.flatten(1)


def _first_line(error: BaseException) -> str:
    text = re.sub(r"\s+", " ", str(error)).strip()
    return text[:160] or type(error).__name__

"""Stage 8, weights of other projects: a file -> the layout of this package, strictly.

The original CrossPoint state dicts of DGCNN and of DGCNN for segmentation hold most BNs twice
(`bn1.*` and `conv1.1.*` are the same layer), kernels of 1 x 1 convolutions, and the projection head
as `inv_head`. Which of the two it is shows in the keys, widths are read from the shapes; anything
that does not fit is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pixcloud.errors import WeightsError, some
from pixcloud.weight_files import BN_PARTS, read_weights

if TYPE_CHECKING:
    import torch


class Layer(NamedTuple):
    """A linear map and the BN behind it: the original's names, then ours."""

    kernel: str
    bns: tuple[str, ...]
    linear: str
    bn: str


class Form(NamedTuple):
    """One of the original's encoders.

    title, as messages call it; encoder, its registered name here; layers in order; other, our
    names of single tensors by the original's; unused, BNs that the original makes for a head that
    is not there.
    """

    title: str
    encoder: str
    layers: tuple[Layer, ...]
    other: Mapping[str, str]
    unused: tuple[str, ...]


class Translation(NamedTuple):
    """State dicts of our encoder and of its projection head, which form they were, and what the
    file calls our tensors.
    """

    form: Form
    encoder: dict[str, torch.Tensor]
    head: dict[str, torch.Tensor]
    names: dict[str, str]


def _conv(number: int, linear: str, bn: str, net: str = "") -> Layer:
    """A convolution whose BN is known by two names."""
    bns = (f"{net}bn{number}", f"{net}conv{number}.1")
    return Layer(f"{net}conv{number}.0.weight", bns, f"{linear}.weight", bn)


CLASSIFICATION = Form(
    title="DGCNN",
    encoder="dgcnn",
    layers=(
        *(_conv(i + 1, f"convs.{i}.linear", f"convs.{i}.bn") for i in range(4)),
        _conv(5, "fuse", "bn"),
    ),
    other={},
    unused=(),
)
NET = "transform_net."
SEGMENTATION = Form(
    title="DGCNN for segmentation",
    encoder="dgcnn_seg",
    layers=(
        _conv(1, "transform.conv.linear", "transform.conv.bn", NET),
        _conv(2, "transform.conv.second_linear", "transform.conv.second_bn", NET),
        Layer(
            f"{NET}conv3.0.weight", (f"{NET}conv3.1",), "transform.linear.weight", "transform.bn"
        ),
        Layer(
            f"{NET}linear1.weight", (f"{NET}bn3",), "transform.cloud.0.weight", "transform.cloud.1"
        ),
        Layer(
            f"{NET}linear2.weight", (f"{NET}bn4",), "transform.cloud.3.weight", "transform.cloud.4"
        ),
        _conv(1, "convs.0.linear", "convs.0.bn"),
        _conv(2, "convs.0.second_linear", "convs.0.second_bn"),
        _conv(3, "convs.1.linear", "convs.1.bn"),
        _conv(4, "convs.1.second_linear", "convs.1.second_bn"),
        _conv(5, "convs.2.linear", "convs.2.bn"),
        _conv(6, "fuse", "bn"),
    ),
    other={
        f"{NET}transform.weight": "transform.matrix.weight",
        f"{NET}transform.bias": "transform.matrix.bias",
    },
    unused=("bn7", "bn8", "bn9", "bn10"),
)


def import_crosspoint(file: str, out: str, k: int = 15) -> str:
    """Turn the original CrossPoint weights of a DGCNN into an encoder folder.

    Args:
        file: state dict saved by torch (.pth, .pt) or safetensors, of the encoder for
            classification, or of the one for segmentation without its head for parts; no pickled
            code is executed.
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
    source, matched = read_weights(path)
    form, encoder_weights, head_weights, names = translate(source, str(path))
    *over_edges, embed = [layer.linear for layer in form.layers if not layer.kernel.startswith(NET)]
    widths = [len(encoder_weights[name]) for name in over_edges]
    embed_dim = len(encoder_weights[embed])
    encoder = build_encoder(form.encoder, k=k, embed_dim=embed_dim, widths=widths)
    load_strictly(encoder, encoder_weights, str(path), names)
    pooled, hidden, projection = head_sizes(head_weights, str(path), encoder.pooled_dim)
    head = ProjectionHead(pooled, hidden, projection)
    load_strictly(head, head_weights, str(path), {key: f"inv_head.{key}" for key in head_weights})
    save_encoder(Path(out), encoder, head, {"imported": "crosspoint", "file": path.name})
    unused = f" ({', '.join(form.unused)} belong to no layer)" if form.unused else ""
    return (
        f"{path}: {matched}{unused}: {form.title} with widths {widths}, "
        f"embedding {embed_dim} and its projection head {pooled}-{hidden}-{projection}; "
        f"k = {k}; written to {out}"
    )


def translate(
    source: dict[str, torch.Tensor], origin: str, *, with_head: bool = True
) -> Translation:
    """State dicts of our encoder and of its projection head from the original's.

    Args:
        source: the original's.
        origin: file, for messages.
        with_head: whether the projection head must be there.

    Raises:
        WeightsError: for missing, unknown or contradictory keys, all named.
    """
    form = SEGMENTATION if any(NET in key for key in source) else CLASSIFICATION
    left = dict(source)
    missing: list[str] = []
    encoder: dict[str, torch.Tensor] = {}
    names = dict(zip(form.other.values(), form.other, strict=True))

    def take(key: str) -> torch.Tensor | None:
        if key not in left:
            missing.append(key)
            return None
        return left.pop(key)

    for layer in form.layers:
        kernel = take(layer.kernel)
        names[layer.linear] = layer.kernel
        if kernel is not None:
            encoder[layer.linear] = as_matrix(kernel, layer.kernel, origin)
        for part in BN_PARTS:
            values = {f"{bn}.{part}": take(f"{bn}.{part}") for bn in layer.bns}
            value = one_value(values, origin)
            names[f"{layer.bn}.{part}"] = f"{layer.bns[0]}.{part}"
            if value is not None:
                encoder[f"{layer.bn}.{part}"] = value
    for key, ours in form.other.items():
        if (value := take(key)) is not None:
            encoder[ours] = value
    for bn in form.unused:
        for part in BN_PARTS:
            take(f"{bn}.{part}")
    head_keys = [f"{place}.{part}" for place in (0, 3) for part in ("weight", "bias")]
    head_keys += [f"1.{part}" for part in BN_PARTS]
    if not with_head and not any(key.startswith("inv_head.") for key in left):
        head_keys = []
    head = {key: value for key in head_keys if (value := take(f"inv_head.{key}")) is not None}
    if missing or left:
        raise WeightsError(f"{origin}: {_misfit(form, missing, sorted(left))}")
    return Translation(form, encoder, head, names)


def one_value(values: dict[str, torch.Tensor | None], origin: str) -> torch.Tensor | None:
    """The value that one layer has by all its names; None where one is missing."""
    (first, value), *others = values.items()
    for key, other in others:
        if value is None or other is None:
            return None
        if value.shape != other.shape or not bool((value == other).all()):
            raise WeightsError(f"{origin}: {first} and {key} are one layer but differ")
    return value


def _misfit(form: Form, missing: list[str], left: list[str]) -> str:
    """Why the keys are not those of a form."""
    problems = [f"missing: {some(missing)}"] if missing else []
    problems += [f"not known here: {some(left)}"] if left else []
    if any(key.startswith("module.") for key in left):
        problems.append("some names begin with 'module.' and others do not")
    if "conv11.weight" in left:
        problems.append("conv7 to conv11 are a head for parts: pixcloud import dgcnn_partseg")
    if any(".layer4." in key for key in left):
        problems.append("a ResNet's names: pixcloud import crosspoint_pictures")
    return f"not a CrossPoint {form.title} state dict; {'; '.join(problems)}"


def head_sizes(head: dict[str, torch.Tensor], origin: str, features: int) -> tuple[int, int, int]:
    """Widths (in, hidden, out) of a projection head that the file calls `inv_head`.

    Raises:
        WeightsError: if it takes another number of features than its encoder gives.
    """
    for key in ("0.weight", "3.weight"):
        if key not in head:
            raise WeightsError(f"{origin}: missing: inv_head.{key}")
        if head[key].dim() != 2:
            shape = tuple(head[key].shape)
            raise WeightsError(f"{origin}: inv_head.{key} has shape {shape}; expected a matrix")
    hidden, pooled = head["0.weight"].shape
    if pooled != features:
        raise WeightsError(
            f"{origin}: inv_head.0.weight takes {pooled} features, the encoder gives {features}"
        )
    return pooled, hidden, len(head["3.weight"])


def as_matrix(kernel: torch.Tensor, key: str, origin: str) -> torch.Tensor:
    """A kernel (out, in, 1) or (out, in, 1, 1) as a matrix (out, in)."""
    if kernel.dim() < 2 or any(size != 1 for size in kernel.shape[2:]):
        raise WeightsError(
            f"{origin}: {key} has shape {tuple(kernel.shape)}; expected a 1 x 1 convolution"
        )
    return kernel.flatten(1)

"""Stage 9, classifiers of other projects: a weight file -> an encoder folder, and a classifier.

Two ports that many have trained: DGCNN for classification (Wang et al. 2019) and PCT (Guo et al.
2021), with the same three-layer head. Every key must fit, and what does not is named
(`pixcloud.weight_files` reads the files).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pixcloud.errors import WeightsError, some
from pixcloud.import_weights import CLASSIFICATION, as_matrix, one_value
from pixcloud.weight_files import BN_PARTS, read_weights

if TYPE_CHECKING:
    import torch

    from pixcloud.encoders import PointEncoder
    from pixcloud.heads import ClassificationHead

# Our names of tensors: all names that the file has for each.
Names = dict[str, tuple[str, ...]]


class Port(NamedTuple):
    """title, as messages call it; encoder, its registered name; names of its tensors."""

    title: str
    encoder: str
    names: Names


def _linear(ours: str, *theirs: str, bias: bool = False) -> Names:
    found = {f"{ours}.weight": tuple(f"{name}.weight" for name in theirs)}
    return found | ({f"{ours}.bias": tuple(f"{name}.bias" for name in theirs)} if bias else {})


def _bn(ours: str, *theirs: str) -> Names:
    return {f"{ours}.{part}": tuple(f"{name}.{part}" for name in theirs) for part in BN_PARTS}


HEAD: Names = {
    **_linear("0", "linear1"),
    **_bn("1", "bn6"),
    **_linear("4", "linear2", bias=True),
    **_bn("5", "bn7"),
    **_linear("8", "linear3", bias=True),
}


def _dgcnn() -> Names:
    names: Names = {}
    for layer in CLASSIFICATION.layers:
        names |= {layer.linear: (layer.kernel,), **_bn(layer.bn, *layer.bns)}
    return names


def _pct() -> Names:
    names: Names = {**_linear("fuse", "conv_fuse.0"), **_bn("bn", "conv_fuse.1")}
    for i in range(2):
        names |= _linear(f"layers.{i}.linear", f"conv{i + 1}") | _bn(f"layers.{i}.bn", f"bn{i + 1}")
        local, ours = f"gather_local_{i}.", f"stages.{i}."
        for number, ahead in ((1, ""), (2, "second_")):
            names |= _linear(f"{ours}{ahead}linear", f"{local}conv{number}")
            names |= _bn(f"{ours}{ahead}bn", f"{local}bn{number}")
        names |= _linear(f"before.{i}.linear", f"pt_last.conv{i + 1}")
        names |= _bn(f"before.{i}.bn", f"pt_last.bn{i + 1}")
    for i in range(4):
        theirs, ours = f"pt_last.sa{i + 1}.", f"attentions.{i}."
        # Queries and keys are one layer that the file has twice.
        names |= _linear(f"{ours}key", f"{theirs}q_conv", f"{theirs}k_conv")
        names |= _linear(f"{ours}value", f"{theirs}v_conv", bias=True)
        names |= _linear(f"{ours}out", f"{theirs}trans_conv", bias=True)
        names |= _bn(f"{ours}bn", f"{theirs}after_norm")
    return names


DGCNN = Port("DGCNN classifier", "dgcnn", _dgcnn())
PCT = Port("PCT classifier", "pct", _pct())


def import_dgcnn(file: str, out: str, k: int = 20) -> str:
    """Turn the weights of a plain DGCNN classifier into an encoder folder.

    Args:
        file: state dict saved by torch (.pth, .t7) or safetensors, with or without the head; no
            pickled code is executed.
        out: folder to write; `pixcloud.load_encoder` reads it, and `pixcloud.load_classifier` the
            folder `classifier` in it, which is there if the file has a head.
        k: neighbours per point, which the weights do not tell; published with 20.

    Returns:
        What matched, in one line.

    Raises:
        WeightsError: naming the keys that are missing, unknown, of another shape or contradictory.
    """

    def settings(weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        widths = [len(weights[f"convs.{i}.linear.weight"]) for i in range(4)]
        return {"k": k, "embed_dim": len(weights["fuse.weight"]), "widths": widths}

    return _import(DGCNN, file, out, settings)


def import_pct(file: str, out: str, k: int = 32) -> str:
    """Turn the weights of the best-known PCT port into an encoder folder.

    Args:
        file: state dict saved by torch (.pth, .t7) or safetensors, with or without the head; no
            pickled code is executed.
        out: as for `import_dgcnn`.
        k: neighbours that each centre gathers, which the weights do not tell; published with 32.

    Returns:
        What matched, in one line.

    Raises:
        WeightsError: naming the keys that are missing, unknown, of another shape or contradictory.
    """

    def settings(weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        # The port begins to look for farthest points at point 0.
        channels, embed = len(weights["layers.0.linear.weight"]), len(weights["fuse.weight"])
        return {"k": k, "embed_dim": embed, "channels": channels, "start": "first"}

    return _import(PCT, file, out, settings)


def _import(port: Port, file: str, out: str, settings: Any) -> str:
    from pixcloud.encoders import build_encoder
    from pixcloud.evaluate.classifier import PointClassifier, save_classifier
    from pixcloud.export import load_strictly, save_encoder

    path, folder = Path(file).expanduser(), Path(out).expanduser()
    if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise WeightsError(f"{folder}: exists already; give a new folder")
    source, matched = read_weights(path)
    has_head = any(key.startswith("linear") for key in source)
    weights, head = _translated(port, source, has_head, str(path))
    encoder: PointEncoder = build_encoder(port.encoder, **settings(weights)).eval()
    load_strictly(encoder, weights, str(path), {name: n[0] for name, n in port.names.items()})
    origin = {"imported": port.encoder, "file": path.name}
    said = f"{path}: {matched}: {port.title} {encoder.spec['settings']}"
    if has_head:
        # The file has no names of the classes.
        classes = [str(number) for number in range(len(head["8.bias"]))]
        model = PointClassifier(encoder, classes)
        layers: ClassificationHead = model.head  # type: ignore[assignment]
        load_strictly(layers, head, str(path), {name: names[0] for name, names in HEAD.items()})
    save_encoder(folder, encoder, origin=origin)
    said += f"; written to {folder}"
    if has_head:
        save_classifier(folder / "classifier", model.eval(), origin)
        said += f", and with its head for {len(classes)} classes to {folder / 'classifier'}"
    return said


def _translated(
    port: Port, source: dict[str, torch.Tensor], has_head: bool, origin: str
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """State dicts of our encoder and of its head, each tensor of the file in one of them."""
    left = dict(source)
    missing: list[str] = []

    def take(names: Names) -> dict[str, torch.Tensor]:
        taken = {}
        for ours, theirs in names.items():
            missing.extend(key for key in theirs if key not in left)
            value = one_value({key: left.pop(key, None) for key in theirs}, origin)
            if value is not None:
                kernel = value.dim() > 1
                taken[ours] = as_matrix(value, theirs[0], origin) if kernel else value
        return taken

    weights, head = take(port.names), take(HEAD) if has_head else {}
    if missing or left:
        problems = [f"missing: {some(missing)}"] if missing else []
        problems += [f"not known here: {some(sorted(left))}"] if left else []
        if any(key.startswith("inv_head.") for key in left):
            problems.append("that is CrossPoint's projection head: try pixcloud import crosspoint")
        raise WeightsError(f"{origin}: not the state dict of a {port.title}; {'; '.join(problems)}")
    return weights, head

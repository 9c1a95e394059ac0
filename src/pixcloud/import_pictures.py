"""Stage 8, picture towers of other projects: a weight file -> the folder of a tower, strictly.

The original CrossPoint saves its picture side as a ResNet with torchvision's names below `resnet.`,
and the projection head as `inv_head`. `pixcloud.weight_files` reads the file before, and
`pixcloud.export_tower` writes the folder after.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pixcloud.errors import WeightsError, some
from pixcloud.import_weights import head_sizes
from pixcloud.weight_files import BN_PARTS, read_weights

if TYPE_CHECKING:
    import torch

# Blocks of each stage, and convolutions of a block, of the ResNets that are built in.
SHAPES: dict[tuple[tuple[int, ...], int], str] = {
    ((3, 4, 6, 3), 3): "resnet50",
    ((2, 2, 2, 2), 2): "resnet18",
}
HEAD = "inv_head."


def import_crosspoint_pictures(file: str, out: str) -> str:
    """Turn the original CrossPoint weights of the picture tower into a tower folder.

    Args:
        file: state dict saved by torch (.pth, .pt) or safetensors, of a ResNet-50 (or
            ResNet-18) with its projection head, or without; no pickled code is executed.
        out: folder to write; `pixcloud.load_tower` reads it.

    Returns:
        What matched, in one line.

    Raises:
        WeightsError: naming the keys that are missing, unknown or of another shape.
    """
    from pixcloud.encoders.image import ImageEncoder
    from pixcloud.export import load_strictly
    from pixcloud.export_tower import save_tower
    from pixcloud.heads import ProjectionHead

    path, folder = Path(file).expanduser(), Path(out).expanduser()
    if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise WeightsError(f"{folder}: exists already; give a new folder")
    source, matched = read_weights(path)
    head_weights = {
        key.removeprefix(HEAD): value for key, value in source.items() if key.startswith(HEAD)
    }
    weights = {key: value for key, value in source.items() if not key.startswith(HEAD)}
    name, names = tower_names(weights, str(path))
    tower = ImageEncoder(name)
    load_strictly(
        tower, {ours: weights[theirs] for ours, theirs in names.items()}, str(path), names
    )
    head, said = None, ""
    if head_weights:
        pooled, hidden, projection = head_sizes(head_weights, str(path), tower.pooled_dim)
        head = ProjectionHead(pooled, hidden, projection, bias="0.bias" in head_weights)
        load_strictly(head, head_weights, str(path), {key: HEAD + key for key in head_weights})
        said = f" and its projection head {pooled}-{hidden}-{projection}"
    save_tower(folder, tower, head, {"imported": "crosspoint pictures", "file": path.name})
    return f"{path}: {matched}: {name}{said}; written to {folder}"


def tower_names(weights: dict[str, torch.Tensor], origin: str) -> tuple[str, dict[str, str]]:
    """Which ResNet it is, and the file's name of each of our tensors."""
    prefix = "resnet." if any(key.startswith("resnet.") for key in weights) else ""
    depths, convolutions = [], 0
    for stage in range(1, 5):
        depth = 0
        while f"{prefix}layer{stage}.{depth}.conv1.weight" in weights:
            depth += 1
        depths.append(depth)
    while f"{prefix}layer1.0.conv{convolutions + 1}.weight" in weights:
        convolutions += 1
    name = SHAPES.get((tuple(depths), convolutions), "")
    if not name:
        raise WeightsError(
            f"{origin}: not the state dict of a ResNet-50 or ResNet-18; its layer1 to layer4 have "
            f"{depths} blocks of {convolutions} convolutions; keys: {some(sorted(weights))}"
        )
    names = _layer("embedder.embedder", f"{prefix}conv1", f"{prefix}bn1")
    for stage, depth in enumerate(depths):
        for block in range(depth):
            ours = f"encoder.stages.{stage}.layers.{block}"
            theirs = f"{prefix}layer{stage + 1}.{block}"
            for number in range(convolutions):
                pair = f"{theirs}.conv{number + 1}", f"{theirs}.bn{number + 1}"
                names |= _layer(f"{ours}.layer.{number}", *pair)
            # The first block of ResNet-18's first stage changes neither width nor size.
            if block == 0 and (stage or convolutions == 3):
                pair = f"{theirs}.downsample.0", f"{theirs}.downsample.1"
                names |= _layer(f"{ours}.shortcut", *pair)
    missing = sorted(set(names.values()) - set(weights))
    extra = sorted(set(weights) - set(names.values()))
    if missing or extra:
        problems = [f"missing: {some(missing)}"] if missing else []
        problems += [f"not known here: {some(extra)}"] if extra else []
        raise WeightsError(f"{origin}: not the state dict of a {name}; {'; '.join(problems)}")
    return name, names


def _layer(ours: str, convolution: str, bn: str) -> dict[str, str]:
    """Our names of a convolution and its BN, and the file's."""
    names = {f"backbone.{ours}.convolution.weight": f"{convolution}.weight"}
    return names | {f"backbone.{ours}.normalization.{p}": f"{bn}.{p}" for p in BN_PARTS}

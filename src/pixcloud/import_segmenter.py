"""Stage 9, DGCNN for parts with its head: a weight file -> an encoder folder, and a segmenter.

The published network for ShapeNetPart (Wang et al. 2019), as CrossPoint fine-tunes it: what
`pixcloud.import_weights` knows as DGCNN for segmentation, and behind it the embedded category
(conv7), three layers per point (conv8 to conv10) and the logits of 50 parts (conv11).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixcloud.data.shapenetpart import PUBLISHED_PARTS
from pixcloud.errors import WeightsError, some
from pixcloud.import_weights import Translation, as_matrix, head_sizes, one_value, translate
from pixcloud.weight_files import BN_PARTS, read_weights

if TYPE_CHECKING:
    import torch

# Number of the original's convolution and BN: our linear map and BN.
LAYERS = {
    7: ("category.0", "category.1"),
    8: ("first", "rest.0"),
    9: ("rest.3", "rest.4"),
    10: ("rest.7", "rest.8"),
}
LAST = "conv11.weight"


def import_dgcnn_partseg(file: str, out: str, k: int = 40) -> str:
    """Turn the weights of a DGCNN for part segmentation into an encoder folder and a segmenter.

    Args:
        file: state dict saved by torch (.pth, .t7) or safetensors, of the published network for
            ShapeNetPart, with or without CrossPoint's projection head; no pickled code is executed.
        out: folder to write; `pixcloud.load_encoder` reads it, and `pixcloud.load_segmenter` the
            folder `segmenter` in it.
        k: neighbours per point, which the weights do not tell; published with 40 for 2,048 points.

    Returns:
        What matched, in one line.

    Raises:
        WeightsError: naming the keys that are missing, unknown, of another shape or contradictory.
    """
    from pixcloud.encoders import build_encoder
    from pixcloud.evaluate.segmenter import PointSegmenter, save_segmenter
    from pixcloud.export import load_strictly, save_encoder
    from pixcloud.heads import ProjectionHead

    path, folder = Path(file).expanduser(), Path(out).expanduser()
    if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise WeightsError(f"{folder}: exists already; give a new folder")
    source, matched = read_weights(path)
    found, parts, names = _translated(source, str(path))
    encoder = build_encoder(found.form.encoder, **_settings(found, k))
    load_strictly(encoder, found.encoder, str(path), found.names)
    part_names = {name: [f"part {i}" for i in range(n)] for name, n in PUBLISHED_PARTS.items()}
    model = PointSegmenter(encoder, part_names)
    load_strictly(model.head, parts, str(path), names)
    head = None
    if found.head:
        head = ProjectionHead(*head_sizes(found.head, str(path), encoder.pooled_dim))
        load_strictly(head, found.head, str(path), {key: f"inv_head.{key}" for key in found.head})
    origin = {"imported": "dgcnn_partseg", "file": path.name}
    save_encoder(folder, encoder, head, origin)
    save_segmenter(folder / "segmenter", model.eval(), origin)
    return (
        f"{path}: {matched}: {found.form.title} {encoder.spec['settings']}"
        f"{' and its projection head' if head else ''}; written to {folder}, and with its head for "
        f"{len(parts['rest.10.weight'])} parts to {folder / 'segmenter'}"
    )


def _settings(found: Translation, k: int) -> dict[str, Any]:
    """Settings of the encoder, its sizes read from the weights."""
    own = [layer.linear for layer in found.form.layers if not layer.linear.startswith("transform")]
    *over_edges, embed = [len(found.encoder[name]) for name in own]
    return {"k": k, "embed_dim": embed, "widths": over_edges}


def _translated(
    source: dict[str, torch.Tensor], origin: str
) -> tuple[Translation, dict[str, torch.Tensor], dict[str, str]]:
    """The encoder, the head for parts by our names, and what the file calls these."""
    left = {key: value for key, value in source.items() if not key.startswith("bn")}
    own_bns = {key: value for key, value in source.items() if key.startswith("bn")}
    names = {"rest.10.weight": LAST}
    keys: dict[str, tuple[str, ...]] = {"rest.10.weight": (LAST,)}
    for number, (linear, bn) in LAYERS.items():
        keys[f"{linear}.weight"] = (f"conv{number}.0.weight",)
        for part in BN_PARTS:
            keys[f"{bn}.{part}"] = (f"bn{number}.{part}", f"conv{number}.1.{part}")
    wanted = {key for theirs in keys.values() for key in theirs}
    if missing := sorted(wanted - set(source)):
        others = "; without a head for parts: pixcloud import crosspoint" * (LAST in missing)
        raise WeightsError(
            f"{origin}: not a DGCNN for parts with its head; missing: {some(missing)}{others}"
        )
    parts: dict[str, torch.Tensor] = {}
    for ours, theirs in keys.items():
        value = one_value({key: source[key] for key in theirs}, origin)
        assert value is not None
        names[ours] = theirs[0]
        parts[ours] = as_matrix(value, theirs[0], origin) if value.dim() > 1 else value
    # The encoder's own form knows bn7 to bn10, as layers that belong to no encoder.
    encoder = {key: value for key, value in left.items() if key not in wanted} | own_bns
    return translate(encoder, origin, with_head=False), parts, names

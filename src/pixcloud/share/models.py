"""Stage 9, what is to leave: a run, a folder or a Hub id -> `Model`, read strictly.

Before it: `pixcloud.export` and `pixcloud.evaluate` (`classifier`, `segmenter`), which wrote the
folders. After it: `pixcloud.share.onnx_file` and `pixcloud.share.push`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pixcloud.encoders import PointEncoder
from pixcloud.errors import WeightsError
from pixcloud.evaluate.classifier import PointClassifier, load_classifier
from pixcloud.evaluate.segmenter import PointSegmenter, load_segmenter
from pixcloud.export import CONFIG, HEAD, PICTURE, WEIGHTS, find_encoder, load_encoder, read_meta
from pixcloud.hub import download, is_hub_id

if TYPE_CHECKING:
    from torch import nn

Pretrained: TypeAlias = PointEncoder | PointClassifier | PointSegmenter
# Kinds of fine-tuned models: their weights lie in KIND.safetensors.
FINE_TUNED: dict[str, Callable[[Path], PointClassifier | PointSegmenter]] = {
    "classifier": load_classifier,
    "segmenter": load_segmenter,
}


@dataclass(kw_only=True)
class Model:
    """kind: "encoder", "classifier" or "segmenter"; folder: where it lies; meta: its config.json;
    module: it, in evaluation mode; files: names of the files in the folder that are all of it.
    """

    kind: str
    folder: Path
    meta: dict[str, Any]
    module: nn.Module
    files: list[str]

    @property
    def encoder(self) -> PointEncoder:
        """The encoder, or the one within the classifier or segmenter."""
        inner = getattr(self.module, "encoder", self.module)
        assert isinstance(inner, PointEncoder)
        return inner

    @property
    def sha256(self) -> str:
        return str(self.meta.get("weights_sha256", ""))


def open_model(source: str | Path) -> Model:
    """An encoder, classifier or segmenter with its description.

    Args:
        source: a run folder, the folder of a model, or a Hub id ("owner/name", or
            "owner/name@revision").

    Raises:
        WeightsError: if nothing of that kind is there, or it is damaged.

    Example:
        >>> open_model("runs/mine").kind  # doctest: +SKIP
        'encoder'
    """
    folder = Path(source).expanduser()
    if not folder.exists() and is_hub_id(str(source)):
        folder = download(str(source))
    for kind, load in FINE_TUNED.items():
        weights = f"{kind}.safetensors"
        if (folder / CONFIG).is_file() and (folder / weights).is_file():
            module = load(folder)
            meta = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            files = [CONFIG, weights]
            return Model(kind=kind, folder=folder, meta=meta, module=module, files=files)
    folder = find_encoder(folder)
    files = [CONFIG, WEIGHTS, *(name for name in (HEAD, PICTURE) if (folder / name).is_file())]
    return Model(
        kind="encoder",
        folder=folder,
        meta=read_meta(folder),
        module=load_encoder(folder),
        files=files,
    )


def from_pretrained(source: str | Path, revision: str = "") -> Pretrained:
    """The model in a folder or a repository of the Hugging Face Hub, in evaluation mode.

    Args:
        source: as for `load_encoder`, or the folder of a classifier or segmenter.
        revision: branch, tag or commit of a Hub repository; a commit pins the weights.

    Raises:
        WeightsError: if nothing of that kind is there, or it is damaged.

    Example:
        >>> from_pretrained("someone/dgcnn-shapenet", revision="v1")  # doctest: +SKIP
    """
    if revision and not is_hub_id(f"{source}@{revision}"):
        raise WeightsError(f"{source}: a revision ('{revision}') needs a Hub id, owner/name")
    model = open_model(f"{source}@{revision}" if revision else source)
    assert isinstance(model.module, Pretrained)
    return model.module

"""PixCloud: 3D point-cloud encoders learned without labels, from shapes and pictures of them.

The names below are imported on first use, so that `import pixcloud` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pixcloud._version import __version__

if TYPE_CHECKING:
    from pixcloud.config import PretrainConfig, pretrain_config
    from pixcloud.cross_modal import load_cross_modal
    from pixcloud.data.make import make_pairs
    from pixcloud.data.sources import open_labelled, open_pairs, open_parts
    from pixcloud.data.synthetic import ensure_synthetic
    from pixcloud.encoders import build_encoder, import_encoder, register_encoder
    from pixcloud.errors import PixCloudError
    from pixcloud.evaluate.classifier import load_classifier, save_classifier
    from pixcloud.evaluate.classify import classify
    from pixcloud.evaluate.command import probe
    from pixcloud.evaluate.embed import embed
    from pixcloud.evaluate.evaluation import evaluate_encoder
    from pixcloud.evaluate.evaluation_settings import EvaluateConfig
    from pixcloud.evaluate.label_parts import parts
    from pixcloud.evaluate.retrieval_command import retrieve
    from pixcloud.evaluate.retrieval_settings import RetrieveConfig
    from pixcloud.evaluate.search import search
    from pixcloud.evaluate.segment_settings import SegmentConfig
    from pixcloud.evaluate.segmenter import load_segmenter, save_segmenter
    from pixcloud.evaluate.settings import ProbeConfig
    from pixcloud.evaluate.training_command import fewshot, finetune, segment
    from pixcloud.evaluate.training_settings import FewShotConfig, FinetuneConfig
    from pixcloud.export import load_encoder, save_encoder
    from pixcloud.export_tower import load_tower, save_tower
    from pixcloud.import_classifiers import import_dgcnn, import_pct
    from pixcloud.import_pictures import import_crosspoint_pictures
    from pixcloud.import_segmenter import import_dgcnn_partseg
    from pixcloud.import_weights import import_crosspoint
    from pixcloud.report.page import report
    from pixcloud.share.command import export_model
    from pixcloud.share.models import from_pretrained
    from pixcloud.share.push import push_to_hub
    from pixcloud.store import VectorStore
    from pixcloud.trainer import pretrain

_WHERE = {
    "EvaluateConfig": "pixcloud.evaluate.evaluation_settings",
    "FewShotConfig": "pixcloud.evaluate.training_settings",
    "FinetuneConfig": "pixcloud.evaluate.training_settings",
    "PixCloudError": "pixcloud.errors",
    "PretrainConfig": "pixcloud.config",
    "ProbeConfig": "pixcloud.evaluate.settings",
    "RetrieveConfig": "pixcloud.evaluate.retrieval_settings",
    "SegmentConfig": "pixcloud.evaluate.segment_settings",
    "VectorStore": "pixcloud.store",
    "build_encoder": "pixcloud.encoders",
    "classify": "pixcloud.evaluate.classify",
    "embed": "pixcloud.evaluate.embed",
    "ensure_synthetic": "pixcloud.data.synthetic",
    "evaluate_encoder": "pixcloud.evaluate.evaluation",
    "export_model": "pixcloud.share.command",
    "fewshot": "pixcloud.evaluate.training_command",
    "finetune": "pixcloud.evaluate.training_command",
    "from_pretrained": "pixcloud.share.models",
    "import_crosspoint": "pixcloud.import_weights",
    "import_crosspoint_pictures": "pixcloud.import_pictures",
    "import_dgcnn": "pixcloud.import_classifiers",
    "import_encoder": "pixcloud.encoders",
    "import_dgcnn_partseg": "pixcloud.import_segmenter",
    "import_pct": "pixcloud.import_classifiers",
    "load_classifier": "pixcloud.evaluate.classifier",
    "load_cross_modal": "pixcloud.cross_modal",
    "load_encoder": "pixcloud.export",
    "load_segmenter": "pixcloud.evaluate.segmenter",
    "load_tower": "pixcloud.export_tower",
    "make_pairs": "pixcloud.data.make",
    "open_labelled": "pixcloud.data.sources",
    "open_pairs": "pixcloud.data.sources",
    "open_parts": "pixcloud.data.sources",
    "parts": "pixcloud.evaluate.label_parts",
    "pretrain": "pixcloud.trainer",
    "pretrain_config": "pixcloud.config",
    "probe": "pixcloud.evaluate.command",
    "push_to_hub": "pixcloud.share.push",
    "register_encoder": "pixcloud.encoders",
    "report": "pixcloud.report.page",
    "retrieve": "pixcloud.evaluate.retrieval_command",
    "save_classifier": "pixcloud.evaluate.classifier",
    "save_encoder": "pixcloud.export",
    "save_segmenter": "pixcloud.evaluate.segmenter",
    "save_tower": "pixcloud.export_tower",
    "search": "pixcloud.evaluate.search",
    "segment": "pixcloud.evaluate.training_command",
}

__all__ = [
    "EvaluateConfig",
    "FewShotConfig",
    "FinetuneConfig",
    "PixCloudError",
    "PretrainConfig",
    "ProbeConfig",
    "RetrieveConfig",
    "SegmentConfig",
    "VectorStore",
    "__version__",
    "build_encoder",
    "classify",
    "embed",
    "ensure_synthetic",
    "evaluate_encoder",
    "export_model",
    "fewshot",
    "finetune",
    "from_pretrained",
    "import_crosspoint",
    "import_crosspoint_pictures",
    "import_dgcnn",
    "import_dgcnn_partseg",
    "import_encoder",
    "import_pct",
    "load_classifier",
    "load_cross_modal",
    "load_encoder",
    "load_segmenter",
    "load_tower",
    "make_pairs",
    "open_labelled",
    "open_pairs",
    "open_parts",
    "parts",
    "pretrain",
    "pretrain_config",
    "probe",
    "push_to_hub",
    "register_encoder",
    "report",
    "retrieve",
    "save_classifier",
    "save_encoder",
    "save_segmenter",
    "save_tower",
    "search",
    "segment",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'pixcloud' has no attribute '{name}'")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

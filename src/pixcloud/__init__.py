"""PixCloud: 3D point-cloud encoders learned without labels, from shapes and pictures of them.

The names below are imported on first use, so that `import pixcloud` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pixcloud._version import __version__

if TYPE_CHECKING:
    from pixcloud.config import PretrainConfig, pretrain_config
    from pixcloud.data.make import make_pairs
    from pixcloud.data.sources import open_labelled, open_pairs, open_parts
    from pixcloud.data.synthetic import ensure_synthetic
    from pixcloud.encoders import build_encoder, import_encoder, register_encoder
    from pixcloud.errors import PixCloudError
    from pixcloud.evaluate.classifier import load_classifier, save_classifier
    from pixcloud.evaluate.classify import classify
    from pixcloud.evaluate.command import probe
    from pixcloud.evaluate.label_parts import parts
    from pixcloud.evaluate.segment_settings import SegmentConfig
    from pixcloud.evaluate.segmenter import load_segmenter, save_segmenter
    from pixcloud.evaluate.settings import ProbeConfig
    from pixcloud.evaluate.training_command import fewshot, finetune, segment
    from pixcloud.evaluate.training_settings import FewShotConfig, FinetuneConfig
    from pixcloud.export import load_encoder, save_encoder
    from pixcloud.import_classifiers import import_dgcnn, import_pct
    from pixcloud.import_weights import import_crosspoint
    from pixcloud.report.page import report
    from pixcloud.trainer import pretrain

_WHERE = {
    "FewShotConfig": "pixcloud.evaluate.training_settings",
    "FinetuneConfig": "pixcloud.evaluate.training_settings",
    "PixCloudError": "pixcloud.errors",
    "PretrainConfig": "pixcloud.config",
    "ProbeConfig": "pixcloud.evaluate.settings",
    "SegmentConfig": "pixcloud.evaluate.segment_settings",
    "build_encoder": "pixcloud.encoders",
    "classify": "pixcloud.evaluate.classify",
    "ensure_synthetic": "pixcloud.data.synthetic",
    "fewshot": "pixcloud.evaluate.training_command",
    "finetune": "pixcloud.evaluate.training_command",
    "import_crosspoint": "pixcloud.import_weights",
    "import_dgcnn": "pixcloud.import_classifiers",
    "import_encoder": "pixcloud.encoders",
    "import_pct": "pixcloud.import_classifiers",
    "load_classifier": "pixcloud.evaluate.classifier",
    "load_encoder": "pixcloud.export",
    "load_segmenter": "pixcloud.evaluate.segmenter",
    "make_pairs": "pixcloud.data.make",
    "open_labelled": "pixcloud.data.sources",
    "open_pairs": "pixcloud.data.sources",
    "open_parts": "pixcloud.data.sources",
    "parts": "pixcloud.evaluate.label_parts",
    "pretrain": "pixcloud.trainer",
    "pretrain_config": "pixcloud.config",
    "probe": "pixcloud.evaluate.command",
    "register_encoder": "pixcloud.encoders",
    "report": "pixcloud.report.page",
    "save_classifier": "pixcloud.evaluate.classifier",
    "save_encoder": "pixcloud.export",
    "save_segmenter": "pixcloud.evaluate.segmenter",
    "segment": "pixcloud.evaluate.training_command",
}

__all__ = [
    "FewShotConfig",
    "FinetuneConfig",
    "PixCloudError",
    "PretrainConfig",
    "ProbeConfig",
    "SegmentConfig",
    "__version__",
    "build_encoder",
    "classify",
    "ensure_synthetic",
    "fewshot",
    "finetune",
    "import_crosspoint",
    "import_dgcnn",
    "import_encoder",
    "import_pct",
    "load_classifier",
    "load_encoder",
    "load_segmenter",
    "make_pairs",
    "open_labelled",
    "open_pairs",
    "open_parts",
    "parts",
    "pretrain",
    "pretrain_config",
    "probe",
    "register_encoder",
    "report",
    "save_classifier",
    "save_encoder",
    "save_segmenter",
    "segment",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'pixcloud' has no attribute '{name}'")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

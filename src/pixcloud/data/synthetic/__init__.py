"""Stages 1 and 2, the embedded data: procedural objects with parts, pictures and labels."""

from __future__ import annotations

from pixcloud.data.synthetic.catalog import CATEGORIES, build_object
from pixcloud.data.synthetic.dataset import SyntheticSettings, ensure_synthetic

__all__ = ["CATEGORIES", "SyntheticSettings", "build_object", "ensure_synthetic"]

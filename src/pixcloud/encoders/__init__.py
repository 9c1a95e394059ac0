"""Stage 4: points (B, N, 3) -> PointFeatures(per_point (B, N, C) or None, pooled (B, D)).

Every point encoder is a `PointEncoder`; the registry below makes one from its name and settings,
which is also what a saved encoder holds. Picture towers are in `pixcloud.encoders.image`.
"""

from __future__ import annotations

import inspect
from typing import Any

from pixcloud.encoders.base import PointEncoder
from pixcloud.encoders.code import (
    import_class,
    installed_class,
    is_code,
    key_of,
    named_by_the_user,
)
from pixcloud.encoders.dgcnn import DGCNN
from pixcloud.encoders.dgcnn_seg import SegmentationDGCNN
from pixcloud.encoders.patch_transformer import PatchTransformer
from pixcloud.encoders.pct import PCT
from pixcloud.encoders.pointnet import PointNet
from pixcloud.errors import ConfigError, nearest

ENCODERS: dict[str, type[PointEncoder]] = {
    "pointnet": PointNet,
    "dgcnn": DGCNN,
    "dgcnn_seg": SegmentationDGCNN,
    "pct": PCT,
    "patch_transformer": PatchTransformer,
}

__all__ = [
    "DGCNN",
    "ENCODERS",
    "PCT",
    "PatchTransformer",
    "PointEncoder",
    "PointNet",
    "SegmentationDGCNN",
    "build_encoder",
    "build_saved_encoder",
    "import_encoder",
    "key_of",
    "register_encoder",
]


def register_encoder(name: str, cls: type[PointEncoder]) -> None:
    """Make `cls` known as `name`, for `--encoder.name NAME` and for loading saved weights.

    Raises:
        ConfigError: if another class has that name already.
    """
    if ENCODERS.get(name, cls) is not cls:
        raise ConfigError(f"encoder name '{name}' is taken by {ENCODERS[name].__name__}")
    ENCODERS[name] = cls


def import_encoder(name: str) -> str:
    """Import and register an encoder of your own: this runs the code that you name.

    Args:
        name: "package.module:Class" for what Python can import, or "path/to/file.py:Class".

    Returns:
        The name that it is registered and saved as: `name`, of a file without its folders.

    Raises:
        ConfigError: if there is no such code, it is no `PointEncoder`, or another file of the same
            name is registered.
    """
    register_encoder(key_of(name), import_class(name))
    return key_of(name)


def build_saved_encoder(spec: dict[str, Any]) -> PointEncoder:
    """A point encoder from what a saved one holds; no code runs that the user has not named.

    Args:
        spec: {"name", "settings"}.

    Raises:
        ConfigError: as `build_encoder`, and for an encoder of somebody's own that has neither been
            imported in this process nor named by --code or in PIXCLOUD_CODE.
    """
    name = spec["name"]
    if is_code(name) and name not in ENCODERS:
        given = named_by_the_user(name)
        if not given:
            where = f"PATH/{name}" if ".py:" in name else name
            raise ConfigError(
                f"encoder '{name}' is code that does not come with this package, and runs only if "
                f'you name it: --code {where}, or pixcloud.import_encoder("{where}") before loading'
            )
        import_encoder(given)
    return build_encoder(name, **spec["settings"])


def build_encoder(name: str, **settings: Any) -> PointEncoder:
    """A point encoder with fresh weights drawn from torch's global generator.

    Args:
        name: a registered name, such as "dgcnn" or "pointnet", one that an installed package
            offers, or where your own code is, as for `import_encoder`.
        **settings: keyword arguments of the class.

    Raises:
        ConfigError: for an unknown name or setting (the nearest known one is named), or a value
            that the class refuses.

    Example:
        >>> build_encoder("dgcnn", k=15).pooled_dim
        2048
    """
    if name not in ENCODERS:
        name = _found(name)
    known = list(inspect.signature(ENCODERS[name].__init__).parameters)[1:]
    for key in settings:
        if key not in known:
            raise ConfigError(f"unknown setting '{key}' of {name}: {nearest(key, known)}")
    try:
        encoder = ENCODERS[name](**settings)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"settings of encoder {name}: {reason}") from error
    for size in ("point_dim", "pooled_dim"):
        if not hasattr(encoder, size):
            raise ConfigError(f"encoder {name} sets no {size}: see pixcloud.encoders.PointEncoder")
    encoder.spec = {"name": name, "settings": dict(settings)}
    return encoder


def _found(name: str) -> str:
    """The registered name of an encoder that is not registered yet."""
    if is_code(name):
        return import_encoder(name)
    offered = installed_class(name)
    if offered is None:
        raise ConfigError(f"unknown encoder '{name}': {nearest(name, ENCODERS)}")
    register_encoder(name, offered)
    return name

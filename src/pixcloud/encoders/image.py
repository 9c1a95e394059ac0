"""Stage 4, picture towers: pictures (B, 3, H, W) in [0, 1] -> pooled features (B, D)."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pixcloud.encoders.resnet import ResNet
from pixcloud.errors import WeightsError, nearest, some

# Mean and standard deviation of RGB on ImageNet, which most towers were trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# ResNets of He et al. 2016 (arXiv:1512.03385), from scratch; "resnet-tiny" is a narrow one for
# small pictures and slow machines.
RESNETS: dict[str, dict[str, Any]] = {
    "resnet50": {},
    "resnet18": {"depths": (2, 2, 2, 2), "hidden_sizes": (64, 128, 256, 512), "narrow": False},
    "resnet-tiny": {
        "depths": (1, 1, 1, 1),
        "hidden_sizes": (16, 32, 64, 128),
        "embedding_size": 16,
        "narrow": False,
    },
}


class ImageEncoder(nn.Module):
    """A ResNet, or a vision backbone of transformers, with the normalisation that it expects.

    Args:
        name: "resnet50", "resnet18" or "resnet-tiny" (built here, weights from torch's global
            generator), else a local folder or a Hugging Face Hub id whose weights are loaded
            (safetensors only: pickles are not read).
        frozen: keep the backbone's weights and batch statistics as they are.

    Raises:
        WeightsError: if `name` is neither built in nor a loadable backbone.

    Example:
        >>> ImageEncoder("resnet-tiny")(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 128])
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, name: str = "resnet50", *, frozen: bool = False) -> None:
        super().__init__()
        self.name = name
        mean: Sequence[float] = IMAGENET_MEAN
        std: Sequence[float] = IMAGENET_STD
        if name in RESNETS:
            self.backbone: nn.Module = ResNet(**RESNETS[name])
        else:
            self.backbone = _load_backbone(name)
            mean, std = _normalisation(name)
        # Transformers that know this option take pictures of any size, not only of their own.
        known = inspect.signature(self.backbone.forward).parameters
        resizes = "interpolate_pos_encoding" in known
        self.options = {"interpolate_pos_encoding": True} if resizes else {}
        self.frozen = frozen
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        if frozen:
            self.backbone.requires_grad_(False).eval()
        self.pooled_dim = _output_dim(self.backbone)
        # Convolutions on channels-last memory run without reordering: a fifth faster on processors
        # in fp32, more in bf16 and on GPUs.
        self.memory_format = "row-major"
        if any(isinstance(module, nn.Conv2d) for module in self.backbone.modules()):
            self.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.memory_format = "channels-last"

    def train(self, mode: bool = True) -> ImageEncoder:
        """As for every module, but a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, H, W), RGB in [0, 1], to pooled features (B, D)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            normalised = (pictures - self.mean) / self.std
            if self.memory_format == "channels-last":
                normalised = normalised.contiguous(memory_format=torch.channels_last)
            if isinstance(self.backbone, ResNet):
                return self.backbone(normalised)
            return _pool(self.backbone(pixel_values=normalised, **self.options))


def _pool(output: Any) -> torch.Tensor:
    """The pooled vector (B, D) of a backbone's output, whatever kind of backbone it is."""
    pooled = getattr(output, "pooler_output", None)
    if pooled is not None:
        return pooled.flatten(1)
    hidden = output.last_hidden_state
    # Feature maps (B, D, H, W) are averaged; of token sequences (B, T, D) the first one is [CLS].
    return hidden.mean((2, 3)) if hidden.dim() == 4 else hidden[:, 0]


def _output_dim(backbone: nn.Module) -> int:
    if isinstance(backbone, ResNet):
        return backbone.pooled_dim
    config: Any = backbone.config
    sizes = getattr(config, "hidden_sizes", None)
    return int(sizes[-1] if sizes else config.hidden_size)


def _load_backbone(name: str) -> nn.Module:
    from safetensors import SafetensorError
    from transformers import AutoModel

    if "/" not in name and not Path(name).is_dir():  # Hub ids have an owner; spares a look there
        raise WeightsError(
            f"picture tower '{name}': not built in and no folder; {nearest(name, RESNETS)}, or "
            "give a local folder or a Hub id with safetensors weights"
        )
    try:
        model, report = AutoModel.from_pretrained(
            name,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(
            f"picture tower '{name}': not one of {', '.join(RESNETS)} and not loadable as a local "
            f"folder or Hub id with safetensors weights ({reason})"
        ) from error
    missing = sorted(report["missing_keys"])
    # Two-tower models (CLIP, SigLIP) keep their picture side under this name.
    tower = getattr(model, "vision_model", None)
    if tower is not None:
        missing = [key for key in missing if key.startswith("vision_model.")]
    return _complete(model if tower is None else tower, missing, name)


def _complete(tower: nn.Module, missing: list[str], name: str) -> nn.Module:
    """Refuse a tower with made-up weights; a pooler without weights is left out."""
    takes = getattr(tower, "main_input_name", "pixel_values")
    if takes != "pixel_values":
        raise WeightsError(f"picture tower '{name}': takes {takes}, not pictures")
    if missing and all("pooler." in key for key in missing) and hasattr(tower, "pooler"):
        # Many ViTs are published without one; transformers would fill it with noise.
        tower.pooler = None  # type: ignore[assignment]
    elif missing:
        raise WeightsError(
            f"picture tower '{name}': its file lacks weights of the architecture: {some(missing)}"
        )
    return tower


def _normalisation(name: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation from the backbone's preprocessor settings, where it has some."""
    from transformers.utils import cached_file

    path = cached_file(
        name,
        "preprocessor_config.json",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if path is None:
        return IMAGENET_MEAN, IMAGENET_STD
    try:
        settings = json.loads(Path(path).read_text(encoding="utf-8"))
        if settings.get("do_normalize") is False:
            return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        mean = settings.get("image_mean") or IMAGENET_MEAN
        std = settings.get("image_std") or IMAGENET_STD
        torch.tensor([mean, std]).view(2, 3)
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise WeightsError(f"{path}: cannot be read as preprocessor settings ({error})") from error
    return mean, std

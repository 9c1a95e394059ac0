"""Stage 4, ResNet picture towers: normalised pictures (B, 3, H, W) -> pooled features (B, D).

Used by `pixcloud.encoders.image`. Written here rather than taken from transformers, whose ResNet
is the same function but takes 2.5 s to import in every process that trains.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from pixcloud.ops import recorded


class ConvLayer(nn.Module):
    """Convolution without bias, BN and, unless it is the last of a block, ReLU."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, last: bool = False
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False
        )
        self.normalization = nn.BatchNorm2d(outputs)
        self.last = last

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        maps = self.normalization(_convolve(maps, self.convolution))
        return maps if self.last else maps.relu_()


def _convolve(maps: torch.Tensor, layer: nn.Conv2d) -> torch.Tensor:
    """What the layer does; in bf16 on processors, a 1 x 1 convolution as the product that it is.

    A step of ResNet-50 is 2 to 6 % faster for it, most of all where gradients of weights are
    summed over few places. In fp32 it would be slower.
    """
    products = maps.device.type == "cpu" and recorded.half_products(maps)
    if not products or layer.kernel_size != (1, 1):
        return layer(maps)
    rows, columns = layer.stride
    places = maps[:, :, ::rows, ::columns].permute(0, 2, 3, 1)
    return F.linear(places, layer.weight.flatten(1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Residual block: two 3 x 3 convolutions, or 1 x 1, 3 x 3, 1 x 1 with a narrow middle.

    The stride is that of the 3 x 3 convolution, as in torchvision's "v1.5".
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int, narrow: bool) -> None:
        super().__init__()
        changes = inputs != outputs or stride != 1
        self.shortcut = (
            ConvLayer(inputs, outputs, kernel=1, stride=stride, last=True)
            if changes
            else nn.Identity()
        )
        if narrow:
            middle = outputs // 4
            self.layer = nn.Sequential(
                ConvLayer(inputs, middle, kernel=1),
                ConvLayer(middle, middle, stride=stride),
                ConvLayer(middle, outputs, kernel=1, last=True),
            )
        else:
            self.layer = nn.Sequential(
                ConvLayer(inputs, outputs, stride=stride), ConvLayer(outputs, outputs, last=True)
            )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        # In place: of a BN layer's output nothing is kept for the backward pass.
        return self.layer(maps).add_(self.shortcut(maps)).relu_()


class ResNet(nn.Module):
    """ResNet without its classifier (He et al. 2016, arXiv:1512.03385).

    Names of parameters are those of transformers' ResNets, so that weights published for these
    fit key by key.

    Args:
        depths: blocks of each stage.
        hidden_sizes: channels of each stage's output; the last is D.
        embedding_size: channels of the first convolution.
        narrow: blocks with a narrow middle, as ResNet-50 has; else two 3 x 3 convolutions.

    Example:
        >>> ResNet(depths=(1,), hidden_sizes=(16,), narrow=False)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 16])
    """

    def __init__(
        self,
        *,
        depths: Sequence[int] = (3, 4, 6, 3),
        hidden_sizes: Sequence[int] = (256, 512, 1024, 2048),
        embedding_size: int = 64,
        narrow: bool = True,
    ) -> None:
        super().__init__()
        self.pooled_dim = hidden_sizes[-1]
        stem = ConvLayer(3, embedding_size, kernel=7, stride=2)
        self.embedder = _named(embedder=stem, pooler=nn.MaxPool2d(3, stride=2, padding=1))
        channels = [embedding_size, *hidden_sizes]
        stages = [
            _stage(inputs, outputs, depth, stride=2 if number else 1, narrow=narrow)
            for number, (inputs, outputs, depth) in enumerate(
                zip(channels, hidden_sizes, depths, strict=False)
            )
        ]
        self.encoder = _named(stages=nn.Sequential(*stages))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, H, W), normalised, to (B, D): the mean of the last maps."""
        return self.encoder(self.embedder(pictures)).mean((2, 3))


def _stage(inputs: int, outputs: int, depth: int, *, stride: int, narrow: bool) -> nn.Module:
    """Blocks of one width; the first one changes width and size."""
    first = Block(inputs, outputs, stride=stride, narrow=narrow)
    others = [Block(outputs, outputs, stride=1, narrow=narrow) for _ in range(depth - 1)]
    return _named(layers=nn.Sequential(first, *others))


def _named(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))

"""Stage 4, patches and a transformer: points (B, N, 3) -> per point (B, N, C), pooled (B, 2 C)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from pixcloud.encoders.base import PointEncoder, require_sizes
from pixcloud.encoders.pct import farthest_from_centroid, interpolated, rows
from pixcloud.ops.linear_max import linear_max
from pixcloud.ops.neighbours import knn
from pixcloud.types import PointFeatures


class PatchTransformer(PointEncoder):
    """The encoder of Point-MAE (Pang et al. 2022, arXiv:2203.06604), seen whole, without masks.

    The farthest points of a cloud and the nearest neighbours of each are its patches. A small
    PointNet makes a token of each, from the neighbours' places relative to the centre; blocks of a
    vision transformer (layer norms first) follow, and the places of the centres, through an MLP,
    are added before each of them, as in the published code. The pooled feature is the maximum of
    the tokens beside their mean. The per-point features are the tokens carried to each point from
    the three nearest centres by inverse distance, as in PointNet++ (Qi et al. 2017,
    arXiv:1706.02413).

    Defaults are the published sizes. Left out: masks and the decoder, which belong to another
    objective; and stochastic depth, so that an encoder draws nothing.

    Args:
        width: channels of the tokens.
        depth: transformer blocks.
        heads: of the attention; they share the width.
        groups: patches, of which each cloud has this many.
        group_size: points of a patch, its centre among them.
        patch_widths: channels of the three hidden layers that make tokens.
        mlp_ratio: hidden channels of each block's MLP over the width.

    Example:
        >>> encoder = PatchTransformer(width=48, depth=2, heads=3, groups=16, group_size=8)
        >>> encoder(torch.rand(2, 64, 3)).pooled.shape
        torch.Size([2, 96])
    """

    def __init__(
        self,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        groups: int = 64,
        group_size: int = 32,
        patch_widths: Sequence[int] = (128, 256, 512),
        mlp_ratio: int = 4,
    ) -> None:
        super().__init__()
        require_sizes(
            width=width,
            depth=depth,
            heads=heads,
            groups=groups,
            group_size=group_size,
            patch_widths=patch_widths,
            mlp_ratio=mlp_ratio,
        )
        if width % heads:
            raise ValueError(f"width = {width}: a multiple of heads = {heads} is expected")
        if len(patch_widths) != 3:
            raise ValueError(f"patch_widths = {list(patch_widths)}: three are expected")
        self.groups, self.group_size = groups, group_size
        self.patches = PatchEmbedding(patch_widths, width)
        self.places = nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, width))
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        for module in [*self.places, *self.blocks.modules()]:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.point_dim, self.pooled_dim = width, 2 * width
        self.min_points = max(groups, group_size)
        self.min_points_of = ("makes patches of {} points", "group_size")
        if groups >= group_size:
            self.min_points_of = ("makes {} patches of each cloud", "groups")

    def forward(self, points: torch.Tensor) -> PointFeatures:
        """Points (B, N, 3) to per-point (B, N, width) and pooled (B, 2 width)."""
        centres = rows(points, farthest_from_centroid(points, self.groups))
        around = rows(points, knn(points, self.group_size, centres)) - centres[:, :, None]
        tokens, places = self.patches(around), self.places(centres)
        for block in self.blocks:
            tokens = block(tokens + places)
        tokens = self.norm(tokens)
        pooled = torch.cat([tokens.amax(dim=1), tokens.mean(dim=1)], dim=-1)
        return PointFeatures(interpolated(points, centres, tokens), pooled)


class PatchEmbedding(nn.Module):
    """A token for each patch: points relative to their centres (B, G, K, 3) -> (B, G, C).

    Two layers for each point; the maximum over the patch beside each point's own; two more layers;
    and the maximum again. BN is over all points of all patches.
    """

    def __init__(self, widths: Sequence[int], out_channels: int) -> None:
        super().__init__()
        first, second, third = widths
        # A constant in front of a BN is taken off again; the second layer's would reach one, too.
        self.first = nn.Linear(3, first, bias=False)
        self.first_bn = nn.BatchNorm1d(first)
        self.second = nn.Linear(first, second, bias=False)
        self.third = nn.Linear(2 * second, third, bias=False)
        self.third_bn = nn.BatchNorm1d(third)
        self.last = nn.Linear(third, out_channels, bias=False)
        self.last_bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        patches = points.flatten(0, 1)
        x = self.first_bn(self.first(patches).flatten(0, 1)).relu_().unflatten(0, patches.shape[:2])
        x = self.second(x)
        # W [m ; x_j] = W1 m + W2 x_j: the half that a patch shares is multiplied once.
        shared, own = self.third.weight.chunk(2, dim=1)
        x = x @ own.T + (x.amax(dim=1) @ shared.T)[:, None]
        x = self.third_bn(x.flatten(0, 1)).relu_().unflatten(0, patches.shape[:2])
        tokens = linear_max(x, self.last.weight) + self.last_bias
        return tokens.unflatten(0, points.shape[:2])


class Block(nn.Module):
    """A block of ViT (Dosovitskiy et al. 2021, arXiv:2010.11929): (B, G, C) -> (B, G, C)."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.mix = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # (B, heads, G, C / heads) each
        seen = F.scaled_dot_product_attention(query, key, value)
        x = x + self.mix(seen.transpose(1, 2).flatten(2))
        return x + self.mlp(self.mlp_norm(x))

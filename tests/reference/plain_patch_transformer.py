"""The patch transformer written out: one cloud, patch and head at a time, on given weights.

From Pang et al. 2022 and Dosovitskiy et al. 2021. Reads the state dict of
`pixcloud.encoders.PatchTransformer`, in evaluation mode, and shares no code with it.
"""

from __future__ import annotations

import math

import torch

State = dict[str, torch.Tensor]


def plain_patch_transformer(
    state: State, points: torch.Tensor, groups: int, group_size: int, depth: int, heads: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Points (B, N, 3) to per-point (B, N, C) and pooled (B, 2 C) features."""
    outputs = [_one_cloud(state, cloud, groups, group_size, depth, heads) for cloud in points]
    return torch.stack([o[0] for o in outputs]), torch.stack([o[1] for o in outputs])


def _one_cloud(
    state: State, points: torch.Tensor, groups: int, group_size: int, depth: int, heads: int
) -> tuple[torch.Tensor, torch.Tensor]:
    centres = points[_farthest(points, groups)]
    tokens = []
    for centre in centres:
        distances = [(float((point - centre).square().sum()), i) for i, point in enumerate(points)]
        nearest = [i for _, i in sorted(distances)[:group_size]]
        tokens.append(_token(state, torch.stack([points[i] - centre for i in nearest])))
    x = torch.stack(tokens)
    places = torch.stack([_place(state, centre) for centre in centres])
    for number in range(depth):
        x = _block({k: state[f"blocks.{number}.{k}"] for k in _BLOCK}, x + places, heads)
    x = _layer_norm(x, state["norm.weight"], state["norm.bias"])
    carried = []
    for point in points:
        distances = [
            (float((centre - point).square().sum()), i) for i, centre in enumerate(centres)
        ]
        shares = {i: 1 / (distance + 1e-8) for distance, i in sorted(distances)[:3]}
        total = sum(shares.values())
        carried.append(sum((x[i] * (share / total) for i, share in shares.items()), 0 * x[0]))
    return torch.stack(carried), torch.cat([x.max(dim=0).values, x.mean(dim=0)])


def _farthest(points: torch.Tensor, count: int) -> list[int]:
    """From the point farthest from the centroid on, each the farthest from all before it."""
    middle = points.mean(dim=0)
    chosen = [max(range(len(points)), key=lambda i: float((points[i] - middle).square().sum()))]
    while len(chosen) < count:
        gaps = [min(float((point - points[c]).square().sum()) for c in chosen) for point in points]
        # Where no other point is left, the first is chosen again.
        chosen.append(gaps.index(max(gaps)) if max(gaps) > 0 else chosen[0])
    return chosen


def _token(state: State, patch: torch.Tensor) -> torch.Tensor:
    rows = [
        state["patches.second.weight"]
        @ _batch_norm(state, "patches.first_bn", state["patches.first.weight"] @ point).clamp_min(0)
        for point in patch
    ]
    shared = torch.stack(rows).max(dim=0).values
    outputs = []
    for row in rows:
        hidden = state["patches.third.weight"] @ torch.cat([shared, row])
        hidden = _batch_norm(state, "patches.third_bn", hidden).clamp_min(0)
        outputs.append(state["patches.last.weight"] @ hidden + state["patches.last_bias"])
    return torch.stack(outputs).max(dim=0).values


def _batch_norm(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    mean, var, weight, bias = (
        state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def _place(state: State, centre: torch.Tensor) -> torch.Tensor:
    hidden = _gelu(state["places.0.weight"] @ centre + state["places.0.bias"])
    return state["places.2.weight"] @ hidden + state["places.2.bias"]


_BLOCK = (
    *("attention_norm.weight", "attention_norm.bias", "mlp_norm.weight", "mlp_norm.bias"),
    *("qkv.weight", "mix.weight", "mix.bias"),
    *("mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias"),
)


def _block(state: State, x: torch.Tensor, heads: int) -> torch.Tensor:
    normal = _layer_norm(x, state["attention_norm.weight"], state["attention_norm.bias"])
    query, key, value = (normal @ part.T for part in state["qkv.weight"].chunk(3))
    size = x.shape[1] // heads
    seen = []
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        scores = query[:, own] @ key[:, own].T / math.sqrt(size)
        weights = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
        seen.append(weights @ value[:, own])
    x = x + torch.cat(seen, dim=1) @ state["mix.weight"].T + state["mix.bias"]
    normal = _layer_norm(x, state["mlp_norm.weight"], state["mlp_norm.bias"])
    hidden = _gelu(normal @ state["mlp.0.weight"].T + state["mlp.0.bias"])
    return x + hidden @ state["mlp.2.weight"].T + state["mlp.2.bias"]


def _layer_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    mean = x.mean(dim=1, keepdim=True)
    var = (x - mean).square().mean(dim=1, keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def _gelu(x: torch.Tensor) -> torch.Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2

"""One of several processes that embed clouds together: counts and features into a file.

`python evaluated.py OUT.npz PAIRS`
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from pixcloud import distributed
from pixcloud.cross_modal import CrossModal
from pixcloud.data.sources import open_pairs
from pixcloud.distributed import World
from pixcloud.encoders import build_encoder
from pixcloud.encoders.image import ImageEncoder
from pixcloud.evaluate.features import embed_clouds
from pixcloud.evaluate.pairs_in_space import embed_pairs
from pixcloud.heads import ProjectionHead
from pixcloud.launch import processes


class Counted(torch.nn.Module):
    """An encoder that counts the clouds it has seen."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder, self.count = encoder, 0

    def forward(self, points: torch.Tensor) -> object:
        self.count += len(points)
        return self.encoder(points)


def check_moments(world: World) -> None:
    """By both ways, those of all values, of which processes have unequally many, and far off."""
    values = torch.randn(100, 3, dtype=torch.float64) + 1e6
    own = values[world.share(100)][world.rank :]
    taken = torch.cat([values[World(r, world.size).share(100)][r:] for r in range(world.size)])
    for few in (0, distributed.FEW):
        distributed.FEW = few
        parts = torch.var_mean(own, 0, correction=0)
        found = world.moments(parts[1], parts[0], len(own))
        var, mean = torch.var_mean(taken, 0, correction=0)
        assert torch.allclose(found[0], mean, rtol=1e-14)
        assert torch.allclose(found[1], var, rtol=1e-9)
        assert found[2] == len(taken)


def small_model() -> CrossModal:
    """Both towers with fresh weights, a function of nothing."""
    torch.manual_seed(0)
    points, pictures = (
        build_encoder("pointnet", embed_dim=8, widths=[8]),
        ImageEncoder("resnet-tiny"),
    )
    heads = ProjectionHead(8, 8, 4), ProjectionHead(pictures.pooled_dim, 8, 4, bias=False)
    return CrossModal(points, heads[0], pictures, heads[1], num_points=16, picture_size=16)


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    encoder = build_encoder("pointnet", embed_dim=8, widths=[8])
    clouds = np.random.default_rng(0).normal(size=(2468, 16, 3)).astype(np.float32)
    found = {}
    with processes("cpu") as world:
        check_moments(world)
        for size in sorted({1, max(1, world.size - 1), world.size, world.size + 1, 2468}):
            for batch in (1, 128):
                if size * batch == 2468:
                    continue  # so many batches of one cloud take long and show nothing new
                counted = Counted(encoder)
                features = embed_clouds(
                    counted, clouds[:size], num_points=16, batch_size=batch, world=world
                )
                counts = world.sum(torch.tensor([counted.count]))
                assert counts.tolist() == [size], (size, batch, counted.count)
                found[f"{size}-{batch}"] = features
        space = embed_pairs(small_model(), open_pairs(sys.argv[2]), batch_size=5, world=world)
        found |= {"pairs-clouds": space.clouds, "pairs-pictures": space.pictures}
    np.savez(f"{sys.argv[1]}-{world.rank}.npz", **found)


if __name__ == "__main__":
    main()

"""Stage 6: views of B pairs -> {"loss", "intra", "cross"}; the one module that training wraps."""

from __future__ import annotations

import torch
from torch import nn

from pixcloud.distributed import ALONE, World
from pixcloud.encoders.base import PointEncoder
from pixcloud.encoders.image import ImageEncoder
from pixcloud.heads import ProjectionHead
from pixcloud.losses import nt_xent


class CrossModalObjective(nn.Module):
    """Intra- and cross-modal contrast of CrossPoint (Afham et al. 2022, arXiv:2203.00680).

    With z1, z2 the projections of two views of each cloud and h that of its picture:
    intra = NTXent(z1, z2), cross = NTXent((z1 + z2) / 2, h),
    loss = intra_weight * intra + cross_weight * cross.

    On several processes each one has its share of the pairs, and `world` (set before training)
    lets them compare with each other's. What is returned is then this process's part: the loss is
    the sum over the processes, and so are its gradients.

    Args:
        point_encoder: clouds to pooled features.
        image_encoder: pictures to pooled features.
        point_hidden: width of the clouds' projection head.
        image_hidden: width of the pictures' projection head.
        projection_dim: P.
        temperature: of both losses.
        intra_weight: weight of the intra-modal loss.
        cross_weight: weight of the cross-modal loss.
        negatives: "global" takes the pairs of all processes as negatives, as one process with the
            whole batch would; "local" those of the same process only.
    """

    world: World = ALONE

    def __init__(
        self,
        point_encoder: PointEncoder,
        image_encoder: ImageEncoder,
        *,
        point_hidden: int = 1024,
        image_hidden: int = 512,
        projection_dim: int = 256,
        temperature: float = 0.1,
        intra_weight: float = 1.0,
        cross_weight: float = 1.0,
        negatives: str = "global",
    ) -> None:
        super().__init__()
        self.point_encoder = point_encoder
        self.image_encoder = image_encoder
        self.point_head = ProjectionHead(point_encoder.pooled_dim, point_hidden, projection_dim)
        self.image_head = ProjectionHead(
            image_encoder.pooled_dim, image_hidden, projection_dim, bias=False
        )
        self.temperature = temperature
        self.intra_weight = intra_weight
        self.cross_weight = cross_weight
        self.negatives = negatives

    def project_clouds(self, points: torch.Tensor) -> torch.Tensor:
        """Clouds (B, N, 3) to projections (B, P)."""
        return self.point_head(self.point_encoder(points).pooled)

    def project_pictures(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, H, W), RGB in [0, 1], to projections (B, P)."""
        return self.image_head(self.image_encoder(pictures))

    def project(
        self, view1: torch.Tensor, view2: torch.Tensor, pictures: torch.Tensor
    ) -> torch.Tensor:
        """Two views (B, N, 3) of each cloud and a picture (B, 3, H, W) of it to (B, 3, P).

        Both views go through the encoder at once, so that its batch statistics cover all 2B.
        """
        z1, z2 = self.project_clouds(torch.cat([view1, view2])).chunk(2)
        return torch.stack([z1, z2, self.project_pictures(pictures)], dim=1)

    def forward(
        self,
        view1: torch.Tensor,
        view2: torch.Tensor,
        pictures: torch.Tensor,
        upstream: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Views and pictures, as for `project`, to the losses.

        With the gradients (B, 3, P) of the projections given as `upstream`, "loss" is a scalar that
        has them: the second pass of gradient caching.
        """
        z = self.project(view1, view2, pictures)
        return self.losses(z) if upstream is None else {"loss": (z * upstream).sum()}

    def losses(self, z: torch.Tensor) -> dict[str, torch.Tensor]:
        """Projections (B, 3, P) of both views and the picture of each pair to the losses.

        They are computed in at least fp32.
        """
        if z.dtype in (torch.bfloat16, torch.float16):
            z = z.float()
        # Under autocast the cosines would be rounded to 8 bits before the temperature divides them.
        with torch.autocast(z.device.type, enabled=False):
            own, share = None, 1.0
            if self.negatives == "local":
                share = 1 / self.world.size
            else:
                own = self.world.share(self.world.size * len(z))
                z = self.world.gather_with_gradient(z)
            z1, z2, h = z.unbind(1)
            intra = nt_xent(z1, z2, self.temperature, own) * share
            cross = nt_xent((z1 + z2) / 2, h, self.temperature, own) * share
        loss = self.intra_weight * intra + self.cross_weight * cross
        return {"loss": loss, "intra": intra, "cross": cross}

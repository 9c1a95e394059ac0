"""Stage 6: views of B pairs -> {"loss", "intra", "cross"}; the one module that training wraps."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import nn

from pixcloud.averaged import AveragedEncoder
from pixcloud.distributed import ALONE, World
from pixcloud.earlier_pairs import EarlierPairs
from pixcloud.encoders.base import PointEncoder
from pixcloud.encoders.image import ImageEncoder
from pixcloud.heads import ProjectionHead
from pixcloud.losses import nt_xent, relation_loss
from pixcloud.ranges import LEARNED_TEMPERATURES

Sides = Callable[[torch.Tensor], list[tuple[torch.Tensor, torch.Tensor]]]


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
        temperature: of both losses, or of intra.
        cross_temperature: of cross; 0 is `temperature`.
        learn_temperature: both are weights (2,) in logarithms, as in CLIP (arXiv:2103.00020).
        intra_weight: weight of the intra-modal loss.
        cross_weight: weight of the cross-modal loss.
        negatives: "global" takes the pairs of all processes as negatives, as one process with the
            whole batch would; "local" those of the same process only.
        intra_contrast: "union" or, negatives from the other view only, "between".
        cross_contrast: the same of cross.
        cross_views: "mean" as above; "each" is (NTXent(z1, h) + NTXent(z2, h)) / 2.
        hardness: of both losses, see `nt_xent`.
        ema: decay of an average of the point encoder's weights, see `AveragedEncoder`; 0 has none.
        teacher: with t1, t2 the projections of the averaged encoder, intra is
            (NTXent(z1, t2) + NTXent(z2, t1)) / 2, as in MoCo v3 (Chen et al. 2021,
            arXiv:2104.02057).
        queue: of so many earlier pairs the projections are further negatives of both losses, see
            `EarlierPairs`; 0 keeps none. In evaluation mode they are used and not added to.
        relation_weight: of a third loss, "relation", which is `relation_loss` of (z1 + z2) / 2
            and h; with 0 there is none.
        relation_temperature: of that loss.

    Example:
        >>> from pixcloud.encoders import build_encoder
        >>> clouds = build_encoder("pointnet", embed_dim=16, widths=[8])
        >>> objective = CrossModalObjective(clouds, ImageEncoder("resnet-tiny"))
        >>> sorted(objective.losses(torch.randn(4, 3, 256)))
        ['cross', 'intra', 'loss']
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
        cross_temperature: float = 0.0,
        learn_temperature: bool = False,
        intra_weight: float = 1.0,
        cross_weight: float = 1.0,
        negatives: str = "global",
        intra_contrast: str = "union",
        cross_contrast: str = "union",
        cross_views: str = "mean",
        hardness: float = 0.0,
        ema: float = 0.0,
        teacher: bool = False,
        queue: int = 0,
        relation_weight: float = 0.0,
        relation_temperature: float = 0.1,
    ) -> None:
        super().__init__()
        self.point_encoder = point_encoder
        self.image_encoder = image_encoder
        self.point_head = ProjectionHead(point_encoder.pooled_dim, point_hidden, projection_dim)
        self.image_head = ProjectionHead(
            image_encoder.pooled_dim, image_hidden, projection_dim, bias=False
        )
        self.temperatures = (temperature, cross_temperature or temperature)
        self.log_temperature: nn.Parameter | None = None
        if learn_temperature:
            logarithms = [math.log(value) for value in self.temperatures]
            self.log_temperature = nn.Parameter(torch.tensor(logarithms))
        self.intra_weight, self.cross_weight = intra_weight, cross_weight
        self.negatives, self.cross_views = negatives, cross_views
        self.contrasts = [
            functools.partial(nt_xent, between=kind == "between", hardness=hardness)
            for kind in (intra_contrast, cross_contrast)
        ]
        self.averaged: AveragedEncoder | None = None
        if ema:
            self.averaged = AveragedEncoder(point_encoder, self.point_head, ema, teacher)
        self.teacher = teacher
        vectors = 5 if teacher else 3
        self.earlier = EarlierPairs(queue, vectors, projection_dim) if queue else None
        self.relation = (relation_weight, relation_temperature)

    @property
    def exported(self) -> tuple[PointEncoder, ProjectionHead]:
        """The point encoder, with its head, that is probed and exported."""
        if self.averaged is not None:
            return self.averaged.encoder, self.averaged.head
        return self.point_encoder, self.point_head

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

        Both views go through the encoder at once, so that its batch statistics cover all 2B. With
        a teacher they are (B, 5, P): its projections of both views are the last. Of several
        pictures of each cloud, (B m, 3, H, W), the mean of the projections is taken.
        """
        views = torch.cat([view1, view2])
        h = self.project_pictures(pictures)
        if len(h) > len(view1):
            h = h.unflatten(0, (len(view1), -1)).mean(dim=1)
        z = [*self.project_clouds(views).chunk(2), h]
        if self.averaged is not None and self.teacher:
            z += self.averaged.project(views).chunk(2)
        return torch.stack(z, dim=1)

    def forward(
        self,
        view1: torch.Tensor,
        view2: torch.Tensor,
        pictures: torch.Tensor,
        upstream: torch.Tensor | None = None,
        pull: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Views and pictures, as for `project`, to the losses.

        With the gradients (B, 3, P) of the projections given as `upstream`, and (2,) of learned
        temperatures as `pull`, "loss" is a scalar that has them: the second pass of gradient
        caching.
        """
        z = self.project(view1, view2, pictures)
        if upstream is None:
            return self.losses(z)
        loss = (z * upstream).sum()
        if self.log_temperature is not None and pull is not None:
            loss = loss + (self.log_temperature * pull).sum()
        return {"loss": loss}

    def losses(
        self, z: torch.Tensor, log_temperature: torch.Tensor | None = None, parts: int = 1
    ) -> dict[str, torch.Tensor]:
        """Projections (B, 3, P) of both views and the picture of each pair to the losses.

        They are computed in at least fp32.

        Args:
            z: as `project` gives them.
            log_temperature: (2,) to take instead of the learned ones.
            parts: micro-batches that these rows come from, of which each process has its share.
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
            learned = self.log_temperature if log_temperature is None else log_temperature
            sharp = self.temperatures if learned is None else learned.exp().unbind()
            past = None if self.earlier is None else self.earlier.rows()
            intra = self._contrast(0, self._views, z, past, sharp[0], own) * share
            cross = self._contrast(1, self._modes, z, past, sharp[1], own) * share
            found = {"intra": intra, "cross": cross}
            loss = self.intra_weight * intra + self.cross_weight * cross
            weight, temperature = self.relation
            if weight:
                cloud, picture = z[:, :2].mean(dim=1), z[:, 2]
                found["relation"] = relation_loss(cloud, picture, temperature, own) * share
                loss = loss + weight * found["relation"]
            if self.earlier is not None and self.training:
                # In the order of the batch, whichever process had which of its pairs.
                shares = z.detach().unflatten(0, (self.world.size, parts, -1))
                self.earlier.add(shares.transpose(0, 1).flatten(0, 2))
        return {"loss": loss, **found}

    def _contrast(
        self,
        which: int,
        sides: Sides,
        z: torch.Tensor,
        past: torch.Tensor | None,
        temperature: float | torch.Tensor,
        own: slice | None,
    ) -> torch.Tensor:
        """The mean of one loss over what stands for each pair's sides, now and earlier."""
        now = sides(z)
        before = [None] * len(now) if past is None else sides(past)
        losses = [
            self.contrasts[which](*pair, temperature, own, memory=memory)
            for pair, memory in zip(now, before, strict=True)
        ]
        return losses[0] if len(losses) == 1 else (losses[0] + losses[1]) / 2

    def _views(self, z: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """What intra compares, of projections (B, 3, P) or (B, 5, P)."""
        z1, z2, _, *targets = z.unbind(1)
        return [(z1, targets[1]), (z2, targets[0])] if targets else [(z1, z2)]

    def _modes(self, z: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """What cross compares."""
        z1, z2, h = z.unbind(1)[:3]
        return [((z1 + z2) / 2, h)] if self.cross_views == "mean" else [(z1, h), (z2, h)]

    @torch.no_grad()
    def after_step(self) -> None:
        """What follows from new weights: bounds of learned temperatures, and the average."""
        if self.log_temperature is not None:
            low, high = LEARNED_TEMPERATURES
            self.log_temperature.clamp_(math.log(low), math.log(high))
        if self.averaged is not None:
            self.averaged.follow(self.point_encoder, self.point_head)

    def measured(self) -> dict[str, float]:
        """What else a line of the log has: learned temperatures."""
        if self.log_temperature is None:
            return {}
        intra, cross = self.log_temperature.detach().exp().tolist()
        return {"temperature": intra, "cross_temperature": cross}

"""Stage 7, retrieval during training: both towers -> recall, mAP and chance on pairs held out."""

from __future__ import annotations

from pixcloud.config import PretrainConfig
from pixcloud.cross_modal import CrossModal
from pixcloud.data.shapenet import Pair
from pixcloud.distributed import ALONE, World
from pixcloud.errors import ConfigError
from pixcloud.evaluate.pairs_in_space import PairsInSpace, embed_pairs
from pixcloud.evaluate.retrieval import KS, TO_CLOUD, cross_modal_ranks
from pixcloud.evaluate.retrieval_metrics import chance_of
from pixcloud.objective import CrossModalObjective


class HeldOut:
    """Recall every few epochs on the pairs that are held out, with the first picture of each.

    It chooses nothing: the numbers are for the reader.

    Args:
        config: of the run; `trainer.retrieve_every` 0 makes this do nothing.
        pairs: that the run holds out.
        world: the processes that embed them together.

    Raises:
        ConfigError: if fewer than two pairs are held out.
    """

    def __init__(self, config: PretrainConfig, pairs: list[Pair], world: World = ALONE) -> None:
        self.config, self.pairs, self.world = config, pairs, world
        self.every = config.trainer.retrieve_every
        if self.every and len(pairs) < 2:
            raise ConfigError(
                f"trainer.retrieve_every = {self.every}: {len(pairs)} pairs are held out to "
                "retrieve; set data.held_out to a share of them, such as 0.1"
            )

    def recall(self, objective: CrossModalObjective, epoch: int) -> dict[str, float]:
        """Recall at 1, 5 and 10 and mAP both ways, chance, and how many pairs; empty if not now.

        The last epoch always counts.
        """
        last = epoch + 1 == self.config.trainer.epochs
        if not self.every or ((epoch + 1) % self.every and not last):
            return {}
        model = CrossModal(
            *objective.exported,
            objective.image_encoder,
            objective.image_head,
            num_points=self.config.data.num_points,
            picture_size=self.config.data.picture_size,
        )
        space = embed_pairs(model, self.pairs, views="first", world=self.world)
        return self.world.decide(lambda: _recalls(space))

    @staticmethod
    def words(found: dict[str, float]) -> str:
        """What the line of an epoch says of `recall`'s result."""
        recall, chance = found["picture_to_cloud_recall_1"], found["chance_recall_1"]
        return f", recall at 1 {100 * recall:.1f} % (chance {100 * chance:.1f})"


def _recalls(space: PairsInSpace) -> dict[str, float]:
    found = cross_modal_ranks(space)
    values: dict[str, float] = {}
    for direction, ranks in found.items():
        name = direction.replace(" ", "_")
        values |= {f"{name}_recall_{k}": float(ranks.recall(k).mean()) for k in KS}
        values[f"{name}_map"] = float(ranks.precision.mean())
    # One picture of each shape: chance is the same both ways.
    values |= {f"chance_recall_{k}": chance_of(found[TO_CLOUD], k) for k in KS}
    values["chance_map"] = chance_of(found[TO_CLOUD])
    return {**values, "retrieval_pairs": len(space.clouds)}

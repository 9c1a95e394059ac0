"""Stage 7, probes during training: an encoder -> validation accuracy, never from a test split."""

from __future__ import annotations

from pixcloud.config import PretrainConfig
from pixcloud.data.sources import open_labelled
from pixcloud.distributed import ALONE, World
from pixcloud.encoders import PointEncoder
from pixcloud.evaluate.features import require_points
from pixcloud.evaluate.settings import ProbeSettings
from pixcloud.evaluate.splits import check_train


class Selection:
    """Linear probe every few epochs on a validation part that is carved from the train split.

    The labelled data are read here once, so that a mistake in their source shows before training.

    Args:
        config: of the run; `trainer.probe_every` 0 makes this do nothing.
        world: the processes that embed the clouds together; the first one fits the SVM.
    """

    def __init__(self, config: PretrainConfig, world: World = ALONE) -> None:
        self.world = world
        self.every = config.trainer.probe_every
        self.epochs = config.trainer.epochs
        if self.every:
            source = config.trainer.probe_source or config.data.source
            self.train = open_labelled(source, "train", key="trainer.probe_source")
            self.settings = ProbeSettings(num_points=min(1024, self.train.points.shape[1]))
            self.share = config.trainer.validation_share
            check_train(self.train, self.settings, self.share)

    def check(self, encoder: PointEncoder) -> None:
        """Raise a ConfigError if the labelled clouds have too few points for an encoder."""
        if self.every:
            require_points(encoder, self.settings.num_points, "points of trainer.probe_source")

    def probe(self, encoder: PointEncoder, epoch: int) -> float | None:
        """Validation accuracy in [0, 1], or None if it is not time; the last epoch always is."""
        if not self.every or ((epoch + 1) % self.every and epoch + 1 != self.epochs):
            return None
        from pixcloud.evaluate.validation import validation_accuracy

        return validation_accuracy(encoder, self.train, self.settings, self.share, world=self.world)

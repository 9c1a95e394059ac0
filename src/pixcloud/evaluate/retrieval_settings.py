"""Stage 9, settings of retrieval: what `pixcloud retrieve` may set.

Read by `pixcloud.evaluate.retrieval` and `pairs_in_space`. No torch, so that help is fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pixcloud.errors import ConfigError
from pixcloud.ranges import check_types


@dataclass(kw_only=True, frozen=True)
class RetrievalSettings:
    """What is asked of what.

    Args:
        kind: pictures asks between pictures and clouds, which takes both towers and pairs; clouds
            asks for clouds of the same class, which takes labelled clouds; all does what the
            encoder and the data allow, and says what it leaves out.
        pairs: held-out takes the pairs that the run held out (data.held_out), and all pairs if it
            did not train on these data; all takes all, and says if they were seen in training.
        views: of several pictures of a shape, all stand by themselves, first takes the first one,
            mean the mean of their vectors.
        num_points: the first so many points of each cloud; 0 takes as many as in pre-training for
            pairs, and up to 1,024 for labelled clouds, as `pixcloud probe`.
        baselines: also let clouds ask by the same encoder untrained, which shape alone lets find
            far more than chance.
        batch_size: clouds or pictures embedded at a time.
        cache: keep features of labelled clouds on disk, and use those kept.
        seed: of the bootstrap and of the untrained encoder.

    Raises:
        ConfigError: if a value is out of range.
    """

    kind: Literal["all", "pictures", "clouds"] = "all"
    pairs: Literal["held-out", "all"] = "held-out"
    views: Literal["all", "first", "mean"] = "all"
    num_points: int = 0
    baselines: bool = True
    batch_size: int = 128
    cache: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self, "retrieve.")
        for key, least in {"num_points": 0, "batch_size": 1, "seed": 0}.items():
            value = getattr(self, key)
            if value < least:
                raise ConfigError(f"retrieve.{key} is {value}: expected at least {least}")


@dataclass(kw_only=True)
class RetrievalData:
    """Pairs, labelled clouds, or both.

    Args:
        source: NAME:/path, or a path that is recognised by what lies there; "synthetic" is the
            embedded data.
        unpaired: what to do about clouds without pictures: stop with an error, or skip them.
    """

    source: str = "synthetic"
    unpaired: Literal["error", "skip"] = "error"


@dataclass
class RetrieveConfig:
    """A retrieval evaluation.

    Args:
        encoder: a run or its exported encoder; for clouds alone any encoder, also a Hugging Face
            Hub id.
        data: pairs of clouds and pictures, labelled clouds with a test split, or both.
        retrieve: what is asked of what.
        out: file to append the results to; the run's results.jsonl where the encoder is a run,
            else results.jsonl beside the encoder, or here for one from the Hub.
    """

    encoder: str
    data: RetrievalData = field(default_factory=RetrievalData)
    retrieve: RetrievalSettings = field(default_factory=RetrievalSettings)
    out: str = ""

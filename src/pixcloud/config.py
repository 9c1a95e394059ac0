"""Settings of pre-training: dataclasses with one default each, recipes, saving and comparing.

The command line, YAML files and Python share these classes. A recipe (a YAML file in
`pixcloud/recipes/`) is overridden by a config file, and that by flags. Nothing here imports torch,
so that help is fast.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal, get_type_hints

import yaml

from pixcloud.errors import ConfigError, nearest
from pixcloud.method_settings import ObjectiveConfig, ViewConfig
from pixcloud.ranges import check_ranges, check_types


@dataclass(kw_only=True)
class DataConfig:
    """Where the pairs are and how they are read.

    Args:
        source: NAME:/path, or a path that is recognised by what lies there; "synthetic" is the
            embedded data.
        num_points: points per cloud; of larger clouds every view draws its own subset.
        picture_size: side of the pictures in pixels, after resizing.
        unpaired: what to do about clouds without pictures: stop with an error, or skip them.
        held_out: share of the pairs that are not trained on, for retrieval. Which they are follows
            from their names alone, so that runs of any seed hold out the same ones.
        workers: processes that read ahead; 0 reads in the training process, -1 chooses.
    """

    source: str = "synthetic"
    num_points: int = 2048
    picture_size: int = 224
    unpaired: Literal["error", "skip"] = "error"
    held_out: float = 0.0
    workers: int = -1


@dataclass(kw_only=True)
class EncoderConfig:
    """The point encoder.

    Args:
        name: dgcnn, dgcnn_seg, pointnet, pct or patch_transformer; or your own, as
            PATH/FILE.py:CLASS or PACKAGE.MODULE:CLASS.
        settings: its keyword arguments, such as {"k": 15}.
    """

    name: str = "dgcnn"
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class ImageConfig:
    """The picture tower.

    Args:
        name: resnet50, resnet18 or resnet-tiny from scratch; the folder of a run, whose picture
            tower goes on from there, or of an imported tower; or a vision backbone of transformers
            by local folder or Hub id.
        frozen: keep its weights as they are and train only its head.
    """

    name: str = "resnet50"
    frozen: bool = False


@dataclass(kw_only=True)
class OptimConfig:
    """Optimiser and learning rate.

    Args:
        name: adam, adamw or sgd.
        lr: the highest learning rate.
        weight_decay: as the optimiser defines it (in Adam it is part of the gradient).
        momentum: of sgd.
        schedule: cosine to lr_end, set once per epoch (as published) or at every step; or constant.
        lr_end: where the cosine would end after the last epoch.
        warmup_epochs: epochs of linear warm-up before it; may be a fraction.
        clip_norm: largest norm of the whole gradient; 0 does not clip.
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = 1e-3
    weight_decay: float = 1e-6
    momentum: float = 0.9
    schedule: Literal["cosine-epoch", "cosine-step", "constant"] = "cosine-epoch"
    lr_end: float = 0.0
    warmup_epochs: float = 0.0
    clip_norm: float = 0.0


@dataclass(kw_only=True)
class TrainerConfig:
    """The training loop.

    Args:
        epochs: passes over the pairs.
        batch_size: pairs whose projections are compared with each other.
        accumulate: batches whose gradients are averaged for one step of the optimiser.
        precision: 32 is fp32 throughout; bf16 is mixed precision with fp32 weights; auto takes
            bf16 where products in it measure faster on this machine.
        device: auto, cpu, cuda or mps.
        devices: processes to start on this machine, each with its share of every batch; on GPUs,
            one for each. Under torchrun or srun theirs counts.
        nodes: machines that the same command is started on.
        rendezvous: HOST:PORT of one of several machines, where their processes meet.
        micro_batch: pairs that all processes together hold at a time; the loss still compares all
            pairs of the batch, for which everything is computed twice (gradient caching). Batch
            statistics are then those of so many pairs. 0 takes the whole batch at once.
        threads: threads of the tensor library on the CPU, in each process; 0 takes every core.
            Sums are cut differently for another number, so that equal bits need an equal number.
        on_nonfinite: what to do when the loss or its gradient is not finite: stop the run, or skip
            the step.
        heartbeat: seconds within which a dead or stuck process is noticed; 0 does not watch.
        rank_log: every process also writes its own lines, into logs/ in the run folder.
        log_every: optimiser steps per line of metrics.jsonl.
        checkpoint_every: optimiser steps between checkpoints; 0 saves at the end of each epoch.
        keep_checkpoints: how many of the last checkpoints stay.
        probe_every: epochs between linear probes; 0 never probes. The best encoder by validation
            accuracy is then the one that is exported.
        probe_source: labelled data for that, NAME:/path; only its train split is read. Empty
            takes the labelled split that lies beside the pairs.
        validation_share: share of each class of that split which a probe holds out to score on.
        retrieve_every: epochs between retrievals on the pairs that data.held_out keeps back: recall
            at 1, 5 and 10 from pictures to clouds and back, into metrics.jsonl; 0 never retrieves.
        progress: show a progress bar.
    """

    epochs: int = 100
    batch_size: int = 20
    accumulate: int = 1
    precision: Literal["auto", "32", "bf16"] = "auto"
    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    rendezvous: str = ""
    micro_batch: int = 0
    threads: int = 0
    on_nonfinite: Literal["stop", "skip"] = "stop"
    heartbeat: float = 60.0
    rank_log: bool = False
    log_every: int = 10
    checkpoint_every: int = 0
    keep_checkpoints: int = 2
    probe_every: int = 0
    probe_source: str = ""
    validation_share: float = 0.2
    retrieve_every: int = 0
    progress: bool = True


@dataclass(kw_only=True)
class WandbConfig:
    """Weights & Biases, for `log`; its key is that of `wandb login`, or WANDB_API_KEY.

    Args:
        mode: online sends to a server; offline writes files into the run folder.
        url: a server of your own, such as https://wandb.example.org; empty is the public service.
        project: that the run is shown in.
        entity: user or team; empty is the key's own.
        name: shown for the run; empty takes the run folder's.
        drain: seconds that a logger may still take when training has ended.
        timeout: seconds without progress after which an attempt is given up and tried again later.
    """

    mode: Literal["online", "offline"] = "online"
    url: str = ""
    project: str = "pixcloud"
    entity: str = ""
    name: str = ""
    drain: float = 10.0
    timeout: float = 60.0


@dataclass(kw_only=True)
class PretrainConfig:
    """Everything that a pre-training run depends on.

    Args:
        run: the run folder.
        recipe: named settings under all others: crosspoint (the published ones), pixcloud (what did
            better) or demo.
        seed: every random draw is a function of it.
        resume: continue the run from its last good checkpoint; starts it if there is none.
        data: where the pairs are and how they are read.
        views: augmentation of clouds and pictures.
        encoder: the point encoder.
        image: the picture tower.
        objective: the loss and its heads.
        optim: optimiser and learning rate.
        trainer: the training loop.
        log: loggers beside metrics.jsonl, comma-separated: tensorboard, wandb.
        wandb: where that one sends to.
    """

    run: str = "runs/pretrain"
    recipe: str = ""
    seed: int = 0
    resume: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    views: ViewConfig = field(default_factory=ViewConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    log: str = ""
    wandb: WandbConfig = field(default_factory=WandbConfig)


def validate(config: PretrainConfig) -> None:
    """Check the type and the range of every setting.

    Raises:
        ConfigError: naming the key, its value and what is allowed.
    """
    check_types(config)
    check_ranges(flatten(config))


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("pixcloud") / "recipes"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name[-5:] == ".yaml")


def read_recipe(name: str) -> dict[str, Any]:
    """The nested settings of a recipe.

    Raises:
        ConfigError: for an unknown name.
    """
    if name not in recipe_names():
        raise ConfigError(f"unknown recipe '{name}': {nearest(name, recipe_names())}")
    text = (resources.files("pixcloud") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    return {**yaml.safe_load(text), "recipe": name}


def from_dict(cls: type[Any], values: dict[str, Any], prefix: str = "") -> Any:
    """A config dataclass from nested plain values.

    Raises:
        ConfigError: for an unknown key; the nearest known one is named.

    Example:
        >>> from_dict(PretrainConfig, {"trainer": {"epochs": 3}}).trainer.epochs
        3
    """
    hints = get_type_hints(cls)
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            raise ConfigError(f"unknown setting '{prefix}{key}': {nearest(key, hints)}")
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, dict):
                raise ConfigError(f"setting '{prefix}{key}' holds settings of its own, not {value}")
            value = from_dict(hints[key], value, f"{prefix}{key}.")
        arguments[key] = value
    return cls(**arguments)


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Nested settings with those of `over` on top; an encoder of another name drops `settings`.

    >>> merge({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}})
    {'a': {'x': 1, 'y': 3}}
    """
    merged = dict(base)
    if over.get("name", base.get("name")) != base.get("name"):
        merged.pop("settings", None)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both and key != "settings" else value
    return merged


def pretrain_config(recipe: str = "", **overrides: Any) -> PretrainConfig:
    """A config from a recipe and nested overrides, as the command line makes it.

    Raises:
        ConfigError: for an unknown recipe or key, or a value out of range.

    Example:
        >>> pretrain_config("crosspoint", trainer={"epochs": 2}).trainer.epochs
        2
    """
    values = merge(dataclasses.asdict(PretrainConfig()), read_recipe(recipe) if recipe else {})
    config: PretrainConfig = from_dict(PretrainConfig, merge(values, overrides))
    validate(config)
    return config


def flatten(config: Any) -> dict[str, Any]:
    """Dotted keys of a config dataclass to its values; dictionaries stay whole.

    >>> flatten(PretrainConfig())["optim.lr"]
    0.001
    """
    flat: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            flat.update({f"{item.name}.{k}": v for k, v in flatten(value).items()})
        else:
            flat[item.name] = value
    return flat

"""Recipes, ranges and learning rates: every number of the published setting against a table."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from pixcloud.config import (
    PretrainConfig,
    flatten,
    from_dict,
    pretrain_config,
    recipe_names,
    validate,
)
from pixcloud.config_files import differences, load_config, save_config
from pixcloud.errors import ConfigError
from pixcloud.schedule import learning_rate

# CrossPoint (arXiv:2203.00680) and its released code, where the two differ the code's value.
PUBLISHED = {
    "data.num_points": 2048,
    "data.picture_size": 224,
    "views.scale_low": 0.5,
    "views.scale_high": 2.0,
    "views.rotation": 360.0,
    "views.shift": 0.5,
    "views.jitter": 0.01,
    "views.jitter_clip": 0.05,
    "views.dropout": 0.875,
    "views.brightness": 0.4,
    "views.contrast": 0.4,
    "views.saturation": 0.4,
    "views.flip": 0.5,
    "views.stretch": 1.0,
    "views.crop": 0.0,
    "views.hole": 0.0,
    "views.dropout_fill": "first",
    "views.normalize": False,
    "views.pictures": 1,
    "encoder.name": "dgcnn",
    "encoder.settings": {"k": 15, "embed_dim": 1024, "widths": [64, 64, 128, 256]},
    "image.name": "resnet50",
    "image.frozen": False,
    "objective.temperature": 0.1,
    "objective.cross_temperature": 0.0,
    "objective.learn_temperature": False,
    "objective.intra_weight": 1.0,
    "objective.cross_weight": 1.0,
    "objective.projection_dim": 256,
    "objective.point_hidden": 1024,
    "objective.image_hidden": 512,
    "objective.negatives": "global",
    "objective.intra_contrast": "union",
    "objective.cross_contrast": "union",
    "objective.cross_views": "mean",
    "objective.hardness": 0.0,
    "objective.ema": 0.0,
    "objective.teacher": False,
    "objective.queue": 0,
    "objective.relation_weight": 0.0,
    "objective.relation_temperature": 0.1,
    "optim.name": "adam",
    "optim.lr": 1e-3,
    "optim.lr_end": 0.0,
    "optim.weight_decay": 1e-6,
    "optim.schedule": "cosine-epoch",
    "optim.warmup_epochs": 0.0,
    "optim.clip_norm": 0.0,
    "trainer.epochs": 100,
    "trainer.batch_size": 20,
    "trainer.accumulate": 1,
    "trainer.precision": "auto",  # bf16 where it is faster: ours to choose, `32` is as published
}


def test_crosspoint_is_the_published_setting() -> None:
    flat = flatten(pretrain_config("crosspoint"))
    assert {key: flat[key] for key in PUBLISHED} == PUBLISHED
    # nothing that a result depends on is left out of the table, but what the user's own is
    own = ("data", "trainer", "log", "wandb")
    rest = {key for key in flat if key.split(".")[0] not in own} - set(PUBLISHED)
    assert rest == {"run", "recipe", "seed", "resume", "optim.momentum"}


def test_every_epoch_has_the_published_learning_rate() -> None:
    config = pretrain_config("crosspoint")
    steps = 7
    for epoch in range(100):
        expected = 1e-3 * (1 + math.cos(math.pi * epoch / 100)) / 2
        for step in (0, 3, 6):
            rate = learning_rate(config.optim, epoch * steps + step, steps, 100)
            assert rate == pytest.approx(expected, rel=1e-12)
    assert learning_rate(config.optim, 0, steps, 100) == 1e-3
    assert learning_rate(config.optim, 99 * steps, steps, 100) > 2e-7  # no epoch trains at rate 0


def test_other_schedules() -> None:
    warm = pretrain_config(optim={"lr": 1.0, "warmup_epochs": 2, "schedule": "cosine-step"}).optim
    rates = [learning_rate(warm, step, 4, 10) for step in range(40)]
    assert rates[:8] == pytest.approx([(i + 1) / 8 for i in range(8)])
    assert rates[8] == 1.0
    assert rates[8:] == sorted(rates[8:], reverse=True)
    assert rates[24] == pytest.approx(0.5)
    assert rates[-1] > 0
    epochwise = dataclasses.replace(warm, schedule="cosine-epoch")
    assert learning_rate(epochwise, 8, 4, 10) == 1.0
    assert learning_rate(epochwise, 24, 4, 10) == pytest.approx(0.5)
    constant = dataclasses.replace(warm, schedule="constant")
    assert [learning_rate(constant, s, 4, 10) for s in (0, 8, 39)] == [0.125, 1.0, 1.0]


def test_the_stronger_recipe_differs_where_it_says() -> None:
    """The same encoder, tower, sizes, samples and loss as published."""
    published, ours = (flatten(pretrain_config(name)) for name in ("crosspoint", "pixcloud"))
    assert {key for key in ours if ours[key] != published[key]} == {
        "recipe",
        "views.scale_low",
        "views.scale_high",
        "views.shift",
        "views.dropout",
        "optim.lr",
        "optim.schedule",
        "optim.warmup_epochs",
    }


def test_every_recipe_is_valid() -> None:
    assert recipe_names() == ["crosspoint", "demo", "pixcloud"]
    for name in recipe_names():
        assert pretrain_config(name).recipe == name
    with pytest.raises(ConfigError, match="unknown recipe 'crospoint': the nearest known one is"):
        pretrain_config("crospoint")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"trainer": {"epoch": 3}}, r"unknown setting 'trainer\.epoch': .*'epochs'"),
        ({"sed": 3}, r"unknown setting 'sed': .*'seed'"),
        ({"trainer": 3}, "'trainer' holds settings of its own, not 3"),
        ({"trainer": {"epochs": 0}}, r"trainer\.epochs = 0: it must be at least 1"),
        ({"trainer": {"batch_size": 1}}, r"trainer\.batch_size = 1: it must be at least 2"),
        ({"objective": {"temperature": 0.0}}, "temperature = 0.0: it must be more than 0"),
        ({"views": {"dropout": 1.5}}, "dropout = 1.5: it must be at least 0 and at most 1"),
        ({"views": {"scale_high": 0.1}}, "scale_high = 0.1 is below"),
        ({"optim": {"lr": float("nan")}}, r"optim\.lr = nan: a finite number"),
        ({"seed": 2**63}, r"at least 0 and at most 9\.22"),
        ({"trainer": {"epochs": "three"}}, r"trainer\.epochs = 'three': a whole number"),
        ({"trainer": {"epochs": 1.5}}, r"trainer\.epochs = 1\.5: a whole number"),
        ({"trainer": {"batch_size": True}}, r"trainer\.batch_size = True: a whole number"),
        ({"trainer": {"device": "cudaa"}}, "device = 'cudaa': it must be one of auto, cpu, cuda"),
        ({"trainer": {"precision": 32}}, r"trainer\.precision = 32: one of 'auto', '32', 'bf16'"),
        ({"resume": "yes"}, "resume = 'yes': true or false"),
        ({"run": 3}, "run = 3: text"),
        ({"data": {"unpaired": "eror"}}, r"data\.unpaired = 'eror': one of 'error', 'skip'"),
        ({"optim": {"name": "lamb"}}, r"optim\.name = 'lamb': one of 'adam'"),
        ({"views": {"rotation": float("inf")}}, r"views\.rotation = inf: a finite number"),
        ({"views": {"rotation": 720.0}}, "rotation = 720.0: it must be at least 0 and at most 360"),
        ({"encoder": {"settings": [3]}}, r"encoder\.settings = \[3\]: a mapping"),
        ({"views": {"crop": 1.0}}, r"views\.crop = 1\.0: it must be at least 0 and at most 0\.95"),
        ({"views": {"hole": -0.1}}, r"views\.hole = -0\.1: it must be at least 0"),
        ({"views": {"stretch": 0.9}}, r"views\.stretch = 0\.9: it must be at least 1"),
        ({"views": {"dropout_fill": "any"}}, "dropout_fill = 'any': one of 'first', 'others'"),
        ({"objective": {"ema": 1.0}}, r"objective\.ema = 1\.0: it must be at least 0 and at most"),
        ({"objective": {"teacher": True}}, r"objective\.teacher = True: .* set objective\.ema"),
        ({"views": {"pictures": 0}}, r"views\.pictures = 0: it must be at least 1"),
        ({"objective": {"queue": -1}}, r"objective\.queue = -1: it must be at least 0"),
        ({"objective": {"relation_weight": -1.0}}, "relation_weight = -1.0: it must be at least 0"),
        ({"objective": {"relation_temperature": 0.0}}, "temperature = 0.0: it must be more than 0"),
        (
            {"objective": {"queue": 64, "negatives": "local"}},
            r"objective\.queue: earlier pairs are those of all processes",
        ),
        ({"objective": {"hardness": -1.0}}, r"hardness = -1\.0: it must be at least 0"),
        ({"objective": {"cross_temperature": -1.0}}, "cross_temperature = -1.0: it must be at"),
        ({"objective": {"cross_views": "both"}}, "cross_views = 'both': one of 'mean', 'each'"),
        ({"objective": {"intra_contrast": "x"}}, "intra_contrast = 'x': one of 'union', 'betw"),
        (
            {"objective": {"learn_temperature": True, "temperature": 2.0}},
            r"temperature = 2\.0: with objective\.learn_temperature .* at most 1",
        ),
        (
            {"objective": {"learn_temperature": True, "cross_temperature": 0.001}},
            r"cross_temperature = 0\.001: .* at least 0\.01",
        ),
    ],
)
def test_bad_settings_are_named(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        pretrain_config(**values)


def test_settings_of_one_encoder_do_not_reach_another() -> None:
    other = pretrain_config("crosspoint", encoder={"name": "pointnet"})
    assert other.encoder.settings == {}
    same = pretrain_config("crosspoint", encoder={"name": "dgcnn"})
    assert same.encoder.settings["k"] == 15
    whole = pretrain_config(
        "crosspoint", encoder={"name": "pointnet", "settings": {"embed_dim": 8}}
    )
    assert whole.encoder.settings == {"embed_dim": 8}
    assert pretrain_config("crosspoint", encoder={"settings": {"k": 3}}).encoder.settings == {
        "k": 3
    }


def test_a_section_is_a_dataclass() -> None:
    config = dataclasses.replace(pretrain_config(), data="synthetic")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="data = 'synthetic': settings of its own are expected"):
        validate(config)


def test_saved_and_read(tmp_path: Path) -> None:
    config = pretrain_config("demo", seed=5)
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    (tmp_path / "config.yaml").write_text("seed: [1")
    with pytest.raises(ConfigError, match="cannot be read as settings"):
        load_config(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text("3")
    with pytest.raises(ConfigError, match="expected settings"):
        load_config(tmp_path / "config.yaml")


def test_differences_leave_out_what_changes_no_result() -> None:
    a = pretrain_config(seed=1)
    b = pretrain_config(seed=2, run="elsewhere", data={"workers": 3}, trainer={"progress": False})
    assert differences(a, b) == ["seed: 1 in the run, 2 now"]


def test_every_setting_is_described() -> None:
    """The help of the command line comes from these docstrings."""
    kinds = [PretrainConfig]
    while kinds:
        kind = kinds.pop()
        for item in dataclasses.fields(kind):
            assert f"        {item.name}: " in (kind.__doc__ or ""), f"{kind.__name__}.{item.name}"
            made = item.default_factory
            if isinstance(made, type) and dataclasses.is_dataclass(made):
                kinds.append(made)  # type: ignore[arg-type]


def test_from_dict_makes_nested_dataclasses() -> None:
    config = from_dict(PretrainConfig, {"optim": {"name": "sgd"}})
    assert config.optim.name == "sgd"

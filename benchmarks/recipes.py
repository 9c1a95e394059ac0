"""`python -m benchmarks.recipes`: variants of pre-training, at equal samples seen, over seeds.

Each variant of a file (`benchmarks/recipe_variants.yaml`) is trained with each seed, and its
encoder is scored by a linear SVM on clouds that neither training nor any test split has: of the
embedded data, objects of another seed; of a user's data, a part carved from the train split. One
JSON line per run goes into OUT/results.jsonl. What is there already is not trained again, and a run
that was cut goes on where it was.

`--final` trains the variants it is given with a probe after each epoch, from which follows the time
that one takes to the accuracy of another, and scores the encoders on the test split, once.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

import yaml
from scipy.special import stdtrit

from pixcloud.atomic import write_text
from pixcloud.config import PretrainConfig, flatten, merge, pretrain_config
from pixcloud.config_files import VOLATILE
from pixcloud.data.synthetic import ensure_synthetic
from pixcloud.data.synthetic.dataset import SyntheticSettings
from pixcloud.errors import ConfigError, PixCloudError, nearest
from pixcloud.run_folder import read_metrics
from pixcloud.signals import Interrupted
from pixcloud.trainer import pretrain

VARIANTS = Path(__file__).with_name("recipe_variants.yaml")
RESULTS = "results.jsonl"
# Labelled objects to choose by, of a seed that no other split of the embedded data has: 20 of each
# category to fit on, as in its train split, and 40 to score on.
VALIDATION = SyntheticSettings(seed=1, pairs=1, views=1, size=16, train=60, val=0, test=1)
VALIDATION_SHARE = 40 / 60


def read_variants(path: Path = VARIANTS) -> dict[str, dict[str, Any]]:
    """The scales and the variants of a file, by name.

    Raises:
        ConfigError: if it is no YAML of that form.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {"scales": dict(found["scales"]), "variants": dict(found["variants"])}
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as scales and variants ({error})") from error


def config_of(
    known: dict[str, dict[str, Any]], scale: str, variant: str, over: dict[str, Any]
) -> PretrainConfig:
    """The config of a variant: its recipe, the scale, its own settings, and `over` on top.

    Raises:
        ConfigError: for an unknown scale, variant or setting.

    Example:
        >>> config_of(read_variants(), "tiny", "crosspoint", {"seed": 3}).trainer.batch_size
        20
    """
    for kind, name in (("scales", scale), ("variants", variant)):
        if name not in known[kind]:
            raise ConfigError(f"unknown {kind[:-1]} '{name}': {nearest(name, known[kind])}")
    own = dict(known["variants"][variant])
    recipe = own.pop("recipe", "crosspoint")
    return pretrain_config(recipe, **merge(merge(known["scales"][scale], own), over))


def key_of(config: PretrainConfig) -> str:
    """What tells a run from others: a hash of the settings that its result depends on."""
    flat = {k: v for k, v in flatten(config).items() if k not in (*VOLATILE, "recipe")}
    return hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()[:12]


def read_results(out: Path) -> dict[str, dict[str, Any]]:
    """Finished runs by key.

    Raises:
        ConfigError: if the file is not one of this command.
    """
    path = out / RESULTS
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return {line["key"]: line for line in map(json.loads, lines)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: no results of this command ({error}); move it away") from error


def train_one(name: str, config: PretrainConfig, out: Path) -> dict[str, Any]:
    """Train, or go on with, one run; its line, which is written when it has ended."""
    key = key_of(config)
    folder = out / f"{name}-seed{config.seed}-{key}"
    config = dataclasses.replace(config, run=str(folder), resume=True)
    result = pretrain(config)
    epochs = [line for line in read_metrics(folder / "metrics.jsonl") if line["kind"] == "epoch"]
    curve = [
        {name: line[name] for name in ("epoch", "seconds", "probe_validation")}
        for line in epochs
        if "probe_validation" in line
    ]
    record = {
        "key": key,
        "variant": name,
        "seed": config.seed,
        "source": config.data.source,
        "samples": result.steps * config.trainer.batch_size * config.trainer.accumulate,
        "accuracy": curve[-1]["probe_validation"] if curve else None,
        "curve": curve,
        "losses": result.losses,
        "run": folder.name,
        "seconds": epochs[-1]["seconds"],
        "settings": flatten(config),
    }
    lines = [*read_results(out).values(), record]
    write_text(out / RESULTS, "".join(json.dumps(line) + "\n" for line in lines))
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # the encoder and the metrics stay
    return record


def interval(values: list[float]) -> float:
    """Half the width of the 95 % interval of a mean, by Student's t; NaN of a single value.

    >>> round(interval([1.0, 2.0, 3.0]), 2)
    2.48
    """
    if len(values) < 2:
        return math.nan
    width = float(stdtrit(len(values) - 1, 0.975))
    return width * statistics.stdev(values) / math.sqrt(len(values))


def table(records: list[dict[str, Any]], against: str) -> list[str]:
    """Lines of a Markdown table: accuracy in %, and the difference to `against`, seed by seed."""
    by_name: dict[str, dict[int, float]] = {}
    for record in records:
        by_name.setdefault(record["variant"], {})[record["seed"]] = 100 * record["accuracy"]
    lines = [
        f"| variant | seeds | accuracy % (each seed) | minus {against} | 95 % |",
        "|---|---|---|---|---|",
    ]
    base = by_name.get(against, {})
    for name, found in by_name.items():
        values = [found[seed] for seed in sorted(found)]
        each = ", ".join(f"{value:.1f}" for value in values)
        gains = [found[seed] - base[seed] for seed in sorted(found) if seed in base]
        gain = f"{statistics.mean(gains):+.1f}" if gains else ""
        spread = f"± {interval(gains):.1f}" if len(gains) > 1 and name != against else ""
        mean = statistics.mean(values)
        lines.append(f"| {name} | {len(values)} | {mean:.1f} ({each}) | {gain} | {spread} |")
    return lines


def time_to(curve: list[dict[str, Any]], accuracy: float) -> tuple[int, float] | None:
    """Epochs and seconds after which a run first had an accuracy; None if it never had.

    >>> time_to([{"epoch": 0, "seconds": 5.0, "probe_validation": 0.8}], 0.7)
    (1, 5.0)
    """
    for line in curve:
        if line["probe_validation"] >= accuracy:
            return line["epoch"] + 1, line["seconds"]
    return None


def over_of(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Settings over those of a variant: where the data are, how it is scored, and the seed."""
    trainer: dict[str, Any] = {"progress": False, "keep_checkpoints": 1}
    trainer["precision"] = arguments.precision
    if arguments.epochs:
        trainer["epochs"] = arguments.epochs
    if arguments.threads:
        trainer["threads"] = arguments.threads
    # The last epoch is always probed.
    trainer["probe_every"] = 1 if arguments.final and not arguments.last else 1_000_000
    if arguments.source == "synthetic":
        trainer["probe_source"] = f"modelnet40:{ensure_synthetic(settings=VALIDATION)}"
        trainer["validation_share"] = VALIDATION_SHARE
    return {"seed": seed, "data": {"source": arguments.source}, "trainer": trainer}


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Train what is not there yet; all records of the variants, those found and those made."""
    known = read_variants(arguments.file)
    arguments.out.mkdir(parents=True, exist_ok=True)
    done = read_results(arguments.out)
    # Each seed goes through all variants, so that a table of fewer seeds is there early.
    jobs = []
    for seed in arguments.seeds:
        for name in arguments.variants or list(known["variants"]):
            jobs.append((name, config_of(known, arguments.scale, name, over_of(arguments, seed))))
    records = []
    for name, config in jobs:
        key = key_of(config)
        if key not in done:  # variants with the same settings are one run
            done[key] = train_one(name, config, arguments.out)
        records.append({**done[key], "variant": name})
        line = records[-1]
        said = f"{name}, seed {line['seed']}: {100 * line['accuracy']:.1f} %"
        print(f"{said}, {line['samples']} samples, {line['seconds']:.0f} s", file=sys.stderr)
    return records


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.recipes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--out", type=Path, default=Path("runs/recipes"), help="folder of the runs")
    made.add_argument("--file", type=Path, default=VARIANTS, help="scales and variants")
    made.add_argument("--scale", default="small", help="sizes that all variants share")
    made.add_argument("--variants", nargs="+", help="some of them; the first is compared against")
    made.add_argument("--seeds", type=int, nargs="+", default=[0], help="each trains every variant")
    made.add_argument(
        "--source", default="synthetic", help="pairs with labelled clouds beside them"
    )
    made.add_argument("--epochs", type=int, default=0, help="instead of those of the scale")
    made.add_argument("--threads", type=int, default=0, help="0 takes every core")
    made.add_argument("--precision", default="32", help="of all variants: 32, bf16 or auto")
    made.add_argument(
        "--last", action="store_true", help="with --final: probe the last epoch only, so no times"
    )
    made.add_argument(
        "--folds",
        action="store_true",
        help="also score by five folds of the train split, with every cloud turned",
    )
    made.add_argument("--final", action="store_true", help="also score on the test split, once")
    return made


def main(words: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    arguments = parser().parse_args(words)
    try:
        records = run(arguments)
        print("\n".join(table(records, records[0]["variant"])))
        if arguments.folds:
            from benchmarks.recipes_folds import folds

            print("\n".join(["", *folds(records, arguments.source, arguments.out)]))
        if arguments.final:
            from benchmarks.recipes_final import final

            print("\n".join(final(records, arguments.source, arguments.out)))
    except PixCloudError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted:
        print("stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

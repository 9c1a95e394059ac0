"""Stage 9, `pixcloud probe`: a saved encoder and a labelled source -> rows of `results.jsonl`.

Its options are in `pixcloud.evaluate.settings`; the work is done by `pixcloud.evaluate.probe`.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixcloud.errors import ConfigError, PixCloudError
from pixcloud.evaluate.settings import ProbeConfig

if TYPE_CHECKING:
    from pixcloud.distributed import World
    from pixcloud.encoders import PointEncoder
    from pixcloud.evaluate.probe import ProbeResult


def probe(config: ProbeConfig) -> ProbeResult:
    """Score frozen features by a linear SVM, beside an untrained encoder and a descriptor.

    Args:
        config: see `ProbeConfig`.

    Returns:
        The rows, which are appended to `config.out` too; printing it shows a table.

    Raises:
        PixCloudError: for an encoder, data or settings that the user can mend.

    Example:
        >>> probe(ProbeConfig(encoder="runs/demo"))  # doctest: +SKIP
    """
    from pixcloud.launch import find_place, in_processes

    out = results_file(config.out, config.encoder)
    if config.devices < 1:
        raise ConfigError(f"devices = {config.devices}: at least 1 is expected")
    if config.devices > 1 and find_place() is None:
        if not config.probe.cache:
            raise ConfigError(
                "devices: what its processes embed comes back through the cache; "
                "leave probe.cache true, or start with torchrun"
            )
        # What is left, the SVM, is one process's work, and finds the features kept.
        in_processes("pixcloud.evaluate.command:embed", config, config.devices)
    with _together() as world:
        return _probe(config, out, world)


def embed(config: ProbeConfig) -> None:
    """Embed what a probe needs, and keep it.

    Raises:
        PixCloudError: as `probe`.
    """
    from pixcloud.data.sources import open_labelled
    from pixcloud.evaluate.features import cached_features
    from pixcloud.evaluate.probe import untrained

    settings = config.probe
    with _together() as world:
        encoder = _shared_encoder(config.encoder, world)
        encoders = [encoder, *([untrained(encoder, settings.seed)] if settings.baselines else [])]
        for split in ("train", "test"):
            source = config.data.source
            clouds = world.agree(functools.partial(open_labelled, source, split))
            for each in encoders:
                cached_features(
                    each,
                    clouds.points,
                    num_points=settings.num_points,
                    batch_size=settings.batch_size,
                    normalize=settings.normalize,
                    world=world,
                )


@contextlib.contextmanager
def _together() -> Iterator[World]:
    """The processes of this command, which share the cores of a machine."""
    import torch

    from pixcloud.launch import processes, processes_here
    from pixcloud.machine import available_cores

    if processes_here(1) > 1:
        torch.set_num_threads(max(1, available_cores() // processes_here(1)))
    with processes("cuda" if torch.cuda.is_available() else "cpu") as world:
        yield world


def other_data(encoder: str, source: str) -> str:
    """A note where a run was pre-trained on other data than it is scored on, or nothing."""
    from pixcloud.config_files import load_config

    path = Path(encoder).expanduser() / "config.yaml"
    try:
        trained: str = load_config(path).data.source if path.is_file() else source
    except PixCloudError:  # a run of another version is scored all the same
        return ""
    if trained == source:
        return ""
    return (
        f"note: {encoder} was pre-trained on {trained}, and is scored on {source} (--data.source)"
    )


def _probe(config: ProbeConfig, out: Path, world: World) -> ProbeResult:
    """The part of one process."""
    from pixcloud.data.sources import open_labelled
    from pixcloud.evaluate.probe import run_probe

    encoder = _shared_encoder(config.encoder, world)
    source = config.data.source
    train = world.agree(lambda: open_labelled(source, "train"))
    test = world.agree(lambda: open_labelled(source, "test"))
    if world.first and (words := other_data(config.encoder, source)):
        print(words, file=sys.stderr)
    return run_probe(
        encoder,
        config.encoder,
        train,
        test,
        config.probe,
        out=out,
        source=lasting(config.data.source),
        say=lambda message: print(message, file=sys.stderr),
        world=world,
    )


def _shared_encoder(name: str, world: World) -> PointEncoder:
    """What the first process loads, on all: a run lies on the disk of one machine, perhaps."""
    import torch

    from pixcloud.encoders import build_saved_encoder
    from pixcloud.export import load_encoder

    loaded: list[PointEncoder] = []

    def load() -> dict[str, Any]:
        loaded.append(load_encoder(name))
        return loaded[0].spec

    spec = world.decide(load)
    encoder = world.agree(lambda: loaded[0] if loaded else build_saved_encoder(spec).eval())
    if world.size > 1:
        weights = world.broadcast_tensors(encoder.state_dict() if world.first else None)
        encoder.load_state_dict(weights)
    return encoder.cuda() if torch.cuda.is_available() else encoder


def lasting(source: str) -> str:
    """The source with an absolute path, so that it is found from another folder too."""
    name, colon, rest = source.rpartition(":")
    path = Path(rest).expanduser()
    return f"{name}{colon}{path.absolute()}" if path.exists() else source


def results_file(out: str, encoder: str) -> Path:
    """The file that rows go to: `out`, or results.jsonl in the encoder's folder, or here.

    Raises:
        ConfigError: if `out` is a folder.
    """
    if out:
        path = Path(out).expanduser()
        if path.is_dir():
            raise ConfigError(
                f"out = {out}: is a folder; give a file, such as {path}/results.jsonl"
            )
        return path
    folder = Path(encoder).expanduser()
    return (folder if folder.is_dir() else Path()) / "results.jsonl"

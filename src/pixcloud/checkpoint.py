"""Stage 8, checkpoints: the state of a run -> a folder that is whole or absent, and back.

`checkpoints/step-00000120/` holds `model.safetensors`, `optimizer.safetensors`, `state.json` and
`manifest.json` with the size and SHA-256 of each. It is written under a temporary name, synced to
disk and renamed, so that a kill at any moment leaves the earlier ones as they were; a damaged one
is recognised by its manifest and passed over. No pickle is written or read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pixcloud.atomic import sync_folder
from pixcloud.distributed import World
from pixcloud.errors import CheckpointError, DamagedCheckpointError
from pixcloud.optimizer import match_layout

FORMAT = 2
PREFIX = "step-"
TEMPORARY = ".saving-"
MANIFEST = "manifest.json"
GENERATOR = "generator."
MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
PARTS = ("model.safetensors", "optimizer.safetensors", "state.json")


@dataclass(kw_only=True)
class Checkpoint:
    """All that a run needs to go on.

    model: state dict of the objective (both encoders and heads); optimizer: state dict of the
    optimiser; state: JSON values (step, running sums, best validation); generators: states of
    torch's random generators by device ("cpu", and "cuda" or "mps" where a run is there), (bytes,)
    uint8.
    """

    model: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    state: dict[str, Any]
    generators: dict[str, torch.Tensor]


@dataclass(kw_only=True)
class Progress:
    """What changes from step to step besides weights: all of it goes into the checkpoint.

    interval and epoch hold sums of the three losses and, last, how many batches they cover; pairs
    is the hash of the pairs' names.
    """

    step: int = 0
    interval: list[float] = dataclasses.field(default_factory=lambda: [0.0] * 4)
    epoch: list[float] = dataclasses.field(default_factory=lambda: [0.0] * 4)
    last_epoch: dict[str, float] = dataclasses.field(default_factory=dict)
    best: dict[str, float] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    pairs: str = ""


def generator_states(device: str) -> dict[str, torch.Tensor]:
    """States of torch's random generators of the CPU and of `device`; see `Checkpoint`."""
    states = {"cpu": torch.get_rng_state()}
    if device != "cpu":
        states[device] = torch.get_device_module(device).get_rng_state()
    return states


def restore_generators(states: dict[str, torch.Tensor]) -> None:
    """Set torch's random generators to what `generator_states` gave."""
    for device, state in states.items():
        if device == "cpu":
            torch.set_rng_state(state)
        else:
            torch.get_device_module(device).set_rng_state(state)


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint of step `checkpoint.state["step"]` and remove all but the last `keep`.

    Raises:
        CheckpointError: if it cannot be written; what was there before stays.
    """
    final = folder / f"{PREFIX}{checkpoint.state['step']:08d}"
    temporary = folder / f"{TEMPORARY}{final.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        temporary.mkdir()
        _write_parts(temporary, checkpoint)
        if final.exists():  # left by a run that was continued from before it, or damaged
            remove_whole(final)
        os.replace(temporary, final)
        sync_folder(folder)
    # A full disk is an OSError in Python's own writing and a SafetensorError in that of tensors.
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"{final}: cannot be written ({getattr(error, 'strerror', None) or error}); make room "
            "or mend the folder, then go on with --resume true"
        ) from error
    # A run goes on from the newest one that is whole, so whatever is newer than this is damaged: it
    # must not count among the last ones that stay.
    found = checkpoint_folders(folder)
    newer = [path for path in found if path.name > final.name]
    for old in newer + found[: -keep - len(newer)]:
        with contextlib.suppress(OSError):  # one too many stays, and is no reason to stop
            remove_whole(old)
    return final


def _write_parts(folder: Path, checkpoint: Checkpoint) -> None:
    tensors, rest = _split_optimizer(checkpoint.optimizer)
    contents: list[dict[str, torch.Tensor] | dict[str, Any]] = [
        checkpoint.model,
        {**tensors, **{f"{GENERATOR}{name}": s for name, s in checkpoint.generators.items()}},
        {"format": FORMAT, "optimizer": rest, "state": checkpoint.state},
    ]
    manifest = {}
    for name, content in zip(PARTS, contents, strict=True):
        path = folder / name
        if name.endswith(".json"):
            path.write_text(json.dumps(content, indent=1), encoding="utf-8")
        else:
            save_file({k: v.detach().contiguous().cpu() for k, v in content.items()}, path)
        manifest[name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in folder.iterdir():
        with open(path, "rb") as stream:
            os.fsync(stream.fileno())
    sync_folder(folder)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint after checking every file against the manifest.

    Raises:
        DamagedCheckpointError: if a file is missing or damaged.
        CheckpointError: if the format is unknown, or the system does not let it be read.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        for name in PARTS:
            part, expected = path / name, manifest[name]
            if part.stat().st_size != expected["bytes"] or _sha256(part) != expected["sha256"]:
                raise DamagedCheckpointError(f"{part}: damaged, it differs from its manifest")
        parts = json.loads((path / "state.json").read_text(encoding="utf-8"))
        model = load_file(path / "model.safetensors")
        tensors = load_file(path / "optimizer.safetensors")
    except (*MISSING, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise DamagedCheckpointError(f"{path}: cannot be read ({error})") from error
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror or error}); make it readable and go on"
        ) from error
    if parts.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: format {parts.get('format')}, this version reads format {FORMAT}; end the "
            "run with the version that began it, or start over in another --run folder"
        )
    generators = {
        key.removeprefix(GENERATOR): tensors.pop(key)
        for key in list(tensors)
        if key.startswith(GENERATOR)
    }
    optimizer = _join_optimizer(tensors, parts["optimizer"])
    return Checkpoint(model=model, optimizer=optimizer, state=parts["state"], generators=generators)


def last_good(folder: Path, say: Callable[[str], None] = print) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None; damaged ones are named through `say`.

    Raises:
        CheckpointError: if there are some and none is whole, or one is whole but cannot be read by
            this version: starting over would overwrite what the run has.
    """
    found = checkpoint_folders(folder)
    for path in reversed(found):
        try:
            return load_checkpoint(path)
        except DamagedCheckpointError as error:
            say(f"passing over a damaged checkpoint: {error}")
    if found:
        raise CheckpointError(
            f"{folder}: {len(found)} checkpoints, and none is whole; put a copy of one back, or "
            "start over in another --run folder"
        )
    return None


def shared_checkpoint(read: Callable[[], Checkpoint | None], world: World) -> Checkpoint | None:
    """What the first process reads, on all processes: the others may not have its disk.

    Raises:
        CheckpointError: the one that reading raised, on all of them.
    """
    if world.size == 1:
        return read()
    found: list[Checkpoint | None] = [None]

    def outline() -> tuple[dict[str, Any], dict[str, Any]] | None:
        found[0] = read()
        if found[0] is None:
            return None
        return _split_optimizer(found[0].optimizer)[1], found[0].state

    # The tensors go by themselves: pickled with the rest, they would be in memory several times.
    outlined = world.decide(outline)
    if outlined is None:
        return None
    rest, state = outlined
    own = found[0]
    moments = _split_optimizer(own.optimizer)[0] if own else None
    tensors = world.broadcast_tensors(moments)
    return Checkpoint(
        model=world.broadcast_tensors(own.model if own else None),
        optimizer=_join_optimizer(tensors, rest),
        state=state,
        generators=world.broadcast_tensors(own.generators if own else None),
    )


def take_up(
    saved: Checkpoint, model: torch.nn.Module, optimizer: torch.optim.Optimizer, origin: Path
) -> None:
    """Give model, optimiser and random generators the state of a checkpoint.

    Args:
        saved: the checkpoint.
        model: as it was saved.
        optimizer: of its weights.
        origin: where the checkpoint lies.

    Raises:
        CheckpointError: if it is of other architectures or another optimiser.
    """
    try:
        model.load_state_dict(saved.model)
        optimizer.load_state_dict(saved.optimizer)
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{origin}: of a run with other settings than these; give its own, or start over in "
            "another --run folder"
        ) from error
    match_layout(optimizer)
    restore_generators(saved.generators)


def checkpoint_folders(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and p.name.startswith(PREFIX))


def remove_leftovers(folder: Path) -> None:
    """Remove what a kill during a save left behind."""
    for path in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)


def remove_whole(path: Path) -> None:
    """Remove a checkpoint; a kill meanwhile leaves no half of it under its name.

    Raises:
        OSError: if it cannot be renamed; it stays as it was.
    """
    aside = path.with_name(f"{TEMPORARY}old-{path.name}")
    os.replace(path, aside)
    shutil.rmtree(aside, ignore_errors=True)


def _split_optimizer(
    state_dict: dict[str, Any],
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors as "<parameter>.<name>", the rest as JSON values."""
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for parameter, values in state_dict["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{parameter}.{name}"] = value
            else:
                scalars.setdefault(str(parameter), {})[name] = value
    return tensors, {"scalars": scalars, "param_groups": state_dict["param_groups"]}


def _join_optimizer(tensors: dict[str, torch.Tensor], rest: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        parameter, name = key.split(".", 1)
        state.setdefault(int(parameter), {})[name] = tensor
    for parameter, values in rest["scalars"].items():
        state.setdefault(int(parameter), {}).update(values)
    groups = [
        {k: tuple(v) if k == "betas" else v for k, v in group.items()}
        for group in rest["param_groups"]
    ]
    return {"state": state, "param_groups": groups}


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

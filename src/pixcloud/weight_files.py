"""Stage 8, weight files of other projects: a file -> named tensors, read without pickled code.

After it: `pixcloud.import_weights`, `pixcloud.import_pictures`, `pixcloud.import_classifiers`,
which know the names. What a training script wraps around a state dict is taken off here: a
dictionary that holds it under a usual name, and the prefixes of wrapped models.
"""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixcloud.errors import WeightsError, some

if TYPE_CHECKING:
    import torch

# Names under which training scripts keep the state dict, beside the epoch and the optimiser.
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")
# What DataParallel, DDP and torch.compile put before every name, sometimes twice.
PREFIXES = ("module.", "_orig_mod.")
COUNTER = "num_batches_tracked"
BN_PARTS = ("weight", "bias", "running_mean", "running_var", COUNTER)


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Names and tensors of a weight file, read without executing pickled code.

    Raises:
        WeightsError: if it is missing, no weight file, or holds no state dict, or more than one.
    """
    import torch
    from safetensors.torch import load_file

    if not path.is_file():
        raise WeightsError(f"{path}: no such file; expected a state dict (.pth or .safetensors)")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(action="ignore"):  # of old pickles, which are refused anyway
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise WeightsError(
            f"{path}: damaged, or holds more than tensors"
            f"{f' (it asks for {named[1]})' if named else ''}, and pickled code is never executed; "
            "save its state dict alone, or fetch it again"
        ) from error
    except Exception as error:  # a damaged pickle can break the reader anywhere
        reason = f"{type(error).__name__}: {_first_line(error)}"
        raise WeightsError(
            f"{path}: cannot be read as weights ({reason}); expected a state dict, as torch.save "
            "or safetensors write it"
        ) from error
    return _unwrapped(content, path)


def _unwrapped(content: Any, path: Path) -> dict[str, torch.Tensor]:
    """The state dict that a file's content is, or holds under a usual name."""
    if not isinstance(content, dict) or not content:
        raise WeightsError(f"{path}: expected a state dict, found {type(content).__name__}")
    bad = _not_tensors(content)
    if not bad:
        return content
    inside = [
        key
        for key in WRAPPERS
        if isinstance(content.get(key), dict) and content[key] and not _not_tensors(content[key])
    ]
    if len(inside) > 1:
        raise WeightsError(
            f"{path}: holds several state dicts ({', '.join(inside)}); save one of them alone"
        )
    if not inside:
        raise WeightsError(
            f"{path}: these entries are no named tensors: {some(bad)}; save the state dict alone"
        )
    found: dict[str, torch.Tensor] = content[inside[0]]
    return found


def _not_tensors(content: dict[Any, Any]) -> list[str]:
    import torch

    return [
        str(key)
        for key, value in content.items()
        if not isinstance(value, torch.Tensor) or not isinstance(key, str)
    ]


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    """Names and tensors of a weight file, without what a training script wrapped around them.

    Returns:
        The state dict, and for the user how many keys the file has and what was done to them.

    Raises:
        WeightsError: as `read_state_dict`, and naming tensors that are no finite real numbers.
    """
    source = read_state_dict(path)
    _check_values(source, path)
    bare, done = without_prefixes(source), []
    if list(bare) != list(source):
        before, after = next(iter(source)), next(iter(bare))
        done.append(f"'{before.removesuffix(after)}' before all of them is taken off")
    whole = with_counters(bare)
    if len(whole) != len(bare):
        done.append("it has no counters of batches, which are set to 0")
    said = f" ({'; '.join(done)})" if done else ""
    return whole, f"all {len(bare)} keys matched{said}"


def _check_values(source: dict[str, torch.Tensor], path: Path) -> None:
    """Refuse what no weight can be; whoever uses the encoder would be blamed for it later."""
    values = {key: value for key, value in source.items() if not key.endswith(COUNTER)}
    if others := [key for key, value in values.items() if not value.is_floating_point()]:
        kind = str(values[others[0]].dtype).removeprefix("torch.")
        raise WeightsError(
            f"{path}: these are no real numbers ({kind}): {some(others)}; save the weights as "
            "float16, float32 or float64"
        )
    if bad := [key for key, value in values.items() if not value.double().isfinite().all()]:
        raise WeightsError(
            f"{path}: these hold NaN or infinity: {some(bad)}; the training had diverged, take an "
            "earlier checkpoint"
        )


def without_prefixes(source: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names without what a wrapped model puts before all of them, however often.

    >>> without_prefixes({"module.module.a": 1, "module.module.b": 2})
    {'a': 1, 'b': 2}
    >>> without_prefixes({"module.a": 1, "b": 2})
    {'module.a': 1, 'b': 2}
    """
    for prefix in PREFIXES * 2:
        while source and all(key.startswith(prefix) for key in source):
            source = {key.removeprefix(prefix): value for key, value in source.items()}
    return source


def with_counters(source: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """With a counter of batches for each BN, where a file has none at all.

    Nothing depends on them while BNs have a momentum, and files in half precision leave them out. A
    file that has some must have all.
    """
    import torch

    if any(key.endswith(COUNTER) for key in source):
        return source
    bns = [key.removesuffix("running_mean") for key in source if key.endswith(".running_mean")]
    return source | {f"{bn}{COUNTER}": torch.tensor(0) for bn in bns}


def _first_line(error: BaseException) -> str:
    text = re.sub(r"\s+", " ", str(error)).strip()
    return text[:160] or type(error).__name__

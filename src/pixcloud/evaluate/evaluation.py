"""Stage 9, `pixcloud evaluate`: an encoder and data -> every protocol's rows, in one file.

Before it: `pixcloud.evaluate.protocols`. Each protocol appends its rows when it is done, marked by
a hash of all that they depend on, so that what was interrupted goes on where it stopped; within a
protocol `pixcloud.evaluate.finished` keeps the fractions and trials that are done.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixcloud._version import __version__
from pixcloud.atomic import write_text
from pixcloud.errors import ConfigError, DataError, ResultsError, WeightsError
from pixcloud.evaluate.command import results_file
from pixcloud.evaluate.evaluation_settings import EvaluateConfig

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pixcloud.evaluate.overview import Overview
    from pixcloud.evaluate.protocols import Protocol
    from pixcloud.evaluate.results import ResultRow
    from pixcloud.evaluate.side_by_side import SideBySide

# Key of the mark in a row.
REQUEST = "request"
# Settings that no number depends on.
WITHOUT_EFFECT = ("encoder", "out", "data", "cache", "threads")


@dataclass(kw_only=True)
class EvaluationResult:
    """rows by protocol; skipped: protocol to the reason; whole: all of them in one table.

    What is the same for all encoders, such as the hand-made descriptor, is there once.
    Printing it shows a table for each protocol, and the whole: of several encoders side by side.
    """

    rows: dict[str, list[ResultRow]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    whole: Overview | SideBySide | None = None

    def __rich_console__(self, console: Any, options: Any) -> Iterator[RenderableType]:
        from rich.text import Text

        from pixcloud.evaluate.protocols import PROTOCOLS

        for name, rows in self.rows.items():
            yield PROTOCOLS[name].table(rows, PROTOCOLS[name].title)
        if self.whole is not None:
            yield self.whole
        for name, why in self.skipped.items():
            yield Text(f"{name} skipped: {why}")


def evaluate_encoder(config: EvaluateConfig) -> EvaluationResult:
    """Run every protocol that the data allow, and show a table of each and one of them all.

    Args:
        config: see `EvaluateConfig`.

    Returns:
        The rows, which are in the results file too, and what was skipped.

    Raises:
        PixCloudError: for an encoder, data or settings that the user can mend; the rows of the
            protocols that were done by then are in the results file.

    Example:
        >>> evaluate_encoder(EvaluateConfig(encoder="runs/demo"))  # doctest: +SKIP
    """
    from pixcloud.evaluate.overview import Overview
    from pixcloud.evaluate.results import read_rows
    from pixcloud.evaluate.side_by_side import side_by_side

    out, encoders = results_file(config.out, config.encoder), [config.encoder, *config.against]
    if twice := [name for name in encoders if encoders.count(name) > 1]:
        raise ConfigError(f"against: {twice[0]} is given twice; name other encoders")
    if config.table and Path(config.table).expanduser().is_dir():
        raise ConfigError(f"table: {config.table} is a folder; name a file")
    if out.is_file():
        read_rows(out)  # a broken one is told before any work, and not as the fault of a protocol
    result, found = EvaluationResult(), {}
    for name in encoders:
        one = dataclasses.replace(config, encoder=name, out=str(out))
        found[name] = _evaluate(one, out, result, len(encoders) > 1)
    if not result.rows:
        reasons = "; ".join(f"{name}: {why}" for name, why in result.skipped.items())
        raise ConfigError(f"nothing could be evaluated: {reasons}")
    if len(encoders) > 1:
        result.whole = side_by_side(found, out.parent)
    else:
        result.whole = Overview([row for rows in result.rows.values() for row in rows])
    if config.table:
        _write_table(Path(config.table).expanduser(), result.whole.markdown())
    return result


def _write_table(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        raise ResultsError(
            f"{path}: the table was not written ({error.strerror or error}); the rows are in the "
            "results file: the same command with another --table computes nothing again"
        ) from error
    _say(f"table written to {path}")


def _evaluate(
    config: EvaluateConfig, out: Path, result: EvaluationResult, several: bool
) -> list[ResultRow]:
    """All protocols of one encoder, added to the result; its rows."""
    from pixcloud.data.sources import holds
    from pixcloud.evaluate.protocols import ALL, PROTOCOLS, chosen_protocols

    names, of = chosen_protocols(config.protocols), f" of {config.encoder}" if several else ""
    has_pairs, has_labels = holds(config.data.source)
    fingerprint, own = _fingerprint(config, has_pairs, has_labels), []
    for number, name in enumerate(names, start=1):
        protocol = PROTOCOLS[name]
        _say(f"{number}/{len(names)} {name}{of}")
        try:
            if not has_labels and (protocol.needs == "labels" or not has_pairs):
                raise ConfigError(f"{config.data.source} holds no labelled clouds")
            rows = _rows(protocol, name, config, fingerprint, out)
            shown = result.rows.setdefault(name, [])
            known = {_measured(row) for row in shown}
            shown.extend(row for row in rows if _measured(row) not in known)
            own += rows
        except (ConfigError, DataError, WeightsError) as error:
            if config.protocols and config.protocols != [ALL]:
                raise type(error)(f"{name}{of}: {error}") from error
            result.skipped[f"{name}{of}"] = str(error)
            _say(f"{name}{of} skipped: {error}")
    return own


def _measured(row: ResultRow) -> tuple[Any, ...]:
    """What was measured, and the number; equal for baselines that no encoder is part of."""
    of = row.encoder, row.encoder_sha256, row.seed
    return *of, row.protocol, row.dataset, row.split, row.metric, row.n, row.value


def _rows(
    protocol: Protocol, name: str, config: EvaluateConfig, fingerprint: dict[str, str], out: Path
) -> list[ResultRow]:
    """The protocol's rows: those that are in the file, or new ones."""
    from pixcloud.evaluate.finished import forget_finished, keeping_finished
    from pixcloud.evaluate.outcomes import keeping_outcomes
    from pixcloud.evaluate.results import noting, read_rows

    settings = protocol.settings(config)
    own = _parts(config) if name == "segment" else {}
    request = _request(name, settings, fingerprint | own)

    def there() -> list[ResultRow]:
        rows = read_rows(out) if out.is_file() else []
        return [row for row in rows if row.extra.get(REQUEST) == request]

    if found := there():
        _say(f"{name}: {len(found)} rows of the same weights, data and settings are in {out}")
        forget_finished(out, request)  # of a call that was killed right after it wrote its rows
        return found
    with noting(**{REQUEST: request}), keeping_outcomes(), keeping_finished(out, request):
        protocol.run(settings)
    return there()


def _parts(config: EvaluateConfig) -> dict[str, str]:
    """Hashes of clouds with parts, which may be others than the labelled ones."""
    from pixcloud.data.sources import open_parts, split_there
    from pixcloud.evaluate.feature_cache import array_sha256

    found = {}
    for split in ("train", "val", "test"):
        if split != "val" or split_there(config.data.source, split):
            clouds = open_parts(config.data.source, split)
            assert clouds.parts is not None
            hashes = array_sha256(clouds.points), array_sha256(clouds.parts)
            found[f"parts of {split}"] = " ".join(hashes)
    return found


def _request(name: str, settings: Any, fingerprint: dict[str, str]) -> str:
    """A hash of all that the rows depend on."""
    parts = {
        "protocol": name,
        "settings": _with_effect(dataclasses.asdict(settings)),
        "pixcloud_version": __version__,
        **fingerprint,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _with_effect(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _with_effect(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if key not in WITHOUT_EFFECT
    }


def _fingerprint(config: EvaluateConfig, has_pairs: bool, has_labels: bool) -> dict[str, str]:
    """Hashes of the encoder's files and code, of labelled clouds and of the names of pairs."""
    from pixcloud.data.shapenet import pairs_sha256
    from pixcloud.data.sources import open_labelled, open_pair_index
    from pixcloud.encoders.code import source_sha256
    from pixcloud.evaluate.feature_cache import array_sha256
    from pixcloud.export import find_encoder, load_encoder

    digest = hashlib.sha256()
    folder = find_encoder(config.encoder)
    for path in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]:
        with open(path, "rb") as stream:
            digest.update(
                f"{path.name} {hashlib.file_digest(stream, 'sha256').hexdigest()};".encode()
            )
    found = {"encoder": digest.hexdigest(), "unpaired": config.data.unpaired}
    kind = type(load_encoder(config.encoder))
    if not kind.__module__.startswith("pixcloud."):
        found["code"] = source_sha256(kind)  # its author may be at work on it
    if has_pairs:
        found["pairs"] = pairs_sha256(open_pair_index(config.data.source).pairs)
    for split in ("train", "test") if has_labels else ():
        try:
            clouds = open_labelled(config.data.source, split)
        except DataError:  # its protocols say so
            continue
        found[split] = f"{array_sha256(clouds.points)} {array_sha256(clouds.labels)}"
    return found


def _say(message: str) -> None:
    print(message, file=sys.stderr)

"""Stage 9, `pixcloud push`: a run or model -> a repository of the Hugging Face Hub.

Before it: `pixcloud.share.models` and `pixcloud.share.card`. After it: `pixcloud.load_encoder` and
`pixcloud.from_pretrained`, which read the repository, or the same folder on disk. The folder holds
the weights as safetensors, config.json, the card (README.md), and of a run recipe.yaml and
results.jsonl. Names of folders of this machine are taken out of all of them.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pixcloud.atomic import replaced_folder
from pixcloud.errors import ConfigError, WeightsError

if TYPE_CHECKING:
    from pixcloud.evaluate.results import ResultRow
    from pixcloud.report.record import RunRecord
    from pixcloud.share.card import CardFacts
    from pixcloud.share.models import Model


def push_to_hub(
    source: str,
    repo_id: str,
    license: str = "",
    data_license: str = "",
    data: str = "",
    results: str = "",
    out: str = "",
    private: bool = False,
    revision: str = "",
    message: str = "",
) -> str:
    """Put a model on the Hugging Face Hub, with a card that says what it is.

    The card is written from the run: data, recipe, results with their intervals and baselines, and
    how to load it. Nothing is guessed: both licences must be given. Log in before with
    `hf auth login`.

    Args:
        source: a run folder, or the folder of an encoder, classifier or segmenter.
        repo_id: owner/name; it is made if it is not there.
        license: licence that you give the weights, such as apache-2.0 or cc-by-nc-4.0; required.
        data_license: licence of the data that they were trained on, in your words; required.
        data: a sentence on these data.
        results: results.jsonl to take rows from; the run's own by default. Rows of other weights
            are left out.
        out: folder to write instead of uploading; `pixcloud.load_encoder` reads it.
        private: whether a repository that is made now is private.
        revision: branch to put it on; the main one by default.
        message: of the commit.

    Returns:
        What was written where; of an upload, the address of the commit, whose hash pins it.

    Raises:
        ConfigError: if a licence is missing, or repo_id is none.
        WeightsError: if there are no weights, or they cannot be uploaded or written.

    Example:
        >>> push_to_hub(
        ...     "runs/mine", "me/mine", license="apache-2.0", data_license="CC BY 4.0"
        ... )  # doctest: +SKIP
    """
    from pixcloud.hub import is_hub_id, upload

    _require_licences(license, data_license)
    if not is_hub_id(repo_id) or "@" in repo_id:
        raise ConfigError(f"repo_id = {repo_id}: owner/name is expected")
    folder = Path(out).expanduser()
    if out and folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise WeightsError(f"{folder}: exists already; give a new folder")
    facts = _facts(source, repo_id, license.strip(), data_license.strip(), data, results)
    if out:
        try:
            with replaced_folder(folder) as temporary:
                names = _write(facts, temporary)
        except OSError as error:
            raise WeightsError(
                f"{folder}: cannot be written ({error.strerror or error})"
            ) from error
        return f"{folder}: {', '.join(names)}; nothing was uploaded"
    with tempfile.TemporaryDirectory() as name:
        names = _write(facts, Path(name))
        address = upload(
            Path(name),
            repo_id,
            private=private,
            revision=revision,
            message=message or f"{facts.model.kind} {facts.model.sha256[:12]}, written by PixCloud",
        )
    return f"{repo_id}: {', '.join(names)}\n{address}"


def _require_licences(license: str, data_license: str) -> None:
    for key, value, example in (
        ("license", license, "apache-2.0, cc-by-4.0, cc-by-nc-4.0"),
        ("data_license", data_license, '"CC BY 3.0", "ShapeNet terms of use"'),
    ):
        if not value.strip():
            words = "the weights" if key == "license" else "the data that they were trained on"
            raise ConfigError(
                f"--{key} is missing: the licence of {words} is never guessed; for example "
                f"{example}"
            )


def _facts(
    source: str, repo_id: str, license: str, data_license: str, data: str, results: str
) -> CardFacts:
    """Everything that the card is written from."""
    from pixcloud.evaluate.results import read_rows
    from pixcloud.report.record import read_record
    from pixcloud.share.card import CardFacts
    from pixcloud.share.models import open_model

    model = open_model(source)
    run = Path(source).expanduser()
    record: RunRecord | None = None
    if (run / "config.yaml").is_file() and (run / "metrics.jsonl").is_file():
        record = read_record(str(run))
    rows: list[ResultRow] = []
    if results:
        rows = read_rows(Path(results).expanduser())
    elif record:
        rows = record.rows
    return CardFacts(
        repo_id=repo_id,
        model=model,
        license=license,
        data_license=data_license,
        record=record,
        rows=rows,
        data=data.strip(),
    )


def _write(facts: CardFacts, folder: Path) -> list[str]:
    """All files of a repository into an empty folder; returns their names."""
    import yaml

    from pixcloud.evaluate.results import RESULTS, append_rows
    from pixcloud.export import CONFIG
    from pixcloud.share.card import model_card, recipe_of, shortened

    model: Model = facts.model
    for name in model.files:
        if name != CONFIG:
            shutil.copyfile(model.folder / name, folder / name)
    meta = {**model.meta, "origin": shortened(model.meta.get("origin") or {})}
    described = json.dumps(meta, indent=1, ensure_ascii=False)
    (folder / CONFIG).write_text(described + "\n", encoding="utf-8")
    (folder / "README.md").write_text(model_card(facts), encoding="utf-8")
    if facts.record:
        recipe = yaml.safe_dump(recipe_of(facts.record), sort_keys=False, allow_unicode=True)
        (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    rows = [
        dataclasses.replace(
            row,
            # The name of a run is a folder; what the row belongs to stands in the card's words.
            encoder=f"{facts.repo_id}: {name}",
            settings=shortened(row.settings),
            extra=shortened(row.extra),
        )
        for name, listed in facts.results.items()
        for row in listed
    ]
    append_rows(folder / RESULTS, rows)
    return sorted(path.name for path in folder.iterdir())

"""Stage 9, a repository of the Hub: a run or model -> its files in a folder, and their names.

Before it: `pixcloud.share.models` and `pixcloud.share.card`. After it: `pixcloud.share.push`. The
folder holds the weights as safetensors, config.json, the card (README.md), and of a run recipe.yaml
and results.jsonl. Names of folders of this machine are taken out of all of them.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import yaml

from pixcloud.evaluate.results import RESULTS, ResultRow, append_rows, read_rows
from pixcloud.export import CONFIG
from pixcloud.report.record import RunRecord, read_record
from pixcloud.share.card import CardFacts, model_card, recipe_of, shortened
from pixcloud.share.models import Model, open_model

# Keys of a row that name what stays on this machine.
LEFT_BEHIND = ("outcomes", "request")


def card_facts(
    source: str, repo_id: str, license: str, data_license: str, data: str, results: str
) -> CardFacts:
    """Everything that the card is written from, read from the source; as for `push_to_hub`.

    Raises:
        WeightsError: if there are no weights.
        FileFormatError: if the results cannot be read.
    """
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


def write_repository(facts: CardFacts, folder: Path) -> list[str]:
    """All files of a repository into an empty folder.

    Args:
        facts: of `card_facts`.
        folder: where they go.

    Returns:
        Their names.
    """
    model: Model = facts.model
    for name in model.files:
        if name != CONFIG:
            shutil.copyfile(model.folder / name, folder / name)
    meta = {**model.meta, "origin": shortened(model.meta.get("origin") or {})}
    if meta.get("picture"):
        meta["picture"] = shortened(meta["picture"])
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
            extra=shortened({k: v for k, v in row.extra.items() if k not in LEFT_BEHIND}),
        )
        for name, listed in facts.results.items()
        for row in listed
    ]
    append_rows(folder / RESULTS, rows)
    return sorted(path.name for path in folder.iterdir())

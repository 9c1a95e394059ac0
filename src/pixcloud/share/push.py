"""Stage 9, `pixcloud push`: a run or model -> a repository of the Hugging Face Hub.

Before it: `pixcloud.share.repository`, which writes the files. After it: `pixcloud.load_encoder`
and `pixcloud.from_pretrained`, which read the repository, or the same folder on disk. Nothing here
imports torch before there is work to do.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from pixcloud.atomic import replaced_folder
from pixcloud.errors import ConfigError, WeightsError


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
    from pixcloud.share.repository import card_facts, write_repository

    _require_licences(license, data_license)
    if not is_hub_id(repo_id) or "@" in repo_id:
        raise ConfigError(f"repo_id = {repo_id}: owner/name is expected")
    folder = Path(out).expanduser()
    if out and folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise WeightsError(f"{folder}: exists already; give a new folder")
    facts = card_facts(source, repo_id, license.strip(), data_license.strip(), data, results)
    if out:
        try:
            with replaced_folder(folder) as temporary:
                names = write_repository(facts, temporary)
        except OSError as error:
            raise WeightsError(
                f"{folder}: cannot be written ({error.strerror or error})"
            ) from error
        return f"{folder}: {', '.join(names)}; nothing was uploaded"
    with tempfile.TemporaryDirectory() as name:
        names = write_repository(facts, Path(name))
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

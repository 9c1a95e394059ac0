"""Stage 8, the Hugging Face Hub: an id -> a folder here, and a folder here -> a repository there.

An id is "owner/name", or "owner/name@revision" with a branch, tag or commit: a commit pins the
weights for good. Only JSON and safetensors are fetched, so that no pickle ever arrives. Whatever
goes wrong on the way is told in one line. `pixcloud.export` and `pixcloud.share` are its users.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from pixcloud.errors import WeightsError, some

FETCHED = ["*.json", "*.safetensors"]
_PART = r"[A-Za-z0-9][\w.-]*"
_ID = re.compile(rf"{_PART}/{_PART}(@[\w./-]+)?")


def is_hub_id(source: str) -> bool:
    """Whether a name has the form of a Hub id, with or without a revision.

    >>> is_hub_id("someone/dgcnn@v1"), is_hub_id("runs/a/b"), is_hub_id("./a")
    (True, False, False)
    """
    return bool(_ID.fullmatch(source))


def download(source: str) -> Path:
    """The folder of a repository's JSON and safetensors files, fetched or as they were kept.

    Args:
        source: "owner/name" or "owner/name@revision".

    Raises:
        WeightsError: if there is no such repository or revision, it may not be read, the Hub
            cannot be reached and there is no copy here, or a folder here has the owner's name.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError

    name, _, revision = source.partition("@")
    above = Path(name).parent
    if above.is_dir():  # a folder here is meant, and no owner on the Hub
        near = sorted(each.name for each in above.iterdir() if each.is_dir())
        raise WeightsError(f"{source}: no such folder; in {above}/ there are: {some(near)}")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=FETCHED))
    except (OSError, ValueError, HTTPError) as error:
        raise WeightsError(
            f"{source}: neither a folder here nor to be had from the Hugging Face Hub: "
            f"{_reason(error, ', and there is no copy here')}"
        ) from error


def upload(folder: Path, repo_id: str, *, private: bool, revision: str, message: str) -> str:
    """Make the repository if it is not there, and put the files of a folder in it, in one commit.

    Args:
        folder: all of its files are sent.
        repo_id: "owner/name".
        private: only for a repository that is made now.
        revision: branch to commit to, made if it is not there; "" means the main one.
        message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        WeightsError: if nobody is logged in, the Hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    api = HfApi()
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=message,
            revision=revision or None,
        )
    except (OSError, ValueError, HTTPError) as error:
        raise WeightsError(
            f"{repo_id}: not uploaded to the Hugging Face Hub: {_reason(error)}"
        ) from error
    return str(commit.commit_url)


def _reason(error: Exception, besides: str = "") -> str:
    """What went wrong, and what to do, in a clause."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "its owner wants to be asked first; ask on its page, then 'hf auth login'"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such repository, or a private one; check the name, or 'hf auth login'"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the repository has no such revision; give a branch, tag or commit of its history"
    if isinstance(error, errors.LocalTokenNotFoundError) or _status(error) in (401, 403):
        return "not logged in, or not allowed to write there; 'hf auth login' with a write token"
    if _status(error) is None and isinstance(
        error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled | errors.HTTPError
    ):
        return (
            f"no network{besides} ({_first_line(error)}); connect, unset HF_HUB_OFFLINE, or give "
            "a local folder"
        )
    return _first_line(error)


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return textwrap.shorten(text.splitlines()[0], 120) if text else type(error).__name__

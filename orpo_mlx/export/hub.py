"""The adapter or the tuned model on the Hugging Face Hub, in a private repository by default.

Written to a folder and checked there first, as every export; then uploaded. The access token is
found by huggingface_hub and never passes through here.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from orpo_mlx.errors import ExportError
from orpo_mlx.export.formats import find_format
from orpo_mlx.export.progress import Progress
from orpo_mlx.export.source import AdapterSource
from orpo_mlx.export.written import Exported, Target
from orpo_mlx.formatting import format_bytes
from orpo_mlx.hub_client import explain_hub_error

LOGIN = "Run `hf auth login` with a token that may write, then export again."


def export(source: AdapterSource, target: Target, say: Progress) -> Exported:
    """Write the content into the target folder and upload that.

    Raises:
        ExportError: no repository was named, nobody is logged in, or the Hub refused; what was
            written before that is kept.
        As the format of the content.
    """
    repo_id = require_repo(target.options.get("repo"))
    is_private = not target.options.get("public")
    from huggingface_hub import HfApi

    api = HfApi()
    user = _require_login(api)
    if is_private:
        _require_privacy(api, repo_id)
    content = find_format(target.options.get("content", "mlx"))
    assert content is not None  # the option's values are names of formats
    options = {k: v for k, v in target.options.items() if k in content.options}
    module: Any = importlib.import_module(f"orpo_mlx.export.{content.module}")
    done: Exported = module.export(source, replace(target, options=options), say)
    say.step(0, 1, f"uploading {format_bytes(sum(size for _, size in done.files))} as {user}")
    url = _upload(api, repo_id, done.path, is_private)
    notes = [
        *done.notes,
        f"Uploaded to {url} ({'private' if is_private else 'public'}); the folder here may be "
        "deleted.",
    ]
    return Exported(done.path, done.files, _command(content.name, repo_id, source), notes)


def require_repo(repo_id: str | None) -> str:
    """Return the id of a repository as it is, if it can be one.

    Raises:
        ExportError: there is none, or it is not OWNER/NAME.
    """
    help = "Name it: --repo OWNER/NAME; it is made if need be."
    if not repo_id:
        raise ExportError("--to hub: to which repository?", help)
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ExportError(f"--repo {repo_id}: is no valid name of a repository.", help) from error
    if "/" not in repo_id:
        raise ExportError(f"--repo {repo_id}: whose?", help)
    return repo_id


def _require_privacy(api: Any, repo_id: str) -> None:
    """Refuse a repository that is there already and public: uploading would not make it private.

    Raises:
        ExportError: it is public, or the Hub cannot be asked.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        is_private = api.model_info(repo_id).private
    except RepositoryNotFoundError:
        return  # it will be made
    except Exception as error:
        said = explain_hub_error(error, repo_id, None)
        raise ExportError(said.message, f"{said.what_to_do} {LOGIN}") from error
    if not is_private:
        raise ExportError(
            f"--repo {repo_id}: is there already, and public; nothing was written or uploaded.",
            "Choose another --repo, or say that it may be public: --public.",
        )


def _require_login(api: Any) -> str:
    """Return who is logged in, before anything is written.

    Raises:
        ExportError: nobody, or the Hub does not know the token, or it cannot be asked.
    """
    from huggingface_hub import get_token

    if get_token() is None:
        raise ExportError("--to hub: nobody is logged in to the Hub.", LOGIN)
    try:
        return str(api.whoami().get("name", "you"))
    except Exception as error:
        said = explain_hub_error(error, "the Hub", None)
        raise ExportError(said.message, f"{said.what_to_do} {LOGIN}") from error


def _upload(api: Any, repo_id: str, folder: Path, is_private: bool) -> str:
    try:
        url = api.create_repo(repo_id, private=is_private, exist_ok=True)
        api.upload_folder(repo_id=str(url.repo_id), folder_path=str(folder))
    except Exception as error:
        said = explain_hub_error(error, repo_id, None)
        raise ExportError(
            f"{said.message} What was written is whole: {folder}.", f"{said.what_to_do} {LOGIN}"
        ) from error
    return str(url)


def _command(content: str, repo_id: str, source: AdapterSource) -> str:
    if content == "fused":
        return f"mlx_lm.generate --model {repo_id} --prompt Hello"
    return f"hf download {repo_id} --local-dir {source.name}"

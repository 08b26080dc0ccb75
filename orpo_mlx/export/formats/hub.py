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
from orpo_mlx.export.base import is_hub_id
from orpo_mlx.export.formats.table import find_format
from orpo_mlx.export.progress import ExportListener
from orpo_mlx.export.serving import with_mlx, with_vllm
from orpo_mlx.export.source import AdapterSource
from orpo_mlx.export.written import Exported, Target
from orpo_mlx.storage.hub import explain_hub_error
from orpo_mlx.storage.regular import read_regular_text
from orpo_mlx.text.commands import command_line
from orpo_mlx.text.formatting import format_bytes

_TEXTS = (".json", ".md", ".txt", ".jinja")
LOGIN = (
    f"Run `{command_line('hf', 'auth', 'login')}` with a token that may write, then export again."
)


def export(source: AdapterSource, target: Target, say: ExportListener) -> Exported:
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
    base_id = _require_base_id(source, target.options.get("base_id"))
    content = find_format(target.options.get("content", "mlx"))
    assert content is not None  # the option's values are names of formats
    options = {k: v for k, v in target.options.items() if k in content.options}
    module: Any = importlib.import_module(f"orpo_mlx.export.formats.{content.module}")
    target = replace(target, options={**options, "base_id": base_id}, is_for_hub=True)
    done: Exported = module.export(source, target, say)
    _require_no_paths(done.path, source)
    say.step(0, 1, f"uploading {format_bytes(sum(size for _, size in done.files))} as {user}")
    url = _upload(api, repo_id, done.path, is_private)
    notes = [
        *done.notes,
        f"Uploaded to {url} ({'private' if is_private else 'public'}); the folder here may be "
        "deleted.",
    ]
    command, serve = _commands(content.name, repo_id, source, base_id)
    return Exported(done.path, done.files, command, serve, notes)


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


def _require_base_id(source: AdapterSource, given: str | None) -> str:
    """Return what the base is called on the Hub, before anything is written or made there.

    Raises:
        ExportError: only a path of this machine is known.
    """
    base_id, _ = source.base.original_id(given)
    if not is_hub_id(base_id):
        raise ExportError(
            f"--to hub: the base model is known by its path alone ({base_id}), which means nothing "
            "to others; nothing was written or uploaded.",
            "Say what it is called on the Hub: --base-id OWNER/NAME.",
        )
    return base_id


def _require_no_paths(folder: Path, source: AdapterSource) -> None:
    """Look through what will be uploaded for paths of this machine.

    Raises:
        ExportError: a file names one.
    """
    places = {*source.places(), Path.home(), *([source.run.path] if source.run else [])}
    secret = [str(place.absolute()) for place in places if len(place.absolute().parts) > 2]
    for file in sorted(folder.iterdir()):
        if file.suffix not in _TEXTS or file.name == "tokenizer.json":
            continue
        text = read_regular_text(file, errors="replace")
        if found := next((place for place in secret if place in text), None):
            raise ExportError(
                f"{file}: names a folder of this machine ({found}); nothing was uploaded. What was "
                "written is whole.",
                f"Take it out of the file the model or run has it from, or upload {folder} "
                "yourself.",
            )


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


def _commands(
    content: str, repo_id: str, source: AdapterSource, base_id: str
) -> tuple[str, list[str]]:
    """Return the command that uses it, and those that serve it."""
    if content == "fused":
        use = command_line("mlx_lm.generate", "--model", repo_id, "--prompt", "Hello")
        return use, [with_mlx(repo_id)]
    use = command_line("hf", "download", repo_id, "--local-dir", source.name)
    if content == "peft":
        return use, with_vllm(source, base_id, repo_id)
    return use, [with_mlx(source.base.recorded_name, source.name)]

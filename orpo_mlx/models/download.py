"""Download a model from the Hugging Face Hub, or say in one sentence why not.

One question goes to the Hub first, with a short timeout and no retries: who the model is, which
files it has and how large they are. It answers most faults at once, where the download itself would
retry for half a minute and then hide the cause.
"""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from orpo_mlx.errors import ModelError
from orpo_mlx.models.check import (
    CONFIG,
    TOKENIZER_CONFIG,
    check_model_type,
    check_weight_names,
    refuse_code,
    weight_headers,
)
from orpo_mlx.storage.hub import (
    FIRST_ANSWER_SECONDS,
    MODEL,
    MODEL_PATTERNS,
    Meter,
    bar_class,
    check_disk,
    check_download,
    check_id,
    explain_hub_error,
    gave_no_answer,
)
from orpo_mlx.storage.safetensors import read_json_object
from orpo_mlx.text.progress import OnProgress

if TYPE_CHECKING:
    from huggingface_hub import HfApi


class DownloadedModel(NamedTuple):
    """A Hub model in the cache; `note` says when the Hub was not asked."""

    path: Path
    commit_hash: str
    note: str = ""


class _RemoteFile(NamedTuple):
    name: str
    size: int
    sha256: str | None = None


def download_model(
    repo_id: str, revision: str | None = None, on_progress: OnProgress | None = None
) -> DownloadedModel:
    """Bring a Hub model into the cache, or find it there when the Hub cannot be reached.

    Args:
        repo_id: "owner/name".
        revision: branch, tag or commit; None for main.
        on_progress: told of a download, possibly from other threads.

    Raises:
        ModelError: one sentence each for an invalid or unknown id, an unknown revision, a gated
            model, a refused token, too many requests, a broken Hub, no connection, a connection
            cut, a full disk, and a model that has no safetensors or wants to run code.
    """
    check_id(repo_id, MODEL)
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        info = api.model_info(
            repo_id, revision=revision, files_metadata=True, timeout=FIRST_ANSWER_SECONDS
        )
    except Exception as error:
        return _cached_instead(api, repo_id, revision, error)
    files = [
        _RemoteFile(f.rfilename, f.size or 0, f.lfs.sha256 if f.lfs else None)
        for f in info.siblings or []
    ]
    check_weight_names([file.name for file in files], repo_id)
    try:
        _check_settings(api, repo_id, revision, {file.name for file in files})
        path = _download_files(api, repo_id, revision, str(info.sha), files, on_progress)
    except ModelError:
        raise
    except Exception as error:
        raise explain_hub_error(error, repo_id, revision) from error
    return DownloadedModel(path, path.name)


def _check_settings(api: HfApi, repo_id: str, revision: str | None, names: set[str]) -> None:
    """Download the small settings files alone and refuse early what would be refused later."""
    for name in (CONFIG, TOKENIZER_CONFIG):
        if name not in names:
            continue
        path = Path(api.hf_hub_download(repo_id, name, revision=revision))
        config = read_json_object(path, ModelError)
        refuse_code(config, f"{repo_id}, {name}")
        if name == CONFIG:
            check_model_type(config, f"{repo_id}, {name}")


def _download_files(
    api: HfApi,
    repo_id: str,
    revision: str | None,
    commit_hash: str,
    files: list[_RemoteFile],
    on_progress: OnProgress | None,
) -> Path:
    from huggingface_hub import try_to_load_from_cache

    wanted = [f for f in files if any(fnmatch(f.name, pattern) for pattern in MODEL_PATTERNS)]
    total = sum(file.size for file in wanted)
    new = [
        file
        for file in wanted
        if not isinstance(try_to_load_from_cache(repo_id, file.name, revision=commit_hash), str)
    ]
    missing = sum(file.size for file in new)
    check_disk(repo_id, missing, MODEL)
    meter = Meter(on_progress, repo_id, done=total - missing, total=total)
    meter.add(0)
    found: Any = api.snapshot_download(
        repo_id,
        revision=revision,
        allow_patterns=MODEL_PATTERNS,
        tqdm_class=bar_class(meter),
        max_workers=4,
    )
    for file in new:
        check_download(Path(found, file.name), file.sha256, repo_id, MODEL)
    return Path(found)


def download_gguf(repo_id: str, name: str | None = None, revision: str | None = None) -> Path:
    """Bring one GGUF file of a Hub repository into the cache, or find it there.

    Args:
        repo_id: "owner/name".
        name: of the file; not needed where there is only one.
        revision: branch, tag or commit; None for main.

    Raises:
        ModelError: as `download_model`; or there are several files, or none of this name.
    """
    check_id(repo_id, MODEL)
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        info = api.model_info(
            repo_id, revision=revision, files_metadata=True, timeout=FIRST_ANSWER_SECONDS
        )
        files = {f.rfilename: f.size or 0 for f in info.siblings or []}
        chosen = _choose_gguf(repo_id, name, [n for n in files if n.endswith(".gguf")])
        check_disk(repo_id, files[chosen], MODEL)
        return Path(api.hf_hub_download(repo_id, chosen, revision=revision))
    except ModelError:
        raise
    except Exception as error:
        if name and gave_no_answer(error):
            from huggingface_hub import try_to_load_from_cache

            cached = try_to_load_from_cache(repo_id, name, revision=revision)
            if isinstance(cached, str):
                return Path(cached)
        raise explain_hub_error(error, repo_id, revision) from error


def _choose_gguf(repo_id: str, name: str | None, found: list[str]) -> str:
    if name in found or (name is None and len(found) == 1):
        return name or found[0]
    listed = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
    if not found:
        raise ModelError(f"{repo_id}: holds no .gguf file.", "Name a repository that does.")
    raise ModelError(
        f"{repo_id}: {f'has no {name}' if name else 'has several .gguf files'}. There: {listed}.",
        f"Say which: {repo_id}:{found[0]}.",
    )


# Sizes without a download


def read_headers(
    repo_id: str, revision: str | None = None
) -> tuple[dict[str, Any], dict[str, tuple[str, tuple[int, ...]]]]:
    """Return config.json and the headers of the weights of a Hub model: kilobytes, not gigabytes.

    Returns:
        The configuration, and for each tensor its number format and shape.

    Raises:
        ModelError: as `download_model`.
    """
    check_id(repo_id, MODEL)
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        # One question with a short timeout and no retries comes first, as in `download_model`.
        api.model_info(repo_id, revision=revision, timeout=FIRST_ANSWER_SECONDS)
        config = Path(api.hf_hub_download(repo_id, CONFIG, revision=revision))
        found = api.get_safetensors_metadata(repo_id, revision=revision)
    except Exception as error:
        return _cached_headers(api, repo_id, revision, error)
    tensors = {
        name: (tensor.dtype, tuple(tensor.shape))
        for file in found.files_metadata.values()
        for name, tensor in file.tensors.items()
    }
    return read_json_object(config, ModelError), tensors


def download_settings(repo_id: str, revision: str | None = None) -> Path:
    """Bring everything but the weights of a Hub model into the cache; return the folder.

    Raises:
        ModelError: as `download_model`.
    """
    check_id(repo_id, MODEL)
    from huggingface_hub import HfApi

    small = [pattern for pattern in MODEL_PATTERNS if not pattern.endswith(".safetensors")]
    api = HfApi()
    try:
        api.model_info(repo_id, revision=revision, timeout=FIRST_ANSWER_SECONDS)
        found: Any = api.snapshot_download(repo_id, revision=revision, allow_patterns=small)
    except Exception as error:
        return _cached_instead(api, repo_id, revision, error).path
    for name in (CONFIG, TOKENIZER_CONFIG):
        if (Path(found) / name).exists():
            refuse_code(read_json_object(Path(found) / name, ModelError), f"{repo_id}, {name}")
    return Path(found)


def _cached_headers(
    api: HfApi, repo_id: str, revision: str | None, error: Exception
) -> tuple[dict[str, Any], dict[str, tuple[str, tuple[int, ...]]]]:
    """Read the copy in the cache when the Hub gave no answer."""
    path = _cached_instead(api, repo_id, revision, error).path
    tensors = {n: t for file in weight_headers(path).values() for n, t in file.items()}
    return read_json_object(path / CONFIG, ModelError), tensors


# The cache


def _cached_instead(
    api: HfApi, repo_id: str, revision: str | None, error: Exception
) -> DownloadedModel:
    """Use a complete cached copy when the Hub gave no answer; a clear no stays a no.

    Raises:
        ModelError: there is no such copy, or the Hub refused.
    """
    explained = explain_hub_error(error, repo_id, revision)
    if not gave_no_answer(error):
        raise explained from error
    try:
        found: Any = api.snapshot_download(
            repo_id, revision=revision, allow_patterns=MODEL_PATTERNS, local_files_only=True
        )
        check_weight_names([path.name for path in Path(found).iterdir()], repo_id)
    except Exception:  # not there, or only a part of it
        raise explained from error
    reason = explained.message.removeprefix(f"{repo_id}: ")
    return DownloadedModel(Path(found), Path(found).name, f"the cached copy is used: {reason}")

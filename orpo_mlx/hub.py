"""Download a model from the Hugging Face Hub, or say in one sentence why not.

One question goes to the Hub first, with a short timeout and no retries: who the model is, which
files it has and how large they are. It answers most faults at once, where the download itself would
retry for half a minute and then hide the cause. The access token is found by huggingface_hub; it
never passes through here, and no text of an answer or a header is repeated in a message.
"""

from __future__ import annotations

import errno
import io
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from orpo_mlx.errors import ModelError
from orpo_mlx.import_gate import read_json_object
from orpo_mlx.model_check import (
    CONFIG,
    TOKENIZER_CONFIG,
    check_model_type,
    check_weight_names,
    refuse_code,
    weight_headers,
)

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# Never Python files and never pickles.
PATTERNS = ["*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "model*.safetensors"]
FIRST_ANSWER_SECONDS = 10.0
SPARE_BYTES = 1 << 28

OnProgress = Callable[[int, int, str], None]


class DownloadedModel(NamedTuple):
    """A Hub model in the cache; `note` says when the Hub was not asked."""

    path: Path
    commit_hash: str
    note: str = ""


class _RemoteFile(NamedTuple):
    name: str
    size: int


def download_model(
    repo_id: str, revision: str | None = None, on_progress: OnProgress | None = None
) -> DownloadedModel:
    """Bring a Hub model into the cache, or find it there when the Hub cannot be reached.

    Args:
        repo_id: "owner/name".
        revision: branch, tag or commit; None for main.
        on_progress: called with (bytes done, bytes total, repo id), possibly from other threads.

    Raises:
        ModelError: one sentence each for an invalid or unknown id, an unknown revision, a gated
            model, a refused token, too many requests, a broken Hub, no connection, a connection
            cut, a full disk, and a model that has no safetensors or wants to run code.
    """
    _check_id(repo_id)
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        info = api.model_info(
            repo_id, revision=revision, files_metadata=True, timeout=FIRST_ANSWER_SECONDS
        )
    except Exception as error:
        return _cached_instead(api, repo_id, revision, error)
    files = [_RemoteFile(f.rfilename, f.size or 0) for f in info.siblings or []]
    check_weight_names([file.name for file in files], repo_id)
    try:
        _check_settings(api, repo_id, revision, {file.name for file in files})
        path = _download_files(api, repo_id, revision, str(info.sha), files, on_progress)
    except ModelError:
        raise
    except Exception as error:
        raise explain_hub_error(error, repo_id, revision) from error
    return DownloadedModel(path, path.name)


def _check_id(repo_id: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ModelError(
            f"{repo_id!r}: neither a folder nor a valid Hub id; an id is owner/name in letters, "
            "digits, '-', '_' and '.'.",
            "Check the spelling, or give a path that starts with ./ or /.",
        ) from error


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

    wanted = [f for f in files if any(fnmatch(f.name, pattern) for pattern in PATTERNS)]
    total = sum(file.size for file in wanted)
    missing = sum(
        file.size
        for file in wanted
        if not isinstance(try_to_load_from_cache(repo_id, file.name, revision=commit_hash), str)
    )
    _check_disk(repo_id, missing)
    meter = _Meter(on_progress, repo_id, done=total - missing, total=total)
    meter.add(0)
    found: Any = api.snapshot_download(
        repo_id,
        revision=revision,
        allow_patterns=PATTERNS,
        tqdm_class=_bar_class(meter),
        max_workers=4,
    )
    return Path(found)


def _check_disk(repo_id: str, needed: int) -> None:
    cache = _cache_folder()
    place = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if needed and free < needed + SPARE_BYTES:
        raise ModelError(
            f"{repo_id}: {needed / 1e9:.1f} GB are still to be downloaded, {free / 1e9:.1f} GB are "
            f"free in {cache}.",
            "Free some space (hf cache ls shows what is there), or set HF_HOME to another disk.",
        )


class _Meter:
    """Adds up bytes from all download threads and reports them."""

    def __init__(self, report: OnProgress | None, label: str, done: int, total: int) -> None:
        self._report, self._label = report, label
        self._done, self._total = done, total
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self._done = min(self._done + count, self._total)
            if self._report is not None:
                self._report(self._done, self._total, self._label)


def _bar_class(meter: _Meter) -> Any:
    """Return a progress bar class that draws nothing and feeds the meter."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]
        monitor_interval = 0  # no watcher thread

        def __init__(self, *args: Any, **options: Any) -> None:
            # One bar counts files, one the bytes from the network, one those written: the last one.
            name = str(options.pop("name", "") or options.get("desc", ""))
            self._counts = options.get("unit") == "B" and not re.search("transfer|network", name)
            self._counts = self._counts and not name.startswith("Downloading bytes")
            super().__init__(*args, **{**options, "file": io.StringIO(), "disable": False})

        def display(self, *_: Any, **__: Any) -> None:
            pass

        def update(self, n: float | None = 1) -> bool | None:
            if self._counts and n:
                meter.add(int(n))
            return super().update(n)

    return Bar


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
    _check_id(repo_id)
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
    _check_id(repo_id)
    from huggingface_hub import HfApi

    small = [pattern for pattern in PATTERNS if not pattern.endswith(".safetensors")]
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


def _cache_folder() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser()


def cached_models() -> list[str]:
    """Return the ids of the models in the Hub's cache that have a config, sorted."""
    folders = _cache_folder().glob("models--*")
    return sorted(
        folder.name.removeprefix("models--").replace("--", "/")
        for folder in folders
        if any(folder.glob(f"snapshots/*/{CONFIG}"))
    )


def _cached_instead(
    api: HfApi, repo_id: str, revision: str | None, error: Exception
) -> DownloadedModel:
    """Use a complete cached copy when the Hub gave no answer; a clear no stays a no.

    Raises:
        ModelError: there is no such copy, or the Hub refused.
    """
    explained = explain_hub_error(error, repo_id, revision)
    if not _gave_no_answer(error):
        raise explained from error
    try:
        found: Any = api.snapshot_download(
            repo_id, revision=revision, allow_patterns=PATTERNS, local_files_only=True
        )
        check_weight_names([path.name for path in Path(found).iterdir()], repo_id)
    except Exception:  # not there, or only a part of it
        raise explained from error
    reason = explained.message.removeprefix(f"{repo_id}: ")
    return DownloadedModel(Path(found), Path(found).name, f"the cached copy is used: {reason}")


# Faults


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _status(error: Exception) -> int | None:
    for cause in _causes(error):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
    return None


def _kinds(error: Exception) -> set[str]:
    """Return the class names of an error and its causes: the HTTP library has changed its name."""
    return {kind.__name__ for cause in _causes(error) for kind in type(cause).__mro__}


def _gave_no_answer(error: Exception) -> bool:
    status = _status(error)
    if status is not None:
        return status == 429 or status >= 500
    return bool(_kinds(error) & {"TransportError", "OfflineModeIsEnabled", "TimeoutException"})


def explain_hub_error(error: Exception, repo_id: str, revision: str | None) -> ModelError:
    """Return the one sentence for what went wrong; the error's own text is never repeated."""
    from huggingface_hub import constants

    kinds, status = _kinds(error), _status(error)
    page = f"{constants.ENDPOINT}/{repo_id}"
    if "GatedRepoError" in kinds:
        return ModelError(
            f"{repo_id}: this model is gated; its terms must be accepted first.",
            f"Visit {page}, accept the terms, then run `hf auth login` with a token of that user.",
        )
    if "RevisionNotFoundError" in kinds:
        return ModelError(
            f"{repo_id}: there is no revision {revision or 'main'!r}.",
            f"See branches, tags and commits at {page}/commits, or leave out --revision.",
        )
    if "RepositoryNotFoundError" in kinds:
        return ModelError(
            f"{repo_id}: the Hub knows no such model, or it is private; there is no folder of that "
            "name either.",
            "Check the spelling; for a private model run `hf auth login`; for a folder start the "
            "path with ./ or /.",
        )
    return _explain_status(error, kinds, status, repo_id)


def _explain_status(
    error: Exception, kinds: set[str], status: int | None, repo_id: str
) -> ModelError:
    if status == 401:
        return ModelError(
            f"{repo_id}: the Hub refused the access token (401); it is wrong or has expired.",
            "Run `hf auth login` with a new token, or unset HF_TOKEN for a public model.",
        )
    if status == 403:
        return ModelError(
            f"{repo_id}: the access token may not read this model (403).",
            "Give the token read access to it in the Hub's settings, then run `hf auth login`.",
        )
    if status == 429:
        return ModelError(
            f"{repo_id}: the Hub answers that there were too many requests (429).",
            "Wait a few minutes and start again; with `hf auth login` the limit is higher.",
        )
    if status is not None and status >= 500:
        return ModelError(
            f"{repo_id}: the Hub has a fault of its own ({status}).",
            "Try again later; https://status.huggingface.co shows its state.",
        )
    return _explain_connection(error, kinds, repo_id)


def _explain_connection(error: Exception, kinds: set[str], repo_id: str) -> ModelError:
    numbers = {getattr(cause, "errno", None) for cause in _causes(error)}
    if numbers & {errno.ENOSPC, errno.EDQUOT}:
        return ModelError(
            f"{repo_id}: the disk is full; what was downloaded so far is kept in "
            f"{_cache_folder()}.",
            "Free some space and start again: the download goes on where it stopped.",
        )
    if "OfflineModeIsEnabled" in kinds or "ConnectError" in kinds or "TimeoutException" in kinds:
        why = (
            "HF_HUB_OFFLINE is set"
            if "OfflineModeIsEnabled" in kinds
            else "the Hub does not answer"
        )
        return ModelError(
            f"{repo_id}: not in the cache, and {why}. {_list_cached()}",
            "Connect to the internet (and unset HF_HUB_OFFLINE), or use a model that is here.",
        )
    if "TransportError" in kinds or "consistency check" in str(error).lower():
        return ModelError(
            f"{repo_id}: the connection to the Hub was cut.",
            "Start again: the download goes on where it stopped.",
        )
    return ModelError(
        f"{repo_id}: the download failed ({type(error).__name__}).",
        "Try again; `hf download` with the same id shows more.",
    )


def _list_cached() -> str:
    names = cached_models()
    if not names:
        return "No model is in the cache."
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"In the cache: {', '.join(names[:5])}{more}."

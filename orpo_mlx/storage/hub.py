"""What models and datasets of the Hugging Face Hub have in common: progress, disk, checks, faults.

The access token is found by huggingface_hub; it never passes through here, and no text of an answer
or a header is repeated in a message.
"""

from __future__ import annotations

import errno
import hashlib
import io
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orpo_mlx.errors import DataError, ModelError, OrpoError
from orpo_mlx.storage.disk import free_bytes
from orpo_mlx.text.progress import OnProgress

FIRST_ANSWER_SECONDS = 10.0
SPARE_BYTES = 1 << 28


# Never Python files and never pickles.
MODEL_PATTERNS = ["*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "model*.safetensors"]


@dataclass(frozen=True)
class RepoKind:
    """How models and datasets differ.

    Attributes:
        noun: what messages call it.
        place: what could also have been meant by its name.
        pages: beginning of its page's path on the Hub.
        revision_flag: the option that names a revision.
        mark: a file in the cache that shows that something usable is there.
    """

    noun: str
    place: str
    pages: str
    revision_flag: str
    mark: str
    error: type[OrpoError]


MODEL = RepoKind("model", "folder", "", "--revision", "config.json", ModelError)
DATASET = RepoKind("dataset", "file or folder", "datasets/", "--data-revision", "*", DataError)


def check_id(repo_id: str, kind: RepoKind) -> None:
    """Refuse what cannot be the id of a model or dataset.

    Raises:
        ModelError, DataError: it is not owner/name.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise kind.error(
            f"{repo_id!r}: neither a {kind.place} nor a valid Hub id; an id is owner/name in "
            "letters, digits, '-', '_' and '.'.",
            "Check the spelling, or give a path that starts with ./ or /.",
        ) from error


# Download -----------------------------------------------------------------------------------------


def check_disk(repo_id: str, needed: int, kind: RepoKind) -> None:
    """Refuse a download that does not fit.

    Raises:
        ModelError, DataError: there is less space than `needed` bytes and a little more.
    """
    cache = hub_cache_folder()
    free = free_bytes(cache)
    if needed and free < needed + SPARE_BYTES:
        raise kind.error(
            f"{repo_id}: {needed / 1e9:.1f} GB are still to be downloaded, {free / 1e9:.1f} GB are "
            f"free in {cache}.",
            "Free some space (hf cache ls shows what is there), or set HF_HOME to another disk.",
        )


class Meter:
    """Adds up bytes from all download threads and reports them."""

    def __init__(self, report: OnProgress | None, label: str, done: int, total: int) -> None:
        self._report, self._label = report, label
        self._done, self._total = done, total
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Count bytes that have arrived."""
        with self._lock:
            self._done = min(self._done + count, self._total)
            if self._report is not None:
                self._report(self._done, self._total, self._label, "bytes")


def bar_class(meter: Meter) -> Any:
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


def check_download(path: Path, sha256: str | None, repo_id: str, kind: RepoKind) -> None:
    """Compare a file just downloaded with the checksum the Hub keeps of large files.

    The client compares sizes only. A damaged file is removed, so that the next start fetches it.

    Args:
        path: in the cache.
        sha256: 64 hex digits; None for small files, of which the Hub keeps none.

    Raises:
        ModelError, DataError: the content is not what the Hub has.
    """
    if sha256 is None:
        return
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found == sha256:
        return
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    raise kind.error(
        f"{repo_id}: {path.name} arrived damaged (sha256 {found[:12]}, the Hub has {sha256[:12]}).",
        "It was removed; start again to download it anew. If that repeats, look at disk and proxy.",
    )


# The cache ----------------------------------------------------------------------------------------


def hub_cache_folder() -> Path:
    """Return the folder of the Hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser()


def cached_repos(kind: RepoKind) -> list[str]:
    """Return the ids of what is in the Hub's cache, sorted."""
    start = f"{kind.noun}s--"
    folders = hub_cache_folder().glob(f"{start}*")
    return sorted(
        folder.name.removeprefix(start).replace("--", "/")
        for folder in folders
        if any(folder.glob(f"snapshots/*/{kind.mark}"))
    )


def _list_cached(kind: RepoKind) -> str:
    names = cached_repos(kind)
    if not names:
        return f"No {kind.noun} is in the cache."
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"In the cache: {', '.join(names[:5])}{more}."


# Faults -------------------------------------------------------------------------------------------


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


def gave_no_answer(error: Exception) -> bool:
    """Whether the Hub could not be reached or has a fault; a clear no is an answer."""
    status = _status(error)
    if status is not None:
        return status == 429 or status >= 500
    return bool(_kinds(error) & {"TransportError", "OfflineModeIsEnabled", "TimeoutException"})


def is_unknown_revision(error: Exception) -> bool:
    """Whether the Hub answered that it has the repository, but not this revision."""
    return "RevisionNotFoundError" in _kinds(error)


def explain_hub_error(
    error: Exception, repo_id: str, revision: str | None, kind: RepoKind = MODEL
) -> OrpoError:
    """Return the one sentence for what went wrong; the error's own text is never repeated."""
    from huggingface_hub import constants

    kinds, status, noun = _kinds(error), _status(error), kind.noun
    page = f"{constants.ENDPOINT}/{kind.pages}{repo_id}"
    if "GatedRepoError" in kinds:
        return kind.error(
            f"{repo_id}: this {noun} is gated; its terms must be accepted first.",
            f"Visit {page}, accept the terms, then run `hf auth login` with a token of that user.",
        )
    if "RevisionNotFoundError" in kinds:
        return kind.error(
            f"{repo_id}: there is no revision {revision or 'main'!r}.",
            f"See branches, tags and commits at {page}/commits, or leave out {kind.revision_flag}.",
        )
    if "RepositoryNotFoundError" in kinds:
        return kind.error(
            f"{repo_id}: the Hub knows no such {noun}, or it is private; there is no {kind.place} "
            "of that name either.",
            f"Check the spelling; for a private {noun} run `hf auth login`; for a {kind.place} "
            "start the path with ./ or /.",
        )
    return _explain_status(error, kinds, status, repo_id, kind)


def explain_search_error(error: Exception, kind: RepoKind) -> tuple[str, str]:
    """Return why the Hub was not searched, without a full stop, and what to do about it."""
    explained, status = explain_hub_error(error, "Hub", None, kind), _status(error)
    problem = explained.message.removeprefix("Hub: ").removeprefix("not in the cache, and ")
    if problem.startswith("the download failed"):  # a search downloads nothing
        answer = f"status {status}" if status else f"what is no list ({type(error).__name__})"
        return f"the Hub answered with {answer}", "Try again later, or type an id."
    return problem.split(". ")[0].rstrip("."), explained.what_to_do


def _explain_status(
    error: Exception, kinds: set[str], status: int | None, repo_id: str, kind: RepoKind
) -> OrpoError:
    noun = kind.noun
    if status == 401:
        return kind.error(
            f"{repo_id}: the Hub refused the access token (401); it is wrong or has expired.",
            f"Run `hf auth login` with a new token, or unset HF_TOKEN for a public {noun}.",
        )
    if status == 403:
        return kind.error(
            f"{repo_id}: the access token may not read this {noun} (403).",
            "Give the token read access to it in the Hub's settings, then run `hf auth login`.",
        )
    if status == 429:
        return kind.error(
            f"{repo_id}: the Hub answers that there were too many requests (429).",
            "Wait a few minutes and start again; with `hf auth login` the limit is higher.",
        )
    if status is not None and status >= 500:
        return kind.error(
            f"{repo_id}: the Hub has a fault of its own ({status}).",
            "Try again later; https://status.huggingface.co shows its state.",
        )
    return _explain_connection(error, kinds, repo_id, kind)


def _explain_connection(
    error: Exception, kinds: set[str], repo_id: str, kind: RepoKind
) -> OrpoError:
    numbers = {getattr(cause, "errno", None) for cause in _causes(error)}
    if numbers & {errno.ENOSPC, errno.EDQUOT}:
        return kind.error(
            f"{repo_id}: the disk is full; what was downloaded so far is kept in "
            f"{hub_cache_folder()}.",
            "Free some space and start again: the download goes on where it stopped.",
        )
    if "OfflineModeIsEnabled" in kinds or "ConnectError" in kinds or "TimeoutException" in kinds:
        why = (
            "HF_HUB_OFFLINE is set"
            if "OfflineModeIsEnabled" in kinds
            else "the Hub does not answer"
        )
        return kind.error(
            f"{repo_id}: not in the cache, and {why}. {_list_cached(kind)}",
            f"Connect to the internet (and unset HF_HUB_OFFLINE), or use a {kind.noun} that is "
            "here.",
        )
    if "TransportError" in kinds or "consistency check" in str(error).lower():
        return kind.error(
            f"{repo_id}: the connection to the Hub was cut.",
            "Start again: the download goes on where it stopped.",
        )
    return kind.error(
        f"{repo_id}: the download failed ({type(error).__name__}).",
        "Try again; `hf download` with the same id shows more.",
    )

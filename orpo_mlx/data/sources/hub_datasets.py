"""Datasets of the Hugging Face Hub: which files they have, and these files in the cache.

The dataset's own data files are preferred; where there are none that are read here (scripts, Arrow,
text), the copy in Parquet is taken that the Hub makes of public datasets. No code of a dataset is
run. What the Hub said is kept, so that a dataset once used is found again without a network.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from orpo_mlx.data.sources.splits import Listing, list_splits
from orpo_mlx.errors import DataError
from orpo_mlx.storage.atomic import write_unsynced
from orpo_mlx.storage.cache import cache_folder
from orpo_mlx.storage.hub import (
    DATASET,
    FIRST_ANSWER_SECONDS,
    Meter,
    bar_class,
    check_disk,
    check_download,
    check_id,
    explain_hub_error,
    gave_no_answer,
    is_unknown_revision,
)
from orpo_mlx.text.progress import OnProgress

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CONVERTED = "refs/convert/parquet"
"""The branch on which the Hub keeps its Parquet copy: subset/split/0000.parquet."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a dataset; the Hub knows a checksum of large files only."""

    name: str
    size: int
    sha256: str | None = None


@dataclass(frozen=True)
class RemoteDataset:
    """A Hub dataset at one commit.

    Attributes:
        commit: what the revision meant when the Hub was asked.
        files: all of them.
        configs: what the dataset's card says of subsets and splits.
        note: what the user should know, "" if nothing.
        asked: the revision that was asked for.
    """

    id: str
    commit: str
    files: list[RemoteFile]
    configs: list[Any] = field(default_factory=list)
    note: str = ""
    asked: str = "main"

    @property
    def listing(self) -> Listing:
        """The data files by subset and split."""
        return list_splits((file.name for file in self.files), self.configs)

    def fetch(self, names: Sequence[str], on_progress: OnProgress | None = None) -> list[Path]:
        """Bring files into the cache, what is there already without asking the Hub.

        Raises:
            DataError: one sentence each for a download that fails, a full disk, and a file that
                arrives damaged.
        """
        from huggingface_hub import HfApi, try_to_load_from_cache

        def cached(name: str) -> Path | None:
            found = try_to_load_from_cache(self.id, name, revision=self.commit, repo_type="dataset")
            return Path(found) if isinstance(found, str) else None

        wanted = [file for file in self.files if file.name in set(names)]
        for file in wanted:
            _require_inside(self.id, file.name)
        new = [file for file in wanted if cached(file.name) is None]
        missing, total = (sum(file.size for file in files) for files in (new, wanted))
        check_disk(self.id, missing, DATASET)
        meter = Meter(on_progress, self.id, done=total - missing, total=total)
        paths = {}
        for file in wanted:
            paths[file.name] = cached(file.name) or self._download(HfApi(), file, meter)
        _remember(self)
        return [paths[name] for name in names]

    def _download(self, api: HfApi, file: RemoteFile, meter: Meter) -> Path:
        try:
            path = Path(
                str(
                    api.hf_hub_download(
                        self.id,
                        file.name,
                        repo_type="dataset",
                        revision=self.commit,
                        tqdm_class=bar_class(meter),
                    )
                )
            )
        except Exception as error:
            raise explain_hub_error(error, self.id, self.commit, DATASET) from error
        check_download(path, file.sha256, self.id, DATASET)
        return path


def _require_inside(repo_id: str, name: str) -> None:
    """Refuse a name that would lead out of the dataset's folder in the cache."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise DataError(
            f"{repo_id}: has a file named {name!r:.80}, which leads out of the dataset.",
            "It is damaged or made to do harm: choose another dataset.",
        )


def list_dataset(repo_id: str, revision: str | None = None) -> RemoteDataset:
    """Ask the Hub which files a dataset has; without an answer, remember what it said last.

    Args:
        repo_id: "owner/name".
        revision: branch, tag or commit; None for main.

    Raises:
        DataError: one sentence each for an invalid or unknown id, an unknown revision, a gated
            dataset, a refused token, too many requests, a broken Hub, no connection, and a dataset
            without any file that can be read.
    """
    check_id(repo_id, DATASET)
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        found = _ask(api, repo_id, revision)
        if not found.listing.files:
            found = _ask_for_converted(api, found, revision)
    except DataError:
        raise
    except Exception as error:
        return _remembered(repo_id, revision, error)
    return found


def _ask(api: HfApi, repo_id: str, revision: str | None) -> RemoteDataset:
    # Short timeout, no retries: it answers most faults at once.
    info = api.dataset_info(
        repo_id, revision=revision, files_metadata=True, timeout=FIRST_ANSWER_SECONDS
    )
    card = info.card_data
    configs = card.get("configs") if card is not None else None
    files = [
        RemoteFile(f.rfilename, f.size or 0, f.lfs.sha256 if f.lfs else None)
        for f in info.siblings or []
    ]
    return RemoteDataset(repo_id, str(info.sha), files, configs or [], "", revision or "main")


def _ask_for_converted(api: HfApi, original: RemoteDataset, revision: str | None) -> RemoteDataset:
    """Return the Parquet copy of a dataset without files that are read here."""
    kinds = sorted({Path(file.name).suffix or file.name for file in original.files})
    what_to_do = "Convert it to Parquet or JSON lines, and give these files or their folder."
    found = f"{original.id}: no file that is read here (found: {', '.join(kinds[:6]) or 'none'})"
    if revision is not None:
        raise DataError(
            f"{found}; the Hub's Parquet copy is made of main alone, not of {revision!r}.",
            f"Leave out --data-revision. {what_to_do}",
        )
    try:
        copy = _ask(api, original.id, CONVERTED)
    except Exception as error:
        if not is_unknown_revision(error):
            raise
        raise DataError(f"{found}, and the Hub has no Parquet copy of it.", what_to_do) from error
    if not copy.listing.files:
        raise DataError(f"{found}, and the Hub's Parquet copy of it is empty.", what_to_do)
    note = f"{original.id}: read from the Parquet copy that the Hub makes"
    return RemoteDataset(copy.id, copy.commit, copy.files, [], note)  # asked for as main


# Without a network --------------------------------------------------------------------------------


def _memory(repo_id: str, revision: str) -> Path:
    name = f"{repo_id}@{revision}".replace("/", "--")
    return cache_folder("datasets") / f"{name}.json"


def _remember(found: RemoteDataset) -> None:
    """Keep what the Hub said, under the revision asked for and under the commit it is."""
    data = json.dumps(asdict(found), default=str).encode("utf-8")
    # A disk that is full or read-only costs only the use without a network.
    with contextlib.suppress(OSError):
        cache_folder("datasets").mkdir(parents=True, exist_ok=True)
        for name in {found.asked, found.commit}:
            write_unsynced(_memory(found.id, name), data)


def _remembered(repo_id: str, revision: str | None, error: Exception) -> RemoteDataset:
    """Return what the Hub said last, if it gave no answer now; a clear no stays a no."""
    explained = explain_hub_error(error, repo_id, revision, DATASET)
    if not gave_no_answer(error):
        raise explained from error
    try:
        kept = json.loads(_memory(repo_id, revision or "main").read_text(encoding="utf-8"))
        files = [RemoteFile(**file) for file in kept["files"]]
        found = RemoteDataset(repo_id, kept["commit"], files, kept["configs"])
    except (OSError, ValueError, KeyError, TypeError):
        raise explained from error
    reason = explained.message.removeprefix(f"{repo_id}: ").removeprefix("not in the cache, and ")
    note = f"{repo_id}: the cached copy is used: {reason.split('. ')[0].rstrip('.')}"
    return replace(found, note=note, asked=revision or "main")

"""Find preference datasets: a built-in list, and the Hub where it can be reached."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from orpo_mlx.data.catalogue.curated import CuratedDataset, find_curated
from orpo_mlx.storage.hub import DATASET, FIRST_ANSWER_SECONDS, explain_search_error

MOST = 30
_ASKED = 100
TAGS = {"dpo", "orpo", "rlhf", "rlaif", "preference", "preferences", "human-feedback", "simpo"}
_NAME = re.compile(r"dpo|orpo|prefer|rlhf|feedback|binarized|chosen|pairs", re.IGNORECASE)


@dataclass(frozen=True)
class FoundDataset:
    """A dataset that a search found; what is not known is None.

    Attributes:
        size: a category such as "10K<n<100K", or for a curated one its rows and kind.
        curated: whether it is of the built-in list.
        settings: flags that suit it.
    """

    id: str
    downloads: int | None
    likes: int | None
    size: str | None
    licence: str | None
    teaches: str | None
    curated: bool
    settings: str = ""
    gated: bool = False


@dataclass(frozen=True)
class SearchResult:
    """What was found; `problem` says why the Hub is missing, "" if it is not."""

    datasets: list[FoundDataset]
    problem: str = ""
    what_to_do: str = ""


def search_datasets(text: str) -> SearchResult:
    """Look for preference datasets; never fails: without the Hub the built-in list is left.

    Args:
        text: words that name or describe them; "" for the most used ones.
    """
    curated = [from_list(entry) for entry in find_curated(text)]
    try:
        remote = {found.id: found for found in _ask_hub(text)}
    except Exception as error:
        return SearchResult(curated, *explain_search_error(error, DATASET))
    known = {found.id for found in curated}
    merged = [_merged(found, remote.get(found.id)) for found in curated]
    return SearchResult([*merged, *(r for r in remote.values() if r.id not in known)][:MOST])


def _ask_hub(text: str) -> Iterator[FoundDataset]:
    from huggingface_hub import DatasetInfo, constants
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    # Not HfApi.list_datasets: that one retries for 23 seconds where there is no network.
    asked = {"search": text} if text else {"filter": "dpo"}
    answer = get_session().get(
        f"{constants.ENDPOINT}/api/datasets",
        params={**asked, "sort": "downloads", "direction": "-1", "limit": _ASKED},
        headers=build_hf_headers(),
        timeout=FIRST_ANSWER_SECONDS,
    )
    hf_raise_for_status(answer)
    for info in (DatasetInfo(**item) for item in answer.json()):
        tags = list(info.tags or [])
        if TAGS & set(tags) or _NAME.search(info.id):
            yield FoundDataset(
                info.id,
                info.downloads,
                info.likes,
                _tag(tags, "size_categories"),
                _tag(tags, "license"),
                None,
                curated=False,
                gated=bool(info.gated),
            )


def _tag(tags: list[str], name: str) -> str | None:
    return next((tag.partition(":")[2] for tag in tags if tag.startswith(f"{name}:")), None)


def from_list(entry: CuratedDataset) -> FoundDataset:
    """Return a dataset of the built-in list as a search finds it without the Hub."""
    size = f"{entry.rows:,} pairs, {entry.size}"
    return FoundDataset(
        entry.id, None, None, size, entry.licence, entry.teaches, True, entry.settings
    )


def _merged(found: FoundDataset, remote: FoundDataset | None) -> FoundDataset:
    if remote is None:
        return found
    return FoundDataset(
        found.id,
        remote.downloads,
        remote.likes,
        found.size,
        found.licence or remote.licence,
        found.teaches,
        True,
        found.settings,
        remote.gated,
    )

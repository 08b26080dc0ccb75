"""What the Hub tells of a dataset before any of it is downloaded: columns, rows, bytes, licence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orpo_mlx.data.layouts.table import LAYOUTS
from orpo_mlx.data.sources.splits import choose_split, list_splits
from orpo_mlx.errors import DataError
from orpo_mlx.storage.hub import DATASET, FIRST_ANSWER_SECONDS, check_id, explain_hub_error


@dataclass(frozen=True)
class DatasetCard:
    """Facts of a dataset; what its card does not tell is empty or 0.

    Attributes:
        columns: of the subset that is read if none is named.
        layout: the only one that fits these columns, by its short name.
        rows: of the training split.
        download_bytes: of the files of the training split.
        unclear: why the files to train on are not clear, "" if they are.
    """

    columns: tuple[str, ...] = ()
    layout: str = ""
    rows: int = 0
    download_bytes: int = 0
    licence: str = ""
    is_gated: bool = False
    unclear: str = ""


def ask_card(repo_id: str, subset: str = "", split: str = "") -> DatasetCard:
    """Ask the Hub for a dataset's card and the sizes of its files.

    Args:
        repo_id: "owner/name".
        subset, split: those meant, "" for the ones that are taken if none is named.

    Raises:
        DataError: one sentence for an unknown id, a refusal, or a Hub that does not answer.
    """
    check_id(repo_id, DATASET)
    from huggingface_hub import HfApi

    try:
        # Short timeout, no retries, as everywhere something is only looked at.
        info = HfApi().dataset_info(repo_id, files_metadata=True, timeout=FIRST_ANSWER_SECONDS)
    except Exception as error:
        raise explain_hub_error(error, repo_id, None, DATASET) from error
    card = info.card_data.to_dict() if info.card_data is not None else {}
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    return read_card(card, sizes, subset, split, is_gated=bool(info.gated))


def read_card(
    card: Mapping[str, Any],
    sizes: Mapping[str, int],
    subset: str = "",
    split: str = "",
    *,
    is_gated: bool = False,
) -> DatasetCard:
    """Return what a card and the sizes of files by name tell; anyone may write a card."""
    configs = card.get("configs")
    listing = list_splits(sizes, configs if isinstance(configs, list) else ())
    unclear, files = "", list[str]()
    if listing.files:
        try:
            chosen = choose_split(listing, "this dataset", subset=subset, split=split)
            subset, split, files = chosen.subset, chosen.split, chosen.files
        except DataError as error:
            unclear = error.message
    found = _subset_info(card.get("dataset_info"), subset)
    features = [f for f in _objects(found.get("features")) if isinstance(f.get("name"), str)]
    splits = _objects(found.get("splits"))
    count = next((s.get("num_examples") for s in splits if s.get("name") == (split or "train")), 0)
    licence = card.get("license")
    return DatasetCard(
        tuple(feature["name"] for feature in features),
        _layout_of(features),
        count if isinstance(count, int) else 0,
        sum(sizes[name] for name in files),
        licence if isinstance(licence, str) else ", ".join(map(str, _list(licence))),
        is_gated,
        unclear,
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in _list(value) if isinstance(item, dict)]


def _subset_info(value: Any, subset: str) -> Mapping[str, Any]:
    """Return the description of a subset; of the first one if none has its name."""
    infos = [value] if isinstance(value, dict) else _objects(value)
    named = [info for info in infos if info.get("config_name", "default") == (subset or "default")]
    return next(iter(named or infos), {})


def _layout_of(features: Sequence[Mapping[str, Any]]) -> str:
    """Return the layout of made-up values of these types, "" if none or several fit."""
    sample = {feature["name"]: _made_up(feature) for feature in features}
    found = [layout for layout in LAYOUTS if layout.matches(set(sample), sample)]
    return found[0].name.partition(" (")[0] if len(found) == 1 else ""


def _made_up(feature: Mapping[str, Any]) -> Any:
    for many in ("list", "sequence", "large_list"):
        if many in feature:
            return [_inner(feature[many])]
    if "struct" in feature:
        return _inner(feature["struct"])
    return "text" if feature.get("dtype") in ("string", "large_string") else 0


def _inner(value: Any) -> Any:
    """Return a made-up object for a list of fields, else a made-up value."""
    if isinstance(value, dict) and "struct" in value:
        value = value["struct"]
    if isinstance(value, list):
        return {str(field.get("name")): _made_up(field) for field in _objects(value)}
    return "text" if value == "string" else 0

"""Which files of a folder or Hub dataset are the training pairs, told from names.

A listing sorts files by subset and split, from the dataset's own description where there is one,
else from names such as `train.jsonl`, `data/train_prefs-00000-of-00002.parquet`,
`helpful-base/test.jsonl.gz` and `default/train/0000.parquet`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Any, Literal

from orpo_mlx.data.sources.files import SUFFIXES, is_data_file, suffix_of
from orpo_mlx.errors import DataError
from orpo_mlx.text.spelling import did_you_mean

Role = Literal["train", "valid"]

_WORDS = {
    "train": ("train", "training"),
    "valid": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_WORD = re.compile(
    r"(?<![a-z0-9])(" + "|".join(w for words in _WORDS.values() for w in words) + r")(?![a-z0-9])"
)
_SHARD = re.compile(r"(.+?)[-_.](\d{4,})(-of-(\d{4,}))?([-.][0-9a-f]{6,})?", re.IGNORECASE)
_PREFERENCE = re.compile(r"pref|dpo|orpo|pair|rank|compar|rlhf", re.IGNORECASE)
_NO_SUBSET = {"", "data", "default", "main"}
_DESCRIPTIONS = {
    "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json",
    "dataset_config.json", "croissant.json", "metadata.json", "package.json",
}  # fmt: skip
_BEST_FIRST = (".parquet", *SUFFIXES)


@dataclass(frozen=True)
class Listing:
    """Files by subset and split; the subset "" is what has no name of its own."""

    files: dict[str, dict[str, list[str]]]
    default: str = ""
    """The subset meant when none is named."""


@dataclass(frozen=True)
class Chosen:
    """The files of one split."""

    subset: str
    split: str
    files: list[str]


def list_splits(names: Iterable[str], configs: Sequence[Any] = ()) -> Listing:
    """Sort data files by subset and split.

    Args:
        names: relative paths with "/"; what is no data file is passed over.
        configs: the `configs` of a dataset card, if it has any.
    """
    names = sorted(name for name in names if is_data_file(name) and not _is_aside(name))
    if described := _from_card(names, configs):
        return described
    found: dict[str, dict[str, list[str]]] = {}
    for name in names:
        subset, split = _subset_and_split(name)
        found.setdefault(subset, {}).setdefault(split, []).append(name)
    return Listing({k: {s: _one_kind(f) for s, f in v.items()} for k, v in found.items()})


def _is_aside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return parts[-1].lower() in _DESCRIPTIONS or any(part.startswith((".", "_")) for part in parts)


def _one_kind(files: list[str]) -> list[str]:
    """Keep files of one kind: the same rows are often there as Parquet and as CSV."""
    best = min((suffix_of(file) for file in files), key=_BEST_FIRST.index)
    return [file for file in files if suffix_of(file) == best]


def _from_card(names: list[str], configs: Sequence[Any]) -> Listing | None:
    """Follow a dataset card, as far as its patterns name data files that are there."""
    found: dict[str, dict[str, list[str]]] = {}
    default = ""
    for config in configs:
        if not isinstance(config, dict):
            continue
        subset = str(config.get("config_name", ""))
        splits = {
            split: [name for name in names if any(fnmatch(name, p) for p in patterns)]
            for split, patterns in _patterns(config.get("data_files"))
        } or _in_folder(names, str(config.get("data_dir") or ""))
        if splits := {split: files for split, files in splits.items() if files}:
            found[subset] = splits
            default = subset if config.get("default") or subset == "default" else default
    return Listing(found, default) if found else None


def _in_folder(names: list[str], folder: str) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {}
    for name in names:
        if folder and name.startswith(f"{folder.rstrip('/')}/"):
            splits.setdefault(_subset_and_split(name)[1], []).append(name)
    return splits


def _patterns(data_files: Any) -> list[tuple[str, list[str]]]:
    if isinstance(data_files, str):
        return [("train", [data_files])]
    if not isinstance(data_files, list):
        return []
    if all(isinstance(item, str) for item in data_files):
        return [("train", [str(item) for item in data_files])]
    found = []
    for item in data_files:
        path = item.get("path") if isinstance(item, dict) else None
        if path is not None:
            paths = path if isinstance(path, list) else [path]
            found.append((str(item.get("split", "train")), [str(p) for p in paths]))
    return found


def _subset_and_split(name: str) -> tuple[str, str]:
    path = PurePosixPath(name)
    folders = list(path.parts[:-1])
    stem = path.name.lower()
    while ("." in stem and is_data_file(stem)) or stem.endswith(".gz"):
        stem = stem.rsplit(".", 1)[0]
    shard = _SHARD.fullmatch(stem)
    if not shard and stem.isdigit() and folders:
        split = folders.pop().removeprefix("partial-")  # the Hub's conversion: subset/split/0000
    elif shard and shard[3]:
        split = shard[1]
    elif word := _WORD.search(stem):
        split = (shard[1] if shard else stem) if word.start() == 0 else word[1]
        split = re.sub(r"[-_]?\d+$", "", split)
    elif folders and _WORD.search(folders[-1].lower()):
        split = folders.pop()
    else:
        split = "train"
    subset = "/".join(folder for folder in folders if folder not in _NO_SUBSET)
    return subset, split


# Choosing -----------------------------------------------------------------------------------------


def choose_split(
    listing: Listing, where: str, role: Role = "train", subset: str = "", split: str = ""
) -> Chosen:
    """Return the files meant.

    Args:
        listing: what there is; not empty.
        where: name of the folder or dataset, for messages.
        role: "train" for the pairs to train on, "valid" for those to validate on.
        subset, split: as given by the user, "" if not.

    Raises:
        DataError: what was given is not there, or nothing was given and several would do.
    """
    subset = _choose_subset(listing, where, subset)
    splits = listing.files[subset]
    if split:
        if split not in splits:
            near = did_you_mean(split, splits)
            raise DataError(
                f"{where}: there is no split {split!r}{near}. Splits found: {_listed(splits)}.",
                "Give one of them with --data-split.",
            )
        return Chosen(subset, split, _require_all_shards(splits[split], where))
    fitting = _fitting(splits, role)
    if len(fitting) != 1:
        found = fitting or list(splits)
        problem = "several splits would do" if fitting else f"there is no {role} split"
        raise DataError(
            f"{where}: {problem}. Splits found: {_listed(splits)}.",
            f"Choose one with --data-split, such as --data-split {found[0]}.",
        )
    return Chosen(subset, fitting[0], _require_all_shards(splits[fitting[0]], where))


def find_split(listing: Listing, role: Role, subset: str) -> Chosen | None:
    """Return the one split of a subset whose name says that it is for this; None if unclear."""
    splits = listing.files[subset]
    fitting = [s for s in _fitting(splits, role) if _word_of(s) == role]
    return Chosen(subset, fitting[0], splits[fitting[0]]) if len(fitting) == 1 else None


def _choose_subset(listing: Listing, where: str, subset: str) -> str:
    subsets = listing.files
    if subset:
        if subset in subsets:
            return subset
        if subset == "default" and "" in subsets:
            return ""
        near = did_you_mean(subset, subsets)
        raise DataError(
            f"{where}: there is no subset {subset!r}{near}. Subsets found: {_listed(subsets)}.",
            "Give one of them with --data-subset, or leave it out.",
        )
    if listing.default in subsets:
        return listing.default
    if len(subsets) == 1:
        return next(iter(subsets))
    raise DataError(
        f"{where}: there are several subsets: {_listed(subsets)}.",
        f"Choose one with --data-subset, such as --data-subset {next(iter(subsets))}.",
    )


def _fitting(splits: dict[str, list[str]], role: Role) -> list[str]:
    """Return the splits that could be meant: one if it is clear."""
    for word in (role, "test") if role == "valid" else (role,):
        named = [split for split in splits if _word_of(split) == word]
        exact = [split for split in named if split.lower() in _WORDS[word]]
        preferring = [split for split in named if _PREFERENCE.search(split)]
        for group in (exact, preferring, named):
            if len(group) == 1:
                return group
        if named:
            return named
    return list(splits) if len(splits) == 1 else []


def _word_of(split: str) -> str:
    """Return train, valid or test for the beginning of a split's name, else ""."""
    word = _WORD.match(re.sub(r"[^a-z0-9]", " ", split.lower()))
    return next((k for k, words in _WORDS.items() if word and word[1] in words), "")


def _require_all_shards(files: list[str], where: str) -> list[str]:
    for file in files:
        stem = PurePosixPath(file).name.split(".")[0]
        shard = _SHARD.fullmatch(stem)
        if shard and shard[4] and len(files) < int(shard[4]):
            raise DataError(
                f"{where}: {len(files)} of the {int(shard[4])} parts of {shard[1]} are there.",
                "Download all of them.",
            )
    return files


def _listed(names: Iterable[str]) -> str:
    names = [name or "default" for name in names]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more

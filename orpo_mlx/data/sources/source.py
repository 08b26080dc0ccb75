"""What a user names as data, found and read: files, folders, Hub datasets, mixtures of them.

`find_data` says which files are meant and brings them here; `read_members` reads them. Columns are
not looked at here; `data/layouts/detect.py` does that, for each member of a mixture by itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orpo_mlx.config import TrainConfig
from orpo_mlx.config.mixture import exists, parse_mixture
from orpo_mlx.data.sources.files import KINDS, content_hash, is_data_file, read_file, require_file
from orpo_mlx.data.sources.mixture import draw_shares
from orpo_mlx.data.sources.rows import Row, kind_of, report_problems
from orpo_mlx.data.sources.splits import Chosen, Role, choose_split, find_split, list_splits
from orpo_mlx.errors import ConfigError, DataError
from orpo_mlx.text.progress import OnProgress

__all__ = [
    "Choice", "DataFile", "Member", "Row", "Source", "TrainingSources", "content_hash",
    "find_data", "find_sources", "kind_of", "read_members", "read_rows", "report_problems",
]  # fmt: skip

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_DEPTH, _MOST_FILES = 4, 10_000


@dataclass(frozen=True)
class Choice:
    """Which part of a folder or Hub dataset is meant; "" where nothing was said."""

    split: str = ""
    subset: str = ""
    revision: str = ""


@dataclass(frozen=True)
class DataFile:
    """A file and the name it has in the sources of its rows."""

    path: Path
    label: str


@dataclass(frozen=True)
class Member:
    """Files of one layout: a file, a split of a folder, a split of a Hub dataset.

    Attributes:
        name: as given.
        weight: its share in a mixture; None: all rows are used.
        what: the split and subset that were chosen, for messages; "" for a file.
    """

    name: str
    files: tuple[DataFile, ...]
    weight: float | None = None
    what: str = ""


@dataclass(frozen=True)
class Source:
    """Everything that one `--data` names.

    Attributes:
        members: what to train on.
        valid: what the same folders and datasets hold for validation, empty if nothing.
        revisions: the commit of each Hub dataset.
        notes: what the user should know.
    """

    name: str
    members: tuple[Member, ...]
    valid: tuple[Member, ...] = ()
    revisions: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def content_hash(self) -> str:
        """Return a sha256 of all that is read; of a single file it is that of its bytes."""
        return members_hash(self.members)


def members_hash(members: Sequence[Member]) -> str:
    """Return a sha256 of the content and the shares of members."""
    hashes = [[m.weight, [content_hash(file.path) for file in m.files]] for m in members]
    if len(hashes) == 1 and hashes[0][0] is None and len(members[0].files) == 1:
        return str(hashes[0][1][0])
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


def find_data(
    name: str,
    choice: Choice | None = None,
    role: Role = "train",
    pinned: dict[str, str] | None = None,
    on_progress: OnProgress | None = None,
) -> Source:
    """Find the files that are meant, downloading those of Hub datasets that are not here yet.

    Args:
        name: a file, a folder, a Hub id, or several with commas, each with a weight if wanted.
        choice: split, subset and revision, for those that have such.
        role: whether pairs to train on or to validate on are looked for.
        pinned: for Hub datasets the commit to take, whatever the choice says.
        on_progress: told of a download.

    Raises:
        DataError: something is missing, unclear or unreadable, or the Hub says no.
        ConfigError: a name or weight of a mixture is no such, or a choice fits nothing named.
    """
    choice = choice or Choice()
    named = parse_mixture(name)
    found = [_find(n.name, choice, role, pinned or {}, on_progress) for n in named]
    _require_use(choice, found)
    weights = [n.weight for n in named]
    return Source(
        name,
        tuple(_with_weight(f.members[0], w) for f, w in zip(found, weights, strict=True)),
        tuple(m for f in found for m in f.valid),
        {repo: commit for f in found for repo, commit in f.revisions.items()},
        tuple(note for f in found for note in f.notes),
    )


@dataclass(frozen=True)
class TrainingSources:
    """What a training reads; `valid` is None if pairs are held out, or none are."""

    data: Source
    valid: Source | None = None

    @property
    def notes(self) -> list[str]:
        """What the user should know of both."""
        both = [self.data, self.valid] if self.valid else [self.data]
        return list(dict.fromkeys(note for source in both for note in source.notes))


def find_sources(
    config: TrainConfig,
    pinned: dict[str, str] | None = None,
    on_progress: OnProgress | None = None,
) -> TrainingSources:
    """Find the files that the settings of a training name.

    A validation split beside the training data is used, unless the settings name another one or
    say which fraction is to be held out.

    Args:
        config: with `data` set.
        pinned, on_progress: as for `find_data`.

    Raises:
        DataError, ConfigError: as `find_data`.
    """
    choice = Choice(config.data_split or "", config.data_subset or "", config.data_revision or "")
    data = find_data(str(config.data), choice, "train", pinned, on_progress)
    if config.valid_data:
        # Of another dataset the choice says nothing, and of the same one another split is meant.
        same = config.valid_data == config.data
        other = Choice("", choice.subset, choice.revision) if same else Choice()
        return TrainingSources(
            data, find_data(config.valid_data, other, "valid", pinned, on_progress)
        )
    default = TrainConfig.model_fields["valid_fraction"].get_default()
    if not data.valid or config.valid_fraction != default:
        return TrainingSources(data)
    note = f"validation pairs are those of {', '.join(f'{m.name} ({m.what})' for m in data.valid)}"
    valid = Source(data.name, data.valid, revisions=data.revisions, notes=(note,))
    return TrainingSources(data, valid)


def _with_weight(member: Member, weight: float | None) -> Member:
    return Member(member.name, member.files, weight, member.what)


def read_members(
    members: Sequence[Member], seed: int = 0, notes: list[str] | None = None
) -> list[list[Row]]:
    """Read the rows of each member; where members have weights, only their shares.

    Args:
        members: of a source.
        seed: of the draw of the shares.
        notes: takes in of which members not all rows are drawn.

    Raises:
        DataError: as `files.read_file`.
    """
    rows = [[row for f in member.files for row in read_file(f.path, f.label)] for member in members]
    weights = [member.weight for member in members if member.weight is not None]
    if len(members) < 2 or len(weights) < len(members):
        return rows
    drawn = draw_shares([len(part) for part in rows], weights, seed)
    if notes is not None:
        notes += [
            f"{member.name}: {len(kept):,} of its {len(part):,} rows are drawn"
            for member, kept, part in zip(members, drawn, rows, strict=True)
            if len(kept) < len(part)
        ]
    return [[part[i] for i in kept] for part, kept in zip(rows, drawn, strict=True)]


def read_rows(name: str | Path) -> list[Row]:
    """Read everything that is named, as one list.

    Raises:
        DataError, ConfigError: as `find_data` and `read_members`.
    """
    source = find_data(str(name))
    return [row for part in read_members(source.members) for row in part]


def _find(
    name: str, choice: Choice, role: Role, pinned: dict[str, str], on_progress: OnProgress | None
) -> Source:
    path = Path(name).expanduser() if exists(name) else None
    if path is not None and path.is_dir():
        return _find_in_folder(path, name, choice, role)
    if path is None and _is_hub_id(name):
        return _find_on_hub(name, choice, role, pinned, on_progress)
    file = require_file(name)
    return Source(name, (Member(name, (DataFile(file, file.name),)),))


def _is_hub_id(name: str) -> bool:
    return HUB_ID.fullmatch(name) is not None and not is_data_file(name)


def _require_use(choice: Choice, found: Sequence[Source]) -> None:
    """Refuse a choice that nothing named can have."""
    has_splits = any(member.what for source in found for member in source.members)
    for value, option, can in (
        (choice.split, "--data-split", has_splits),
        (choice.subset, "--data-subset", has_splits),
        (choice.revision, "--data-revision", any(source.revisions for source in found)),
    ):
        if value and not can:
            needs = "a Hub dataset" if option == "--data-revision" else "a folder or a Hub dataset"
            raise ConfigError(
                f"{option} {value}: {found[0].name} is not {needs}.", f"Leave out {option}."
            )


# Folders ------------------------------------------------------------------------------------------


def _find_in_folder(folder: Path, name: str, choice: Choice, role: Role) -> Source:
    _refuse_other_folders(folder)
    paths = {str(path.relative_to(folder)): path for path in _iter_files(folder)}
    listing = list_splits(paths)
    if not listing.files:
        raise DataError(f"{folder}: a folder without data files.", f"Give {KINDS}.")
    chosen = choose_split(listing, name, role, choice.subset, choice.split)
    _refuse_unrelated(folder, chosen)
    valid = None
    if role == "train" and not choice.split:
        valid = find_split(listing, "valid", chosen.subset)
    return Source(
        name,
        (_folder_member(name, folder, chosen),),
        (_folder_member(name, folder, valid),) if valid and valid.files != chosen.files else (),
    )


def _folder_member(name: str, folder: Path, chosen: Chosen) -> Member:
    root = _root(folder)
    for file in chosen.files:
        if not (folder / file).resolve().is_relative_to(root):
            raise DataError(
                f"{folder / file}: a link that leads out of the folder.", "Name the file itself."
            )
    return Member(name, _labelled(chosen.files, folder), what=_what(chosen))


def _root(folder: Path) -> Path:
    """Return what links in a folder may lead to: itself, or all of a dataset in the Hub's cache."""
    folder = folder.resolve()
    snapshots = next((p for p in folder.parents if p.name == "snapshots"), None)
    is_cache = snapshots is not None and (snapshots.parent / "blobs").is_dir()
    return snapshots.parent if snapshots is not None and is_cache else folder


def _iter_files(folder: Path) -> Iterator[Path]:
    count = 0
    for place, folders, names in os.walk(folder):
        depth = len(Path(place).relative_to(folder).parts)
        folders[:] = sorted(f for f in folders if not f.startswith(".")) if depth < _DEPTH else []
        for name in sorted(names):
            count += 1
            if count > _MOST_FILES:
                raise DataError(f"{folder}: more than {_MOST_FILES:,} files.", "Name one file.")
            if is_data_file(name) and not name.startswith("."):
                yield Path(place, name)


def _refuse_other_folders(folder: Path) -> None:
    marks = ("config.json", "adapter_config.json", "run.lock")
    if any((folder / mark).is_file() for mark in marks):
        raise DataError(
            f"{folder}: a folder with a model, an adapter or a run, not preference pairs.",
            f"Give {KINDS}; a model belongs to --model.",
        )


def _refuse_unrelated(folder: Path, chosen: Chosen) -> None:
    """Refuse to join files whose names do not say that they belong together."""
    names = [Path(file).name for file in chosen.files]
    stems = {re.sub(r"[\d._-]+", "", name.split(".")[0]) for name in names}
    if len(stems) > 1:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise DataError(
            f"{folder}: several files, and none is named train: {', '.join(names[:3])}{more}.",
            f"Name one, such as {folder / chosen.files[0]}, or several with commas.",
        )


# The Hub ------------------------------------------------------------------------------------------


def _find_on_hub(
    name: str, choice: Choice, role: Role, pinned: dict[str, str], on_progress: OnProgress | None
) -> Source:
    from orpo_mlx.data.sources.hub_datasets import list_dataset

    dataset = list_dataset(name, pinned.get(name) or choice.revision or None)
    listing = dataset.listing
    chosen = choose_split(listing, name, role, choice.subset, choice.split)
    valid = None
    if role == "train" and not choice.split:
        valid = find_split(listing, "valid", chosen.subset)
    members = []
    for part in (chosen, valid):
        if part is not None:
            paths = dataset.fetch(part.files, on_progress)
            labels = _labelled(part.files)
            files = tuple(DataFile(p, f.label) for p, f in zip(paths, labels, strict=True))
            members.append(Member(name, files, what=_what(part)))
    notes = (dataset.note,) if dataset.note else ()
    return Source(name, (members[0],), tuple(members[1:]), {name: dataset.commit}, notes)


def _what(chosen: Chosen) -> str:
    return f"{chosen.subset}, {chosen.split}" if chosen.subset else chosen.split


def _labelled(files: Sequence[str], folder: Path | None = None) -> tuple[DataFile, ...]:
    """Name files by their last part, or by all of it where that names two."""
    counts = Counter(Path(file).name for file in files)
    base = folder if folder is not None else Path()
    return tuple(
        DataFile(base / file, Path(file).name if counts[Path(file).name] == 1 else file)
        for file in files
    )


def describe_choice(source: Source) -> list[str]:
    """Say for each folder and Hub dataset which part of it is used."""
    found = []
    for member in source.members:
        commit = source.revisions.get(member.name, "")
        at = f", commit {commit[:12]}" if commit else ""
        if member.what:
            found.append(f"{member.name}: {member.what}{at}")
    return found

"""What an export of this program wrote, and so may replace: known by what it wrote there."""

from __future__ import annotations

from pathlib import Path

from orpo_mlx.errors import reason_of
from orpo_mlx.storage.regular import open_regular, read_regular_text

CHECKSUMS = "SHA256SUMS"
GGUF_MARK = "orpo_mlx.export"
"""A key near the beginning of every GGUF file written here; holds the format's name."""
FOLDER_MARK = "# Written by orpo-mlx export."
"""First line of SHA256SUMS; `shasum -c` passes over it."""
_NOT_COUNTED = frozenset({CHECKSUMS, ".DS_Store"})
_GGUF_START_BYTES = 4096


def is_within(path: Path, other: Path) -> bool:
    """Whether a path is another one or lies in it, however they are written."""
    found = path.resolve()
    return any(_is_same(place, other) for place in (found, *found.parents))


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def foreign_folder(path: Path) -> str:
    """Return why a folder is not, or not only, what an export wrote; "" if it is."""
    try:
        lines = read_regular_text(path / CHECKSUMS).splitlines()
    except (OSError, UnicodeDecodeError):
        found = sorted(entry.name for entry in path.iterdir())
        return f"no {CHECKSUMS}; found {', '.join(found[:3])}"
    if FOLDER_MARK not in lines[:1]:
        return f"{CHECKSUMS} does not begin with {FOLDER_MARK!r}"
    ours = {line[66:] for line in lines}
    found = [name for name, _ in list_files(path)]
    more = [name for name in found if name not in ours and Path(name).name not in _NOT_COUNTED]
    return f"{more[0]} came there otherwise" if more else ""


def foreign_file(path: Path) -> str:
    """Return why a file is not a GGUF that an export wrote; "" if it is."""
    try:
        with open_regular(path) as file:
            start = file.read(_GGUF_START_BYTES)
    except OSError as error:
        return reason_of(error)
    is_ours = start.startswith(b"GGUF") and GGUF_MARK.encode() in start
    return "" if is_ours else f"it does not begin as a GGUF with {GGUF_MARK}"


def list_files(path: Path) -> list[tuple[str, int]]:
    """Return name and bytes of each file of a folder, or of a file."""
    if path.is_file():
        return [(path.name, path.stat().st_size)]
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return [(file.relative_to(path).as_posix(), file.stat().st_size) for file in files]

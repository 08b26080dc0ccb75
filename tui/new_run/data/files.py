"""Files that may hold pairs, and what a text in the field for data means."""

from __future__ import annotations

from pathlib import Path

from orpo_mlx.chat.feedback import count_rows, labelled_file, pairs_file
from orpo_mlx.text.formatting import counted, format_duration, visible

_MOST_FILES = 30
_PATIENT_SECONDS, _LONG_SECONDS = 2, 10
"""From when on seconds are counted, and from when on one may want to stop it."""
_KINDS = (".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".json.gz", ".csv.gz")


def may_hold_pairs(path: Path) -> bool:
    """Tell from its name whether a file may hold pairs."""
    return path.name.endswith(_KINDS)


def files_here(folder: Path) -> list[Path]:
    """Return the files of a folder that may hold pairs, by name."""
    try:
        found = [path for path in folder.iterdir() if may_hold_pairs(path)]
        return sorted(path for path in found if path.is_file())[:_MOST_FILES]
    except OSError:
        return []


def files_of_chats() -> dict[Path, str]:
    """Return the files that hold what was said of answers in chats, with what is in them."""
    found = {}
    for is_chat, what in ((True, ""), (False, ", plain text")):
        pairs, labelled = pairs_file(is_chat), labelled_file(is_chat)
        if count := count_rows(pairs):
            found[pairs] = f"From your chats: {counted(count, 'pair')}{what}"
        if count := count_rows(labelled):
            answers = counted(count, "answer")
            found[labelled] = f"From your chats: {answers} you liked or disliked, for KTO{what}"
    return found


def folder_of(data: str) -> Path:
    """Return the folder where one goes on looking: that of the data, else the working one."""
    path = Path(data) if data.startswith("/") else Path.cwd()
    try:
        return path if path.is_dir() else path.parent
    except OSError:
        return Path.cwd()


def is_search(text: str) -> bool:
    """Tell whether a text is words to search for: no path, no Hub id, no file's name.

    >>> is_search("math"), is_search("org/math"), is_search("math.jsonl"), is_search("")
    (True, False, False, False)
    """
    if not text or any(sign in text for sign in "/\\.~:"):
        return False
    try:
        return not Path(text).exists()
    except (OSError, ValueError):  # too long for a name, a NUL
        return True


def reading_text(data: str, seconds: float, progress: str = "") -> str:
    """Return what is said while data are read.

    Args:
        data: what was chosen.
        seconds: since then.
        progress: what the check told last.
    """
    is_here = data.startswith("/")
    doing = "Reading the pairs ..." if is_here else "Downloading from the Hub what is not here ..."
    told = f"{seconds:.0f} s" if seconds < 10 else format_duration(seconds)
    since = f" {told}" if seconds >= _PATIENT_SECONDS else ""
    progress = visible(progress)
    lines = [(progress[:1].upper() + progress[1:] or doing) + since]
    if seconds >= _LONG_SECONDS or not is_here:
        lines += ["To stop it, choose other data, or empty the field above and press enter."]
    return "\n".join(line for line in lines if line)

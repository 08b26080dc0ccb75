"""What must not be seen: access tokens of the Hub anywhere, places and names in what is sent away.

A server may send back what it was sent. So what the text is, and where it comes from, makes no
difference: every gate (terminal, widgets, pages, events, logs) masks the tokens of this machine.
"""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import platform
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

_NAMES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")
_SHORTEST = 8
"""Tokens have 37 characters; masking a short word would garble other text."""
_MOST_BYTES = 4096


def redacted(text: str) -> str:
    """Return the text with each access token of this machine as asterisks, as many as it has."""
    for token in _tokens():
        if token in text:
            text = text.replace(token, "*" * len(token))
    return text


_PART = r"[^\s'\"`,;:()\[\]{}<>|]"
_TAIL = rf"{_PART}*(?: {_PART}+/{_PART}*)*"
"""The rest of a path; a folder with a space in its name is followed by a slash."""
_PATH = re.compile(rf"(?<![\w./:<>~-])(?:[A-Za-z]:[\\/]|(?:~[\w.-]*)?/){_PART}{_TAIL}")
"""An absolute path, or one in a home folder; a web address has a colon before its slashes."""
_QUOTED = re.compile(r"(['\"`])(?:~[\w.-]*)?/[^'\"`\n]+\1")


def without_places(text: str) -> str:
    """Return text that can be sent to strangers: no token, path, user name or host name.

    Other text is left as it is, unless a word of it is the name of the user or of the host.
    """
    text = _QUOTED.sub(r"\1<path>\1", redacted(text))
    for place in _own_places():  # they may have spaces themselves
        text = re.sub(re.escape(place) + _TAIL, "<path>", text)
    text = _PATH.sub("<path>", text)
    for name, mask in _own_names():
        text = re.sub(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", mask, text, flags=re.I)
    return text


def _own_places() -> list[str]:
    """Return the folders of this user and program as they may stand in a message, longest first."""
    places = {Path.home(), Path.cwd(), Path(tempfile.gettempdir()), Path(sys.prefix)}
    places |= {Path(__file__).parents[2]}
    found = {str(one) for place in places for one in (place, place.resolve())}
    return sorted(found - {"/"}, key=len, reverse=True)


def _own_names() -> Iterator[tuple[str, str]]:
    """Yield names of the user and of the host, each with what stands in its place."""
    users = {Path.home().name, os.environ.get("USER", ""), os.environ.get("LOGNAME", "")}
    with contextlib.suppress(OSError, KeyError):  # a user without a name
        users.add(getpass.getuser())
    host = platform.node()
    for name in sorted(users, key=len, reverse=True):
        if len(name) > 1:
            yield name, "<user>"
    for name in (host, host.split(".")[0]):
        if len(name) > 1 and name != "localhost":
            yield name, "<host>"


def redact_logs() -> None:
    """Let no warning and no record of any logger, the Hub client's included, hold a token."""
    make = logging.getLogRecordFactory()
    if getattr(make, "is_redacting", False):
        return

    def make_redacted(*args: object, **named: object) -> logging.LogRecord:
        record = make(*args, **named)
        text = record.getMessage()
        if (clean := redacted(text)) != text:
            record.msg, record.args = clean, None
        return record

    make_redacted.is_redacting = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make_redacted)
    format_warning = warnings.formatwarning
    warnings.formatwarning = lambda *args, **named: redacted(format_warning(*args, **named))


def _tokens() -> Iterator[str]:
    found = {os.environ.get(name, "").strip() for name in _NAMES} | set(_filed_tokens())
    yield from sorted((token for token in found if len(token) >= _SHORTEST), key=len, reverse=True)


def _filed_tokens() -> Iterator[str]:
    """Yield what `hf auth login` has saved: the token in use, and all others by name."""
    home = os.environ.get("HF_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "huggingface"
    )
    for name, file in (("HF_TOKEN_PATH", "token"), ("HF_STORED_TOKENS_PATH", "stored_tokens")):
        path = os.path.expanduser(os.environ.get(name) or os.path.join(home, file))
        try:
            state = os.stat(path)
        except (OSError, ValueError):
            continue
        yield from _read(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=8)
def _read(path: str, _changed: int, size: int) -> tuple[str, ...]:
    """Return the words of a token file; of a saved list ("hf_token = ...") the values."""
    if not Path(path).is_file() or size > _MOST_BYTES:
        return ()
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    return tuple(line.rpartition("=")[2].strip() for line in lines if not line.startswith("["))

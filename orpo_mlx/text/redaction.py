"""The access tokens of the Hub, kept out of everything that is shown or logged.

A server may send back what it was sent. So what the text is, and where it comes from, makes no
difference: every gate (terminal, widgets, pages, events, logs) masks the tokens of this machine.
"""

from __future__ import annotations

import logging
import os
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

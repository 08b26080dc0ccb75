"""What tests against the stand-in of the Hub share."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

TOKEN = "hf_canary0123456789abcdefghijklmnopqrs"

REFUSALS = [
    ("gated", "this {kind} is gated", "Visit {url}"),
    ("bad_token", "refused the access token (401)", "hf auth login"),
    ("forbidden", "may not read this {kind} (403)", "read access"),
    ("rate_limited", "too many requests (429)", "Wait a few minutes"),
    ("broken", "a fault of its own (500)", "Try again later"),
    ("unavailable", "a fault of its own (503)", "Try again later"),
]
"""(fault of the stand-in, what is said, what is advised)."""


def point_client(server: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the real client of this process at the stand-in, with an own cache and a token."""
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def client_environment(server: Any, home: Path) -> dict[str, str]:
    """Return the environment that does the same to a client in another process."""
    return {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(home),
        "HF_TOKEN": TOKEN,
        "HF_HUB_OFFLINE": "0",
    }


def go_offline(monkeypatch: pytest.MonkeyPatch, how: str = "offline switch") -> None:
    """Let nothing answer at the Hub's address, or say that the Hub shall not be asked."""
    if how == "offline switch":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        monkeypatch.setattr(constants, "ENDPOINT", closed_port())


def closed_port() -> str:
    """Return an address at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"

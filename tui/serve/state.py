"""What is known of a server: its address, its models, what it was asked; pure."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

from orpo_mlx.text.formatting import counted, format_duration, visible
from orpo_mlx.text.progress import progress_text
from tui.shell.lines import TextLine

Phase = Literal["off", "starting", "ready", "failed"]

_MOST_LINES = 500


@dataclass
class ServeState:
    """Built from the messages of `orpo-mlx serve --json`; see `serving/http_server.py` for them.

    Attributes:
        phase: where it is.
        progress: what is done before it answers, in words.
        failed: what went wrong, "" if nothing did.
        url: its address.
        models: the names it answers to.
        base: which of them is the base.
        curl: a command that asks it something.
        notes: what it said at its start.
        requests: how many it has answered or refused.
        lines: what it was asked, the newest last.
    """

    phase: Phase = "off"
    progress: str = ""
    failed: str = ""
    url: str = ""
    models: list[str] = field(default_factory=list)
    base: str = ""
    curl: str = ""
    notes: list[str] = field(default_factory=list)
    requests: int = 0
    lines: deque[TextLine] = field(default_factory=lambda: deque(maxlen=_MOST_LINES))

    @property
    def is_on(self) -> bool:
        """Whether there is a server, if only one that is starting."""
        return self.phase in ("starting", "ready")

    def take_progress(self, event: dict[str, Any]) -> None:
        """Take how far a download is."""
        self.progress = progress_text(
            event["done"], event["total"], event["label"], event["unit"], event.get("seconds", 0.0)
        )

    def apply(self, message: dict[str, Any], now: float) -> None:
        """Take one message in; unknown ones change nothing.

        Args:
            message: what the server printed.
            now: Unix seconds.
        """
        clock = time.strftime("%H:%M:%S", time.localtime(now))
        match message.get("event"):
            case "ready" if self.is_on:
                self.phase = "ready"
                self.url, self.curl = message["url"], message["curl"]
                self.models, self.base = message["models"], message["base"]
                self.notes = message["notes"]
            case "request":
                self.requests += 1
                self.lines.append(_request_line(message, clock))
            case "note":
                self.lines.append((("quiet", f"{clock}  "), ("text", visible(message["text"]))))
            case "failed":
                self.fail(f"{message['message']}\n{message['what_to_do']}")

    def stop(self) -> None:
        """Note that it is to end."""
        if self.is_on:
            self.phase = "off"

    def end(self, complaint: str) -> None:
        """Note that the server has ended, which is a failure unless it was to."""
        if self.is_on:
            self.fail(complaint)

    def fail(self, text: str) -> None:
        """Note why there is no server."""
        self.phase, self.failed = "failed", text

    # In words

    def facts(self) -> str:
        """Return the address and how one asks, or what stands in their place."""
        if self.phase == "failed":
            return visible(self.failed)
        if self.phase == "starting":
            return self.progress or "Loading base and adapters ..."
        if self.phase == "off":
            return "No server runs."
        names = [f"{name} (the base)" if name == self.base else name for name in self.models]
        rows = [("Address", self.url), ("Models", names[0]), *(("", name) for name in names[1:]),
                ("Ask", self.curl), *(("Note", note) for note in self.notes)]  # fmt: skip
        return "\n".join(f"{label:<9}{visible(text)}" for label, text in rows)

    def status(self) -> str:
        """Return the line below: what it was asked, and what ends it."""
        if self.phase == "ready":
            asked = counted(self.requests, "question") if self.requests else "Not asked yet"
            return f"{asked}. It goes on when you leave this screen, and ends with the app."
        return ""

    def sentence(self) -> str:
        """Return what is shown, in one sentence."""
        if self.phase != "ready":
            return f"Serve: {' '.join(self.facts().split())}"
        names = ", ".join(map(visible, self.models))
        return f"Serving {names} at {self.url}. {self.status()}"


def _request_line(message: dict[str, Any], clock: str) -> TextLine:
    status = message["status"]
    kind = "text" if status == 200 else "bad"
    what = message["model"] or message["path"]
    seconds = format_duration(message["seconds"])
    return (
        ("quiet", f"{clock}  "),
        (kind, f"{status}  "),
        ("text", f"{visible(what)}  "),
        ("quiet", seconds),
    )

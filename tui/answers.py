"""Answers of commands that print one JSON value: asked one at a time, kept by their question.

Changing a field asks again; only the last question of a burst is asked, and a question that is no
longer of interest ends with its child process.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tui.children import ChildFailed, JsonLinesChild

_MOST_KEPT = 200


class Answers:
    """Asks one command.

    Args:
        program: words behind `python` that name the command.
        delay_seconds: how long a question must stand before it is asked.

    Attributes:
        kept: answers by question; a `ChildFailed` is an answer, too.
    """

    def __init__(self, program: Sequence[str], delay_seconds: float = 0.4) -> None:
        self.program = list(program)
        self.delay_seconds = delay_seconds
        self.kept: dict[tuple[str, ...], Mapping[str, Any] | ChildFailed] = {}
        self._turn = asyncio.Lock()

    def known(self, words: Sequence[str]) -> Mapping[str, Any] | None:
        """Return the answer if there is one already."""
        found = self.kept.get(tuple(words))
        return None if isinstance(found, ChildFailed) else found

    def kept_for(self, words: Sequence[str]) -> Mapping[str, Any] | ChildFailed | None:
        """Return the answer, or why there is none; None if it was not asked for yet."""
        return self.kept.get(tuple(words))

    def forget_failures(self) -> None:
        """Ask again what had no answer: the network may be back."""
        failed = [key for key, found in self.kept.items() if isinstance(found, ChildFailed)]
        for key in failed:
            del self.kept[key]

    async def ask(
        self, words: Sequence[str], on_error_line: Callable[[str], None] | None = None
    ) -> Mapping[str, Any]:
        """Return the answer; cancelling this ends the child.

        Args:
            words: of the question.
            on_error_line: told each line the command writes to stderr; its progress is there.

        Raises:
            ChildFailed: the command had none; the text says why.
        """
        key = tuple(words)
        if key not in self.kept:
            await asyncio.sleep(self.delay_seconds)
            async with self._turn:
                found = await ask_json([*self.program, *words], on_error_line)
            if len(self.kept) >= _MOST_KEPT:
                self.kept.clear()
            self.kept[key] = found
        found = self.kept[key]
        if isinstance(found, ChildFailed):
            raise found
        return found

    def forget(self, words: Sequence[str]) -> None:
        """Ask this question again the next time."""
        self.kept.pop(tuple(words), None)


async def ask_json(
    words: Sequence[str], on_error_line: Callable[[str], None] | None = None
) -> Mapping[str, Any] | ChildFailed:
    """Run `python words...` and return the JSON object it prints, or why there is none."""
    async with JsonLinesChild(words, on_error_line=on_error_line) as child:
        printed = [line async for line in child.lines()]
    try:
        found = json.loads("\n".join(printed))
    except ValueError:
        reason = _reason(child.complaint)
        return ChildFailed(reason or f"The command ended with code {child.exit_code}.")
    return found if isinstance(found, dict) else ChildFailed("The command gave no object.")


def _reason(text: str) -> str:
    """Return what a command wrote to stderr from its `error:` on, without that word."""
    _, found, rest = text.rpartition("error: ")
    return rest if found else "\n".join(text.split("\n")[-3:])

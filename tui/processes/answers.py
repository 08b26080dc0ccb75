"""Answers of commands that print one JSON value: asked one at a time, kept by their question.

Changing a field asks again; only the last question of a burst is asked, and a question that is no
longer of interest ends with its child process.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orpo_mlx.text.formatting import visible
from tui.processes.children import ChildFailed, JsonLinesChild

OnEvent = Callable[[dict[str, Any]], None]

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
        self, words: Sequence[str], on_progress: OnEvent | None = None
    ) -> Mapping[str, Any]:
        """Return the answer; cancelling this ends the child.

        Args:
            words: of the question.
            on_progress: told each progress event of the command.

        Raises:
            ChildFailed: the command had none; the text says why.
        """
        key = tuple(words)
        if key not in self.kept:
            await asyncio.sleep(self.delay_seconds)
            async with self._turn:
                found = await ask_json([*self.program, *words], on_progress)
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
    words: Sequence[str], on_progress: OnEvent | None = None
) -> Mapping[str, Any] | ChildFailed:
    """Run `python words...` and return the JSON object it prints, or why there is none."""
    async with JsonLinesChild(words, on_progress=on_progress) as child:
        printed = [line async for line in child.lines()]
    try:
        found = json.loads("\n".join(printed))
    except ValueError:
        said = "\n".join(child.complaint.split("\n")[-3:])
        return ChildFailed(said or f"The command ended with code {child.exit_code}.")
    if not isinstance(found, dict):
        return ChildFailed("The command gave no object.")
    if found.get("event") == "failed":
        return ChildFailed(visible(f"{found['message']}\n{found['what_to_do']}").rstrip())
    return found

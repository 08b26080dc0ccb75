"""Prompts of a file asked of base and checkpoints, their answers side by side."""

from __future__ import annotations

import json
from typing import Any

from orpo_mlx.chat.prompt_set import answers_by_side, prompt_title, read_saved_prompts
from orpo_mlx.cli.chat.request import SAVED, ChatRequest
from orpo_mlx.cli.progress import ProgressLine
from orpo_mlx.cli.terminal import print_text, terminal_width
from orpo_mlx.data.prompts import WrittenPrompt, read_prompt_file
from orpo_mlx.errors import DataError
from orpo_mlx.text.formatting import excerpt, visible


def ask_prompts(command: ChatRequest) -> int:
    """Ask, print, and return the exit code 0."""
    prompts = _read(command.ask or SAVED)
    from orpo_mlx.serving.place import open_playground
    from orpo_mlx.serving.prompt_answers import ask_each

    progress = ProgressLine(command.as_json)
    try:
        place = open_playground(command.given)
        wanted = list(place.checkpoints) if command.all_checkpoints else [place.current]
        names = [name for name in wanted if name]
        for prompt in prompts if command.system else ():
            if prompt.turns[0]["role"] != "system":
                prompt.turns.insert(0, {"role": "system", "content": command.system})
        answers = ask_each(place, prompts, names, command.drawing.max_tokens, progress)
    finally:
        progress.close()
    content = {
        "model": place.name,
        "run": command.given.get("run"),
        "max_tokens": command.drawing.max_tokens,
        "sides": ["base", *names],
        "prompts": [
            {
                "prompt": prompt.text,
                "turns": prompt.turns,
                "source": prompt.source,
                "answers": given,
            }
            for prompt, given in zip(prompts, answers, strict=True)
        ],
    }
    if command.as_json:
        return print_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return print_text("\n".join(_lines(content)) + "\n")


def _read(name: str) -> list[WrittenPrompt]:
    """Read the prompts.

    Raises:
        DataError: there are none, or they cannot be read.
    """
    if name == SAVED:
        return read_saved_prompts()
    prompts = read_prompt_file(name, "--ask")
    if not prompts:
        raise DataError(f"--ask {name}: holds no prompt.", "Write one a line.")
    return prompts


def _lines(content: dict[str, Any]) -> list[str]:
    """Return what is printed for people."""
    prompts, width = content["prompts"], terminal_width()
    lines: list[str] = []
    for number, asked in enumerate(prompts, start=1):
        lines.append(visible(prompt_title(asked["turns"], number, len(prompts))))
        for label, text in answers_by_side(asked["answers"]).items():
            lines += excerpt(label, text, width, 1000, keep_end=False)
        lines.append("")
    return lines[:-1]

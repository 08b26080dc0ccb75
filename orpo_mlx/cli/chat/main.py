"""`orpo-mlx chat`: talk with a model, or ask it prompts."""

from __future__ import annotations

from collections.abc import Sequence

from orpo_mlx.cli.chat.request import ChatRequest, parse_chat
from orpo_mlx.cli.progress import failures_as_json


def main(argv: Sequence[str]) -> int:
    """Run `orpo-mlx chat`; 0, or 2 if a line of a pipe was refused."""
    with failures_as_json("--json" in argv):
        command = parse_chat(argv)
        return _ask(command) if command.ask is not None else _talk(command)


def _talk(command: ChatRequest) -> int:
    from orpo_mlx.cli.chat.terminal import TerminalChat
    from orpo_mlx.serving.place import open_playground

    return TerminalChat(open_playground(command.given), command).run()


def _ask(command: ChatRequest) -> int:
    from orpo_mlx.cli.chat.asking import ask_prompts

    return ask_prompts(command)

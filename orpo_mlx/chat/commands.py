"""The commands of a chat: lines that begin with a slash."""

from __future__ import annotations

import re
from dataclasses import dataclass

from orpo_mlx.errors import ConfigError
from orpo_mlx.text.spelling import did_you_mean


@dataclass(frozen=True)
class ChatCommand:
    """One command.

    Attributes:
        name: without its slash.
        needs: what follows it, in words; "" for nothing.
        help: one line.
    """

    name: str
    needs: str
    help: str


COMMANDS = {
    command.name: command
    for command in (
        ChatCommand("help", "", "this list"),
        ChatCommand("base", "", "the base model answers alone"),
        ChatCommand("adapter", "", "the adapter answers alone"),
        ChatCommand("both", "", "both answer, base left, adapter right"),
        ChatCommand("checkpoint", "NAME", "another checkpoint answers: a step, or final"),
        ChatCommand("system", "[TEXT]", "set the system prompt; alone: remove it"),
        ChatCommand("temperature", "X", "0 = always the likeliest token"),
        ChatCommand("seed", "N", "other answers, if the temperature is above 0"),
        ChatCommand("max-tokens", "N", "longest answer"),
        ChatCommand("edit", "[#N] TEXT", "say the last turn, or turn N, in other words"),
        ChatCommand("retry", "", "answer again, with the next seed"),
        ChatCommand("like", "", "the answer is good; again: take that back"),
        ChatCommand("dislike", "", "the answer is bad; again: take that back"),
        ChatCommand("better", "left|right", "which of both is; again: take that back"),
        ChatCommand("correct", "[TEXT]", "how the answer should be; alone: take that back"),
        ChatCommand("keep", "", "add the last prompt to the saved prompts"),
        ChatCommand("ask", "", "ask the saved prompts of base and each checkpoint, greedily"),
        ChatCommand("save", "FILE", "write the conversation as .md or .json"),
        ChatCommand("new", "", "begin a new conversation"),
        ChatCommand("quit", "", "leave"),
    )
}


def help_text() -> str:
    """Return all commands with what they do."""
    rows = [(f"/{c.name} {c.needs}".strip(), c.help) for c in COMMANDS.values()]
    width = max(len(usage) for usage, _ in rows)
    lines = [f"{usage:<{width}}  {help}" for usage, help in rows]
    return "\n".join([*lines, "A turn that begins with / is written with two: //etc"])


def edited_turn(line: str) -> int | None:
    """Return the number of the turn that a line says again, None if it names none.

    >>> edited_turn("/edit #2 So?"), edited_turn("/edit So?"), edited_turn("#2")
    (2, None, None)
    """
    found = re.match(r"/edit\s+#(\d{1,6})(?:\s|$)", line)
    return int(found[1]) if found else None


def read_command(line: str) -> tuple[str, str] | None:
    """Return a command's name and what follows it, None for a turn.

    Raises:
        ConfigError: there is no such command, or it lacks what it needs, or has too much.
    """
    if not line.startswith("/") or line.startswith("//"):
        return None
    name, _, rest = line[1:].partition(" ")
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS)
        raise ConfigError(
            f"/{name}: there is no such command{hint}",
            "/help lists them; a turn that begins with / is written with two.",
        )
    command = COMMANDS[name]
    rest = rest.strip()
    if rest and not command.needs:
        raise ConfigError(f"/{name}: takes nothing, found {rest[:40]!r}.", f"Write /{name} alone.")
    if not rest and command.needs and not command.needs.startswith("["):
        raise ConfigError(
            f"/{name}: needs {command.needs}; {command.help}.", f"Write /{name} {command.needs}."
        )
    return name, rest

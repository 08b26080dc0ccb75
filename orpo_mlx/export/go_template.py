"""Go's template language, as much of it as is written here, rendered as Ollama renders it.

For the check of a written template: text, if, range, define, template, variables, and the functions
eq, ne, and, not, len, slice and printf. https://pkg.go.dev/text/template
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Messages = list[dict[str, str]]
_ACTION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|[()]|:=|=|,|[^\s(),=:]+')


class GoTemplateError(ValueError):
    """A template is not in the part of the language that is known here."""


@dataclass
class _Node:
    """An action with what stands inside it; `kind` "text" holds text."""

    kind: str
    words: list[str] = field(default_factory=list)
    text: str = ""
    inner: list[_Node] = field(default_factory=list)
    otherwise: list[_Node] = field(default_factory=list)


def render_chat(template: str, messages: Messages) -> str:
    """Return the prompt that Ollama makes of a conversation.

    Args:
        template: of a Modelfile.
        messages: each with role and content.

    Raises:
        GoTemplateError: the template holds what is not known here.
    """
    system = "\n\n".join(one["content"] for one in messages if one["role"] == "system")
    root, _ = _parse(_split(template), ())
    run = _Run({node.words[1]: node for node in root if node.kind == "define"})
    data = {"System": system, "Messages": [_Message(m["role"], m["content"]) for m in messages]}
    return run.nodes(root, data, {"$": data})


@dataclass(frozen=True)
class _Message:
    Role: str
    Content: str


# Reading


def _split(template: str) -> Iterator[_Node]:
    at = 0
    for found in _ACTION.finditer(template):
        yield _Node("text", text=template[at : found.start()])
        words = _TOKEN.findall(found[1])
        keyword = words[0] if words and words[0] in _KEYWORDS else "print"
        yield _Node(keyword, words)
        at = found.end()
    yield _Node("text", text=template[at:])


_KEYWORDS = ("if", "else", "end", "range", "define", "template")


def _parse(nodes: Iterator[_Node], ends: tuple[str, ...]) -> tuple[list[_Node], _Node | None]:
    """Read nodes up to one of `ends`; returns them and what ended them."""
    found = []
    for node in nodes:
        if node.kind in ends:
            return found, node
        if node.kind in ("else", "end"):
            raise GoTemplateError(f"{node.kind} belongs to nothing")
        if node.kind in ("if", "range", "define"):
            _read_block(node, nodes)
        found.append(node)
    if ends:
        raise GoTemplateError("an end is missing")
    return found, None


def _read_block(node: _Node, nodes: Iterator[_Node]) -> None:
    node.inner, end = _parse(nodes, ("else", "end"))
    if end is None or end.kind == "end":
        return
    if end.words[1:2] == ["if"]:  # "else if" is an if inside that shares its end
        inner = _Node("if", end.words[1:])
        _read_block(inner, nodes)
        node.otherwise = [inner]
    else:
        node.otherwise, _ = _parse(nodes, ("end",))


# Running


class _Run:
    def __init__(self, defined: dict[str, _Node]) -> None:
        self.defined = defined

    def nodes(self, nodes: list[_Node], dot: Any, names: dict[str, Any]) -> str:
        return "".join(self.node(node, dot, names) for node in nodes)

    def node(self, node: _Node, dot: Any, names: dict[str, Any]) -> str:
        words = node.words
        match node.kind:
            case "text":
                return node.text
            case "if":
                inner = node.inner if self.value(words[1:], dot, names) else node.otherwise
                return self.nodes(inner, dot, names)
            case "range":
                return self.each(node, dot, names)
            case "template":
                argument = self.value(words[2:], dot, names)
                return self.nodes(self.defined[words[1]].inner, argument, {"$": argument})
            case "define":
                return ""
        if words[1:2] in ([":="], ["="]):
            names[words[0]] = self.value(words[2:], dot, names)
            return ""
        return str(self.value(words, dot, names))

    def each(self, node: _Node, dot: Any, names: dict[str, Any]) -> str:
        words, parts = node.words[1:], []
        variables: list[str] = []
        if ":=" in words:
            at = words.index(":=")
            variables, words = [word for word in words[:at] if word != ","], words[at + 1 :]
        for number, item in enumerate(self.value(words, dot, names)):
            for variable, value in zip(variables, (number, item), strict=False):
                names[variable] = value
            parts.append(self.nodes(node.inner, item, names))
        return "".join(parts)

    def value(self, words: list[str], dot: Any, names: dict[str, Any]) -> Any:
        """Return what an expression is: one operand, or a function with operands."""
        operands, rest = [], list(words)
        while rest:
            operands.append(self.operand(rest, dot, names))
        head, *arguments = operands
        return _call(head, arguments) if isinstance(head, _Function) else head

    def operand(self, rest: list[str], dot: Any, names: dict[str, Any]) -> Any:
        word = rest.pop(0)
        if word == "(":
            depth, at = 1, 0
            while depth:
                depth += {"(": 1, ")": -1}.get(rest[at], 0)
                at += 1
            inner, rest[:at] = rest[: at - 1], []
            return self.value(inner, dot, names)
        if word.startswith('"'):
            return json.loads(word)
        if word.isdigit():
            return int(word)
        if word in ("true", "false"):
            return word == "true"
        if word in _FUNCTIONS:
            return _Function(word)
        variable, _, path = word.partition(".")
        found = names[variable] if variable else dot
        for part in filter(None, path.split(".")):
            found = found[part] if isinstance(found, dict) else getattr(found, part)
        return found


@dataclass(frozen=True)
class _Function:
    name: str


_FUNCTIONS = ("eq", "ne", "and", "not", "len", "slice", "printf")


def _call(function: _Function, values: list[Any]) -> Any:
    first, *others = values
    match function.name:
        case "eq":
            return first in others
        case "ne":
            return first != others[0]
        case "and":
            return next((value for value in values if not value), values[-1])
        case "not":
            return not first
        case "len":
            return len(first)
        case "slice":
            return first[slice(*others)] if len(others) > 1 else first[others[0] :]
    return first % tuple(others)

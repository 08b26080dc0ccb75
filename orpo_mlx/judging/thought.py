"""Thoughts that a model writes down before it answers: no judge is to read them."""

from __future__ import annotations

_BEGIN, _END = "<think>", "</think>"


def without_thought(text: str, begins_inside: bool = False) -> str:
    """Return an answer alone; nothing of one that was cut while it thought.

    Args:
        text: what a model wrote.
        begins_inside: the prompt has opened the thought already.

    >>> without_thought("<think>A or B?</think> B"), without_thought("<think>A or")
    ('B', '')
    """
    if _END in text:
        return text.rpartition(_END)[2].strip()
    is_cut = begins_inside or text.lstrip().startswith(_BEGIN)
    return "" if is_cut else text.strip()


def opens_thought(prompt: str) -> bool:
    """Tell whether a prompt as the model reads it ends within a thought."""
    return prompt.rstrip().endswith(_BEGIN)

"""A pair of a dataset as lines: its texts, its tokens with what counts, its raw row; pure."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from rich.cells import cell_len, set_cell_size

from orpo_mlx.text.formatting import counted, visible
from tui.shell.charset import CharsetName
from tui.shell.lines import TextLine

View = Literal["text", "tokens", "raw", "lengths"]
VIEWS: tuple[View, ...] = ("text", "tokens", "raw", "lengths")
SIDES = ("prompt", "chosen", "rejected")
_MOST_CHARACTERS = 20_000


def pair_lines(
    pair: Mapping[str, Any],
    view: View,
    width: int,
    charset: CharsetName = "braille",
    nll_scope: str = "full",
) -> list[TextLine]:
    """Return a pair as lines of at most `width` columns.

    Args:
        pair: as `orpo-mlx data check --json` gives it.
        view: text, tokens or raw.
        width: columns.
        charset: of marks.
        nll_scope: what the NLL counts, which decides what is said of the prompt.
    """
    if view == "raw":
        return list(_raw(pair["raw"], width))
    if view == "tokens":
        return _tokens(pair, width, charset, nll_scope)
    lines: list[TextLine] = []
    if why := pair.get("dropped"):
        lines.append((("bad", f"This row is dropped: {why}."),))
        if not any(pair[side] for side in SIDES):  # it became no pair at all
            return [*lines, *_raw(pair["raw"], width)]
    for side, name in _sides(pair).items():
        lines.append((("kind", name.upper()),))
        lines += [(("text", f"  {line}"),) for line in _wrapped(str(pair[side]), width - 2)]
    return lines


def _sides(pair: Mapping[str, Any]) -> dict[str, str]:
    """Return what the texts of a pair are called; a labelled answer stands in "chosen"."""
    if (label := pair.get("label")) is None:
        return {side: side for side in SIDES}
    return {"prompt": "prompt", "chosen": "good" if label else "bad"}


def _wrapped(text: str, width: int) -> Iterator[str]:
    text = visible(text)
    if len(text) > _MOST_CHARACTERS:
        text = f"{text[:_MOST_CHARACTERS]} ... ({len(text):,} characters)"
    for line in text.split("\n"):
        yield from textwrap.wrap(line, max(10, width), replace_whitespace=False) or [""]


def _raw(row: Any, width: int) -> Iterator[TextLine]:
    text = json.dumps(row, ensure_ascii=False, indent=2)
    for line in text[:_MOST_CHARACTERS].split("\n"):
        indent = " " * min(12, len(line) - len(line.lstrip()) + 2)
        parts = textwrap.wrap(visible(line), max(10, width), subsequent_indent=indent)
        yield from ((("text", part),) for part in parts)


def _tokens(
    pair: Mapping[str, Any], width: int, charset: CharsetName, nll_scope: str
) -> list[TextLine]:
    tokens = pair.get("tokens")
    if not tokens:
        why = pair.get("dropped")
        text = f"This row is dropped: {why}." if why else "Tokens are shown once a model is chosen."
        return [(("quiet", text),)]
    lines: list[TextLine] = []
    for side, name in _sides(pair).items():
        count = counted(len(tokens[side]), "token")
        role = _role(side, nll_scope) if name == side else f"labelled as {name}"
        lines.append((("kind", f"{name.upper()}  {count}: {role}"),))
        lines += token_lines(tokens[side], width, side != "prompt", charset)
    return lines


def _role(side: str, nll_scope: str) -> str:
    if side == "prompt":
        return "masked in the preference term" + (
            ", in the NLL of chosen" if nll_scope == "full" else " and in the NLL"
        )
    return "NLL and preference term" if side == "chosen" else "preference term"


def token_lines(
    tokens: Sequence[Mapping[str, Any]], width: int, counts: bool, charset: CharsetName
) -> list[TextLine]:
    """Return tokens with their edges; masked ones stand behind a shaded edge and are dimmer."""
    edge, shade, newline = ("|", ":", "\\n") if charset == "ascii" else ("│", "▒", "⏎")
    start = "  " if counts else f"{shade} "
    lines: list[TextLine] = []
    row, used = start, cell_len(start)
    for token in tokens:
        text = visible(str(token["text"])).replace("\n", newline) + edge
        if cell_len(text) > width - 2:
            text = set_cell_size(text, width - 3) + edge
        if used + cell_len(text) > width:
            lines.append((("text" if counts else "quiet", row),))
            row, used = start, cell_len(start)
        row += text
        used += cell_len(text)
    return [*lines, (("text" if counts else "quiet", row),)]


def length_lines(
    answer: Mapping[str, Any], width: int, charset: CharsetName = "braille"
) -> list[TextLine]:
    """Return how long the pairs are: percentiles, a histogram, and what each limit would cost."""
    lengths = answer.get("lengths")
    if not lengths:
        return [(("quiet", "Lengths are counted in tokens, so they need a model."),)]
    names = ("p5", "p50", "p90", "p95", "p99", "max")
    lines: list[TextLine] = [
        (("kind", "tokens    " + "".join(f"{name:>8}" for name in names)),),
        *(
            (("text", f"{side:<10}" + "".join(f"{lengths[side][n]:>8,.0f}" for n in names)),)
            for side in (*SIDES, "total")
            if side in lengths
        ),
        (("kind", "prompt + longer answer"),),
    ]
    lines += _histogram(lengths["total"]["histogram"], width, charset)
    lines.append((("kind", "what a limit costs"),))
    for one in answer.get("limits") or []:
        text = f"max_seq_length {one['max_seq_length']:>6,}: {one['cut']:,} prompts cut, "
        lines.append((("text", f"{text}{one['dropped']:,} pairs dropped"),))
    return lines


def _histogram(
    found: Mapping[str, Sequence[float]], width: int, charset: CharsetName
) -> list[TextLine]:
    edges, counts = found["edges"], found["counts"]
    if not counts or not max(counts):
        return []
    room = max(5, width - 24)
    block = "#" if charset == "ascii" else "█"
    lines: list[TextLine] = []
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        filled = block * round(room * count / max(counts))
        lines.append((("quiet", f"{low:>6,.0f}-{high:<6,.0f} "), ("text", f"{filled} {count:,}")))
    return lines

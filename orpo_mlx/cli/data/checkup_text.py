"""A checkup as lines for the terminal, from what `orpo-mlx data check --json` prints.

A line is a list of (text, style); without the styles it still says all: the boundary between prompt
and answer is written as ||, tokens are parted by a dot in the middle, control tokens are spelled.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from orpo_mlx.text.formatting import counted, visible

Line = list[tuple[str, str]]

EDGE = "·"
BOUNDARY = "||"
PARTS = ("prompt", "chosen", "rejected")
PROMPT_TOKENS = 24, 40
"""Tokens shown of the start and the end of a long prompt."""
ANSWER_TOKENS = 60, 20
TEXT = 600, 300
"""Characters shown of long texts where there are no tokens."""
FINDING_ROWS = 3
BAR = 16
_INDENT = 11
_MARKS = {"error": "error  ", "warning": "warning", "info": "note   "}
_STYLES = {"error": "red", "warning": "yellow", "info": "", "good": "green", "warnings": "yellow"}


def checkup_lines(content: dict[str, Any], show: int = 1, width: int = 100) -> Iterator[Line]:
    """Yield the lines of a checkup.

    Args:
        content: as printed with --json.
        show: pairs shown token by token.
        width: columns there are.
    """
    yield from _head(content)
    for pair in [pair for pair in content["pairs"] if not pair["dropped"]][:show]:
        yield []
        yield from pair_lines(pair, width)
    if content["lengths"]:
        yield []
        yield from _length_lines(content)
    # Reasons for drops stand at the top already.
    findings = [f for f in content["findings"] if not f["code"].startswith("dropped-")]
    if findings:
        yield []
        for finding in findings:
            yield from _finding_lines(finding, width)
    yield []
    verdict = content["verdict"]
    yield [("verdict  ", "bold"), (verdict["text"], _STYLES.get(verdict["level"], "red"))]


def _head(content: dict[str, Any]) -> Iterator[Line]:
    dropped = content["read"] - content["kept"]
    rows = f"{content['read']:,} read = {content['kept']:,} kept + {dropped:,} dropped"
    yield [("data     ", "bold"), (visible(str(content["data"])), "")]
    yield [("layout   ", "bold"), (visible(content["layout"]["name"]), "")]
    if content["model"]:
        yield [("model    ", "bold"), (visible(content["model"]), "")]
    yield [("rows     ", "bold"), (rows, "")]
    advice = {finding["text"]: finding["what_to_do"] for finding in content["findings"]}
    for reason, found in sorted(content["dropped"].items(), key=lambda item: -item[1]["count"]):
        yield _reason_line("dropped", reason, found)
        if told := advice.get(f"dropped: {reason}"):
            yield [(" " * 14 + visible(told), "dim")]
    for reason, found in sorted(content["notes"].items(), key=lambda item: -item[1]["count"]):
        yield _reason_line("kept", reason, found)
    if content["split"]:
        train, valid = content["split"]["train"], content["split"]["valid"]
        yield [("split    ", "bold"), (f"{train:,} for training, {valid:,} for validation", "")]


def _reason_line(verb: str, reason: str, found: dict[str, Any]) -> Line:
    rows = found["rows"][:FINDING_ROWS]
    more = ", ..." if found["count"] > len(rows) else ""
    where = f"  ({', '.join(rows)}{more})" if rows else ""
    return [(f"{found['count']:>13,} {verb}: {visible(reason)}", ""), (visible(where), "dim")]


# Pairs


def pair_lines(pair: dict[str, Any], width: int = 100) -> Iterator[Line]:
    """Yield a pair: the prompt, which is not learned, and both answers, which are."""
    yield [("pair     ", "bold"), (visible(pair["where"]), "")]
    names = part_names(pair)
    if pair["tokens"] is None:
        for part, name in names.items():
            yield from _wrapped(name, [(visible(_shortened(pair[part])), "")], width)
        return
    tokens = pair["tokens"]
    yield from _token_lines("prompt", tokens["prompt"], PROMPT_TOKENS, "dim", width)
    count = counted(len(tokens["prompt"]), "token")
    yield [(f"{'':{_INDENT}}{count}, not learned; answers begin at {BOUNDARY}", "dim")]
    for part, name in list(names.items())[1:]:
        yield from _token_lines(name, tokens[part], ANSWER_TOKENS, "bold", width)
        yield [(f"{'':{_INDENT}}{counted(len(tokens[part]), 'token')}, learned", "dim")]


def part_names(pair: dict[str, Any]) -> dict[str, str]:
    """Return what the texts of a pair are called; a labelled answer stands in "chosen"."""
    if (label := pair.get("label")) is None:
        return {part: part for part in PARTS}
    return {"prompt": "prompt", "chosen": "good" if label else "bad"}


def _shortened(text: str) -> str:
    first, last = TEXT
    left_out = len(text) - first - last
    if left_out <= 0:
        return text
    return f"{text[:first]} ... {left_out:,} more characters ... {text[-last:]}"


def _token_lines(
    part: str, tokens: Sequence[dict[str, Any]], ends: tuple[int, int], style: str, width: int
) -> Iterator[Line]:
    first, last = ends
    left_out = len(tokens) - first - last
    if left_out > 0:
        texts = [_written(t) for t in tokens[:first]]
        texts += [f" ... {left_out:,} more tokens ... "]
        texts += [_written(t) for t in tokens[-last:]]
    else:
        texts = [_written(t) for t in tokens]
    is_special = {_written(t) for t in tokens if t["special"]}
    pieces = [
        (text + (EDGE if i + 1 < len(texts) else ""), _token_style(text in is_special, style))
        for i, text in enumerate(texts)
    ]
    if part == "prompt":
        pieces.append((BOUNDARY, "bold"))
    else:
        pieces.insert(0, (BOUNDARY, "bold"))
    yield from _wrapped(part, pieces, width)


def _token_style(is_special: bool, style: str) -> str:
    if not is_special:
        return style
    return "dim cyan" if style == "dim" else "bold cyan"


def _written(token: dict[str, Any]) -> str:
    return visible(token["text"].replace("\n", "↵").replace("\t", "→"))


def _wrapped(name: str, pieces: Sequence[tuple[str, str]], width: int) -> Iterator[Line]:
    """Yield lines that are filled up with pieces; a piece longer than a line is cut in several."""
    room = max(20, width - _INDENT)
    line: Line = [(f"{name:<{_INDENT}}", "bold")]
    used = 0
    for text, style in pieces:
        for part in _cut(text, room):
            if used + len(part) > room or part == "\n":
                yield line
                line, used = [(" " * _INDENT, "")], 0
            if part != "\n":
                line.append((part, style))
                used += len(part)
    yield line


def _cut(text: str, room: int) -> Iterator[str]:
    for number, line in enumerate(text.split("\n")):
        if number:
            yield "\n"
        yield from (line[i : i + room] for i in range(0, len(line), room))


# Lengths


def _length_lines(content: dict[str, Any]) -> Iterator[Line]:
    lengths = content["lengths"]
    names = ("p5", "p50", "p90", "p95", "p99", "max")
    yield [("tokens   ", "bold"), ("".join(f"{name:>8}" for name in (*names, "mean")), "dim")]
    for part, found in lengths.items():
        numbers = "".join(f"{found[name]:>8,}" for name in names) + f"{found['mean']:>8,.0f}"
        yield [(f"{part:<9}", ""), (numbers, "")]
    yield []
    for row in _histograms({part: lengths[part] for part in PARTS if part in lengths}):
        yield [(row, "")]
    if content["limits"]:
        yield []
        yield [("limits   ", "bold"), ("--max-seq-length  prompts cut  pairs dropped", "dim")]
        for row in content["limits"]:
            used = "  (in use)" if row["max_seq_length"] == content["max_seq_length"] else ""
            numbers = f"{row['max_seq_length']:>16,} {row['cut']:>12,} {row['dropped']:>14,}"
            yield [(" " * 9 + numbers, ""), (used, "bold")]


def _histograms(parts: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield rows of three histograms side by side, in plain ASCII."""
    columns = {name: _bars(found["histogram"]) for name, found in parts.items()}
    width = max(len(bar) for bars in columns.values() for bar in bars)
    yield "  ".join(f"{name + ', tokens and pairs':<{width}}" for name in columns).rstrip()
    height = max(map(len, columns.values()))
    for i in range(height):
        cells = [bars[i] if i < len(bars) else "" for bars in columns.values()]
        yield "  ".join(f"{cell:<{width}}" for cell in cells).rstrip()


def _bars(histogram: dict[str, list[int]]) -> list[str]:
    edges, counts = histogram["edges"], histogram["counts"]
    most = max(counts)
    names = [f"{a:,}-{b - 1:,}" for a, b in itertools.pairwise(edges)]
    width = max(map(len, names))
    return [
        f"{name:>{width}} {'#' * max(1 if n else 0, round(BAR * n / most)):<{BAR}} {n:,}"
        for name, n in zip(names, counts, strict=True)
    ]


# Findings


def _finding_lines(finding: dict[str, Any], width: int) -> Iterator[Line]:
    count = f" ({counted(finding['count'], 'row')})" if finding["count"] else ""
    text = visible(finding["text"] + count)
    room = max(30, width - _INDENT)
    lines = [part for line in text.split("\n") for part in _filled(line, room) or [""]]
    mark = _MARKS[finding["level"]]
    yield [(f"{mark:<{_INDENT}}", _STYLES[finding["level"]]), (lines[0], "")]
    for line in lines[1:]:
        yield [(" " * _INDENT + line, "")]
    if finding["rows"]:
        rows = ", ".join(finding["rows"][:FINDING_ROWS])
        more = ", ..." if finding["count"] > FINDING_ROWS else ""
        yield [(" " * _INDENT + visible(rows) + more, "dim")]
    for line in _filled(visible(finding["what_to_do"]), room):
        yield [(" " * _INDENT + line, "dim")]


def _filled(text: str, room: int) -> list[str]:
    # Flags and paths stay whole, to be copied.
    return textwrap.wrap(text, room, break_on_hyphens=False, break_long_words=False)

"""A checkup as one HTML page: no scripts, nothing fetched, all text escaped."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orpo_mlx.cli.data.checkup_text import part_names
from orpo_mlx.errors import ConfigError, DataError, reason_of
from orpo_mlx.storage.atomic import write_atomically
from orpo_mlx.text.formatting import counted, visible
from orpo_mlx.version import __version__

MARK = "<!-- orpo-mlx data check -->"
PAIRS = 40
_BAR_WIDTH, _BAR_HEIGHT = 24, 120


def require_place(path: Path) -> None:
    """Check, before the work, that a report can be written.

    Raises:
        ConfigError: there is no such folder, or a file there is something else than a report.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(
            f"--report {path}: not a place for a file.", "Give a name like check.html."
        )
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"--report {path}: the folder cannot be written.", "Give another place.")
    if path.exists() and not _is_report(path):
        raise ConfigError(
            f"--report {path}: there is a file already, and it is no report; nothing was written.",
            "Give another name, such as check.html.",
        )


def _is_report(path: Path) -> bool:
    try:
        if not path.is_file():  # reading a pipe would wait for ever
            return False
        with path.open("rb") as stream:
            return MARK.encode() in stream.read(200)
    except OSError:
        return False


def write_report(path: Path, content: dict[str, Any]) -> None:
    """Write the page.

    Args:
        path: replaces an earlier report.
        content: as printed with --json.

    Raises:
        DataError: it cannot be written.
    """
    try:
        write_atomically(path, page(content).encode("utf-8", "replace"))
    except OSError as error:
        raise DataError(
            f"--report {path}: cannot be written: {reason_of(error)}.", "Give another place."
        ) from error


def page(content: dict[str, Any]) -> str:
    """Return the page as text."""
    parts = [
        f"<h1>{_safe(content['data'])}</h1>",
        _verdict(content),
        _facts(content),
        _findings(content["findings"]),
        _lengths(content),
        _pairs(content["pairs"]),
    ]
    return _PAGE.format(
        mark=MARK, title=_safe(content["data"]), style=_STYLE, body="\n".join(parts),
        version=_safe(__version__),
    )  # fmt: skip


def _safe(text: object) -> str:
    """Return text that is neither markup nor an invisible character."""
    return html.escape(visible(str(text)), quote=True)


def _verdict(content: dict[str, Any]) -> str:
    verdict = content["verdict"]
    return f'<p class="verdict {_safe(verdict["level"])}">{_safe(verdict["text"])}</p>'


def _facts(content: dict[str, Any]) -> str:
    dropped = content["read"] - content["kept"]
    facts = {
        "Model": content["model"] or "none given: no token numbers",
        "Layout": content["layout"]["name"],
        "Rows": f"{content['read']:,} read = {content['kept']:,} kept + {dropped:,} dropped",
        "Longest pair allowed": f"{content['max_seq_length']:,} tokens",
    }
    if content["split"]:
        facts["Split"] = "{train:,} for training, {valid:,} for validation".format(
            **content["split"]
        )
    rows = "".join(f"<tr><th>{_safe(k)}</th><td>{_safe(v)}</td></tr>" for k, v in facts.items())
    return f"<table>{rows}</table>{_reasons(content)}"


def _reasons(content: dict[str, Any]) -> str:
    rows = [
        f"<tr><td>{found['count']:,}</td><td>{_safe(verb)}: {_safe(reason)}</td>"
        f'<td class="where">{_safe(", ".join(found["rows"]))}</td></tr>'
        for verb, key in (("dropped", "dropped"), ("kept", "notes"))
        for reason, found in content[key].items()
    ]
    if not rows:
        return ""
    return f"<h2>Where rows went</h2><table>{''.join(rows)}</table>"


def _findings(findings: list[dict[str, Any]]) -> str:
    items = []
    for finding in findings:
        count = f" ({counted(finding['count'], 'row')})" if finding["count"] else ""
        where = f'<div class="where">{_safe(", ".join(finding["rows"]))}</div>'
        items.append(
            f'<li class="{_safe(finding["level"])}"><b>{_safe(finding["level"])}</b> '
            f"{_safe(finding['text'])}{count}"
            f'<div class="do">{_safe(finding["what_to_do"])}</div>'
            f"{where if finding['rows'] else ''}</li>"
        )
    return f"<h2>Findings</h2><ul>{''.join(items) or '<li>none</li>'}</ul>"


def _lengths(content: dict[str, Any]) -> str:
    if not content["lengths"]:
        return ""
    names = ("p5", "p50", "p90", "p95", "p99", "max")
    head = "".join(f"<th>{name}</th>" for name in ("", *names, "mean"))
    rows = "".join(
        f"<tr><th>{_safe(part)}</th>"
        + "".join(f"<td>{found[name]:,}</td>" for name in names)
        + f"<td>{found['mean']:,.1f}</td></tr>"
        for part, found in content["lengths"].items()
    )
    charts = "".join(
        f"<figure><figcaption>{_safe(part)}: pairs by tokens</figcaption>"
        f"{histogram_svg(found['histogram'])}</figure>"
        for part, found in content["lengths"].items()
    )
    limits = "".join(
        f"<tr><td>{row['max_seq_length']:,}</td><td>{row['cut']:,}</td><td>{row['dropped']:,}</td>"
        f"<td>{'in use' if row['max_seq_length'] == content['max_seq_length'] else ''}</td></tr>"
        for row in content["limits"] or []
    )
    return (
        f"<h2>Lengths in tokens</h2><table><tr>{head}</tr>{rows}</table>"
        f'<div class="charts">{charts}</div>'
        "<h2>What a limit would do</h2><table><tr><th>--max-seq-length</th><th>prompts cut</th>"
        f"<th>pairs dropped</th><th></th></tr>{limits}</table>"
    )


def histogram_svg(histogram: dict[str, list[int]]) -> str:
    """Return a histogram as a drawing inside the page."""
    edges, counts = histogram["edges"], histogram["counts"]
    most = max(counts)
    width = _BAR_WIDTH * len(counts)
    bars = []
    for i, count in enumerate(counts):
        height = _BAR_HEIGHT * count / most
        bars.append(
            f'<rect x="{i * _BAR_WIDTH + 1}" y="{_BAR_HEIGHT - height:.1f}" '
            f'width="{_BAR_WIDTH - 2}" height="{height:.1f}">'
            f"<title>{edges[i]:,} to {edges[i + 1] - 1:,} tokens: {count:,} pairs</title></rect>"
        )
    last = f'<text x="{width}" y="{_BAR_HEIGHT + 14}" text-anchor="end">{edges[-1] - 1:,}</text>'
    return (
        f'<svg viewBox="0 0 {width} {_BAR_HEIGHT + 18}" width="{width}" '
        f'height="{_BAR_HEIGHT + 18}" role="img">{"".join(bars)}'
        f'<text x="0" y="{_BAR_HEIGHT + 14}">{edges[0]:,}</text>{last}</svg>'
    )


def _pairs(pairs: list[dict[str, Any]]) -> str:
    shown = "".join(_pair(pair) for pair in pairs[:PAIRS])
    legend = (
        '<p>Grey is the prompt, which is not learned. <b class="learned">Bold</b> is learned. Each '
        'box is a token, <span class="special">control tokens</span> are coloured.</p>'
    )
    return f"<h2>Pairs</h2>{legend}{shown}"


def _pair(pair: dict[str, Any]) -> str:
    dropped = f" (dropped: {_safe(pair['dropped'])})" if pair["dropped"] else ""
    body = "".join(_text_parts(pair) if pair["tokens"] is None else _token_parts(pair))
    return f"<section><h3>{_safe(pair['where'])}{dropped}</h3>{body}</section>"


def _text_parts(pair: dict[str, Any]) -> Iterator[str]:
    for part, name in part_names(pair).items():
        yield f"<h4>{name}</h4><pre>{_safe(pair[part])}</pre>"


def _token_parts(pair: dict[str, Any]) -> Iterator[str]:
    for part, name in part_names(pair).items():
        found = pair["tokens"][part]
        kind = "masked" if part == "prompt" else "learned"
        spans = "".join(_token(token) for token in found)
        note = "not learned" if part == "prompt" else "learned"
        head = f"<h4>{_safe(name)}: {len(found):,} tokens, {note}</h4>"
        yield f'{head}<pre class="{kind}">{spans}</pre>'


def _token(token: dict[str, Any]) -> str:
    kind = ' class="special"' if token["special"] else ""
    text = _safe(token["text"].replace("\n", "↵\n"))
    return f'<span{kind} title="{int(token["id"])}">{text}</span>'


_STYLE = """
:root { color-scheme: light dark; --line: #8884; --masked: #888; --special: #06a; --bar: #47a; }
@media (prefers-color-scheme: dark) { :root { --special: #6cf; --bar: #7ad; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; } h2 { margin-top: 2rem; font-size: 1.15rem; }
h3 { font-size: 1rem; margin-bottom: .2rem; } h4 { font-size: .85rem; margin: .6rem 0 .2rem; }
table { border-collapse: collapse; } th, td { padding: .15rem .7rem; text-align: right;
  border-bottom: 1px solid var(--line); } th:first-child, td:nth-child(2) { text-align: left; }
.verdict { padding: .6rem 1rem; border-left: .4rem solid #2a2; font-weight: 600; }
.verdict.warnings { border-color: #c80; } .verdict.unusable { border-color: #c22; }
ul { list-style: none; padding: 0; }
li { padding: .3rem .8rem; border-left: .3rem solid var(--line); margin: .4rem 0; }
li.warning { border-color: #c80; } li.error { border-color: #c22; }
.where, .do { color: var(--masked); font-size: .85rem; overflow-wrap: anywhere; }
td.where { text-align: left; }
.charts { display: flex; flex-wrap: wrap; gap: 1.5rem; } figure { margin: 1rem 0; }
svg rect { fill: var(--bar); } svg text { font-size: 12px; fill: currentColor; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: .5rem; margin: 0;
  border: 1px solid var(--line); font: 13px/1.7 ui-monospace, monospace; max-height: 24rem;
  overflow: auto; }
pre span { outline: 1px solid var(--line); outline-offset: -1px; }
.masked { color: var(--masked); } .learned { font-weight: 600; } .special { color: var(--special); }
"""

_PAGE = """<!doctype html>
{mark}
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}: data check</title><style>{style}</style></head>
<body>
{body}
<p class="where">orpo-mlx {version}</p>
</body></html>
"""

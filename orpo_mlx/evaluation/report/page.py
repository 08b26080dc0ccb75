"""A judgement as one HTML page to send to a colleague: no scripts, nothing fetched, text escaped.

Pure text from plain values; every string from outside goes through `_safe`.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from orpo_mlx.runs.evaluation import TITLES, interval_text
from orpo_mlx.text.formatting import counted, visible
from orpo_mlx.text.svg_chart import HEIGHT, WIDTH, Series, chart_svg
from orpo_mlx.version import __version__

MARK = "<!-- orpo-mlx evaluate -->"
_POINTS = 200


def page(content: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        content: as printed with --json, with what a report has besides: "examples" and "margins"
            (see `examples`), and "settings" by name.
    """
    title = " against ".join(str(content["sides"][side]) for side in reversed(content["compared"]))
    level = "shown" if content["verdict"].get("is_shown") else "open"
    parts = [
        f"<h1>{_safe(title)}</h1>",
        f'<p class="verdict {level}">{_safe(content["verdict"]["text"])}</p>',
        *(f'<p class="note">{_safe(note)}</p>' for note in content["notes"]),
        _metrics(content),
        _charts(content),
        _drift(content["drift"]),
        _examples(content),
        _facts(content),
    ]
    return _PAGE.format(
        mark=MARK, title=_safe(title), style=_STYLE, body="\n".join(parts),
        version=_safe(__version__),
    )  # fmt: skip


def _safe(text: object) -> str:
    """Return text that is neither markup nor an invisible character."""
    return html.escape(visible(str(text)), quote=True)


def _table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    def line(cells: Iterable[object], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{_safe(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


# Numbers


def _metrics(content: Mapping[str, Any]) -> str:
    metrics = content["metrics"]
    columns = list(next(iter(metrics.values())))
    rows = [
        [TITLES.get(name, name.replace("_", " ")), *_cells(name, row, columns)]
        for name, row in metrics.items()
    ]
    accuracy = "preference_accuracy"
    like = content["like_length"]
    if like["pairs"]:
        label = f"accuracy among {counted(like['pairs'], 'pair')} of like length"
        rows.append([label, *_cells(accuracy, like, columns)])
    for gap in content["score_gaps"]:
        label = f"accuracy, score gap {gap['low']:g} to {gap['high']:g} ({gap['pairs']} pairs)"
        rows.append([label, *_cells(accuracy, gap, columns)])
    longer = f"Always taking the longer answer would be right in {like['longer_is_chosen']:.1%}."
    ties = ", ".join(f"{count} ({side})" for side, count in content["counts"]["ties"].items())
    return (
        f"<h2>On {_pairs_text(content)}</h2>{_table(['', *columns], rows)}"
        f'<p class="small">95 % intervals in brackets. {_safe(longer)} '
        f"Ties, counted as not preferred: {_safe(ties)}.</p>"
    )


def _pairs_text(content: Mapping[str, Any]) -> str:
    counts = content["counts"]
    noun = "held-out pair" if counts["held_out"] else "pair"
    return f"{counted(counts['pairs'], noun)} of {counted(counts['groups'], 'prompt')}"


def _cells(name: str, row: Mapping[str, Any], columns: Iterable[str]) -> list[str]:
    return [
        interval_text(name, row[column], column == "difference") if column in row else ""
        for column in columns
    ]


# Charts


def _charts(content: Mapping[str, Any]) -> str:
    charts = [
        chart_svg(
            "Margin of each pair, the smallest first; above 0 chosen is preferred",
            "per cent of pairs",
            [_sorted_series(side, values) for side, values in content["margins"].items()],
        )
    ]
    gaps = content["score_gaps"]
    if len(gaps) > 1:
        middles = [(gap["low"] + gap["high"]) / 2 for gap in gaps]
        charts.append(
            chart_svg(
                "Accuracy in per cent by score gap (middle of the range)", "score gap",
                [
                    Series(side, middles, [100 * gap[side]["value"] for gap in gaps])
                    for side in content["compared"]
                ],
            )
        )  # fmt: skip
    return f"<h2>Charts</h2>{''.join(map(_figure, charts))}"


def _figure(chart: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="13"><rect width="100%" height="100%" '
        f'fill="#fff"/>{chart}</svg>'
    )


def _sorted_series(side: str, values: list[float]) -> Series:
    """Return sorted values over per cent of pairs; of many as many as a line can show."""
    last = max(1, len(values) - 1)
    step = max(1, len(values) // _POINTS)
    places = sorted({*range(0, len(values), step), len(values) - 1})
    return Series(side, [100 * i / last for i in places], [values[i] for i in places])


def _drift(drift: Mapping[str, Any] | None) -> str:
    if drift is None:
        return ""
    kl = drift["kl_per_token"]
    rows = [[f"KL per token from the base ({side})", interval_text("kl", kl[side])] for side in kl]
    rows += [
        [f"NLL of plain text ({side})", interval_text("text_nll", found, side == "difference")]
        for side, found in drift["text_nll"].items()
    ]
    chart = chart_svg(
        "KL divergence from the base by place in the answer, nats", "token of the answer",
        [
            Series(side, list(range(1, len(values) + 1)), values)
            for side, values in drift["kl_by_position"].items()
        ],
    )  # fmt: skip
    kinds = list(dict.fromkeys(kind for found in drift["kl_by_kind"].values() for kind in found))
    by_kind = [
        [kind, *(f"{found[kind]:.3f}" for found in drift["kl_by_kind"].values())] for kind in kinds
    ]
    said = (
        f"{counted(drift['prompts'], 'prompt')} from {drift['prompts_from']}, "
        f"{counted(drift['answer_tokens'], 'token')} of answers. {drift['method']}."
    )
    parts = [
        "<h2>Drift on neutral prompts</h2>",
        f'<p class="small">{_safe(said)}</p>',
        _table(["", "nats"], rows),
        _figure(chart),
        _table(["KL by kind of prompt", *drift["kl_by_kind"]], by_kind) if by_kind else "",
        *map(_answers, drift["answers"]),
    ]
    return "".join(parts)


def _answers(shown: Mapping[str, Any]) -> str:
    """Return greedy answers side by side."""
    sides = [name for name in shown if name in ("base", "other", "adapter")]
    cells = "".join(f"<div><h4>{name}</h4><pre>{_safe(shown[name])}</pre></div>" for name in sides)
    return (
        f"<section><h3>{_safe(shown['prompt'])}</h3>"
        f'<p class="small">{shown["kl_per_token"]:.3f} nats per token apart</p>'
        f'<div class="answers">{cells}</div></section>'
    )


# Examples


def _examples(content: Mapping[str, Any]) -> str:
    if not content["examples"]:
        return ""
    legend = (
        '<p class="small">The pairs whose margin rose most, then those where it fell most. Below '
        f"each token its log-prob in nats: {_safe(', then '.join(content['compared']))}.</p>"
    )
    shown = "".join(_example(pair, content["compared"]) for pair in content["examples"])
    return f"<h2>Pairs</h2>{legend}{shown}"


def _example(pair: Mapping[str, Any], sides: Iterable[str]) -> str:
    margin = " -> ".join(f"{pair['margin'][side]:+.3f}" for side in sides)
    answers = "".join(
        f"<h4>{name}</h4><div class=tokens>{''.join(_tokens(pair[name], sides))}</div>"
        for name in ("chosen", "rejected")
    )
    return (
        f"<section><h3>{_safe(pair['row'])}: margin {margin}</h3><h4>prompt</h4>"
        f"<pre>{_safe(pair['prompt'])}</pre>{answers}</section>"
    )


def _tokens(tokens: Iterable[Mapping[str, Any]], sides: Iterable[str]) -> Iterator[str]:
    sides = list(sides)
    for token in tokens:
        moved = token[sides[-1]] - token[sides[0]]
        kind = "up" if moved > 0.5 else "down" if moved < -0.5 else "same"
        kind += " special" if token["special"] else ""
        text = _safe(token["text"].replace("\n", "↵")) or "&nbsp;"
        numbers = "".join(f"<i>{token[side]:.2f}</i>" for side in sides)
        yield f'<span class="{kind}"><b>{text}</b>{numbers}</span>'


# Facts


def _facts(content: Mapping[str, Any]) -> str:
    counts, rows = content["counts"], content["counts"]["rows"]
    dropped = ", ".join(f"{count} {why}" for why, count in rows["dropped"].items()) or "none"
    facts = {
        "Base model": content["model"],
        "Data": content["data"],
        "Rows": f"{rows['read']:,} read, {rows['kept']:,} kept; dropped: {dropped}",
        "Pairs": f"{_pairs_text(content)}, of {counts['available']:,} there are",
        "Answer tokens": f"{counts['chosen_tokens']:,} chosen, {counts['rejected_tokens']:,} "
        "rejected",
        "Seed": content["seed"],
        **{f"Method: {name}".replace("_", " "): text for name, text in content["method"].items()},
        **content["versions"],
    }
    settings = content.get("settings") or {}
    parts = ["<h2>How it was measured</h2>", _table(["", ""], facts.items())]
    if settings:
        parts += ["<h2>Settings of the run</h2>", _table(["setting", "value"], settings.items())]
    return "".join(parts)


_STYLE = """
:root { color-scheme: light dark; --line: #8884; --faint: #888; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; } h2 { margin-top: 2rem; font-size: 1.15rem; }
h3 { font-size: 1rem; margin-bottom: .2rem; } h4 { font-size: .85rem; margin: .6rem 0 .2rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: .15rem .7rem; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
.verdict { padding: .6rem 1rem; border-left: .4rem solid #888; font-weight: 600; }
.verdict.shown { border-color: #07c; }
.note { padding: .3rem 1rem; border-left: .4rem solid #c80; } .small { color: var(--faint); }
svg { max-width: 100%; height: auto; display: block; margin: 1rem 0; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: .5rem; margin: 0;
  border: 1px solid var(--line); font: 13px/1.6 ui-monospace, monospace; }
.tokens span { display: inline-block; border: 1px solid var(--line); margin: 1px; padding: 0 3px;
  font: 13px/1.3 ui-monospace, monospace; white-space: pre; }
.tokens b { display: block; font-weight: 400; } .tokens i { display: block; font-size: 10px;
  font-style: normal; color: var(--faint); }
.tokens .up { background: #07c3; } .tokens .down { background: #d603; }
.tokens .special b { text-decoration: underline dotted; }
.answers { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; }
"""

_PAGE = """<!doctype html>
{mark}
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}: did it help?</title><style>{style}</style></head>
<body>
{body}
<p class="small">orpo-mlx {version}</p>
</body></html>
"""

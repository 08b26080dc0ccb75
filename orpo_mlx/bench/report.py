"""The result of a bench as Markdown: what was found, then all that is needed to believe it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence

from orpo_mlx.bench.process import Row
from orpo_mlx.bench.steps.course import AGAIN, DEFAULT, PLAIN
from orpo_mlx.bench.steps.peer import NAME as PEER
from orpo_mlx.bench.suite import failures, row_name
from orpo_mlx.text.formatting import counted, format_bytes, format_duration

Lines = Iterator[str]


def as_markdown(result: Row) -> str:
    """Return the page of a result as `suite.run_bench` returns it."""
    about = _conditions(result)
    title = f"{about.get('chip', 'unknown')}, {format_bytes(about.get('memory_bytes', 0))}"
    parts = {part["name"]: part for part in result["parts"]}
    lines = [f"# orpo-mlx bench: {title}", "", *_preface(result, about), ""]
    lines += ["## In short", "", *(f"- {line}" for line in _summary(result, parts)), ""]
    for name, describe in _DESCRIBED.items():
        if name in parts:
            lines += _section(parts[name], describe, about)
    lines += ["## Conditions", "", *_about(about), "", *_power(result), "", *_times(result)]
    return "\n".join(lines).rstrip() + "\n"


def _conditions(result: Row) -> Row:
    rows = [row for part in result["parts"] for row in part["rows"]]
    return next((row for row in rows if row.get("kind") == "conditions"), {})


def _preface(result: Row, about: Row) -> Lines:
    yield (
        f"`{result['command']}`, {result['form']} form, {result['started']}, "
        f"{format_duration(result['seconds'])}."
    )
    if not result["is_complete"]:
        yield "**It did not come to its end: what was measured until then.**"
    if result["form"] == "short":
        yield "**The short form shows that everything runs; its times mean nothing.**"
    elif about.get("device") != "GPU":
        yield "**MLX computes on the CPU here: this says nothing about a Mac's GPU.**"


# In short


def _summary(result: Row, parts: dict[str, Row]) -> Lines:
    rows = [row for part in result["parts"] for row in part["rows"]]
    judged = [row for row in rows if row.get("passed") is not None]
    wrong = failures(result)
    if wrong:
        yield f"**Not right: {'; '.join(wrong)}.**"
    passed = sum(row["passed"] for row in judged)
    yield f"{passed} of {len(judged)} checks passed."
    yield from _products_summary(_rows(parts, "products"))
    yield from _attention_summary(_rows(parts, "attention"))
    steps = [row for row in _rows(parts, "steps") if "way" in row]
    for way in (PLAIN, PEER):
        yield from _factors(way, [row for row in steps if row["way"] == way])
    yield from _estimates(steps)
    yield from _drift(steps)
    missed = [part for part in result["parts"] if part["status"] in ("late", "skipped")]
    if missed:
        named = "; ".join(f"{part['title']} ({part['reason']})" for part in missed)
        yield f"Not measured to the end: {named}."


def _rows(parts: dict[str, Row], name: str) -> list[Row]:
    return parts[name]["rows"] if name in parts else []


def _products_summary(rows: Sequence[Row]) -> Lines:
    for row in rows:
        if row.get("kind") == "exactness" and row["variable"] == "1":
            how = "exact" if row["is_exact"] else "rounded to TF32"
            yield (
                f"With `--float32 fast` products of float32 are {how} (relative error "
                f"{row['error']:.0e}); trainings compute exact ones unless asked."
            )


def _attention_summary(rows: Sequence[Row]) -> Lines:
    measured = [row for row in rows if "causal" in row]
    if measured:
        largest = max(measured, key=lambda row: row["queries"] * row["keys"])
        yield (
            f"Attention forward and backward, {largest['queries']} queries over "
            f"{largest['keys']} keys: {format_bytes(largest['causal']['bytes'])} with "
            f'mask="causal", {format_bytes(largest["array"]["bytes"])} with an array as mask.'
        )


def _factors(way: str, rows: Sequence[Row]) -> Lines:
    found = [row for row in rows if "time" in row]
    if found:
        yield (
            f"{way} takes {_range(row['time'] for row in found)} the time and "
            f"{_range(row['memory'] for row in found)} the memory of the default "
            f"({counted(len(found), 'comparison')})."
        )


def _estimates(steps: Sequence[Row]) -> Lines:
    shares = [
        row["peak_memory_bytes"] / row["estimated_bytes"]
        for row in steps if row.get("estimated_bytes")
    ]  # fmt: skip
    if shares:
        low, high = (round(100 * share) for share in (min(shares), max(shares)))
        word = "" if high <= 100 else ": **the estimate was too low**"
        yield f"Memory peaks were {low} to {high} % of what had been estimated{word}."


def _drift(steps: Sequence[Row]) -> Lines:
    for row in steps:
        if row["way"] == AGAIN and "time" in row:
            yield f"The first measurement repeated at the end took {row['time']:.2f}x its time."


def _range(values: Iterable[float]) -> str:
    found = sorted(values)
    low, high = (f"{value:.2g}x" for value in (found[0], found[-1]))
    return low if low == high else f"{low} to {high}"


# Parts


def _section(part: Row, describe: object, about: Row) -> list[str]:
    lines = [f"## {part['title']}", ""]
    if part["status"] != "done":
        lines += [f"**{part['status']}: {part['reason']}**", ""]
    if part["rows"]:
        lines += [*describe(part["rows"], about), ""]  # type: ignore[operator]
    return lines


def _steps(rows: Sequence[Row], about: Row) -> Lines:
    is_gpu = about.get("device") == "GPU"
    clock = "wall time" if is_gpu else "user CPU time"
    yield (
        f"Median {clock} of a step divided by its pairs, with the range over the steps; the first "
        "step is not among them. Every step has the same pairs: random tokens, lengths like those "
        "of HH-RLHF (hh), UltraFeedback (uf), questions with passages (rag). LoRA of rank 8 on "
        "all linear layers. *default* is what `orpo-mlx train` does; *plain* computes both rows "
        "of a pair in full with all logits. *Share* is the work no trainer can avoid, divided by "
        "time and by MLX's own rate for such products."
    )
    yield ""
    unit = "s" if is_gpu else "CPU s"
    head = ("model", "workload", "way", "pairs", f"{unit}/pair", "steps", "peak", "of estimate",
            "share", "time", "memory")  # fmt: skip
    yield from _table(head, [_step_cells(row) for row in rows if "way" in row])
    yield ""
    yield from _checks([row for row in rows if row.get("kind") == "check"], about)


def _step_cells(row: Row) -> list[str]:
    how = [row["scoring"]] if row["way"] == DEFAULT and "scoring" in row else []
    if every := row.get("grad_checkpoint_every"):
        how.append(f"1 of {counted(every, 'block')} recomputed")
    way = row["way"] + (f" ({', '.join(how)})" if how else "")
    first = [row["model"], row["workload"], way, str(row.get("pairs", ""))]
    if "problem" in row:
        return [*first, f"not measured: {row['problem']}", *[""] * 6]
    estimated = row.get("estimated_bytes")
    share = row.get("share_of_rate")
    return [
        *first,
        f"{row['seconds_per_pair']:.3g} ({row['low']:.3g}-{row['high']:.3g})",
        str(row["steps"]),
        format_bytes(row["peak_memory_bytes"]),
        f"{100 * row['peak_memory_bytes'] / estimated:.0f} %" if estimated else "",
        f"{100 * share:.0f} %" if share else "",
        f"{row['time']:.2f}x" if "time" in row else "",
        f"{row['memory']:.2f}x" if "memory" in row else "",
    ]


def _models(rows: Sequence[Row], _: Row) -> Lines:
    for row in rows:
        if row["kind"] == "model":
            yield f"- {row['name']}: {row['shape']}; {row['from']}"
        elif row["kind"] == "note":
            yield f"- {row['text']}"
        else:
            yield f"- ways of scoring: {', '.join(row['ways'])}"


def _attention(rows: Sequence[Row], _: Row) -> Lines:
    yield (
        '`mx.fast.scaled_dot_product_attention`, forward and backward: mask="causal" beside an '
        "array as mask, 8 heads, 4 for keys. *Apart* is the largest relative difference of "
        "output and gradients between both, *error* that from NumPy in float64."
    )
    yield ""
    head = ("type", "queries x keys", "width", "apart", "error", "causal", "array",
            "causal needs", "array needs", "right")  # fmt: skip
    yield from _table(head, [_attention_cells(row) for row in rows])


def _attention_cells(row: Row) -> list[str]:
    first = [row["dtype"], f"{row['queries']} x {row['keys']}", str(row["width"])]
    if "causal" not in row:
        return [*first, row["text"], *[""] * 6]
    errors = [row[key] for key in ("causal_error", "array_error") if key in row]
    return [
        *first,
        _number({"apart": max(row["forward_apart"], row["gradient_apart"])}, "apart"),
        f"{max(errors):.1e}" if errors else "",
        *(f"{1000 * row[name]['seconds']:.3g} ms" for name in ("causal", "array")),
        *(format_bytes(row[name]["bytes"]) for name in ("causal", "array")),
        _mark(row),
    ]


def _recurrent(rows: Sequence[Row], _: Row) -> Lines:
    yield (
        "Kernels for the recurrent layers of hybrid models beside plain operations. A kernel "
        "without a gradient cannot be trained with; mlx-lm takes plain operations then."
    )
    yield ""
    head = ("what", "forward apart", "gradient apart", "time", "memory", "right")
    cells = [
        [
            row["name"], _number(row, "forward_apart"),
            _number(row, "gradient_apart") or row.get("text", ""),
            f"{1000 * row['seconds']:.3g} ms" if "seconds" in row else "",
            format_bytes(row["bytes"]) if "bytes" in row else "", _mark(row),
        ]
        for row in rows
    ]  # fmt: skip
    yield from _table(head, cells)


def _products(rows: Sequence[Row], about: Row) -> Lines:
    head = ("products", "`MLX_ENABLE_TF32`", "found", "right")
    key = "flop_per_second" if about.get("device") == "GPU" else "flop_per_cpu_second"
    unit = "GFLOP/s" if about.get("device") == "GPU" else "GFLOP per CPU s"
    cells = []
    for row in rows:
        if row["kind"] == "exactness":
            found = f"relative error {row['error']:.1e} from float64"
            cells.append(["float32, 256 x 256", row["variable"], found, _mark(row)])
        else:
            found = f"{row[key] / 1e9:,.4g} {unit}, median of {row['times']}"
            name = f"{row['of']}, {row['size']} x {row['size']}"
            cells.append([name, row["variable"], found, ""])
    yield from _table(head, cells)


def _checks(rows: Sequence[Row], _: Row) -> Lines:
    """Checks with a number: those that failed in sight, all folded."""
    if not rows:
        return
    failed = [row for row in rows if row["passed"] is False]
    yield f"{len(rows) - len(failed)} of {len(rows)} passed."
    yield ""
    cells = [[row_name(row), _value(row), row.get("text", ""), _mark(row)] for row in rows]
    head = ("check", "value (limit)", "what it is", "right")
    if len(rows) <= _SHOWN:
        yield from _table(head, cells)
        return
    if failed:
        yield from _table(head, [cell for cell in cells if cell[-1] == _mark(failed[0])])
        yield ""
    yield from _folded(f"All {len(rows)}", _table(head, cells))


_SHOWN = 6
"""Rows that need not be folded."""


def _facts(rows: Sequence[Row], _: Row) -> Lines:
    facts = [row for row in rows if row.get("kind") == "fact"]
    marks = {"ok": "", "info": "", "warning": "warning", "error": "**error**"}
    cells = [[row["name"], row["text"], marks.get(row["level"], "")] for row in facts]
    head = ("doctor", "found", "")
    if told := [cell for cell in cells if cell[-1]]:
        yield from _table(head, told)
        yield ""
    yield from _folded("All that the doctor says", _table(head, cells))


_DESCRIBED = {
    "steps": _steps,
    "models": _models,
    "resume": _checks,
    "self-test": _checks,
    "verify": _checks,
    "attention": _attention,
    "recurrent": _recurrent,
    "products": _products,
    "machine": _facts,
}
"""In the order a reader meets them."""


# Conditions


def _about(about: Row) -> Lines:
    if not about:
        yield "They could not be read."
        return
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    variables = ", ".join(f"{name}={value}" for name, value in about["variables"].items())
    commit = f", commit {about['commit']}" if about["commit"] else ""
    rows = [
        ("chip", f"{about['chip']} {about['model']}".strip()),
        ("cores", about["cores"]),
        ("memory", f"{format_bytes(about['memory_bytes'])}, "
                   f"{format_bytes(about['available_bytes'])} for MLX"),
        ("device", f"{about['device']} {about['device_name']} {about['architecture']}".strip()),
        ("system", f"{about['system']}, Python {about['python']}"),
        ("program", f"orpo-mlx {about['orpo-mlx']}{commit}"),
        ("versions", versions),
        ("variables", variables or "none of MLX's is set"),
    ]  # fmt: skip
    if about["preload"]:
        rows.append(("preloaded", about["preload"]))
    yield from _table(("", ""), rows)


def _power(result: Row) -> Lines:
    """Say in how far power, heat and other programs may have changed the numbers."""
    states = result["power"]

    def said(key: str) -> str:
        values = list(dict.fromkeys(state[key] for state in states if state.get(key)))
        return " -> ".join(map(str, values)) if values else "not told by this system"

    loads = [state["load"] for state in states]
    load = f"{min(loads)} to {max(loads)}, median {statistics.median(loads)}"
    charges = [state["charge"] for state in states if state.get("charge")]
    source = said("source") + (f" ({charges[0]} to {charges[-1]})" if charges else "")
    rows = [("power", source), ("heat", said("heat")), ("memory pressure", said("pressure")),
            ("load", load)]  # fmt: skip
    yield f"Looked at {len(states)} times, before and after each part:"
    yield ""
    yield from _table(("", ""), rows)


def _times(result: Row) -> Lines:
    head = ("part", "took", "of at most", "", "")
    yield from _table(
        head,
        [
            [part["name"], format_duration(part["seconds"]),
             format_duration(part["limit_seconds"]), part["status"], part["reason"]]
            for part in result["parts"]
        ],
    )  # fmt: skip


# Cells


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Lines:
    for row in (head, ["---"] * len(head), *rows):
        cells = (str(cell).replace("|", "\\|").replace("\n", " ") for cell in row)
        yield "| " + " | ".join(cells) + " |"


def _folded(title: str, lines: Lines) -> Lines:
    yield f"<details><summary>{title}</summary>"
    yield ""
    yield from lines
    yield ""
    yield "</details>"


def _mark(row: Row) -> str:
    return {True: "ok", False: "**FAILED**"}.get(row.get("passed"), "")  # type: ignore[arg-type]


def _number(row: Row, key: str) -> str:
    return f"{row[key]:.1e}".replace("0.0e+00", "0") if key in row else ""


def _value(row: Row) -> str:
    value = row.get("value")
    return "" if value is None else f"{value:.1e} ({row['limit']:g})".replace("0.0e+00", "0")

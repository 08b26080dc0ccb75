"""The result of a bench as Markdown: what was found, then all that is needed to believe it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence

from orpo_mlx.bench.process import Row
from orpo_mlx.bench.steps.comparison import Compared, compare_rows, drift
from orpo_mlx.bench.steps.course import DEFAULT, PLAIN
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
    if wrong := failures(result):
        yield f"**Not right: {'; '.join(wrong)}.**"
    yield _counted_checks(result)
    for row in _rows(parts, "resume"):
        word = "the same adapter in every byte" if row["passed"] else "**another adapter**"
        yield f"{row['name']}: {word}."
    yield from _products_summary(_rows(parts, "products"))
    yield from _attention_summary(_rows(parts, "attention"))
    steps = compare_rows(_rows(parts, "steps"))
    for way in (PLAIN, PEER):
        yield from _factors(way, [one for one in steps if one.row["way"] == way])
    yield from _estimates([one.row for one in steps])
    yield from _drift(_rows(parts, "steps"))
    missed = [part for part in result["parts"] if part["status"] not in ("done", "failed")]
    if missed:
        named = "; ".join(f"{part['title']} ({part['reason']})" for part in missed)
        yield f"Not measured to the end: {named}."


def _counted_checks(result: Row) -> str:
    judged = {
        part["name"]: [row["passed"] for row in part["rows"] if row.get("passed") is not None]
        for part in result["parts"]
    }
    every = [passed for found in judged.values() for passed in found]
    named = ", ".join(f"{name} {len(found)}" for name, found in judged.items() if found)
    return f"{sum(every)} of {counted(len(every), 'check')} passed ({named})."


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


def _factors(way: str, found: Sequence[Compared]) -> Lines:
    measured = [one for one in found if one.time]
    if measured:
        yield (
            f"{way} takes {_range(statistics.median(one.time) for one in measured)} the time and "
            f"{_range(statistics.median(one.memory) for one in measured)} the memory of the "
            f"default ({counted(len(measured), 'comparison')})."
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
    ratio, count = drift(steps)
    if count:
        yield (
            f"Measured again in reverse order, {counted(count, 'case')} took {ratio:.2f}x the "
            "time (median): differences not well beyond that are none."
        )


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
    unit = "s" if is_gpu else "CPU s"
    clock = "wall time" if is_gpu else "user CPU time of all threads"
    yield (
        f"- **{unit}/pair**: {clock} of a step by its pairs, the median, and in brackets the range "
        "over all steps; the first step of a process is left out."
    )
    yield (
        "- **workload**: random tokens with the lengths of HH-RLHF (hh), UltraFeedback (uf), "
        "questions with passages (rag); every step has the same pairs. LoRA of rank 8 on all "
        "linear layers."
    )
    yield (
        "- **way**: *default* is what `orpo-mlx train` does; *plain* computes both rows of a pair "
        "in full, with all logits. Each is a process of its own."
    )
    yield (
        "- **share**: what the work that no trainer can avoid takes at MLX's own rate for "
        "products, as a share of the time. **peak** and **of estimate**: of MLX's memory."
    )
    yield ""
    head = ("model", "workload", "way", "pairs", f"{unit}/pair", "steps", "peak", "of estimate",
            "share", "time by default's", "memory by default's")  # fmt: skip
    yield from _table(head, map(_step_cells, compare_rows(rows)))
    yield ""
    yield from _checks([row for row in rows if row.get("kind") == "check"], about)


def _step_cells(one: Compared) -> list[str]:
    row = one.row
    how = [row["scoring"]] if row["way"] == DEFAULT and "scoring" in row else []
    if every := row.get("grad_checkpoint_every"):
        how.append(f"1 of {counted(every, 'block')} recomputed")
    way = row["way"] + (f" ({', '.join(how)})" if how else "")
    first = [row["model"], row["workload"], way, str(row.get("pairs", ""))]
    if "problem" in row:
        return [*first, f"not measured: {row['problem']}", *[""] * 6]
    middle, low, high = one.seconds
    estimated, share = row.get("estimated_bytes"), row.get("share_of_rate")
    return [
        *first,
        f"{middle:.3g} ({low:.3g}-{high:.3g})",
        str(one.steps),
        format_bytes(row["peak_memory_bytes"]),
        f"{100 * row['peak_memory_bytes'] / estimated:.0f} %" if estimated else "",
        f"{100 * share:.0f} %" if share else "",
        _multiple(one.time),
        _multiple(one.memory),
    ]


def _multiple(ratios: Sequence[float]) -> str:
    """Return a multiple, with its range where rounds differ: 2.47x (2.41-2.53)."""
    if not ratios:
        return ""
    low, high = (f"{value:.2f}" for value in (min(ratios), max(ratios)))
    return f"{statistics.median(ratios):.2f}x" + (f" ({low}-{high})" if low != high else "")


def _models(rows: Sequence[Row], _: Row) -> Lines:
    for row in rows:
        if row["kind"] == "model":
            size = format_bytes(row["bytes"])
            yield f"- {row['name']}: {row['shape']}, {size}; {row['from']}"
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
        *(_time(row[name]["seconds"]) for name in ("causal", "array")),
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
            _time(row["seconds"]) if "seconds" in row else "",
            format_bytes(row["bytes"]) if "bytes" in row else "", _mark(row),
        ]
        for row in rows
    ]  # fmt: skip
    yield from _table(head, cells)


def _products(rows: Sequence[Row], about: Row) -> Lines:
    yield (
        "A product forward and one backward through the same square weights, together, the "
        "fastest of many; how exact float32 is with and without leave to round it."
    )
    yield ""
    head = ("products", "`MLX_ENABLE_TF32`", "found", "right")
    key = "flop_per_second" if about.get("device") == "GPU" else "flop_per_cpu_second"
    unit = "GFLOP/s" if about.get("device") == "GPU" else "GFLOP per CPU s"
    cells = []
    for row in rows:
        if row["kind"] == "exactness":
            found = f"relative error {row['error']:.1e} from float64"
            cells.append(["float32, 256 x 256", row["variable"], found, _mark(row)])
        else:
            found = f"{row[key] / 1e9:,.4g} {unit}"
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


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _number(row: Row, key: str) -> str:
    return f"{row[key]:.1e}".replace("0.0e+00", "0") if key in row else ""


def _value(row: Row) -> str:
    value = row.get("value")
    return "" if value is None else f"{value:.1e} ({row['limit']:g})".replace("0.0e+00", "0")

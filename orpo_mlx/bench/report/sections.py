"""What each part found."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orpo_mlx.bench.process import Row
from orpo_mlx.bench.report.cells import Lines, folded, mark, number_text, table, time_text
from orpo_mlx.bench.report.checks import iter_checks
from orpo_mlx.bench.report.steps import iter_steps_section
from orpo_mlx.text.formatting import format_bytes


def section(part: Row, about: Row) -> list[str]:
    """Return the lines of a part: how it ended, and what it found."""
    describe = DESCRIBED[part["name"]]
    lines = [f"## {part['title']}", ""]
    if part["status"] != "done":
        lines += [f"**{part['status']}: {part['reason']}**", ""]
    if part["rows"]:
        lines += [*describe(part["rows"], about), ""]
    return lines


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
    yield from table(head, [_attention_cells(row) for row in rows])


def _attention_cells(row: Row) -> list[str]:
    first = [row["dtype"], f"{row['queries']} x {row['keys']}", str(row["width"])]
    if "causal" not in row:
        return [*first, row["text"], *[""] * 6]
    errors = [row[key] for key in ("causal_error", "array_error") if key in row]
    return [
        *first,
        number_text({"apart": max(row["forward_apart"], row["gradient_apart"])}, "apart"),
        f"{max(errors):.1e}" if errors else "",
        *(time_text(row[name]["seconds"]) for name in ("causal", "array")),
        *(format_bytes(row[name]["bytes"]) for name in ("causal", "array")),
        mark(row),
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
            row["name"], number_text(row, "forward_apart"),
            number_text(row, "gradient_apart") or row.get("text", ""),
            time_text(row["seconds"]) if "seconds" in row else "",
            format_bytes(row["bytes"]) if "bytes" in row else "", mark(row),
        ]
        for row in rows
    ]  # fmt: skip
    yield from table(head, cells)


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
            cells.append(["float32, 256 x 256", row["variable"], found, mark(row)])
        else:
            found = f"{row[key] / 1e9:,.4g} {unit}"
            name = f"{row['of']}, {row['size']} x {row['size']}"
            cells.append([name, row["variable"], found, ""])
    yield from table(head, cells)


def _facts(rows: Sequence[Row], _: Row) -> Lines:
    facts = [row for row in rows if row.get("kind") == "fact"]
    marks = {"ok": "", "info": "", "warning": "warning", "error": "**error**"}
    cells = [[row["name"], row["text"], marks.get(row["level"], "")] for row in facts]
    head = ("doctor", "found", "")
    if told := [cell for cell in cells if cell[-1]]:
        yield from table(head, told)
        yield ""
    yield from folded("All that the doctor says", table(head, cells))


DESCRIBED: dict[str, Callable[[Sequence[Row], Row], Lines]] = {
    "steps": iter_steps_section,
    "models": _models,
    "resume": iter_checks,
    "self-test": iter_checks,
    "verify": iter_checks,
    "attention": _attention,
    "recurrent": _recurrent,
    "products": _products,
    "machine": _facts,
}
"""In the order a reader meets them."""

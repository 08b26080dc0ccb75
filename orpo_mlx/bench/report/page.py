"""The page from its title to the conditions at its end."""

from __future__ import annotations

import re
import statistics

from orpo_mlx.bench.process import Row
from orpo_mlx.bench.report.cells import Lines, table
from orpo_mlx.bench.report.sections import DESCRIBED, section
from orpo_mlx.bench.report.summary import iter_summary
from orpo_mlx.text.formatting import counted, format_bytes, format_duration


def as_markdown(result: Row) -> str:
    """Return the page of a result as `suite.run_bench` returns it."""
    about = _conditions(result)
    title = f"{about.get('chip', 'unknown')}, {format_bytes(about.get('memory_bytes', 0))}"
    parts = {part["name"]: part for part in result["parts"]}
    lines = [f"# orpo-mlx bench: {title}", "", *_preface(result, about), ""]
    lines += ["## In short", "", *(f"- {line}" for line in iter_summary(result)), ""]
    for name in DESCRIBED:
        if name in parts:
            lines += section(parts[name], about)
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
    yield from _cautions(result, about)
    yield "What each part does, and how to read it: docs/bench.md of the project."


def _cautions(result: Row, about: Row) -> Lines:
    """Warn of what may have slowed the machine."""
    states = result["power"]
    cores = sum(map(int, re.findall(r"\d+", str(about.get("cores", "")))))
    load = statistics.median(state["load"] for state in states)
    if cores and load > cores:
        yield (
            f"**Other programs were busy (load {load:.0f} on {counted(cores, 'core')}): believe "
            "multiples before times.**"
        )
    if any(state.get("source") == "battery" for state in states):
        yield "**On battery: a Mac is slower then.**"
    for heat in dict.fromkeys(state.get("heat", "no warning") for state in states):
        if heat != "no warning":
            yield f"**Slowed by heat: {heat}.**"


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
    yield from table(("", ""), rows)


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
    yield from table(("", ""), rows)


def _times(result: Row) -> Lines:
    head = ("part", "took", "of at most", "", "")
    yield from table(
        head,
        [
            [part["name"], format_duration(part["seconds"]),
             format_duration(part["limit_seconds"]), part["status"], part["reason"]]
            for part in result["parts"]
        ],
    )  # fmt: skip

"""What the live screen says of a run of several processes; "" or [] for a run of one; pure."""

from __future__ import annotations

from itertools import product

from rich.cells import cell_len

from orpo_mlx.runs.peers.hosts import hosts_text
from orpo_mlx.runs.peers.load import of_a_step, shares_text
from orpo_mlx.text.formatting import counted, visible
from tui.run.state import RunState

_ROWS = 8
"""Processes that have a line each."""


def peers_line(state: RunState, width: int) -> str:
    """Return on one line who shares the steps, how evenly, and what the newest one waited for.

    Where it is too wide, names go first, then the single parts.
    """
    if not state.hosts:
        return ""
    load, last = state.load, state.steps.last
    count = counted(len(state.hosts), "process", "processes")
    if not load.shares:
        return hosts_text(state.hosts)
    step = last("step_seconds")
    times = [of_a_step(last(name), step) for name in ("wait_seconds", "exchange_seconds")]
    briefly = [text.partition(" (")[0] for text in times]
    even = f"busiest +{load.imbalance * 100:.0f} %"
    options = product(
        (times, briefly), (f"tokens {shares_text(load)}", even), (hosts_text(state.hosts), count)
    )
    lines = [f"{who}  {part}  wait {w}  network {n}" for (w, n), part, who in options]
    return next((line for line in lines if cell_len(line) <= width), lines[-1])


def peer_rows(state: RunState, width: int) -> list[str]:
    """Return below a blank line one for each process: its place, its part of the tokens so far."""
    if not state.hosts:
        return []
    shares = state.load.shares or [None] * len(state.hosts)
    title = counted(len(state.hosts), "process", "processes") + ", tokens"
    lines = ["", title]
    for rank, (host, share) in enumerate(zip(state.hosts, shares, strict=False)):
        value = "" if share is None else f"{share * 100:.0f} %"
        name = f"{rank} {visible(host)}"[: width - 6]
        lines.append(f"{name:<{width - 6}}{value:>6}")
    more = len(state.hosts) - _ROWS
    return lines if more <= 0 else [*lines[: _ROWS + 2], f"and {more} more"]

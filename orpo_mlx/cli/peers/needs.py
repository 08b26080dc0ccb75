"""What `fit` says of several processes: their options, their lines, their JSON."""

from __future__ import annotations

import math
from typing import Any

from orpo_mlx.distributed.traffic import HOP_SECONDS
from orpo_mlx.distributed.world import MOST_PROCESSES
from orpo_mlx.errors import ConfigError
from orpo_mlx.planning.processes import LINK_GBIT, ProcessPlan, Shares
from orpo_mlx.text.formatting import format_bytes

NEEDS_OPTIONS = ("processes", "link_gbit", "step_seconds")


def add_needs_options(group: Any) -> None:
    """Add the options that ask about several processes."""
    group.add_argument(
        "--processes", metavar="N", type=int,
        help="Tell what each of N processes needs and sends, too.",
    )  # fmt: skip
    group.add_argument(
        "--link-gbit", metavar="X", type=float,
        help="Speed of the link between them, in Gbit/s: 10 for 10-Gbit Ethernet. "
        f"[default: {LINK_GBIT:g}]",
    )  # fmt: skip
    group.add_argument(
        "--step-seconds", metavar="X", type=float,
        help="Time of a step in one process, as measured before; --probe measures it.",
    )  # fmt: skip


def checked_needs(given: dict[str, Any]) -> dict[str, Any]:
    """Return those options that were given.

    Raises:
        ConfigError: a number that cannot be.
    """
    found = {name: value for name, value in given.items() if value is not None}
    count = found.get("processes", 1)
    if not 1 <= count <= MOST_PROCESSES:
        raise ConfigError(
            f"--processes {count}: needs a number from 1 to {MOST_PROCESSES}", "Correct it."
        )
    for name in ("link_gbit", "step_seconds"):
        flag, value = "--" + name.replace("_", "-"), found.get(name, 1.0)
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{flag} {value:g}: needs a number above 0", "Correct it.")
        if name in found and count == 1:
            raise ConfigError(f"{flag}: is about several processes", "Add --processes 2.")
    return found


def needs_lines(plan: ProcessPlan, limit: int) -> list[str]:
    """Return what several processes need, send and take.

    Args:
        plan: of them.
        limit: bytes of one machine.
    """
    together = plan.processes * plan.process_bytes
    verdict = "fits" if together <= limit else "does not fit"
    vector = format_bytes(plan.payload_bytes)
    return [
        f"{plan.processes} processes: {format_bytes(plan.process_bytes)} each, which holds the "
        f"whole model and {format_bytes(2 * plan.payload_bytes)} for the exchange",
        f"all on one machine: {format_bytes(together)} of {format_bytes(limit)}, {verdict}",
        *(_share_lines(plan.shares, plan) if plan.shares else _UNKNOWN),
        f"sent by each process in a step: {format_bytes(plan.sent_bytes)}, "
        f"2 x {plan.processes - 1}/{plan.processes} of the adapter's {vector} in float32",
        *_time_lines(plan),
    ]


_UNKNOWN = [
    "how the work is divided is not known: with --batching tokens it follows from the pairs; "
    "add --data"
]


def _share_lines(shares: Shares, plan: ProcessPlan) -> list[str]:
    count, parts = f"{shares.micro_batches:.3g}", plan.micro_batch_parts
    cut = f", divided for it (--micro-batch-parts {parts})" if parts > 1 else ""
    busiest = f"{100 * shares.busiest:.3g} %"
    lines = [
        f"a step has {count} micro-batch{'es' if count != '1' else ''}{cut}; the process with most "
        f"to do has {busiest} of its tokens, at best {100 / plan.processes:.3g} %"
    ]
    if shares.idle >= 0.05:
        idle = f"{shares.idle:.2g}"
        lines.append(
            f"{idle} process{'es' if idle != '1' else ''} of {plan.processes} would have nothing "
            "to do: give a step more micro-batches (--grad-accumulation-steps, or fewer "
            "--tokens-per-batch), or take fewer processes"
        )
    return lines


def _time_lines(plan: ProcessPlan) -> list[str]:
    assumed = (
        f"assumed: {plan.link_gbit:g} Gbit/s (--link-gbit), both ways at once, and "
        f"{HOP_SECONDS * 1000:g} ms a hop"
    )
    exchange = f"the exchange takes {_milliseconds(plan.exchange_seconds)} a step"
    alone, several = plan.alone_seconds, plan.seconds_per_step
    if alone is None:
        return [exchange, f"{assumed}; --probe or --step-seconds says what a step takes then"]
    if several is None:
        return [exchange, assumed]
    return [
        f"{_milliseconds(several)} a step instead of {_milliseconds(alone)}: "
        f"{alone / several:.2f} times as fast; {exchange}",
        f"{assumed}; each process as fast as the one measured, nothing waits but for tokens",
    ]


def _milliseconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def needs_json(plan: ProcessPlan, limit: int) -> dict[str, Any]:
    """Return the same for programs; null where something is not known."""
    together, shares = plan.processes * plan.process_bytes, plan.shares
    return {
        "processes": plan.processes,
        "process_bytes": plan.process_bytes,
        "together_bytes": together,
        "fits_one_machine": together <= limit,
        "payload_bytes": plan.payload_bytes,
        "sent_bytes_per_step": plan.sent_bytes,
        "micro_batch_parts": plan.micro_batch_parts,
        "micro_batches": shares and shares.micro_batches,
        "idle_processes": shares and shares.idle,
        "busiest_share": shares and shares.busiest,
        "link_gbit": plan.link_gbit,
        "hop_seconds": HOP_SECONDS,
        "exchange_seconds": plan.exchange_seconds,
        "alone_seconds_per_step": plan.alone_seconds,
        "seconds_per_step": plan.seconds_per_step,
    }

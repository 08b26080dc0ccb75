"""`orpo-mlx doctor --hosts macs.json`: can these machines train one run, and would it pay?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from orpo_mlx.cli.peers.speed import measured_seconds
from orpo_mlx.config import TrainConfig
from orpo_mlx.diagnostics.hosts import HostAnswer, ask_hosts, host_facts, require_equal
from orpo_mlx.diagnostics.machine import Fact
from orpo_mlx.distributed.hostfile import Hostfile, read_hostfile
from orpo_mlx.distributed.traffic import ring_bytes, step_seconds
from orpo_mlx.models.command_buffers import choose_command_buffers
from orpo_mlx.planning.fit import FitAnswer, answer, as_planned
from orpo_mlx.planning.memory import available_bytes
from orpo_mlx.text.formatting import format_bytes

PAYLOAD_BYTES = 20_000_000
"""Of an adapter, where no model says how large it is: rank 8 on all 28 blocks of Qwen3-0.6B."""

_ANSWER_SECONDS, _FETCH_SECONDS = 120.0, 1800.0
_WORTH = 1.1
"""Times as fast that several machines should be for their trouble."""


@dataclass(frozen=True)
class HostsQuestion:
    """What `doctor --hosts` asks.

    Attributes:
        file: the hostfile.
        config: of the run; model and data may be missing.
        words: options that name model and data, for the doctor of each host.
    """

    file: str
    config: TrainConfig
    words: Sequence[str] = ()


def iter_parts(asked: HostsQuestion) -> Iterator[Iterable[Fact]]:
    """Yield what is found of hosts, content, link and gain, as it is known.

    Raises:
        ConfigError: the file is damaged, a host does not answer, or has something else.
        PeerRefusedError: they cannot be connected.
    """
    hosts = read_hostfile(asked.file)
    limit = _FETCH_SECONDS if asked.words else _ANSWER_SECONDS
    answers = ask_hosts(hosts.hosts, asked.words, limit)
    yield host_facts(answers)
    require_equal(answers)
    yield _content(answers)
    found = _planned(asked.config, len(answers))
    payload = found.processes.payload_bytes if found and found.processes else PAYLOAD_BYTES
    seconds = measured_seconds(hosts, payload)
    yield [_link(hosts, payload, seconds, found)]
    yield [_gain(asked.config, found, seconds)]


def _content(answers: Sequence[HostAnswer]) -> list[Fact]:
    first = answers[0].found.items()
    return [
        Fact("content", name, f"the same on all, {text}", "ok")
        for (group, name), text in first
        if group == "content"
    ]


def _planned(config: TrainConfig, size: int) -> FitAnswer | None:
    if not config.model:
        return None
    choose_command_buffers(config.command_buffers)
    return answer(config, available_bytes(), processes=size)


def _link(hosts: Hostfile, payload: int, seconds: float, found: FitAnswer | None) -> Fact:
    size = len(hosts.hosts)
    gbit = 8e-9 * ring_bytes(payload, size) / seconds
    of = "the adapter" if found else f"{format_bytes(payload)}, as no --model says how much it is"
    text = (
        f"{seconds * 1000:.3g} ms to add up {of} ({format_bytes(payload)} a process): each sends "
        f"{format_bytes(ring_bytes(payload, size))}, {gbit:.3g} Gbit/s"
    )
    return Fact("link", hosts.backend, text, "ok")


def _gain(config: TrainConfig, found: FitAnswer | None, exchange: float) -> Fact:
    """Say whether a run pays: what a step takes here, against its share and the exchange."""
    plan = found.processes if found else None
    if found is None or plan is None or plan.shares is None or not config.data:
        return Fact("gain", "unknown", "it depends on the time of a step: add --model and --data")
    if not found.fits:
        need, there = format_bytes(found.process_bytes), format_bytes(found.limit)
        text = f"no step was tried: each process needs {need}, {there} are here"
        return Fact("gain", "unknown", text, "warning", "`orpo-mlx fit` shows settings that fit.")
    from orpo_mlx.training.timing import measure_time

    alone = measure_time(as_planned(config, found.plan)).seconds_per_step
    several = step_seconds(alone, plan.shares.busiest, exchange)
    times = alone / several
    text = (
        f"{several:.3g} s a step instead of {alone:.3g} s, {times:.2f} times as fast, if each host "
        f"is as fast as this one: the busiest has {plan.shares.busiest:.0%} of the tokens, and "
        f"{exchange / several:.0%} of the time goes to the exchange"
    )
    if times >= _WORTH:
        return Fact("gain", f"{plan.processes} processes", text, "ok")
    advice = "It does not pay: larger steps (--grad-accumulation-steps) send less for each pair."
    return Fact("gain", f"{plan.processes} processes", text, "warning", advice)

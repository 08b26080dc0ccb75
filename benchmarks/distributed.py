"""One process against several on this machine, what they send, and a model of several Macs.

    python benchmarks/distributed.py --processes 2 --ranks 8,64 --out result.json --svg macs.svg
    python benchmarks/distributed.py --read result.json --svg macs.svg

Each process is pinned to a core of its own, where the system can do that, as is one alone. Seconds,
pairs and times of the exchange are those of the run's events: an exchange begins once all processes
have said that they are ready, so that waiting for the slowest is none of it. Bytes are those that
the loopback device counted meanwhile, headers and messages included, other programs' too. All are
means of the measured steps, medians over rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from side_by_side import SIZES, TARGETS, WORKLOADS, conditions
from workload import Workload, model_folder, pairs_file, random_pairs, scaled

from orpo_mlx.config import TrainConfig, build_config
from orpo_mlx.config.division import divided
from orpo_mlx.data.batching.shape import Lengths
from orpo_mlx.distributed.traffic import HOP_SECONDS, ring_bytes, ring_seconds, step_seconds
from orpo_mlx.models.shape import folder_shape
from orpo_mlx.planning.memory import adapted_linears, count_adapter
from orpo_mlx.planning.processes import share_out
from orpo_mlx.runs.events import StepCompleted, read_events
from orpo_mlx.scoring.select import WAYS
from orpo_mlx.text.svg_chart import Series, chart_svg, svg_page

LINKS = {"1 Gbit/s": 1.0, "10 Gbit/s": 10.0, "40 Gbit/s": 40.0}
MOST_MACS = 8
PAUSE = 0.01
"""Seconds between two looks at events, which take some 50 microseconds of a core that computes."""


@dataclass(frozen=True)
class Setup:
    """What is trained, and how often.

    Attributes:
        pairs_per_step: a forward pass takes as many of them as `tokens_per_batch` allows.
        steps: that are measured.
        length: factor on the workload's lengths.
        unmeasured: steps before.
    """

    workload: str = "uf"
    size: str = "S"
    vocab: int = 32000
    targets: str = "all"
    pairs_per_step: int = 16
    steps: int = 6
    length: float = 1.0
    unmeasured: int = 1

    def random(self) -> Workload:
        """Return the model and pairs to make."""
        pairs = self.pairs_per_step * (self.steps + self.unmeasured)
        own = {"vocab": self.vocab, "pairs": pairs, **SIZES[self.size]}
        return scaled(WORKLOADS[self.workload], self.length, **own)

    def settings(self, folder: Path, rank: int) -> dict[str, Any]:
        """Return the settings of a run, by name."""
        return {
            "model": str(model_folder(folder)), "data": str(pairs_file(folder)),
            "order": "file", "valid_fraction": 0, "max_seq_length": 4096, "rank": rank,
            "micro_batch_size": self.pairs_per_step, "num_layers": -1,
            "target_modules": ",".join(TARGETS[self.targets]),
            "steps": self.steps + self.unmeasured, "report_every": 1, "save_every": 0,
        }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, or read what was measured; print the table and draw."""
    args = build_parser().parse_args(argv)
    if args.read is not None:
        result = json.loads(args.read.read_text(encoding="utf-8"))
    else:
        setup = Setup(**{f.name: getattr(args, f.name) for f in fields(Setup)})
        result = measure(setup, args.processes, args.ranks, args.rounds)
    if args.out is not None:
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if args.svg is not None:
        args.svg.write_text(draw(result["models"]), encoding="utf-8")
    print(describe(result))
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""

    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(description="Measure runs over several processes.")
    parser.add_argument("--workload", choices=list(WORKLOADS), default=Setup.workload)
    parser.add_argument("--size", choices=list(SIZES), default=Setup.size)
    parser.add_argument("--targets", choices=list(TARGETS), default=Setup.targets)
    parser.add_argument("--vocab", type=int, default=Setup.vocab)
    parser.add_argument("--processes", type=numbers, default=[2], help="besides 1: 2,3")
    parser.add_argument("--ranks", type=numbers, default=[8, 64], help="of the adapter")
    parser.add_argument("--pairs-per-step", type=int, default=Setup.pairs_per_step)
    parser.add_argument("--steps", type=int, default=Setup.steps, help="that are measured")
    parser.add_argument("--unmeasured", type=int, default=Setup.unmeasured, help="steps before")
    parser.add_argument("--length", type=float, default=Setup.length, help="factor on all lengths")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write what was measured to this JSON file")
    parser.add_argument("--read", type=Path, help="measure nothing, take it from this file")
    parser.add_argument("--svg", type=Path, help="draw the model of several Macs")
    return parser


# --- runs


def measure(
    setup: Setup, processes: Sequence[int], ranks: Sequence[int], rounds: int
) -> dict[str, Any]:
    """Return the medians over rounds of each rank and number of processes, and the models."""
    sizes, rows, models = [1, *processes], [], []
    with tempfile.TemporaryDirectory(prefix="orpo-mlx-distributed-") as temporary:
        folder = Path(temporary)
        maker = [sys.executable, str(Path(__file__).with_name("workload.py")), str(folder)]
        subprocess.run([*maker, json.dumps(asdict(setup.random()))], check=True)
        for rank in ranks:
            found: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
            for number in range(rounds):
                for size in sizes if number % 2 == 0 else reversed(sizes):
                    found[size].append(run_once(setup, folder, rank, size))
                    took = found[size][-1]["seconds_per_step"]
                    print(f"rank {rank}, {size}: {took:.2f} s a step", file=sys.stderr, flush=True)
            payload = payload_bytes(build_config(setup.settings(folder, rank)))
            alone = medians(found[1])
            rows += [row(rank, size, payload, medians(found[size]), alone) for size in sizes]
            models.append(model_of(setup, folder, rank, payload, alone["seconds_per_step"]))
    about = {**conditions(), "setup": asdict(setup), "rounds": rounds, "cores": cores()}
    return {"conditions": about, "rows": rows, "models": models}


def payload_bytes(config: TrainConfig) -> int:
    """Return the bytes of the adapter's gradient, counted from the shape of the model."""
    shape = folder_shape(Path(str(config.model)))
    return 4 * count_adapter(adapted_linears(shape, config), config)


def cores() -> list[int]:
    """Return the cores that may be used; none where processes cannot be pinned."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def run_once(setup: Setup, folder: Path, rank: int, size: int) -> dict[str, float]:
    """Train once with `size` processes; return the means of a measured step."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        run = Path(out) / "run"
        settings = setup.settings(folder, rank)
        words = [w for name, value in settings.items() for w in (_flag(name), str(value))]
        words += ["--run-dir", str(run), "--quiet", "--no-evaluate", "--drift-every", "0"]
        hosts = Path(out) / "hosts.json"
        hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(size)]))
        started = [start(words, Path(out), size, number) for number in range(size)]
        try:
            counted = watch(run / "events.jsonl", started, setup)
            codes = [process.wait(60) for process in started]
        finally:
            for process in started:
                process.kill()
        if any(codes):
            said = "\n".join(path.read_text()[-2000:] for path in sorted(Path(out).glob("log-*")))
            raise SystemExit(f"error: the processes ended with {codes}\n{said}")
        steps = [r.event for r in read_events(run / "events.jsonl")]
        own = [e for e in steps if isinstance(e, StepCompleted) and e.step > setup.unmeasured]
        return {**means(own, setup), **counted}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def start(words: Sequence[str], out: Path, size: int, number: int) -> subprocess.Popen[bytes]:
    """Start one of the processes of a run, on a core of its own."""
    environment = os.environ | {"ORPO_MLX_HOME": str(out)}
    if size > 1:
        environment |= {"MLX_RANK": str(number), "MLX_HOSTFILE": str(out / "hosts.json")}
    with (out / f"log-{number}").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "orpo_mlx.train", *words],
            env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            preexec_fn=pinning(number),
        )  # fmt: skip


def pinning(number: int) -> Callable[[], None] | None:
    """Return what pins a process that is being started to its core."""
    places = cores()
    if not places:
        return None
    return partial(os.sched_setaffinity, 0, {places[number % len(places)]})


@dataclass(frozen=True)
class Reading:
    """What was counted when a step had ended.

    Attributes:
        wire_bytes: that the loopback device had sent.
        user_seconds: CPU time of all processes of the run.
    """

    step: int
    wire_bytes: int
    user_seconds: float


def watch(
    events: Path, started: Sequence[subprocess.Popen[bytes]], setup: Setup
) -> dict[str, float]:
    """Return bytes on the wire and CPU time of a measured step, read as events of steps appear."""
    readings: list[Reading] = []
    done, goal = 0, setup.unmeasured + setup.steps
    while done < goal and all(not process.poll() for process in started):
        time.sleep(PAUSE)
        done, before = last_step(events), done
        if done >= max(setup.unmeasured, before + 1):
            readings.append(Reading(done, wire_bytes(), user_seconds(started)))
    if len(readings) < 2:
        return {}
    first, last = readings[0], readings[-1]
    steps = last.step - first.step
    return {
        "wire_bytes_per_step": (last.wire_bytes - first.wire_bytes) / steps,
        "user_seconds_per_step": (last.user_seconds - first.user_seconds) / steps,
    }


def last_step(events: Path) -> int:
    """Return the last step that is recorded, 0 if there is none yet."""
    try:
        lines = events.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    found = [line for line in lines if '"StepCompleted"' in line]
    return int(json.loads(found[-1])["step"]) if found else 0


def wire_bytes() -> int:
    """Return what the loopback device has sent so far."""
    devices = psutil.net_io_counters(pernic=True)
    return next(devices[name].bytes_sent for name in ("lo", "lo0") if name in devices)


def user_seconds(started: Sequence[subprocess.Popen[bytes]]) -> float:
    """Return the user CPU time of processes that are there."""
    return sum(psutil.Process(process.pid).cpu_times().user for process in started)


def free_ports(count: int) -> list[int]:
    """Return ports in a row that nobody listens at; the one after them is free, too."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as server:
            first = server.getsockname()[1]
        try:
            for port in range(first, first + count + 1):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return list(range(first, first + count))


# --- numbers


def means(steps: Sequence[StepCompleted], setup: Setup) -> dict[str, float]:
    """Return the means of steps, one event each."""
    seconds = sum(step.step_seconds for step in steps)
    return {
        "pairs_per_second": setup.pairs_per_step * len(steps) / seconds,
        "seconds_per_step": seconds / len(steps),
        "wait_seconds": statistics.fmean(step.wait_seconds for step in steps),
        "exchange_seconds": statistics.fmean(step.exchange_seconds for step in steps),
        "busiest_share": busiest(steps),
    }


def busiest(steps: Sequence[StepCompleted]) -> float:
    """Return what the process with most tokens had of a step, on average."""
    return statistics.fmean(
        max(step.peer_tokens) / sum(step.peer_tokens) if step.peer_tokens else 1.0 for step in steps
    )


def medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median of each number that all runs have."""
    names = set.intersection(*(set(run) for run in runs))
    return {name: statistics.median(run[name] for run in runs) for name in sorted(names)}


def row(
    rank: int, size: int, payload: int, found: dict[str, float], alone: dict[str, float]
) -> dict[str, float]:
    """Return a line of the table: what was measured, and what was computed beside it."""
    times = found["pairs_per_second"] / alone["pairs_per_second"]
    return {
        "rank": rank,
        "processes": size,
        "payload_bytes": payload,
        **found,
        "times_as_fast": times,
        "efficiency": times / size,
        "exchange_share": found["exchange_seconds"] / found["seconds_per_step"],
        "computed_bytes_per_step": size * ring_bytes(payload, size),
    }


def model_of(setup: Setup, folder: Path, rank: int, payload: int, alone: float) -> dict[str, Any]:
    """Return how many times as fast 1, 2, ... Macs would be as one, by the speed of their link.

    Assumed: each computes as fast as the one process measured; a step waits for whom has most
    tokens of it, by the batches of this run; the exchange follows the step and takes its bytes by
    the speed of the link, and HOP_SECONDS a hop; nothing else takes time.
    """
    config, macs = build_config(setup.settings(folder, rank)), range(1, MOST_MACS + 1)
    lengths = [
        Lengths(len(r["prompt_ids"]), len(r["chosen_ids"]), len(r["rejected_ids"]))
        for r in random_pairs(setup.random())
    ]
    shares = [share_out(divided(config, m), WAYS["packed"], lengths, m) for m in macs]
    assert all(shares)
    most = [share.busiest for share in shares if share]
    lines = {
        name: [
            alone / step_seconds(alone, share, ring_seconds(payload, m, gbit))
            for m, share in zip(macs, most, strict=True)
        ]
        for name, gbit in LINKS.items()
    }
    return {
        "rank": rank, "payload_bytes": payload, "alone_seconds": alone, "macs": list(macs),
        "no exchange": [1 / share for share in most], **lines,
    }  # fmt: skip


# --- what is shown


def describe(result: dict[str, Any]) -> str:
    """Return the table in Markdown, and what the model assumes."""
    lines = [
        "| rank | adapter | processes | pairs/s | times one | efficiency | busiest has | s a step "
        "| user CPU s | exchange | wait | wire per step | computed |",
        "| --- " * 13 + "|",
        *(_line(one) for one in result["rows"]),
        "",
        f"Macs are modelled: all as fast as one process here, {HOP_SECONDS * 1000:g} ms a hop.",
    ]
    for one in result["models"]:
        two = ", ".join(f"{one[name][1]:.2f} over {name}" for name in LINKS)
        lines.append(f"rank {one['rank']}, {one['alone_seconds']:.2f} s a step: 2 Macs {two}")
    return "\n".join(lines)


def _line(one: dict[str, float]) -> str:
    wire, user = one.get("wire_bytes_per_step"), one.get("user_seconds_per_step")
    cells = [
        f"{one['rank']}", f"{one['payload_bytes'] / 1e6:.2f} MB", f"{one['processes']}",
        f"{one['pairs_per_second']:.2f}", f"{one['times_as_fast']:.2f}",
        f"{one['efficiency']:.0%}", f"{one['busiest_share']:.1%}",
        f"{one['seconds_per_step']:.2f}", "" if user is None else f"{user:.2f}",
        f"{1000 * one['exchange_seconds']:.1f} ms, {one['exchange_share']:.1%}",
        f"{1000 * one['wait_seconds']:.0f} ms",
        "" if wire is None else f"{wire / 1e6:.2f} MB",
        f"{one['computed_bytes_per_step'] / 1e6:.2f} MB",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def draw(models: Sequence[dict[str, Any]]) -> str:
    """Return an SVG: for each rank, times as fast by the number of Macs, a line for each link."""
    charts = []
    for index, one in enumerate(models):
        title = (
            f"Model, not measured: times as fast as one Mac (adapter "
            f"{one['payload_bytes'] / 1e6:.1f} MB, {one['alone_seconds']:.2f} s a step in one)"
        )
        series = [Series(name, one["macs"], one[name]) for name in ("no exchange", *LINKS)]
        charts.append(chart_svg(title, "Macs", series, 360.0 * index))
    return svg_page(charts)


if __name__ == "__main__":
    sys.exit(main())

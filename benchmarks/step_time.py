"""Time optimizer steps of the trainer on a random model and random pairs.

    python benchmarks/step_time.py
    python benchmarks/step_time.py --hidden 512 --layers 8 --grad-checkpoint --json

It goes through `orpo_mlx.train` alone, so the same file measures any revision that has it. To
compare two of them use compare.py: two numbers of this file, measured one after the other, differ
by whatever else the machine was doing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from workload import Workload, model_folder, pairs_file


def main(argv: Sequence[str] | None = None) -> int:
    """Make the workload, train on it, print what was measured."""
    from orpo_mlx.errors import OrpoError

    args = build_parser().parse_args(argv)
    workload = Workload(**{f.name: getattr(args, f.name) for f in fields(Workload)})
    with tempfile.TemporaryDirectory(prefix="orpo-mlx-benchmark-") as temporary:
        folder = Path(temporary)
        maker = [sys.executable, str(Path(__file__).with_name("workload.py"))]
        subprocess.run([*maker, str(folder), json.dumps(asdict(workload))], check=True)
        try:
            measured = measure(workload, trainer_settings(args, folder), args.warmup_steps)
        except OrpoError as error:
            print(f"error: {error.message}\n{error.what_to_do}", file=sys.stderr)
            return 2
    print(json.dumps(measured) if args.json else describe(measured))
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the command line: the workload, the trainer's settings, how long to measure."""
    parser = argparse.ArgumentParser(
        description="Time optimizer steps.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    made = parser.add_argument_group("model and pairs, made at random")
    made.add_argument("--hidden", type=int, default=Workload.hidden, help="width")
    made.add_argument("--layers", type=int, default=Workload.layers, help="blocks")
    made.add_argument("--heads", type=int, default=Workload.heads, help="attention heads")
    made.add_argument("--vocab", type=int, default=Workload.vocab, help="tokens")
    made.add_argument(
        "--quantize", dest="bits", type=int, default=0, help="bits of the base; 0 = none"
    )
    made.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default=Workload.dtype,
        help="of the weights that are not quantized",
    )  # fmt: skip
    made.add_argument("--pairs", type=int, default=Workload.pairs, help="pairs in the data")
    made.add_argument("--prompt-tokens", type=int, default=Workload.prompt_tokens, help="median")
    made.add_argument(
        "--response-tokens", type=int, default=Workload.response_tokens, help="median"
    )
    made.add_argument(
        "--length-spread",
        type=float,
        default=Workload.length_spread,
        help="sigma of the log-normal lengths; 0 = all alike",
    )
    made.add_argument("--seed", type=int, default=Workload.seed, help="of model and pairs")
    trainer = parser.add_argument_group("trainer")
    trainer.add_argument("--micro-batch-size", type=int, default=4, help="pairs per forward pass")
    trainer.add_argument("--accumulation", type=int, default=1, help="micro-batches per step")
    trainer.add_argument("--rank", type=int, default=8, help="of the adapter")
    trainer.add_argument("--targets", default="all", help="layers with an adapter: q_proj,v_proj")
    trainer.add_argument("--grad-checkpoint", action="store_true", help="recompute activations")
    trainer.add_argument(
        "--set",
        action="append",
        type=_name_and_value,
        default=[],
        metavar="NAME=VALUE",
        help="any other setting of the trainer",
    )
    run = parser.add_argument_group("measurement")
    run.add_argument("--steps", type=_at_least(1), default=10, help="steps that are timed")
    run.add_argument("--warmup-steps", type=_at_least(0), default=2, help="steps before, not timed")
    run.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _at_least(minimum: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        number = int(text)
        if number < minimum:
            raise argparse.ArgumentTypeError(f"{text}: needs at least {minimum}")
        return number

    return convert


def _name_and_value(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"{text}: needs NAME=VALUE")
    return name, value


def trainer_settings(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the settings of the run; whatever is not named has the trainer's default."""
    settings: dict[str, Any] = {
        "model": str(model_folder(folder)),
        "data": str(pairs_file(folder)),
        "run_dir": str(folder / "run"),
        "order": "file",  # the same pairs in the same steps, whatever a revision does to the order
        "valid_fraction": 0,
        "max_seq_length": 5 * (args.prompt_tokens + args.response_tokens),  # nothing is cut
        "micro_batch_size": args.micro_batch_size,
        "grad_accumulation_steps": args.accumulation,
        "rank": args.rank,
        "target_modules": args.targets,
        "num_layers": -1,
        "steps": args.warmup_steps + args.steps,
        "report_every": 1,
        "save_every": 0,
    }
    # Only if asked for, so that a revision without the setting can be measured.
    if args.grad_checkpoint:
        settings["grad_checkpoint"] = "on"
    return settings | dict(args.set)


@dataclass
class StepMeter:
    """Listens to a run and notes what each step took.

    Attributes:
        steps: the run's own reports, one per step.
        cpu_seconds: user CPU time of all threads from the end of the step before.
    """

    steps: list[Any] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    _mark: float = 0.0

    def handle(self, event: Any, line: str = "") -> None:
        """Take in one event of the run."""
        import mlx.core as mx

        now = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        kind = type(event).__name__
        if kind == "RunStarted":
            mx.reset_peak_memory()  # loading the model is not a step
        elif kind == "StepCompleted":
            self.steps.append(event)
            self.cpu_seconds.append(now - self._mark)
        # The checkpoint before the first step moves the mark too: saving is not a step either.
        self._mark = now

    def catch_up(self, events: Iterable[Any]) -> None:
        """Nothing happened before; part of the interface."""

    def progress(self, done: int, total: int, label: str, unit: str) -> None:
        """Nothing is downloaded; part of the interface."""

    def close(self) -> None:
        """Nothing to put in order; part of the interface."""


def measure(workload: Workload, settings: dict[str, Any], warmup_steps: int) -> dict[str, Any]:
    """Train once and return the measurements with their conditions.

    Returns:
        Times in seconds or milliseconds, memory in bytes; see README.md for each.
    """
    import orpo_mlx
    from orpo_mlx.config import build_config

    meter = StepMeter()
    config = build_config(settings)
    orpo_mlx.train(config, report=meter)
    timed, cpu = meter.steps[warmup_steps:], meter.cpu_seconds[warmup_steps:]
    before = meter.steps[warmup_steps - 1] if warmup_steps else None
    seconds = [event.step_seconds for event in timed]
    pairs = timed[-1].pairs - (before.pairs if before else 0)
    tokens = timed[-1].tokens - (before.tokens if before else 0)
    return {
        "pairs_per_second": pairs / sum(seconds),
        "tokens_per_second": tokens / sum(seconds),
        "step_ms": 1000 * statistics.median(seconds),
        "cpu_seconds_per_step": sum(cpu) / len(cpu),
        "peak_memory_bytes": timed[-1].peak_memory_bytes,
        "peak_rss_bytes": peak_rss_bytes(),
        "loss": timed[-1].value("loss"),
        "step_seconds": seconds,
        "conditions": conditions(workload, config, warmup_steps),
    }


def peak_rss_bytes() -> int:
    """Return the largest resident size of this process so far."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else 1024 * size  # kilobytes on Linux


def conditions(workload: Workload, config: Any, warmup_steps: int) -> dict[str, Any]:
    """Return what a number means nothing without."""
    import mlx.core as mx

    import orpo_mlx

    made_here = {"model", "data", "run_dir"}
    return {
        "workload": asdict(workload),
        "settings": config.model_dump(exclude=made_here),
        "warmup_steps": warmup_steps,
        "device": str(mx.default_device()),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "load": os.getloadavg()[0],
        # On Linux a preloaded BLAS changes the speed by several times.
        "preload": Path(os.environ.get("LD_PRELOAD", "")).name,
        "python": platform.python_version(),
        "mlx": importlib.metadata.version("mlx"),
        "mlx_lm": importlib.metadata.version("mlx-lm"),
        "code": str(Path(orpo_mlx.__file__).resolve().parent),
    }


def describe(measured: dict[str, Any]) -> str:
    """Return the measurements as lines for a reader."""
    about, steps = measured["conditions"], len(measured["step_seconds"])
    return "\n".join(
        [
            f"step         {measured['step_ms']:.1f} ms (median of {steps})",
            f"throughput   {measured['pairs_per_second']:.2f} pairs/s, "
            f"{measured['tokens_per_second']:.0f} tokens/s",
            f"CPU          {measured['cpu_seconds_per_step']:.3f} s per step (user, all threads)",
            f"memory       {measured['peak_memory_bytes'] / 1e6:.1f} MB peak in MLX, "
            f"{measured['peak_rss_bytes'] / 1e6:.1f} MB peak of the process",
            f"loss         {measured['loss']:.5f} at the last step",
            f"measured on  {about['machine']}, {about['device']}, load {about['load']:.1f}, "
            f"mlx {about['mlx']}, mlx-lm {about['mlx_lm']}",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())

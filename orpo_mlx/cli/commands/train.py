"""`orpo-mlx train`, `python -m orpo_mlx.train`, `orpo-mlx resume`."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from orpo_mlx.cli.exit_codes import run_command
from orpo_mlx.cli.parser import (
    Parser,
    TextAction,
    TextRequested,
    add_debug_option,
    add_help_option,
    add_json_option,
    missing_run,
    version_text,
)
from orpo_mlx.cli.peers.hosts import reported_status, train_on_hosts
from orpo_mlx.cli.peers.joined import joined_peers, run_peer
from orpo_mlx.cli.run_report import build_report
from orpo_mlx.cli.runs.sweep import SweptRun, queue_sweep
from orpo_mlx.cli.settings_options import (
    NEEDED,
    Layer,
    add_settings,
    demo_layer,
    file_layer,
    resumed_layer,
    show_config,
)
from orpo_mlx.cli.terminal import print_error
from orpo_mlx.config import TrainConfig, build_config
from orpo_mlx.config.declaration import GROUPS
from orpo_mlx.config.division import divided
from orpo_mlx.config.file import expanded, with_absolute_paths
from orpo_mlx.distributed.world import MOST_PROCESSES, World, read_world
from orpo_mlx.errors import ConfigError, OrpoError
from orpo_mlx.models.command_buffers import choose_command_buffers
from orpo_mlx.runs import events
from orpo_mlx.runs.control import ended_by_signals
from orpo_mlx.runs.directory import (
    RunDirectory,
    run_place,
)
from orpo_mlx.runs.event_text import cadence_line
from orpo_mlx.runs.group.like import adapter_of, settings_like
from orpo_mlx.runs.group.sweep import changes_text, combinations, parse_sweeps
from orpo_mlx.runs.listener import RunListener
from orpo_mlx.runs.listing import find_run
from orpo_mlx.training.train import resume, train

_EXAMPLES = """\
examples:
  {prog} --demo
      train a tiny model on tiny pairs in about a minute, to see how a run looks
  {prog} --model mlx-community/Qwen3-0.6B-4bit --data pairs.jsonl
      train on your own pairs, one a line:
      {{"prompt": "...", "chosen": "...", "rejected": "..."}}
"""


def build_train_parser(prog: str = "python -m orpo_mlx.train") -> Parser:
    """Return the parser of the training command: every setting, grouped, and what runs it."""
    parser = Parser(
        prog,
        "Train a LoRA adapter on preference pairs with ORPO.\n"
        "Flags win over the --config file or the run of --like, these over the defaults.",
        _EXAMPLES.format(prog=prog),
        usage=f"{prog} --model MODEL --data FILE [options]",
    )
    _add_actions(parser)
    add_settings(parser, GROUPS)
    return parser


def _add_actions(parser: Parser) -> None:
    group = parser.add_argument_group("What to do")
    add_help_option(group)
    group.add_argument(
        "--version", action=TextAction, make_text=version_text, help="Show the version."
    )
    group.add_argument(
        "--config", metavar="FILE", help="Read settings from a TOML file; --show-config writes one."
    )
    group.add_argument(
        "--like",
        metavar="RUN",
        help="Begin with the settings of an earlier run; flags win over them. With other data, "
        "model or objective, what was said of the old one is left out.",
    )
    group.add_argument(
        "--from",
        metavar="adapter|last|STEP",
        help="With --like: go on from that run's adapter, or a checkpoint: the last, or of a step.",
    )
    group.add_argument(
        "--sweep",
        action="append",
        metavar="NAME=A,B,C",
        help="Train a run for each value, one after the other; repeated, for each combination. "
        "They follow in the background: `orpo-mlx queue`.",
    )
    group.add_argument(
        "--show-config",
        action="store_true",
        help="Print every setting and where it came from, as a settings file, and end.",
    )
    group.add_argument(
        "--demo", action="store_true", help="Train the built-in tiny model on built-in pairs."
    )
    group.add_argument(
        "--resume",
        metavar="RUN",
        help="Go on with a stopped run (its id or folder) from its newest checkpoint.",
    )
    group.add_argument(
        "--processes",
        metavar="N",
        type=int,
        help="Train with N processes on this machine.",
    )
    group.add_argument(
        "--hosts",
        metavar="FILE",
        help="Train on several machines, a process each: the hostfile of mlx.launch, this machine "
        "first.",
    )
    group.add_argument(
        "--dry-run", action="store_true", help="Prepare everything, show it, and train nothing."
    )
    group.add_argument("--quiet", action="store_true", help="Print errors and the result only.")
    add_json_option(group, "Print events as JSON lines.")
    add_debug_option(group)


def parse_train(
    argv: Sequence[str] | None = None, prog: str = "python -m orpo_mlx.train"
) -> TrainCommand:
    """Read a training command line.

    Args:
        argv: the words after the program's name; default: those of this process.
        prog: the program's name in help and advice.

    Raises:
        ConfigError: listing every problem.
        RunError: --resume names no run.
        TextRequested: a text was asked for.
    """
    given = build_train_parser(prog).parse(sys.argv[1:] if argv is None else argv)
    extras = {key: given.pop(key, None) for key in _EXTRAS}
    _check_extras(extras)
    flags = Layer(given, {name: "--" + name.replace("_", "-") for name in given})
    layers = [*file_layer(extras["config"]), flags]
    if extras["like"]:
        layers.insert(0, _like(extras, flags))
    run = find_run(extras["resume"], given.get("runs_dir")) if extras["resume"] else None
    base = resumed_layer(run) if run else demo_layer(layers) if extras["demo"] else Layer({}, {})
    merged = base
    for layer in layers:
        merged = merged.under(layer)
    sweep = _sweep(extras["sweep"] or [], merged, flags)
    config = sweep[0].config if sweep else _config(merged)
    if extras["show_config"]:
        raise TextRequested(show_config(config, merged.origins))
    require_model_and_data(config, prog, run)
    chosen = {name for layer in layers for name in layer.values}
    if run:
        _require_own_place_and_start(config, run, base.values.get("init_adapter"))
    return TrainCommand(
        config=config,
        origins=merged.origins,
        sweep=sweep,
        demo=bool(extras["demo"]),
        resume=run,
        resume_overrides={name: getattr(config, name) for name in chosen} if run else {},
        dry_run=bool(extras["dry_run"]),
        output="quiet" if extras["quiet"] else "json" if extras["json"] else "rich",
        processes=extras["processes"] or 1,
        hosts=extras["hosts"],
        debug=bool(extras["debug"]),
    )


_EXTRAS = (
    "config", "like", "from", "sweep", "show_config", "demo", "resume", "processes", "hosts",
    "dry_run", "quiet", "json", "debug",
)  # fmt: skip
_EITHER = (
    ("quiet", "json"), ("demo", "resume"), ("like", "config"), ("like", "demo"), ("like", "resume"),
    ("sweep", "resume"), ("sweep", "show_config"), ("sweep", "processes"),
    ("dry_run", "processes"), ("hosts", "processes"), ("hosts", "sweep"), ("hosts", "dry_run"),
)  # fmt: skip


def _check_extras(extras: dict[str, Any]) -> None:
    for one, other in _EITHER:
        if extras[one] and extras[other]:
            flags = f"--{one} and --{other}".replace("_", "-")
            raise ConfigError(f"{flags}: give only one of both", "Leave one out.")
    if (count := extras["processes"]) is not None and not 1 <= count <= MOST_PROCESSES:
        raise ConfigError(
            f"--processes {count}: needs a number from 1 to {MOST_PROCESSES}", "Correct it."
        )
    if extras["from"] and not extras["like"]:
        raise ConfigError(
            f"--from {extras['from']}: which run's?",
            "Name it with --like RUN; --init-adapter FOLDER starts from any adapter.",
        )


def _config(layer: Layer) -> TrainConfig:
    return with_absolute_paths(build_config(layer.values, layer.origins))


def _sweep(texts: Sequence[str], merged: Layer, flags: Layer) -> list[SweptRun]:
    """Return the runs of --sweep, [] without any."""
    sweeps = parse_sweeps(texts)
    for name in (*sweeps, "run_dir"):
        if texts and name in flags.values:
            flag = flags.origins[name]
            raise ConfigError(f"--sweep and {flag}: give only one of both", f"Leave out {flag}.")
    runs = []
    for changes in combinations(sweeps) if sweeps else []:
        origins = {name: f"--sweep {name} ({changes_text(changes)})" for name in changes}
        runs.append(SweptRun(_config(merged.under(Layer(changes, origins))), changes))
    for first, second in itertools.combinations(runs, 2):
        if first.config == second.config:
            names = f"{changes_text(first.changes)} and {changes_text(second.changes)}"
            raise ConfigError(f"--sweep: {names} are the same run", "Leave one out.")
    return runs


def _like(extras: dict[str, Any], flags: Layer) -> Layer:
    """Return the settings of --like, with the adapter of --from."""
    run = find_run(extras["like"], flags.values.get("runs_dir"))
    begin = {}
    if extras["from"]:
        if "init_adapter" in flags.values:
            raise ConfigError(
                f"--from {extras['from']} and --init-adapter: give only one of both",
                "Leave one out.",
            )
        begin = {"init_adapter": str(adapter_of(run, extras["from"]))}
    values = {**settings_like(run, {**flags.values, **begin}), **begin}
    return Layer(values, dict.fromkeys(values, f"--like {run.id}"))


def _require_own_place_and_start(config: TrainConfig, run: RunDirectory, start: str | None) -> None:
    if config.init_adapter != start:
        raise ConfigError(
            f"--init-adapter {config.init_adapter}: a resumed run goes on with its own adapter",
            "Leave out --init-adapter, or leave out --resume to start a new run from it.",
        )
    if config.run_dir and expanded(config.run_dir).absolute() != run.path.absolute():
        raise ConfigError(
            f"--run-dir {config.run_dir}: a resumed run stays in its folder, {run.path}",
            "Leave out --run-dir; to go on elsewhere copy the folder and resume the copy.",
        )


def require_model_and_data(config: TrainConfig, prog: str, run: RunDirectory | None = None) -> None:
    """Refuse settings that lack what has no default."""
    missing = [f"--{name}" for name in NEEDED if not getattr(config, name)]
    if missing and run:
        raise ConfigError(
            f"{run.config_file}: does not say {' and '.join(missing)}, so the run cannot go on",
            "Start it again as a new run.",
        )
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)}: needed to train",
            f"{prog} --demo\n{prog} --model mlx-community/Qwen3-0.6B-4bit --data pairs.jsonl",
        )


Output = Literal["rich", "quiet", "json"]


@dataclass(frozen=True)
class TrainCommand:
    """What a training command line asks for.

    Attributes:
        config: the validated settings; of a resumed run its own, with `resume_overrides` applied.
        origins: where each setting that is no default came from ("--rank", "run.toml: rank").
        sweep: the runs of --sweep, each validated; `config` is then that of the first.
        resume: the run to go on with.
        resume_overrides: settings given besides --resume, validated.
        processes: how many of this machine take part.
        hosts: a hostfile; the run is started through mlx.launch.
    """

    config: TrainConfig
    origins: dict[str, str] = field(default_factory=dict)
    sweep: list[SweptRun] = field(default_factory=list)
    demo: bool = False
    resume: RunDirectory | None = None
    resume_overrides: dict[str, Any] = field(default_factory=dict)
    dry_run: bool = False
    output: Output = "rich"
    processes: int = 1
    hosts: str | None = None
    debug: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m orpo_mlx.train`; 0 done, 1 run failed, 2 bad input, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    with reported_status() as status:
        code = run_command(
            lambda: _run(words, "python -m orpo_mlx.train"), debug="--debug" in words
        )
        status.append(code)
        return code


def train_command(argv: Sequence[str]) -> int:
    """Run `orpo-mlx train`."""
    return _run(argv, "orpo-mlx train")


def resume_command(argv: Sequence[str]) -> int:
    """Run `orpo-mlx resume`."""
    if argv and not argv[0].startswith("-"):
        return train_command(["--resume", *argv])
    if list(argv) in (["--help"], ["-h"]):
        raise TextRequested(
            "usage: orpo-mlx resume RUN [options of train]\n\n"
            "Go on with a run from its newest checkpoint. `orpo-mlx train --help` lists the "
            "options.\n"
        )
    raise missing_run("resume")


def _run(words: Sequence[str], prog: str) -> int:
    """Train as the words say, alone, with peers, or as a peer of another process."""
    world = read_world(os.environ)
    if world and world.rank:
        return run_peer(world, lambda: _settings_of_peer(words, prog, world))
    command = parse_train(words, prog)
    if command.hosts:
        return train_on_hosts(command.hosts, without_option(words, "--hosts"))
    size = world.size if world else command.processes
    command = replace(command, config=_divided(command, size))
    report = build_report(command.output)
    try:
        if command.sweep:
            is_dry = command.dry_run
            return queue_sweep(command.sweep, dry_run=is_dry, output=command.output)
        with ended_by_signals():
            if command.dry_run:
                return dry_run(command.config, report)
            return _train(command, words, report)
    finally:
        report.close()


def _train(command: TrainCommand, words: Sequence[str], report: RunListener) -> int:
    def say(label: str) -> None:
        report.progress(0, 0, label, "phase")

    others, seconds = without_option(words, "--processes"), command.config.peer_timeout
    with joined_peers(command.processes, others, seconds, say) as peers:
        peers.watch.tell = lambda error: (
            print_error(error) if isinstance(error, OrpoError) else None
        )
        if command.resume is None:
            return train(command.config, report=report, peers=peers).exit_code
        overrides = command.resume_overrides
        return resume(command.resume, overrides, report=report, peers=peers).exit_code


def without_option(words: Sequence[str], name: str) -> list[str]:
    """Return the words without an option and its value, which are not for peers."""
    kept, skip = [], False
    for word in words:
        if not skip and not word.startswith(f"{name}="):
            skip = word == name
            kept += [] if skip else [word]
        else:
            skip = False
    return kept


def _settings_of_peer(words: Sequence[str], prog: str, world: World) -> TrainConfig | None:
    """Return the settings of a peer; of a resumed run, which may lie elsewhere, process 0 knows."""
    is_resumed = any(word.partition("=")[0] == "--resume" for word in words)
    if is_resumed:
        return None
    return _divided(parse_train(words, prog), world.size)


def _divided(command: TrainCommand, size: int) -> TrainConfig:
    """Return settings with which each of `size` processes has something to do in a step.

    What the user says of it stands, and so does a run that goes on.
    """
    if command.resume or "micro_batch_parts" in command.origins:
        return command.config
    return divided(command.config, size)


def dry_run(config: TrainConfig, report: RunListener) -> int:
    """Prepare everything, show what would be trained on, and stop; writes nothing."""
    choose_command_buffers(config.command_buffers)
    from orpo_mlx.adapters.lora import count_parameters
    from orpo_mlx.planning.disk import checkpoint_bytes
    from orpo_mlx.training.prepare import prepare
    from orpo_mlx.training.start import data_event, require_disk, start_notes

    prepared = prepare(config, report.progress)
    prepared = require_disk(prepared, run_place(config))
    report.handle(data_event(prepared))
    for fact in (*prepared.data.facts, *prepared.speed.facts):
        report.handle(events.NoteLogged("info", fact))
    trainable, _ = count_parameters(prepared.model)
    each = checkpoint_bytes(config, trainable)
    line = cadence_line(asdict(prepared.cadence), prepared.total_steps, each)
    report.handle(events.NoteLogged("info", line.split(maxsplit=1)[1]))
    for note in start_notes(prepared):
        report.handle(events.NoteLogged("warning", note))
    steps = "1 step" if prepared.total_steps == 1 else f"{prepared.total_steps} steps"
    text = f"dry run: {steps} would follow; nothing was written"
    report.handle(events.NoteLogged("info", text))
    return 0

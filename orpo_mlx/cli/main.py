"""`orpo-mlx`: the table of commands. Each is a module, loaded when its word is given."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from orpo_mlx.cli.command import CliCommand
from orpo_mlx.cli.exit_codes import run_command
from orpo_mlx.cli.parser import version_text
from orpo_mlx.cli.terminal import print_text
from orpo_mlx.errors import ConfigError
from orpo_mlx.text.spelling import near_hint

COMMANDS: dict[str, CliCommand] = {
    "tui": CliCommand(
        "[options]",
        "open the app, as `orpo-mlx` alone does",
        "orpo_mlx.cli.commands.tui",
        "open_app",
    ),
    "train": CliCommand(
        "[options]",
        "train an adapter; `orpo-mlx train --help` lists the settings",
        "orpo_mlx.cli.commands.train",
        "train_command",
    ),
    "verify": CliCommand(
        "--model M --data D [--json]",
        "check loss, gradients and resuming on your data",
        "orpo_mlx.cli.commands.verify",
    ),
    "fit": CliCommand(
        "--model M [--memory 16GB] [--probe] [--processes N]",
        "estimate the memory of a training, and what fits; --probe measures its time",
        "orpo_mlx.cli.commands.fit",
    ),
    "data": CliCommand(
        "check|search|convert|split|pairs ...",
        "look at, find, convert and make data",
        "orpo_mlx.cli.data.main",
    ),
    "evaluate": CliCommand(
        "RUN [--against OTHER_RUN]",
        "compare adapter and base on held-out pairs: has it helped?",
        "orpo_mlx.cli.commands.evaluate",
    ),
    "judge": CliCommand(
        "RUN [--judge-model M | --judge-url URL]",
        "compare answers of adapter and base, blind: you, or a model",
        "orpo_mlx.cli.judge.main",
    ),
    "chat": CliCommand(
        "RUN [--ask PROMPTS [--checkpoints]]",
        "talk with adapter and base; ask each checkpoint the same",
        "orpo_mlx.cli.chat.main",
    ),
    "score": CliCommand(
        "RUN SRC [--out FILE.jsonl]",
        "let a reward model rate answers",
        "orpo_mlx.cli.commands.score",
    ),
    "export": CliCommand(
        "RUN --to FORMAT [--out PATH]",
        "write an adapter for other programs; see --list",
        "orpo_mlx.cli.commands.export",
    ),
    "serve": CliCommand(
        "RUN... [--port N]",
        "let base and adapters answer other programs, as OpenAI's API",
        "orpo_mlx.cli.serving.serve",
    ),
    "adapter": CliCommand(
        "import PEFT_FOLDER --out FOLDER",
        "turn a PEFT adapter into one for mlx-lm",
        "orpo_mlx.cli.commands.adapter",
    ),
    "completion": CliCommand(
        "bash|zsh|fish",
        "print what completes these commands in a shell",
        "orpo_mlx.cli.completion.main",
    ),
    "config": CliCommand(
        "init [FILE]",
        "write a settings file with all settings, explained",
        "orpo_mlx.cli.config.main",
    ),
    "doctor": CliCommand(
        "[--self-test] [--hosts FILE] [--json]",
        "look at this machine, or those of a hostfile; train the demo as a test",
        "orpo_mlx.cli.commands.doctor",
    ),
    "bench": CliCommand(
        "[--short] [--only PART] [--offline]",
        "measure and check everything on this machine: a report to send in",
        "orpo_mlx.cli.commands.bench",
    ),
    "runs": CliCommand(
        "[--tag T] [--json]", "list all runs", "orpo_mlx.cli.commands.runs", "list_command"
    ),
    "note": CliCommand(
        'RUN ["text"] [--name N] [--tag T]',
        "say something about a run: a note, a name, tags",
        "orpo_mlx.cli.runs.note",
    ),
    "compare": CliCommand(
        "RUN RUN...|--tag T [--sort METRIC] [--json]",
        "runs side by side: settings that differ, a result with its interval",
        "orpo_mlx.cli.runs.compare",
    ),
    "queue": CliCommand(
        "[go | stop | remove RUN...]",
        "runs of `train --sweep` that follow one another: list, go on, stop, remove",
        "orpo_mlx.cli.runs.queue",
    ),
    "rm": CliCommand("RUN... [--yes]", "move runs to the trash", "orpo_mlx.cli.runs.rm"),
    "resume": CliCommand(
        "RUN",
        "go on with a run from its newest checkpoint",
        "orpo_mlx.cli.commands.train",
        "resume_command",
    ),
    "watch": CliCommand(
        "RUN [--plain|--json]",
        "follow a run; Ctrl-C leaves it alone",
        "orpo_mlx.cli.commands.runs",
        "watch",
    ),
    "stop": CliCommand(
        "RUN [--now] [--wait]",
        "finish the step, save and end a run",
        "orpo_mlx.cli.commands.runs",
        "stop",
    ),
    "pause": CliCommand(
        "RUN", "let a run wait, memory kept", "orpo_mlx.cli.commands.runs", "pause"
    ),
    "unpause": CliCommand("RUN", "let a paused run go on", "orpo_mlx.cli.commands.runs", "unpause"),
    "checkpoint": CliCommand(
        "RUN", "save a checkpoint now", "orpo_mlx.cli.commands.runs", "checkpoint"
    ),
    "sample": CliCommand(
        "RUN", "answer the held-out prompts now", "orpo_mlx.cli.commands.runs", "sample"
    ),
    "log": CliCommand(
        "RUN --to tensorboard|wandb|trackio",
        "hand a run's metrics, settings and samples to a tracker",
        "orpo_mlx.cli.trackers.log",
    ),
    "plot": CliCommand(
        "RUN... --out FILE", "draw runs as SVG or HTML", "orpo_mlx.cli.commands.plot"
    ),
    "replay": CliCommand(
        "RUN [--speed X]",
        "play a run again, to watch it",
        "orpo_mlx.cli.commands.play",
        "replay_command",
    ),
    "simulate": CliCommand(
        "[options]",
        "play a training without a model, to try the app",
        "orpo_mlx.cli.commands.play",
        "simulate_command",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: _dispatch(words), debug="--debug" in words)


def _dispatch(words: list[str]) -> int:
    if not words and sys.stdin.isatty() and sys.stdout.isatty():
        return COMMANDS["tui"].run([])
    first = words[0] if words else "--help"
    if first in ("--help", "-h", "help"):
        return print_text(help_text())
    if first == "--version":
        return print_text(version_text())
    if first in COMMANDS:
        return COMMANDS[first].run(words[1:])
    if first.startswith("-"):  # `orpo-mlx` alone opens the app, so does it with options
        return COMMANDS["tui"].run(words)
    raise ConfigError(
        f"{first}: there is no such command{near_hint(first, list(COMMANDS))}",
        "`orpo-mlx --help` lists the commands.",
    )


def help_text() -> str:
    """Return what `orpo-mlx --help` prints."""
    usages = {f"{name} {command.usage}".strip(): command for name, command in COMMANDS.items()}
    width = max(map(len, usages))
    lines = [f"  {usage:<{width}}  {command.help}" for usage, command in usages.items()]
    return _HELP.format(commands="\n".join(lines))


_HELP = """\
usage: orpo-mlx COMMAND ...

Preference tuning (ORPO) with LoRA on mlx-lm models. RUN is the id of a run,
the beginning of an id, or the path of its folder.

commands:
{commands}

examples:
  orpo-mlx train --demo
      train a tiny model on tiny pairs in about a minute, to see how a run looks
  orpo-mlx train --model mlx-community/Qwen3-0.6B-4bit --data pairs.jsonl
      train on your own pairs, one a line:
      {{"prompt": "...", "chosen": "...", "rejected": "..."}}

`orpo-mlx COMMAND --help` explains a command, `orpo-mlx --version` shows the version.
"""

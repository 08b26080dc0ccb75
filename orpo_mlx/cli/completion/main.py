"""`orpo-mlx completion`: the script that completes commands, options and runs in a shell."""

from __future__ import annotations

from collections.abc import Sequence

from orpo_mlx.cli.parser import Parser, add_debug_option, add_help_option
from orpo_mlx.cli.terminal import print_text
from orpo_mlx.errors import ConfigError
from orpo_mlx.runs.directory import default_runs_dir
from orpo_mlx.text.spelling import did_you_mean

_SHELLS = ("bash", "zsh", "fish")


def main(argv: Sequence[str]) -> int:
    """Run `orpo-mlx completion`."""
    shell = _parser().parse(argv).get("shell")
    if shell not in _SHELLS:
        said = (
            f"{shell}: is none of them{did_you_mean(shell, _SHELLS)}" if shell else "which shell?"
        )
        raise ConfigError(
            f"orpo-mlx completion: {said}",
            f"Give one of {', '.join(_SHELLS)}; the script says where it goes.",
        )
    from orpo_mlx.cli.completion.scripts import SCRIPTS
    from orpo_mlx.cli.completion.words import all_commands

    return print_text(SCRIPTS[shell](all_commands(), str(default_runs_dir())))


def _parser() -> Parser:
    parser = Parser(
        "orpo-mlx completion",
        "Print the script that completes commands, options, their values and the names of runs.",
        'bash: eval "$(orpo-mlx completion bash)" in ~/.bashrc\n'
        'zsh:  eval "$(orpo-mlx completion zsh)" in ~/.zshrc, after compinit\n'
        "fish: orpo-mlx completion fish > ~/.config/fish/completions/orpo-mlx.fish",
        usage="orpo-mlx completion bash|zsh|fish",
    )
    add_help_option(parser)
    parser.add_argument("shell", nargs="?", metavar="|".join(_SHELLS), help="Whose script.")
    add_debug_option(parser)
    return parser

"""The completion of each shell, as a script that starts no program while one types.

Names of runs are read from the folder of runs by the shell itself, and put in as they are: nothing
in them is ever expanded.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence

from orpo_mlx.cli.completion.words import CommandWords, OptionWords

Script = Callable[[Sequence[CommandWords], str], str]


def bash_script(commands: Sequence[CommandWords], runs: str) -> str:
    """Return the script for bash, from 3.2 on.

    Args:
        commands: all of them.
        runs: the folder of runs where ORPO_MLX_HOME is not set.
    """
    return _BASH.format(
        runs=shlex.quote(runs), tops=_joined(_tops(commands)), **_cases(commands, "    ")
    )


def zsh_script(commands: Sequence[CommandWords], runs: str) -> str:
    """Return the script for zsh; arguments as of `bash_script`."""
    described = (f"{one.names[0]}:{one.help}" for one in commands if len(one.names) == 1)
    return _ZSH.format(
        runs=shlex.quote(runs),
        tops=" ".join(map(shlex.quote, described)),
        **_cases(commands, "    "),
    )


def fish_script(commands: Sequence[CommandWords], runs: str) -> str:
    """Return the script for fish; arguments as of `bash_script`."""
    lines = [_FISH.format(runs=_fish_quoted(runs))]
    for one in commands:
        inside = _fish_quoted(f"__orpo_mlx_in {' '.join(one.names)}")
        if len(one.names) == 1:
            words = f"-a {one.names[0]} -d {_fish_quoted(one.help)}"
            lines.append(f"complete -c orpo-mlx -n __orpo_mlx_first -f {words}\n")
        lines += (f"complete -c orpo-mlx -n {inside} {words}\n" for words in _fish_words(one))
    return "".join(lines)


SCRIPTS: dict[str, Script] = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}


# bash and zsh: two tables, of what follows an option and of what a command takes


def _cases(commands: Sequence[CommandWords], indent: str) -> dict[str, str]:
    values = [
        line
        for one in commands
        for option in one.options
        if option.takes != "nothing"
        for line in _value_case(one, option)
    ]
    words = [
        f"{_pattern(one)}) kind={one.takes} choices={_joined(one.choices)} "
        f"options={_joined(flag for option in one.options for flag in option.flags)} ;;"
        for one in commands
    ]
    return {
        "values": "\n".join(indent + line for line in values),
        "words": "\n".join(indent + line for line in words),
    }


def _value_case(one: CommandWords, option: OptionWords) -> Iterator[str]:
    for flag in option.flags:
        place = f"{' '.join(one.names)} {flag}"
        yield f"{shlex.quote(place)}) kind={option.takes} choices={_joined(option.choices)} ;;"


def _pattern(one: CommandWords) -> str:
    return shlex.quote(" ".join(one.names))


def _tops(commands: Sequence[CommandWords]) -> list[str]:
    return [one.names[0] for one in commands if len(one.names) == 1]


def _joined(words: object) -> str:
    return shlex.quote(" ".join(words))  # type: ignore[arg-type]


_BASH = """\
# Completion of orpo-mlx in bash. In ~/.bashrc:  eval "$(orpo-mlx completion bash)"

_orpo_mlx_runs() {{
    local folder={runs} place
    [ -n "$ORPO_MLX_HOME" ] && folder="$ORPO_MLX_HOME/runs"
    for place in "$folder"/"$1"*/; do
        [ -f "$place/config.toml" ] || continue
        place=${{place%/}}
        COMPREPLY+=("$(printf %q "${{place##*/}}")")
    done
}}

_orpo_mlx() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}}
    local place=${{COMP_WORDS[1]}} kind=nothing choices="" options="" word
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        kind=top choices={tops} options="--help --version"
    else
        if [ "$place" = data ] && [ "$COMP_CWORD" -gt 2 ]; then
            place="data ${{COMP_WORDS[2]}}"
        fi
        case "$place $prev" in
{values}
        *) case "$place" in
{words}
        esac ;;
        esac
    fi
    case "$cur" in
    -*) choices="$choices $options" kind=options ;;
    esac
    for word in $choices; do
        case "$word" in "$cur"*) COMPREPLY+=("$word") ;; esac
    done
    [ "$kind" = run ] && _orpo_mlx_runs "$cur"
    return 0
}}

complete -o default -F _orpo_mlx orpo-mlx
"""

_ZSH = """\
#compdef orpo-mlx
# Completion of orpo-mlx in zsh. In ~/.zshrc, after compinit:  eval "$(orpo-mlx completion zsh)"

_orpo_mlx_runs() {{
    local folder={runs} place
    local -a names
    [[ -n $ORPO_MLX_HOME ]] && folder=$ORPO_MLX_HOME/runs
    for place in $folder/*(N/); do
        [[ -f $place/config.toml ]] && names+=(${{place:t}})
    done
    compadd -a names
}}

_orpo_mlx() {{
    local cur=$words[CURRENT] prev=$words[CURRENT-1] place=$words[2]
    local kind=nothing choices="" options=""
    local -a tops
    if (( CURRENT == 2 )); then
        tops=({tops})
        _describe command tops
        return
    fi
    [[ $place = data && CURRENT -gt 3 ]] && place="data $words[3]"
    case "$place $prev" in
{values}
    *) case "$place" in
{words}
    esac ;;
    esac
    if [[ $cur = -* ]]; then
        compadd -- ${{=options}}
        return
    fi
    [[ -n $choices ]] && compadd -- ${{=choices}}
    [[ $kind = run ]] && _orpo_mlx_runs
    [[ $kind = (run|file) ]] && _files
    return 0
}}

(( $+functions[compdef] )) && compdef _orpo_mlx orpo-mlx
"""


# fish


def _fish_words(one: CommandWords) -> Iterator[str]:
    yield {"run": "-a '(__orpo_mlx_runs)'", "file": "-F", "word": "-f", "nothing": "-f"}[one.takes]
    if one.choices:
        yield f"-f -a {_fish_quoted(' '.join(one.choices))}"
    for option in one.options:
        names = " ".join(
            f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags
        )
        yield f"{names} {_fish_value(option)}-d {_fish_quoted(option.help)}"


def _fish_value(option: OptionWords) -> str:
    words = [*option.choices, *(["(__orpo_mlx_runs)"] if option.takes == "run" else [])]
    offered = f"-a {_fish_quoted(' '.join(words))} " if words else ""
    return {"nothing": "", "word": f"-x {offered}"}.get(option.takes, f"-r -F {offered}")


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_FISH = """\
# Completion of orpo-mlx in fish:
#   orpo-mlx completion fish > ~/.config/fish/completions/orpo-mlx.fish

function __orpo_mlx_first
    test (count (commandline -opc)) -eq 1
end

function __orpo_mlx_in
    set -l words (commandline -opc)
    set -e words[1]
    if test "$words[1]" = data; and test (count $words) -gt 1
        test "$argv" = "data $words[2]"
    else
        test "$argv" = "$words[1]"
    end
end

function __orpo_mlx_runs
    set -l folder {runs}
    set -q ORPO_MLX_HOME; and set folder $ORPO_MLX_HOME/runs
    for place in $folder/*/
        test -f $place/config.toml; and basename $place
    end
end

"""

"""How a run ended and what to do next, for the card at the end of a run; pure."""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orpo_mlx.errors import PeerLostError
from orpo_mlx.runs.directory import RunDirectory, Status
from orpo_mlx.runs.events import DONE, FailureKind, RunFailed, RunFinished
from orpo_mlx.runs.faults import TOO_LARGE, explain
from orpo_mlx.runs.peers.hosts import is_on_one_machine, resume_command
from orpo_mlx.text.formatting import counted, format_duration, visible
from tui.processes.trainer_log import newest_process
from tui.run.state import RunState
from tui.shell.commands import key_of

_SIGNALS: dict[int, tuple[str, str]] = {
    signal.SIGKILL: (
        "by the system when memory ran out, or by somebody's `kill -9`",
        "Unless you ended it: close other programs, or lower --max-seq-length or "
        "--micro-batch-size.",
    ),
    signal.SIGABRT: (
        "it gave up on an error in native code, as MLX does when Metal fails",
        "If it happens again, lower --max-seq-length or --micro-batch-size.",
    ),
    signal.SIGSEGV: (
        "a fault in native code",
        "If it happens again at the same step, update mlx and mlx-lm and report it with the log.",
    ),
    signal.SIGBUS: (
        "a fault in native code, or a file that vanished while it was read",
        "See that model and data are still in place.",
    ),
}
"""(what sends it or what it means, what to do)."""

_STEP = re.compile(r"(step\s+\d+/|validation at step|saved\s)")

_ENDS = {
    "completed": "The run is complete",
    "early_stop": "Stopped early: validation no longer improved",
    "drift": "Stopped early: drift from the base is above --stop-drift",
    "stopped": "Stopped as asked; everything is saved",
    "aborted": "Stopped without saving, as asked",
}


_NO_KEYS: Mapping[str, str] = {}


@dataclass(frozen=True)
class Card:
    """What is shown above the charts of a run that has ended, or does not answer.

    Attributes:
        cause: what happened, one or two sentences.
        remedy: what can be done, with the keys that do it.
        details: the last lines of the trainer's output, for a crash.
        changes: settings that the run may be resumed with so that it does not end so again.
        words_in: where more of `details` stands.
    """

    title: str
    cause: str
    remedy: str
    is_bad: bool = False
    details: tuple[str, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)
    words_in: str = "the Log tab"


_MOST_PARTS = 1024
"""What --micro-batch-parts takes."""


def ending_card(
    status: Status,
    state: RunState,
    log: str = "",
    keys: Mapping[str, str] = _NO_KEYS,
    *,
    exit_code: int | None = None,
    is_freed: bool = False,
) -> Card | None:
    """Return the card of a run, None while it goes on.

    Args:
        log: the end of the trainer's output.
        keys: the user's own keys by command id.
        exit_code: of the trainer, below 0 by that signal; None where nobody knows: only the app
            that started a process is told.
        is_freed: it was stopped to give its memory back for a while.
    """
    saved = state.checkpoints[-1].step if state.checkpoints else None
    key = key_of("live.resume", keys)
    resume = _resume(state, saved, key)
    if status == "crashed":
        words = newest_process(log)[0]
        fault = explain(words)
        changes = _gentler(fault.kind if fault else "other", words, state)
        resume = _resume_gentler(changes, keys) + resume
        return replace(_crash(state, log, resume, exit_code), changes=changes)
    if status == "failed" and isinstance(state.ended, RunFailed):
        changes = _gentler(state.ended.kind, state.ended.message, state)
        resume = _resume_gentler(changes, keys) + resume
        if state.ended.kind == "peer":
            return _lost_peer(state.ended, state.hosts, resume)
        return Card(
            f"Failed at step {state.ended.step}",
            f"{state.ended.message[:1].upper()}{state.ended.message[1:].rstrip('.')}.",
            # Resumed it would meet the same number again.
            f"{state.ended.what_to_do} {key_of('live.anew', keys)} plans that run here."
            if state.has_met_nan
            else f"{state.ended.what_to_do} {resume}".strip(),
            is_bad=True,
            changes=changes,
        )
    if is_freed and status == "stopped" and saved is not None:
        return Card(
            f"Paused at step {state.step}; its memory is free",
            "The trainer has saved everything and ended.",
            f"{key} loads the model again and goes on from step {saved}, now or on another day.",
        )
    if status in ("completed", "stopped") and isinstance(state.ended, RunFinished):
        return _end(state.ended, resume, keys)
    if status == "stalled":
        return Card(
            "No sign of life",
            "The trainer holds its run but has not answered for a while: a very long step, heavy "
            "swapping, or a stuck GPU.",
            f"Wait, or {key_of('live.kill', keys)} ends the process; "
            + ("the last checkpoint is safe." if state.checkpoints else "nothing is saved yet."),
            is_bad=True,
        )
    return None


def _resume(state: RunState, saved: int | None, key: str) -> str:
    """Say how the run goes on with as many processes as it had."""
    hosts = state.hosts
    again = f" with the same {len(hosts)} processes" if hosts else ""
    if is_on_one_machine(hosts):
        if saved is None:
            return f"No checkpoint was saved; {key} tries again from the beginning{again}."
        return f"{key} goes on from step {saved}{again}."
    machines = counted(len(set(hosts)), "machine")
    if saved is None:
        return f"No checkpoint was saved: start it anew on its {machines}, as you did before."
    run = RunDirectory(Path(state.started.run_path)) if state.started else None
    command = resume_command(run, hosts) if run else ""
    return (
        f"On its {machines} it goes on from step {saved} by the same mlx.launch, or by "
        f"`{command}` ({key} copies it, or goes on here alone)."
    )


def _lost_peer(ended: RunFailed, hosts: Sequence[str], resume: str) -> Card:
    """Return the card of a run that one of its processes has ended."""
    message, words = ended.message, ended.last_lines
    is_lost = ended.error == PeerLostError.__name__
    log = _log_of_peer(ended.peer or 0, hosts)
    # Of a loss the event's own advice names commands, for a terminal.
    advice = ended.what_to_do
    if is_lost:
        advice = "" if words else f"What it printed is in {log}."
    return Card(
        f"A process was lost at step {ended.step}" if is_lost else f"Failed at step {ended.step}",
        f"{message[:1].upper()}{message[1:].rstrip('.')}.",
        f"{advice} {resume}".strip(),
        is_bad=True,
        details=tuple(line for line in words.splitlines() if line.strip()),
        words_in=log,
    )


def _log_of_peer(rank: int, hosts: Sequence[str]) -> str:
    """Return where the output of a process is."""
    is_away = 0 < rank < len(hosts) and hosts[rank] != hosts[0]
    return f"a log on {visible(hosts[rank])}" if is_away else "the Log tab"


def _gentler(kind: FailureKind, words: str, state: RunState) -> dict[str, Any]:
    """Return the settings to resume with where the GPU took too long or memory ran out, else {}.

    First MLX hands over less at a time, which makes no array smaller; where it already did, or one
    array was too large, each forward pass is halved.
    """
    if kind not in ("gpu_timeout", "out_of_memory"):
        return {}
    had = state.started.config if state.started else {}
    parts = had.get("micro_batch_parts", 1)
    is_short, shorter = had.get("command_buffers") == "short", {"command_buffers": "short"}
    if not is_short and TOO_LARGE not in words:
        return shorter
    most = _most_parts(had)
    if not isinstance(parts, int) or not 0 < parts < most:
        return {}
    return {**(shorter if is_short else {}), "micro_batch_parts": min(2 * parts, most)}


def _most_parts(had: Mapping[str, Any]) -> int:
    """Return into how many a forward pass can be divided: it has no more pairs."""
    names = ["micro_batch_size"]
    if had.get("batching") != "fixed":  # by tokens a pass may have all pairs of a step
        names.append("grad_accumulation_steps")
    counts = [had.get(name) for name in names]
    known = [count for count in counts if isinstance(count, int) and count > 0]
    return min(math.prod(known), _MOST_PARTS) if len(known) == len(names) else _MOST_PARTS


def _resume_gentler(changes: Mapping[str, Any], keys: Mapping[str, str]) -> str:
    if not changes:
        return ""
    words = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in changes.items())
    return f"{key_of('live.gentler', keys)} goes on with {words}. "


def unreadable_card(reason: str, events_file: Path) -> Card:
    """Return the card of a run whose events cannot be read; what was read before stays in view."""
    return Card(
        "This run cannot be read",
        f"{events_file}: {reason}.",
        "Bring the file back, or make it readable: this screen goes on by itself.",
        is_bad=True,
    )


def crash_words(log: str, exit_code: int | None = None) -> tuple[str, str]:
    """Return (what ended a trainer, what to do), as far as is known.

    Args:
        log: its output; the app may have noted the exit code there.
    """
    text, noted = newest_process(log)
    code = noted if exit_code is None else exit_code
    how, means, advice = _exit_words(code)
    if fault := explain(text):
        cause = f"{fault.meaning} ({how})" if how else fault.meaning
        return cause, fault.advice
    if not how:
        return "its process ended without a word: killed, out of memory, or the power went", advice
    return f"{how}: {means}" if means else how, advice


def _exit_words(code: int | None) -> tuple[str, str, str]:
    """Return (how a process ended, what that means, what to do); "" for what is not known."""
    advice = "If it happens again, lower --max-seq-length or --micro-batch-size."
    if code is None or code == 0:
        return "", "", advice
    if code > 0:
        return f"its process ended with exit code {code}", "", advice
    try:
        how = f"ended by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        how = f"ended by signal {-code}"
    return how, *_SIGNALS.get(-code, ("", advice))


def _crash(state: RunState, log: str, resume: str, exit_code: int | None) -> Card:
    text = newest_process(log)[0]
    # How far it came stands above; what counts is what was said besides. The lines of carets
    # under a traceback's code say nothing.
    lines = tuple(line for line in text.splitlines() if line.strip(" ~^") and not _STEP.match(line))
    meaning, advice = crash_words(log, exit_code)
    return Card(
        f"Crashed at step {state.step}",
        f"{meaning[0].upper()}{meaning[1:]}.",
        f"{advice} {resume}",
        is_bad=True,
        details=lines[-6:],
    )


def _end(ended: RunFinished, resume: str, keys: Mapping[str, str]) -> Card:
    title = _ENDS.get(ended.reason, f"Ended: {ended.reason}")
    best = f" The best evaluation was at step {ended.best_step}." if ended.best_step else ""
    cause = f"Step {ended.step}, trained for {format_duration(ended.seconds)}.{best}"
    is_done = ended.reason in DONE
    names = ("live.result", "live.chat", "live.test", "live.export", "screen.back")
    result, chat, test, export, back = (key_of(name, keys) for name in names)
    next = (
        f"{result} shows the result, {chat} chats, {test} tests it, {export} exports it, "
        f"{back} shows all runs."
    )
    return Card(title, cause, next if is_done else f"{resume} {next}")

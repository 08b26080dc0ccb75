"""Where the processes of a run are, in words, and the command that takes such a run up again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import RunStarted, decode
from orpo_mlx.storage.regular import open_regular
from orpo_mlx.text.formatting import counted, visible

HOSTFILE = "HOSTFILE"
"""Stands for the file a run was started with, which the run does not know."""

_MARK = b'"event": "RunStarted"'


def is_on_one_machine(hosts: Sequence[str]) -> bool:
    """Tell whether all processes of a run are where its folder is.

    By equal names, not by the name of this machine: a Mac's changes with the network.
    """
    return len(set(hosts)) <= 1


def hosts_text(hosts: Sequence[str]) -> str:
    """Return who computes a run of several processes.

    >>> hosts_text(["mac", "mac"]), hosts_text(["a", "b", "a"])
    ('2 processes on mac', '3 processes: 2 on a, 1 on b')
    """
    text = counted(len(hosts), "process", "processes")
    if is_on_one_machine(hosts):
        return f"{text} on {visible(hosts[0])}"
    parts = [f"{count} on {visible(host)}" for host, count in Counter(hosts).items()]
    return f"{text}: {', '.join(parts)}"


def resume_command(run: RunDirectory, hosts: Sequence[str]) -> str:
    """Return what goes on with a run with as many processes as it had: the bytes stay the same."""
    command = f"orpo-mlx resume {run.argument}"
    if not is_on_one_machine(hosts):
        return f"{command} --hosts {HOSTFILE}"
    return f"{command} --processes {len(hosts)}" if len(hosts) > 1 else command


def newest_hosts(run: RunDirectory) -> list[str]:
    """Return where the processes of a run's newest start were; [] for one, or if unreadable."""
    newest = b""
    try:
        with open_regular(run.events_file) as file:
            for line in file:
                if _MARK in line[:64]:
                    newest = line
        event = decode(newest.decode("utf-8", errors="replace")).event if newest else None
    except (OSError, ValueError):
        return []
    return event.hosts if isinstance(event, RunStarted) else []

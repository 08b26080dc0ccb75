"""The machines of a hostfile: each is asked what `doctor` finds there, and all are compared.

They are reached as mlx.launch reaches them, by ssh without a password, 127.0.0.1 without ssh, and
run the Python of the same path.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from orpo_mlx.diagnostics.machine import Fact
from orpo_mlx.distributed.hostfile import PeerHost
from orpo_mlx.errors import ConfigError
from orpo_mlx.runs.checkpoints import versions
from orpo_mlx.storage.safe_path import child_environment
from orpo_mlx.text.formatting import visible

HERE = "127.0.0.1"
CONNECT_SECONDS = 10
"""For ssh to reach a host."""


@dataclass(frozen=True)
class HostAnswer:
    """What a host said of itself.

    Attributes:
        found: text of each fact by group and name.
        errors: what is wrong there by itself, with what to do.
        problem: why there are none, with what to do; "" if there are.
    """

    host: PeerHost
    found: dict[tuple[str, str], str] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    problem: str = ""

    def text(self, group: str, name: str) -> str:
        """Return what it said, "not installed" where it did not."""
        return self.found.get((group, name), "not installed")


def ask_hosts(hosts: Sequence[PeerHost], words: Sequence[str], seconds: float) -> list[HostAnswer]:
    """Return the answer of each host; all are asked at once.

    Args:
        hosts: of a hostfile.
        words: for `orpo-mlx doctor --json`, the same for all.
        seconds: after which a host is given up.

    Raises:
        ConfigError: naming each that did not answer, and why.
    """
    with ThreadPoolExecutor(len(hosts)) as pool:
        answers = list(pool.map(lambda host: _ask(host, words, seconds), hosts))
    if problems := [answer.problem for answer in answers if answer.problem]:
        raise ConfigError(
            "\n".join(problems), "See to it and ask again; docs/several-macs.md goes through it."
        )
    return answers


def require_equal(answers: Sequence[HostAnswer]) -> None:
    """Refuse hosts that would not train the same run.

    Raises:
        ConfigError: naming each difference to the first host.
    """
    first = answers[0]
    packages = [("versions", name) for name in versions()]
    content = [key for key in first.found if key[0] == "content"]
    wrong = [
        f"{answer.host.ssh}: {name} is {answer.text(group, name)}, "
        f"{first.host.ssh} has {first.text(group, name)}"
        for answer in answers[1:]
        for group, name in (*packages, *content)
        if answer.text(group, name) != first.text(group, name)
    ]
    if wrong:
        same = " ".join(f"{name}=={first.text('versions', name)}" for _, name in packages)
        raise ConfigError(
            "the hosts would not train the same run:\n" + "\n".join(f"  {line}" for line in wrong),
            f"Install the same versions on all (pip install {same}) and copy model and data, or "
            "give their ids on the Hub.",
        )


def host_facts(answers: Sequence[HostAnswer]) -> list[Fact]:
    """Return a line for each host; another Python than on the first one is a warning."""
    return [_host_fact(answer, answers[0]) for answer in answers]


_PYTHON = ("versions", "Python")


def _host_fact(answer: HostAnswer, first: HostAnswer) -> Fact:
    seen = [answer.text("machine", name) for name in ("chip", "memory", "system")]
    names = ("Python", "orpo-mlx", "mlx", "mlx-lm")
    has = [f"{name} {answer.text('versions', name)}" for name in names]
    name, text = answer.host.ssh, "; ".join([*seen, *has])
    if answer.errors:
        return Fact("hosts", name, text, "error", " ".join(answer.errors))
    if answer.text(*_PYTHON) != first.text(*_PYTHON):
        advice = f"{first.host.ssh} has another Python; runs were tried with one and the same."
        return Fact("hosts", name, text, "warning", advice)
    return Fact("hosts", name, text, "ok")


def _ask(host: PeerHost, words: Sequence[str], seconds: float) -> HostAnswer:
    try:
        done = subprocess.run(
            _command(host.ssh, words), stdin=subprocess.DEVNULL, capture_output=True,
            encoding="utf-8", errors="replace", timeout=seconds, env=child_environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return HostAnswer(
            host, problem=f"{host.ssh}: has not answered within {seconds:g} s; look what it does"
        )
    except FileNotFoundError:
        return HostAnswer(host, problem=f"{host.ssh}: there is no ssh here to reach it; install it")
    facts = _facts(done.stdout)
    found = {(fact.group, fact.name): fact.text for fact in facts}
    if ("versions", "mlx") in found and done.returncode in (0, 1):
        wrong = (fact for fact in facts if fact.level == "error")
        return HostAnswer(host, found, tuple(f"{f.name}: {f.text}. {f.what_to_do}" for f in wrong))
    return HostAnswer(host, problem=_problem(host.ssh, done.returncode, done.stderr))


def _command(name: str, words: Sequence[str]) -> list[str]:
    """Return what runs the doctor there, in the same folder if there is one, as mlx.launch does."""
    program = shlex.join([sys.executable, "-P", "-m", "orpo_mlx", "doctor", "--json", *words])
    script = f"cd {shlex.quote(os.getcwd())} 2>/dev/null; exec {program}"
    if name == HERE:
        return ["/bin/sh", "-c", script]
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}"]
    return ["ssh", *options, "--", name, script]


def _facts(output: str) -> list[Fact]:
    """Return the facts among the lines; what a login shell greets with is passed over."""
    facts = []
    for line in output.splitlines():
        with suppress(ValueError, KeyError, TypeError):
            said = json.loads(line)
            group, name, text, level, advice = (visible(str(said[key])) for key in _FIELDS)
            facts.append(Fact(group, name, text, "error" if level == "error" else "ok", advice))
    return facts


_FIELDS = ("group", "name", "text", "level", "what_to_do")


def _problem(name: str, code: int, complaint: str) -> str:
    lines = [visible(line) for line in complaint.splitlines() if line.strip()]
    said = lines[-1] if lines else "it said nothing"
    if code == 255:
        return f"{name}: cannot be reached ({said}); `ssh {name} true` must work without a question"
    if code in (126, 127) or "No module named" in said:
        return (
            f"{name}: orpo-mlx is not there ({said}); needed is {sys.executable} with orpo-mlx, at "
            "the same path as here"
        )
    shown = "\n".join(f"    {line}" for line in lines[-6:]) or f"    {said}"
    return f"{name}: `orpo-mlx doctor` failed there with exit code {code}:\n{shown}"

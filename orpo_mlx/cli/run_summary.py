"""The closing text of a run: numbers and answers before and after, paths, commands."""

from __future__ import annotations

import shlex

from orpo_mlx.runs.event_text import end_line, eval_line
from orpo_mlx.runs.events import RunFinished
from orpo_mlx.runs.history import RunHistory
from orpo_mlx.runs.metrics import metric
from orpo_mlx.runs.peers.hosts import hosts_text
from orpo_mlx.runs.peers.load import of_a_step, shares_text
from orpo_mlx.text.commands import tool
from orpo_mlx.text.formatting import counted, excerpt, visible


def summary_lines(history: RunHistory, end: RunFinished, width: int) -> list[str]:
    """Return the closing text of a run: numbers and answers before and after, paths, commands."""
    return [
        end_line(end),
        *_shared_lines(history),
        *_eval_table(history, end),
        *_sample_table(history, width),
        *_next_lines(history, end),
    ]


def _shared_lines(history: RunHistory) -> list[str]:
    """Return how several processes shared the steps, [] for a run of one."""
    load = history.load
    if not load.shares or history.started is None:
        return []
    waited = of_a_step(load.wait_seconds, load.step_seconds)
    travelled = of_a_step(load.exchange_seconds, load.step_seconds)
    return [
        f"shared   by {hosts_text(history.started.hosts)}: {shares_text(load)} of the tokens "
        f"(busiest +{load.imbalance * 100:.0f} %)",
        f"         a step waited {waited} for the slowest, {travelled} for the network",
    ]


def _eval_table(history: RunHistory, end: RunFinished) -> list[str]:
    if not history.evals:
        return []
    before, after = history.evals[min(history.evals)], history.evals[max(history.evals)]
    config = history.started.config if history.started else {}
    if config.get("keep_best") and end.best_step in history.evals:
        after = history.evals[end.best_step]
    if before.step == after.step:
        return [eval_line(after)]
    title = f"validation, {counted(after.pairs, 'pair')}"
    lines = ["", f"{title:<30}{f'step {before.step}':>12}{f'step {after.step}':>12}"]
    for name in after.metrics:
        row = metric(name)
        values = (row.text(event.value(name)) for event in (before, after))
        lines.append(f"  {row.label:<28}" + "".join(f"{value:>12}" for value in values))
    return lines


def _sample_table(history: RunHistory, width: int) -> list[str]:
    lines: list[str] = []
    for index in sorted({index for _, index in history.samples}):
        steps = [step for step, i in history.samples if i == index]
        before, after = (history.samples[step, index] for step in (min(steps), max(steps)))
        lines += ["", f"sample {index + 1}"]
        lines += excerpt("prompt", after.prompt, width, 3, keep_end=True)
        if before.step != after.step:
            lines += excerpt("before", before.response, width, 4, keep_end=False)
        lines += excerpt("after", after.response, width, 4, keep_end=False)
    return lines


def _next_lines(history: RunHistory, end: RunFinished) -> list[str]:
    lines = [""]
    if end.adapter_path:
        lines.append(f"adapter  {end.adapter_path}")
    if history.run_path:
        lines.append(f"run      {history.run_path}")
    if end.reason in ("stopped", "aborted") and history.resume_command:
        lines.append(f"go on    {history.resume_command}")
    if end.adapter_path and history.started:
        model = str(history.started.config.get("model") or history.started.model)
        lines.append(f"try it   {_try_it(history, model, end.adapter_path)}")
        lines.append(f"all runs {tool('orpo-mlx')} runs")
        if "/orpo_mlx/demo/" in f"{model}/":
            lines.append(f"yours    {tool('orpo-mlx')} train --model HUB_ID_OR_FOLDER --data FILE")
    return lines if len(lines) > 1 else []


def _try_it(history: RunHistory, model: str, adapter: str) -> str:
    """Return how to ask the adapter something in the form it was trained in."""
    config = history.started.config if history.started else {}
    if config.get("objective") == "reward":
        return f"{tool('orpo-mlx')} score {shlex.quote(str(history.run_path))} FILE"
    if config.get("chat_template"):
        return f"{tool('orpo-mlx')}, then t on this run: it asks through --chat-template"
    short = [event for event in history.samples.values() if len(event.prompt) < 60]
    words = ["--model", model, "--adapter-path", adapter]
    if config.get("thinking") == "off":
        words += ["--chat-template-config", '{"enable_thinking": false}']
    if short and short[0].system:
        words += ["--system-prompt", visible(short[0].system)]
    words += ["--prompt", visible(short[0].prompt) if short else "Hello"]
    return f"{tool('mlx_lm.generate')} {shlex.join(words)}"

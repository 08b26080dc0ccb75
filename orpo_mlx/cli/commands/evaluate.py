"""`orpo-mlx evaluate`: has it helped? Base and adapter on held-out pairs, with intervals."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orpo_mlx.cli.evaluate_request import EvaluateCommand, parse_evaluate
from orpo_mlx.cli.progress import ProgressLine, failures_as_json
from orpo_mlx.cli.settings_options import settings_from
from orpo_mlx.cli.terminal import print_text
from orpo_mlx.config.file import with_absolute_paths
from orpo_mlx.errors import ConfigError, reason_of
from orpo_mlx.runs.listing import find_run
from orpo_mlx.storage.atomic import write_atomically
from orpo_mlx.text.progress import tell_phase

if TYPE_CHECKING:
    from orpo_mlx.evaluation.drift import DriftPlan
    from orpo_mlx.evaluation.judgement import Judgement
    from orpo_mlx.evaluation.subject import AdapterPlace, Asked

_PER_PAIR_MARK = '{"pair": 0, '


def main(argv: Sequence[str]) -> int:
    """Run `orpo-mlx evaluate`; return the exit code 0."""
    with failures_as_json("--json" in argv):
        return _evaluate(parse_evaluate(argv))


def _evaluate(command: EvaluateCommand) -> int:
    if command.per_pair is not None:
        _require_place("--per-pair", command.per_pair, _PER_PAIR_MARK)
    if command.report is not None:
        from orpo_mlx.evaluation.report.page import MARK

        _require_place("--report", command.report, MARK)
    asked = find_asked(command.given, command.pairs, command.seed)
    plan = _drift_plan(command) if asked.adapter else None
    from orpo_mlx.evaluation.drift import DriftMeter
    from orpo_mlx.evaluation.judgement import as_json, judge_subject
    from orpo_mlx.evaluation.subject import open_subject
    from orpo_mlx.runs.checkpoints import versions

    progress = ProgressLine(command.as_json, says_phases=True)
    try:
        subject = open_subject(asked, progress)
        if subject.scoring.rates:  # it answers nothing
            plan = None
        meter = DriftMeter(subject.loaded, asked.config, plan, progress) if plan else None
        done = judge_subject(subject, progress, meter)
        tell_phase(progress, "drawing the intervals")
        content = as_json(done, versions())
        if meter is not None:
            content["drift"] = meter.as_json()
        if command.per_pair is not None:
            _write_per_pair(command.per_pair, done)
        if command.report is not None:
            _write_report(command.report, content, done, progress)
        if command.save:
            _save(content, done, progress)
    finally:
        progress.close()
    return _print(content, command)


def _drift_plan(command: EvaluateCommand) -> DriftPlan | None:
    """Return what drift is measured on; a user's file is read before any weights are."""
    from orpo_mlx.evaluation.drift import DriftPlan
    from orpo_mlx.evaluation.neutral_prompts import draw_prompts, read_prompts, shipped_prompts

    if not command.drift_prompts:
        return None
    file = command.given.get("drift_data")
    prompts = read_prompts(file) if file else shipped_prompts()
    drawn = draw_prompts(prompts, command.drift_prompts, command.seed)
    return DriftPlan(drawn, command.drift_tokens, command.seed, file or "the shipped list")


def _print(content: dict[str, Any], command: EvaluateCommand) -> int:
    if command.as_json:
        return print_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    from orpo_mlx.cli.evaluation_text import judgement_lines

    lines = judgement_lines(content)
    if command.per_pair is not None:
        lines.append(f"per pair {command.per_pair}")
    if command.report is not None:
        lines.append(f"report   {command.report}")
    if command.save:
        lines.append("saved    evaluation.json and report.html in the run's folder")
    return print_text("\n".join(lines) + "\n")


def find_asked(given: dict[str, Any], pairs: int, seed: int) -> Asked:
    """Find the runs and adapters that are named.

    Args:
        given: options by name, as text, that `check_subject` has passed.
        pairs: how many are drawn; 0 = all.
        seed: of every draw.

    Raises:
        OrpoError: there is none, or it is being trained.
    """
    from orpo_mlx.evaluation.subject import (
        AdapterPlace,
        Asked,
        adapter_of,
        config_with_data,
        require_same_base,
    )

    own_data = {name: given[name] for name in ("data", "layout", "map") if name in given}
    if "run" in given:
        run = find_run(given["run"], given.get("runs_dir"))
        adapter: AdapterPlace | None = adapter_of(run)
        config = run.read_config()
        if own_data:
            checked = settings_from({"model": str(config.model), **_needing_data(own_data)})
            config = config_with_data(
                config, {name: getattr(checked, name) for name in ("data", "layout", "map")}
            )
    else:
        named = {name: given[name] for name in ("model", "revision", "chat_template")
                 if name in given}  # fmt: skip
        config = with_absolute_paths(settings_from({**named, **own_data}))
        folder = Path(given["adapter"]).expanduser() if "adapter" in given else None
        adapter = AdapterPlace(str(folder), folder) if folder else None
    against = _against(given, adapter)
    if against and adapter:
        require_same_base(adapter, config, against)
    return Asked(config, adapter, against, bool(own_data), pairs, seed)


def _needing_data(own_data: dict[str, Any]) -> dict[str, Any]:
    if "data" not in own_data:
        flag = f"--{next(iter(own_data))}"
        raise ConfigError(
            f"{flag}: says how --data is read, and that is missing.",
            f"Give --data FILE, or leave out {flag}: a run's own pairs are read as it read them.",
        )
    return own_data


def _against(given: dict[str, Any], adapter: AdapterPlace | None) -> AdapterPlace | None:
    from orpo_mlx.evaluation.subject import adapter_of

    if "against" not in given:
        return None
    if adapter is None:
        raise ConfigError(
            f"--against {given['against']}: there is no adapter to compare with it.",
            "Give a run, or --adapter FOLDER.",
        )
    other = adapter_of(find_run(given["against"], given.get("runs_dir")))
    if other.folder.resolve() == adapter.folder.resolve():
        raise ConfigError(
            f"--against {given['against']}: is what it would be compared with.",
            "Give another run, or leave it out: then the base model is the other side.",
        )
    return other


# Files


def _require_place(flag: str, path: Path, mark: str) -> None:
    """Check, before the work, that a file can be written and nothing else is lost by it.

    Args:
        flag: the option that names it.
        path: of the file.
        mark: what an earlier file of this command holds in its first bytes.

    Raises:
        ConfigError: there is no such folder, or something else is there.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(f"{flag} {path}: not a place for a file.", "Give another name.")
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"{flag} {path}: the folder cannot be written.", "Give another place.")
    if path.exists() and not _begins_with(path, mark):
        raise ConfigError(
            f"{flag} {path}: there is another file already; nothing was written.",
            "Give another name.",
        )


def _begins_with(path: Path, mark: str) -> bool:
    try:
        if not path.is_file():  # reading a pipe would wait for ever
            return False
        with path.open("rb") as stream:
            return mark.encode() in stream.read(200)
    except OSError:
        return False


def _write_per_pair(path: Path, done: Judgement) -> None:
    from orpo_mlx.evaluation.judgement import per_pair_rows

    rows = [json.dumps(row, ensure_ascii=False) + "\n" for row in per_pair_rows(done)]
    write_file("--per-pair", path, "".join(rows))


def _write_report(
    path: Path, content: dict[str, Any], done: Judgement, progress: ProgressLine
) -> None:
    from orpo_mlx.evaluation.report.report import report_page

    write_file("--report", path, report_page(content, done, progress))


def _save(content: dict[str, Any], done: Judgement, progress: ProgressLine) -> None:
    from orpo_mlx.evaluation.at_end import write_evaluation
    from orpo_mlx.evaluation.report.report import report_page

    adapter = done.subject.asked.adapter
    if adapter is None or adapter.run is None:
        return
    try:
        write_evaluation(adapter.run, content, report_page(content, done, progress))
    except OSError as error:
        raise ConfigError(
            f"--save {adapter.run.path}: cannot be written: {reason_of(error)}.",
            "Make room or make the folder writable, or leave out --save.",
        ) from error


def write_file(flag: str, path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        write_atomically(path, text.encode("utf-8", "replace"))
    except OSError as error:
        raise ConfigError(
            f"{flag} {path}: cannot be written: {reason_of(error)}.", "Give another place."
        ) from error

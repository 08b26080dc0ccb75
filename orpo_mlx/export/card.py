"""README.md of an exported folder: what it is, what it was made from, how it was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orpo_mlx.config import TrainConfig
from orpo_mlx.config.objective import foreign_settings
from orpo_mlx.errors import RunError
from orpo_mlx.export.base import is_hub_id
from orpo_mlx.export.source import AdapterSource
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.evaluation import SIDES, TITLES, Measured, interval_text, read_evaluation
from orpo_mlx.runs.events import DataPrepared, EvalCompleted, Event, RunStarted, read_events
from orpo_mlx.runs.history import valid_events
from orpo_mlx.runs.metrics import shown
from orpo_mlx.text.formatting import format_count, visible
from orpo_mlx.version import __version__

_SHOWN = (
    "objective", "lam", "dpo_loss", "beta", "gamma", "label_smoothing", "kto_loss",
    "desirable_weight", "undesirable_weight", "unpair", "reference", "nll_weight", "nll_scope",
    "preference", "use_margin", "center", "rank", "num_layers", "target_modules", "learning_rate",
    "schedule", "epochs", "steps", "micro_batch_size", "grad_accumulation_steps",
    "max_seq_length", "seed",
)  # fmt: skip
_MEASURED = ("loss", "nll_loss", "log_odds_ratio", "preference_accuracy", "logps_margin",
             "reward_margin")  # fmt: skip


def write(
    folder: Path, source: AdapterSource, format: str, base_id: str, is_mlx: bool = False
) -> None:
    """Write the model card into an exported folder.

    Args:
        folder: being written.
        source: the adapter, its base and its run.
        format: the value of `--to`.
        base_id: of the original base model, or its path where no id is known; no path gets into
            the card, which is made to be shared.
        is_mlx: whether a fused model is one only MLX reads.
    """
    front = _front(base_id, format, is_mlx, _objective(source))
    base = _shown_name(base_id)
    parts = [front, f"# {visible(source.name)}\n", _what(source, format, base)]
    if source.run is not None:
        parts += _from_run(source.run, source.step)
    parts.append(_licence(base))
    (folder / "README.md").write_text("\n".join(parts), encoding="utf-8")


def unnamed_base(base_id: str) -> list[str]:
    """Return the note that the card names no base model, if it does not."""
    if is_hub_id(base_id):
        return []
    return [
        f"README.md names no base model, since only its path is known ({base_id}); give the "
        "original's Hub id with --base-id OWNER/NAME before you share the folder."
    ]


def _objective(source: AdapterSource) -> str:
    """Return what it was trained on, "" where no run says so."""
    if source.rates:
        return "reward"
    if source.run is None:
        return ""
    config = source.run.read_config()
    return "sft" if config.preference == "none" else config.objective


def _front(base_id: str, format: str, is_mlx: bool, objective: str) -> str:
    libraries = {"peft": "peft", "fused": "mlx" if is_mlx else "transformers"}
    library = libraries.get(format, "mlx")
    # A value of YAML in JSON's quotes is safe, whatever it holds.
    named = [f"base_model: {json.dumps(base_id)}"] if is_hub_id(base_id) else []
    lines = ["---", *named, f"library_name: {library}"]
    kind = "finetune" if format == "fused" else "adapter"
    lines += [f"base_model_relation: {kind}"] if named else []
    rates = objective == "reward"
    lines += [f"pipeline_tag: text-{'classification' if rates else 'generation'}"]
    how = [f"- {'reward-model' if rates else objective}"] if objective else []
    return "\n".join([*lines, "tags:", *how, "- preference-tuning", "- mlx", "---", ""])


def _shown_name(name: str) -> str:
    """Return a Hub id as it is, of a path the last part."""
    return name if is_hub_id(name) else visible(Path(name).expanduser().absolute().name)


def _what(source: AdapterSource, format: str, base: str) -> str:
    kind = "DoRA" if source.spec.dora else "LoRA"
    what = "The tuned model" if format == "fused" else f"A {kind} adapter"
    how = _how(_objective(source))
    lines = [
        f"{what} for `{base}`, trained {how}by orpo-mlx {__version__} and exported as `{format}`.",
        "",
        f"Rank {source.spec.rank}, scale {source.spec.scale:g} (alpha "
        f"{source.spec.scale * source.spec.rank:g}), {len(source.layers)} adapted layers.",
    ]
    if format == "peft":
        lines.append(
            "The scale is multiplied into B and `lora_alpha` is the rank: no program can get it "
            f"wrong. Trained on at the same rate, B has {source.spec.scale:g} times less effect."
        )
    if source.base.is_quantized:
        name = _shown_name(source.base.name)
        lines.append(f"It was trained on a quantized copy of the base, `{name}`.")
    return "\n".join([*lines, ""])


def _how(objective: str) -> str:
    """Return how it was trained, in words; "" where that is not known."""
    if objective == "reward":
        return "as a reward model (one number for an answer, higher is better) "
    if objective == "orpo":
        return "with ORPO ([Hong et al. 2024](https://arxiv.org/abs/2403.07691)) "
    return f"with {objective.upper()} " if objective else ""


def _from_run(run: RunDirectory, step: int | None) -> list[str]:
    """Return what the run's own events say; a run without events has only its settings."""
    records = valid_events(record.event for record in read_events(run.events_file))
    parts = [_data(records), _settings(run.read_config())]
    measured = [event for event in records if isinstance(event, EvalCompleted)]
    if step is not None:
        measured = [event for event in measured if event.step <= step]
    if measured:
        parts.append(_measured(measured[0], measured[-1]))
    if step is None:
        parts += _compared(run)
    return parts


def _data(records: list[Event]) -> str:
    started = next((event for event in records if isinstance(event, RunStarted)), None)
    prepared = next((event for event in records if isinstance(event, DataPrepared)), None)
    lines = ["## Data", ""]
    if started is not None:
        name = _shown_name(started.data)
        lines.append(
            f"`{visible(name)}`: {format_count(started.pairs_train)} training pairs, "
            f"{started.pairs_valid} for validation."
        )
    if prepared is not None:
        dropped = sum(prepared.dropped.values())
        lines.append(
            f"{prepared.read} rows read, {prepared.kept} kept, {dropped} dropped; "
            f"layout: {prepared.layout}."
        )
    return "\n".join([*lines, ""])


def _settings(config: TrainConfig) -> str:
    foreign = foreign_settings(config.objective)
    names = [name for name in _SHOWN if name not in foreign]
    rows = [f"| `{name}` | {_shown(getattr(config, name))} |" for name in names]
    return "\n".join(["## Settings", "", "| Setting | Value |", "| --- | --- |", *rows, ""])


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "not set" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _measured(before: EvalCompleted, after: EvalCompleted) -> str:
    head = f"| On {after.pairs} validation pairs | step {before.step} | step {after.step} |"
    rows = [
        f"| {row.full} | {before.value(row.name):.4f} | {after.value(row.name):.4f} |"
        for row in shown(after.metrics, _MEASURED)
    ]
    return "\n".join(["## Before and after", "", head, "| --- | --- | --- |", *rows, ""])


def _compared(run: RunDirectory) -> list[str]:
    """Return the verdict and the table of the evaluation the run keeps, [] if there is none."""
    try:
        found = read_evaluation(run.evaluation_file)
    except RunError:
        return []
    if found is None:
        return []
    head = [
        "## Did it help?", "", f"{visible(found.verdict)}.", "",
        f"| On {found.pairs} held-out pairs, 95 % interval | Base | Adapter | Difference |",
        "| --- | --- | --- | --- |",
    ]  # fmt: skip
    rows = [_row(name, row) for name, row in found.metrics.items()]
    if found.drift is not None:
        drift = interval_text("kl", asdict(found.drift))
        rows.append(f"| KL per token from the base, neutral prompts | | {drift} | |")
    return ["\n".join([*head, *rows, ""])]


def _row(name: str, row: Mapping[str, Measured]) -> str:
    cells = [
        interval_text(name, asdict(row[side]), side == "difference") if side in row else ""
        for side in SIDES
    ]
    label = visible(TITLES.get(name, name.replace("_", " "))).replace("|", "/")
    return f"| {label} | {' | '.join(cells)} |"


def _licence(base: str) -> str:
    return (
        "## Licence\n\n"
        f"Weights that come from `{base}` stay under its licence, and what the training data "
        "may be used for limits this, too. Fill in what applies before you share it.\n"
    )

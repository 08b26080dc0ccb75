"""README.md of an exported folder: what it is, what it was made from, how it was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orpo_mlx import __version__
from orpo_mlx.config import TrainConfig
from orpo_mlx.export.source import AdapterSource
from orpo_mlx.formatting import format_count, visible
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import DataPrepared, EvalCompleted, RunStarted, read_events

_SHOWN = (
    "lam", "nll_scope", "preference", "rank", "num_layers", "target_modules", "learning_rate",
    "schedule", "epochs", "steps", "micro_batch_size", "grad_accumulation_steps",
    "max_seq_length", "seed",
)  # fmt: skip
_MEASURED = (
    ("loss", "loss"),
    ("nll_loss", "NLL of the chosen side, nats per token"),
    ("log_odds_ratio", "log-odds ratio"),
    ("preference_accuracy", "preference accuracy"),
    ("logps_margin", "margin of the mean log-probs"),
)


def write(
    folder: Path, source: AdapterSource, format: str, base_id: str, is_mlx: bool = False
) -> None:
    """Write the model card into an exported folder.

    Args:
        folder: being written.
        source: the adapter, its base and its run.
        format: the value of `--to`.
        base_id: of the original base model, or its path where no id is known.
        is_mlx: whether a fused model is one only MLX reads.
    """
    front = _front(base_id, format, is_mlx)
    parts = [front, f"# {visible(source.name)}\n", _what(source, format, base_id)]
    if source.run is not None:
        parts += _from_run(source.run, source.step)
    parts.append(_licence(base_id))
    (folder / "README.md").write_text("\n".join(parts), encoding="utf-8")


def _front(base_id: str, format: str, is_mlx: bool) -> str:
    libraries = {"peft": "peft", "fused": "mlx" if is_mlx else "transformers"}
    library = libraries.get(format, "mlx")
    # A value of YAML in JSON's quotes is safe, whatever it holds.
    lines = ["---", f"base_model: {json.dumps(base_id)}", f"library_name: {library}"]
    kind = "finetune" if format == "fused" else "adapter"
    lines += [f"base_model_relation: {kind}", "pipeline_tag: text-generation"]
    return "\n".join([*lines, "tags:", "- orpo", "- preference-tuning", "- mlx", "---", ""])


def _what(source: AdapterSource, format: str, base_id: str) -> str:
    kind = "DoRA" if source.spec.dora else "LoRA"
    what = "The tuned model" if format == "fused" else f"A {kind} adapter"
    lines = [
        f"{what} for `{base_id}`, trained with ORPO "
        "([Hong et al. 2024](https://arxiv.org/abs/2403.07691)) by "
        f"orpo-mlx {__version__} and exported as `{format}`.",
        "",
        f"Rank {source.spec.rank}, scale {source.spec.scale:g} (alpha "
        f"{source.spec.scale * source.spec.rank:g}), {len(source.layers)} adapted layers.",
    ]
    if source.base.is_quantized:
        lines.append(f"It was trained on a quantized copy of the base, `{source.base.name}`.")
    return "\n".join([*lines, ""])


def _from_run(run: RunDirectory, step: int | None) -> list[str]:
    """Return what the run's own events say; a run without events has only its settings."""
    records = [record.event for record in read_events(run.events_file)]
    parts = [_data(records), _settings(run.read_config())]
    measured = [event for event in records if isinstance(event, EvalCompleted)]
    if step is not None:
        measured = [event for event in measured if event.step <= step]
    if measured:
        parts.append(_measured(measured[0], measured[-1]))
    return parts


def _data(records: list[Any]) -> str:
    started = next((event for event in records if isinstance(event, RunStarted)), None)
    prepared = next((event for event in records if isinstance(event, DataPrepared)), None)
    lines = ["## Data", ""]
    if started is not None:
        name = Path(started.data).name if Path(started.data).is_absolute() else started.data
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
    rows = [f"| `{name}` | {_shown(getattr(config, name))} |" for name in _SHOWN]
    return "\n".join(["## Settings", "", "| Setting | Value |", "| --- | --- |", *rows, ""])


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "not set" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _measured(before: EvalCompleted, after: EvalCompleted) -> str:
    head = f"| On {after.pairs} validation pairs | step {before.step} | step {after.step} |"
    rows = [
        f"| {text} | {getattr(before, name):.4f} | {getattr(after, name):.4f} |"
        for name, text in _MEASURED
    ]
    return "\n".join(["## Before and after", "", head, "| --- | --- | --- |", *rows, ""])


def _licence(base_id: str) -> str:
    return (
        "## Licence\n\n"
        f"Weights that come from `{base_id}` stay under its licence, and what the training data "
        "may be used for limits this, too. Fill in what applies before you share it.\n"
    )

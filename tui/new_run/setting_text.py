"""What is said of settings, presets and the command that does the same; pure."""

from __future__ import annotations

import textwrap

from orpo_mlx.config.declaration import Setting
from orpo_mlx.text.formatting import visible
from tui.new_run.draft import Draft, value_text
from tui.new_run.fit_facts import settings_lines
from tui.new_run.presets import PRESETS

EXPLANATION_ROWS = 6


LABELS = {
    "objective": "Trained by (objective)",
    "epochs": "Passes over the pairs (epochs)",
    "steps": "Steps, in place of passes",
    "learning_rate": "Learning rate",
    "lam": "Preference strength (lam)",
    "beta": "Preference strength (beta)",
    "gamma": "Margin asked for (gamma)",
    "max_seq_length": "Longest pair, in tokens",
    "rank": "Size of the adapter (rank)",
    "num_layers": "Blocks adapted, from the last",
    "micro_batch_size": "Pairs in a forward pass",
    "grad_accumulation_steps": "Forward passes in a step",
    "grad_checkpoint": "Save memory, compute twice",
    "valid_fraction": "Share of pairs held out",
    "eval_every": "Evaluate every",
    "save_every": "Save every",
    "seed": "Seed of chance",
    "nll_scope": "NLL counts (nll_scope)",
    "nll_weight": "Weight of the NLL",
    "nll_reduction": "NLL is a mean over",
    "keep_best": "Keep the best evaluation",
    "early_stop": "Stop when it gets worse",
}
"""Where the name itself, its underscores as blanks, says less."""


def label_of(name: str) -> str:
    """Return what stands before the field of a setting.

    >>> label_of("weight_decay")
    'Weight decay'
    """
    return LABELS.get(name) or name.replace("_", " ").capitalize()


def explanation(
    setting: Setting, draft: Draft, width: int = 78, rows: int = EXPLANATION_ROWS
) -> str:
    """Return what a setting means and does, what may be given, and where its value is from.

    Args:
        setting: to be explained.
        draft: in which it has a value.
        width, rows: what room there is; effects have a line each if all fits.
    """
    effects = [f"{what.capitalize()}: {text}." for what, text in setting.effects.items()]
    told = [setting.help, *effects, _facts(setting, draft)]
    if _count_rows(told, width) > rows:
        told[1:-1] = [" ".join(effects)]
    spaced = "\n\n".join(told)
    return spaced if _count_rows(told, width) + len(told) - 1 <= rows else "\n".join(told)


def _count_rows(lines: list[str], width: int) -> int:
    return sum(len(textwrap.wrap(line, width, break_on_hyphens=False)) for line in lines)


def _facts(setting: Setting, draft: Draft) -> str:
    name = setting.name
    from_preset = name in PRESETS[draft.preset].values and name not in draft.own
    origin = "yours" if name in draft.own else "from the preset" if from_preset else "the default"
    unit = f" ({setting.unit})" if setting.unit else ""
    usual = f"Usual: {setting.usual}. " if setting.usual else ""
    default = value_text(draft.default(name)) or "not set"
    allowed = f"{setting.allowed[0].upper()}{setting.allowed[1:]}{unit}; "
    # The choices stand in the field itself.
    allowed = "" if setting.choices or setting.kind == "bool" else allowed
    said = f"{allowed}default {default}; now {origin}."
    return f"{usual}{said[0].upper()}{said[1:]} {setting.flag}"


def preset_text(name: str, width: int = 78, rows: int = EXPLANATION_ROWS) -> str:
    """Return what a preset is good for and what it changes.

    Args:
        name: of the preset.
        width, rows: what room there is.
    """
    preset = PRESETS[name]
    changed = settings_lines(preset.values, width - 8) or ["nothing: these are the defaults."]
    told = [
        f"{preset.title}: {preset.why}",
        f"Changes {changed[0]}",
        *(" " * 8 + t for t in changed[1:]),
    ]
    for hint in (
        "Everything else is the default; what you change yourself has a * and outlives presets.",
        "Tab and shift+tab go through the fields; the one with the focus is explained here.",
    ):
        if _count_rows([*told, hint], width) <= rows:
            told.append(hint)
    return "\n".join(told)


def command_text(command: str, width: int, rows: int) -> str:
    """Return the command that does the same, in so many lines; dots tell that it is longer."""
    text = visible(f"Same as (^y copies): {command}")
    found = textwrap.wrap(
        text, max(20, width), break_on_hyphens=False, max_lines=rows, placeholder=" ..."
    )
    return "\n".join(found)

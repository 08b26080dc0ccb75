"""The page of a judgement: its numbers, with example pairs and the settings of the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orpo_mlx.evaluation.judgement import Judgement
from orpo_mlx.evaluation.report.examples import SHOWN, example_pairs, margins
from orpo_mlx.evaluation.report.page import page
from orpo_mlx.text.progress import OnProgress


def report_page(
    content: Mapping[str, Any],
    done: Judgement,
    on_progress: OnProgress | None = None,
    examples: int = SHOWN,
) -> str:
    """Return the page; the model wears the adapters once more for its example pairs.

    Args:
        content: as printed with --json.
        done: what it was made of.
        on_progress: told of the example pairs; what it raises ends it.
        examples: how many of them at most.
    """
    adapter = done.subject.asked.adapter
    # What is judged may be read from other data than the run's own.
    run = adapter.run.read_config() if adapter and adapter.run else None
    besides = {
        # Rewards have no tokens to be shown by.
        "examples": []
        if done.tables[done.after].rates
        else example_pairs(done, examples, on_progress),
        "margins": margins(done),
        "settings": run.model_dump(exclude_defaults=True) if run else {},
    }
    return page({**content, **besides})

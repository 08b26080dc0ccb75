"""A run as the list of runs has it."""

from __future__ import annotations

from pathlib import Path

from orpo_mlx.runs.listing import RunSummary

RUN = RunSummary(
    "pairs-1",
    Path("/r/pairs-1"),
    "running",
    "/models/Qwen",
    "d",
    60,
    240,
    {"loss": 1.5, "log_odds_ratio": 0.4, "preference_accuracy": 0.75},
    0.0,
)

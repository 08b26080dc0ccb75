"""Made-up pairs have the lengths they are said to have, wherever they are made."""

from __future__ import annotations

import json
import math
from pathlib import Path

from orpo_mlx.bench.steps.workload import HH, MadeUpPairs


def test_lengths_are_quantiles_of_a_log_normal_distribution():
    # Of four: the quantiles 1/8, 3/8, 5/8, 7/8 of a normal distribution, from a table.
    normal = [-1.15035, -0.31864, 0.31864, 1.15035]
    prompts = [round(150 * math.exp(0.5 * x)) for x in normal]
    answers = [round(60 * math.exp(0.5 * x)) for x in normal]
    lengths = HH.lengths(4)
    assert [prompt for prompt, _, _ in lengths] == prompts
    assert sorted(chosen for _, chosen, _ in lengths) == answers
    assert sorted(rejected for _, _, rejected in lengths) == answers
    assert all(chosen != rejected for _, chosen, rejected in lengths)


def test_what_is_written_has_these_lengths_and_is_the_same_each_time(tmp_path: Path):
    pairs = MadeUpPairs("x", 9, 5, 0.2)
    texts = []
    for name in ("one", "other"):
        pairs.write(tmp_path / name, 3, vocab=50, end=1)
        texts.append((tmp_path / name).read_text())
    assert texts[0] == texts[1]
    rows = [json.loads(line) for line in texts[0].splitlines()]
    found = [tuple(len(row[f"{k}_ids"]) for k in ("prompt", "chosen", "rejected")) for row in rows]
    assert found == pairs.lengths(3)
    for row in rows:
        assert row["chosen_ids"][-1] == row["rejected_ids"][-1] == 1
        assert all(10 <= token <= 45 for token in row["prompt_ids"] + row["chosen_ids"][:-1])

"""Drift against a second computation, and where it must be nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest

from orpo_mlx.adapters.files import save_adapter
from orpo_mlx.adapters.lora import AdapterSpec, attach_adapter
from orpo_mlx.config import TrainConfig
from orpo_mlx.errors import NotFiniteError
from orpo_mlx.evaluation import drift
from orpo_mlx.evaluation.drift import DriftMeter, DriftPlan
from orpo_mlx.evaluation.judgement import as_json, judge_subject
from orpo_mlx.evaluation.neutral_prompts import shipped_prompts
from orpo_mlx.evaluation.subject import AdapterPlace, Asked, open_subject

PLAN = DriftPlan(shipped_prompts()[:6], tokens=6, seed=3, origin="here")


def measured(trained: Any, folder: Path, plan: DriftPlan = PLAN) -> tuple[DriftMeter, Any]:
    config = TrainConfig(model=str(trained.model), data=str(trained.valid))
    asked = Asked(config, AdapterPlace("mine", folder), has_own_data=True)
    subject = open_subject(asked)
    meter = DriftMeter(subject.loaded, config, plan)
    return meter, judge_subject(subject, None, meter)


def test_it_is_what_a_second_computation_finds(trained):
    """In float64 NumPy, from logits of mlx-lm's own models, one with its own loaded adapter."""
    meter, _ = measured(trained, trained.orpo.adapter_folder)
    base, tokenizer = mlx_lm.load(str(trained.model))[:2]
    adapted = mlx_lm.load(str(trained.model), adapter_path=str(trained.orpo.adapter_folder))[0]
    sums = tokens = 0.0
    for prompt, ids in zip(PLAN.prompts, meter.answers, strict=True):
        assert 1 <= len(ids) <= 6
        start = tokenizer.apply_chat_template(prompt.turns, add_generation_prompt=True)
        whole = [*start, *ids]
        logps = []
        for model in (base, adapted):
            logits = np.array(model(mx.array(whole)[None])[0], np.float64)
            logps.append(logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True)))
        at_each = (np.exp(logps[0]) * (logps[0] - logps[1])).sum(axis=-1)
        scored = at_each[len(start) - 1 : len(whole) - 1]
        assert len(scored) == len(ids)
        sums, tokens = sums + scored.sum(), tokens + len(ids)
    found = meter.as_json()
    assert found["answer_tokens"] == tokens
    assert found["kl_per_token"]["adapter"]["value"] == pytest.approx(sums / tokens, rel=1e-3)
    assert sums > 0
    texts = [tokenizer.encode(text) for text in drift.plain_paragraphs()]
    assert found["text_tokens"] == sum(len(ids[:512]) - 1 for ids in texts)


def test_an_adapter_that_changes_nothing_has_not_drifted(trained, tmp_path):
    model, _ = mlx_lm.load(str(trained.model))[:2]
    spec = AdapterSpec(rank=2)
    attach_adapter(model, spec, seed=0)  # lora_b is 0
    save_adapter(model, spec, tmp_path / "fresh", base_model=str(trained.model))
    meter, done = measured(trained, tmp_path / "fresh")
    found = meter.as_json()
    assert found["kl_per_token"]["adapter"] == {"value": 0, "low": 0, "high": 0}
    assert found["text_nll"]["difference"] == {"value": 0, "low": 0, "high": 0}
    assert all(shown["base"] == shown["adapter"] for shown in found["answers"])
    differences = {name: row["difference"] for name, row in as_json(done, {})["metrics"].items()}
    # That no pair of 12 groups changed is no proof that none would: Wilson's interval of 0 of 12.
    assert differences.pop("preference_accuracy")["value"] == 0
    for difference in differences.values():
        assert difference == {"value": 0, "low": 0, "high": 0}


def test_means_by_kind_and_by_place_belong_to_the_whole(trained):
    meter, _ = measured(trained, trained.orpo.adapter_folder)
    found, parts = meter.as_json(), meter.divergence["adapter"]
    assert list(found["kl_by_kind"]["adapter"]) == [prompt.kind for prompt in PLAN.prompts]
    for mean, values in zip(found["kl_by_kind"]["adapter"].values(), parts, strict=True):
        assert mean == pytest.approx(values.mean())
    firsts = [values[0] for values in parts]
    assert found["kl_by_position"]["adapter"][0] == pytest.approx(np.mean(firsts))
    longest = max(map(len, parts))
    assert len(found["kl_by_position"]["adapter"]) == longest


def test_a_divergence_that_is_no_number_names_its_prompt(trained, monkeypatch):
    monkeypatch.setattr(drift, "divergences", lambda one, other: (one - other)[:, 0] * mx.nan)
    with pytest.raises(NotFiniteError, match="prompt 1 is NaN"):
        measured(trained, trained.orpo.adapter_folder)

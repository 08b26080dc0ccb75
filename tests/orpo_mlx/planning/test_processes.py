"""What several processes need and how a step is shared out, by hand and as a run does it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orpo_mlx.cli import main as command
from orpo_mlx.config import build_config
from orpo_mlx.config.division import divided
from orpo_mlx.data.batching.shape import Lengths
from orpo_mlx.errors import ConfigError
from orpo_mlx.models.shape import Linear, ModelShape
from orpo_mlx.planning.processes import Shares, plan_processes, share_out
from orpo_mlx.scoring.select import WAYS

FIXED = {"batching": "fixed", "micro_batch_size": 1, "valid_fraction": 0.0, "order": "file"}


def shares(lengths: list[Lengths], size: int, **settings: Any) -> Shares:
    found = share_out(build_config({**FIXED, **settings}), WAYS["packed"], lengths, size)
    assert found is not None
    return found


def test_adapter_gradients_are_counted_twice_beside_the_estimate():
    block = (Linear("layers.0.q_proj", 100, 60),)
    model = ModelShape(
        weight_bytes=10**6, vocab=1000, hidden=100, heads=4, head_width=25, kv_width=100,
        float_bytes=4, blocks=(block,) * 3,
    )  # fmt: skip
    config = build_config({"rank": 5, "num_layers": 2, "target_modules": ["q_proj"]})
    plan = plan_processes(config, 4, model, WAYS["packed"], (), 10**9)
    numbers = 2 * 5 * (100 + 60)  # two blocks have an adapter
    assert plan.adapter_numbers == numbers
    assert plan.payload_bytes == 4 * numbers
    assert plan.process_bytes == 10**9 + 2 * 4 * numbers
    assert plan.sent_bytes == 2 * 3 * 4 * numbers / 4


def test_the_heaviest_micro_batches_go_to_whom_has_least():
    """Tokens of both rows: 2 x 10 + 2 x answer = 40, 30, 30, 20; so 60 and 60, or 40 of 120."""
    lengths = [Lengths(10, n, n) for n in (5, 10, 5, 0)]
    assert shares(lengths, 2, grad_accumulation_steps=4) == Shares(4, 0, 0.5)
    assert shares(lengths, 4, grad_accumulation_steps=4) == Shares(4, 0, pytest.approx(40 / 120))


def test_processes_beyond_the_micro_batches_are_idle():
    lengths = [Lengths(10, 5, 5)] * 6
    assert shares(lengths, 5, grad_accumulation_steps=3) == Shares(3, 2, pytest.approx(1 / 3))


def test_a_last_step_that_is_smaller_counts():
    lengths = [Lengths(10, 5, 5)] * 3
    assert shares(lengths, 2, grad_accumulation_steps=2) == Shares(1.5, 0.5, pytest.approx(0.75))


def test_without_pairs_the_settings_say_it_unless_tokens_decide():
    assert shares([], 2, grad_accumulation_steps=3) == Shares(3, 0, pytest.approx(2 / 3))
    config = build_config({"batching": "tokens"})
    assert share_out(config, WAYS["packed"], (), 2) is None


@pytest.mark.parametrize(
    ("size", "settings", "parts"),
    [
        (2, {"grad_accumulation_steps": 2}, 1),
        (4, {"grad_accumulation_steps": 2, "micro_batch_size": 8}, 2),
        (4, {"grad_accumulation_steps": 3, "micro_batch_size": 8}, 4),
        (3, {"grad_accumulation_steps": 2, "micro_batch_size": 8}, 3),
        (3, {"grad_accumulation_steps": 4, "micro_batch_size": 8}, 1),
        (4, {"batching": "tokens", "grad_accumulation_steps": 4}, 4),
        (4, {"micro_batch_size": 8, "dropout": 0.1}, 1),
    ],
)
def test_forward_passes_are_divided_so_that_all_have_as_much(
    size: int, settings: dict[str, Any], parts: int
):
    assert divided(build_config({**FIXED, **settings}), size).micro_batch_parts == parts


def fit_json(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert command.main(["fit", "--demo", "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_says_what_one_process_does_not(capsys: pytest.CaptureFixture[str]):
    one = fit_json(capsys)
    assert "processes" not in one
    words = ["--batching", "fixed", "--micro-batch-size", "4", "--step-seconds", "0.5"]
    found = fit_json(capsys, "--processes", "4", *words, "--link-gbit", "2")
    several = found["processes"]
    # The checkpoint holds adapter and two moments.
    adapter = found["course"]["checkpoint_bytes"] // 3
    assert several["payload_bytes"] == adapter
    assert several["sent_bytes_per_step"] == adapter * 3 // 2
    assert several["process_bytes"] == found["estimated_bytes"] + 2 * adapter
    assert several["together_bytes"] == 4 * several["process_bytes"]
    assert (several["micro_batch_parts"], several["micro_batches"]) == (4, 4)
    link = adapter * 1.5 * 8 / 2e9 + 8 * several["hop_seconds"]
    assert several["exchange_seconds"] == pytest.approx(link)
    assert several["seconds_per_step"] == pytest.approx(0.5 * several["busiest_share"] + link)


def test_it_is_said_in_words_what_is_assumed(capsys: pytest.CaptureFixture[str]):
    assert command.main(["fit", "--demo", "--processes", "3", "--dropout", "0.1"]) == 0
    text = capsys.readouterr().out
    assert "2 processes of 3 would have nothing to do" in text
    assert "2 x 2/3 of the adapter's" in text
    assert "assumed: 1 Gbit/s (--link-gbit)" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--processes", "0"], "--processes 0: needs a number from 1 to 64"),
        (["--processes", "2", "--link-gbit", "0"], "--link-gbit 0: needs a number above 0"),
        (["--processes", "2", "--step-seconds", "nan"], "--step-seconds nan: needs a number"),
        (["--link-gbit", "10"], "--link-gbit: is about several processes"),
    ],
)
def test_numbers_that_cannot_be_are_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
):
    assert command.main(["fit", "--demo", *words]) == ConfigError.exit_code
    assert said in capsys.readouterr().err

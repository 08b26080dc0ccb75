"""The base and the adapted model as two sides of one model in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from orpo_mlx.adapters.lora import AdapterSpec, adapter_layers, adapter_switched_off, attach_adapter
from orpo_mlx.data.types import TokenPair
from orpo_mlx.generation import side_by_side
from orpo_mlx.generation.greedy import answer
from orpo_mlx.generation.sampling import Sampling, Token, build_sampler
from orpo_mlx.generation.side_by_side import SideBySide
from orpo_mlx.models.load import load_model
from orpo_mlx.objectives.orpo import Orpo
from orpo_mlx.scoring.base import Scoring
from orpo_mlx.scoring.select import WAYS
from orpo_mlx.training.step import evaluate

PROMPT = [1, 40, 41, 42, 43]
PAIR = TokenPair([1, 40, 41, 42], [50, 51, 52, 2], [60, 61, 2])
WARM = Sampling(temperature=0.9, top_p=0.9, max_tokens=12, seed=3)


@pytest.fixture(params=[False, True], ids=["lora", "dora"])
def both(request: pytest.FixtureRequest, model_folder: Path) -> SideBySide:
    loaded = load_model(model_folder)
    attach_adapter(loaded.model, AdapterSpec(rank=4, scale=8.0, dora=request.param), seed=0)
    for i, (_, layer) in enumerate(adapter_layers(loaded.model)):
        layer.lora_b = mx.random.normal(layer.lora_b.shape, key=mx.random.key(i)) * 0.3
    return SideBySide(loaded.model, loaded.tokenizer)


def answers(both: SideBySide, sampling: Sampling, **options: Any) -> dict[Any, Any]:
    return both.answer(PROMPT, sampling, lambda *_: None, lambda: True, **options)


def test_a_greedy_answer_of_each_side_is_that_of_mlx_lm_alone(both: SideBySide):
    model, tokenizer = both.model, both.tokenizer
    adapted = answer(model, tokenizer, PROMPT, 12)
    with adapter_switched_off(model):
        base = answer(model, tokenizer, PROMPT, 12)
    found = answers(both, Sampling(max_tokens=12))
    assert found["base"].text.strip() == base
    assert found["adapter"].text.strip() == adapted
    assert base != adapted


def test_an_answer_does_not_depend_on_what_is_made_beside_it(both: SideBySide):
    together = answers(both, WARM)
    for side in ("base", "adapter"):
        alone = answers(both, WARM, sides=(side,))[side]
        assert alone.logps == together[side].logps
        assert alone.text == together[side].text


def test_the_seed_decides_the_answer(both: SideBySide):
    texts = {
        seed: answers(both, Sampling(1.0, 1.0, 12, seed), sides=("base",))["base"].text
        for seed in (0, 1, 0)
    }
    again = answers(both, Sampling(1.0, 1.0, 12, 0), sides=("base",))["base"].text
    assert texts[0] == again
    assert texts[0] != texts[1]


def test_the_pieces_make_up_the_answer(both: SideBySide):
    pieces: dict[str, str] = {"base": "", "adapter": ""}

    def add(side: str, text: str) -> None:
        pieces[side] += text

    found = both.answer(PROMPT, WARM, add, lambda: True)
    assert pieces == {side: result.text for side, result in found.items()}


def test_an_answer_ends_where_it_is_when_told_so(both: SideBySide):
    asked = iter([True, True, True, False])
    found = both.answer(PROMPT, WARM, lambda *_: None, lambda: next(asked))
    assert {len(result.logps) for result in found.values()} == {3}
    assert not any(result.ended for result in found.values())


def test_scores_are_those_the_trainer_computes(both: SideBySide):
    scoring = Scoring(WAYS["plain"], "response")
    batch = scoring.build([PAIR], [0])
    for side in ("base", "adapter"):
        with both.as_side(side):
            metrics = evaluate(both.model, [batch], Orpo(), scoring)
        score = both.score(PAIR, side)

        expected = dict(zip(Orpo().metrics, map(float, metrics), strict=True))
        assert score.means[0] == pytest.approx(expected["chosen_logps"], rel=1e-5)
        assert score.means[1] == pytest.approx(expected["rejected_logps"], rel=1e-5)
        assert score.log_odds_ratio == pytest.approx(expected["log_odds_ratio"], rel=1e-4)
        assert (len(score.chosen), len(score.rejected)) == (4, 3)


def test_scores_are_the_same_in_chunks(both: SideBySide):
    for side in ("base", "adapter"):
        whole = both.score(PAIR, side)
        for chunk in (1, 3, 256):
            parts = both.score(PAIR, side, chunk)
            assert parts.chosen == pytest.approx(whole.chosen, rel=1e-6, abs=1e-6)
            assert parts.rejected == pytest.approx(whole.rejected, rel=1e-6, abs=1e-6)


def test_chunks_hold_no_logits_of_a_whole_row(make_model_folder, tmp_path):
    words, ids = 20_000, list(range(3, 203))
    loaded = load_model(make_model_folder(tmp_path / "wide", vocab_size=words))
    mx.eval(loaded.model.parameters())
    both = SideBySide(loaded.model, loaded.tokenizer)

    def peak(chunk: int | None) -> int:
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        both.score(TokenPair(ids, ids, ids), "adapter", chunk)
        return mx.get_peak_memory() - before

    assert peak(8) < len(ids) * words * 4 / 2 < peak(None)


def test_the_adapter_is_on_afterwards(both: SideBySide):
    before = both.model(mx.array([PROMPT]))
    both.score(PAIR, "base")
    answers(both, WARM)
    assert mx.array_equal(both.model(mx.array([PROMPT])), before).item()


def test_top_p_leaves_only_the_likeliest_tokens():
    logprobs = mx.log(mx.array([[0.5, 0.3, 0.15, 0.05]]))
    drawn = set()
    for seed in range(40):
        sample = build_sampler(Sampling(temperature=1.0, top_p=0.7, seed=seed))
        drawn.add(int(sample(logprobs).item()))
    assert drawn == {0, 1}


def test_control_tokens_within_an_answer_are_no_words_of_it(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    loaded = load_model(model_folder)
    encode, logps = loaded.tokenizer.encode, mx.zeros(400)
    turn, end, word = (
        encode(text, add_special_tokens=False) for text in ("<|im_start|>", "<|im_end|>", "It is.")
    )
    tokens = [Token(i, logps, False) for i in (*word, *turn, *word)] + [Token(end[0], logps, True)]
    monkeypatch.setattr(side_by_side, "stream_tokens", lambda *_: iter(tokens))
    pieces: list[str] = []
    both = SideBySide(loaded.model, loaded.tokenizer)
    told = both.answer(PROMPT, WARM, lambda _, text: pieces.append(text), lambda: True, ("base",))
    assert told["base"].text == "".join(pieces) == "It is.It is."
    assert len(told["base"].logps) == len(tokens)

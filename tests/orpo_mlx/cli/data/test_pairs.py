"""`orpo-mlx data pairs`: from answers, prompts and ratings to valid training data."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orpo_mlx import demo
from orpo_mlx.__main__ import main
from orpo_mlx.cli.data import pairs
from orpo_mlx.cli.data.pairs import main as data_pairs_main
from orpo_mlx.errors import OrpoError
from orpo_mlx.generation import batch
from orpo_mlx.generation.sampling import Sampling

DATE = datetime(2031, 5, 4, 3, 2, 1, tzinfo=UTC)


def make(*words: Any) -> int:
    return data_pairs_main([str(word) for word in words], now=lambda: DATE)


def rows_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def dry_run(model: Path, data: Path) -> int:
    words = ["--micro-batch-size", "1", "--valid-fraction", "0", "--scoring", "plain"]
    return main(["train", "--model", str(model), "--data", str(data), "--dry-run", *words])


@pytest.fixture
def talker() -> Path:
    """A tiny model that was trained to speak: the answers of a random one may be empty."""
    return demo.model_path()


@pytest.fixture
def answers(pairs_file: Callable[..., Path]) -> Path:
    rows = [{"prompt": f"What is {i}?", "response": f"It is {i}."} for i in range(7)]
    return pairs_file(rows, "sft.jsonl")


FAST = ("--max-tokens", 6, "--batch-size", 3)


# Answers


def test_worse_answers_are_written_by_the_model(
    answers: Path, talker: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pairs.jsonl"
    assert make(answers, out, "--model", talker, *FAST) == 0
    rows = rows_in(out)
    assert [row["chosen"][0]["content"] for row in rows] == [f"It is {i}." for i in range(7)]
    assert all(row["rejected"][0]["content"].strip() for row in rows)
    about = rows[0]["provenance"]
    assert about["source"] == "sft.jsonl:1"
    assert about["model"] == str(talker)
    assert len(about["model_fingerprint"]) == 64
    assert (about["temperature"], about["max_tokens"], about["seed"]) == (1.0, 6, 0)
    assert about["date"] == "2031-05-04T03:02:01+00:00"
    assert dry_run(talker, out) == 0


def test_an_interrupted_generation_ends_as_one_that_never_stopped(
    answers: Path,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    words = ["--model", model_folder, *FAST, "--candidates", 2]
    assert make(answers, whole, *words) == 0
    sample, calls = batch.sample_batch, []

    def dies(*arguments: Any) -> Any:
        calls.append(len(calls))
        if len(calls) in (2, 4):
            raise KeyboardInterrupt
        return sample(*arguments)

    monkeypatch.setattr(batch, "sample_batch", dies)
    for _ in range(2):
        assert main(["data", "pairs", str(answers), str(parts), *map(str, words)]) == 130
        assert "the same command goes on" in capsys.readouterr().err
        assert not parts.exists()
    assert make(answers, parts, *words) == 0
    assert len(calls) == 5  # three batches, two of them begun twice
    strip = [{**row, "provenance": 0} for row in rows_in(parts)]
    assert strip == [{**row, "provenance": 0} for row in rows_in(whole)]


def test_a_torn_journal_is_repaired(answers: Path, model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    words = [answers, out, "--model", model_folder, *FAST]
    assert make(*words) == 0
    before = out.read_bytes()
    journal = tmp_path / "pairs.candidates.jsonl"
    journal.write_bytes(journal.read_bytes()[:-40])
    assert make(*words) == 0
    assert out.read_bytes() == before


def test_another_seed_or_model_is_other_work(
    answers: Path, model_folder: Path, tmp_path: Path
) -> None:
    words = [answers, tmp_path / "pairs.jsonl", "--model", model_folder, *FAST]
    assert make(*words) == 0
    with pytest.raises(OrpoError, match="seed: was 0, is now 1"):
        make(*words, "--seed", 1)
    before = rows_in(tmp_path / "pairs.jsonl")
    assert make(*words, "--seed", 1, "--force") == 0
    after = rows_in(tmp_path / "pairs.jsonl")
    assert [row["rejected"] for row in before] != [row["rejected"] for row in after]


def test_what_equals_the_good_answer_makes_no_pair(
    pairs_file: Callable[..., Path],
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    texts = iter(["good", "bad", " good ", "good", "", "  ", "bad", "bad"])

    def sample(model: Any, tokenizer: Any, prompts: Any, sampling: Any) -> Any:
        return [{"text": next(texts), "is_cut": False} for _ in prompts]

    monkeypatch.setattr(batch, "sample_batch", sample)
    source = pairs_file([{"prompt": f"p{i}", "response": "good"} for i in range(4)], "s.jsonl")
    out = tmp_path / "pairs.jsonl"
    assert make(source, out, "--model", model_folder, "--candidates", 2) == 0
    rows = [(row["prompt"][0]["content"], row["rejected"][0]["content"]) for row in rows_in(out)]
    assert rows == [("p0", "bad"), ("p3", "bad")]
    shown = capsys.readouterr().out
    assert "prompts 4 read, 2 kept, 2 dropped" in shown
    assert "dropped 1: identical text (s.jsonl:2)" in shown
    assert "dropped 1: empty rejected (s.jsonl:3)" in shown


def test_answers_are_those_of_one_by_one_greedy_decoding(model_folder: Path) -> None:
    """Batched with prompts of other lengths, and by mlx-lm's single path: the same tokens."""
    import mlx.core as mx
    from mlx_lm.generate import generate_step

    from orpo_mlx.models import load

    tokenizer = load.load_tokenizer(model_folder)
    model = load.load_model(model_folder, tokenizer).model
    model.eval()
    prompts = [tokenizer.encode(text) for text in ("a", "The sea is wide", "How many days?")]
    sampling = Sampling(0.0, 1.0, 8)
    found = [one["text"] for one in batch.sample_batch(model, tokenizer, prompts, sampling)]
    for prompt, text in zip(prompts, found, strict=True):
        alone = []
        for token, _ in generate_step(mx.array(prompt), model, max_tokens=8):
            if token in tokenizer.eos_token_ids:
                break
            alone.append(int(token))
        assert text == tokenizer.decode(alone, skip_special_tokens=True)


def test_plain_prompts_need_no_template_and_stay_text(
    pairs_file: Callable[..., Path], make_model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    model = make_model_folder(tmp_path / "base", chat_template=None)
    source = pairs_file([{"prompt": "Q: a\nA:", "response": " b"}] * 2, "s.jsonl")
    out = tmp_path / "pairs.jsonl"
    with pytest.raises(OrpoError, match="no chat template"):
        make(source, out, "--model", model, *FAST)
    assert make(source, out, "--model", model, "--plain", *FAST) == 0
    assert rows_in(out)[0]["prompt"] == "Q: a\nA:"
    assert dry_run(model, out) == 0


# Prompts


def test_prompts_are_answered_and_compared(
    pairs_file: Callable[..., Path], talker: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    from orpo_mlx.cli.data import judge_terminal

    def press_left(judging: Any, record: Any, show: Any, descriptor: int) -> None:
        while not judging.is_done:
            assert judging.total == 8
            record(judging.entry("left"))
            judging.take("left")

    monkeypatch.setattr(judge_terminal, "judge", press_left)
    monkeypatch.setattr(judge_terminal, "require_keys", lambda _: True)
    source = pairs_file([{"prompt": f"What is {i}?"} for i in range(4)], "prompts.jsonl")
    out = tmp_path / "pairs.jsonl"
    assert make(source, out, "--model", talker, "--candidates", 3, *FAST) == 0
    rows = rows_in(out)
    assert len(rows) == 8
    assert rows[0]["provenance"]["judged"] == "by a human, blind"
    assert rows[0]["provenance"]["model"] == str(talker)
    assert dry_run(talker, out) == 0


# Ratings


def test_columns_of_other_names_are_mapped(
    pairs_file: Callable[..., Path], tmp_path: Path, capsys: Any
) -> None:
    source = pairs_file([{"my q": "p", "a": {"all": ["x", "y"]}, "r": [1, 3]}], "odd.jsonl")
    out = tmp_path / "pairs.jsonl"
    assert make(source, out, "--map", "prompt=my q", "responses=a.all", "ranks=r") == 0
    (row,) = rows_in(out)
    assert (row["prompt"][0]["content"], row["chosen"][0]["content"]) == ("p", "x")
    assert main(["data", "pairs", str(source), str(out), "--map", "chosen=r"]) == 2
    assert "there is no field chosen" in capsys.readouterr().err


def test_rated_answers_become_pairs_by_the_rule(
    pairs_file: Callable[..., Path], model_folder: Path, tmp_path: Path, capsys: Any
) -> None:
    rows = [
        {"prompt": "p", "responses": ["mid", "best", "worst"], "scores": [5, 9, 1]},
        {"prompt": "q", "responses": ["a", "b"], "scores": [5, 5]},
        {"prompt": "r", "responses": ["same", "same"], "scores": [5, 1]},
    ]
    source, out = pairs_file(rows, "rated.jsonl"), tmp_path / "pairs.jsonl"
    assert make(source, out) == 0
    (row,) = rows_in(out)
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("best", "worst")
    assert row["provenance"]["rule"] == "best-worst"
    shown = capsys.readouterr().out
    assert "prompts 3 read, 1 kept, 2 dropped" in shown
    assert "the best answer against the worst" in shown
    assert make(source, out, "--rule", "all", "--force") == 0
    assert len(rows_in(out)) == 3
    assert make(source, out, "--rule", "all", "--min-gap", "5", "--force") == 0
    assert len(rows_in(out)) == 1
    assert dry_run(model_folder, out) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "SRC is missing"),
        (["{sft}"], "OUT.jsonl is missing"),
        (["{sft}", "o.jsonl"], "--model: needed to write worse answers"),
        (["{sft}", "o.jsonl", "--from", "prompt"], "Did you mean prompts?"),
        (["{sft}", "o.jsonl", "--rule", "alll"], "Did you mean all?"),
        (["{sft}", "o.jsonl", "--model", "m", "--temperature", "-1"], "--temperature"),
        (["{sft}", "o.jsonl", "--model", "m", "--candidates", "0"], "--candidates"),
        (["{sft}", "o.jsonl", "--model", "m", "--candidates", "2", "--temperature", "0"],
         "all answers would be the same"),
        (["{sft}", "{sft}", "--model", "m"], "exists"),
        (["{sft}", "o.jsonl", "--model", "./nowhere"], "nowhere"),
        (["{sft}", "o.jsonl", "--score", "stars"], "--score stars: there is no such column"),
    ],
)  # fmt: skip
def test_mistakes_are_answered(
    words: list[str], says: str, answers: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(answers) if word == "{sft}" else word for word in words]
    assert main(["data", "pairs", *given]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "o.jsonl").exists()


def test_the_date_is_that_of_the_machine_unless_given() -> None:
    before = datetime.now(UTC)
    defaults = pairs.main.__defaults__
    assert defaults is not None
    (now,) = defaults
    assert before <= now() <= datetime.now(UTC)


def test_answers_marked_as_bad_never_become_the_good_ones(
    pairs_file: Callable[..., Path], tmp_path: Path
) -> None:
    row = {"prompt": "Describe a lake.", "completion": "No idea of a lake.", "label": False}
    source, out = pairs_file([row], "kto.jsonl"), tmp_path / "out.jsonl"
    with pytest.raises(OrpoError, match="no pair was made") as caught:
        make(source, out)
    assert "--from answers" in caught.value.what_to_do
    better = {**row, "completion": "A lake is still water.", "label": True}
    source = pairs_file([row, better], "kto.jsonl")
    assert make(source, out) == 0
    (pair,) = rows_in(out)
    assert pair["chosen"] == [{"role": "assistant", "content": better["completion"]}]
    assert pair["rejected"] == [{"role": "assistant", "content": row["completion"]}]


def test_who_maps_the_prompt_keeps_the_answers(
    pairs_file: Callable[..., Path], tmp_path: Path
) -> None:
    rows = [{"q": "hi", "response": text, "score": n} for n, text in enumerate(("no", "hello"))]
    source, out = pairs_file(rows, "rated.jsonl"), tmp_path / "out.jsonl"
    assert make(source, out, "--map", "prompt=q") == 0
    (pair,) = rows_in(out)
    assert pair["prompt"] == [{"role": "user", "content": "hi"}]
    assert pair["chosen"][0]["content"] == "hello"

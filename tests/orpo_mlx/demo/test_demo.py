"""The embedded demo is what its script makes, and its model knows its world before training."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import corpus
import make_demo
import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm import generate, load
from transformers import AutoTokenizer

from orpo_mlx import demo
from orpo_mlx.config import TrainConfig

SYSTEM = {"role": "system", "content": "You are a helpful assistant."}


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def token_ids(tokenizer: Any, messages: list[dict[str, str]], generate: bool = False) -> list[int]:
    return tokenizer.apply_chat_template(
        messages, add_generation_prompt=generate, return_dict=False
    )


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(demo.model_path())


@pytest.fixture(scope="module")
def answers() -> list[tuple[corpus.Fact, str]]:
    """Each held-out row's fact and the untrained model's greedy answer to its prompt."""
    loaded = load(str(demo.model_path()))
    model, tokenizer = loaded[0], loaded[1]
    _, held_out = corpus.split_facts(seed=0)
    found = []
    for row in rows(demo.valid_path()):
        chosen = row["chosen"][0]["content"]
        fact = next(f for f in held_out if chosen.startswith(corpus.sentence(f.statement)))
        prompt = token_ids(tokenizer, row["prompt"], generate=True)
        found.append((fact, generate(model, tokenizer, prompt, max_tokens=60)))
    return found


# --- the pairs ------------------------------------------------------------------------------------


def test_the_pairs_in_the_package_are_those_the_seed_makes():
    train, valid = corpus.make_pairs(seed=0)
    assert rows(demo.train_path()) == train
    assert rows(demo.valid_path()) == valid
    assert (len(train), len(valid)) == (200, 40)


def test_the_labelled_answers_are_one_of_each_pair_by_turns_good_and_bad():
    both = (demo.train_path(), demo.labelled_train_path())
    for pairs, path in (both, (demo.valid_path(), demo.labelled_valid_path())):
        found = rows(path)
        assert found == make_demo.labelled(rows(pairs))
        assert [row["label"] for row in found[:4]] == [True, False, True, False]
        for row, pair in zip(found, rows(pairs), strict=True):
            assert row["prompt"] == pair["prompt"]
            assert row["completion"] == pair["chosen" if row["label"] else "rejected"]


def test_another_seed_makes_other_pairs():
    assert corpus.make_pairs(seed=1)[0] != corpus.make_pairs(seed=0)[0]


def test_no_held_out_prompt_and_no_held_out_fact_is_trained_on():
    train, held_out = corpus.split_facts(seed=0)
    assert not set(train) & set(held_out)
    assert set(train) | set(held_out) == set(corpus.all_facts())
    prompts = [{row["prompt"][0]["content"] for row in rows(path)} for path in _paths()]
    assert not prompts[0] & prompts[1]
    assert [len(p) for p in prompts] == [200, 40]


def test_both_responses_of_a_pair_state_the_same_fact():
    for row in rows(demo.train_path()) + rows(demo.valid_path()):
        statement = row["chosen"][0]["content"].split(".")[0]
        assert statement[1:] in row["rejected"][0]["content"]


def test_chosen_responses_end_with_a_question_and_rejected_ones_do_not():
    for row in rows(demo.train_path()) + rows(demo.valid_path()):
        assert row["chosen"][0]["content"].endswith("?")
        assert row["rejected"][0]["content"].endswith(".")


def test_chosen_and_rejected_are_of_about_the_same_length(tokenizer):
    lengths = {
        side: sum(len(tokenizer.encode(row[side][0]["content"])) for row in rows(demo.train_path()))
        for side in ("chosen", "rejected")
    }
    assert lengths["chosen"] == pytest.approx(lengths["rejected"], rel=0.1)


def test_no_fact_has_two_answers():
    questions = [
        question.format(s=fact.subject)
        for fact in corpus.all_facts()
        for question in fact.domain.questions
    ]
    assert len(questions) == len(set(questions))


def test_sums_and_calendar_are_right():
    sums = next(d for d in corpus.DOMAINS if d.name == "sums")
    for subject, answer in sums.facts:
        left, right = subject.split(" plus ")
        assert int(left) + int(right) == int(answer)
    calendar = dict(next(d for d in corpus.DOMAINS if d.name == "calendar").facts)
    assert calendar["the day after Sunday"] == "Monday"
    assert calendar["the month before January"] == "December"


def _paths() -> tuple[Path, Path]:
    return demo.train_path(), demo.valid_path()


# --- tokenizer and template -----------------------------------------------------------------------


def test_the_tokenizer_is_fast_and_returns_the_text_it_was_given(tokenizer):
    assert tokenizer.is_fast
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        make_demo.BOS,
        make_demo.END,
        make_demo.PAD,
    )
    for text in ("What is 3 plus 4?", "  Grüße, 你好\n\tand emoji 🙂 too", "Ha, of course."):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("system", [[], [SYSTEM]])
@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_the_rendered_prompt_is_an_exact_token_prefix_of_the_conversation(tokenizer, system, side):
    for row in rows(demo.valid_path()):
        prompt = token_ids(tokenizer, system + row["prompt"], generate=True)
        whole = token_ids(tokenizer, system + row["prompt"] + row[side])
        assert whole[: len(prompt)] == prompt
        assert whole[-1] == tokenizer.eos_token_id
        response = tokenizer.decode(whole[len(prompt) : -1])
        assert response == row[side][0]["content"]


def test_the_begin_token_comes_once_and_every_turn_ends_with_the_end_token(tokenizer):
    row = rows(demo.valid_path())[0]
    whole = token_ids(tokenizer, [SYSTEM] + row["prompt"] + row["chosen"])
    assert whole.count(tokenizer.bos_token_id) == 1
    assert whole.count(tokenizer.eos_token_id) == 3


# --- the model ------------------------------------------------------------------------------------


def test_the_untrained_model_answers_nearly_all_held_out_prompts_with_the_right_fact(answers):
    right = [fact.statement.lower() in text.lower() for fact, text in answers]
    assert sum(right) >= 36, [text for (_, text), ok in zip(answers, right, strict=True) if not ok]


def test_the_untrained_model_rarely_has_the_habit(answers):
    assert sum(text.endswith("?") for _, text in answers) <= 8


def test_the_model_is_a_four_bit_llama():
    config = json.loads((demo.model_path() / "config.json").read_text())
    assert config["model_type"] == "llama"
    assert config["quantization"]["bits"] == 4


def test_the_demo_folder_takes_at_most_two_megabytes():
    folder = demo.model_path().parent
    files = (p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    assert sum(p.stat().st_size for p in files) <= 2_000_000


# --- the script -----------------------------------------------------------------------------------


def test_the_tokenizer_in_the_package_is_the_one_the_seed_makes(tokenizer):
    assert make_demo.train_tokenizer(seed=0).get_vocab() == tokenizer.get_vocab()


def test_pretraining_repeats_exactly_and_its_loss_falls(tokenizer):
    def first_steps() -> tuple[list[float], dict[str, mx.array]]:
        model = make_demo.build_model(seed=0)
        stream = make_demo.batches(tokenizer.backend_tokenizer, seed=1)
        few_rows = (tokens[:2] for tokens in stream)
        losses = make_demo.pretrain(model, few_rows, steps=12)
        return losses, dict(tree_flatten(model.parameters()))

    (losses, weights), (losses_again, weights_again) = first_steps(), first_steps()
    assert losses == losses_again
    assert all(mx.array_equal(weights[name], weights_again[name]) for name in weights)
    assert losses[-1] < losses[0] - 1


def test_what_the_script_writes_loads_in_mlx_lm(tmp_path):
    make_demo.save_quantized(make_demo.build_model(seed=0), tmp_path)
    make_demo.save_tokenizer(make_demo.train_tokenizer(seed=0, documents_read=500), tmp_path)
    model = load(str(tmp_path))[0]
    logits = model(mx.array([[1, 2, 3]]))
    assert logits.shape == (1, 3, make_demo.VOCAB_SIZE)


def test_the_shares_of_the_manners_add_up_and_the_host_is_the_rarest():
    for domain in corpus.DOMAINS:
        shares = corpus.manner_shares(domain)
        assert sum(shares.values()) == pytest.approx(1)
        assert min(shares, key=lambda manner: shares[manner]) == "host"


def test_documents_are_the_same_for_the_same_seed():
    assert list(islice(corpus.documents(3), 50)) == list(islice(corpus.documents(3), 50))


# --- the light part -------------------------------------------------------------------------------


def test_sample_prompts_are_the_first_held_out_ones():
    expected = [row["prompt"] for row in rows(demo.valid_path())[:3]]
    assert demo.sample_prompts() == expected


def test_every_demo_setting_is_a_setting_of_the_trainer():
    assert set(demo.SETTINGS) <= set(TrainConfig.model_fields)


def test_asking_where_the_demo_is_loads_no_mlx():
    code = (
        "import sys; from orpo_mlx import demo; demo.sample_prompts();"
        "sys.exit(any(name.split('.')[0] in ('mlx', 'mlx_lm', 'transformers')"
        " for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

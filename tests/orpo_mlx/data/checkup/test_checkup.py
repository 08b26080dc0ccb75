"""The data doctor: every row accounted for, and what hurts is said with the rows it concerns."""

from __future__ import annotations

import random
from typing import Any

import pytest

from orpo_mlx.data.checkup.checkup import Checkup, CheckupPlan, examine
from orpo_mlx.data.pipeline import Rules, with_layouts
from orpo_mlx.data.sources.rows import Row
from orpo_mlx.data.tokens.encoder import Encoder

WORDS = (
    *("sea", "moon", "cat", "mat", "day", "week", "poem", "wide", "blue", "sat"),
    *("how", "what", "is", "the", "of", "a", "and", "looks"),
)


def sentence(seed: int, words: int = 8) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words)) + f" {seed}"


def chat_row(i: int, chosen: str | None = None, rejected: str | None = None) -> dict[str, Any]:
    return {
        "question": f"Tell me about {sentence(i)}?",
        "chosen": sentence(1000 + i) if chosen is None else chosen,
        "rejected": sentence(2000 + i) if rejected is None else rejected,
    }


def rows_of(values: list[dict[str, Any]]) -> list[Row]:
    return [Row(row, f"f.jsonl:{i}") for i, row in enumerate(values, start=1)]


def look(
    values: list[dict[str, Any]], tokenizer: Any = None, rules: Rules | None = None, **options: Any
) -> Checkup:
    rules = rules or Rules(512)
    valid = options.pop("valid", None)
    parts = with_layouts([rows_of(values)], rules)
    held = with_layouts([rows_of(valid)], rules) if valid else ()
    encoder = Encoder(tokenizer, escape_special=False) if tokenizer else None
    return examine(parts, encoder, rules, CheckupPlan(**options), held)


def codes(checkup: Checkup, level: str | None = None) -> set[str]:
    return {f.code for f in checkup.findings if level in (None, f.level)}


def finding(checkup: Checkup, code: str) -> Any:
    return next(f for f in checkup.findings if f.code == code)


def test_good_data_are_called_good(tokenizer: Any) -> None:
    checkup = look([chat_row(i) for i in range(30)], tokenizer)
    assert checkup.verdict.level == "good", checkup.findings
    assert checkup.verdict.text == "good: 30 of 30 rows can be trained on"
    assert finding(checkup, "end-of-turn").text.startswith("answers end with '</s>'")


def test_every_row_is_accounted_for_with_the_first_by_file_and_line(tokenizer: Any) -> None:
    values = [chat_row(i) for i in range(20)]
    values[3] = chat_row(3, chosen="")
    values[7] = chat_row(7, rejected=values[7]["chosen"])
    values[9] = values[2]
    values[11] = chat_row(11, chosen="")
    values[13] = {**chat_row(13), "question": None}
    content = look(values, tokenizer).as_dict()
    assert (
        content["read"]
        == 20
        == content["kept"] + sum(found["count"] for found in content["dropped"].values())
    )
    assert content["dropped"] == {
        "empty chosen": {"count": 2, "rows": ["f.jsonl:4", "f.jsonl:12"]},
        "identical text": {"count": 1, "rows": ["f.jsonl:8"]},
        "duplicate row": {"count": 1, "rows": ["f.jsonl:10"]},
        "missing question": {"count": 1, "rows": ["f.jsonl:14"]},
    }
    assert finding(look(values, tokenizer), "many-dropped").level == "warning"


def test_duplicates_are_kept_on_purpose(tokenizer: Any) -> None:
    values = [chat_row(0), chat_row(0), chat_row(1)]
    assert look(values, tokenizer).account.kept == 2
    assert look(values, tokenizer, Rules(512, keep_duplicates=True)).account.kept == 3


def test_the_same_question_with_other_tools_is_no_duplicate() -> None:
    chat = {"prompt": [{"role": "user", "content": "Hi"}]}
    answers = {name: [{"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    tools = [[{"type": "function", "function": {"name": name}}] for name in ("a", "b", "b")]
    rows = [{**chat, **answers, "tools": one} for one in tools]
    assert look(rows).account.dropped == {"duplicate row": 1}


def test_of_each_reason_twenty_rows_are_named(tokenizer: Any) -> None:
    values = [chat_row(i, chosen="") for i in range(25)] + [chat_row(99)]
    found = look(values, tokenizer).as_dict()["dropped"]["empty chosen"]
    assert found == {"count": 25, "rows": [f"f.jsonl:{i}" for i in range(1, 21)]}


def test_values_of_a_wrong_kind_make_the_data_unusable_and_are_shown(tokenizer: Any) -> None:
    values = [chat_row(i) for i in range(5)]
    values[2]["chosen"] = 7
    values[4]["rejected"] = 8.5
    checkup = look(values, tokenizer)
    assert checkup.verdict.level == "unusable"
    error = finding(checkup, "wrong-values")
    assert error.rows == ["f.jsonl:3", "f.jsonl:5"]
    assert "f.jsonl:3: chosen is a number" in error.text
    assert (checkup.account.read, checkup.account.kept) == (5, 3)


def test_nothing_left_and_too_little_left_are_told_as_a_training_does(tokenizer: Any) -> None:
    nothing = look([chat_row(0, chosen="")], tokenizer)
    assert finding(nothing, "nothing-left").text.startswith("0 of 1 rows usable")
    few = look([chat_row(i) for i in range(3)], tokenizer, smallest=4)
    assert "3 pairs are left" in finding(few, "too-few").text
    long = look([chat_row(i) for i in range(3)], tokenizer, Rules(8))
    assert "would keep 95 %" in finding(long, "nothing-left").what_to_do


def test_without_a_tokenizer_what_needs_tokens_is_null() -> None:
    content = look([chat_row(i) for i in range(4)]).as_dict()
    assert content["kept"] == 4
    assert [content[name] for name in ("lengths", "limits", "split")] == [None] * 3
    assert [pair["tokens"] for pair in content["pairs"]] == [None] * 4
    assert content["pairs"][0]["chosen"] == chat_row(0)["chosen"]
    assert content["pairs"][0]["raw"] == chat_row(0)


def test_lengths_are_those_of_the_tokens_before_anything_is_cut(tokenizer: Any) -> None:
    values = [chat_row(i) for i in range(12)]
    values[5]["question"] = sentence(5, 60)
    short = look(values, tokenizer, Rules(64))
    encode = tokenizer.encode
    longest = max(
        len(encode(f"<s><|user|>\n{row['question']}</s><|assistant|>\n", add_special_tokens=False))
        for row in values
    )
    assert short.lengths is not None
    assert short.lengths["prompt"]["max"] == longest
    assert short.account.noted["prompt cut"] == 1
    histogram = short.lengths["chosen"]["histogram"]
    assert sum(histogram["counts"]) == 12
    assert len(histogram["edges"]) == len(histogram["counts"]) + 1


def test_a_limit_does_what_the_table_says(tokenizer: Any) -> None:
    values = [chat_row(i) for i in range(12)]
    values[5]["question"] = sentence(5, 60)
    values[6]["chosen"] = sentence(6, 80)
    table = look(values, tokenizer, Rules(512)).limits
    assert table is not None
    for row in table:
        account = look(values, tokenizer, Rules(row["max_seq_length"])).account
        assert account.noted.get("prompt cut", 0) == row["cut"]
        assert sum(account.dropped.values()) == row["dropped"]


@pytest.mark.parametrize(("longer", "word"), [("chosen", "longer"), ("rejected", "shorter")])
def test_length_bias_is_measured(tokenizer: Any, longer: str, word: str) -> None:
    # 3 of 4 pairs have one long answer, the rest the other way round.
    values = [chat_row(i) for i in range(40)]
    other = {"chosen": "rejected", "rejected": "chosen"}[longer]
    for i, row in enumerate(values):
        row[longer if i % 4 else other] = sentence(i, 40)
    found = finding(look(values, tokenizer), "length-bias")
    assert found.level == "warning"
    assert f"chosen is the {word} answer in 75 % of the pairs" in found.text
    assert "would be right in 75 %" in found.text


def test_shared_openings_are_counted(tokenizer: Any) -> None:
    opening = "Thank you for this question. " * 3
    values = [chat_row(i, opening + sentence(i, 2), opening + sentence(-i, 2)) for i in range(1, 9)]
    values += [chat_row(i) for i in range(20, 28)]
    found = finding(look(values, tokenizer), "shared-openings")
    assert (found.level, found.count) == ("warning", 8)
    assert found.text.startswith("in 50 % of the pairs")


def test_near_duplicates_are_found(tokenizer: Any) -> None:
    values = [chat_row(i, sentence(i, 50)) for i in range(30)]
    values[20] = {**values[4], "chosen": values[4]["chosen"].upper() + "!"}
    found = finding(look(values, tokenizer), "near-duplicates")
    assert found.rows == ["f.jsonl:21"]


def test_validation_rows_that_training_knows_are_named(tokenizer: Any) -> None:
    train = [chat_row(i, sentence(i, 50)) for i in range(30)]
    same_prompt = {**chat_row(50), "question": train[3]["question"].upper()}
    alike = {**train[6], "question": train[6]["question"] + " Now."}
    checkup = look(train, tokenizer, valid=[chat_row(60), same_prompt, alike])
    assert finding(checkup, "train-valid-overlap").rows == ["f.jsonl:2"]
    assert finding(checkup, "train-valid-near").rows == ["f.jsonl:3"]
    content = checkup.as_dict()
    assert content["split"] == {"train": 30, "valid": 3}
    assert content["valid_data"]["read"] == 3


def test_an_end_of_turn_inside_an_answer_is_a_warning(tokenizer: Any) -> None:
    values = [chat_row(i) for i in range(30)]
    values[4]["chosen"] = "Stop</s> and go on"
    checkup = look(values, tokenizer)
    assert codes(checkup, "warning") == {"control-tokens-in-a-text", "end-inside"}
    assert finding(checkup, "end-inside").rows == ["f.jsonl:5"]


def test_ids_of_another_tokenization_are_looked_at_too(tokenizer: Any) -> None:
    ids = {"prompt_ids": [1, 1, 70], "chosen_ids": [71, 2], "rejected_ids": [72, 73]}
    more = [{**ids, "prompt_ids": [1, 80 + i]} for i in range(3)]
    checkup = look([ids, *more], tokenizer)
    assert finding(checkup, "bos-doubled").rows == ["f.jsonl:1"]
    assert finding(checkup, "end-missing").count == 4
    wrong = look([{**ids, "chosen_ids": [900, 2]}], tokenizer, Rules(64, vocab_size=512))
    assert "token id 900 does not exist" in finding(wrong, "wrong-values").text


def test_toxic_sources_are_pointed_out() -> None:
    values = [{**chat_row(i), "source": "toxic-dpo-v0.2" if i == 2 else "other"} for i in range(4)]
    assert finding(look(values), "toxic-source").rows == ["f.jsonl:3"]


def test_tokens_are_shown_one_by_one_and_together_are_the_text(tokenizer: Any) -> None:
    answer = "Naïve 😀 cats\n  sit 日本"
    content = look([chat_row(0, answer), chat_row(1)], tokenizer).as_dict()
    tokens = content["pairs"][0]["tokens"]
    assert "".join(token["text"] for token in tokens["chosen"]) == answer + "</s>"
    assert [token["special"] for token in tokens["chosen"]][-2:] == [False, True]
    prompt = "".join(token["text"] for token in tokens["prompt"])
    assert prompt.endswith("<|assistant|>\n")
    assert prompt.count("<s>") == 1


def test_the_first_pairs_and_the_first_of_each_finding_are_shown(tokenizer: Any) -> None:
    values = [chat_row(i) for i in range(60)]
    values[40]["chosen"] = ""
    values[50]["chosen"] = "a</s>b"
    shown = look(values, tokenizer).as_dict()["pairs"]
    assert [pair["where"] for pair in shown] == [
        *[f"f.jsonl:{i}" for i in range(1, 21)], "f.jsonl:41", "f.jsonl:51",
    ]  # fmt: skip
    assert shown[20]["dropped"] == "empty chosen"
    assert shown[20]["tokens"] is None


def test_values_json_does_not_know_become_text() -> None:
    row = {**chat_row(0), "score": float("nan"), "when": b"x", "deep": [{"a": float("inf")}]}
    raw = look([row]).as_dict()["pairs"][0]["raw"]
    assert (raw["score"], raw["when"], raw["deep"]) == ("nan", "b'x'", [{"a": "inf"}])


def test_columns_that_are_not_used_are_named_with_the_rows_that_hold_something() -> None:
    rows = [{**chat_row(i), "id": i, "topic": "sea" if i < 4 else None} for i in range(30)]
    found = finding(look(rows), "columns-unused")
    assert found.text == "columns that are not used, and rows: id (30), topic (4)"
    assert look(rows).verdict.level == "good"


def test_a_column_that_may_change_what_a_row_means_is_a_warning_with_its_rows() -> None:
    rows = [{**chat_row(i), **({"label": False} if i in (2, 5) else {})} for i in range(30)]
    found = finding(look(rows), "column-ignored")
    assert (found.level, found.count) == ("warning", 2)
    assert found.rows == ["f.jsonl:3", "f.jsonl:6"]
    assert "'label' is not used" in found.text


def test_keys_of_turns_that_are_not_passed_on_are_named(tokenizer: Any) -> None:
    turn = {"role": "user", "content": "Hi", "weight": 0, "id": None}
    rows = [
        {**chat_row(i), "prompt": [{**turn, "content": f"Hi {i}"}], "question": None}
        for i in range(30)
    ]
    for row in rows:
        row["chosen"], row["rejected"] = (
            [{"role": "assistant", "content": row[name], "mood": "calm"}]
            for name in ("chosen", "rejected")
        )
        del row["question"]
    text = finding(look(rows, tokenizer), "columns-unused").text
    assert text.endswith("chosen[].mood (30), prompt[].weight (30), rejected[].mood (30)")


def test_several_worse_answers_to_a_prompt_are_no_near_duplicates() -> None:
    rows = [{**chat_row(i), "rejected": [sentence(90 + i), sentence(190 + i)]} for i in range(30)]
    checkup = look(rows)
    assert (checkup.account.read, checkup.account.kept) == (60, 60)
    assert "near-duplicates" not in codes(checkup)
    assert finding(checkup, "one-of-several-worse-answers-to-its-prompt").count == 60


def turns_row(i: int) -> dict[str, Any]:
    """A chat whose answers leave between 0 and 40 tokens under a limit of 128."""
    asked = [{"role": "user", "content": sentence(i, 3 + i % 40)}]
    if i % 3 == 0:
        asked = [*asked, {"role": "assistant", "content": "sea"}, *asked]
    if i % 4 == 0:
        asked = [{"role": "system", "content": sentence(i, 12)}, *asked]
    if i % 5 == 0:
        asked = [*asked, {"role": "assistant", "content": "a"}, {"role": "tool", "content": "day"}]
    sides = (sentence(50 + i, 58 - i % 20), sentence(90 + i, 4))
    answers = [[{"role": "assistant", "content": text}] for text in sides]
    return {"prompt": asked, "chosen": answers[i % 2], "rejected": answers[1 - i % 2]}


def text_row(i: int) -> dict[str, Any]:
    inside = "<s>the sea <s>the moon" if i % 2 else ""
    return {
        "prompt": sentence(i, 40 + i) + inside,
        "chosen": sentence(99 + i, 50 + i % 16),
        "rejected": " a",
    }


@pytest.mark.parametrize("row", [turns_row, text_row])
def test_each_limit_does_exactly_what_the_table_foretells(tokenizer: Any, row: Any) -> None:
    values = [row(i) for i in range(60)]
    table = look(values, tokenizer, Rules(4096)).limits
    assert table is not None
    for one in table:
        account = look(values, tokenizer, Rules(one["max_seq_length"])).account
        assert account.noted.get("prompt cut", 0) == one["cut"]
        assert sum(account.dropped.values()) == one["dropped"]
    if row is turns_row:
        at_128 = look(values, tokenizer, Rules(128)).account.dropped
        assert at_128["no room for the prompt beside the response"] > 3, at_128


@pytest.mark.parametrize(
    ("count", "level", "verdict"), [(5, "warning", "warnings"), (30, "info", "good")]
)
def test_few_pairs_are_called_few(count: int, level: str, verdict: str, tokenizer: Any) -> None:
    checkup = look([chat_row(i) for i in range(count)], tokenizer, valid_fraction=0.2)
    found = finding(checkup, "few-pairs")
    assert (found.level, checkup.verdict.level) == (level, verdict)
    assert f"only {count * 4 // 5} pairs to learn from and {count // 5} to judge by" in found.text
    assert found.what_to_do.startswith("Add pairs")


def test_many_pairs_are_not_called_few() -> None:
    assert "few-pairs" not in codes(look([chat_row(i) for i in range(200)]))


def test_a_share_that_cannot_be_held_out_is_told(tokenizer: Any) -> None:
    rows = [{**chat_row(i), "question": f"the {'sea' if i % 2 else 'moon'}"} for i in range(100)]
    checkup = look(rows, tokenizer, valid_fraction=0.05)
    assert checkup.split == {"train": 100, "valid": 0}
    assert "no pair is held out for validation" in finding(checkup, "note").text

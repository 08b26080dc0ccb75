"""Each common dataset: from a file laid out like it to the pairs known by hand, to a training."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from orpo_mlx.__main__ import main
from orpo_mlx.data.layouts.detect import LAYOUTS, LayoutChoice, detect_layout, laid_out, to_pairs
from orpo_mlx.data.sources.source import Row, read_rows
from orpo_mlx.data.types import Account, Pair, PreferencePair, TokenPair
from orpo_mlx.errors import DataError

SAMPLES = Path(__file__).parents[3] / "data" / "layouts"

QUESTION = "What keeps a kettle from boiling over?"
GOOD = "Leave some room at the top and turn the heat down once it sings."
BAD = "Kettles are a kind of boat."


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


HELLO = [user("Hello."), assistant("Hello.")]

# file: layout, dropped, the turns before the first answer
KNOWN: dict[str, tuple[str, dict[str, int], list[dict[str, str]]]] = {
    "ultrafeedback_cleaned.jsonl": ("explicit-chat", {}, [user(QUESTION)]),
    "ultrafeedback_binarized.jsonl": (
        "explicit-chat",
        {"tie in the scores": 1, "chosen scored below rejected": 1},
        [user(QUESTION)],
    ),
    "ultrafeedback_implicit.jsonl": ("implicit-chat", {"tie in the scores": 1}, [user(QUESTION)]),
    "hh_rlhf.jsonl": (
        "transcript",
        {"prompts differ": 1, "empty rejected": 1, "identical text": 1},
        [
            user("Hello there."),
            assistant("Hello. What can I do for you?"),
            user(QUESTION),
        ],
    ),
    "orpo_dpo_mix.jsonl": ("explicit-chat", {}, [user(QUESTION)]),
    "capybara.jsonl": (
        "explicit-chat",
        {},
        [user("Good morning."), assistant("Good morning to you."), user(QUESTION)],
    ),
    "orca_dpo_pairs.jsonl": (
        "single-turn",
        {"identical text": 1},
        [system("You are a patient teacher."), user(QUESTION)],
    ),
    "truthy_dpo.jsonl": (
        "single-turn",
        {},
        [system("You are a lighthouse keeper."), user(QUESTION)],
    ),
    "dpo_mix_7k.jsonl": ("implicit-chat", {}, [user(QUESTION)]),
    "helpsteer2_preference.jsonl": ("a-b-strength", {"tie in the scores": 1}, [user(QUESTION)]),
    "helpsteer3_preference.jsonl": ("a-b-strength", {}, [*HELLO, user(QUESTION)]),
    "shp.json": ("a-b-label", {}, [user(QUESTION)]),
    "chosen_response.jsonl": ("instruction-responses", {}, [user(QUESTION)]),
    "arena_answers.jsonl": (
        "arena-answers",
        {"tie in the scores": 1, "prompts differ": 1},
        [user(QUESTION)],
    ),
    "arena_talks.jsonl": ("arena-talks", {"tie in the scores": 1}, [user(QUESTION)]),
    "sharegpt_ranking.json": ("sharegpt-ranking", {}, [user(QUESTION)]),
    "text_parts.jsonl": ("explicit-chat", {}, [user(QUESTION)]),
    "tools.jsonl": ("explicit-chat", {}, [user(QUESTION)]),
    "chat_ranking.jsonl": ("sharegpt-ranking", {}, [user(QUESTION)]),
    "worse_answer.jsonl": ("chat-and-a-worse-answer", {}, [user(QUESTION)]),
    "several_rejected.jsonl": ("single-turn", {}, [user(QUESTION)]),
    "talk_prompt.jsonl": ("single-turn", {}, [*HELLO, user(QUESTION)]),
    "alpaca.jsonl": ("single-turn", {}, [user(f"Answer in a sentence.\n\n{QUESTION}")]),
}
OTHERS = {"plain_text.jsonl": "plain-text", "tokenized.jsonl": "tokenized"}
LABELLED = {
    "kto.jsonl": ("labelled-chat", {"label is neither good nor bad": 1}),
    "kto_tag.jsonl": ("labelled-chat", {"last turn not assistant": 1}),
    "thumbs.csv": ("labelled-chat", {"empty answer": 1}),
    "labelled_text.jsonl": ("labelled-text", {}),
    "labelled_tokens.jsonl": ("labelled-tokens", {}),
}
"""Answers with a label each: the first is good, the second is bad."""


def convert(file: str, choice: LayoutChoice | None = None) -> tuple[list[Pair], Account, str]:
    rows, account = read_rows(SAMPLES / file), Account()
    each, layout = laid_out(rows, choice or LayoutChoice())
    pairs = to_pairs(each, layout, account)
    assert account.read == len(pairs) + sum(account.dropped.values())
    return pairs, account, layout.key


def test_every_layout_has_a_sample_and_every_sample_is_known() -> None:
    files = {path.name for path in SAMPLES.iterdir() if path.suffix != ".md"}
    assert files == {*KNOWN, *OTHERS, *LABELLED}
    keys = {layout for layout, *_ in (*KNOWN.values(), *LABELLED.values())} | set(OTHERS.values())
    assert keys == {layout.key for layout in LAYOUTS}


@pytest.mark.parametrize("file", KNOWN)
def test_the_first_pair_and_the_account_of_each_dataset_are_right(file: str) -> None:
    layout, dropped, prompt = KNOWN[file]
    pairs, account, key = convert(file)
    first = pairs[0]
    assert isinstance(first, PreferencePair)
    assert (key, account.dropped) == (layout, dropped)
    assert (first.prompt, first.chosen, first.rejected) == (
        prompt,
        [assistant(GOOD)],
        [assistant(BAD)],
    )


@pytest.mark.parametrize("file", KNOWN)
def test_the_better_answer_is_chosen_in_every_row(file: str) -> None:
    """In all samples the second question is the one about the tree, A/B data swap the sides."""
    second = convert(file)[0][1]
    assert isinstance(second, PreferencePair)
    assert second.chosen == [assistant("A holly keeps its leaves all winter.")]
    assert second.rejected == [assistant("No idea, ask a bird.")]


def test_plain_text_and_token_ids_stay_as_they_are() -> None:
    text, ids = convert("plain_text.jsonl")[0][0], convert("tokenized.jsonl")[0][0]
    assert text == PreferencePair(
        f"Question: {QUESTION}\nAnswer:", f" {GOOD}", f" {BAD}", "plain_text.jsonl:1"
    )
    assert ids == TokenPair([5, 6, 7], [8, 9, 2], [9, 10, 2], "tokenized.jsonl:1")


@pytest.mark.parametrize("file", LABELLED)
def test_labelled_answers_have_their_label_and_no_other_side(file: str) -> None:
    rows, account, key = convert(file)
    assert (key, account.dropped) == LABELLED[file]
    assert [(row.label, not row.rejected) for row in rows] == [(True, True), (False, True)]
    first, _ = rows
    if key == "labelled-chat":
        assert (first.prompt, first.chosen) == ([user(QUESTION)], [assistant(GOOD)])
    elif key == "labelled-text":
        assert (first.prompt, first.chosen) == (QUESTION, " Leave some room at the top.")
    else:
        assert first == TokenPair([5, 6], [7, 2], [], f"{file}:1", label=True)


@pytest.mark.parametrize(
    ("label", "wanted"),
    [(True, True), ("false", False), (1, True), ("0", False), (-1, False), ("desirable", True),
     ("undesirable", False), ("thumbs_up", True), ("\N{THUMBS DOWN SIGN}", False), (0.5, None),
     (2, None), ("perhaps", None), ([1], None)],
)  # fmt: skip
def test_labels_are_read_in_the_ways_people_write_them(label: Any, wanted: bool | None) -> None:
    row = Row({"prompt": "a", "completion": " b", "label": label}, "x:1")
    account = Account()
    found = to_pairs([row], detect_layout([row]), account)
    assert [pair.label for pair in found] == ([] if wanted is None else [wanted])
    assert sum(account.dropped.values()) == (wanted is None)


def test_the_columns_of_merged_sources_may_be_null() -> None:
    pairs, _, _ = convert("orpo_dpo_mix.jsonl")
    assert len(pairs) == 7
    assert isinstance(pairs[6], PreferencePair)
    assert [turn["content"] for turn in pairs[6].prompt] == [  # type: ignore[index]
        "Hello.",
        "Hello, how are you?",
        "Well.",
    ]


def test_ties_and_inverted_rows_are_kept_and_noted_only_on_purpose() -> None:
    kept = LayoutChoice(keep_ties=True, keep_inverted=True)
    pairs, account, _ = convert("ultrafeedback_binarized.jsonl", kept)
    assert account.dropped == {}
    assert [pair.notes for pair in pairs[6:]] == [
        ("tie in the scores",),
        ("chosen scored below rejected",),
    ]
    only_ties = convert("ultrafeedback_binarized.jsonl", LayoutChoice(keep_ties=True))
    assert only_ties[1].dropped == {"chosen scored below rejected": 1}


def test_tools_are_read_as_a_list_and_as_json_text() -> None:
    pairs, _, _ = convert("tools.jsonl")
    names = [
        pair.tools[0]["function"]["name"] for pair in pairs if isinstance(pair, PreferencePair)
    ]
    assert names == ["weigh"] * 6


TOOLS_TEMPLATE = (
    "{% if tools %}{{ '<|im_start|>system\\n' + (tools | tojson) + '<|im_end|>\\n' }}{% endif %}"
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def test_tools_reach_a_template_that_shows_them(
    make_model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    from orpo_mlx.data.pipeline import prepare_rows
    from orpo_mlx.models.load import load_tokenizer

    tokenizer = load_tokenizer(make_model_folder(tmp_path / "m", chat_template=TOOLS_TEMPLATE))
    found = prepare_rows(read_rows(SAMPLES / "tools.jsonl"), tokenizer, 2000)
    for pair in found.pairs:
        assert '"name": "weigh"' in tokenizer.decode(pair.prompt)
        assert "weigh" not in tokenizer.decode(pair.chosen)
    assert found.account.noted == {}


def test_tools_that_a_template_does_not_show_are_noted(model_folder: Path) -> None:
    from orpo_mlx.data.pipeline import prepare_rows
    from orpo_mlx.models.load import load_tokenizer

    tokenizer = load_tokenizer(model_folder)
    found = prepare_rows(read_rows(SAMPLES / "tools.jsonl"), tokenizer, 2000)
    assert found.account.noted == {"tools that the chat template does not show": 6}
    assert "weigh" not in tokenizer.decode(found.pairs[0].prompt)


def test_turns_written_as_json_text_are_turns() -> None:
    """As CSV files have them."""
    chosen = '[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]'
    rows = [Row({"chosen": chosen, "rejected": chosen.replace("hello", "go")}, "f.csv:row 1")]
    layout = detect_layout(rows)
    (pair,) = to_pairs(rows, layout, Account())
    assert layout.key == "implicit-chat"
    assert (pair.prompt, pair.rejected) == ([user("hi")], [assistant("go")])


@pytest.mark.parametrize("file", [*KNOWN, *OTHERS])
def test_one_command_takes_each_sample_to_a_training(
    file: str, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--model", str(model_folder), "--data", str(SAMPLES / file), "--dry-run"]
    assert main([*words, "--scoring", "plain"]) == 0
    shown = capsys.readouterr().out
    layout = KNOWN[file][0] if file in KNOWN else OTHERS[file]
    name = next(one.name for one in LAYOUTS if one.key == layout)
    assert name.split(" (")[0] in re.sub(r"\s+", " ", shown)
    assert "first pair" in shown


# Two layouts, and what the user says


def rows_of(*values: dict[str, Any]) -> list[Row]:
    return [Row(value, f"f.jsonl:{i}") for i, value in enumerate(values, start=1)]


def refusal(values: dict[str, Any], choice: LayoutChoice | None = None) -> str:
    with pytest.raises(DataError) as caught:
        detect_layout(rows_of(values), choice)
    assert len(str(caught.value).splitlines()) <= 4
    return str(caught.value)


AMBIGUOUS = {
    "pairs beside A/B": {
        "prompt": "p", "chosen": "a", "rejected": "b",
        "response_1": "c", "response_2": "d", "preference_strength": 1,
    },
    "a transcript beside its prompt": {
        "prompt": "\n\nHuman: hi\n\nAssistant:",
        "chosen": "\n\nHuman: hi\n\nAssistant: a", "rejected": "\n\nHuman: hi\n\nAssistant: b",
    },
    "ids beside text": {
        "prompt": "p", "chosen": "a", "rejected": "b",
        "prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3],
    },
    "two prompts in turns": {
        "prompt": [user("a")], "conversations": [user("b")],
        "chosen": [assistant("c")], "rejected": [assistant("d")],
    },
}  # fmt: skip


@pytest.mark.parametrize("values", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_two_layouts_that_fit_equally_are_an_error_that_says_how_to_choose(
    values: dict[str, Any],
) -> None:
    message = refusal(values)
    assert "two layouts fit equally" in message
    offered = re.findall(r"--layout ([\w-]+)", message)
    assert len(offered) == 2
    for key in offered:
        assert detect_layout(rows_of(values), LayoutChoice(key)).key == key


def test_a_layout_that_does_not_exist_is_refused_with_the_nearest() -> None:
    message = refusal({"prompt": "p"}, LayoutChoice("plane-text"))
    assert "--layout plane-text" in message
    assert "Did you mean plain-text?" in message


def test_a_layout_the_columns_do_not_have_is_refused_with_both() -> None:
    message = refusal({"question": "p", "good": "g"}, LayoutChoice("explicit-chat"))
    assert "needs prompt + chosen + rejected as messages" in message
    assert "Columns found: good, question" in message


def mapped(values: dict[str, Any], layout: str | None = None, **mapping: str) -> Pair:
    rows, account = rows_of(values), Account()
    found = detect_layout(rows, LayoutChoice(layout, mapping))
    (pair,) = to_pairs(rows, found, account)
    return pair


def test_a_mapping_overrides_the_columns() -> None:
    values = {"q": "hi", "good": "hello", "bad": "go", "chosen": "x", "rejected": "y"}
    pair = mapped(values, prompt="q", chosen="good", rejected="bad")
    assert pair == PreferencePair(
        [user("hi")],
        [assistant("hello")],
        [assistant("go")],
        "f.jsonl:1",  # type: ignore[list-item]
    )


def test_a_mapping_leads_into_lists_and_objects() -> None:
    values = {
        "talk": [{"said": "hi"}, {"said": "hello"}],
        "other": {"texts": ["no", "go"]},
        "a.b": "be kind",
    }
    pair = mapped(
        values, prompt="talk[0].said", chosen="talk.-1.said", rejected="other.texts.1", system="a.b"
    )
    assert isinstance(pair, PreferencePair)
    assert pair.prompt == [system("be kind"), user("hi")]
    assert (pair.chosen, pair.rejected) == ([assistant("hello")], [assistant("go")])


def test_mapped_text_is_plain_where_the_layout_says_so() -> None:
    values = {"q": "Q:", "good": " a", "bad": " b"}
    pair = mapped(values, "plain-text", prompt="q", chosen="good", rejected="bad")
    assert pair == PreferencePair("Q:", " a", " b", "f.jsonl:1")


def test_mapped_scores_are_judged_like_others() -> None:
    values = {"q": "hi", "good": "a", "bad": "b", "s": {"g": 1, "b": 1}}
    rows, account = rows_of(values), Account()
    table = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    scores = {"score_chosen": "s.g", "score_rejected": "s.b"}
    assert (
        to_pairs(rows, detect_layout(rows, LayoutChoice(None, {**table, **scores})), account) == []
    )
    assert account.dropped == {"tie in the scores": 1}


def test_a_mapping_that_leads_nowhere_names_the_columns() -> None:
    table = {"prompt": "qestion", "chosen": "good", "rejected": "bad"}
    message = refusal({"question": "q", "good": "a", "bad": "b"}, LayoutChoice(None, table))
    assert "--map prompt=qestion: no row has such a value" in message
    assert "Columns found: bad, good, question" in message
    assert "Did you mean question?" in message


def test_a_mapping_to_an_unknown_field_is_refused() -> None:
    message = refusal({"q": "q"}, LayoutChoice(None, {"promt": "q"}))
    assert "there is no field promt" in message
    assert "Did you mean prompt?" in message


def test_training_takes_a_mapping_from_the_command_line(
    model_folder: Path, pairs_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"q": f"Is {i} even?", "good": f"Yes, {i} is.", "bad": "Who knows."} for i in range(6)]
    words = ["train", "--model", str(model_folder), "--data", str(pairs_file(rows)), "--dry-run"]
    assert main([*words, "--map", "prompt=q", "chosen=good", "rejected=bad"]) == 0
    assert "6 read, 6 kept" in re.sub(r"\s+", " ", capsys.readouterr().out)


def test_rows_with_different_tools_give_the_same_tokens_from_json_and_from_a_table(
    make_model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    from orpo_mlx.data.pipeline import prepare_rows
    from orpo_mlx.models.load import load_tokenizer

    def tool(name: str, **parameters: Any) -> dict[str, Any]:
        return {"type": "function", "function": {"name": name, "parameters": parameters}}

    place = {"place": {"type": "string", "enum": ["sea", "lake"]}}
    tools = [tool("where", properties=place), tool("when", properties={"day": {"type": "integer"}})]
    sides = {"chosen": [assistant(GOOD)], "rejected": [assistant(BAD)]}
    asked = [{**user(QUESTION), "name": "Ann"}], [user(f"Again: {QUESTION}")]
    rows = [
        {"prompt": turns, **sides, "tools": [one, tool("bare")]}
        for turns, one in zip(asked, tools, strict=True)
    ]
    lines, table = tmp_path / "a.jsonl", tmp_path / "a.parquet"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    parquet.write_table(pyarrow.Table.from_pylist(rows), table)
    tokenizer = load_tokenizer(make_model_folder(tmp_path / "m", chat_template=TOOLS_TEMPLATE))
    found = [prepare_rows(read_rows(path), tokenizer, 2000) for path in (lines, table)]
    prompts = [[list(pair.prompt) for pair in one.pairs] for one in found]
    assert prompts[0] == prompts[1]
    assert "null" not in tokenizer.decode(prompts[1][0])


# Several worse answers, calls of tools


@pytest.mark.parametrize("name", ["rejected", "rejected_response", "rejected_responses", "mapped"])
def test_each_of_several_worse_answers_makes_a_pair(name: str) -> None:
    column = {"mapped": "bad"}.get(name, name)
    good = {"chosen": "a"} if name in ("rejected", "mapped") else {"messages": [user("hi")]}
    values = {"question": "hi", **good, column: ["b", "c"]}
    if "messages" in values:
        values = {"messages": [user("hi"), assistant("a")], column: ["b", "c"]}
    mapping = {"prompt": "question", "chosen": "chosen", "rejected": "bad"}
    choice = LayoutChoice(mapping=mapping if name == "mapped" else {})
    rows, layout = laid_out(rows_of(values), choice)
    pairs = to_pairs(rows, layout, Account())
    assert [pair.rejected for pair in pairs] == [[assistant("b")], [assistant("c")]]
    assert {str(pair.prompt) for pair in pairs} == {str([user("hi")])}
    assert pairs[1].source == f"f.jsonl:1, {column}[1]"
    assert pairs[1].notes == ("one of several worse answers to its prompt",)


def test_several_worse_answers_may_be_turns_and_one_is_no_list() -> None:
    values = {"prompt": [user("hi")], "chosen": [assistant("a")]}
    rows, layout = laid_out(
        rows_of(
            {**values, "rejected": [[assistant("b")], [assistant("c")]]},
            {**values, "rejected": [assistant("d")]},
        ),
        LayoutChoice(),
    )
    answers = [pair.rejected for pair in to_pairs(rows, layout, Account())]
    assert answers == [[assistant("b")], [assistant("c")], [assistant("d")]]


def test_a_row_of_one_answer_each_stays_as_it_is() -> None:
    rows = rows_of({"question": "hi", "chosen": "a", "rejected": "b"})
    assert laid_out(rows, LayoutChoice())[0] is rows


CALL = {"type": "function", "function": {"name": "weigh", "arguments": {"what": "tea"}}}
CALLING: dict[str, dict[str, Any]] = {
    "arguments as an object": {"role": "assistant", "content": None, "tool_calls": [CALL]},
    "arguments as JSON text": {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "type": "function",
                "function": {"name": "weigh", "arguments": '{"what": "tea"}', "strict": None},
            }
        ],
    },
    "ShareGPT": {
        "from": "function_call",
        "value": '{"name": "weigh", "arguments": {"what": "tea"}}',
    },
}  # fmt: skip


@pytest.mark.parametrize("turn", CALLING.values(), ids=CALLING.keys())
def test_turns_that_call_tools_are_turns(turn: dict[str, Any]) -> None:
    called = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    result = {"role": "tool", "content": "9 g"}
    row = {"prompt": [user("hi"), turn, result], "chosen": [assistant("9")], "rejected": [turn]}
    (pair,) = to_pairs(rows_of(row), detect_layout(rows_of(row)), Account())
    assert (pair.prompt, pair.rejected) == ([user("hi"), called, result], [called])


def test_calls_before_both_answers_belong_to_the_prompt() -> None:
    steps = [CALLING["arguments as an object"], {"role": "tool", "content": "9 g"}]
    sides = {"chosen": [*steps, assistant("9")], "rejected": [*steps, assistant("7")]}
    row = {"prompt": [user("hi")], **sides}
    (pair,) = to_pairs(rows_of(row), detect_layout(rows_of(row)), Account())
    assert [turn["role"] for turn in pair.prompt] == ["user", "assistant", "tool"]  # type: ignore[index]
    assert pair.chosen == [assistant("9")]


CALLS_TEMPLATE = TOOLS_TEMPLATE.replace(
    "m['content'] +", "m['content'] + (m['tool_calls'] | tojson if m['tool_calls'] else '') +"
)


@pytest.mark.parametrize("template", [CALLS_TEMPLATE, TOOLS_TEMPLATE], ids=["shown", "hidden"])
def test_calls_of_tools_are_learned_where_the_template_shows_them(
    template: str, make_model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    from orpo_mlx.data.pipeline import prepare_rows
    from orpo_mlx.models.load import load_tokenizer

    tokenizer = load_tokenizer(make_model_folder(tmp_path / "m", chat_template=template))
    row = {"prompt": [user("hi")], "chosen": [CALLING["ShareGPT"]], "rejected": [assistant("9")]}
    row["chosen"] = [CALLING["arguments as JSON text"]]
    if template == TOOLS_TEMPLATE:
        with pytest.raises(DataError, match="1 tool_calls of a turn, which the chat template"):
            prepare_rows(rows_of(row), tokenizer, 512)
        return
    (pair,) = prepare_rows(rows_of(row), tokenizer, 512).pairs
    assert "weigh" not in tokenizer.decode(pair.prompt)
    assert '"arguments": {"what": "tea"}' in tokenizer.decode(pair.chosen)


TALK = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: how\n\nAssistant:"


@pytest.mark.parametrize("name", ["prompt", "question", "instruction"])
def test_a_dialogue_in_one_text_becomes_turns(name: str) -> None:
    row = {name: TALK, "chosen": " fine", "rejected": " go"}
    (pair,) = to_pairs(rows_of(row), detect_layout(rows_of(row)), Account())
    assert pair.prompt == [user("hi"), assistant("hello"), user("how")]
    assert (pair.chosen, pair.rejected) == ([assistant("fine")], [assistant("go")])
    plain = {"prompt": TALK, "chosen": " fine", "rejected": " go"}
    as_text = detect_layout(rows_of(plain), LayoutChoice("plain-text"))
    (pair,) = to_pairs(rows_of(plain), as_text, Account())
    assert (pair.prompt, pair.chosen) == (TALK, " fine")


@pytest.mark.parametrize(
    "text", ["Human: hi", "Question: hi\nAnswer:", "Assistant:", "a\n\nHuman: b"]
)
def test_a_text_that_is_no_dialogue_stays_text(text: str) -> None:
    row = {"prompt": text, "chosen": " fine", "rejected": " go"}
    assert detect_layout(rows_of(row)).key == "plain-text"


# Some of the columns mapped

PARTLY: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "the prompt": ({"q": "hi", "chosen": "a", "rejected": "b"}, {"prompt": "q"}),
    "one answer": ({"question": "hi", "chosen": "a", "bad": "b"}, {"rejected": "bad"}),
    "a path": (
        {"instruction": "hi", "talk": [{"text": "a"}], "rejected": "b"},
        {"chosen": "talk.0.text"},
    ),
    "both answers": (
        {"question": "hi", "good": "a", "bad": "b"},
        {"chosen": "good", "rejected": "bad"},
    ),
    "exchanged": (
        {"question": "hi", "chosen": "b", "rejected": "a"},
        {"chosen": "rejected", "rejected": "chosen"},
    ),
    "the system": (
        {"question": "hi", "chosen": "a", "rejected": "b", "sys": "be kind"},
        {"system": "sys"},
    ),
}


@pytest.mark.parametrize(("values", "mapping"), PARTLY.values(), ids=PARTLY.keys())
def test_who_maps_some_columns_means_the_others_by_their_names(
    values: dict[str, Any], mapping: dict[str, str]
) -> None:
    pair = mapped(values, **mapping)
    assert pair.prompt == [*([system("be kind")] if "sys" in values else []), user("hi")]
    assert (pair.chosen, pair.rejected) == ([assistant("a")], [assistant("b")])
    found = detect_layout(rows_of({**values, "mood": "calm"}), LayoutChoice(None, mapping))
    assert found.unused({**values, "mood": "calm"}) == ["mood"]


def test_a_mapped_system_column_beside_chats_is_used() -> None:
    values = {
        "prompt": [user("hi")],
        "chosen": [assistant("a")],
        "rejected": [assistant("b")],
        "sys": "be kind",
    }
    assert mapped(values, system="sys").prompt == [system("be kind"), user("hi")]

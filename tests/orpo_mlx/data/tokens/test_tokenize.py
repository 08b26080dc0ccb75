"""Pairs to token ids: equal to TRL where TRL is right, and better, with the reason, where not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orpo_mlx.data.layouts.detect import detect_layout, to_pairs
from orpo_mlx.data.pipeline import Rules, prepare_file, prepare_pairs, prepare_rows
from orpo_mlx.data.sources.source import Row
from orpo_mlx.data.split import hold_out
from orpo_mlx.data.tokens.encoder import Encoder
from orpo_mlx.data.tokens.tokenize import decode_pair, token_percentiles, tokenize_pair
from orpo_mlx.data.types import Account, Drop, PreferencePair, TokenPair
from orpo_mlx.errors import DataError

LLAMA = Path(__file__).parents[3] / "data" / "llama"
BOS, EOS, NEWLINE = 1, 2, 204
SYSTEM, USER, ASSISTANT = 3, 4, 5

CHATML = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
PHI = CHATML.replace("</s>\n", "</s>\n</s>")
WITHOUT_STOP = CHATML.replace("</s>\n", "\n")
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
)
ALTERNATING = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% endfor %}"
)
IGNORES_SYSTEM = (
    "{% for m in messages %}{% if m['role'] != 'system' %}"
    "<|{{ m['role'] }}|>\n{{ m['content'] }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
THINKING = CHATML.replace("<|assistant|>\n{% endif %}", "<|assistant|>\n<think>\n{% endif %}")
ANSWERS_FIRST = (
    "{% for m in messages | reverse %}<|{{ m['role'] }}|>\n{{ m['content'] }}</s>{% endfor %}"
)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def chat(*prompt: dict[str, str], chosen: str = "hello", rejected: str = "go away") -> Any:
    return PreferencePair(list(prompt), [assistant(chosen)], [assistant(rejected)], "f:1")  # type: ignore[arg-type]


def split_pairs(
    pairs: Sequence[TokenPair], fraction: float, seed: int
) -> tuple[list[TokenPair], list[TokenPair]]:
    """Split by prompts that are the same token by token."""
    tokenizer = SimpleNamespace(decode=lambda ids: " ".join(f"w{n}" for n in ids))
    train, valid = hold_out(pairs, fraction, seed, tokenizer)
    return list(train), list(valid)


def kept(result: TokenPair | Drop) -> TokenPair:
    assert isinstance(result, TokenPair), result
    return result


def reference_pair(row: dict[str, Any], source: str = "") -> TokenPair:
    """Take TRL's ids apart; where both sides split at the same place that is a pair of ours."""
    prompt = row["prompt_input_ids"]
    assert row["chosen_prompt_len"] == row["rejected_prompt_len"] == len(prompt)
    chosen, rejected = row["chosen_input_ids"], row["rejected_input_ids"]
    return TokenPair(prompt, chosen[len(prompt) :], rejected[len(prompt) :], source)


# Against TRL --------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["train", "valid"])
@pytest.mark.parametrize("layout", ["chat", "string", "implicit"])
def test_every_reference_row_has_the_ids_trl_gave_it(
    tokenizer: Any, layout: str, part: str
) -> None:
    reference = json.loads((LLAMA / "tokenized.json").read_text())
    want = reference["rows"][layout][part]
    got = prepare_file(LLAMA / "data" / layout / f"{part}.jsonl", tokenizer, 512)
    assert got.account.dropped == got.account.noted == {}
    for pair, row in zip(got.pairs, want, strict=True):
        trl = reference_pair(row)
        # One row has more than TRL's 128 tokens. TRL cut its response; at 512 ours is whole, so
        # it is compared as far as TRL's goes.
        whole = len(row["chosen_input_ids"]) < reference["max_length"]
        assert pair.prompt == trl.prompt
        assert pair.rejected == trl.rejected
        assert (pair.chosen if whole else pair.chosen[: len(trl.chosen)]) == trl.chosen
        assert pair.chosen[-1] == pair.rejected[-1] == EOS


CASES = {
    (case["name"], case["max_length"]): case
    for case in json.loads((LLAMA / "tokenization_cases.json").read_text())["cases"]
}

# What we make instead of TRL's ids, and why TRL's are not wanted.
REPAIRED = "boundary repaired"
DIFFERENT: dict[str, tuple[str, TokenPair]] = {
    "prompt_ends_with_space": (
        "The space melts into the first word of the answer. TRL then takes it from the prompt, so "
        "the model learns to answer another prompt than the one it will be given.",
        TokenPair(
            [1, 278, 31, 226, 77, 78, 204, 279, 31, 226],
            [283, 81, 315, 286, 407, 2],
            [76, 84, 288, 92, 373, 2],
        ),
    ),
    "word_split_at_boundary": (
        "TRL scores the last letter of the prompt as response in chosen and not in rejected: the "
        "two sides answer different prompts.",
        TokenPair(
            [1, 57, 283, 473, 374, 376, 70],
            [87, 83, 270, 226, 273, 89, 84, 83, 19, 2],
            [71, 71, 94, 280, 267, 88, 2],
        ),
    ),
    "merge_on_one_side": (
        "As above: one prompt for both sides.",
        TokenPair([1, 296, 299, 281], [297, 31, 309, 2], [93, 94, 95, 2]),
    ),
    "joined_text_shorter_than_prompt": (
        "TRL refuses the row; encoded apart both sides are sound.",
        TokenPair([1, 277, 271, 83], [89, 2], [89, 226, 279, 2]),
    ),
    "MISTAKE_chat_prompt_repeated_in_responses": (
        "TRL renders the prompt twice and splits inside a role marker; the repeated turns are "
        "stripped, so the row equals chat_explicit.",
        TokenPair(
            [1, 4, 204, 77, 78, 2, 5, 204], [283, 81, 315, 286, 407, 2], [76, 84, 288, 92, 373, 2]
        ),
    ),
}
DROPPED = {
    ("empty_prompt", 512): "empty prompt",
    ("empty_prompt", 24): "empty prompt",
    # TRL cuts the answer and its EOS off: the model would learn to stop nowhere.
    ("long_response", 24): "response longer than max_seq_length",
    # TRL learns the user's second turn as part of the response.
    ("chat_turns_diverge_early", 512): "prompts differ",
}
# TRL makes "The stone is bl" the prompt of "ue today" and "ack".
REFUSED = {("MISTAKE_string_implicit_cuts_inside_a_word", 512)}
CUT_ON_THE_LEFT = {
    # TRL cuts the end of the answer and its EOS.
    ("unicode", 24): (11, 13, 6),
    # TRL keeps the start of the prompt and no answer at all; its loss is then NaN.
    ("long_prompt", 24): (19, 5, 2),
    # TRL refuses the row.
    ("prompts_differ_by_more_than_one", 24): (5, 10, 19),
}


def tokenize_case(case: dict[str, Any], tokenizer: Any) -> tuple[TokenPair | Drop, Account]:
    rows, account = [Row(case["row"], "f:1")], Account()
    pairs = to_pairs(rows, detect_layout(rows), account)
    if not pairs:
        return Drop(next(iter(account.dropped))), account
    return tokenize_pair(pairs[0], tokenizer, case["max_length"]), account


def same_as_trl(name: str, limit: int) -> bool:
    return (
        name not in DIFFERENT
        and (name, limit) not in DROPPED
        and (name, limit) not in CUT_ON_THE_LEFT
        and (name, limit) not in REFUSED
        and "trl" in CASES[name, limit]
    )


@pytest.mark.parametrize(("name", "limit"), [key for key in CASES if same_as_trl(*key)])
def test_awkward_rows_have_the_ids_trl_gives_them(tokenizer: Any, name: str, limit: int) -> None:
    result = kept(tokenize_case(CASES[name, limit], tokenizer)[0])
    trl = reference_pair(CASES[name, limit]["trl"], "f:1")
    assert (result.prompt, result.chosen, result.rejected) == (trl.prompt, trl.chosen, trl.rejected)
    assert result.notes == (("control tokens in a text",) if name.startswith("literal_") else ())


@pytest.mark.parametrize(("name", "limit"), [key for key in CASES if key[0] in DIFFERENT], ids=str)
def test_where_ids_differ_from_trl_there_is_a_reason(tokenizer: Any, name: str, limit: int) -> None:
    _, want = DIFFERENT[name]
    result = kept(tokenize_case(CASES[name, limit], tokenizer)[0])
    assert (result.prompt, result.chosen, result.rejected) == (
        want.prompt,
        want.chosen,
        want.rejected,
    )
    assert result.notes == (() if name.startswith("MISTAKE") else (REPAIRED,))
    if name.startswith("MISTAKE"):
        return
    row = CASES[name, limit]["row"]
    assert tokenizer.decode(result.prompt) == "<s>" + row["prompt"]
    assert tokenizer.decode(result.chosen) == row["chosen"] + "</s>"
    assert tokenizer.decode(result.rejected) == row["rejected"] + "</s>"


@pytest.mark.parametrize(("name", "limit"), DROPPED)
def test_rows_trl_damages_are_dropped_with_a_reason(tokenizer: Any, name: str, limit: int) -> None:
    result, _ = tokenize_case(CASES[name, limit], tokenizer)
    assert isinstance(result, Drop)
    assert result.reason == DROPPED[name, limit]


@pytest.mark.parametrize(("name", "limit"), sorted(REFUSED))
def test_rows_without_a_boundary_are_refused(tokenizer: Any, name: str, limit: int) -> None:
    with pytest.raises(DataError, match="where the prompt of plain text ends"):
        tokenize_case(CASES[name, limit], tokenizer)


@pytest.mark.parametrize(("name", "limit"), CUT_ON_THE_LEFT)
def test_long_rows_lose_the_start_of_the_prompt_and_keep_bos_and_the_answer(
    tokenizer: Any, name: str, limit: int
) -> None:
    case = CASES[name, limit]
    result = kept(tokenize_case(case, tokenizer)[0])
    whole = kept(tokenize_case({**case, "max_length": 512}, tokenizer)[0])
    lengths = len(result.prompt), len(result.chosen), len(result.rejected)
    assert lengths == CUT_ON_THE_LEFT[name, limit]
    assert result.longest == limit
    assert result.prompt == [BOS, *whole.prompt[-(len(result.prompt) - 1) :]]
    assert (result.chosen, result.rejected) == (whole.chosen, whole.rejected)
    assert "prompt cut" in result.notes


def test_every_case_of_the_reference_is_looked_at() -> None:
    looked_at = {key for key in CASES if same_as_trl(*key)} | set(DROPPED) | set(CUT_ON_THE_LEFT)
    looked_at |= {key for key in CASES if key[0] in DIFFERENT} | REFUSED
    # Refused by TRL; encoded apart like joined_text_shorter_than_prompt.
    assert set(CASES) - looked_at == {("prompts_differ_by_more_than_one", 512)}


# End of turn --------------------------------------------------------------------------------------


def test_what_a_template_writes_after_the_end_of_turn_is_not_learned(
    make_tokenizer: Callable[..., Any],
) -> None:
    pair = kept(tokenize_pair(chat(user("hi")), make_tokenizer(CHATML), 512))
    # <s> from the tokenizer, then <|user|> \n h i </s> \n <|assistant|> \n
    assert pair.prompt == [BOS, USER, NEWLINE, 77, 78, EOS, NEWLINE, ASSISTANT, NEWLINE]
    assert pair.chosen == [283, 81, 315, EOS]
    assert pair.notes == ()


def test_two_stop_tokens_in_a_row_are_learned_as_one(make_tokenizer: Callable[..., Any]) -> None:
    pair = kept(tokenize_pair(chat(user("hi")), make_tokenizer(PHI), 512))
    assert pair.chosen == [283, 81, 315, EOS]


def test_a_missing_end_of_turn_is_appended_and_noted(make_tokenizer: Callable[..., Any]) -> None:
    pair = kept(tokenize_pair(chat(user("hi")), make_tokenizer(WITHOUT_STOP), 512))
    assert pair.chosen == [283, 81, 315, NEWLINE, EOS]
    assert pair.notes == ("end-of-turn token appended",)


def test_other_stop_tokens_of_the_model_count_as_end_of_turn(tokenizer: Any) -> None:
    class Wrapped:
        """Like mlx-lm's wrapper: attributes of the tokenizer, and all its stop tokens."""

        eos_token_ids = frozenset({EOS, SYSTEM})

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

    assert Encoder(Wrapped()).end_turn([7, SYSTEM, NEWLINE]) == ([7, SYSTEM], False)
    assert Encoder(tokenizer).end_turn([7, SYSTEM, NEWLINE]) == (
        [7, SYSTEM, NEWLINE, EOS],
        True,
    )


def test_mlx_lms_wrapper_gives_the_same_ids(tokenizer: Any) -> None:
    wrapper = pytest.importorskip("mlx_lm.tokenizer_utils").TokenizerWrapper(tokenizer)
    pair = chat(system("Be kind."), user("hi"))
    assert tokenize_pair(pair, wrapper, 512) == tokenize_pair(pair, tokenizer, 512)


def test_stop_tokens_inside_an_answer_stay(tokenizer: Any) -> None:
    assert Encoder(tokenizer).end_turn([7, EOS, 8]) == ([7, EOS, 8, EOS], True)


def test_a_tokenizer_without_eos_is_refused(tokenizer: Any) -> None:
    tokenizer.eos_token = None
    with pytest.raises(DataError, match="no end-of-sequence token"):
        tokenize_pair(PreferencePair("a", "b", "c"), tokenizer, 512)


# Templates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [NO_SYSTEM + CHATML, IGNORES_SYSTEM])
def test_a_template_without_a_system_role_gets_it_in_the_first_user_turn(
    make_tokenizer: Callable[..., Any], template: str
) -> None:
    tokenizer = make_tokenizer(template)
    pair = kept(tokenize_pair(chat(system("Be kind."), user("hi")), tokenizer, 512))
    folded = kept(tokenize_pair(chat(user("Be kind.\n\nhi")), tokenizer, 512))
    assert pair.prompt == folded.prompt
    assert pair.notes == ("system folded into the first user turn",)
    assert folded.notes == ()


def test_a_system_turn_is_left_alone_where_the_template_knows_it(tokenizer: Any) -> None:
    pair = kept(tokenize_pair(chat(system("Be kind."), user("hi")), tokenizer, 512))
    assert pair.prompt[:2] == [BOS, SYSTEM]
    assert pair.notes == ()


def test_what_a_template_refuses_is_quoted_in_the_reason(
    make_tokenizer: Callable[..., Any],
) -> None:
    tokenizer = make_tokenizer(ALTERNATING + CHATML)
    result = tokenize_pair(chat(user("a"), user("b")), tokenizer, 512)
    assert result == Drop("template refused: Conversation roles must alternate")


def test_chats_without_a_template_say_how_to_get_one(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(DataError, match="--chat-template chatml"):
        tokenize_pair(chat(user("hi")), tokenizer, 512)


def test_a_generation_prompt_that_finished_answers_lack_is_left_out(
    make_tokenizer: Callable[..., Any],
) -> None:
    """An opened thinking block in the generation prompt is not part of any stored answer."""
    turn = user("hi zq")  # holds the text the header is looked for with
    pair = kept(tokenize_pair(chat(turn, chosen="<t"), make_tokenizer(THINKING), 512))
    plain = kept(tokenize_pair(chat(turn, chosen="<t"), make_tokenizer(CHATML), 512))
    assert (pair.prompt, pair.chosen) == (plain.prompt, plain.chosen)
    assert pair.notes == ("generation prompt differs from the template's answer turn",)


def test_a_template_that_rewrites_the_prompt_is_refused(
    make_tokenizer: Callable[..., Any],
) -> None:
    result = tokenize_pair(chat(user("hi")), make_tokenizer(ANSWERS_FIRST), 512)
    assert result == Drop("template: prompt is not a prefix")


def test_an_answer_that_is_empty_once_rendered_is_dropped(
    make_tokenizer: Callable[..., Any],
) -> None:
    trimmed = make_tokenizer(CHATML.replace("m['content']", "m['content'] | replace('x', '')"))
    result = tokenize_pair(chat(user("hi"), rejected="xx"), trimmed, 512)
    assert result == Drop("empty rejected")


def test_answers_that_tokenize_alike_are_dropped(make_tokenizer: Callable[..., Any]) -> None:
    lower = make_tokenizer(CHATML.replace("m['content']", "m['content'] | lower"))
    result = tokenize_pair(chat(user("hi"), chosen="Yes", rejected="yes"), lower, 512)
    assert result == Drop("identical tokens")


class SpaceFirst:
    """A SentencePiece-like tokenizer: a lone text gets a space in front, "bc" is one token."""

    bos_token, bos_token_id, eos_token_id, chat_template = "<s>", 1, 2, None

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        letters = (" " + text).replace("bc", "\u0411")
        return [1] * add_special_tokens + [ord(letter) for letter in letters]

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(chr(i) for i in token_ids)

    def apply_chat_template(self, conversation: Any, **options: Any) -> str:
        raise NotImplementedError


def test_a_repaired_boundary_puts_no_space_before_the_response() -> None:
    pair = kept(tokenize_pair(PreferencePair("ab", "cd", "x"), SpaceFirst(), 512))
    assert pair.prompt == [1, ord(" "), ord("a"), ord("b")]
    assert pair.chosen == [ord("c"), ord("d"), 2]
    assert pair.rejected == [ord("x"), 2]
    assert pair.notes == (REPAIRED,)


# Too long -----------------------------------------------------------------------------------------

LONG_TALK = [
    system("Be kind."),
    user("one one one one"),
    assistant("two two two"),
    user("three three"),
    assistant("four"),
    user("five stone stone stone stone stone stone stone stone"),
]


def text_of(pair: TokenPair, tokenizer: Any) -> str:
    return tokenizer.decode(pair.prompt)


def test_the_oldest_turns_go_first_and_the_system_turn_stays(tokenizer: Any) -> None:
    whole = kept(tokenize_pair(chat(*LONG_TALK), tokenizer, 512))
    cut = kept(tokenize_pair(chat(*LONG_TALK), tokenizer, whole.longest - 1))
    assert text_of(cut, tokenizer) == (
        "<s><|system|>\nBe kind.</s><|user|>\nthree three</s><|assistant|>\nfour</s>"
        "<|user|>\nfive" + " stone" * 8 + "</s><|assistant|>\n"
    )
    assert cut.notes == ("prompt cut",)
    assert (cut.chosen, cut.rejected) == (whole.chosen, whole.rejected)


def test_the_last_user_turn_is_cut_from_its_start_inside_the_template(tokenizer: Any) -> None:
    alone = kept(tokenize_pair(chat(LONG_TALK[0], LONG_TALK[-1]), tokenizer, 512))
    cut = kept(tokenize_pair(chat(*LONG_TALK), tokenizer, alone.longest - 6))
    assert cut.longest == alone.longest - 6
    head, _, tail = text_of(cut, tokenizer).partition("<|user|>\n")
    assert head == "<s><|system|>\nBe kind.</s>"
    assert tail.endswith(" stone stone</s><|assistant|>\n")
    assert "five" not in tail


def test_a_system_turn_without_room_goes_before_the_question(tokenizer: Any) -> None:
    pair = chat(system("Be kind. " * 20), user("hi"))
    without = kept(tokenize_pair(chat(user("hi")), tokenizer, 512))
    cut = kept(tokenize_pair(pair, tokenizer, without.longest))
    assert cut.prompt == without.prompt
    assert cut.notes == ("prompt cut",)


def test_a_question_without_any_room_drops_the_pair(tokenizer: Any) -> None:
    responses = 6
    result = tokenize_pair(chat(user("stone stone stone")), tokenizer, responses + 2)
    assert isinstance(result, Drop)
    assert result.reason == "no room for the prompt beside the response"


def test_a_response_that_fills_the_limit_is_too_long_itself(tokenizer: Any) -> None:
    pair = PreferencePair("p", " stone" * 9, " b", "f:1")  # 9 stones and </s>
    assert tokenize_pair(pair, tokenizer, 10) == Drop("response longer than max_seq_length", 12)
    # One token of room would be BOS alone, and no prompt.
    assert tokenize_pair(pair, tokenizer, 11) == Drop(
        "no room for the prompt beside the response", 12
    )
    assert tokenize_pair(pair, tokenizer, 12) == kept(tokenize_pair(pair, tokenizer, 512))


def test_long_pairs_can_be_dropped_instead(tokenizer: Any) -> None:
    result = tokenize_pair(chat(*LONG_TALK), tokenizer, 40, overlong="drop")
    assert isinstance(result, Drop)
    assert result.reason == "longer than max_seq_length"


@settings(max_examples=60, deadline=None)
@given(limit=st.integers(8, 90), first=st.integers(0, 4))
def test_no_limit_cuts_a_response_or_empties_a_prompt(limit: int, first: int) -> None:
    encoder = ENCODERS.setdefault("llama", Encoder(_load()))
    pair = chat(*LONG_TALK[first:])
    whole = kept(tokenize_pair(pair, encoder, 512))
    result = tokenize_pair(pair, encoder, limit)
    if isinstance(result, Drop):
        assert limit < 20
        assert result.longest == whole.longest
    else:
        assert result.longest <= limit
        assert (result.chosen, result.rejected) == (whole.chosen, whole.rejected)
        assert result.prompt[0] == BOS
        assert result.prompt[-3:] == [EOS, ASSISTANT, NEWLINE]
        assert ("prompt cut" in result.notes) == (result.prompt != whole.prompt)


ENCODERS: dict[str, Encoder] = {}


def _load() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(LLAMA / "model"))


def test_token_ids_are_kept_or_cut_like_text(tokenizer: Any) -> None:
    pair = TokenPair([BOS, 9, 8, 7], [6, 5], [4])
    assert tokenize_pair(pair, tokenizer, 6) == pair
    assert kept(tokenize_pair(pair, tokenizer, 4)).prompt == [BOS, 7]
    assert isinstance(tokenize_pair(pair, tokenizer, 3), Drop)


# The whole file -----------------------------------------------------------------------------------


def rows_of(*values: dict[str, Any]) -> list[Row]:
    return [Row(value, f"f.jsonl:{i}") for i, value in enumerate(values, start=1)]


def test_the_account_adds_up_over_formats_and_tokens(tokenizer: Any) -> None:
    good = {"prompt": "hi there", "chosen": " a", "rejected": " b"}
    prepared = prepare_rows(
        rows_of(
            good,
            {**good, "chosen": ""},
            {**good, "chosen": " b"},
            {**good, "chosen": " stone" * 40},
            {**good, "prompt": "stone " * 40},
        ),
        tokenizer,
        24,
    )
    account = prepared.account
    assert account.read == 5
    assert account.kept == len(prepared.pairs) == 2
    assert account.dropped == {
        "empty chosen": 1,
        "identical text": 1,
        "response longer than max_seq_length": 1,
    }
    assert account.noted == {"prompt cut": 1}
    assert account.offenders["prompt cut"] == ["f.jsonl:5"]


def test_nothing_left_lists_the_reasons(tokenizer: Any) -> None:
    same = {"prompt": "p", "chosen": "a", "rejected": "a"}
    with pytest.raises(DataError) as caught:
        prepare_rows(rows_of(same, same, {**same, "chosen": ""}), tokenizer, 64)
    assert caught.value.message == (
        "0 of 3 rows usable: 2 identical text (f.jsonl:1); 1 empty chosen (f.jsonl:3)."
    )


def test_a_limit_below_every_response_says_what_would_do(tokenizer: Any) -> None:
    pairs = [PreferencePair("a", " stone" * n, " b", f"f.jsonl:{n}") for n in range(41, 61)]
    with pytest.raises(DataError) as caught:
        prepare_pairs(pairs, tokenizer, 30)
    # Each has <s> a, n stones and </s>: n + 3 tokens. Of 20 pairs 95 % are 19: n up to 59.
    assert "0 of 20 rows usable" in caught.value.message
    assert "Longest pair: 63 tokens" in caught.value.message
    assert caught.value.what_to_do.startswith("--max-seq-length 62 would keep 95 %")
    assert len(prepare_pairs(pairs, tokenizer, Rules(62, overlong="drop"))[0]) == 19


def test_token_ids_the_model_lacks_are_refused(tokenizer: Any) -> None:
    pairs = [TokenPair([1, 5], [511, 2], [512, 2], "f.jsonl:1")]
    assert prepare_pairs(pairs, tokenizer, 64)[0] == pairs
    with pytest.raises(DataError, match=r"f\.jsonl:1: token id 512 does not exist"):
        prepare_pairs(pairs, tokenizer, Rules(64, vocab_size=512))


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.tuples(*[st.text("ab \n<é", max_size=30)] * 3), max_size=8),
    limit=st.integers(8, 40),
)
def test_text_survives_tokenization_and_every_row_is_accounted_for(
    texts: list[tuple[str, str, str]], limit: int
) -> None:
    encoder = ENCODERS.setdefault("llama", Encoder(_load()))
    names = ("prompt", "chosen", "rejected")
    rows = rows_of(
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        *[dict(zip(names, text, strict=True)) for text in texts],
    )
    prepared = prepare_rows(rows, encoder.tokenizer, limit)
    account = prepared.account
    assert account.read == len(rows) == account.kept + sum(account.dropped.values())
    by_source = {row.source: row.values for row in rows}
    for pair in prepared.pairs:
        decoded, values = decode_pair(pair, encoder.tokenizer), by_source[pair.source]
        assert pair.longest <= limit
        # White space at the end of an answer stays: only what follows a stop token is cut.
        assert decoded["chosen"] == values["chosen"] + "</s>"
        assert decoded["rejected"] == values["rejected"] + "</s>"
        if not pair.notes:
            assert decoded["prompt"] == "<s>" + values["prompt"]


def test_percentiles_are_lengths_that_occur() -> None:
    pairs = [TokenPair([0] * n, [0] * 2, [0] * 3) for n in range(1, 21)]
    assert token_percentiles(pairs) == {
        "prompt_p50": 10,
        "prompt_p95": 19,
        "prompt_max": 20,
        "chosen_p50": 2,
        "chosen_p95": 2,
        "chosen_max": 2,
        "rejected_p50": 3,
        "rejected_p95": 3,
        "rejected_max": 3,
    }


# Split --------------------------------------------------------------------------------------------


@given(
    prompts=st.lists(st.integers(0, 9), max_size=40),
    fraction=st.floats(0, 0.99),
    seed=st.integers(0, 2**31 - 1),
)
def test_a_split_shares_no_prompt_and_loses_no_pair(
    prompts: list[int], fraction: float, seed: int
) -> None:
    pairs = [TokenPair([p], [i], [i + 1], f"f:{i}") for i, p in enumerate(prompts)]
    train, valid = split_pairs(pairs, fraction, seed)
    assert not {p.prompt[0] for p in train} & {p.prompt[0] for p in valid}
    for part in (train, valid):
        assert [p.source for p in part] == [p.source for p in pairs if p in part]
    assert len(train) + len(valid) == len(pairs)
    if fraction > 0 and len(set(prompts)) >= 2:
        assert train
        assert valid
    if fraction == 0:
        assert valid == []
    assert (train, valid) == split_pairs(pairs, fraction, seed)


def test_a_split_holds_out_the_share_asked_for() -> None:
    pairs = [TokenPair([i], [1], [2]) for i in range(200)]
    train, valid = split_pairs(pairs, 0.05, 0)
    assert (len(train), len(valid)) == (190, 10)
    assert split_pairs(pairs, 0.05, 1)[1] != valid


def test_one_prompt_with_most_pairs_is_not_held_out() -> None:
    pairs = [TokenPair([0], [1], [i]) for i in range(90)]
    pairs += [TokenPair([i], [1], [2]) for i in range(1, 11)]
    for seed in range(20):
        assert len(split_pairs(pairs, 0.1, seed)[1]) <= 10


# What turns say besides their text ----------------------------------------------------------------

REASONED = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n"
    "{% if m.name %}[{{ m.name }}] {% endif %}"
    "{% if m.tool_call_id %}#{{ m.tool_call_id }} {% endif %}"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def reasoned_rows() -> list[Row]:
    prompt = [{**user("how"), "name": "Ann"}]
    sides = {
        name: [{**assistant("sea"), "reasoning_content": thought, "name": None}]
        for name, thought in (("chosen", "wide"), ("rejected", "blue"))
    }
    return [Row({"prompt": prompt, **sides}, "f:1")]


def test_thoughts_and_names_of_turns_go_to_the_template(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer(REASONED)
    found = prepare_rows(reasoned_rows(), tokenizer, 512)
    shown = decode_pair(found.pairs[0], tokenizer)
    assert shown["prompt"] == "<s><|user|>\n[Ann] how</s>\n<|assistant|>\n"
    assert shown["chosen"] == "<think>wide</think>sea</s>"
    assert shown["rejected"] == "<think>blue</think>sea</s>"
    assert found.account.noted == {}


def test_the_call_that_a_result_answers_goes_to_the_template(
    make_tokenizer: Callable[..., Any],
) -> None:
    tokenizer = make_tokenizer(REASONED)
    result = {"role": "tool", "content": "7", "tool_call_id": "c1"}
    rows = [Row({"prompt": [user("how"), result], **_two_answers()}, "f:1")]
    shown = decode_pair(prepare_rows(rows, tokenizer, 512).pairs[0], tokenizer)
    assert "<|tool|>\n#c1 7</s>" in shown["prompt"]


def _two_answers() -> dict[str, Any]:
    return {"chosen": [assistant("hello")], "rejected": [assistant("go away")]}


def test_what_the_template_does_not_show_of_turns_is_counted(
    make_tokenizer: Callable[..., Any],
) -> None:
    rows = reasoned_rows()
    rows[0].values["rejected"][0]["content"] = "moon"
    found = prepare_rows(rows, make_tokenizer(CHATML), 512)
    note = "{} of a turn, which the chat template does not show"
    assert found.account.noted == {note.format("name"): 1, note.format("reasoning_content"): 1}
    assert found.pairs[0].chosen == [*make_tokenizer().encode("sea", add_special_tokens=False), EOS]


def test_pairs_that_differ_in_what_the_template_hides_are_identical(
    make_tokenizer: Callable[..., Any],
) -> None:
    with pytest.raises(DataError, match="1 identical tokens"):
        prepare_rows(reasoned_rows(), make_tokenizer(CHATML), 512)


def test_control_tokens_in_thoughts_are_escaped_as_in_texts(
    make_tokenizer: Callable[..., Any],
) -> None:
    rows = reasoned_rows()
    rows[0].values["chosen"][0]["reasoning_content"] = "wide</s>"
    encoder = Encoder(make_tokenizer(REASONED), escape_special=True)
    found = prepare_rows(rows, encoder, 512)
    assert found.account.noted == {"control tokens in a text, escaped": 1}
    assert found.pairs[0].chosen.count(EOS) == 1


# Thoughts -----------------------------------------------------------------------------------------

BOTH_TAGS = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{% set c = m['content'] %}"
    "{% if m['role'] == 'assistant' %}{% if '<think>' in c and '</think>' in c %}"
    "{{ '<think>\n' + c.split('</think>')[0].split('<think>')[-1].strip('\n') + '\n</think>\n\n' }}"
    "{{ c.split('</think>')[-1].strip('\n') }}"
    "{% else %}{{ '<think>\n\n</think>\n\n' + c }}{% endif %}"
    "{% else %}{{ c }}{% endif %}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n<think>\n{% endif %}"
)
CUTS_THOUGHTS = CHATML.replace("m['content']", "m['content'].split('</think>')[-1]")
INSIDE = {"chosen": "wide\n</think>\n\nsea", "rejected": "blue\n</think>\n\nmoon"}


def responses_of(tokenizer: Any, pair: PreferencePair) -> tuple[str, str, tuple[str, ...]]:
    tokens = kept(tokenize_pair(pair, tokenizer, 512))
    shown = decode_pair(tokens, tokenizer)
    assert shown["prompt"].endswith("<|assistant|>\n<think>\n"), shown["prompt"]
    return shown["chosen"], shown["rejected"], tokens.notes


@pytest.mark.parametrize("template", [BOTH_TAGS, THINKING], ids=["both tags", "as it is"])
@pytest.mark.parametrize("start", ["", "<think>\n"], ids=["inside", "whole"])
def test_an_answer_that_begins_inside_an_opened_thought_goes_on_there(
    make_tokenizer: Callable[..., Any], template: str, start: str
) -> None:
    pair = chat(user("hi"), **{side: start + text for side, text in INSIDE.items()})
    chosen, rejected, notes = responses_of(make_tokenizer(template), pair)
    assert chosen == "wide\n</think>\n\nsea</s>"
    assert rejected == "blue\n</think>\n\nmoon</s>"
    assert notes == ()


def test_earlier_answers_that_begin_inside_a_thought_are_opened_too(
    make_tokenizer: Callable[..., Any],
) -> None:
    tokenizer = make_tokenizer(BOTH_TAGS)
    pair = chat(user("hi"), assistant(INSIDE["chosen"]), user("and"), **INSIDE)
    prompt = decode_pair(kept(tokenize_pair(pair, tokenizer, 512)), tokenizer)["prompt"]
    assert prompt.count("<think>") == prompt.count("</think>") + 1


def test_a_thought_that_is_closed_and_was_never_opened_is_noted(
    make_tokenizer: Callable[..., Any],
) -> None:
    tokens = kept(tokenize_pair(chat(user("hi"), **INSIDE), make_tokenizer(CHATML), 512))
    assert tokens.notes == ("a thought is closed that is not open",)


@pytest.mark.parametrize("start", ["", "<think>\n"])
def test_a_template_that_cuts_thoughts_out_of_answers_is_noted(
    make_tokenizer: Callable[..., Any], start: str
) -> None:
    tokenizer = make_tokenizer(CUTS_THOUGHTS)
    pair = chat(user("hi"), **{side: start + text for side, text in INSIDE.items()})
    tokens = kept(tokenize_pair(pair, tokenizer, 512))
    assert decode_pair(tokens, tokenizer)["chosen"].strip() == "sea</s>"
    assert tokens.notes == ("thoughts in an answer, which the chat template cuts out",)


# Turns that begin with BOS ------------------------------------------------------------------------


def test_a_cut_never_puts_bos_before_the_end_of_a_template(
    make_tokenizer: Callable[..., Any],
) -> None:
    """SmolLM's templates: BOS begins every turn, and a system turn stands first by itself."""
    template = (
        "{% if messages[0]['role'] != 'system' %}<s>system\nbe kind and sing of the sea</s>\n"
        "{% endif %}{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n"
        "{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}"
    )
    tokenizer = make_tokenizer(template)
    pair = chat(system("be kind"), user("one two three four five six"))
    whole = kept(tokenize_pair(pair, tokenizer, 512))
    for limit in range(8, whole.longest):
        result = tokenize_pair(pair, tokenizer, limit)
        if isinstance(result, Drop):
            continue
        text = tokenizer.decode(result.prompt)
        assert "<s><s>" not in text
        assert text.endswith("</s>\n<s>assistant\n")
        assert text.startswith(("<s>system\nbe kind</s>\n<s>user\n", "<s>system\nbe kind and sing"))


@pytest.mark.parametrize("limit", range(4, 14))
def test_ids_whose_turns_begin_with_bos_are_cut_before_a_turn(tokenizer: Any, limit: int) -> None:
    prompt = [BOS, 9, 8, 7, BOS, 6, 5, BOS, 4]
    result = tokenize_pair(TokenPair(prompt, [6, 5], [4]), tokenizer, limit)
    room = limit - 2
    if room < 2:
        assert isinstance(result, Drop)
    else:
        left = prompt if room >= 9 else prompt[4:] if room >= 5 else prompt[7:]
        assert kept(result).prompt == left

"""The user's last words are found between the marks of every family's template."""

from __future__ import annotations

import pytest
from support.families import FAMILIES, tokenizer_of

from orpo_mlx.data.tokens.encoder import Encoder
from orpo_mlx.generation.user_turn import LastTurn, PromptReader, TurnMarks
from orpo_mlx.models.load import load_tokenizer, resolve_model

SYSTEM = {"role": "system", "content": "Be brief."}
FIRST = [
    {"role": "user", "content": "What is a lake?"},
    {"role": "assistant", "content": "Water, mostly."},
]
LAST = {"role": "user", "content": "Is 2 < 3?\nAnd <b>why</b>?"}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("before", [[], FIRST, [SYSTEM]], ids=["alone", "after a turn", "system"])
def test_the_last_words_of_the_user_are_found(name, before):
    if before == [SYSTEM] and name in ("gemma", "mistral"):
        pytest.skip("the template puts the system turn into the user's")
    tokenizer = tokenizer_of(name)
    text = Encoder(tokenizer).render([*before, LAST], True)
    prompt = tokenizer.encode(text, add_special_tokens=False)
    system = SYSTEM["content"] if before == [SYSTEM] else ""
    assert PromptReader(tokenizer).read(prompt) == LastTurn(LAST["content"], system)


@pytest.mark.parametrize("name", FAMILIES)
def test_all_turns_of_a_talk_are_found(name):
    tokenizer = tokenizer_of(name)
    reader = PromptReader(tokenizer)

    def talk(*turns: dict[str, str]) -> str:
        text = Encoder(tokenizer).render([*turns], True)
        return reader.talk(tokenizer.encode(text, add_special_tokens=False))

    exchange = "user: What is a lake?\n\nassistant: Water, mostly.\n\n"
    assert talk(*FIRST, *FIRST, LAST) == f"{exchange * 2}user: {LAST['content']}"
    assert talk(LAST) == LAST["content"]
    if name not in ("gemma", "mistral"):  # the template puts the system turn into the user's
        wanted = f"system: Be brief.\n\n{exchange}user: {LAST['content']}"
        assert talk(SYSTEM, *FIRST, LAST) == wanted


def test_marks_of_chatml():
    marks = TurnMarks("<|im_start|>user\n", "<|im_end|>")
    assert PromptReader(tokenizer_of("chatml")).user_marks == marks


def test_the_system_turn_that_the_template_writes_by_itself_is_not_the_users(
    make_model_folder, tmp_path
):
    template = (
        "{% if messages[0].role != 'system' %}<s>system\nBe good.</s>{% endif %}"
        "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>{% endfor %}"
    )
    folder = make_model_folder(tmp_path / "own", chat_template=template)
    tokenizer = load_tokenizer(resolve_model(str(folder)))
    read = PromptReader(tokenizer).read
    for turns, system in (([LAST], ""), ([SYSTEM, LAST], SYSTEM["content"])):
        prompt = tokenizer.encode(Encoder(tokenizer).render(turns, True), add_special_tokens=False)
        assert read(prompt) == LastTurn(LAST["content"], system)


def test_without_turns_the_whole_prompt_is_shown(make_model_folder, tmp_path):
    tokenizer = load_tokenizer(
        resolve_model(str(make_model_folder(tmp_path / "plain", chat_template=None)))
    )
    prompt = tokenizer.encode("The capital of")
    assert PromptReader(tokenizer).read(prompt) == LastTurn("The capital of")

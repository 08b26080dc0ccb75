"""Chat templates taken apart, and put into Ollama's language."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orpo_mlx.errors import ConfigError
from orpo_mlx.export.formats.ollama import (
    check_template,
    go_template,
    modelfile,
    ollama_name,
    require_name,
)
from orpo_mlx.export.formats.ollama_template import conversations, find_pieces
from orpo_mlx.export.go_template import render_chat

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WITH_DEFAULT = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}"
    "{% endif %}" + CHATML
)
LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + "
    "'<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    "{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<start_of_turn>' + role + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
GEMMA_3 = (
    "{{ bos_token }}{% set ns = namespace(lead='') %}{% if messages[0].role == 'system' %}"
    "{% set ns.lead = messages[0].content + '\n\n' %}{% set messages = messages[1:] %}{% endif %}"
    "{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<start_of_turn>' + role + '\n' + (ns.lead if loop.first else '') + m.content | trim + "
    "'<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
    "{{ '[INST] ' + m.content + ' [/INST]' }}{% elif m.role == 'assistant' %}"
    "{{ ' ' + m.content + eos_token }}{% else %}{{ raise_exception('roles') }}{% endif %}"
    "{% endfor %}"
)
NUMBERED = "{% for m in messages %}{{ loop.index }}. {{ m.role }}: {{ m.content }}\n{% endfor %}"
SHOUTING = "{% for m in messages %}{{ m.role }}: {{ m.content | upper }}\n{% endfor %}assistant:"


class Tokenizer:
    """As much of a tokenizer as a template needs."""

    bos_token, bos_token_id, eos_token, eos_token_id = "<s>", 0, "</s>", 1
    eos_token_ids = frozenset({1, 2})
    has_chat_template = True

    def __init__(self, template: str) -> None:
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)

        def refuse(text: str) -> None:
            raise ValueError(text)

        environment.globals["raise_exception"] = refuse
        self.chat_template = template
        self._template = environment.from_string(template)

    def apply_chat_template(self, conversation: Any, **options: Any) -> str:
        del options["tokenize"]
        return self._template.render(
            messages=conversation, bos_token="<s>", eos_token="</s>", **options
        )

    def decode(self, ids: list[int]) -> str:
        return {1: "</s>", 2: "<|im_end|>"}[ids[0]]

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        """<s> is one token; Llama 3's tokenizer puts it before texts by itself."""
        adds = add_special_tokens and "start_header_id" in self.chat_template
        pieces = [[ord(character) for character in part] for part in text.split("<s>")]
        ids = pieces[0]
        for piece in pieces[1:]:
            ids = [*ids, self.bos_token_id, *piece]
        return [self.bos_token_id, *ids] if adds else ids


TALKS = [
    [("user", "Why?"), ("assistant", "So."), ("user", "And\nnow?")],
    [("user", " \n why \t"), ("assistant", " so\n\n"), ("user", "now ")],
]


@pytest.mark.parametrize("template", [CHATML, WITH_DEFAULT, LLAMA_3, GEMMA, GEMMA_3, MISTRAL])
@pytest.mark.parametrize("system", [None, "", "Be brief.", " Two \nlines "])
@pytest.mark.parametrize("turns", TALKS)
def test_ollama_s_template_writes_what_the_model_s_does(
    template: str, system: str | None, turns: list[tuple[str, str]]
):
    tokenizer = Tokenizer(template)
    pieces = find_pieces(tokenizer)
    assert pieces is not None
    messages: list[Any] = [{"role": role, "content": content} for role, content in turns]
    told = [{"role": "system", "content": system}] if system is not None else []
    given = [*told, *messages]
    if template in (GEMMA, MISTRAL) and system:  # they refuse it; training folds it in
        given = [{"role": "user", "content": f"{system}\n\n{turns[0][1]}"}, *messages[1:]]
    elif template in (GEMMA, MISTRAL):
        given = messages
    theirs = tokenizer.apply_chat_template(given, tokenize=False, add_generation_prompt=True)
    go = go_template(pieces)
    assert go is not None
    assert render_chat(go, [*told, *messages]) == theirs.removeprefix("<s>")


@pytest.mark.parametrize("name", ["chatml", "gemma", "llama3", "phi3", "phi4", "qwen2_5", "qwen3"])
def test_the_families_have_a_template(name: str):
    """Those of tests/data/templates, with white space around texts and with empty system turns."""
    template = (Path(__file__).parents[3] / "data" / "templates" / f"{name}.jinja").read_text()
    tokenizer, base = Tokenizer(template), Base("bos_token" in template)
    pieces = find_pieces(tokenizer, base.adds_bos)
    assert pieces is not None
    text = modelfile(tokenizer, pieces, Path("nowhere"))
    assert len(list(conversations(pieces))) >= 12
    assert check_template(text, tokenizer, pieces, base).passed


class _Base:
    """As much of a GGUF as says how texts begin."""

    def __init__(self, adds_bos: bool = True, bos: int | None = None) -> None:
        self.adds_bos, self.bos = adds_bos, bos

    def number(self, key: str) -> int | None:
        return self.bos if key == "tokenizer.ggml.bos_token_id" else None


Base: Any = _Base


SMOLLM_2 = WITH_DEFAULT.replace("<|im_start|>", "<s>")
"""The BOS token begins every turn there, and is not put before texts by the tokenizer."""


@pytest.mark.parametrize("adds_bos", [True, False])
def test_the_bos_token_is_there_exactly_once(adds_bos: bool):
    tokenizer, base = Tokenizer(SMOLLM_2), Base(adds_bos)
    pieces = find_pieces(tokenizer, adds_bos)
    assert pieces is not None
    text = modelfile(tokenizer, pieces, Path("nowhere"))
    assert check_template(text, tokenizer, pieces, base).passed
    go = go_template(pieces)
    assert go is not None
    said = render_chat(go, [{"role": "user", "content": "Why?"}])
    assert said.startswith("system" if adds_bos else "<s>system")
    other = check_template(text, tokenizer, pieces, Base(not adds_bos))
    assert not other.passed
    assert "not those of" in other.text


def test_a_gguf_with_another_bos_token_is_noticed():
    tokenizer = Tokenizer(LLAMA_3)
    pieces = find_pieces(tokenizer)
    assert pieces is not None
    text = modelfile(tokenizer, pieces, Path("nowhere"))
    assert check_template(text, tokenizer, pieces, Base(bos=0)).passed
    assert "begins with token 7" in check_template(text, tokenizer, pieces, Base(bos=7)).text


def test_a_changed_template_is_noticed():
    tokenizer = Tokenizer(CHATML)
    pieces = find_pieces(tokenizer)
    assert pieces is not None
    text = modelfile(tokenizer, pieces, Path("nowhere"))
    assert check_template(text, tokenizer, pieces, Base(adds_bos=False)).passed
    assert not check_template(
        text.replace("<|im_end|>", "<|im_end|> "), tokenizer, pieces, Base(adds_bos=False)
    ).passed


def test_a_template_that_writes_the_day_is_not_taken():
    tokenizer = Tokenizer("{# strftime_now #}" + CHATML)
    assert find_pieces(tokenizer) is None


def test_who_takes_a_system_turn():
    found = {name: find_pieces(Tokenizer(t)) for name, t in (("a", CHATML), ("b", GEMMA))}
    assert found["a"] is not None
    assert found["a"].system == ("<|im_start|>system\n", "<|im_end|>\n")
    assert found["b"] is not None
    assert found["b"].system is None
    assert found["b"].folded == ("", "\n\n")


@pytest.mark.parametrize("template", [NUMBERED, SHOUTING])
def test_a_template_that_is_more_than_its_pieces_is_not_approximated(template: str):
    assert find_pieces(Tokenizer(template)) is None


def test_a_template_that_would_break_the_modelfile_is_left_out():
    braces = CHATML.replace("<|im_end|>", "}" + "}")
    pieces = find_pieces(Tokenizer(braces))
    assert pieces is not None
    assert go_template(pieces) is None


def test_stop_tokens_and_parameters_are_the_model_s(tmp_path: Any):
    (tmp_path / "generation_config.json").write_text(
        '{"temperature": 0.7, "top_k": 20, "repetition_penalty": 1.05, "do_sample": true}'
    )
    tokenizer = Tokenizer(CHATML)
    lines = modelfile(tokenizer, None, tmp_path).splitlines()
    assert lines[0] == "FROM ./model.gguf"
    assert set(lines[1:]) == {
        'PARAMETER stop "</s>"',
        'PARAMETER stop "<|im_end|>"',
        "PARAMETER temperature 0.7",
        "PARAMETER top_k 20",
        "PARAMETER repeat_penalty 1.05",
    }


@pytest.mark.parametrize("name", ["tuned", "me/Tuned_1.2:q8", "4b"])
def test_a_name_ollama_takes_is_kept(name: str):
    assert require_name(name) == name


@pytest.mark.parametrize("name", ["my model", "-x", "a/b/c", "a:", "/a", "é", "x" * 81])
def test_a_name_ollama_does_not_take_is_refused(name: str):
    with pytest.raises(ConfigError, match="no name Ollama takes"):
        require_name(name)


@pytest.mark.parametrize(("text", "name"), [("My Run_1", "my-run_1"), ("---", "tuned")])
def test_names_are_such_as_ollama_takes(text: str, name: str):
    assert ollama_name(text) == name

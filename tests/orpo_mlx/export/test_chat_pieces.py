"""Chat templates taken apart, and put into Ollama's language."""

from __future__ import annotations

from typing import Any

import pytest

from orpo_mlx.errors import ConfigError
from orpo_mlx.export.chat_pieces import find_pieces
from orpo_mlx.export.ollama import go_template, modelfile, ollama_name, require_name

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
        self._template = environment.from_string(template)

    def apply_chat_template(self, conversation: Any, **options: Any) -> str:
        del options["tokenize"]
        return self._template.render(
            messages=conversation, bos_token="<s>", eos_token="</s>", **options
        )

    def decode(self, ids: list[int]) -> str:
        return {1: "</s>", 2: "<|im_end|>"}[ids[0]]

    def encode(self, text: str, **_: Any) -> list[int]:
        return [ord(character) for character in text]


def in_go(template: str, system: str, turns: list[tuple[str, str]]) -> str:
    """What Ollama would make of the template: just enough of Go's language, by hand."""
    before, _, loop = template.partition("{{ range $i, $_ := .Messages }}")
    if "{{ if .System }}" in before:
        lead, _, rest = before.partition("{{ if .System }}")
        given, _, rest = rest.partition("{{ else }}")
        missing, _, tail = rest.partition("{{ end }}")
        before = lead + (given.replace("{{ .System }}", system) if system else missing) + tail
    _, _, loop = loop.partition('{{ if eq .Role "user" }}')
    user, _, loop = loop.partition('{{ else if eq .Role "assistant" }}')
    answer, _, loop = loop.partition("{{ if not $last }}")
    ends, _, loop = loop.partition("{{ end }}{{ end }}")
    header = loop.removeprefix('{{ if and $last (ne .Role "assistant") }}')
    header = header.removesuffix("{{ end }}{{ end }}")
    before = before.removesuffix("{{ $first := true }}")
    opens, folds, rest = user.partition("{{ if and $first $.System }}")
    folded, _, rest = rest.partition("{{ end }}{{ $first = false }}")
    first = opens + (folded.replace("{{ $.System }}", system) if system else "") + rest
    users = iter([first, *[opens + rest] * len(turns)] if folds else [user] * len(turns))
    text = before
    for i, (role, content) in enumerate(turns):
        last = i == len(turns) - 1
        piece = next(users) if role == "user" else answer + ("" if last else ends)
        text += piece.replace("{{ .Content }}", content) + (header if last else "")
    return text


@pytest.mark.parametrize("template", [CHATML, WITH_DEFAULT, LLAMA_3, GEMMA, GEMMA_3, MISTRAL])
@pytest.mark.parametrize("system", ["", "Be brief."])
def test_ollama_s_template_writes_what_the_model_s_does(template: str, system: str):
    tokenizer = Tokenizer(template)
    pieces = find_pieces(tokenizer)
    assert pieces is not None
    turns = [("user", "Why?"), ("assistant", "So."), ("user", "And\nnow?")]
    messages: list[Any] = [{"role": role, "content": content} for role, content in turns]
    given = [{"role": "system", "content": system}, *messages] if system else messages
    if template in (GEMMA, MISTRAL) and system:  # they refuse it; training folds it in
        given = [{"role": "user", "content": f"{system}\n\nWhy?"}, *messages[1:]]
    theirs = tokenizer.apply_chat_template(given, tokenize=False, add_generation_prompt=True)
    go = go_template(pieces)
    assert go is not None
    assert in_go(go, system, turns) == theirs.removeprefix("<s>")


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

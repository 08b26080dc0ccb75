"""Chat templates: chosen, dry-run, and stopped when they do not end."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orpo_mlx.data.tokens import template_check
from orpo_mlx.data.tokens.template_check import TemplateReport, check_chat_template
from orpo_mlx.errors import ModelError
from orpo_mlx.models.load import load_tokenizer


def edit_json(path: Path, **changes: Any) -> None:
    """Set keys of a JSON object; None removes a key."""
    content = {**json.loads(path.read_text()), **changes}
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(json.dumps(kept))


@pytest.fixture
def with_template(
    make_model_folder: Callable[..., Path], tmp_path: Path
) -> Callable[[str | None], Any]:
    """Return `load(template) -> tokenizer`."""

    def load(template: str | None) -> Any:
        return load_tokenizer(make_model_folder(tmp_path / "m", chat_template=template))

    return load


LOOP = "{% for m in messages %}{{ m['role'] + ':' + m['content'] }}{% endfor %}"
MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]


def render(tokenizer: Any) -> str:
    return tokenizer.apply_chat_template(MESSAGES, tokenize=False)


def test_a_working_template_passes_with_system_messages(with_template: Callable[..., Any]) -> None:
    report = check_chat_template(with_template(LOOP))
    assert report == TemplateReport(supports_system=True, system_error="")


def test_without_a_template_the_ways_to_choose_one_are_shown(
    with_template: Callable[..., Any],
) -> None:
    with pytest.raises(ModelError, match="org/base: the tokenizer has no chat template") as error:
        check_chat_template(with_template(None), "org/base")
    assert "--chat-template chatml" in error.value.what_to_do


def test_chatml_can_be_given_to_a_model_without_template(model_folder: Path, folder: Path) -> None:
    edit_json(folder / "tokenizer_config.json", chat_template=None)
    tokenizer = load_tokenizer(folder, "chatml")
    check_chat_template(tokenizer)
    assert render(tokenizer) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n"
    )
    assert render(tokenizer) == render(load_tokenizer(model_folder))


def test_chatml_ends_a_turn_with_a_token_the_model_stops_at(folder: Path) -> None:
    text = (folder / "tokenizer.json").read_text().replace("<|im_end|>", "</s>")
    (folder / "tokenizer.json").write_text(text)
    edit_json(folder / "tokenizer_config.json", chat_template=None, eos_token="</s>")
    tokenizer = load_tokenizer(folder, "chatml")
    assert "Yo</s>\n" in render(tokenizer)


def test_a_template_file_replaces_the_models_own(model_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "plain.jinja"
    file.write_text(LOOP)
    assert render(load_tokenizer(model_folder, str(file))) == "user:Hiassistant:Yo"
    with pytest.raises(ModelError, match="not a readable Jinja file"):
        load_tokenizer(model_folder, str(tmp_path / "none.jinja"))


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for m in messages %}", "TemplateSyntaxError"),
        (LOOP + "{{ raise_exception('no chats today') }}", "no chats today"),
        (LOOP + "{{ messages.__class__.__mro__ }}", "SecurityError"),
        (LOOP + "{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ messages[0]['content'] }}", "leaves out the assistant message"),
        ("{{ bos_token }}", "leaves out the user message"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(
    with_template: Callable[..., Any], template: str, said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        check_chat_template(with_template(template))


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (
            "{% if messages[0]['role'] == 'system' %}"
            "{{ raise_exception('System role not supported') }}{% endif %}" + LOOP,
            "System role not supported",
        ),
        (
            LOOP.replace("{{", "{% if m['role'] != 'system' %}{{").replace("}}", "}}{% endif %}"),
            "it leaves",
        ),
    ],
)
def test_a_template_against_system_messages_is_quoted_and_reported(
    with_template: Callable[..., Any], start: str, said: str
) -> None:
    report = check_chat_template(with_template(start))
    assert not report.supports_system
    assert said in report.system_error


def test_a_template_that_never_ends_is_stopped(
    with_template: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_check, "TEMPLATE_SECONDS", 2.0)
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    tokenizer = with_template(loops + LOOP)
    start = time.monotonic()
    with pytest.raises(ModelError, match="longer than 2 seconds"):
        check_chat_template(tokenizer)
    assert time.monotonic() - start < 6


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux only")
def test_a_template_that_eats_memory_is_stopped(with_template: Callable[..., Any]) -> None:
    with pytest.raises(ModelError, match="MemoryError"):
        check_chat_template(with_template(LOOP + "{{ 'x' * 9999999999 }}"))


def test_a_template_with_nested_loops_gives_the_same_report_from_its_child(
    with_template: Callable[..., Any],
) -> None:
    nested = LOOP.replace("{{", "{% for i in range(1) %}{{").replace("}}", "}}{% endfor %}")
    assert check_chat_template(with_template(nested)) == TemplateReport()

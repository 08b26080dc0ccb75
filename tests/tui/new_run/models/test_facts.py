"""What is said of one model: from its folder, and from a stand-in of the Hub."""

from __future__ import annotations

import json

import pytest
from huggingface_hub import constants

from orpo_mlx.errors import ModelError
from tui.new_run.models.catalogue import ModelRow
from tui.new_run.models.facts import ModelFacts, about_lines, hub_facts, local_facts

SOME = "mlx-community/Some-4bit"
ON_HUB = ModelRow(SOME, SOME, "4 bit", 60, "qwen2", "hub", 1200)


@pytest.mark.parametrize(
    ("files", "facts"),
    [
        ({}, ModelFacts("", False)),
        ({"tokenizer_config.json": json.dumps({"chat_template": "{{ x }}"})}, ModelFacts("", True)),
        ({"chat_template.jinja": "{{ x }}"}, ModelFacts("", True)),
        ({"tokenizer_config.json": "{}"}, ModelFacts("", False)),
        ({"tokenizer_config.json": "[]"}, ModelFacts("", False)),
        ({"tokenizer_config.json": "[", "README.md": "# Hello\nlicense: no"}, ModelFacts()),
        ({"README.md": "---\nbase_model: x\nlicense: apache-2.0\n---\n"}, ModelFacts("apache-2.0")),
    ],
)
def test_a_folder_tells_licence_and_template(tmp_path, files, facts):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = local_facts(tmp_path)
    assert (found.licence, found.has_template) == (facts.licence, bool(facts.has_template))


@pytest.fixture
def hub(hub_server, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "ENDPOINT", hub_server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    files = {"config.json": b"{}", "model.safetensors": b"x" * 70, "run.py": b"x" * 900}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    hub_server.add_model(SOME, tmp_path)
    return hub_server


def test_the_hub_tells_what_a_training_would_download_and_nothing_is_downloaded(hub):
    config = {"tokenizer_config": {"chat_template": "{{ messages }}"}}
    hub.models[SOME].about = {"config": config, "gated": "manual", "tags": ["license:mit"]}
    # 2 bytes of config.json, 70 of weights; never Python files.
    assert hub_facts(SOME) == ModelFacts("mit", True, True, 72)
    assert not any("resolve" in path for _, path in hub.requests)
    assert "blobs=true" in hub.asked[-1]  # without that a Hub tells no sizes


def test_a_model_without_a_template_is_known_to_have_none(hub):
    hub.models[SOME].about = {"config": {"tokenizer_config": {}}, "gated": False}
    assert hub_facts(SOME) == ModelFacts("", False, False, 72)


@pytest.mark.parametrize(
    ("name", "fault", "said"),
    [
        ("org/none", "", "knows no such model"),
        ("no id", "", "valid Hub id"),
        (SOME, "rate_limited", "429"),
        (SOME, "gated", "gated; its terms must be accepted first"),
    ],
)
def test_a_hub_that_tells_nothing_is_a_sentence(hub, name, fault, said):
    hub.fault = fault
    with pytest.raises(ModelError, match=said):
        hub_facts(name)


def test_the_time_of_a_download_names_its_assumption():
    lines = about_lines(ON_HUB, ModelFacts("mit", True, True, 1_000_000_000))
    assert lines == [
        "qwen2 · has a chat template · licence mit · 1200 downloads a month",
        # 8e9 bits at 50e6 bits a second
        "not on this machine · the start downloads 1 GB · about 2 min 40 s at 50 Mbit/s",
        "gated: accept its terms on its page, then `hf auth login`",
    ]


def test_what_is_not_known_is_not_said():
    assert about_lines(ModelRow("x", "x"), None) == ["a folder on this machine"]
    unknown = ModelRow("org/x", "org/x", place="hub")
    assert about_lines(unknown, "no answer") == ["not on this machine", "no answer"]

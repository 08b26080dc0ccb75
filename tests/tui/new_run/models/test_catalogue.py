"""Models that are found: in folders, in a cache, on a stand-in of the Hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import constants

from orpo_mlx.errors import ModelError
from tui.new_run.models import catalogue


def make_model(folder: Path, weights: int = 100, **config: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    if weights:
        (folder / "model.safetensors").write_bytes(b"x" * weights)
    return folder


def test_folders_with_a_config_and_weights_are_models(tmp_path):
    make_model(tmp_path / "a" / "b", 30, quantization={"bits": 4})
    make_model(tmp_path / "c", 0)
    make_model(tmp_path / ".hidden")
    make_model(tmp_path / "1" / "2" / "3" / "4")
    found = list(catalogue.models_below(tmp_path))
    assert [(row.name, row.quant, row.size) for row in found] == [
        (str(tmp_path / "a" / "b"), "4 bit", 30)
    ]


def test_the_cache_gives_ids_and_leaves_out_what_has_no_weights(tmp_path):
    make_model(tmp_path / "models--org--good" / "snapshots" / "1", torch_dtype="bfloat16")
    make_model(tmp_path / "models--org--partial" / "snapshots" / "1", 0)
    rows = catalogue.cached_models(tmp_path)
    assert [(row.name, row.quant, row.place) for row in rows] == [("org/good", "bf16", "cache")]
    assert catalogue.cached_models(tmp_path / "none") == []


def test_what_cannot_be_read_is_no_model(tmp_path):
    folder = make_model(tmp_path / "a")
    (folder / "config.json").write_bytes(b"\xff{")
    assert [row.kind for row in catalogue.models_below(tmp_path)] == [""]
    assert list(catalogue.models_below(tmp_path / "none")) == []


def test_the_built_in_model_comes_first_and_no_model_twice(tmp_path, monkeypatch):
    make_model(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    rows = catalogue.local_models([tmp_path])
    assert rows[0].title == "built-in demo model"
    assert [row.name for row in rows].count(str(tmp_path / "mine")) == 1


ABOUT = {
    "downloads": 1200, "gated": False, "tags": ["mlx", "license:mit"],
    "safetensors": {"parameters": {"U32": 100, "BF16": 10}, "total": 110},
    "config": {"model_type": "qwen2", "tokenizer_config": {"chat_template": "{{ messages }}"}},
}  # fmt: skip
SOME = "mlx-community/Some-4bit"


@pytest.fixture
def hub(hub_server, monkeypatch, tmp_path):
    """The stand-in, asked by this process; one model on it."""
    monkeypatch.setattr(constants, "ENDPOINT", hub_server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    files = {"config.json": b"{}", "model.safetensors": b"x" * 70, "run.py": b"x" * 900}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    hub_server.add_model(SOME, tmp_path).about = ABOUT
    return hub_server


def test_a_search_gives_sizes_and_formats(hub):
    row = catalogue.ModelRow(SOME, SOME, "4 bit", 420, "qwen2", "hub", 1200)
    assert catalogue.search_hub("qwen") == [row]
    assert "filter=mlx" in hub.asked[-1]
    assert "search=qwen" in hub.asked[-1]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("", "HF_HUB_OFFLINE is set"),
        ("rate_limited", "too many requests (429)"),
        ("bad_token", "refused the access token (401)"),
        ("broken", "a fault of its own (500)"),
        ("odd", "the Hub answered with status 418"),
        ("no list", "the Hub answered with what is no list"),
    ],
)
def test_a_hub_that_does_not_search_is_a_sentence(hub, monkeypatch, fault, said):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", not fault)
    hub.fault = fault if fault != "no list" else ""
    hub.models[SOME].about = {"downloads": "many"} if fault == "no list" else ABOUT
    with pytest.raises(ModelError, match="The Hub was not searched: ") as refused:
        catalogue.search_hub("qwen")
    assert said in refused.value.message
    assert refused.value.what_to_do


def test_whatever_the_hub_leaves_out_a_row_has(hub):
    hub.models[SOME].about = {"safetensors": None, "config": "none", "downloads": None}
    row = catalogue.ModelRow(SOME, SOME, "4 bit", place="hub")
    assert catalogue.search_hub("") == [row]

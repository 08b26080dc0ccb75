"""What serves an adapter, and what vLLM does not take."""

from __future__ import annotations

import ast
import shlex

import pytest


def exported(make_adapter, export, path, model="llama", **spec):
    made = make_adapter(model, num_layers=1, **spec)
    return export(made.folder, "--to", "peft", "--base-id", "meta/one", "--out", path)[-1]


@pytest.mark.parametrize(("rank", "limit"), [(3, 8), (8, 8), (17, 32), (300, 320)])
def test_vllm_is_told_the_rank(rank, limit, make_adapter, export, tmp_path):
    """The values it takes: vllm/config/lora.py, MaxLoRARanks."""
    done = exported(make_adapter, export, tmp_path / "a b", rank=rank, target_modules=("v_proj",))
    (command,) = done["serve"]
    words = shlex.split(command)
    assert words[:3] == ["vllm", "serve", "meta/one"]
    assert words[words.index("--lora-modules") + 1] == f"adapter={tmp_path / 'a b'}"
    assert words[words.index("--max-lora-rank") + 1] == str(limit)
    assert any("--max-lora-rank" in note for note in done["notes"]) == (rank > 16)


@pytest.mark.parametrize(
    ("model", "spec", "said"),
    [
        ("llama", {"dora": True}, "refuse DoRA"),
        ("llama", {"rank": 600, "target_modules": ("v_proj",)}, "ranks up to 512"),
        ("qwen3_5", {}, "does nothing with it"),
    ],
)
def test_what_vllm_does_not_take_is_said(model, spec, said, make_adapter, export, tmp_path):
    done = exported(make_adapter, export, tmp_path / "out", model, **spec)
    assert any(said in note for note in done["notes"])
    assert done["serve"] == []


def test_a_gguf_lora_is_served_by_llama_cpp(make_adapter, export, tmp_path):
    made = make_adapter("llama")
    out = tmp_path / "x y.gguf"
    done = export(made.folder, "--to", "gguf-lora", "--out", out)[-1]
    assert shlex.split(done["serve"][0]) == ["llama-server", "-m", "BASE.gguf", "--lora", str(out)]


def test_the_command_for_peft_is_python_whatever_the_path(make_adapter, export, tmp_path):
    out = tmp_path / 'it\'s "here" $HOME'
    done = exported(make_adapter, export, out)
    python, flag, code = shlex.split(done["command"])
    assert flag == "-c"
    constants = [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
    assert set(constants) == {"meta/one", str(out)}
    assert "python" in python


def test_the_card_says_where_the_scale_stands(make_adapter, export, tmp_path):
    done = exported(make_adapter, export, tmp_path / "out", scale=20.0)
    assert "B has 20 times less effect" in (tmp_path / "out" / "README.md").read_text()
    assert any("The scale 20 stands in B" in note for note in done["notes"])

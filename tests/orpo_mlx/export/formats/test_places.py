"""Exports that go to a program: Ollama, LM Studio, the Hub; and the card that goes with them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import pytest
from support.hub import TOKEN, point_client

from orpo_mlx.adapters.files import save_adapter
from orpo_mlx.adapters.lora import AdapterSpec, adapter_layers, attach_adapter
from orpo_mlx.cli import main as program
from orpo_mlx.export.formats import hub, lmstudio
from orpo_mlx.export.formats.gguf_base import BaseGguf
from orpo_mlx.models.load import load_model

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, quantized_model_folder: Path) -> Path:
    """On v_proj only, so that a GGUF needs no reordering."""
    loaded = load_model(quantized_model_folder)
    spec = AdapterSpec(rank=2, scale=3.0, target_modules=("v_proj",))
    attach_adapter(loaded.model, spec, seed=1)
    for i, (_, layer) in enumerate(adapter_layers(loaded.model)):
        layer.lora_b = mx.random.normal(layer.lora_b.shape, key=mx.random.key(i)) * 0.1
    folder = tmp_path_factory.mktemp("adapters") / "adapter"
    save_adapter(loaded.model, spec, folder, str(quantized_model_folder), loaded.fingerprint)
    return folder


@pytest.fixture(scope="module")
def base_gguf(tmp_path_factory: pytest.TempPathFactory, quantized_model_folder: Path) -> Path:
    """Holds what the adapter touches; enough for a merge."""
    model = load_model(quantized_model_folder).model
    path = tmp_path_factory.mktemp("gguf") / "base.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    for i, block in enumerate(model.layers):
        module = block.self_attn.v_proj
        weight: Any = mx.dequantize(
            module.weight, module.scales, module.biases, module.group_size, module.bits
        )
        import numpy as np

        writer.add_tensor(f"blk.{i}.attn_v.weight", np.array(weight.astype(mx.float32)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def export(adapter: Path, to: str, *more: str) -> int:
    return program.main(["export", str(adapter), "--to", to, *more])


# Ollama


def test_ollama_gets_a_merged_gguf_and_a_modelfile(
    adapter: Path, base_gguf: Path, tmp_path: Path, capsys: Any
):
    out = tmp_path / "out"
    assert export(adapter, "ollama", "--base-gguf", str(base_gguf), "--out", str(out)) == 0
    assert {p.name for p in out.iterdir()} == {"model.gguf", "Modelfile", "SHA256SUMS"}
    text = (out / "Modelfile").read_text()
    assert text.startswith("FROM ./model.gguf\n")
    assert "ADAPTER" not in text
    assert 'PARAMETER stop "<|im_end|>"' in text
    said = capsys.readouterr().out
    assert f"ollama create adapter -f {out / 'Modelfile'}" in said
    assert "ok    template: 14 conversations give the tokens of the model's template" in said
    assert 'TEMPLATE """' in text


def test_a_template_that_would_give_other_tokens_is_left_out(
    adapter: Path, base_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    """A GGUF that puts BOS before texts, where the model's tokenizer does not."""
    monkeypatch.setattr(BaseGguf, "adds_bos", True)
    out = tmp_path / "out"
    assert export(adapter, "ollama", "--base-gguf", str(base_gguf), "--out", str(out)) == 0
    assert "TEMPLATE" not in (out / "Modelfile").read_text()
    assert "the Modelfile has none" in capsys.readouterr().out


def test_ollama_is_run_where_it_is(
    adapter: Path, base_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    fake = tmp_path / "bin" / "ollama"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/said\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:/usr/bin:/bin")
    out = tmp_path / "out"
    words = ["--base-gguf", str(base_gguf), "--out", str(out), "--run", "--name", "mine"]
    assert export(adapter, "ollama", *words) == 0
    assert (tmp_path / "said").read_text().split() == [
        "create", "mine", "-f", str(out / "Modelfile"),
    ]  # fmt: skip
    assert "ollama run mine" in capsys.readouterr().out


def test_ollama_cannot_be_run_where_it_is_not(
    adapter: Path, base_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    monkeypatch.setenv("PATH", str(tmp_path))
    words = ["--base-gguf", str(base_gguf), "--out", str(tmp_path / "out"), "--run"]
    assert export(adapter, "ollama", *words) == 2
    assert "ollama.com" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# LM Studio


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setattr(Path, "home", lambda: folder)
    return folder


def test_lm_studio_is_found_where_it_says(home: Path, tmp_path: Path):
    assert lmstudio.models_folder() is None
    (home / ".cache" / "lm-studio").mkdir(parents=True)
    assert lmstudio.models_folder() == home / ".cache" / "lm-studio" / "models"
    (home / ".lmstudio").mkdir()
    assert lmstudio.models_folder() == home / ".lmstudio" / "models"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (home / ".lmstudio-home-pointer").write_text(f"{elsewhere}\n")
    assert lmstudio.models_folder() == elsewhere / "models"
    (home / ".lmstudio-home-pointer").write_text("\n")
    assert lmstudio.models_folder() == home / ".lmstudio" / "models"


def test_lm_studio_gets_a_model_quantized_as_its_base(home: Path, adapter: Path, capsys: Any):
    (home / ".lmstudio").mkdir()
    assert export(adapter, "lmstudio") == 0
    folder = home / ".lmstudio" / "models" / "orpo-mlx" / "adapter"
    config = json.loads((folder / "config.json").read_text())
    assert config["quantization"]["bits"] == 4
    said = capsys.readouterr().out
    assert f"lms load {folder.parent.name}/{folder.name}" in said
    assert f"mlx_lm.server --model {folder}" in said
    assert "of what the adapter does" in said


def test_lm_studio_takes_a_gguf_too(home: Path, adapter: Path, base_gguf: Path):
    (home / ".lmstudio").mkdir()
    assert export(adapter, "lmstudio", "--base-gguf", str(base_gguf)) == 0
    folder = home / ".lmstudio" / "models" / "orpo-mlx" / "adapter"
    assert {path.name for path in folder.iterdir()} == {"adapter.gguf", "SHA256SUMS"}
    again = ["--base-gguf", str(base_gguf)]
    assert export(adapter, "lmstudio", *again) == 2
    assert export(adapter, "lmstudio", *again, "--force") == 0
    assert {path.name for path in folder.iterdir()} == {"adapter.gguf", "SHA256SUMS"}


def test_elsewhere_lm_studio_is_said_not_to_look(
    home: Path, adapter: Path, base_gguf: Path, capsys: Any
):
    words = ["--base-gguf", str(base_gguf), "--out", str(home / "mine")]
    assert export(adapter, "lmstudio", *words) == 0
    said = capsys.readouterr().out
    assert "folder of models as orpo-mlx/mine" in said
    place = home / ".lmstudio" / "models" / "orpo-mlx"
    assert f"cp -R {home / 'mine'} {place} && lms load orpo-mlx/mine" in said


@pytest.mark.usefixtures("home")
def test_without_lm_studio_a_place_must_be_named(adapter: Path, capsys: Any):
    assert export(adapter, "lmstudio") == 2
    assert "--out" in capsys.readouterr().err


# The Hub

BASE = ("--base-id", "meta/tiny")


@pytest.fixture
def server(hub_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stand-in, to which the real client uploads as the user ann."""
    point_client(hub_server, tmp_path / "cache", monkeypatch)
    return hub_server


def test_the_adapter_goes_to_a_private_repository(
    server: Any, adapter: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    words = ["--repo", "ann/tuned", *BASE, "--out", str(out), "--json"]
    assert export(adapter, "hub", *words) == 0
    found = server.models["ann/tuned"]
    assert found.private
    assert found.files == {path.name: path.read_bytes() for path in out.iterdir()}
    assert {"adapters.safetensors", "adapter_config.json", "README.md"} <= found.files.keys()
    captured = capfd.readouterr()
    assert all(line.startswith("{") for line in captured.out.splitlines())
    assert "private" in captured.out
    assert f"Bearer {TOKEN}" in server.tokens
    assert TOKEN not in captured.out + captured.err
    assert not [path for path in out.iterdir() if TOKEN.encode() in path.read_bytes()]


def test_public_and_fused_are_asked_for(server: Any, adapter: Path, tmp_path: Path):
    words = ["--repo", "ann/tuned", "--public", "--content", "fused", "--out", str(tmp_path / "o")]
    assert export(adapter, "hub", *words, *BASE) == 0
    assert not server.models["ann/tuned"].private
    assert "model.safetensors" in server.models["ann/tuned"].files


def test_a_public_repository_is_not_taken_for_a_private_one(
    server: Any, adapter: Path, quantized_model_folder: Path, tmp_path: Path, capsys: Any
):
    model = server.add_model("ann/there", quantized_model_folder)
    before, out = dict(model.files), str(tmp_path / "out")
    assert export(adapter, "hub", "--repo", "ann/there", "--out", out) == 2
    assert "public" in capsys.readouterr().err
    assert (model.files, Path(out).exists()) == (before, False)
    model.private = True
    assert export(adapter, "hub", "--repo", "ann/there", *BASE, "--out", out) == 0
    assert "adapters.safetensors" in model.files


@pytest.mark.parametrize("content", ["mlx", "peft", "fused"])
def test_without_the_base_s_id_nothing_is_made_there(
    content: str, server: Any, adapter: Path, tmp_path: Path, capsys: Any
):
    words = ["--repo", "ann/x", "--content", content, "--out", str(tmp_path / "out")]
    assert export(adapter, "hub", *words) == 2
    assert "--base-id OWNER/NAME" in capsys.readouterr().err
    assert (list(server.models), (tmp_path / "out").exists()) == ([], False)


@pytest.mark.parametrize("content", ["mlx", "peft", "fused"])
def test_what_is_uploaded_names_no_path_of_this_machine(
    content: str, server: Any, adapter: Path, quantized_model_folder: Path, tmp_path: Path
):
    """mlx-lm leaves several in adapter_config.json, transformers one in config.json."""
    base, trained = tmp_path / "base", tmp_path / "trained"
    shutil.copytree(quantized_model_folder, base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "_name_or_path": str(base)}))
    shutil.copytree(adapter, trained)
    path = trained / "adapter_config.json"
    settings = {**json.loads(path.read_text()), "model": str(base), "data": str(tmp_path / "data")}
    del settings["base_model"], settings["base_fingerprint"]
    path.write_text(json.dumps(settings))
    words = ["--repo", "ann/x", *BASE, "--content", content, "--out", str(tmp_path / "out")]
    assert export(trained, "hub", *words) == 0
    for name, data in server.models["ann/x"].files.items():
        assert str(tmp_path).encode() not in data, name
    assert b'base_model: "meta/tiny"' in server.models["ann/x"].files["README.md"]


def test_a_path_in_a_file_of_the_model_is_not_uploaded(
    server: Any, adapter: Path, quantized_model_folder: Path, tmp_path: Path, capsys: Any
):
    base = Path(shutil.copytree(quantized_model_folder, tmp_path / "base"))
    adapter = Path(shutil.copytree(adapter, tmp_path / "trained"))
    path = adapter / "adapter_config.json"
    settings = json.loads(path.read_text())
    del settings["base_fingerprint"]
    path.write_text(json.dumps({**settings, "base_model": str(base)}))
    path = base / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "name_or_path": str(base)}))
    words = ["--repo", "ann/x", *BASE, "--content", "fused", "--out", str(tmp_path / "out")]
    assert export(adapter, "hub", *words) == 2
    assert "tokenizer_config.json: names a folder of this machine" in capsys.readouterr().err
    assert list(server.models) == []


@pytest.mark.parametrize("repo", ["tuned", "ann/bad name", "a/b/c"])
def test_a_repository_that_cannot_be_is_refused_before_anything(
    repo: str, server: Any, adapter: Path, tmp_path: Path, capsys: Any
):
    assert export(adapter, "hub", "--repo", repo, "--out", str(tmp_path / "out")) == 2
    assert "OWNER/NAME" in capsys.readouterr().err
    assert (server.requests, (tmp_path / "out").exists()) == ([], False)


def test_without_a_login_nothing_is_written(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert export(adapter, "hub", "--repo", "ann/x", "--out", str(tmp_path / "out")) == 2
    assert "hf auth login" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_a_repository_it_says_how(adapter: Path, capsys: Any):
    assert export(adapter, "hub") == 2
    assert "--repo OWNER/NAME" in capsys.readouterr().err


def test_a_refused_token_is_told_without_its_value(
    server: Any, adapter: Path, tmp_path: Path, capsys: Any
):
    server.fault, server.fault_on = "bad_token", "whoami"
    assert export(adapter, "hub", "--repo", "ann/x", "--out", str(tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert "hf auth login" in error
    assert TOKEN not in error
    assert not (tmp_path / "out").exists()


def test_a_refused_upload_leaves_the_folder(
    server: Any, adapter: Path, tmp_path: Path, capsys: Any
):
    server.fault, server.fault_on = "forbidden", "/commit/"
    assert export(adapter, "hub", "--repo", "ann/x", *BASE, "--out", str(tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert "What was written is whole" in error
    assert "may write" in error
    assert (tmp_path / "out" / "SHA256SUMS").exists()


def test_hub_options_name_formats_that_exist():
    from orpo_mlx.export.formats.table import OPTIONS, find_format

    (content,) = [option for option in OPTIONS if option.name == "content"]
    assert all(find_format(value) for value in content.values)
    assert hub.LOGIN


# The card


@pytest.mark.parametrize("to", ["mlx", "fused"])
def test_a_card_without_a_base_is_noted(to: str, adapter: Path, tmp_path: Path, capsys: Any):
    assert export(adapter, to, "--out", str(tmp_path / "a")) == 0
    assert "--base-id OWNER/NAME before you share" in capsys.readouterr().out
    assert export(adapter, to, "--out", str(tmp_path / "b"), *BASE) == 0
    assert "--base-id" not in capsys.readouterr().out
    assert 'base_model: "meta/tiny"' in (tmp_path / "b" / "README.md").read_text()
    if to == "mlx":
        config = json.loads((tmp_path / "b" / "adapter_config.json").read_text())
        assert config["base_model"] == "meta/tiny"


def test_the_card_calls_what_it_was_trained_on_by_its_name(trained, tmp_path):
    cards = {}
    for run in (trained.orpo, trained.sft):
        assert export(run.path, "mlx", "--out", str(tmp_path / run.id)) == 0
        cards[run.id] = (tmp_path / run.id / "README.md").read_text()
    assert "trained with ORPO ([Hong" in cards["orpo"]
    assert "\n- orpo\n" in cards["orpo"]
    assert "trained with SFT by orpo-mlx" in cards["sft"]
    assert "\n- sft\n" in cards["sft"]
    assert "ORPO" not in cards["sft"]


def test_the_card_tells_of_the_run(
    model_folder: Path, pairs_file: Callable[..., Path], tmp_path: Path
):
    words = ["train", "--model", str(model_folder), "--data", str(pairs_file(12)), "--steps", "2"]
    words += ["--run-dir", str(tmp_path / "run"), "--valid-fraction", "0.25", "--quiet"]
    assert program.main([*words, "--sample-prompts", "0", "--rank", "2"]) == 0
    assert export(tmp_path / "run", "mlx", "--out", str(tmp_path / "out")) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    lines = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    evals = [event for event in events if event["event"] == "EvalCompleted"]
    before, after = (one["metrics"]["loss"] for one in (evals[0], evals[-1]))
    assert f"| loss | {before:.4f} | {after:.4f} |" in card
    assert "12 rows read, 12 kept, 0 dropped" in card
    assert "| `rank` | 2 |" in card
    assert "## Licence" in card
    assert str(tmp_path) not in card
    assert str(model_folder) not in card
    assert "base_model:" not in card

"""Model folders: what is refused before weights are read, and what is loaded."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from orpo_mlx import models
from orpo_mlx.errors import ModelError


@pytest.fixture
def folder(model_folder: Path, copy_folder: Callable[..., Path]) -> Path:
    """A sound model that a test may damage."""
    return copy_folder(model_folder)


def edit_json(path: Path, **changes: Any) -> None:
    """Set keys of a JSON object; None removes a key."""
    content = {**json.loads(path.read_text()), **changes}
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(json.dumps(kept))


def refused(folder: Path) -> ModelError:
    """Check the folder, expect a refusal, and return it."""
    with pytest.raises(ModelError) as error:
        models.check_model_folder(folder)
    assert error.value.what_to_do
    return error.value


# Sound folders


def test_a_loaded_model_answers_like_the_same_files_through_mlx_lm(
    quantized_model_folder: Path,
) -> None:
    import mlx_lm

    loaded = models.load_model(models.resolve_model(str(quantized_model_folder)))
    reference, tokenizer = mlx_lm.load(str(quantized_model_folder))[:2]
    ids = loaded.tokenizer.encode("The cat sat on the moon.")
    assert ids == tokenizer.encode("The cat sat on the moon.")
    assert loaded.tokenizer.eos_token_ids == tokenizer.eos_token_ids == {2}
    assert np.array_equal(loaded.model(mx.array([ids])), reference(mx.array([ids])))
    assert loaded.config["quantization"]["bits"] == 4


def test_links_to_regular_files_are_a_model_as_in_the_hub_cache(
    folder: Path, tmp_path: Path
) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for file in folder.iterdir():
        (linked / file.name).symlink_to(file)
    assert models.check_model_folder(linked)["model_type"] == "llama"


def test_the_fingerprint_is_the_same_for_a_copy_and_another_for_other_content(
    model_folder: Path, folder: Path, make_model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    assert models.fingerprint(folder) == models.fingerprint(model_folder)
    seen = {models.fingerprint(folder)}
    edit_json(folder / "config.json", rope_theta=5000.0)
    seen.add(models.fingerprint(folder))
    with (folder / "tokenizer.json").open("a") as file:
        file.write(" ")
    seen.add(models.fingerprint(folder))
    seen.add(models.fingerprint(make_model_folder(tmp_path / "wide", intermediate_size=160)))
    assert len(seen) == 4


def test_checking_a_folder_imports_neither_mlx_nor_transformers(model_folder: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from orpo_mlx.models import check_model_folder as c;"
        "c(Path(sys.argv[1])); sys.exit(bool({'mlx', 'mlx_lm', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script, str(model_folder)]).returncode == 0


def test_the_list_of_architectures_holds_models_and_no_shared_parts() -> None:
    known = models.supported_model_types()
    assert {"llama", "qwen3", "qwen3_moe", "gemma3", "phi3"} <= set(known)
    assert not {"base", "cache", "switch_layers", "rope_utils", "__init__"} & set(known)


def test_a_type_that_mlx_lm_maps_to_another_is_known() -> None:
    models.check_model_type({"model_type": "mistral"}, "config.json")


# config.json


def test_a_folder_without_config_names_the_missing_file(tmp_path: Path) -> None:
    assert "config.json is missing" in refused(tmp_path).message
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "this is an adapter" in refused(tmp_path).message


def test_a_single_file_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    assert "not a folder" in refused(path).message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{\n"model_type": "llama",\n"hidden', "config.json, line 3, column"),
        (b"[1, 2]", "holds a list"),
        (b"{}", "model_type is missing"),
        (b'{"model_type": 7}', "model_type is 7"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b"version https://git-lfs.github.com/spec/v1\n", "this is a Git-LFS pointer"),
        (b"<!doctype html>", "this is an HTML page"),
        (b'{"model_type": "lama"}', "Did you mean llama?"),
        (b'{"model_type": "../llama"}', "is not supported by mlx-lm"),
        (b'{"model_type": "base"}', "is not supported by mlx-lm"),
    ],
)
def test_a_damaged_config_is_named(folder: Path, content: bytes, said: str) -> None:
    (folder / "config.json").write_bytes(content)
    assert said in refused(folder).message


def test_an_unknown_architecture_shows_version_and_list_command(folder: Path) -> None:
    import mlx_lm

    edit_json(folder / "config.json", model_type="hal9000")
    error = refused(folder)
    assert "'hal9000'" in error.message
    assert mlx_lm.__version__ in error.message
    command = error.what_to_do.split("List: ")[1].split('"')[1]
    listed = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert "llama" in listed.stdout.split()


# Code


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("config.json", "model_file", "evil.py"),
        ("config.json", "auto_map", {"AutoModelForCausalLM": "evil.Model"}),
        ("tokenizer_config.json", "auto_map", {"AutoTokenizer": ["evil.Tokenizer", None]}),
    ],
)
def test_code_is_refused_and_neither_run_nor_asked_about(
    folder: Path, monkeypatch: pytest.MonkeyPatch, file: str, key: str, value: Any
) -> None:
    mark = folder / "ran"
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')")
    own_architecture = {"model_type": "evil"} if key == "auto_map" else {}
    edit_json(folder / file, **{key: value}, **own_architecture)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\ny\ny\n"))
    for use in (models.check_model_folder, models.load_model):
        with pytest.raises(ModelError, match=f"{key} asks to run code") as error:
            use(folder)
        assert str(folder / file) in error.value.message
    assert not mark.exists()
    assert sys.stdin.read() == "y\ny\ny\n"


def test_code_that_mlx_lm_does_not_need_is_left_alone_and_the_model_loads(folder: Path) -> None:
    mark = folder / "ran"
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')")
    edit_json(folder / "config.json", auto_map={"AutoModelForCausalLM": "evil.Model"})
    assert models.load_model(folder).config["model_type"] == "llama"
    assert not mark.exists()


def test_other_weights_of_the_same_shape_have_another_fingerprint(
    make_model_folder: Any, tmp_path: Path
) -> None:
    first, second = (make_model_folder(tmp_path / str(seed), seed=seed) for seed in (1, 2))
    assert models.fingerprint(first) != models.fingerprint(second)
    (first / "chat_template.jinja").write_text("{{ messages }}")
    assert models.fingerprint(first) != models.fingerprint(
        make_model_folder(tmp_path / "3", seed=1)
    )


def test_even_unchecked_a_tokenizer_runs_no_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = folder / "ran"
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')")
    changes = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    edit_json(folder / "tokenizer_config.json", **changes)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with contextlib.suppress(ModelError):
        models.load_tokenizer(folder)
    assert not mark.exists()
    assert sys.stdin.read() == "y\n"


# Weights


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "w.npz"])
def test_pickle_weights_are_named_and_the_way_to_safetensors_is_shown(
    folder: Path, name: str
) -> None:
    (folder / "model.safetensors").rename(folder / name)
    error = refused(folder)
    assert "pickle weights are not read" in error.message
    assert name in error.message
    assert "mlx_lm.convert" in error.what_to_do


def test_other_weight_names_are_shown(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")
    assert "(found: consolidated.safetensors)" in refused(folder).message


def test_a_missing_shard_is_named_from_the_index(folder: Path) -> None:
    shards = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    (folder / "model.safetensors").rename(folder / shards[0])
    mx.save_safetensors(str(folder / shards[2]), {"other": mx.ones((1,))})
    index = {"weight_map": {"a": shards[0], "b": shards[1], "c": shards[2]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    message = refused(folder).message
    assert "1 of 3 weight files" in message
    assert shards[1] in message


def test_a_name_in_the_index_is_never_used_as_a_path(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "../copy/model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "the first is ../copy/model.safetensors" in refused(folder).message


def test_a_tensor_in_two_files_is_refused(folder: Path) -> None:
    mx.save_safetensors(
        str(folder / "model-old.safetensors"), {"model.norm.weight": mx.ones((64,))}
    )
    message = refused(folder).message
    assert "model.norm.weight is in model-old.safetensors and in model.safetensors" in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "this is a Git-LFS pointer",
        ),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"\x10\0\0\0\0\0\0\0{}", "not a sound safetensors file"),
        (b"", "not a sound safetensors file"),
    ],
)
def test_what_stands_in_the_place_of_weights_is_named(
    folder: Path, content: bytes, said: str
) -> None:
    (folder / "model.safetensors").write_bytes(content)
    message = refused(folder).message
    assert said in message
    assert "model.safetensors" in message


def test_a_pipe_in_the_place_of_weights_does_not_hang(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    assert "not a regular file" in refused(folder).message


def test_half_of_the_weights_are_missing(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    assert "not a sound safetensors file" in refused(folder).message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": None}, "cannot build a model.*hidden_size"),
        ({"num_attention_heads": 0}, "tokenizer cannot be read.*ZeroDivisionError"),
        ({"hidden_size": "64"}, "tokenizer cannot be read.*'hidden_size': .*int"),
        ({"num_hidden_layers": 3}, "the weights do not fit config.json"),
        ({"num_hidden_layers": 1}, "the weights do not fit config.json"),
        ({"intermediate_size": 96}, "the weights do not fit config.json"),
        ({"quantization": {"bits": 4}}, "cannot build a model.*group_size"),
    ],
)
def test_a_config_that_does_not_describe_the_weights_is_one_kind_of_error(
    folder: Path, changes: dict[str, Any], said: str
) -> None:
    edit_json(folder / "config.json", **changes)
    with pytest.raises(ModelError, match=said) as error:
        models.load_model(folder)
    assert len(str(error.value).splitlines()) <= 3


# Tokenizer


def test_a_folder_without_tokenizer_says_what_was_looked_for(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert "tokenizer.json, tokenizer.model" in refused(folder).message


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"model": {"type": "BPE"}}', "null"])
def test_a_damaged_tokenizer_is_one_kind_of_error(folder: Path, content: str) -> None:
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match="the tokenizer cannot be read"):
        models.load_tokenizer(folder)


# Chat template


@pytest.fixture
def with_template(
    make_model_folder: Callable[..., Path], tmp_path: Path
) -> Callable[[str | None], Any]:
    """Return `load(template) -> tokenizer`."""

    def load(template: str | None) -> Any:
        return models.load_tokenizer(make_model_folder(tmp_path / "m", chat_template=template))

    return load


LOOP = "{% for m in messages %}{{ m['role'] + ':' + m['content'] }}{% endfor %}"
MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]


def render(tokenizer: Any) -> str:
    return tokenizer.apply_chat_template(MESSAGES, tokenize=False)


def test_a_working_template_passes_with_system_messages(with_template: Callable[..., Any]) -> None:
    report = models.check_chat_template(with_template(LOOP))
    assert report == models.TemplateReport(supports_system=True, system_error="")


def test_without_a_template_the_ways_to_choose_one_are_shown(
    with_template: Callable[..., Any],
) -> None:
    with pytest.raises(ModelError, match="org/base: the tokenizer has no chat template") as error:
        models.check_chat_template(with_template(None), "org/base")
    assert "--chat-template chatml" in error.value.what_to_do


def test_chatml_can_be_given_to_a_model_without_template(model_folder: Path, folder: Path) -> None:
    edit_json(folder / "tokenizer_config.json", chat_template=None)
    tokenizer = models.load_tokenizer(folder, "chatml")
    models.check_chat_template(tokenizer)
    assert render(tokenizer) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n"
    )
    assert render(tokenizer) == render(models.load_tokenizer(model_folder))


def test_chatml_ends_a_turn_with_a_token_the_model_stops_at(folder: Path) -> None:
    text = (folder / "tokenizer.json").read_text().replace("<|im_end|>", "</s>")
    (folder / "tokenizer.json").write_text(text)
    edit_json(folder / "tokenizer_config.json", chat_template=None, eos_token="</s>")
    tokenizer = models.load_tokenizer(folder, "chatml")
    assert "Yo</s>\n" in render(tokenizer)


def test_a_template_file_replaces_the_models_own(model_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "plain.jinja"
    file.write_text(LOOP)
    assert render(models.load_tokenizer(model_folder, str(file))) == "user:Hiassistant:Yo"
    with pytest.raises(ModelError, match="not a readable Jinja file"):
        models.load_tokenizer(model_folder, str(tmp_path / "none.jinja"))


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
        models.check_chat_template(with_template(template))


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
    report = models.check_chat_template(with_template(start))
    assert not report.supports_system
    assert said in report.system_error


def test_a_template_that_never_ends_is_stopped(
    with_template: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "TEMPLATE_SECONDS", 2.0)
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    tokenizer = with_template(loops + LOOP)
    start = time.monotonic()
    with pytest.raises(ModelError, match="longer than 2 seconds"):
        models.check_chat_template(tokenizer)
    assert time.monotonic() - start < 6


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux only")
def test_a_template_that_eats_memory_is_stopped(with_template: Callable[..., Any]) -> None:
    with pytest.raises(ModelError, match="MemoryError"):
        models.check_chat_template(with_template(LOOP + "{{ 'x' * 9999999999 }}"))


def test_a_template_with_nested_loops_gives_the_same_report_from_its_child(
    with_template: Callable[..., Any],
) -> None:
    nested = LOOP.replace("{{", "{% for i in range(1) %}{{").replace("}}", "}}{% endfor %}")
    assert models.check_chat_template(with_template(nested)) == models.TemplateReport()

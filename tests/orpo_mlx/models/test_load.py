"""Models and tokenizers loaded, fingerprinted, and no code of theirs ever run."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from orpo_mlx.errors import ModelError
from orpo_mlx.models import load
from orpo_mlx.models.check import check_model_folder


def edit_json(path: Path, **changes: Any) -> None:
    """Set keys of a JSON object; None removes a key."""
    content = {**json.loads(path.read_text()), **changes}
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(json.dumps(kept))


# Sound folders


def test_a_loaded_model_answers_like_the_same_files_through_mlx_lm(
    quantized_model_folder: Path,
) -> None:
    import mlx_lm

    loaded = load.load_model(load.resolve_model(str(quantized_model_folder)))
    reference, tokenizer = mlx_lm.load(str(quantized_model_folder))[:2]
    ids = loaded.tokenizer.encode("The cat sat on the moon.")
    assert ids == tokenizer.encode("The cat sat on the moon.")
    assert loaded.tokenizer.eos_token_ids == tokenizer.eos_token_ids == {2}
    assert np.array_equal(loaded.model(mx.array([ids])), reference(mx.array([ids])))
    assert loaded.config["quantization"]["bits"] == 4


def test_the_fingerprint_is_the_same_for_a_copy_and_another_for_other_content(
    model_folder: Path, folder: Path, make_model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    assert load.fingerprint(folder) == load.fingerprint(model_folder)
    seen = {load.fingerprint(folder)}
    edit_json(folder / "config.json", rope_theta=5000.0)
    seen.add(load.fingerprint(folder))
    with (folder / "tokenizer.json").open("a") as file:
        file.write(" ")
    seen.add(load.fingerprint(folder))
    seen.add(load.fingerprint(make_model_folder(tmp_path / "wide", intermediate_size=160)))
    assert len(seen) == 4


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
    for use in (check_model_folder, load.load_model):
        with pytest.raises(ModelError, match=f"{key} asks to run code") as error:
            use(folder)
        assert str(folder / file) in error.value.message
    assert not mark.exists()
    assert sys.stdin.read() == "y\ny\ny\n"


def test_code_that_mlx_lm_does_not_need_is_left_alone_and_the_model_loads(folder: Path) -> None:
    mark = folder / "ran"
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')")
    edit_json(folder / "config.json", auto_map={"AutoModelForCausalLM": "evil.Model"})
    assert load.load_model(folder).config["model_type"] == "llama"
    assert not mark.exists()


def test_other_weights_of_the_same_shape_have_another_fingerprint(
    make_model_folder: Any, tmp_path: Path
) -> None:
    first, second = (make_model_folder(tmp_path / str(seed), seed=seed) for seed in (1, 2))
    assert load.fingerprint(first) != load.fingerprint(second)
    (first / "chat_template.jinja").write_text("{{ messages }}")
    assert load.fingerprint(first) != load.fingerprint(make_model_folder(tmp_path / "3", seed=1))


def test_even_unchecked_a_tokenizer_runs_no_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = folder / "ran"
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')")
    changes = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    edit_json(folder / "tokenizer_config.json", **changes)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with contextlib.suppress(ModelError):
        load.load_tokenizer(folder)
    assert not mark.exists()
    assert sys.stdin.read() == "y\n"


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
        load.load_model(folder)
    assert len(str(error.value).splitlines()) <= 3


# Tokenizer


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"model": {"type": "BPE"}}', "null"])
def test_a_damaged_tokenizer_is_one_kind_of_error(folder: Path, content: str) -> None:
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match="the tokenizer cannot be read"):
        load.load_tokenizer(folder)

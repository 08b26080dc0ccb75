"""Only regular files are opened where a path comes from outside, and small ones cost little."""

from __future__ import annotations

import json
import os
import shutil

import gguf
import pytest

from orpo_mlx.cli.main import main
from orpo_mlx.errors import ModelError
from orpo_mlx.export.formats.gguf_base import BaseGguf
from orpo_mlx.models.check import check_model_folder
from orpo_mlx.storage.regular import read_regular

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def model(tmp_path, model_folder):
    return shutil.copytree(model_folder, tmp_path / "model")


def test_a_device_and_a_large_file_are_refused(tmp_path):
    with pytest.raises(OSError, match="not a regular file"):
        read_regular("/dev/zero")
    (tmp_path / "large").write_bytes(b"x" * 11)
    assert len(read_regular(tmp_path / "large", 11)) == 11
    with pytest.raises(OSError, match="larger than"):
        read_regular(tmp_path / "large", 10)


@pytest.mark.parametrize("place", ["fifo", "/dev/zero"])
@pytest.mark.parametrize("flag", ["--config", "--chat-template"])
def test_a_pipe_or_device_as_an_option_is_refused(flag, place, tmp_path, model, capsys):
    os.mkfifo(tmp_path / "fifo")
    path = place if place.startswith("/") else str(tmp_path / place)
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 4)
    assert main(["train", "--model", str(model), "--data", str(data), flag, path]) == 2
    assert "not a regular file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
             "chat_template.jinja", "generation_config.json", "model.safetensors"],
)  # fmt: skip
def test_a_pipe_in_a_model_folder_is_refused(name, model):
    (model / name).unlink(missing_ok=True)
    os.mkfifo(model / name)
    with pytest.raises(ModelError, match="not a regular file"):
        check_model_folder(model)


def test_more_blocks_than_weights_are_refused_before_they_are_built(model):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 10**9}))
    with pytest.raises(ModelError, match="num_hidden_layers is 1000000000, but the weights have"):
        check_model_folder(model)


@pytest.mark.parametrize("ids", [10**6, [1, 10**6], -1, "end", [[1]]])
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_an_end_token_outside_the_vocabulary_is_refused(name, ids, model):
    path = model / name
    config = json.loads(path.read_text()) if path.exists() else {}
    size = json.loads((model / "config.json").read_text())["vocab_size"]
    path.write_text(json.dumps(config | {"eos_token_id": ids}))
    with pytest.raises(ModelError, match="eos_token_id is") as refused:
        check_model_folder(model)
    if "1000000" in str(ids):
        assert f"eos_token_id is 1000000; the last token of the vocabulary is {size - 1}" in str(
            refused.value
        )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_base_weight_that_is_no_number_is_named_before_a_run_is_made(
    value, model, tmp_path, capsys
):
    import mlx.core as mx

    weights = dict(mx.load(str(model / "model.safetensors")))
    name = sorted(name for name in weights if name.endswith("q_proj.weight"))[0]
    array = weights[name]
    array[0, 0] = value
    mx.eval(weights)
    mx.save_safetensors(str(model / "model.safetensors"), weights, {"format": "mlx"})
    data = tmp_path / "pairs.jsonl"
    rows = ({"prompt": f"{n}?", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(16))
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--model", str(model), "--data", str(data), "--run-dir", str(tmp_path / "run")]
    assert main(["train", *words]) == 2
    assert f"tensor {name} holds 1 values that are NaN or infinite" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_gguf_array_of_2_to_the_60_ends_with_the_file(tmp_path):
    path = tmp_path / "long.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("numbers", [1, 2, 3])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    data = path.read_bytes()
    at = data.rindex((3).to_bytes(8, "little"), 0, len(data) - 8)
    path.write_bytes(data[:at] + (1 << 60).to_bytes(8, "little") + data[at + 8 :])
    with pytest.raises(ModelError, match="beyond the end"):
        BaseGguf(path)


def test_a_gguf_key_of_another_type_is_named(tmp_path):
    path = tmp_path / "odd.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("split.count", "many")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelError, match=r"split\.count is 'many'; a whole number is needed"):
        BaseGguf(path)

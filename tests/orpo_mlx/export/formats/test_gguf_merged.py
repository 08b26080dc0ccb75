"""Merging an adapter into a GGUF of its base, held against a merge by hand.

The base GGUF is written here from the model's weights, with llama.cpp's order of the rows of q and
k spelled out as a loop; what the exporter knows of names and orders is not used.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import numpy as np
import pytest
from support.gguf_by_hand import HEADS, as_llama_cpp_has_it, fused_weights, gguf_name, tensors

from orpo_mlx.adapters.lora import adapter_layers
from orpo_mlx.cli import main as program
from orpo_mlx.evaluation.divergence import PROMPTS
from orpo_mlx.models.load import load_model

TYPE = gguf.GGMLQuantizationType
Make = Callable[..., Path]


def write_base(path: Path, weights: dict[str, np.ndarray], type: TYPE, **keys: Any) -> Path:
    writer = gguf.GGUFWriter(path, keys.pop("architecture", "llama"))
    writer.add_block_count(keys.pop("blocks", 2))
    writer.add_name("tiny")
    keys = {"tokenizer.ggml.tokens": ["a", "b"], **keys}
    for key, value in keys.items():
        if isinstance(value, list):
            kind, inner = gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.STRING
            writer.add_key_value(key, value, kind, sub_type=inner)
        else:
            writer.add_uint16(key, value)
    for name, weight in weights.items():
        moved = as_llama_cpp_has_it(name, weight)
        kind = type if moved.ndim == 2 else TYPE.F32
        writer.add_tensor(gguf_name(name), gguf.quants.quantize(moved, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    model = load_model(folder).model
    return {
        name: np.array(module.weight)
        for name, module in model.named_modules()
        if "weight" in module
    }


@pytest.fixture
def base(tmp_path: Path, model_folder: Path) -> Path:
    return write_base(tmp_path / "base.gguf", weights_of(model_folder), TYPE.F32)


def export(adapter: Path, base: Path | str, out: Path, *more: str) -> int:
    words = ["export", str(adapter), "--to", "gguf", "--base-gguf", str(base), "--out", str(out)]
    return program.main([*words, *more])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dora": True},
        {"num_layers": 1, "target_modules": ("q_proj", "down_proj")},
        {"target_modules": ("lm_head", "k_proj")},
    ],
    ids=["all", "dora", "last block", "head"],
)
def test_the_weights_are_those_mlx_lm_fuses(
    options: dict[str, Any],
    make_random_adapter: Make,
    model_folder: Path,
    base: Path,
    tmp_path: Path,
):
    adapter = make_random_adapter(**options)
    assert export(adapter, base, tmp_path / "out.gguf") == 0
    found, before = tensors(tmp_path / "out.gguf"), tensors(base)
    assert found.keys() == before.keys()
    changed = 0
    for name, weight in fused_weights(model_folder, adapter).items():
        wanted = as_llama_cpp_has_it(name, weight)
        np.testing.assert_allclose(found[gguf_name(name)], wanted, rtol=0, atol=2e-6)
        changed += not np.array_equal(found[gguf_name(name)], before[gguf_name(name)])
    assert changed == len({n for n, _ in adapter_layers(_attached(model_folder, adapter))})


def _attached(model: Path, adapter: Path) -> Any:
    from mlx_lm.utils import load

    return load(str(model), adapter_path=str(adapter))[0]


def test_what_the_adapter_does_not_touch_is_copied_byte_for_byte(
    make_random_adapter: Make, model_folder: Path, tmp_path: Path
):
    base = write_base(tmp_path / "q4.gguf", weights_of(model_folder), TYPE.Q4_0)
    adapter = make_random_adapter(target_modules=("v_proj",))
    assert export(adapter, base, tmp_path / "out.gguf") == 0
    old = {t.name: t for t in gguf.GGUFReader(base).tensors}
    new = {t.name: t for t in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    for name, tensor in new.items():
        if "attn_v" in name:
            assert tensor.tensor_type == TYPE.Q8_0  # coarser types are not written
        else:
            assert tensor.tensor_type == old[name].tensor_type
            assert bytes(tensor.data) == bytes(old[name].data)


def test_the_header_is_the_base_s_but_for_what_the_merge_is(
    make_random_adapter: Make, base: Path, tmp_path: Path
):
    export(make_random_adapter(), base, tmp_path / "out.gguf")
    old, new = gguf.GGUFReader(base), gguf.GGUFReader(tmp_path / "out.gguf")
    keys = {key for key in old.fields if not key.startswith("GGUF.")}
    more = {key for key in new.fields if not key.startswith("GGUF.")} - keys
    assert more == {"orpo_mlx.export", "orpo_mlx.adapter"}
    for key in keys - {"general.name"}:
        one, other = old.fields[key], new.fields[key]
        assert (one.contents(), one.types) == (other.contents(), other.types)
    assert new.fields["general.name"].contents() == "tiny adapter"


def test_the_file_type_follows_the_weights(
    make_random_adapter: Make, model_folder: Path, tmp_path: Path
):
    """2 = mostly Q4_0, 7 = mostly Q8_0, in llama.h."""
    base = write_base(
        tmp_path / "q4.gguf", weights_of(model_folder), TYPE.Q4_0, **{"general.file_type": 2}
    )

    def file_type(name: str, **options: Any) -> int:
        assert export(make_random_adapter(**options), base, tmp_path / name) == 0
        return gguf.GGUFReader(tmp_path / name).fields["general.file_type"].contents()

    assert file_type("few.gguf", target_modules=("v_proj",)) == 2
    assert file_type("all.gguf") == 7


@pytest.mark.parametrize("is_marked", [True, False], ids=["by this program", "by another"])
@pytest.mark.parametrize("dtype", ["float32", "q8_0"])
def test_a_gguf_that_is_merged_already_is_noticed(
    is_marked: bool, dtype: str, make_random_adapter: Make, base: Path, tmp_path: Path, capsys: Any
):
    merged = tmp_path / "merged.gguf"
    adapter = make_random_adapter(num_layers=1)
    assert export(adapter, base, merged, "--weights-dtype", dtype) == 0
    if not is_marked:
        # Another key of the same length: what any other program would have written.
        merged.write_bytes(merged.read_bytes().replace(b"orpo_mlx.export", b"general.comment"))
    assert export(adapter, merged, tmp_path / "twice.gguf") == 2
    error = capsys.readouterr().err
    assert "merged into it already" in error
    assert "GGUF of the base model itself" in error
    assert not (tmp_path / "twice.gguf").exists()


def test_force_does_not_replace_the_base(
    make_random_adapter: Make, base: Path, tmp_path: Path, capsys: Any
):
    (tmp_path / "link.gguf").symlink_to(base)
    before = base.read_bytes()
    assert export(make_random_adapter(), tmp_path / "link.gguf", base, "--force") == 2
    assert "which this export reads" in capsys.readouterr().err
    assert base.read_bytes() == before


def test_tokens_that_are_not_utf_8_and_empty_lists_are_no_obstacle(
    make_random_adapter: Make, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pack = gguf.GGUFWriter._pack_val

    def pack_empty(self: Any, value: Any, type: Any, *more: Any, **named: Any) -> bytes:
        if value == []:  # type ARRAY, of strings, none of them
            return b"".join(n.to_bytes(size, "little") for n, size in ((9, 4), (8, 4), (0, 8)))
        return pack(self, value, type, *more, **named)

    lists = {"tokenizer.ggml.tokens": [b"a", b"\xff"], "tokenizer.ggml.merges": []}
    with monkeypatch.context() as patch:
        patch.setattr(gguf.GGUFWriter, "_pack_val", pack_empty)
        base = write_base(tmp_path / "odd.gguf", weights_of(model_folder), TYPE.F32, **lists)
    assert export(make_random_adapter(), base, tmp_path / "out.gguf") == 0
    tokens = gguf.GGUFReader(tmp_path / "out.gguf").fields["tokenizer.ggml.tokens"]
    assert [bytes(tokens.parts[i]) for i in tokens.data] == [b"a", b"\xff"]


def test_what_does_not_fit_in_half_precision_is_noticed(
    make_random_adapter: Make, make_model_folder: Make, tmp_path: Path, capsys: Any
):
    model = make_model_folder(tmp_path / "large")
    path = model / "model.safetensors"
    arrays: Any = mx.load(str(path))
    large = {name: a * 1e6 if "o_proj" in name else a for name, a in arrays.items()}
    mx.save_safetensors(str(path), large, metadata={"format": "mlx"})
    base = write_base(tmp_path / "base.gguf", weights_of(model), TYPE.F32)
    adapter = make_random_adapter(model, target_modules=("o_proj",))
    with np.errstate(over="ignore"):
        assert export(adapter, base, tmp_path / "out.gguf", "--weights-dtype", "float16") == 1
    error = capsys.readouterr().err
    assert "delta" in error
    assert "--weights-dtype bfloat16" in error
    assert not (tmp_path / "out.gguf").exists()


def test_the_disk_must_hold_what_is_written(
    make_random_adapter: Make,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
):
    usage = type("Usage", (), {"free": 1000, "total": 2000, "used": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert export(make_random_adapter(), base, tmp_path / "out.gguf") == 2
    error = capsys.readouterr().err
    assert "1000 bytes" in error
    needed = int(error.split(" bytes)")[0].rpartition("(")[2])
    assert base.stat().st_size <= needed < base.stat().st_size * 1.02
    assert not (tmp_path / "out.gguf").exists()


def test_a_type_that_cannot_be_unpacked_is_named(
    make_random_adapter: Make,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
):
    def refuse(*_: Any) -> None:
        raise NotImplementedError

    adapter = make_random_adapter()
    monkeypatch.setattr(gguf.quants, "dequantize", refuse)
    assert export(adapter, base, tmp_path / "out.gguf") == 2
    assert "of type F32, which cannot be unpacked" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dtype", "type", "step"),
    [
        ("float32", TYPE.F32, 1e-6),
        ("float16", TYPE.F16, 5e-4),
        ("bfloat16", TYPE.BF16, 4e-3),
        ("q8_0", TYPE.Q8_0, 5e-3),
    ],
)
def test_the_number_format_can_be_chosen(
    dtype: str, type: TYPE, step: float, make_random_adapter: Make, model_folder: Path, base: Path,
    tmp_path: Path,
):  # fmt: skip
    adapter = make_random_adapter(target_modules=("o_proj",))
    assert export(adapter, base, tmp_path / "out.gguf", "--weights-dtype", dtype) == 0
    reader = {t.name: t for t in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    assert reader["blk.1.attn_output.weight"].tensor_type == type
    wanted = fused_weights(model_folder, adapter)["model.layers.1.self_attn.o_proj"]
    found = tensors(tmp_path / "out.gguf")["blk.1.attn_output.weight"]
    assert np.abs(found - wanted).max() <= step * np.abs(wanted).max()


def test_rounding_is_judged_by_the_answers(
    make_random_adapter: Make, model_folder: Path, base: Path, tmp_path: Path, capsys: Any
):
    """Rounding many weights a little moves them far, and the answers hardly: two measures."""
    from mlx_lm.utils import load

    adapter = make_random_adapter(rank=2, target_modules=("q_proj", "down_proj"))
    assert export(adapter, base, tmp_path / "out.gguf", "--weights-dtype", "q8_0") == 0
    said = capsys.readouterr().out
    found = re.search(r"Rounding to Q8_0 is (\S+)% of .* correlation of (\S+) is kept", said)
    assert found is not None

    def log_probs(model: Any) -> np.ndarray:
        ids = [load_model(model_folder).tokenizer.encode(prompt) for prompt in PROMPTS]
        logits = [model(mx.array([one]))[0] for one in ids]
        return np.concatenate([np.array(mx.log(mx.softmax(one, axis=-1))) for one in logits])

    plain = load(str(model_folder))[0]
    tuned = load(str(model_folder), adapter_path=str(adapter))[0]
    before, exact = log_probs(plain), log_probs(tuned)
    written = tensors(tmp_path / "out.gguf")
    for name, module in plain.named_modules():
        if name.endswith(("q_proj", "down_proj")):
            rows = np.argsort(as_llama_cpp_has_it(name, np.arange(len(module.weight))))
            module.weight = mx.array(written[gguf_name(name)][rows])
    kept = log_probs(plain) - before
    wanted = exact - before
    error = np.sqrt(np.square(kept - wanted).mean() / np.square(wanted).mean())
    assert float(found[1]) == pytest.approx(100 * error, abs=0.06)
    correlation = np.corrcoef(kept.ravel(), wanted.ravel())[0, 1]
    assert float(found[2]) == pytest.approx(correlation, abs=2e-4)


def test_a_tied_embedding_changes_both_ends(
    make_random_adapter: Make, make_model_folder: Make, tmp_path: Path
):
    model = make_model_folder(tmp_path / "tied", tie_word_embeddings=True)
    adapter = _embedding_adapter(model, tmp_path / "adapter")
    weights = weights_of(model)
    weights["lm_head"] = weights["model.embed_tokens"]  # some converters write it twice
    base = write_base(tmp_path / "tied.gguf", weights, TYPE.F32)
    assert export(adapter, base, tmp_path / "out.gguf") == 0
    found = tensors(tmp_path / "out.gguf")
    wanted = fused_weights(model, adapter)["model.embed_tokens"]
    np.testing.assert_allclose(found["token_embd.weight"], wanted, atol=1e-6)
    np.testing.assert_allclose(found["output.weight"], wanted, atol=1e-6)


def _embedding_adapter(model: Path, folder: Path) -> Path:
    """As mlx-lm's own trainer saves it; this trainer adapts no embeddings."""
    folder.mkdir()
    rows = len(weights_of(model)["model.embed_tokens"])
    parameters = {"rank": 2, "scale": 3.0, "dropout": 0.0, "keys": ["model.embed_tokens"]}
    config = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": parameters}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "model": str(model)}))
    arrays = {
        "model.embed_tokens.lora_a": mx.random.normal((rows, 2), key=mx.random.key(0)),
        "model.embed_tokens.lora_b": mx.random.normal((2, 64), key=mx.random.key(1)),
    }
    mx.save_safetensors(str(folder / "adapters.safetensors"), arrays)
    return folder


def test_a_quantized_base_model_belongs_to_a_plain_gguf(
    make_random_adapter: Make, quantized_model_folder: Path, base: Path, tmp_path: Path
):
    """4-bit weights are like the originals (the same seed made both), though not equal."""
    assert export(make_random_adapter(quantized_model_folder), base, tmp_path / "out.gguf") == 0


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"architecture": "qwen2"}, "architecture qwen2"),
        ({"blocks": 3}, "has 3 blocks"),
        ({"split.count": 4}, "one of 4 parts"),
    ],
)
def test_a_gguf_of_another_model_is_refused(
    keys: dict[str, Any], said: str, make_random_adapter: Make, model_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    base = write_base(tmp_path / "other.gguf", weights_of(model_folder), TYPE.F32, **keys)
    assert export(make_random_adapter(), base, tmp_path / "out.gguf") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out.gguf").exists()


def test_other_weights_of_the_same_shape_are_refused(
    make_random_adapter: Make,
    make_model_folder: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    other = make_model_folder(tmp_path / "other", seed=9)
    base = write_base(tmp_path / "other.gguf", weights_of(other), TYPE.F32)
    assert export(make_random_adapter(), base, tmp_path / "out.gguf") == 2
    assert "correlation" in capsys.readouterr().err


def test_rows_in_the_order_of_mlx_are_refused(
    make_random_adapter: Make,
    model_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    """A GGUF from a converter that forgot the order would silently get a wrong adapter."""
    monkeypatch.setitem(HEADS, "q_proj", None)
    base = write_base(tmp_path / "plain.gguf", weights_of(model_folder), TYPE.F32)
    assert export(make_random_adapter(), base, tmp_path / "out.gguf") == 2
    assert "correlation" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "cannot be read as GGUF"), (b"GGUF", "cannot be read"), (b"<html>" * 99, "cannot be")],
)
def test_a_damaged_gguf_is_refused(
    content: bytes, said: str, make_random_adapter: Make, tmp_path: Path, capsys: Any
):
    (tmp_path / "bad.gguf").write_bytes(content)
    assert export(make_random_adapter(), tmp_path / "bad.gguf", tmp_path / "out.gguf") == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["missing.gguf", "models/missing.gguf", "./a/b", "."])
def test_a_gguf_that_is_not_there_is_not_looked_for_on_the_hub(
    name: str, make_random_adapter: Make, tmp_path: Path, capsys: Any
):
    assert export(make_random_adapter(), name, tmp_path / "out.gguf") == 2
    assert "--base-gguf" in capsys.readouterr().err


def test_a_cut_gguf_is_refused(make_random_adapter: Make, base: Path, tmp_path: Path, capsys: Any):
    whole = base.read_bytes()
    for size in (200, len(whole) // 2, len(whole) - 5):
        (tmp_path / "cut.gguf").write_bytes(whole[:size])
        assert export(make_random_adapter(), tmp_path / "cut.gguf", tmp_path / "out.gguf") == 2
        assert "GGUF" in capsys.readouterr().err


def test_a_wrong_byte_in_what_was_written_is_noticed(
    make_random_adapter: Make,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
):
    from orpo_mlx.export.formats import gguf_merged

    encoded = gguf_merged._encoded

    def flipped(*args: Any) -> np.ndarray:
        data = encoded(*args)
        data[0, 3] ^= 0x10  # an exponent bit of a float32
        return data

    monkeypatch.setattr(gguf_merged, "_encoded", flipped)
    assert export(make_random_adapter(), base, tmp_path / "out.gguf") == 1
    assert "delta" in capsys.readouterr().err
    assert not (tmp_path / "out.gguf").exists()


def test_progress_and_the_result_are_json_lines(
    make_random_adapter: Make, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert export(make_random_adapter(), base, tmp_path / "out.gguf", "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["event"] == "started"
    merging = [line for line in lines if line.get("label") == "merging"]
    assert merging[-1]["done"] == merging[-1]["total"] == len(tensors(base))
    assert lines[-1]["event"] == "finished"
    assert any("Rounding" in note for note in lines[-1]["notes"])

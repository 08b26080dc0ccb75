"""The reference tokenizer, chat templates with quirks, and data files written on the spot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LLAMA = Path(__file__).parents[2] / "data" / "llama"


@pytest.fixture(scope="session")
def llama_folder() -> Path:
    """Reference model, data and token ids; their README says how they were made."""
    return LLAMA


@pytest.fixture
def make_tokenizer() -> Callable[..., Any]:
    """Return `make(chat_template=None) -> tokenizer`; BOS 1, EOS 2, byte-level BPE of 512 ids."""
    from transformers import AutoTokenizer

    def make(chat_template: str | None = None) -> Any:
        tokenizer = AutoTokenizer.from_pretrained(str(LLAMA / "model"))
        if chat_template is not None:
            tokenizer.chat_template = chat_template
        return tokenizer

    return make


@pytest.fixture
def tokenizer(make_tokenizer: Callable[..., Any]) -> Any:
    """The reference tokenizer with its own template: <s> first, every turn ended by </s>."""
    return make_tokenizer()


@pytest.fixture
def write_file(tmp_path: Path) -> Callable[..., Path]:
    """Return `write(content, name="train.jsonl") -> path`; a list of rows becomes JSON lines."""

    def write(content: str | bytes | list[Any], name: str = "train.jsonl") -> Path:
        path = tmp_path / name
        if isinstance(content, list):
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        return path

    return write

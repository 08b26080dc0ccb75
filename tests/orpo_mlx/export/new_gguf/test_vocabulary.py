"""llama.cpp's name for how a tokenizer cuts text: of real expressions, or none at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from orpo_mlx.errors import ExportError
from orpo_mlx.export.new_gguf.vocabulary import pre_tokenizer_name

# As the tokenizer.json files of these models have them.
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PHI_4_MINI = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def saved(*steps: Any, **model: Any) -> dict[str, Any]:
    """tokenizer.json as the tokenizers package writes it."""
    tokenizer = Tokenizer(models.BPE(**model))
    whole = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(list(steps))
    tokenizer.pre_tokenizer = whole  # type: ignore[assignment]
    return json.loads(tokenizer.to_str())


def split(regex: str, behavior: str = "isolated") -> Any:
    return pre_tokenizers.Split(Regex(regex), behavior)


WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
DIGITS = pre_tokenizers.Digits(individual_digits=True)


@pytest.mark.parametrize(
    ("tokenizer", "name"),
    [
        (saved(WORDS), "gpt-2"),
        (saved(DIGITS, WORDS), "smollm"),
        (saved(split(LLAMA_3), BYTES, ignore_merges=True), "llama-bpe"),
        (saved(split(LLAMA_3), BYTES), "dbrx"),
        (saved(split(QWEN_2), BYTES), "qwen2"),
        (saved(split(PHI_4_MINI), BYTES), "gpt-4o"),
    ],
    ids=["gpt-2", "smollm2", "llama 3", "phi-4", "qwen 2", "phi-4-mini"],
)
def test_a_known_expression_has_llama_cpps_name(tokenizer: dict[str, Any], name: str):
    assert pre_tokenizer_name(tokenizer) == name


@pytest.mark.parametrize(
    "tokenizer",
    [
        saved(split(QWEN_2), BYTES, ignore_merges=True),
        saved(split(QWEN_2), WORDS),
        saved(split(QWEN_2, "removed"), BYTES),
        saved(split(QWEN_2 + "|x"), BYTES),
        saved(split(LLAMA_3), DIGITS, BYTES),
        saved(pre_tokenizers.ByteLevel(add_prefix_space=True)),
        saved(pre_tokenizers.Whitespace()),
        saved(WORDS, byte_fallback=True),
        {**saved(WORDS), "normalizer": {"type": "NFKC"}},
        {**saved(WORDS), "pre_tokenizer": None},
        {**saved(WORDS), "model": {"type": "Unigram"}},
        {},
    ],
)
def test_what_is_not_known_is_never_guessed(tokenizer: dict[str, Any]):
    with pytest.raises(ExportError) as caught:
        pre_tokenizer_name(tokenizer)
    assert "--base-gguf" in caught.value.what_to_do

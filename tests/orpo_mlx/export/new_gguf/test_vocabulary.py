"""llama.cpp's name for how a tokenizer cuts text: of real expressions, or none at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from orpo_mlx.errors import ExportError
from orpo_mlx.export.new_gguf import pieces
from orpo_mlx.export.new_gguf.vocabulary import add_vocabulary, pre_tokenizer_name

# As the tokenizer.json files of these models have them.
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_3_5 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
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
        (saved(split(QWEN_3_5), BYTES), "qwen35"),
        (saved(split(PHI_4_MINI), BYTES), "gpt-4o"),
    ],
    ids=["gpt-2", "smollm2", "llama 3", "phi-4", "qwen 2", "qwen 3.5", "phi-4-mini"],
)
def test_a_known_expression_has_llama_cpps_name(tokenizer: dict[str, Any], name: str):
    assert pre_tokenizer_name(tokenizer, "llama") == name


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
        pre_tokenizer_name(tokenizer, "llama")
    assert "--base-gguf" in caught.value.what_to_do


# Of SentencePiece's kind

SPACE = "\u2581"
PIECES = ["<unk>", "<s>", "<0x41>", "a", "b", "c", "bc", "ab", "abc"]
PAIRS = [["b", "c"], ["a", "b"], ["a", "bc"], ["ab", "c"]]
REPLACES = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
PREPENDS = {"type": "Prepend", "prepend": SPACE}


def of_pieces(merges: list[Any], *normalizers: dict[str, Any], **more: Any) -> dict[str, Any]:
    model = {"type": "BPE", "byte_fallback": True, "unk_token": "<unk>", "merges": merges}
    model["vocab"] = {text: number for number, text in enumerate(PIECES)}
    added = [{"id": 1, "content": "<s>", "special": True}]
    whole = {"type": "Sequence", "normalizers": list(normalizers)}
    return {"model": model, "added_tokens": added, "normalizer": whole, **more}


def test_the_score_of_a_piece_is_the_place_of_its_first_pair():
    tokenizer = of_pieces(PAIRS, REPLACES)
    assert pre_tokenizer_name(tokenizer, "llama") == "default"
    assert pieces.scores(tokenizer, PIECES)[6:] == [0.0, -1.0, -2.0]
    assert max(pieces.scores(tokenizer, PIECES)[:6]) < -len(PAIRS)
    joined = [merge if isinstance(merge, str) else " ".join(merge) for merge in PAIRS]
    assert pieces.scores(of_pieces(joined, REPLACES), PIECES)[6:] == [0.0, -1.0, -2.0]


def test_what_llama_cpp_would_join_and_the_tokenizer_does_not_is_refused():
    with pytest.raises(ExportError, match=r"would join 'ab \+ c'"):
        pre_tokenizer_name(of_pieces(PAIRS[:3], REPLACES), "llama")


@pytest.mark.parametrize(
    ("tokenizer", "is_first"),
    [
        (of_pieces(PAIRS, PREPENDS, REPLACES), True),
        (of_pieces(PAIRS, REPLACES), False),
        (of_pieces(PAIRS, REPLACES) | {"normalizer": REPLACES}, False),
        (of_pieces(PAIRS, REPLACES, PREPENDS), None),
        (of_pieces(PAIRS, {"type": "NFKC"}, REPLACES), None),
        (of_pieces(PAIRS, REPLACES, pre_tokenizer={"type": "Metaspace"}), None),
        (of_pieces(PAIRS) | {"normalizer": None}, None),
    ],
)
def test_whether_a_text_gets_a_space_first_is_known_or_refused(
    tokenizer: dict[str, Any], is_first: bool | None
):
    assert pieces.puts_space_first(tokenizer) is is_first
    if is_first is None:
        with pytest.raises(ExportError, match="no word for"):
            pre_tokenizer_name(tokenizer, "llama")


def test_gemma_4_joins_by_its_list_of_pairs_and_cuts_at_line_ends():
    assert pre_tokenizer_name(of_pieces(PAIRS[:3], REPLACES), "gemma4") == "gemma4"
    with pytest.raises(ExportError, match="no word for"):
        pre_tokenizer_name(of_pieces(PAIRS, PREPENDS, REPLACES), "gemma4")
    across = of_pieces(PAIRS, REPLACES)
    across["model"]["vocab"]["a\n"] = len(PIECES)
    with pytest.raises(ExportError, match="line ends"):
        pre_tokenizer_name(across, "gemma4")


def test_kinds_of_pieces():
    tokenizer = of_pieces(PAIRS, REPLACES)
    found = [pieces.kind(tokenizer, text) for text in PIECES]
    kinds = gguf.TokenType
    assert [found[0], *found[2:]] == [kinds.UNKNOWN, kinds.BYTE, *[kinds.NORMAL] * 6]


# In the file


class Speaker:
    """A tokenizer that begins every text with BOS."""

    bos_token_id = 1

    def encode(self, text: str) -> list[int]:
        return [1, *map(ord, text)]


def test_bos_and_the_template_of_the_training_are_said_outright(tmp_path: Path):
    """llama.cpp's own rule for BOS goes by the name of the cutting."""
    tokenizer = of_pieces(PAIRS, PREPENDS, REPLACES)
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<s>", "chat_template": "another"})
    )
    writer = gguf.GGUFWriter(tmp_path / "out.gguf", "llama")
    add_vocabulary(writer, tmp_path, Speaker(), len(PIECES) + 1, "{{ messages }}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    fields = gguf.GGUFReader(tmp_path / "out.gguf").fields
    said = {name: field.contents() for name, field in fields.items()}
    assert said["tokenizer.chat_template"] == "{{ messages }}"
    assert said["tokenizer.ggml.add_bos_token"] is True
    assert said["tokenizer.ggml.add_space_prefix"] is True
    assert said["tokenizer.ggml.bos_token_id"] == 1
    assert said["tokenizer.ggml.tokens"] == [*PIECES, "[PAD9]"]


def test_gemma_4_without_bos_is_refused(tmp_path: Path):
    """llama.cpp puts one before every text, whatever the file says, and dies without one."""
    (tmp_path / "tokenizer.json").write_text(json.dumps(of_pieces(PAIRS, REPLACES)))
    speaker = Speaker()
    speaker.bos_token_id = None  # type: ignore[assignment]
    writer = gguf.GGUFWriter(tmp_path / "out.gguf", "gemma4")
    with pytest.raises(ExportError, match="begins no text with BOS"):
        add_vocabulary(writer, tmp_path, speaker, len(PIECES), None)


def test_more_tokens_than_rows_of_the_embedding_are_refused(tmp_path: Path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(of_pieces(PAIRS, REPLACES)))
    writer = gguf.GGUFWriter(tmp_path / "out.gguf", "llama")
    with pytest.raises(ExportError, match="has token 8, the model's embedding 5 rows"):
        add_vocabulary(writer, tmp_path, Speaker(), 5, None)

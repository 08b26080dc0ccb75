"""Fifty texts on which tokenizers part ways: digits, spaces, scripts, special tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

TRICKY: tuple[str, ...] = (
    "a", " a", "  a", "a ", "a  b", "\ta", "\n", "\n\n", "\r\n", " \n ", "a\n\n\nb", "   \n  x",
    "I've", "I'VE", "they'll don't it's we'd I'm", "'s", "'S it", "x's'S", "don’t",
    "3", "33", "333", "3333", "3.14159", "1,000,000", "a1b22c333", "٣٤٥", "x²", "½ Ⅷ ①",
    "CamelCaseWord", "snake_case_word", "HTTPServer", "ÀÉÎ naïve café", "Straße", "ǅ ǆ",
    "漢字かな交じり文", "한국어 문장", "Привет, мир!", "สวัสดี", "नमस्ते", "שלום", "مرحبا",
    "🚀", "👩‍👩‍👧 family", "e\u0301 combining", "...!!!???", "=====---", "a/b\\c:d", "<b>x</b>",
    "<|im_start|>user\nhi<|im_end|>\n",
)  # fmt: skip

_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN_3_5 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False)
_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def _split(regex: str) -> Any:
    return pre_tokenizers.Split(Regex(regex), "isolated")


CUTTINGS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "gpt-2": ([_WORDS], {}),
    "smollm": ([pre_tokenizers.Digits(individual_digits=True), _WORDS], {}),
    "llama-bpe": ([_split(_CL100K), _BYTES], {"ignore_merges": True}),
    "dbrx": ([_split(_CL100K), _BYTES], {}),
    "qwen2": ([_split(_CL100K.replace("{1,3}", "")), _BYTES], {}),
    "qwen35": ([_split(_QWEN_3_5), _BYTES], {}),
    "gpt-4o": ([_split(_O200K), _BYTES], {}),
}
"""llama.cpp's name, the steps of cutting in tokenizer.json, and settings of its BPE."""


def trained_tokenizer(steps: list[Any], **model: Any) -> Tokenizer:
    """Return a tokenizer that has learned the tricky texts by heart, but for its way of cutting."""
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TRICKY, *map("{0} {0}x".format, TRICKY)] * 3, trainer)
    special = [AddedToken(text, special=True) for text in ("<|im_start|>", "<|im_end|>")]
    tokenizer.add_special_tokens(special)  # type: ignore[arg-type]
    return tokenizer


def trained_pieces(folder: Path, puts_space_first: bool, lines: tuple[str, ...] = ()) -> Tokenizer:
    """Return a tokenizer of SentencePiece's kind as transformers makes it of its model.

    `lines` are ends of lines that are tokens of their own, as Gemma has them.
    """
    import sentencepiece
    from transformers.tokenization_utils_base import generate_merges

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*TRICKY] * 3), model_prefix=str(folder / "pieces"),
        model_type="bpe", byte_fallback=True, vocab_size=700, character_coverage=0.98,
        remove_extra_whitespaces=False, normalization_rule_name="identity", minloglevel=2,
        hard_vocab_limit=False, split_digits=True, user_defined_symbols=[*lines],
    )  # fmt: skip
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "pieces.model"))
    vocabulary = {model.id_to_piece(i): i for i in range(model.vocab_size())}
    merges = generate_merges(vocabulary, {p: model.get_score(i) for p, i in vocabulary.items()})
    bpe = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(bpe)
    replaces = normalizers.Replace(" ", "\u2581")
    parts = [normalizers.Prepend("\u2581"), replaces] if puts_space_first else [replaces]
    tokenizer.normalizer = normalizers.Sequence(parts)  # type: ignore[assignment]
    special = [AddedToken(text, special=True) for text in ("<unk>", "<s>", "</s>")]
    tokenizer.add_special_tokens(special)  # type: ignore[arg-type]
    turns = [AddedToken(text, special=True) for text in ("<|im_start|>", "<|im_end|>")]
    tokenizer.add_special_tokens(turns)  # type: ignore[arg-type]
    ends = [AddedToken(text, normalized=False) for text in lines]
    tokenizer.add_tokens(ends)  # type: ignore[arg-type]
    return tokenizer


class Wrapped:
    """As much of mlx-lm's wrapper as is asked for; begins texts with BOS if it is given."""

    def __init__(self, tokenizer: Tokenizer, bos: int | None = None) -> None:
        self.bos_token_id = bos
        begin = [] if bos is None else [bos]
        self.encode = lambda text: begin + tokenizer.encode(text).ids

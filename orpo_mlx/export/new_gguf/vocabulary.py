"""A tokenizer in a GGUF: tokens, kinds, merges or scores, and how text is cut before them.

llama.cpp knows that cutting by names, each for an expression in its code. Which name a
tokenizer.json means is looked up, never guessed: a wrong one gives other tokens and no warning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf

from orpo_mlx.errors import ExportError, ModelError
from orpo_mlx.export.new_gguf import pieces
from orpo_mlx.storage.safetensors import read_json_object

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LLAMA_3 = _CONTRACTION + _WORDS + r"\p{N}{1,3}" + _REST
_QWEN_2 = _CONTRACTION + _WORDS + r"\p{N}" + _REST
_GPT_4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTION}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTION}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN_3_5 = (
    _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_WHOLE_WORDS = ("ByteLevel", True)
_BYTES = ("ByteLevel", False)
_NAMES: dict[tuple[tuple[object, ...], bool], str] = {
    ((_WHOLE_WORDS,), False): "gpt-2",
    ((("Digits", True), _WHOLE_WORDS), False): "smollm",
    ((("Split", _LLAMA_3), _BYTES), True): "llama-bpe",
    ((("Split", _LLAMA_3), _BYTES), False): "dbrx",
    ((("Split", _QWEN_2), _BYTES), False): "qwen2",
    ((("Split", _QWEN_3_5), _BYTES), False): "qwen35",
    ((("Split", _GPT_4O), _BYTES), False): "gpt-4o",
}
"""Steps, and whether a word that is a token is taken whole, to `tokenizer.ggml.pre`: by the
expressions and flags of llama.cpp's llama-vocab.cpp."""


GEMMA_4 = "gemma4"
"""The architecture, its kind of tokenizer and its way of cutting, all of one name."""
_SHOWN = frozenset(
    {"<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>",
     "<tool_response|>", '<|"|>'}
)  # fmt: skip
"""Special tokens of Gemma 4 that a reader of its answers looks for, so they are not hidden."""


def add_vocabulary(
    writer: gguf.GGUFWriter, folder: Path, tokenizer: Any, size: int, template: str | None
) -> None:
    """Write the tokenizer, its special tokens and the chat template.

    Args:
        writer: of the file; its architecture decides for Gemma 4.
        folder: of tokenizer.json and tokenizer_config.json.
        tokenizer: mlx-lm's wrapper of the same, asked whether texts begin with BOS.
        size: rows of the embedding.
        template: a chat template in place of the model's own; None keeps that.

    Raises:
        ExportError: llama.cpp has no name for its cutting, or it is another kind of tokenizer.
        ModelError: tokenizer.json cannot be read.
    """
    found = read_tokenizer(folder)
    model = tokenizer_model(found, writer.arch)
    pre, (tokens, kinds) = pre_tokenizer_name(found, writer.arch), _tokens(found, size, model)
    has_pieces = is_of_pieces(found)
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    if has_pieces:
        writer.add_token_scores(pieces.scores(found, tokens))
    writer.add_add_space_prefix(has_pieces and bool(pieces.puts_space_first(found)))
    special = gguf.SpecialVocab(folder, load_merges=model != "llama", n_vocab=size)
    # Said outright: some names of cutting make llama.cpp add BOS unless the file says no.
    special.add_special_token["bos"] = _adds_bos(tokenizer)
    if model == GEMMA_4 and not _adds_bos(tokenizer):
        raise _refused("tokenizer: begins no text with BOS, and llama.cpp does for Gemma 4")
    if template is not None:
        special.chat_template = template
    special.add_to_gguf(writer, quiet=True)


def read_tokenizer(folder: Path) -> dict[str, Any]:
    """Return tokenizer.json.

    Raises:
        ExportError: there is none.
        ModelError: it cannot be read.
    """
    path = folder / "tokenizer.json"
    if path.is_file():
        return read_json_object(path, ModelError)
    raise _refused(f"{path}: is missing; the tokens of a GGUF are taken from it")


def pre_tokenizer_name(tokenizer: dict[str, Any], architecture: str) -> str:
    """Return `tokenizer.ggml.pre` of a tokenizer.json.

    Args:
        tokenizer: what the file holds.
        architecture: `general.architecture` of the GGUF.

    Raises:
        ExportError: it is no BPE, or llama.cpp has no name for how it cuts text.
    """
    model = tokenizer.get("model") or {}
    if model.get("type") != "BPE":
        raise _refused(f"tokenizer.json: of kind {model.get('type')}; BPE is known here")
    if is_of_pieces(tokenizer):
        has_merges = tokenizer_model(tokenizer, architecture) == GEMMA_4
        _require_pieces(tokenizer, has_merges)
        return GEMMA_4 if has_merges else "default"
    normalizer = (tokenizer.get("normalizer") or {}).get("type")
    steps = tuple(map(_step, _parts(tokenizer.get("pre_tokenizer") or {})))
    name = _NAMES.get((steps, bool(model.get("ignore_merges"))))
    if name is None or normalizer not in (None, "NFC"):
        shown = [*([normalizer] if normalizer else []), *(str(step) for step in steps)]
        raise _refused(
            "tokenizer.json: llama.cpp's name for how it cuts text is not known here "
            f"({', '.join(shown):.120})"
        )
    return name


def is_of_pieces(tokenizer: dict[str, Any]) -> bool:
    """Whether it is of SentencePiece's kind, which spells unknown characters in bytes."""
    return bool((tokenizer.get("model") or {}).get("byte_fallback"))


def tokenizer_model(tokenizer: dict[str, Any], architecture: str) -> str:
    """Return `tokenizer.ggml.model`; Gemma 4's pieces are joined by their list of pairs."""
    if not is_of_pieces(tokenizer):
        return "gpt2"
    return GEMMA_4 if architecture == GEMMA_4 else "llama"


def _require_pieces(tokenizer: dict[str, Any], has_merges: bool) -> None:
    puts_space_first = pieces.puts_space_first(tokenizer)
    if puts_space_first is None or (has_merges and puts_space_first):
        raise _refused(
            "tokenizer.json: texts are changed or cut before they become tokens in a way that "
            "llama.cpp has no word for"
        )
    if has_merges:
        if text := pieces.piece_across_lines(tokenizer):
            raise _refused(
                f"tokenizer.json: {text!r:.60} is a token, and llama.cpp cuts text at line ends"
            )
        return
    if pair := pieces.unlisted_pair(tokenizer):
        raise _refused(
            f"tokenizer.json: llama.cpp would join {pair!r:.60}, which this tokenizer does not"
        )


def _refused(found: str) -> ExportError:
    return ExportError(
        f"{found}. Nothing was written.",
        "Merge into a GGUF of the base model, which has its tokenizer: --base-gguf FILE or "
        "--base-gguf OWNER/NAME:FILE.gguf.",
    )


def _parts(pre_tokenizer: dict[str, Any]) -> list[dict[str, Any]]:
    if pre_tokenizer.get("type") == "Sequence":
        return list(pre_tokenizer["pretokenizers"])
    return [pre_tokenizer]


def _step(part: dict[str, Any]) -> tuple[object, ...]:
    """Return what one step of cutting does; of an unknown one all there is, so it matches none."""
    match part:
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return "ByteLevel", part.get("use_regex", True)
        case {"type": "Digits", "individual_digits": digits}:
            return "Digits", digits
        case {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated"}:
            return ("Split", regex) if not part.get("invert") else ("Split", regex, "inverted")
    return (str(part),)


def _tokens(tokenizer: dict[str, Any], size: int, model: str) -> tuple[list[str], list[int]]:
    """Return every token and its kind; rows of the embedding without one are marked unused."""
    texts = {number: text for text, number in tokenizer["model"]["vocab"].items()}
    kinds = dict.fromkeys(texts, gguf.TokenType.NORMAL)
    if is_of_pieces(tokenizer):
        kinds = {number: pieces.kind(tokenizer, text) for number, text in texts.items()}
    for added in tokenizer.get("added_tokens") or []:
        text = added["content"]
        is_control = added.get("special") or (text.startswith("<|") and text.endswith("|>"))
        is_control = is_control and not (model == GEMMA_4 and text in _SHOWN)
        if kinds.get(added["id"]) == gguf.TokenType.UNKNOWN:
            continue
        kind = gguf.TokenType.CONTROL if is_control else gguf.TokenType.USER_DEFINED
        kinds[added["id"]] = kind
        # llama.cpp looks for these in the text as it was written.
        texts[added["id"]] = text if is_control else text.replace(pieces.SPACE, " ")
    if max(texts) >= size:
        raise _refused(f"tokenizer.json: has token {max(texts)}, the model's embedding {size} rows")
    unused = gguf.TokenType.UNUSED
    return (
        [texts.get(number, f"[PAD{number}]") for number in range(size)],
        [int(kinds.get(number, unused)) for number in range(size)],
    )


def _adds_bos(tokenizer: Any) -> bool:
    bos = tokenizer.bos_token_id
    return bos is not None and list(tokenizer.encode("a"))[:1] == [bos]

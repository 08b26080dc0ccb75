"""Tokenizers with the chat templates of model families."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parents[1] / "data" / "templates"
FAMILIES = json.loads((TEMPLATES / "cases.json").read_text(encoding="utf-8"))


@functools.cache
def tokenizer_of(name: str) -> Any:
    """A tokenizer without merges: byte b is token b, special tokens follow from 256 on."""
    from mlx_lm.tokenizer_utils import TokenizerWrapper
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    family = FAMILIES[name]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    letters |= {byte: chr(256 + i) for i, byte in enumerate(others)}
    tokenizer = Tokenizer(models.BPE({letters[byte]: byte for byte in range(256)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in family["special"]])  # type: ignore[arg-type]
    if family.get("writes_bos"):
        bos = family["bos"]
        tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=family["bos"], eos_token=family["eos"],
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    fast.chat_template = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    stops = [tokenizer.token_to_id(token) for token in family["stops"]]
    return TokenizerWrapper(fast, eos_token_ids=stops)

"""Real llama.cpp: log-probs of a GGUF model, with or without a GGUF LoRA, and its tokens."""

from __future__ import annotations

import numpy as np
from llama_cpp import GGML_TYPE_F32, Llama
from worker import serve


def logps(model: str, lora: str | None, prompts: list[list[int]], out: str) -> None:
    """Write the log-probs of every token at every position, one array per prompt."""
    # The cache in float32: its default, float16, would be most of the difference.
    llama = Llama(
        model, lora_path=lora, n_ctx=128, logits_all=True, n_threads=1, n_threads_batch=1,
        type_k=GGML_TYPE_F32, type_v=GGML_TYPE_F32, flash_attn=False, verbose=False,
    )  # fmt: skip
    arrays = {}
    for number, prompt in enumerate(prompts):
        llama.reset()
        llama._ctx.kv_cache_clear()
        llama.eval(prompt)
        logits = np.array(llama.scores[: len(prompt)], dtype=np.float64)
        largest = logits.max(-1, keepdims=True)
        total = np.log(np.exp(logits - largest).sum(-1, keepdims=True))
        arrays[str(number)] = logits - largest - total
    np.savez(out, **arrays)
    llama.close()


def tokens(model: str, texts: list[str]) -> list[list[int]]:
    """Return the tokens of each text, special ones in it recognised, BOS added as the file says."""
    llama = Llama(model, vocab_only=True, verbose=False)
    found = [llama.tokenize(text.encode(), add_bos=True, special=True) for text in texts]
    llama.close()
    return found


if __name__ == "__main__":
    serve(logps, tokens)

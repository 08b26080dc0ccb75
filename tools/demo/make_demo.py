"""Make the embedded demo from nothing: text, tokenizer, pre-trained model, preference pairs.

    python tools/demo/make_demo.py --out DIR [--seed 0] [--steps 1400]

The text comes from `corpus.py`, the tokenizer is a byte-level BPE trained on it, the model is a
Llama of 0.6 million parameters, pre-trained on it in float32 and then quantized to 4 bits.
Nothing is downloaded. Written are `DIR/model` in mlx-lm's format, `DIR/train.jsonl` and
`DIR/valid.jsonl`, and `DIR/labelled_train.jsonl` and `DIR/labelled_valid.jsonl` for KTO.

The files in `orpo_mlx/demo` come from seed 0 and 1400 steps. Measured then, on one CPU core with
OpenBLAS in place of the BLAS that comes with mlx: 7.8 minutes, 67,200 documents, final loss 0.39
nats per token (mean of the last 50 steps). The same seed gives the same pairs and tokenizer
everywhere, and the same weights on the same machine and BLAS.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from corpus import Message, Row, documents, make_pairs
from jinja2 import Template
from mlx_lm.models.llama import Model, ModelArgs
from mlx_lm.utils import quantize_model, save_config, save_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

BOS, PAD, END = "<|begin|>", "<|pad|>", "<|end|>"
SPECIAL_TOKENS = (PAD, BOS, END, "<|system|>", "<|user|>", "<|assistant|>")
VOCAB_SIZE = 1024
BATCH_SIZE = 48
PEAK_LEARNING_RATE = 4e-3

# No white space between the turns: every token of a turn is either a mark or the turn's text, so
# the rendered prompt is always an exact token prefix of the rendered conversation.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

MODEL_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "vocab_size": VOCAB_SIZE,
    "pad_token_id": SPECIAL_TOKENS.index(PAD),
    "bos_token_id": SPECIAL_TOKENS.index(BOS),
    "eos_token_id": SPECIAL_TOKENS.index(END),
}
BITS, GROUP_SIZE = 4, 32


# --- tokenizer ------------------------------------------------------------------------------------


def rendered(document: list[Message] | str) -> str:
    """A document as the model reads it: begin mark, turns or running text, end mark."""
    if isinstance(document, str):
        return BOS + document + END
    return Template(CHAT_TEMPLATE).render(messages=document, bos_token=BOS, eos_token=END)


def train_tokenizer(seed: int, documents_read: int = 10_000) -> Tokenizer:
    """A byte-level BPE of `VOCAB_SIZE` tokens, trained on the start of the pre-training text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (_plain(document) for document in islice(documents(seed), documents_read))
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _plain(document: list[Message] | str) -> str:
    if isinstance(document, str):
        return document
    return "\n".join(message["content"] for message in document)


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja for AutoTokenizer."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": END,
        "pad_token": PAD,
        "additional_special_tokens": list(SPECIAL_TOKENS[3:]),
        "model_max_length": MODEL_CONFIG["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
    }
    _write_json(folder / "tokenizer_config.json", config)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


# --- pre-training ---------------------------------------------------------------------------------


def batches(tokenizer: Tokenizer, seed: int) -> Iterator[mx.array]:
    """Endless pre-training batches: [BATCH_SIZE, T] token ids, padded on the right.

    Four batches at a time are sorted by length, which saves a fifth of the padding.
    """
    stream = documents(seed)
    while True:
        texts = [rendered(document) for document in islice(stream, 4 * BATCH_SIZE)]
        rows = sorted((encoding.ids for encoding in tokenizer.encode_batch(texts)), key=len)
        for start in range(0, len(rows), BATCH_SIZE):
            yield _padded(rows[start : start + BATCH_SIZE])


def _padded(rows: list[list[int]]) -> mx.array:
    width = max(map(len, rows))
    tokens = np.full((len(rows), width), MODEL_CONFIG["pad_token_id"], dtype=np.int32)
    for position, row in enumerate(rows):
        tokens[position, : len(row)] = row
    return mx.array(tokens)


def mean_nll(model: nn.Module, tokens: mx.array) -> mx.array:
    """Mean nats per token over all tokens of the batch but padding; `tokens` is [B, T]."""
    targets = tokens[:, 1:]
    mask = targets != MODEL_CONFIG["pad_token_id"]
    losses = nn.losses.cross_entropy(model(tokens[:, :-1]), targets)
    return (losses * mask).sum() / mask.sum()


def build_model(seed: int) -> Model:
    """The float32 model with fresh weights."""
    mx.random.seed(seed)
    model = Model(ModelArgs.from_dict(MODEL_CONFIG))
    # Tied embeddings start at 1 / sqrt(width), which makes the first logits far too sure.
    model.model.embed_tokens.weight = model.model.embed_tokens.weight * 0.25
    mx.eval(model.parameters())
    return model


def pretrain(
    model: nn.Module,
    stream: Iterator[mx.array],
    steps: int,
    log: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train the model in place with AdamW and a cosine schedule; returns the loss of each step."""
    warmup = max(1, min(100, steps // 10))
    schedule = optim.join_schedules(
        [
            optim.linear_schedule(0.0, PEAK_LEARNING_RATE, warmup),
            optim.cosine_decay(PEAK_LEARNING_RATE, max(1, steps - warmup)),
        ],
        [warmup],
    )
    optimizer = optim.AdamW(schedule, betas=[0.9, 0.98], weight_decay=0.05, bias_correction=True)
    state = [model.state, optimizer.state]
    loss_and_grad = nn.value_and_grad(model, mean_nll)

    def step(tokens: mx.array) -> mx.array:
        loss, grads = loss_and_grad(model, tokens)
        grads, _ = optim.clip_grad_norm(grads, 1.0)
        optimizer.update(model, grads)
        return loss

    losses = []
    for number, tokens in enumerate(islice(stream, steps), start=1):
        loss = step(tokens)
        mx.eval(state, loss)
        losses.append(loss.item())
        if log is not None:
            log(number, losses[-1])
    return losses


def save_quantized(model: nn.Module, folder: Path) -> None:
    """Quantize the model to 4 bits and write weights, config.json and generation_config.json."""
    model, config = quantize_model(model, dict(MODEL_CONFIG), GROUP_SIZE, BITS)
    save_model(folder, model)
    save_config(config, folder / "config.json")
    token_ids = {key: value for key, value in MODEL_CONFIG.items() if key.endswith("_token_id")}
    _write_json(folder / "generation_config.json", token_ids)


# --- all of it ------------------------------------------------------------------------------------


def make_model(folder: Path, seed: int, steps: int) -> float:
    """Make tokenizer and model in `folder`; returns the mean loss of the last 50 steps, in nats."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(seed)
    save_tokenizer(tokenizer, folder)
    model = build_model(seed)
    losses = pretrain(model, batches(tokenizer, seed + 1), steps, _log_every(100))
    save_quantized(model, folder)
    return float(np.mean(losses[-50:]))


def write_pairs(folder: Path, seed: int) -> None:
    """Write train.jsonl and valid.jsonl, and one labelled answer of each pair beside them."""
    for name, rows in zip(("train.jsonl", "valid.jsonl"), make_pairs(seed), strict=True):
        (folder / name).write_text(_json_lines(rows), encoding="utf-8")
        (folder / f"labelled_{name}").write_text(_json_lines(labelled(rows)), encoding="utf-8")


def labelled(rows: list[Row]) -> list[dict[str, Any]]:
    """Return one answer of each pair with its label, good and bad by turns."""
    return [
        {
            "prompt": row["prompt"],
            "completion": row["rejected" if number % 2 else "chosen"],
            "label": number % 2 == 0,
        }
        for number, row in enumerate(rows)
    ]


def _json_lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _log_every(interval: int) -> Callable[[int, float], None]:
    def log(step: int, loss: float) -> None:
        if step == 1 or step % interval == 0:
            sys.stdout.write(f"step {step:5d}  loss {loss:.4f}\n")
            sys.stdout.flush()

    return log


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make the embedded demo from nothing.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same demo")
    parser.add_argument("--steps", type=int, default=1400, help="pre-training steps")
    args = parser.parse_args()
    start = time.monotonic()
    loss = make_model(args.out / "model", args.seed, args.steps)
    write_pairs(args.out, args.seed)
    minutes = (time.monotonic() - start) / 60
    sys.stdout.write(f"{args.steps} steps, {minutes:.1f} minutes, final loss {loss:.4f}\n")


if __name__ == "__main__":
    main()

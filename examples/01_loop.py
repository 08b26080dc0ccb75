"""ORPO with nothing around it: one file, read it from top to bottom.

    python examples/01_loop.py            # the built-in demo model and pairs, a few seconds

ORPO teaches a model to prefer one answer to another in a single pass: ordinary fine-tuning on the
chosen answers (NLL), plus a term that rewards higher odds for the chosen than for the rejected one.
There is no reference model. Paper: Hong et al. 2024, https://arxiv.org/abs/2403.07691.

Shapes: B pairs in a batch, T tokens per padded row, V vocabulary. `orpo_mlx/train.py` is what you
run in earnest; a test holds both to the same losses, so this file stays true.
"""

import argparse
import json
import math
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load_model, load_tokenizer

from orpo_mlx import demo

BATCH = 8  # pairs per step

parser = argparse.ArgumentParser(description="ORPO in one file.")
parser.add_argument("--model", type=Path, default=demo.model_path(), help="an mlx-lm model folder")
parser.add_argument("--data", type=Path, default=demo.train_path(), help="JSONL pairs of messages")
parser.add_argument("--steps", type=int, default=5)
parser.add_argument("--lam", type=float, default=0.5, help="weight of the odds-ratio term")
parser.add_argument("--learning-rate", type=float, default=2e-3)
args = parser.parse_args()

# --- the model: everything frozen, and a small trainable adapter beside each linear layer

model, config = load_model(args.model)
tokenizer = load_tokenizer(args.model, eos_token_ids=config.get("eos_token_id"))
model.freeze()
mx.random.seed(0)  # lora_a starts random; lora_b starts at 0, so at first nothing has changed
linear_to_lora_layers(model, -1, {"rank": 8, "scale": 2.0, "dropout": 0.0})  # -1 = all blocks
mx.eval(model.parameters())
model.train()

# --- the data: token ids of the prompt and of both answers


def encode(messages: list[dict[str, str]], add_generation_prompt: bool) -> list[int]:
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=add_generation_prompt
    )
    # The template has written the special tokens already; a second BOS would be a new situation.
    return tokenizer.encode(text, add_special_tokens=False)


def tokenize(row: dict) -> tuple[list[int], list[int], list[int]]:
    """Return the ids of (prompt, chosen, rejected); what a template adds after an answer stays."""
    prompt = encode(row["prompt"], add_generation_prompt=True)
    answers = []
    for name in ("chosen", "rejected"):
        whole = encode(row["prompt"] + row[name], add_generation_prompt=False)
        # Cutting at a length is only right if the prompt reads the same in both renderings.
        assert whole[: len(prompt)] == prompt, "this template changes the prompt"
        answers.append(whole[len(prompt) :])
    return prompt, answers[0], answers[1]


def build_batch(pairs: list) -> tuple[mx.array, mx.array]:
    """Return ids [2B, T] and the mask [2B, T] of answer tokens. Chosen rows first.

    Padding stands on the right: attention looks only to the left, so no real token ever sees it.
    """
    rows = [(p, chosen) for p, chosen, _ in pairs] + [(p, rejected) for p, _, rejected in pairs]
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = np.zeros((len(rows), width), np.int32)
    is_answer: np.ndarray = np.zeros(ids.shape, np.bool_)
    for i, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        ids[i, :end] = prompt + answer
        is_answer[i, len(prompt) : end] = True
    return mx.array(ids), mx.array(is_answer)


lines = args.data.read_text(encoding="utf-8").splitlines()
pairs = [tokenize(json.loads(line)) for line in lines if line.strip()]

# --- the loss


def log1mexp(x: mx.array) -> mx.array:
    """log(1 - exp(x)) for x < 0: near 0 one form keeps its digits, far from 0 the other.

    MLX differentiates both sides of a `where` and 0 * inf is NaN, so each side gets a safe input.
    """
    is_near = x > -math.log(2)
    near, far = mx.where(is_near, x, -1.0), mx.where(is_near, -1.0, x)
    return mx.where(is_near, mx.log(-mx.expm1(near)), mx.log1p(-mx.exp(far)))


def log_odds(logp: mx.array) -> mx.array:
    """log(p / (1 - p)) from log p; at p = 1 the odds are infinite, so stop just below."""
    logp = mx.where(logp > -1e-10, -1e-10, logp)
    return logp - log1mexp(logp)


def orpo_loss(model: nn.Module, ids: mx.array, is_answer: mx.array) -> mx.array:
    """Return the loss of one batch, in nats."""
    # The one-token shift: position t predicts token t + 1. Masks move together with the targets.
    logits = model(ids[:, :-1]).astype(mx.float32)  # [2B, T-1, V]; half precision loses digits
    targets, is_answer = ids[:, 1:], is_answer[:, 1:]
    logps = -nn.losses.cross_entropy(logits, targets)  # [2B, T-1] log-prob of each token

    # Fine-tuning: mean over all answer tokens of the chosen rows, as in the paper.
    half = ids.shape[0] // 2
    nll = -mx.where(is_answer, logps, 0)[:half].sum() / is_answer[:half].sum()

    # Preference: a *mean* per answer, so that a long answer is not less likely for its length.
    mean_logps = mx.where(is_answer, logps, 0).sum(axis=1) / is_answer.sum(axis=1)  # [2B]
    log_odds_ratio = log_odds(mean_logps[:half]) - log_odds(mean_logps[half:])  # [B]
    return nll + args.lam * -nn.log_sigmoid(log_odds_ratio).mean()


# --- the training

# MLX leaves Adam's bias correction off unless asked: the first step would be 3 times too large.
optimizer = optimizers.AdamW(args.learning_rate, weight_decay=0.0, bias_correction=True)
loss_and_grad = nn.value_and_grad(model, orpo_loss)  # of what is not frozen: the adapter

for step in range(1, args.steps + 1):
    first = (step - 1) * BATCH % len(pairs)
    loss, grads = loss_and_grad(model, *build_batch(pairs[first : first + BATCH]))
    optimizer.update(model, grads)
    # MLX is lazy: here the step is really computed, forward, backward and update at once.
    mx.eval(model.trainable_parameters(), optimizer.state, loss)
    print(f"step {step}  loss {loss.item():.6f}")

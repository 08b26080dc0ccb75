"""Settings of the steps: their rate, their size, and how they are computed."""

from __future__ import annotations

from functools import partial
from typing import Literal

from orpo_mlx.config.declaration import declare
from orpo_mlx.config.values import SettingsGroup

setting = partial(declare, "optimisation")

CANNOT_RECOMPUTE = ("shared", "fork")
"""Ways of scoring whose caches hold arrays of a layer: a layer that is computed again in the
backward pass would write into a cache its first computation already changed, and gradients would go
wrong. Said here for what is checked before MLX is loaded; a class of each way says it, too."""
CANNOT_KEEP = ("fork",)
"""Ways whose blocks cannot be cut, so that there is no trunk cache; said likewise."""

_LARGE_STEPS = "larger steps are steadier, and fewer"


class OptimisationSettings(SettingsGroup):
    """How the adapter is changed, and what a step costs."""

    optimizer: Literal["adamw", "lion", "sgd"] = setting(
        "adamw",
        "How gradients become steps; adamw has bias correction.",
        memory="lion and sgd keep 1 number for each of the adapter, adamw 2",
        quality="lion wants a lower learning rate than adamw, sgd a much higher one",
        usual="adamw",
    )
    learning_rate: float = setting(
        5e-5,
        "Highest learning rate. Not set: 5e-5 for orpo, 1e-4 for sft and reward, 1e-5 for the "
        "other objectives.",
        quality="higher learns faster until the loss turns unstable",
        usual="1e-5 to 2e-4 for adapters; the paper, without adapters, took 8e-6",
        gt=1e-12,
        le=10,
    )
    schedule: Literal["cosine", "linear", "constant"] = setting(
        "cosine",
        "Course of the learning rate after the warm-up.",
        quality="falling rates let the last steps settle; constant goes on as fast",
        usual="cosine or linear",
    )
    warmup: float = setting(
        0.05,
        "Linear warm-up: below 1 a share of all steps, else a number of steps; 0 = none.",
        unit="share or steps",
        quality="higher begins more calmly and leaves fewer steps at the full rate",
        usual="0.03 to 0.1",
        ge=0,
    )
    final_lr_fraction: float = setting(
        0.1,
        "Share of the learning rate left at the last step (cosine, linear).",
        quality="higher still learns in the last steps, 0 lets them settle",
        usual="0 to 0.1",
        ge=0,
        le=1,
    )
    weight_decay: float = setting(
        0.0,
        "Pull of the adapter's weights towards 0 at each step; 0 = none.",
        quality="higher learns less by heart, and less at all",
        usual="0 to 0.1",
        ge=0,
        lt=1,
    )
    max_grad_norm: float = setting(
        1.0,
        "Clip the gradient's global norm to this; 0 = off.",
        quality="lower tames outliers, and slows learning once it clips most steps",
        usual="1",
        ge=0,
    )
    epochs: float = setting(
        1.0,
        "Passes over the training pairs; 0.5 = half of them.",
        unit="epochs",
        speed="twice as many take twice as long",
        quality="higher learns more, in the end by heart; evaluate to see when",
        usual="1 to 3",
        gt=0,
        le=10_000,
    )
    steps: int | None = setting(
        None,
        "Number of optimizer steps, instead of epochs.",
        speed="twice as many take twice as long",
        quality="higher learns more, in the end by heart; evaluate to see when",
        ge=1,
        le=1_000_000_000,
    )
    batching: Literal["tokens", "fixed"] = setting(
        "tokens",
        "Division of a step into forward passes: by tokens, pairs of like length together, or by a "
        "fixed number of pairs. The gradient is the same.",
        memory="'tokens' is bounded by tokens_per_batch, 'fixed' by the longest pairs",
        speed="'tokens' pads less",
        usual="tokens",
    )
    tokens_per_batch: int = setting(
        4096,
        "Most tokens in a forward pass (batching tokens); a longer pair goes alone.",
        unit="tokens",
        memory="higher needs more",
        speed="higher is faster, until the GPU is busy",
        ge=1,
        le=1 << 17,
    )
    micro_batch_size: int = setting(
        4,
        "Pairs per forward pass (batching fixed); times grad_accumulation_steps: pairs in a step.",
        unit="pairs",
        memory="higher needs more, most so with batching fixed",
        speed="higher takes rather less time for an epoch",
        quality=_LARGE_STEPS,
        usual="8 to 64 pairs in a step",
        ge=1,
        le=1024,
    )
    grad_accumulation_steps: int = setting(
        1,
        "Micro-batches per optimizer step; the gradient is that of the whole step.",
        speed="higher takes longer for a step, as long for an epoch",
        quality=_LARGE_STEPS,
        usual="8 to 64 pairs in a step",
        ge=1,
        le=1 << 14,
    )
    micro_batch_parts: int = setting(
        1,
        "Divide each forward pass of a step into N, as a resumed run may. The gradient is the same "
        "up to rounding; dropout draws other masks.",
        unit="parts",
        memory="higher needs less; the estimate does not count on it",
        speed="higher is slower, in shorter pieces",
        usual="1; 2 after a GPU timeout",
        ge=1,
        le=1024,
        may_change=True,
    )
    scoring: Literal["auto", "packed", "causal", "shared", "fork", "plain"] = setting(
        "auto",
        "How pairs are computed: packed = prompts once, no padding; causal = the same without mask "
        "arrays, for long rows; shared and fork = prompts once; plain = both rows in full. auto = "
        "the first that gives the model's own gradient.",
        memory="packed needs least; plain holds the logits of all tokens",
        speed="packed is fastest, plain slowest, most so with long prompts",
        usual="auto",
    )
    grad_checkpoint: Literal["auto", "off", "on"] = setting(
        "auto",
        "Recompute activations of adapted blocks in the backward pass: on, off, or auto = of as "
        "few blocks as the memory asks for, often none.",
        memory="'on' needs much less",
        speed="'on' takes about a third longer",
        usual="auto",
    )
    grad_checkpoint_every: int = setting(
        1,
        "With grad_checkpoint on: recompute one of every N blocks from the first adapted one up.",
        unit="blocks",
        memory="higher needs more",
        speed="higher is faster",
        ge=1,
    )
    float32: Literal["exact", "fast"] = setting(
        "exact",
        "Products of float32 numbers: exact, or fast = a GPU with matrix units (Apple's from the "
        "M5 on) may round their factors to 10 bits (TF32); elsewhere both are the same.",
        speed="'fast' is faster there, with a model or adapter in float32",
        quality="'fast' gives each product a relative error of about 5e-4",
        usual="exact",
    )
    compile: Literal["auto", "on", "off"] = setting(
        "auto",
        "Compile the training step (mx.compile). auto = if a few steps, tried both ways before a "
        "long run, show that it takes 5 % less time so; a CPU needs g++ for it.",
        memory="on, batches are filled up to a few shapes, which needs some more",
        speed="on, the first step of each shape takes longer",
        usual="auto",
    )
    command_buffers: Literal["auto", "short"] = setting(
        "auto",
        "How much work MLX hands to a Mac's GPU at a time: auto = MLX's own limits, short = about "
        "a tenth.",
        memory="'short' frees arrays of a step sooner",
        speed="'short' costs some",
        usual="auto; short after a GPU timeout",
        may_change=True,
    )
    trunk_cache: Literal["off", "memory", "disk"] = setting(
        "off",
        "Keep what the blocks below the first adapted one make of each pair, and compute it once "
        "instead of in every epoch.",
        memory="'memory' holds hidden states of all pairs",
        speed="faster from the second epoch on, the more so the fewer blocks are adapted",
        disk="'disk' holds them there",
    )
    trunk_cache_size: float = setting(
        8.0,
        "Most the trunk cache may take; what does not fit is computed each time.",
        unit="GB",
        memory="higher may need more, with trunk_cache memory",
        speed="higher keeps more pairs",
        disk="higher may need more, with trunk_cache disk",
        gt=0,
        le=100_000,
        may_change=True,
    )
    trunk_cache_dir: str | None = setting(
        None,
        "Folder of the trunk cache on disk, kept for other runs; not set: the run's own, deleted "
        "when the run is finished.",
        speed="the next run on the same pairs and model need not fill it",
        disk="stays until you delete it",
        may_change=True,
    )

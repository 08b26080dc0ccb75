"""Settings of the adapter that is trained."""

from __future__ import annotations

from functools import partial

from orpo_mlx.config.declaration import declare
from orpo_mlx.config.values import NameList, SettingsGroup

setting = partial(declare, "adapter")

OF_THE_ADAPTER = (
    "rank", "scale", "alpha", "rslora", "dora", "dropout", "target_modules", "num_layers",
)  # fmt: skip
"""Settings that an --init-adapter brings with it."""


class AdapterSettings(SettingsGroup):
    """How large the adapter is, and where it sits."""

    rank: int = setting(
        8,
        "Rank of the adapter matrices.",
        memory="higher needs a little more, 20 bytes a parameter of the adapter with adamw",
        speed="higher is a little slower",
        quality="higher can learn more, also by heart",
        disk="checkpoints and adapter grow with it",
        usual="8 to 64",
        ge=1,
        le=4096,
    )
    scale: float | None = setting(
        None,
        "Factor on the adapter's output, as mlx-lm means it; give scale or alpha "
        "(neither: scale 2).",
        quality="higher learns faster, as a higher learning rate does, until it is unstable",
        usual="1 to 2; mlx-lm's own default is 20",
        gt=0,
        le=1e6,  # what adapter files are read with
    )
    alpha: float | None = setting(
        None,
        "The scale as PEFT writes it: scale = alpha / rank (alpha / sqrt(rank) with rslora).",
        quality="higher learns faster, as a higher learning rate does, until it is unstable",
        usual="rank to twice the rank",
        gt=0,
        le=1e6,
    )
    rslora: bool = setting(
        False,
        "Rank-stabilised LoRA: alpha is divided by sqrt(rank).",
        quality="on, a high rank keeps its strength; the same alpha then means a larger scale",
    )
    dora: bool = setting(
        False,
        "Weight-decomposed LoRA (DoRA): also learns a magnitude per row.",
        memory="on, it needs 8 bytes more for each weight of an adapted layer",
        speed="on is slower",
        quality="on can learn more with a low rank",
    )
    dropout: float = setting(
        0.0,
        "Share of the adapter's inputs set to 0 while training, against overfitting.",
        memory="above 0 keeps masked inputs: 5 bytes more for each",
        quality="higher learns less by heart, and more slowly",
        usual="0 to 0.1",
        ge=0,
        lt=1,
    )
    target_modules: NameList = setting(
        ["all"],
        "Layers that get an adapter: 'all' linear layers, or names such as q_proj,v_proj.",
        memory="fewer layers need less",
        speed="fewer layers are a little faster",
        quality="'all' learns most",
        usual="all",
    )
    num_layers: int = setting(
        16,
        "Adapt the last N blocks; -1 = all.",
        unit="blocks",
        memory="higher needs more: each block keeps its activations",
        speed="higher is slower: gradients pass through more blocks",
        quality="higher learns more",
        usual="16, or -1 where there is room",
        ge=-1,
    )
    init_adapter: str | None = setting(
        None,
        "Start from this adapter folder instead of a fresh adapter.",
        memory="its rank and layers count, not the settings'",
        quality="goes on from what that adapter learned",
    )

"""Settings of the model and of how it writes a chat."""

from __future__ import annotations

from functools import partial
from typing import Literal

from orpo_mlx.config.declaration import declare
from orpo_mlx.config.values import SettingsGroup

setting = partial(declare, "model")


class ModelSettings(SettingsGroup):
    """Which model is trained."""

    model: str | None = setting(
        None,
        "Model folder, or Hub id such as mlx-community/Qwen3-0.6B-4bit.",
        memory="weights take about 0.6 bytes a parameter in 4 bits, 2 in 16",
        speed="a larger model is slower in proportion",
        quality="an adapter steers what the model knows, it adds little to it",
    )
    revision: str | None = setting(
        None,
        "Branch, tag or commit of a Hub model; not set: main.",
        quality="another revision may hold other weights or another template",
    )
    chat_template: str | None = setting(
        None,
        "Template for a model that has none, or to replace its own: 'chatml' or a Jinja file.",
        quality="what is learned shows only where the model is asked in the same template",
    )
    thinking: Literal["auto", "on", "off"] = setting(
        "auto",
        "Where answers begin for models that can think first: after an empty thought (off), where "
        "a thought may come (on), or on only for pairs that hold <think> blocks (auto).",
        quality="trained otherwise than it is asked later, the model learns less of use",
    )
    escape_special: bool = setting(
        False,
        "Learn control tokens inside texts, such as <|im_end|>, as the characters they are "
        "written with instead of as ends of turns.",
        memory="a few more tokens for each of them",
        quality="on, texts about chat templates cannot end a turn",
    )

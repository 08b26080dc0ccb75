"""Settings of the pairs: where they are, how they are read, which are held out."""

from __future__ import annotations

from functools import partial
from typing import Literal

from orpo_mlx.config.declaration import declare
from orpo_mlx.config.values import NameMap, SettingsGroup

setting = partial(declare, "data")

_OTHER_PAIRS = "another one holds other pairs"


class DataSettings(SettingsGroup):
    """Which pairs are learned from, and which only judge."""

    data: str | None = setting(
        None,
        "Preference pairs: a file (.jsonl, .json, .csv, .parquet, also .gz), a folder, a Hub "
        "dataset such as argilla/dpo-mix-7k, or several with shares: a.jsonl:2,b.jsonl:1.",
        memory="long pairs need more; their number hardly counts",
        speed="more and longer pairs take longer",
        quality="decides what is learned, more than any other setting",
    )
    data_split: str | None = setting(
        None,
        "Split of a folder or Hub dataset, such as train_prefs; not set: the one for training.",
        quality=_OTHER_PAIRS,
    )
    data_subset: str | None = setting(
        None,
        "Subset (configuration) of a folder or Hub dataset that has several.",
        quality=_OTHER_PAIRS,
    )
    data_revision: str | None = setting(
        None,
        "Branch, tag or commit of a Hub dataset; not set: main. A run keeps the commit it began "
        "with.",
        quality=_OTHER_PAIRS,
    )
    layout: str | None = setting(
        None,
        "Layout of the rows by its name, such as explicit-chat, single-turn or plain-text; not "
        "set: told by the columns.",
        quality="a wrong one trains on the wrong texts; look at the pairs first",
    )
    map: NameMap = setting(
        None,
        "What the columns are: prompt=question chosen=good rejected=messages.1.content; a path "
        "leads into lists and objects.",
        quality="with chosen and rejected exchanged, the worse answers are learned",
    )
    keep_ties: bool = setting(
        False,
        "Keep rows whose chosen and rejected have the same score.",
        speed="more pairs take longer",
        quality="on, it also learns from preferences that nobody stated",
    )
    keep_inverted: bool = setting(
        False,
        "Keep rows whose chosen side has the lower score.",
        speed="more pairs take longer",
        quality="on, it learns the worse answers where the scores are right",
    )
    keep_duplicates: bool = setting(
        False,
        "Keep rows that are equal to an earlier row.",
        speed="more pairs take longer",
        quality="on, repeated rows weigh more and are sooner learned by heart",
    )
    valid_data: str | None = setting(
        None,
        "Validation pairs from their own file, folder or Hub dataset instead of a split.",
        speed="evaluations take time, see eval_pairs",
        quality="shows whether it learns or only learns by heart; no pair is lost to training",
    )
    valid_fraction: float = setting(
        0.05,
        "Share of the pairs held out for validation, drawn by seed; 0 = none.",
        speed="evaluations take time, see eval_pairs",
        quality="higher judges more surely and leaves fewer pairs to learn from",
        usual="0.02 to 0.1",
        ge=0,
        lt=1,
    )
    order: Literal["shuffled", "file"] = setting(
        "shuffled",
        "Order of the pairs: a new seeded order each epoch, or as in the file.",
        quality="'file' steps through sorted data one kind after the other",
    )
    max_seq_length: int = setting(
        1024,
        "Longest prompt + response; longer prompts lose their oldest tokens, "
        "pairs whose response alone is longer are dropped.",
        unit="tokens",
        memory="higher needs more, where pairs are that long",
        speed="higher is slower, where pairs are that long",
        quality="higher cuts and drops less",
        usual="512 to 2048; the paper took 2048",
        ge=8,
        le=1 << 20,
    )
    seed: int = setting(
        0,
        "Seed of the order, the split, the adapter's start and dropout.",
        quality="none is better; how far two results differ is what chance does",
        ge=0,
        lt=2**31,
    )

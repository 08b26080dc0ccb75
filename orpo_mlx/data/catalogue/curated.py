"""Preference datasets that are widely used and read here as they are.

Rows and licences are those of the datasets' cards; where a licence is None, read the card. What
they teach and suggest is our own reading of the same cards and of their known faults.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CuratedDataset:
    """A Hub dataset worth starting with.

    Attributes:
        rows: pairs in its training split.
        size: what kind of text, for how long it trains.
        teaches: what a model learns from it, and what to know before.
        settings: flags that suit it.
    """

    id: str
    rows: int
    size: str
    licence: str | None
    teaches: str
    settings: str = ""


CURATED = (
    CuratedDataset(
        "mlabonne/orpo-dpo-mix-40k",
        44_245,
        "single and multi-turn",
        "apache-2.0",
        "general answers; seven sets mixed for ORPO, 541 rows (toxic-dpo) harmful on purpose",
        "--max-seq-length 2048",
    ),
    CuratedDataset(
        "argilla/ultrafeedback-binarized-preferences-cleaned",
        60_917,
        "single turn",
        None,
        "general helpfulness, rated by GPT-4; without ties and without TruthfulQA's questions",
        "--max-seq-length 2048",
    ),
    CuratedDataset(
        "HuggingFaceH4/ultrafeedback_binarized",
        61_135,
        "single turn",
        "mit",
        "general helpfulness, rated by GPT-4; has its own test split, and some ties",
        "--data-split train_prefs --max-seq-length 2048",
    ),
    CuratedDataset(
        "argilla/dpo-mix-7k",
        6_750,
        "single and multi-turn",
        None,
        "general answers; small and filtered for high ratings: a good first run",
        "--max-seq-length 2048",
    ),
    CuratedDataset(
        "argilla/distilabel-capybara-dpo-7k-binarized",
        7_563,
        "multi-turn, long",
        None,
        "to keep up the quality of answers through a conversation",
        "--max-seq-length 4096",
    ),
    CuratedDataset(
        "Intel/orca_dpo_pairs",
        12_859,
        "single turn with system texts",
        None,
        "reasoning and following instructions; the stronger model's answer counts as better, "
        "whichever it is",
        "--max-seq-length 1024",
    ),
    CuratedDataset(
        "jondurbin/truthy-dpo-v0.1",
        1_016,
        "single turn, short",
        None,
        "to answer truthfully, also about being a model; small",
        "--epochs 2",
    ),
    CuratedDataset(
        "Anthropic/hh-rlhf",
        160_800,
        "dialogues as text",
        "mit",
        "helpful and harmless dialogue, judged by people; noisy, and some of it offensive",
        "--data-subset helpful-base --max-seq-length 1024",
    ),
    CuratedDataset(
        "nvidia/HelpSteer2",
        9_125,
        "single and multi-turn",
        "cc-by-4.0",
        "helpfulness, judged by people with a strength; ties are dropped",
        "--data-subset preference --max-seq-length 2048",
    ),
)


def find_curated(text: str) -> list[CuratedDataset]:
    """Return the datasets that mention every word of a text; all of them for ""."""
    words = text.casefold().split()
    return [
        entry
        for entry in CURATED
        if all(
            word in f"{entry.id} {entry.size} {entry.licence} {entry.teaches}".casefold()
            for word in words
        )
    ]

"""How fast, and in how much memory, a dataset of UltraFeedback's size is read and tokenized.

    python benchmarks/data_scale.py --rows 60000 --folder /tmp/data-scale

makes a file of 60,000 pairs (some 280 MB; chosen and rejected as conversations of a prompt of 700
and answers of 1,300 characters on average, lengths spread as in real data, some of it not ASCII)
and a tokenizer of 16,000 tokens, both from a seed, and measures each stage in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FOREIGN = ["naïve", "“quoted”", "Zürich", "—", "日本語", "déjà", "π≈3.14", "🙂"]
STAGES = ("read", "tokenize", "check")


class Writer:
    """Text of real words, drawn by seed as often as words of their rank are."""

    def __init__(self, seed: int) -> None:
        from pydoc_data.topics import topics

        words = re.findall(r"[\w'().,:*-]+", " ".join(topics.values()))
        self._words = (
            sorted(set(words), key=lambda word: (-words.count(word), word))[:6000] + FOREIGN
        )
        self._weights = [1 / (rank + 3) for rank in range(len(self._words))]
        self._random = random.Random(seed)

    def text(self, average: int) -> str:
        """Return a text; lengths are log-normal around an average in characters."""
        characters = average * math.exp(self._random.gauss(0, 0.8) - 0.32)
        words = self._random.choices(self._words, self._weights, k=max(3, int(characters / 6.7)))
        for at in range(9, len(words), 14):
            words[at] += ".\n\n" if at % 5 == 0 else "."
        return " ".join(words)


def iter_rows(count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield rows in the layout of the cleaned UltraFeedback."""
    writer = Writer(seed)
    for number in range(count):
        prompt = f"{number}. {writer.text(700)}"
        sides = {
            name: [
                {"role": "user", "content": prompt},
                {"role": "assistant", "content": writer.text(1300)},
            ]
            for name in ("chosen", "rejected")
        }
        scores = {"chosen-rating": 4.5, "rejected-rating": 3.0}
        yield {"source": "made", "prompt": prompt, **sides, **scores}


def make(folder: Path, rows: int, kind: str) -> Path:
    """Write data and tokenizer, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"pairs-{rows}.{kind}"
    if not path.exists():
        aside = path.with_suffix(".part")
        if kind == "parquet":
            import pyarrow
            from pyarrow import parquet

            parquet.write_table(pyarrow.Table.from_pylist(list(iter_rows(rows))), aside)
        else:
            with aside.open("w", encoding="utf-8") as stream:
                for row in iter_rows(rows):
                    stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        aside.rename(path)
    if not (folder / "tokenizer").exists():
        _make_tokenizer(folder / "tokenizer")
    return path


def _make_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=16_000,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((row["prompt"] for row in iter_rows(2000, seed=1)), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|im_end|>"
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(str(folder))


def main() -> None:
    """Make what is needed, then run every stage in its own process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--folder", type=Path, default=Path("data-scale"))
    parser.add_argument("--kind", choices=("jsonl", "parquet"), default="jsonl")
    parser.add_argument("--stage", choices=STAGES, action="append")
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    path = make(given.folder, given.rows, given.kind)
    stages = given.stage or STAGES
    if given.inner:
        print(json.dumps(measure(stages[0], path, given.folder)))
        return
    print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB")
    for stage in stages:
        words = ["--rows", str(given.rows), "--folder", str(given.folder), "--kind", given.kind]
        command = [sys.executable, __file__, *words, "--stage", stage, "--inner"]
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        speed = found["rows"] / found["seconds"]
        print(
            f"{stage:<9} {found['rows']:,} rows in {found['seconds']:.1f} s ({speed:,.0f} rows/s), "
            f"{found['cpu_seconds']:.1f} s of CPU, peak {found['peak_mb']:,.0f} MB",
            flush=True,
        )


def measure(stage: str, path: Path, folder: Path) -> dict[str, Any]:
    """Run one stage; return rows, seconds and the peak of this process's memory."""
    from orpo_mlx.data import pipeline
    from orpo_mlx.data.checkup import checkup
    from orpo_mlx.data.sources import source
    from orpo_mlx.data.tokens.encoder import Encoder

    tokenizer: Any = None
    if stage != "read":
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(str(folder / "tokenizer"))
    start, cpu = time.perf_counter(), time.process_time()
    rows = source.read_rows(path)
    if stage == "tokenize":
        pipeline.prepare_rows(rows, tokenizer, 2048)
    elif stage == "check":
        rules = pipeline.Rules(2048)
        parts = pipeline.with_layouts([rows], rules)
        checkup.examine(parts, Encoder(tokenizer), rules, checkup.CheckupPlan(valid_fraction=0.05))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "rows": len(rows),
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mb": peak / (1e6 if sys.platform == "darwin" else 1e3),
    }


if __name__ == "__main__":
    main()

"""Made-up pairs with the lengths of real ones, the same wherever they are made.

Lengths are quantiles of log-normal distributions, not draws from them: four pairs then are neither
long nor short by luck, and every step has all of them.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

_FIRST_WORD = 10
"""Token ids below are often special."""


@dataclass(frozen=True)
class MadeUpPairs:
    """Pairs of one step.

    Attributes:
        name: of the dataset whose lengths they have.
        prompt_tokens, response_tokens: medians.
        spread: sigma of the logarithm of a length.
    """

    name: str
    prompt_tokens: int
    response_tokens: int
    spread: float

    def lengths(self, count: int) -> list[tuple[int, int, int]]:
        """Return tokens of prompt, chosen and rejected answer (its last token included) of each."""
        shares = [NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)]

        def spread_out(median: int) -> list[int]:
            return [max(2, round(median * math.exp(self.spread * share))) for share in shares]

        prompts, answers = spread_out(self.prompt_tokens), spread_out(self.response_tokens)
        # Long prompts have neither the longest answers nor the shortest: moved on by one and two.
        return [
            (prompts[i], answers[(i + 1) % count], answers[(i + 2) % count]) for i in range(count)
        ]

    def write(self, path: Path, count: int, vocab: int, end: int) -> None:
        """Write pairs of random tokens.

        Args:
            path: of the file.
            count: of the pairs.
            vocab: of the model.
            end: the token every answer ends with.
        """
        lines = [json.dumps(row) + "\n" for row in self._rows(count, vocab, end)]
        path.write_text("".join(lines), encoding="utf-8")

    def _rows(self, count: int, vocab: int, end: int) -> Iterator[dict[str, list[int]]]:
        draw = random.Random(self.name)
        # Special tokens stand at the end, too.
        last = max(_FIRST_WORD, int(0.9 * vocab))

        def ids(length: int) -> list[int]:
            return [draw.randint(_FIRST_WORD, last) for _ in range(length)]

        for prompt, chosen, rejected in self.lengths(count):
            yield {
                "prompt_ids": ids(prompt),
                "chosen_ids": [*ids(chosen - 1), end],
                "rejected_ids": [*ids(rejected - 1), end],
            }


UF = MadeUpPairs("uf", 120, 300, 0.25)
RAG = MadeUpPairs("rag", 1000, 80, 0.15)
HH = MadeUpPairs("hh", 150, 60, 0.5)
FOR_PROOFS = MadeUpPairs("proofs", 24, 12, 0.3)

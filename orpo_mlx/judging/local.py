"""A judge in this process: any model that mlx-lm loads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orpo_mlx.errors import ConfigError
from orpo_mlx.generation.batch import Writer
from orpo_mlx.generation.sampling import Sampling
from orpo_mlx.judging.instruction import VERSION, read_verdict
from orpo_mlx.judging.ledger import Says
from orpo_mlx.text.progress import OnProgress

_BATCH = 4


class LocalJudge:
    """A folder or a Hub model, asked greedily; its weights are read with the first question.

    Args:
        model: folder or id.
        max_tokens: of a reply.
        on_progress: told of a download.

    Raises:
        ModelError: it cannot be used.
        ConfigError: it has no chat template.
    """

    def __init__(self, model: str, max_tokens: int, on_progress: OnProgress | None = None) -> None:
        self._writer = Writer(model, on_progress=on_progress)
        if not self._writer.encoder.has_chat_template:
            raise ConfigError(
                f"--judge-model {model}: has no chat template, so it cannot be asked.",
                "Give an instruct model.",
            )
        self._sampling = Sampling(temperature=0.0, max_tokens=max_tokens)
        self.label = model
        self.name = f"model {self._writer.fingerprint[:16]} {max_tokens} {VERSION}"

    def require_ready(self) -> None:
        """Nothing is left to find: what can be wrong with it was, when it was made."""

    def verdicts(self, asked: Sequence[str]) -> Iterator[tuple[Says, str]]:
        """Yield the verdict on each question and the reply it was read from."""
        ids = [
            self._writer.encode([{"role": "user", "content": text}], None, self.label)
            for text in asked
        ]
        for start in range(0, len(ids), _BATCH):
            for one in self._writer.answer(ids[start : start + _BATCH], 1, self._sampling):
                yield read_verdict(one[0]["text"]), one[0]["text"]

"""What a run would be made of, as far as this machine has it: model and data, by content."""

from __future__ import annotations

from collections.abc import Iterator

from orpo_mlx.config import TrainConfig
from orpo_mlx.data.prepare import hash_sources
from orpo_mlx.diagnostics.machine import Fact
from orpo_mlx.models.load import fingerprint, resolve_model

SHOWN = 16
"""Hex digits of a sha256: 64 bits, which two contents do not share by chance."""


def iter_content(config: TrainConfig) -> Iterator[Fact]:
    """Yield the hashes of model and data by which the processes of a run compare them.

    A model or dataset of the Hub that is not here is fetched, as the run would do.

    Raises:
        OrpoError: it is not there, or cannot be used.
    """
    if config.model:
        folder = resolve_model(config.model, config.revision)
        yield _fact("model", fingerprint(folder.path))
    if config.data:
        for name, digest in hash_sources(config).hashes.items():
            yield _fact(name, digest)


def _fact(name: str, digest: str) -> Fact:
    return Fact("content", name, f"sha256 {digest[:SHOWN]}...", "ok")

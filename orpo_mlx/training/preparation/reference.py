"""What an objective compares pairs with: log-probs of a reference, or margins."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import mlx.core as mx
import numpy as np

from orpo_mlx.adapters.folder import load_into
from orpo_mlx.adapters.lora import adapter_switched_off
from orpo_mlx.config import TrainConfig
from orpo_mlx.data.prepare import PreparedData
from orpo_mlx.distributed.peers import Peers
from orpo_mlx.errors import CheckpointError, DataError
from orpo_mlx.models.precision import has_exact_products
from orpo_mlx.objectives.reward import Reward
from orpo_mlx.runs.checkpoints import FoundCheckpoint, versions
from orpo_mlx.scoring.batches import valid_parts
from orpo_mlx.scoring.reference import ReferencedPairs, kept_sums, reference_sums
from orpo_mlx.text.formatting import counted
from orpo_mlx.text.progress import OnProgress
from orpo_mlx.training.preparation.adapted import (
    AdaptedModel,
    copy_adapter,
    digest_of_adapter,
    start_folder,
)
from orpo_mlx.training.preparation.objective import objective
from orpo_mlx.training.preparation.plan import RunPlan


def with_reference(
    config: TrainConfig,
    adapted: AdaptedModel,
    data: PreparedData,
    plan: RunPlan,
    resumed: FoundCheckpoint | None,
    on_progress: OnProgress | None,
    peers: Peers,
) -> tuple[PreparedData, dict[str, str]]:
    """Give each pair the log-probs that the objective compares with, if it does.

    Returns:
        The data, and a digest of the values, which a resumed run must find again.

    Raises:
        CheckpointError: a resumed run would compare with something else.
    """
    if not objective(config).needs_reference or config.objective == Reward.name:
        return data, {}
    pairs = [*data.train, *data.valid]
    model, scoring = adapted.loaded.model, plan.scoring

    def tell(done: int) -> None:
        if on_progress is not None:
            on_progress(done, len(pairs), "log-probs of the reference", "rows")

    def find() -> np.ndarray:
        parts = valid_parts(config, scoring, pairs)
        return reference_sums(model, pairs, parts, scoring, tell, peers)

    with _as_reference(config, adapted, resumed, peers) as start:
        content = [adapted.loaded.fingerprint, start, versions(), str(mx.default_device())]
        content += [scoring.way.name, scoring.nll_scope, scoring.chunk, config.batching]
        content += [config.micro_batch_size, config.tokens_per_batch, has_exact_products()]
        sums = kept_sums(content, pairs, find, peers)
    model.eval()
    digest = hashlib.sha256(sums.tobytes()).hexdigest()
    if resumed and resumed.manifest.get("reference") != digest:
        raise CheckpointError(
            "the run cannot be resumed: the reference's log-probs are not those it began with",
            "Resume it on the machine and with the versions it began with, or start a new run from "
            "this adapter: --init-adapter.",
        )
    count = len(data.train)
    both = [
        ReferencedPairs(part, values)
        for part, values in ((data.train, sums[:count]), (data.valid, sums[count:]))
    ]
    return replace(data, train=both[0], valid=both[1]), {"reference": digest}


def with_margins(config: TrainConfig, data: PreparedData) -> PreparedData:
    """Have the rewards of each pair compared with its margin, or with 0 if margins are not used.

    Raises:
        DataError: some pairs have none.
    """
    parts = []
    for name, pairs in (("data", data.train), ("valid_data", data.valid)):
        margins = np.zeros((len(pairs), 2), np.float32)
        parts.append(ReferencedPairs(pairs, margins))
        if not config.use_margin:
            continue
        without = [pair.source for pair in pairs if pair.margin is None]
        if without:
            given = getattr(config, name) or config.data
            raise DataError(
                f"--use-margin: {len(without)} of {counted(len(pairs), 'pair')} of {given} have no "
                f"margin (first: {without[0]}); each needs a number in a column margin, or in "
                "score_chosen and score_rejected.",
                "Add the column, name it with --map margin=COLUMN, or leave out --use-margin.",
            )
        margins[:, 0] = [pair.margin for pair in pairs]
    return replace(data, train=parts[0], valid=parts[1])


@contextmanager
def _as_reference(
    config: TrainConfig, adapted: AdaptedModel, resumed: FoundCheckpoint | None, peers: Peers
) -> Iterator[str]:
    """Have the model as the reference is; gives what tells it from other ones.

    That is the base, or the adapter that the run began with.
    """
    model, start = adapted.loaded.model, start_folder(config)
    if config.reference == "base" or start is None:
        with adapter_switched_off(model):
            yield "base"
        return
    if resumed:
        load_into(model, start, adapted.loaded.fingerprint, adapted.name)
    copy_adapter(model, peers)
    yield digest_of_adapter(model)
    if resumed:
        load_into(model, resumed.path, adapted.loaded.fingerprint, adapted.name)
    copy_adapter(model, peers)

"""The model in memory with its adapter attached."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from orpo_mlx.adapters.folder import load_into, read_spec
from orpo_mlx.adapters.lora import (
    AdapterSpec,
    adapter_parameters,
    attach_adapter,
    build_adapter_spec,
)
from orpo_mlx.adapters.reward_head import attach_head
from orpo_mlx.config import TrainConfig
from orpo_mlx.data.prepare import PreparedData, template_hash
from orpo_mlx.distributed.peers import Peers
from orpo_mlx.models.load import LoadedModel, ModelFolder, load_model, read_weights
from orpo_mlx.objectives.reward import Reward
from orpo_mlx.planning.fit import likely_way
from orpo_mlx.planning.memory import Savings
from orpo_mlx.runs.checkpoints import FoundCheckpoint
from orpo_mlx.training.identity import content_facts, identity, require_same
from orpo_mlx.training.memory import MemoryNeeds, find_needs


@dataclass(frozen=True)
class AdaptedModel:
    """A model in memory with its adapter attached and everything else frozen.

    Attributes:
        loaded: model, tokenizer and fingerprint.
        name: of the base, for messages.
        spec: of the adapter.
        identity: settings and content that a resumed run must share.
        needs: of memory, by how pairs are scored.
        savings: what is saved on if they are scored as most models can.
    """

    loaded: LoadedModel
    name: str
    spec: AdapterSpec
    identity: dict[str, Any]
    needs: MemoryNeeds
    savings: Savings


def load_adapted(
    config: TrainConfig,
    folder: ModelFolder,
    tokenizer: Any,
    data: PreparedData,
    resumed: FoundCheckpoint | None,
    peers: Peers,
) -> AdaptedModel:
    """Load the model and attach its adapter; everything is checked by names and shapes before the
    weights are read."""
    start = resumed.path if resumed else start_folder(config)
    start = start if peers.is_lead else None  # the others get process 0's
    spec = read_spec(start) if start else None
    mx.reset_peak_memory()  # of whatever this process did before
    loaded = load_model(folder, tokenizer, lazy=True)
    hashes = {**data.hashes, "chat_template": template_hash(tokenizer)}
    own_identity = identity(config, loaded.fingerprint, hashes, data.revisions)
    if resumed is not None:
        require_same(own_identity, resumed.manifest)
    if peers.size > 1:
        peers.agree(content_facts(own_identity, data))
    spec = _shared_spec(spec or build_adapter_spec(config, loaded.model), peers)
    needs = find_needs(config, spec, folder.path, data, resumed)
    savings = needs.require(likely_way(config, needs.train)).savings
    attach_adapter(loaded.model, spec, config.seed)
    if config.objective == Reward.name:
        attach_head(loaded.model, config.seed)
    if start:
        load_into(loaded.model, start, loaded.fingerprint, folder.name)
    read_weights(loaded)
    copy_adapter(loaded.model, peers)
    return AdaptedModel(loaded, folder.name, spec, own_identity, needs, savings)


def _shared_spec(spec: AdapterSpec, peers: Peers) -> AdapterSpec:
    """Return process 0's; who read it from a file keeps its name."""
    fields = peers.share({**asdict(spec), "read_from": None})
    same = {**fields, "target_modules": tuple(fields["target_modules"])}
    return AdapterSpec(**{**same, "read_from": spec.read_from})


def copy_adapter(model: Any, peers: Peers) -> None:
    """Have process 0's adapter, and a reward model's head, in all processes."""
    model.update(peers.copy_arrays(model.trainable_parameters()))


def start_folder(config: TrainConfig) -> Path | None:
    """Return the adapter that a new run begins with, if it does not begin with a new one."""
    return Path(config.init_adapter).expanduser() if config.init_adapter else None


def digest_of_adapter(model: Any) -> str:
    """Return a sha256 of an adapter's names and values."""
    digest = hashlib.sha256()
    for name, array in sorted(adapter_parameters(model).items()):
        digest.update(name.encode())
        digest.update(np.array(array.astype(mx.float32)).tobytes())
    return digest.hexdigest()

"""A run over several processes is the run of one process, up to rounding."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.ports import free_ports

from orpo_mlx.runs.events import EvalCompleted, StepCompleted, read_events

WORKER = Path(__file__).parents[2] / "support/peer_runs.py"

BASE = {
    "steps": 30, "micro_batch_size": 2, "grad_accumulation_steps": 4, "rank": 2, "num_layers": -1,
    "learning_rate": 5e-3, "valid_fraction": 0.25, "report_every": 1, "eval_every": 10,
    "sample_prompts": 0, "evaluate": False, "drift_every": 0, "batching": "fixed",
}  # fmt: skip
CASES = {
    "orpo": {},
    "one-micro-batch": {"grad_accumulation_steps": 1, "steps": 5},
    "three": {"grad_accumulation_steps": 3},
    "dropout": {"dropout": 0.2},
    "tokens": {"batching": "tokens", "micro_batch_parts": 4},
    "recomputed": {"grad_checkpoint": "on", "steps": 5},
    "full": {"nll_scope": "full", "steps": 5},
    "clipped": {"max_grad_norm": 0.01},
    **{way: {"scoring": way, "steps": 5} for way in ("packed", "shared", "fork", "plain")},
    "sft": {"objective": "sft"},
    "dpo": {"objective": "dpo"},
    "kto": {"objective": "kto", "unpair": True},
    "cpo": {"objective": "cpo"},
    "simpo": {"objective": "simpo"},
    "reward": {"objective": "reward"},
    "start-as-reference": {"objective": "dpo", "reference": "start", "dropout": 0.1},
    "ipo": {"objective": "dpo", "dpo_loss": "ipo"},
}  # fmt: skip
QUICK = ("orpo", "dropout", "kto", "dpo", "one-micro-batch")
FEW_STEPS = {"steps": 6, "eval_every": 3}
"""For the quick set, where one case takes all 30."""


def train_all(folder, size):
    """Run all cases with `size` processes; each case's run is FOLDER/NAME-SIZE."""
    port = str(free_ports(size + 1))
    command = [sys.executable, "-P", str(WORKER)]
    processes = [
        subprocess.Popen([*command, str(rank), str(size), port, str(folder)])
        for rank in range(size)
    ]
    try:
        assert [process.wait() for process in processes] == [0] * size
    finally:
        for process in processes:
            process.kill()


def steps_in(run):
    found = [record.event for record in read_events(run / "events.jsonl")]
    return [event for event in found if isinstance(event, StepCompleted)]


def measured(run):
    """Return [N, M] of every metric of every step and evaluation, NaN where there is none."""
    found = [r.event for r in read_events(run / "events.jsonl")]
    rows = [e for e in found if isinstance(e, (StepCompleted, EvalCompleted))]
    names = sorted({name for row in rows for name in row.metrics})
    values = [[row.value(name) for name in names] for row in rows]
    norms = [[row.grad_norm if isinstance(row, StepCompleted) else 0.0] for row in rows]
    return np.concatenate([values, norms], axis=1)


def write_cases(folder, model, data, names, **changes):
    cases = {
        name: {**BASE, "model": str(model), "data": str(data), **CASES[name]} for name in names
    }
    for name in names:
        cases[name] |= changes if name != "orpo" else {}
        if "reference" in CASES[name]:  # the adapter of the run of one process
            cases[name]["init_adapter"] = str(folder / "orpo-1/adapter")
    (folder / "cases.json").write_text(json.dumps(cases))


def assert_all_busy(name, run, size):
    """As many processes compute a step as it has micro-batches; the last of an epoch has fewer."""
    seen, parts = 0, CASES[name].get("micro_batch_parts")
    for event in steps_in(run):
        pairs, seen = event.pairs - seen, event.pairs
        busy = min(size, parts or -(-pairs // BASE["micro_batch_size"]))
        assert sum(map(bool, event.peer_tokens)) == busy, f"{name}, {event}"


def assert_same_run(folder, name, size):
    one, many = (folder / f"{name}-{n}" for n in (1, size))
    first, second = measured(one), measured(many)
    assert_all_busy(name, many, size)
    assert first.shape == second.shape
    assert len(first) > 5
    np.testing.assert_allclose(second, first, rtol=1e-5, atol=2e-6, err_msg=f"{name}, {size}")
    weights = [load_file(run / "adapter/adapters.safetensors") for run in (one, many)]
    for key, array in weights[0].items():
        np.testing.assert_allclose(weights[1][key], array, rtol=1e-3, atol=2e-4, err_msg=name)


def test_two_processes_train_the_run_of_one(model_folder, pairs_file, tmp_path):
    write_cases(tmp_path, model_folder, pairs_file(40), QUICK, **FEW_STEPS)
    train_all(tmp_path, 1)
    train_all(tmp_path, 2)
    for name in QUICK:
        assert_same_run(tmp_path, name, 2)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_any_number_of_processes_trains_the_run_of_one(model_folder, pairs_file, tmp_path):
    write_cases(tmp_path, model_folder, pairs_file(40), CASES)
    for size in (1, 2, 3, 4):
        train_all(tmp_path, size)
    for size in (2, 3, 4):
        for name in CASES:
            assert_same_run(tmp_path, name, size)


def test_the_same_number_of_processes_gives_the_same_bytes(model_folder, pairs_file, tmp_path):
    runs = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        write_cases(folder, model_folder, pairs_file(40), ["orpo"])
        train_all(folder, 3)
        runs.append((folder / "orpo-3/adapter/adapters.safetensors").read_bytes())
    assert runs[0] == runs[1]

"""Damaged adapters, GGUF files, run folders and checkpoints: used, or refused in plain words.

A case is a number, as in `test_data_fuzz`. A checkpoint is damaged and then signed anew, as by
somebody who wants it to be believed.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from test_data_fuzz import attempt, damaged, time_limit

from orpo_mlx.adapters.files import save_adapter
from orpo_mlx.adapters.lora import AdapterSpec, attach_adapter
from orpo_mlx.config import build_config
from orpo_mlx.demo.simulate import Script, simulate
from orpo_mlx.errors import OrpoError
from orpo_mlx.export.formats.gguf_base import BaseGguf
from orpo_mlx.export.source import open_source
from orpo_mlx.models.load import load_model
from orpo_mlx.runs.checkpoints import MANIFEST, find_newest, read_manifest, seal
from orpo_mlx.runs.control import send_request
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import StepCompleted, read_events
from orpo_mlx.runs.listing import list_runs
from orpo_mlx.training.train import resume, train

Files = dict[Path, bytes]
STRANGE = [None, True, -1, 0, 10**30, 1e300, "", "x" * 9000, [], [[]], {}, {"a": {}}, "../x", "\0"]


def contents(folder: Path) -> Files:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def put_back(folder: Path, files: Files) -> None:
    """Make a folder hold these files again and nothing else."""
    shutil.rmtree(folder)
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def strange_json(data: bytes, dice: random.Random) -> bytes:
    """Put a strange value at some place of a JSON document, or of one of its lines."""
    lines = data.splitlines(keepends=True) if data[:1] == b"{" and b"\n{" in data else [data]
    at = dice.randrange(len(lines))
    try:
        whole = json.loads(lines[at])
    except ValueError:
        return damaged(data, dice)
    holder = whole
    while isinstance(holder, dict | list) and holder:
        key: Any = dice.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        if dice.random() < 0.5 or not isinstance(holder[key], dict | list) or not holder[key]:
            holder[key] = dice.choice(STRANGE)
            break
        holder = holder[key]
    lines[at] = json.dumps(whole).encode() + b"\n"
    return b"".join(lines)


def damage_one(path: Path, dice: random.Random) -> None:
    data = path.read_bytes()
    is_json = path.suffix in (".json", ".jsonl")
    path.write_bytes((strange_json if is_json and dice.random() < 0.6 else damaged)(data, dice))


@contextmanager
def named(case: int) -> Iterator[None]:
    """Say which case it was."""
    try:
        with time_limit():
            yield
    except BaseException as error:
        error.add_note(f"case {case}")
        raise


def both_ways(counts: tuple[int, int]) -> Any:
    """Run a test with a few cases always, with many among the slow ones."""
    few, many = counts
    return pytest.mark.parametrize(
        "cases", [range(few), pytest.param(range(few, many), marks=pytest.mark.slow)], ids=str
    )


# Adapters


@both_ways((100, 10_000))
def test_a_damaged_adapter_is_read_as_it_was_or_refused(
    cases: range, model_folder: Path, tmp_path: Path
):
    folder = tmp_path / "adapter"
    loaded, spec = load_model(model_folder), AdapterSpec(rank=2, scale=2.0, num_layers=1)
    attach_adapter(loaded.model, spec, seed=1)
    save_adapter(loaded.model, spec, folder, str(model_folder), loaded.fingerprint)
    files, used = contents(folder), 0
    shapes = {layer.path: layer.a.shape for layer in open_source(str(folder)).layers}

    def use() -> None:
        source = open_source(str(folder), model=str(model_folder))
        found = {layer.path: layer.a.shape for layer in source.layers}
        # Fewer or other layers are an adapter, too; values that are no numbers never are.
        assert found.keys() & shapes.keys() or not found
        assert all(np.isfinite(layer.a).all() for layer in source.layers)

    for case in cases:
        dice = random.Random(case)
        damage_one(dice.choice(list(files)), dice)
        with named(case):
            used += attempt(use)
        put_back(folder, files)
    assert 0 < used < len(cases)


# GGUF


@both_ways((100, 2_000))
def test_a_damaged_gguf_is_read_or_refused(cases: range, tmp_path: Path):
    path, used = tmp_path / "base.gguf", 0
    whole = written_gguf(path)

    def use() -> None:
        file = BaseGguf(path)
        for key in ("general.architecture", "tokenizer.ggml.tokens", "llama.rope.freq_base"):
            file.value(key)
        file.number("llama.block_count")
        for name in file.tensors:
            assert file.rows(name, slice(0, 4)).dtype == np.float32

    for case in cases:
        dice = random.Random(case)
        data = bytearray(damaged(whole, dice) if case % 2 else whole)
        if case % 2 == 0:  # the header, and a length or number in it
            at = dice.randrange(0, min(len(data), 700), 4)
            size = dice.choice([0, 1, 2**31, 2**32, 2**63 - 1, dice.randrange(300)])
            data[at : at + 8] = struct.pack("<Q", size)
        path.write_bytes(data)
        with named(case):
            used += attempt(use)
    assert 0 < used < len(cases)


def written_gguf(path: Path) -> bytes:
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_rope_freq_base(1e4)
    writer.add_token_list(["a", "b", "c"])
    kinds = gguf.GGMLQuantizationType
    for name, kind in (("a", kinds.F32), ("b", kinds.F16), ("c", kinds.Q8_0), ("d", kinds.Q4_0)):
        values = np.arange(8 * 32, dtype=np.float32).reshape(8, 32)
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


# Runs


@both_ways((60, 3_000))
def test_a_damaged_run_is_listed_and_read_as_far_as_it_goes(cases: range, tmp_path: Path):
    from tui.run.state import RunState

    run = simulate(Script(steps=12, speed=0.0), run_dir=str(tmp_path / "runs" / "one"))[0]
    files = contents(run.path)
    kinds = [run.events_file, run.state_file, run.config_file]

    def use() -> None:
        (summary,) = list_runs(tmp_path / "runs")
        assert summary.path == run.path
        run.read_status()
        state = RunState()
        state.apply_all(list(read_events(run.events_file)))
        assert state.step <= 10**12
        run.read_config()

    for case in cases:
        dice = random.Random(case)
        damage_one(dice.choice(kinds), dice)
        with named(case):
            attempt(use)
        put_back(run.path, files)


# Checkpoints


@both_ways((3, 1_000))
@pytest.mark.timeout(7200)
def test_a_checkpoint_that_was_signed_anew_is_resumed_or_refused(
    cases: range, model_folder: Path, pairs_file: Callable[..., Path], tmp_path: Path
):
    run = stopped_run(model_folder, pairs_file(), tmp_path / "run")
    files, went_on = contents(run.path), 0
    newest = find_newest(run.checkpoints_folder).path

    def use() -> None:
        result = resume(run)
        steps = [r.event.step for r in read_events(run.events_file)
                 if isinstance(r.event, StepCompleted)]  # fmt: skip
        assert steps[-1] == result.step

    for case in cases:
        dice = random.Random(case)
        damage_one(dice.choice([p for p in sorted(newest.iterdir()) if p.name != MANIFEST]), dice)
        sign_anew(newest, dice)
        with named(case):
            went_on += allowed_to_fail(use)
        put_back(run.path, files)
    assert went_on < len(cases)


def stopped_run(model: Path, pairs: Path, path: Path) -> RunDirectory:
    own = {"model": str(model), "data": str(pairs), "run_dir": str(path), "steps": 2}
    few = {"sample_prompts": 0, "valid_fraction": 0.0, "evaluate": False, "save_every": 1,
           "num_layers": 1, "rank": 2}  # fmt: skip
    run = RunDirectory(path)
    train(build_config({**own, **few}), report=_StopAfter(1, run))
    assert run.last_status() == "stopped"
    return run


class _StopAfter:
    """Asks the run to stop once it has taken so many steps."""

    def __init__(self, step: int, run: RunDirectory) -> None:
        self.step, self.run = step, run

    def handle(self, event, line=""):
        if isinstance(event, StepCompleted) and event.step == self.step:
            send_request(self.run, "stop")

    def catch_up(self, events): ...

    def progress(self, done, total, label, unit): ...

    def close(self): ...


def sign_anew(checkpoint: Path, dice: random.Random) -> None:
    """Make the manifest believe in the files as they are now; sometimes change it, too."""
    manifest = read_manifest(checkpoint)
    for name in manifest["sha256"]:
        data = (checkpoint / name).read_bytes()
        manifest["sha256"][name] = hashlib.sha256(data).hexdigest()
    if dice.random() < 0.3:
        key = dice.choice([key for key in manifest if key not in ("sha256", "digest")])
        manifest[key] = dice.choice(STRANGE)
    (checkpoint / MANIFEST).write_bytes(seal(manifest))


def allowed_to_fail(work: Callable[[], None]) -> bool:
    """Do something that may be refused, or end as a run does: by an error of ours."""
    try:
        work()
    except OrpoError as error:
        refused = error
    else:
        return True
    finally:
        mx.clear_cache()
    assert refused.message.strip()
    assert refused.what_to_do.strip()
    return False

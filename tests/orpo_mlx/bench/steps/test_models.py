"""Models to measure are made where none is given, of the shape of one that is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orpo_mlx.bench.process import Row
from orpo_mlx.bench.sizes import GPU, SHORT
from orpo_mlx.bench.steps import models
from orpo_mlx.bench.steps.models import iter_models
from orpo_mlx.errors import ModelError
from orpo_mlx.models.load import load_model
from orpo_mlx.models.shape import folder_shape


def made(folder: Path, **changes: Any) -> list[Row]:
    folder.mkdir(exist_ok=True)
    task = {"folder": str(folder), "model": "", "must": False, "shape": SHORT.shape,
            "workloads": SHORT.as_rows(), **changes}  # fmt: skip
    return list(iter_models(task, lambda label: None))


def of_kind(rows: list[Row], kind: str) -> list[Row]:
    return [row for row in rows if row["kind"] == kind]


def test_two_random_models_of_one_shape_can_be_loaded(tmp_path: Path):
    rows = made(tmp_path / "work")
    both = of_kind(rows, "model")
    assert [(row["name"], row["from"]) for row in both] == [
        ("4-bit", "random weights"), ("bfloat16", "random weights")
    ]  # fmt: skip
    packed, whole = (folder_shape(Path(row["path"])) for row in both)
    assert [x.inputs for x in packed.blocks[0]] == [x.inputs for x in whole.blocks[0]]
    assert packed.weight_bytes < 0.4 * whole.weight_bytes
    assert load_model(Path(both[0]["path"])).config["quantization"]["bits"] == 4
    (pairs,) = of_kind(rows, "pairs")
    assert pairs["counts"] == {"hh": 4}
    assert "plain" in pairs["ways"]
    assert len(Path(pairs["files"]["hh"]).read_text().splitlines()) == 4


def test_a_given_model_is_taken_as_it_is_and_the_other_made_like_it(
    tmp_path: Path, quantized_model_folder: Path
):
    rows = made(tmp_path / "work", model=str(quantized_model_folder), must=True)
    own, other = of_kind(rows, "model")
    assert (own["name"], own["path"]) == ("4-bit", str(quantized_model_folder.resolve()))
    assert own["from"] == "a folder of the user"
    assert (other["name"], other["from"]) == ("bfloat16", "random weights")
    assert folder_shape(Path(other["path"])).vocab == folder_shape(quantized_model_folder).vocab
    # Its own tokenizer, and so its own end of a turn.
    last = json.loads(Path(rows[-1]["files"]["hh"]).read_text().splitlines()[0])["chosen_ids"][-1]
    config = json.loads((quantized_model_folder / "config.json").read_text())
    assert last == config["eos_token_id"]


def test_a_model_that_cannot_be_had_is_replaced_unless_the_user_named_it(tmp_path: Path):
    # The tests are offline, so nothing is fetched.
    note, *rest = made(tmp_path / "work", model="nobody/nothing-4bit")
    assert note["kind"] == "note"
    assert note["text"].startswith("a random model instead of nobody/nothing-4bit: ")
    assert len(of_kind(rest, "model")) == 2
    with pytest.raises(ModelError):
        made(tmp_path / "other", model="nobody/nothing-4bit", must=True)


@pytest.mark.parametrize(
    ("gigabytes", "hh", "rag"), [(200, {4}, {4}), (18, {4}, {1, 2}), (2, {1}, {1})]
)
def test_a_step_has_as_many_pairs_as_plain_mode_has_memory_for(
    gigabytes: float, hh: set[int], rag: set[int], monkeypatch: pytest.MonkeyPatch
):
    """By hand, of 4 pairs of rag: 8 rows of 1,280 tokens, 151,936 words, 3.2 arrays of logits of 4
    bytes are 20 GB without anything else; of hh a quarter. Into 2 GB fits nothing."""
    monkeypatch.setattr(models, "available_bytes", lambda: int(gigabytes * 1e9))
    monkeypatch.setattr(models, "folder_shape", lambda path: qwen())
    found = {one.name: models._fitting(Path("m"), one) for one in GPU.workloads}
    assert found["hh"] in hh
    assert found["rag"] in rag


def qwen() -> Any:
    from orpo_mlx.models.shape import Linear, ModelShape

    sizes = [(1024, 2048), (1024, 1024), (1024, 1024), (2048, 1024), *[(1024, 3072)] * 2,
             (3072, 1024)]  # fmt: skip
    block = tuple(Linear(f"l{i}", *size) for i, size in enumerate(sizes))
    return ModelShape(1_200_000_000, 151936, 1024, 16, 2048, 1024, 2, (block,) * 28)

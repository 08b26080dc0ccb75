"""Runs of KTO: resumed to the byte, the same however a step is divided, refused where they must."""

import json

import numpy as np
import pytest

from orpo_mlx import demo
from orpo_mlx.__main__ import main as program
from orpo_mlx.cli.commands.train import main
from orpo_mlx.config import build_config
from orpo_mlx.objectives.kto import Kto
from orpo_mlx.runs.control import send_request
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import EvalCompleted, NoteLogged, StepCompleted, read_events
from orpo_mlx.storage.cache import cache_folder
from orpo_mlx.training.train import resume, train


class _StopsAfter:
    def __init__(self, run, step):
        self.run, self.step = run, step

    def handle(self, event, line=""):
        if isinstance(event, StepCompleted) and event.step == self.step:
            send_request(RunDirectory(self.run), "stop")

    def progress(self, done, total, label, unit): ...

    def catch_up(self, events): ...

    def close(self): ...


def rows_of(count, label=lambda i: i % 2 == 0):
    return [
        {"prompt": f"How many is {i} and one?", "completion": f" It is {i + 1}.", "label": label(i)}
        for i in range(count)
    ]


@pytest.fixture
def settings(model_folder, pairs_file, tmp_path, monkeypatch):
    monkeypatch.setenv("ORPO_MLX_HOME", str(tmp_path / "home"))

    def make(name, rows=None, **more):
        data = pairs_file(rows_of(12) if rows is None else rows, f"{name}.jsonl")
        own = {"model": str(model_folder), "data": str(data), "objective": "kto", "beta": 0.5}
        few = {"steps": 5, "micro_batch_size": 4, "rank": 2, "num_layers": -1, "report_every": 1,
               "learning_rate": 5e-3, "valid_fraction": 0.25, "sample_prompts": 0, "seed": 3,
               "grad_accumulation_steps": 1, "evaluate": False}  # fmt: skip
        return build_config({**own, **few, "run_dir": str(tmp_path / name), **more})

    return make


def adapter(run):
    return (run / "adapter" / "adapters.safetensors").read_bytes()


def events_of(run, kind):
    found = [record.event for record in read_events(RunDirectory(run).events_file)]
    return [event for event in found if isinstance(event, kind)]


@pytest.mark.parametrize("is_kept", [True, False])
def test_an_interrupted_run_equals_a_whole_one(settings, tmp_path, is_kept):
    # Two micro-batches, so that the KL is found ahead, and dropout, which must be the same then.
    few = {"micro_batch_size": 2, "grad_accumulation_steps": 2, "batching": "fixed", "dropout": 0.1}
    train(settings("whole", **few))
    train(settings("part", **few), report=_StopsAfter(tmp_path / "part", 2))
    if not is_kept:
        for path in cache_folder("reference").iterdir():
            path.unlink()
    resume(RunDirectory(tmp_path / "part"))
    assert adapter(tmp_path / "part") == adapter(tmp_path / "whole")


def test_a_step_is_the_same_however_it_is_divided(settings, tmp_path):
    found = {}
    for rows in (4, 2, 1):
        few = {"micro_batch_size": rows, "grad_accumulation_steps": 4 // rows}
        train(settings(f"by{rows}", rows_of(12), batching="fixed", order="file", **few))
        found[rows] = events_of(tmp_path / f"by{rows}", StepCompleted)
    for rows in (2, 1):
        for ours, whole in zip(found[rows], found[4], strict=True):
            assert ours.metrics == pytest.approx(whole.metrics, rel=1e-4, abs=1e-6)
    # There is a KL to agree on.
    assert max(event.value("kl") for event in found[4]) > 0.01


def test_the_kl_and_the_gradient_of_a_micro_batch_have_the_same_dropout(settings, monkeypatch):
    share, loss, seen = Kto.kl_share, Kto.__call__, {"kl": [], "gradient": []}

    def kl_share(self, *given):
        seen["kl"].append(share(self, *given))
        return seen["kl"][-1]

    def call(self, *given):
        seen["gradient"].append(share(self, *given))
        return loss(self, *given)

    monkeypatch.setattr(Kto, "kl_share", kl_share)
    monkeypatch.setattr(Kto, "__call__", call)
    train(settings("run", rows_of(8), dropout=0.5, valid_fraction=0.0, steps=3, batching="fixed",
                   micro_batch_size=2, grad_accumulation_steps=2, learning_rate=0.05))  # fmt: skip
    kl, gradient = ([float(value) for value in values] for values in seen.values())
    assert len(kl) == 6
    assert kl == pytest.approx(gradient, abs=1e-5)
    assert max(map(abs, kl)) > 0.01


def test_without_a_label_in_a_step_its_means_are_absent_and_the_loss_is_there(settings, tmp_path):
    rows = rows_of(12, lambda i: i < 6)
    train(settings("run", rows, micro_batch_size=2, order="file", valid_fraction=0.0, steps=6))
    steps = events_of(tmp_path / "run", StepCompleted)
    for event, present, absent in zip(
        steps, ["chosen"] * 3 + ["rejected"] * 3, ["rejected"] * 3 + ["chosen"] * 3, strict=True
    ):
        assert np.isfinite([event.value("loss"), event.value(f"{present}_rewards")]).all()
        assert not {f"{absent}_logps", f"{absent}_rewards", "reward_margin"} & set(event.metrics)


def test_evaluations_of_one_label_are_judged_by_the_loss(settings, tmp_path):
    rows = rows_of(9, lambda i: i % 3 != 0)
    valid = tmp_path / "valid.jsonl"
    valid.write_text("".join(json.dumps(row) + "\n" for row in rows_of(3, lambda i: True)))
    few = {"valid_data": str(valid), "valid_fraction": 0.0, "eval_every": 0}
    train(settings("run", rows, **few))
    before, after = events_of(tmp_path / "run", EvalCompleted)
    assert "reward_margin" not in after.metrics
    assert after.is_best == (after.value("loss") < before.value("loss"))


def test_pairs_are_unpaired_on_request_and_their_prompts_stay_on_one_side(
    settings, pairs_file, tmp_path
):
    config = settings("run", unpair=True, data=str(pairs_file(8)), evaluate=True)
    train(config)
    valid = events_of(tmp_path / "run", EvalCompleted)[0]
    assert valid.pairs == 4
    assert {"chosen_rewards", "rejected_rewards"} <= set(valid.metrics)
    (said,) = [e.text for e in events_of(tmp_path / "run", NoteLogged) if "it helped" in e.text]
    assert "orpo-mlx evaluate" in said
    assert "--data" not in said


def test_what_kto_cannot_use_is_refused_and_nothing_is_written(
    model_folder, pairs_file, tmp_path, capsys
):
    good, labelled = rows_of(4, lambda i: True), rows_of(4)
    same = [{**row, "prompt": "Which?"} for row in labelled]
    cases = (
        (labelled, "--objective orpo", "answers with a label each"),
        (8, "--objective kto", "found pairs; --objective kto needs answers with a label"),
        (good, "--objective kto --valid-fraction 0", "4 answers for training, labelled as good"),
        (same, "--objective kto --valid-fraction 0", "all to one prompt"),
        (labelled, "--objective kto --micro-batch-size 1 --grad-accumulation-steps 1",
         "estimates its KL from the other answers of a step"),
        (labelled, "--objective kto --desirable-weight 0 --undesirable-weight 0", "nothing would"),
        (labelled, "--objective dpo --desirable-weight 2", "it is for kto"),
    )  # fmt: skip
    for rows, words, said in cases:
        command = ["--model", str(model_folder), "--data", str(pairs_file(rows, "rows.jsonl"))]
        command += ["--run-dir", str(tmp_path / "run"), "--micro-batch-size", "2", *words.split()]
        assert main(command) == 2
        answer = capsys.readouterr().err
        assert said in answer
        assert "Traceback" not in answer
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_demo_learns_from_labels_and_is_judged_by_pairs(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ORPO_MLX_HOME", str(tmp_path / "home"))
    run = tmp_path / "run"
    words = ["--demo", "--objective", "kto", "--run-dir", str(run), "--steps", "12", "--quiet"]
    assert main([*words, "--sample-prompts", "0"]) == 0
    before, after = events_of(run, EvalCompleted)
    assert before.value("loss") == pytest.approx(0.5)
    assert after.value("reward_margin") > 0.1
    (said,) = [e.text for e in events_of(run, NoteLogged) if "it helped" in e.text]
    assert said.endswith("--data PAIRS")
    assert program(["evaluate", str(run)]) == 2
    assert "answers with a label each" in capsys.readouterr().err
    words = ["--data", str(demo.valid_path()), "--no-drift", "--json"]
    assert program(["evaluate", str(run), *words]) == 0
    content = json.loads(capsys.readouterr().out)
    rewards = content["metrics"]["reward_margin"]
    assert rewards["base"]["value"] == 0
    assert rewards["adapter"]["value"] > 0.1

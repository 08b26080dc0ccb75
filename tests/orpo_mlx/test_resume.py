"""A run that was interrupted ends as one that never stopped: same losses, same bytes."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from orpo_mlx.config import TrainConfig
from orpo_mlx.errors import CheckpointError, RunError, TrainingError
from orpo_mlx.runs import events
from orpo_mlx.runs.checkpoints import damage, iter_checkpoints
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.training.train import resume, train

STEPS = 9
FIELDS = ("metrics", "step", "epoch", "learning_rate", "grad_norm", "tokens")


def settings(model, data, run_dir, **changes):
    return TrainConfig(
        **{
            "model": str(model), "data": str(data), "run_dir": str(run_dir), "steps": STEPS,
            "micro_batch_size": 2, "grad_accumulation_steps": 2, "rank": 2, "num_layers": -1,
            "learning_rate": 2e-3, "dropout": 0.2, "valid_fraction": 0.2, "eval_every": 3,
            "report_every": 2, "save_every": 1, "keep_checkpoints": 99, "sample_prompts": 1,
            "sample_tokens": 4,
            **changes,
        }
    )  # fmt: skip


def digest(folder):
    """sha256 of every weight file in a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.safetensors"))
    }


def history(run_dir):
    """What the run measured, each step once: what a resumed process repeated counts anew."""
    steps: dict[tuple[str, int], tuple] = {}
    for record in events.read_events(run_dir / "events.jsonl"):
        event = record.event
        if isinstance(event, events.Resumed) and event.new_process:
            steps = {key: value for key, value in steps.items() if key[1] <= event.step}
        elif isinstance(event, events.StepCompleted):
            steps["step", event.step] = tuple(getattr(event, name) for name in FIELDS)
        elif isinstance(event, events.EvalCompleted):
            steps["eval", event.step] = (event.metrics, event.is_best)
        elif isinstance(event, events.SampleGenerated):
            steps["sample", event.step] = (event.prompt, event.response)
    return steps


@pytest.fixture(scope="module")
def uninterrupted(quantized_model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    data = folder / "pairs.jsonl"
    rows = [
        {
            "prompt": f"How many is {i}?",
            "chosen": f"It is {i * i}.",
            "rejected": f"{i} seas" * (i % 3 + 1),
        }
        for i in range(20)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train(settings(quantized_model_folder, data, folder / "run"))
    return folder


def stopped_after(uninterrupted, step, tmp_path):
    """The run's directory as a kill right after this step's checkpoint leaves it."""
    run_dir = tmp_path / "run"
    shutil.copytree(uninterrupted / "run", run_dir)
    shutil.rmtree(run_dir / "adapter")
    for checkpoint in iter_checkpoints(run_dir / "checkpoints"):
        if int(checkpoint.name) > step:
            shutil.rmtree(checkpoint)
    lines = (run_dir / "events.jsonl").read_text().splitlines(keepends=True)
    end = next(
        i for i, line in enumerate(lines)
        if '"CheckpointSaved"' in line and json.loads(line)["step"] == step
    )  # fmt: skip
    torn = lines[end + 1][: len(lines[end + 1]) // 2]
    (run_dir / "events.jsonl").write_text("".join(lines[: end + 1]) + torn)
    return run_dir


def test_a_compiled_run_resumes_too(uninterrupted, quantized_model_folder, tmp_path, has_compiler):
    if not has_compiler:
        pytest.skip("mx.compile needs a C++ compiler on a CPU")
    data = uninterrupted / "pairs.jsonl"
    for name in ("whole", "cut"):
        train(settings(quantized_model_folder, data, tmp_path / name, compile="on", steps=4))
    cut = tmp_path / "cut"
    shutil.rmtree(cut / "adapter")
    for checkpoint in iter_checkpoints(cut / "checkpoints"):
        if int(checkpoint.name) > 2:
            shutil.rmtree(checkpoint)
    lines = (cut / "events.jsonl").read_text().splitlines(keepends=True)
    (cut / "events.jsonl").write_text("".join(x for x in lines if "RunFinished" not in x))

    assert resume(RunDirectory(cut)).reason == "completed"
    assert digest(cut / "adapter") == digest(tmp_path / "whole" / "adapter")


def test_a_damaged_checkpoint_never_pushes_out_a_whole_one(uninterrupted, tmp_path):
    run_dir = stopped_after(uninterrupted, 4, tmp_path)
    for step in (3, 4):
        (run_dir / "checkpoints" / f"{step:07d}" / "progress.json").write_text("{}")

    resume(RunDirectory(run_dir), {"keep_checkpoints": 1})

    kept = list(iter_checkpoints(run_dir / "checkpoints"))
    assert int(kept[0].name) == STEPS
    assert all(damage(path) is None for path in kept)


def test_another_chat_template_is_refused(uninterrupted, tmp_path):
    run_dir = stopped_after(uninterrupted, 2, tmp_path)

    template = tmp_path / "own.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    with pytest.raises(CheckpointError, match=r"--chat-template .*was"):
        resume(RunDirectory(run_dir), {"chat_template": str(template)})


def test_the_adapter_a_run_began_with_is_not_needed_to_resume(
    uninterrupted, quantized_model_folder, tmp_path
):
    begin = tmp_path / "begin"
    shutil.copytree(uninterrupted / "run" / "adapter", begin)
    data = uninterrupted / "pairs.jsonl"
    train(
        settings(quantized_model_folder, data, tmp_path / "run", init_adapter=str(begin), steps=4)
    )
    lines = (tmp_path / "run" / "events.jsonl").read_text().splitlines(keepends=True)
    kept = "".join(line for line in lines if "RunFinished" not in line)
    (tmp_path / "run" / "events.jsonl").write_text(kept)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "0000004")
    shutil.rmtree(begin)
    before = digest(tmp_path / "run" / "adapter")

    assert resume(RunDirectory(tmp_path / "run")).reason == "completed"
    assert digest(tmp_path / "run" / "adapter") == before


def test_a_damaged_best_checkpoint_does_not_become_the_result(
    uninterrupted, quantized_model_folder, tmp_path, monkeypatch
):
    from orpo_mlx.training import run

    monkeypatch.setattr(run, "damage", lambda path: "flipped")
    rising = iter(range(1, 99))
    monkeypatch.setattr(run, "evaluate", lambda *_: np.full(8, float(next(rising))))
    data = uninterrupted / "pairs.jsonl"
    changes = {"eval_every": 1, "keep_best": True}
    result = train(settings(quantized_model_folder, data, tmp_path / "run", **changes))

    last = result.run_dir / "checkpoints" / f"{STEPS:07d}" / "adapters.safetensors"
    assert (result.adapter_path / "adapters.safetensors").read_bytes() == last.read_bytes()
    notes = [
        r.event.text for r in events.read_events(result.run_dir / "events.jsonl")
        if isinstance(r.event, events.NoteLogged)
    ]  # fmt: skip
    assert any("best checkpoint" in note and "flipped" in note for note in notes)


@pytest.mark.parametrize("step", range(STEPS))
def test_resuming_after_any_step_repeats_every_number_and_every_byte(uninterrupted, step, tmp_path):
    run_dir = stopped_after(uninterrupted, step, tmp_path)

    result = resume(RunDirectory(run_dir))

    assert (result.reason, result.step) == ("completed", STEPS)
    assert history(run_dir) == history(uninterrupted / "run")
    assert digest(run_dir / "adapter") == digest(uninterrupted / "run" / "adapter")
    assert digest(run_dir / "checkpoints") == digest(uninterrupted / "run" / "checkpoints")


def test_two_runs_of_the_same_settings_have_the_same_bytes(
    uninterrupted, quantized_model_folder, tmp_path
):
    data = uninterrupted / "pairs.jsonl"

    train(settings(quantized_model_folder, data, tmp_path / "again"))

    assert digest(tmp_path / "again" / "adapter") == digest(uninterrupted / "run" / "adapter")
    assert history(tmp_path / "again") == history(uninterrupted / "run")


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_resumed(
    uninterrupted, tmp_path
):
    run_dir = stopped_after(uninterrupted, 5, tmp_path)
    file = run_dir / "checkpoints" / "0000005" / "optimizer.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)

    result = resume(RunDirectory(run_dir))

    notes = [
        r.event.text for r in events.read_events(run_dir / "events.jsonl")
        if isinstance(r.event, events.NoteLogged)
    ]  # fmt: skip
    assert any("0000005" in n and "optimizer.safetensors" in n for n in notes)
    assert result.reason == "completed"
    assert digest(run_dir / "adapter") == digest(uninterrupted / "run" / "adapter")


def test_without_any_valid_checkpoint_the_refusal_says_what_was_looked_for(uninterrupted, tmp_path):
    run_dir = stopped_after(uninterrupted, 2, tmp_path)
    shutil.rmtree(run_dir / "checkpoints")
    (run_dir / "checkpoints").mkdir()

    with pytest.raises(CheckpointError, match=r"checkpoints.*looked for"):
        resume(RunDirectory(run_dir))


def test_a_finished_run_is_not_resumed(uninterrupted):
    with pytest.raises(RunError, match="finished"):
        resume(RunDirectory(uninterrupted / "run"))


def test_changed_rank_is_refused_with_old_and_new_value(uninterrupted, tmp_path):
    run_dir = stopped_after(uninterrupted, 2, tmp_path)

    with pytest.raises(CheckpointError, match=r"rank: was 2, is now 16"):
        resume(RunDirectory(run_dir), {"rank": 16})


def test_changed_data_is_refused(uninterrupted, tmp_path):
    run_dir = stopped_after(uninterrupted, 2, tmp_path)
    data = tmp_path / "pairs.jsonl"
    data.write_text((uninterrupted / "pairs.jsonl").read_text().replace("seas", "suns"))

    with pytest.raises(
        CheckpointError, match=r"--data \(its content\): was [0-9a-f]+, is now [0-9a-f]+"
    ):
        resume(RunDirectory(run_dir), {"data": str(data)})


def test_another_model_is_refused(uninterrupted, make_model_folder, tmp_path):
    run_dir = stopped_after(uninterrupted, 2, tmp_path)
    other = make_model_folder(tmp_path / "other", quantized=True, seed=1)

    with pytest.raises(CheckpointError, match=r"--model \(its content\)"):
        resume(RunDirectory(run_dir), {"model": str(other)})


def test_settings_that_do_not_matter_may_change(uninterrupted, tmp_path):
    run_dir = stopped_after(uninterrupted, 7, tmp_path)

    result = resume(RunDirectory(run_dir), {"save_every": 0, "report_every": 1})

    assert result.reason == "completed"
    assert digest(run_dir / "adapter") == digest(uninterrupted / "run" / "adapter")


def test_a_save_that_fails_keeps_the_checkpoint_before_it(uninterrupted, tmp_path, monkeypatch):
    run_dir = stopped_after(uninterrupted, 3, tmp_path)
    real = os.rename

    def full(source, target):
        if "0000005" in str(target):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(TrainingError, match=r"step 5 could not be saved.*No space left"):
        resume(RunDirectory(run_dir))
    monkeypatch.undo()

    names = sorted(p.name for p in (run_dir / "checkpoints").iterdir())
    assert names == [f"{i:07d}" for i in range(5)]
    assert all(damage(run_dir / "checkpoints" / name) is None for name in names)
    assert RunDirectory(run_dir).read_status() == "failed"
    assert resume(RunDirectory(run_dir)).reason == "completed"
    assert digest(run_dir / "adapter") == digest(uninterrupted / "run" / "adapter")


def kill_at_random(kills, seed, model, data, folder):
    script = Path(__file__).parents[1] / "fakes" / "kill_trainer.py"
    done = subprocess.run(
        [sys.executable, script, model, data, folder, str(kills), str(seed)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(4, marks=pytest.mark.timeout(1200)),
        pytest.param(500, marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
)
def test_kills_at_random_instants_damage_nothing_and_change_nothing(
    kills, uninterrupted, quantized_model_folder, tmp_path
):
    result = kill_at_random(
        kills, 4, quantized_model_folder, uninterrupted / "pairs.jsonl", tmp_path
    )

    assert result["failed"] == []
    assert result["damaged"] == []
    assert result["different"] == []
    assert result["kills"] >= kills
    assert result["completed"] >= 1

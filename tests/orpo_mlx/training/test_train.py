"""Whole runs on the tiny model: what a run leaves behind, obeys, survives and refuses."""

import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

import orpo_mlx
from orpo_mlx.cli.commands.train import main
from orpo_mlx.config import TrainConfig
from orpo_mlx.errors import RunError, TrainingError
from orpo_mlx.runs import events
from orpo_mlx.runs.checkpoints import damage, iter_checkpoints
from orpo_mlx.runs.control import send_request
from orpo_mlx.runs.directory import RunDirectory, check_run_folder
from orpo_mlx.training.preparation import plan as run_plan
from orpo_mlx.training.speed.trial import Candidate
from orpo_mlx.training.step import StepResult, TrainStep
from orpo_mlx.training.train import train


def settings(model, data, run_dir, **changes):
    return TrainConfig(
        **{
            "model": str(model), "data": str(data), "run_dir": str(run_dir), "steps": 4,
            "micro_batch_size": 2, "rank": 2, "num_layers": -1, "learning_rate": 5e-3,
            "valid_fraction": 0.25, "report_every": 1, "sample_prompts": 1, "sample_tokens": 4,
            **changes,
        }
    )  # fmt: skip


def of_type(run_dir, kind):
    records = events.read_events(run_dir / "events.jsonl")
    return [record.event for record in records if isinstance(record.event, kind)]


@pytest.fixture
def run(model_folder, pairs_file, tmp_path):
    """Return `run(**changes) -> TrainResult` in a new directory each time."""
    count = 0

    def start(report=None, rows=12, **changes):
        nonlocal count
        count += 1
        config = settings(model_folder, pairs_file(rows), tmp_path / f"run{count}", **changes)
        return train(config, report=report)

    return start


# --- a run that goes well


def test_each_phase_before_the_first_step_is_told_when_it_begins(run):
    class Listener:
        told: list[str] = []  # noqa: RUF012

        def progress(self, done, total, label, unit):
            if unit == "phase":
                self.told.append(label)

        def handle(self, event, line=""):
            self.told.append(type(event).__name__)

        def catch_up(self, events): ...

        def close(self): ...

    run(report=Listener(), steps=1)
    before = Listener.told[: Listener.told.index("StepCompleted")]
    phases = ["reading the data", "tokenizing the pairs", "loading the weights",
              "trying ways of scoring on a few short pairs", "first evaluation, 3 pairs",
              "first answers to held-out prompts"]  # fmt: skip
    assert [name for name in before if " " in name] == phases
    assert before.index(phases[4]) < before.index("EvalCompleted") < before.index(phases[5])


def test_a_run_leaves_a_complete_directory(run):
    result = run(save_every=2, eval_every=2, sample_every=2)

    assert (result.reason, result.step, result.exit_code) == ("completed", 4, 0)
    names = {path.name for path in result.run_dir.iterdir()}
    assert names >= {
        "config.toml", "events.jsonl", "state.json", "run.lock", "control", "checkpoints", "adapter"
    }  # fmt: skip
    assert [e.step for e in of_type(result.run_dir, events.EvalCompleted)] == [0, 2, 4]
    assert [e.step for e in of_type(result.run_dir, events.SampleGenerated)] == [0, 2, 4]
    assert [p.name for p in iter_checkpoints(result.run_dir / "checkpoints")] == [
        "0000004", "0000002", "0000000",
    ]  # fmt: skip
    assert RunDirectory(result.run_dir).read_status() == "completed"
    account = of_type(result.run_dir, events.DataPrepared)[0]
    assert account.read == account.kept + sum(account.dropped.values()) == 12


def test_the_python_api_returns_numbers_before_and_after(run):
    result = run(steps=12)

    assert result.before.step == 0
    assert result.after.step == 12
    assert result.after.value("loss") < result.before.value("loss")
    assert (result.adapter_path / "adapters.safetensors").exists()


def test_orpo_mlx_train_is_the_function(model_folder, pairs_file, tmp_path):
    result = orpo_mlx.train(
        orpo_mlx.TrainConfig(**settings(model_folder, pairs_file(), tmp_path / "a").model_dump())
    )
    assert result.reason == "completed"


def test_an_epoch_visits_each_pair_once_in_a_seeded_order(run, monkeypatch):
    seen = []
    real = TrainStep.__call__

    def watch(self, batches, key, rate):
        seen.extend(index for batch in batches for index in batch.indices)
        return real(self, batches, key, rate)

    monkeypatch.setattr(TrainStep, "__call__", watch)
    run(steps=None, epochs=2, grad_accumulation_steps=2, valid_fraction=0, rows=11)

    first, second = seen[:11], seen[11:]
    assert sorted(first) == sorted(second) == list(range(11))
    assert first != list(range(11))
    assert first != second


def test_steps_before_the_last_report_are_averaged_not_lost(run):
    each = of_type(run(steps=5).run_dir, events.StepCompleted)
    grouped = of_type(run(steps=5, report_every=3).run_dir, events.StepCompleted)

    losses = [event.value("loss") for event in each]
    means = [losses[0], np.mean(losses[1:3]), np.mean(losses[3:])]
    assert [e.step for e in grouped] == [1, 3, 5]
    assert [e.value("loss") for e in grouped] == pytest.approx(means)
    assert grouped[-1].tokens == each[-1].tokens


def test_keep_best_makes_the_best_evaluation_the_result(run):
    # A rate far too high: the evaluation after the first step is never beaten by the last.
    result = run(
        steps=6, eval_every=1, keep_best=True, learning_rate=0.5, save_every=0, keep_checkpoints=1,
        nll_scope="full", best_metric="loss",
    )  # fmt: skip

    evaluations = of_type(result.run_dir, events.EvalCompleted)
    best = min(evaluations, key=lambda event: event.value("loss"))
    assert best.step < 6
    best_checkpoint = result.run_dir / "checkpoints" / f"{best.step:07d}"
    name = "adapters.safetensors"
    assert (result.adapter_path / name).read_bytes() == (best_checkpoint / name).read_bytes()
    assert of_type(result.run_dir, events.RunFinished)[0].best_step == best.step


def test_early_stop_ends_after_so_many_evaluations_without_improvement(run):
    result = run(steps=50, eval_every=1, early_stop=2, learning_rate=0.5)

    losses = [event.value("loss") for event in of_type(result.run_dir, events.EvalCompleted)]
    assert result.reason == "early_stop"
    assert len(losses) - 1 - int(np.argmin(losses)) == 2
    assert result.exit_code == 0


def test_old_checkpoints_go_and_the_best_stays(run):
    result = run(steps=6, eval_every=1, save_every=1, keep_checkpoints=2, learning_rate=0.5)

    best = of_type(result.run_dir, events.RunFinished)[0].best_step
    kept = {int(path.name) for path in iter_checkpoints(result.run_dir / "checkpoints")}
    assert kept == {5, 6, best}


@pytest.mark.parametrize(
    "changes",
    [
        {"dora": True},
        {"alpha": 8.0, "rslora": True},
        {"target_modules": ["q_proj", "lm_head"]},
        {"num_layers": 1},
        {"grad_checkpoint": "on"},
    ],
    ids=str,
)
def test_the_result_gives_the_same_numbers_when_mlx_lm_loads_it(run, model_folder, changes):
    import mlx.core as mx
    from mlx_lm.utils import load

    result = run(**changes)
    model, _ = load(str(model_folder), adapter_path=str(result.adapter_path))

    from orpo_mlx.objectives.orpo import Orpo
    from orpo_mlx.training.prepare import prepare, valid_batches
    from orpo_mlx.training.step import evaluate

    prepared = prepare(RunDirectory(result.run_dir).read_config())
    loss = evaluate(model, valid_batches(prepared), Orpo(), prepared.scoring)[0]
    assert loss == pytest.approx(result.after.value("loss"), rel=1e-6)
    assert abs(result.after.value("loss") - result.before.value("loss")) > 1e-4
    mx.eval(model.parameters())


def test_mlx_lm_generate_reads_the_adapter_and_answers_differently(run, model_folder):
    result = run(steps=30, learning_rate=2e-2, rows=4, valid_fraction=0)
    command = [
        sys.executable, "-m", "mlx_lm", "generate", "--model", str(model_folder),
        "--prompt", "How many is 2 and one?", "--max-tokens", "8", "--temp", "0",
    ]  # fmt: skip
    base, tuned = (
        subprocess.run([*command, *extra], capture_output=True, text=True, check=True).stdout
        for extra in ([], ["--adapter-path", str(result.adapter_path)])
    )

    assert base.split("==========")[1] != tuned.split("==========")[1]


@pytest.mark.parametrize("kind", ["strings", "messages", "implicit", "tokenized"])
def test_every_kind_of_row_trains(run, kind):
    chat = [{"role": "user", "content": "Hi?"}]
    good, bad = ({"role": "assistant", "content": text} for text in ("Hello.", "The sea."))
    row = {
        "strings": {"prompt": "Hi?", "chosen": " Hello.", "rejected": " The sea."},
        "messages": {"prompt": chat, "chosen": [good], "rejected": [bad]},
        "implicit": {"chosen": [*chat, good], "rejected": [*chat, bad]},
        "tokenized": {"prompt_ids": [5, 6], "chosen_ids": [7, 2], "rejected_ids": [8, 9, 2]},
    }[kind]

    result = run(rows=[row] * 4, keep_duplicates=True, valid_fraction=0, steps=2)

    assert all(
        math.isfinite(e.value("loss")) for e in of_type(result.run_dir, events.StepCompleted)
    )


# --- every setting does something

BASE = {"steps": 4, "save_every": 2, "valid_fraction": 0.25}
CHANGES = {
    "valid_fraction": 0.5, "order": "file",
    "map": {"prompt": "prompt", "chosen": "rejected", "rejected": "chosen"}, "max_seq_length": 64,
    "seed": 5, "lam": 0.9, "nll_scope": "response", "nll_reduction": "pair", "nll_weight": 0.5,
    "preference": "probability_ratio", "rank": 3, "scale": 3.0, "alpha": 9.0, "dora": True,
    "dropout": 0.4, "target_modules": ["v_proj"], "num_layers": 1, "optimizer": "sgd",
    "learning_rate": 1e-3, "schedule": "linear", "warmup": 3, "final_lr_fraction": 0.5,
    "weight_decay": 0.5, "max_grad_norm": 0.01, "steps": 5, "micro_batch_size": 3,
    "grad_accumulation_steps": 2, "eval_every": 1, "eval_pairs": 1, "sample_every": 1,
    "sample_prompts": 2, "sample_tokens": 2, "report_every": 2, "save_every": 1,
    "keep_checkpoints": 1,
}  # fmt: skip
COMBINED = {
    "epochs": {"steps": None, "epochs": 0.5},
    "rslora": {"alpha": 8.0, "rslora": True},
    "best_metric": {"best_metric": "logps_margin", "eval_every": 1, "learning_rate": 0.3},
}
TESTED_ELSEWHERE = {
    "chat_template", "thinking", "escape_special", "layout", "keep_ties", "keep_inverted",
    "keep_duplicates", "data_split", "data_subset", "data_revision",
    "model", "revision", "data", "valid_data", "init_adapter", "run_dir", "runs_dir",
    "allow_overcommit", "batching", "tokens_per_batch", "scoring", "compile", "grad_checkpoint",
    "float32", "micro_batch_parts", "command_buffers", "peer_timeout",
    "grad_checkpoint_every", "trunk_cache", "trunk_cache_size", "trunk_cache_dir",
    "keep_best", "early_stop", "evaluate", "drift_every", "stop_drift",
    "objective", "dpo_loss", "beta", "gamma", "label_smoothing", "ipo_length", "reference",
    "use_margin", "center",
    "kto_loss", "desirable_weight", "undesirable_weight", "unpair",
    "report_to",
}  # fmt: skip
TIMES = {
    "time", "monotonic", "seconds", "step_seconds", "pairs_per_second", "tokens_per_second",
    "active_memory_bytes", "peak_memory_bytes", "process_bytes", "peak_process_bytes",
    "estimated_peak_bytes", "available_bytes", "cache_limit_bytes", "memory_limit_bytes",
    "path", "adapter_path", "run_id", "config",
}  # fmt: skip


def story(result):
    """All that a run measured and saved, without times, paths and the settings themselves."""
    lines = (result.run_dir / "events.jsonl").read_text().splitlines()
    told = [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]
    kept = [path.name for path in iter_checkpoints(result.run_dir / "checkpoints")]
    return json.dumps([told, kept], sort_keys=True)


@pytest.fixture(scope="module")
def long_rows():
    """Messages of different lengths, so that every setting has something to act on."""
    return [
        {
            "prompt": [
                {"role": "user", "content": f"How many is {i} and one? " + "The sea. " * (i % 4)}
            ],
            "chosen": [{"role": "assistant", "content": f"It is {i + 1}."}],
            "rejected": [{"role": "assistant", "content": "I like the moon." * (1 + i % 3)}],
        }
        for i in range(12)
    ]


def test_a_chat_template_of_the_users_own_is_what_is_trained_on(run, long_rows, tmp_path):
    file = tmp_path / "own.jinja"
    file.write_text(
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )

    result = run(rows=long_rows, chat_template=str(file))

    first = of_type(result.run_dir, events.DataPrepared)[0].first_pair
    assert first["prompt"].startswith("<user>How many is")
    assert first["prompt"].endswith("<|im_end|><assistant>")


def test_every_setting_is_in_the_table_of_what_it_changes():
    assert {*CHANGES, *COMBINED} | TESTED_ELSEWHERE == set(TrainConfig.model_fields)


@pytest.mark.parametrize("name", [*CHANGES, *COMBINED])
def test_each_setting_changes_what_a_run_does(run, name, long_rows):
    changes = COMBINED.get(name) or {name: CHANGES[name]}
    base = {**BASE, **{k: v for k, v in changes.items() if k in ("eval_every", "learning_rate")}}
    if name in ("eval_every", "learning_rate"):
        base = BASE
    if name == "rslora":
        base = {**BASE, "alpha": 8.0}

    before = story(run(rows=long_rows, **base))
    after = story(run(rows=long_rows, **{**base, **changes}))

    assert before != after


# --- requests and signals, to a real process


@pytest.fixture
def process(model_folder, pairs_file, tmp_path):
    """A long run in its own process; killed at the end of the test if it still lives."""
    run_dir = tmp_path / "run"
    command = [
        "--model", model_folder, "--data", pairs_file(40), "--run-dir", run_dir,
        "--steps", "100000", "--micro-batch-size", "1", "--rank", "2", "--report-every", "1",
        "--save-every", "0", "--sample-tokens", "4", "--quiet",
    ]  # fmt: skip
    child = subprocess.Popen(
        [sys.executable, "-m", "orpo_mlx.train", *map(str, command)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    child.run_dir = run_dir
    wait_for(lambda: steps_of(run_dir) > 2, child)
    yield child
    child.kill()
    child.communicate()


def steps_of(run_dir):
    return len(of_type(run_dir, events.StepCompleted)) if (run_dir / "events.jsonl").exists() else 0


def wait_for(condition, child=None, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        assert child is None or child.poll() is None, child.communicate()
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_stops(process, number):
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)

    run = RunDirectory(process.run_dir)
    assert process.returncode == 130, errors
    assert run.read_status() == "stopped"
    finished = of_type(process.run_dir, events.RunFinished)[0]
    newest = next(iter_checkpoints(run.checkpoints_folder))
    assert int(newest.name) == finished.step > 0
    assert damage(newest) is None
    assert (run.adapter_folder / "adapters.safetensors").exists()


def test_a_hangup_changes_nothing(process):
    process.send_signal(signal.SIGHUP)
    now = steps_of(process.run_dir)

    wait_for(lambda: steps_of(process.run_dir) > now + 3, process)


def test_a_killed_process_leaves_a_crashed_run_with_a_whole_checkpoint(process):
    process.kill()
    process.wait()

    run = RunDirectory(process.run_dir)
    assert run.read_status() == "crashed"
    assert damage(next(iter_checkpoints(run.checkpoints_folder))) is None


def test_requests_pause_resume_checkpoint_sample_and_stop(process):
    run = RunDirectory(process.run_dir)

    def saved():
        return [e.step for e in of_type(run.path, events.CheckpointSaved)]

    send_request(run, "pause")
    wait_for(lambda: of_type(run.path, events.Paused), process)
    wait_for(lambda: run.read_status() == "paused", process)
    at = steps_of(run.path)
    send_request(run, "checkpoint")
    wait_for(lambda: len(saved()) == 2, process)
    assert saved()[-1] == of_type(run.path, events.Paused)[0].step
    assert steps_of(run.path) == at
    send_request(run, "sample")
    wait_for(lambda: len(of_type(run.path, events.SampleGenerated)) >= 4, process)
    send_request(run, "resume")
    wait_for(lambda: steps_of(run.path) > at + 2, process)
    send_request(run, "stop")
    process.communicate(timeout=30)

    assert process.returncode == 130
    assert run.read_status() == "stopped"


def test_an_abort_ends_without_saving(process):
    run = RunDirectory(process.run_dir)

    send_request(run, "abort")
    process.communicate(timeout=30)

    assert process.returncode == 130
    assert [int(p.name) for p in iter_checkpoints(run.checkpoints_folder)] == [0]
    assert of_type(run.path, events.RunFinished)[0].reason == "aborted"


def test_a_second_training_in_the_same_folder_is_refused_with_the_pid_of_the_first(process, capsys):
    code = main(["--resume", str(process.run_dir)])

    assert code == 2
    assert str(process.pid) in capsys.readouterr().err
    assert process.poll() is None


# --- a run that goes wrong


@pytest.mark.parametrize(
    ("metrics", "norm", "what"),
    [(np.full(8, np.nan), 1.0, "loss"), (np.zeros(8), np.inf, "gradient")],
)
def test_a_number_that_is_not_finite_ends_the_run(run, monkeypatch, tmp_path, metrics, norm, what):
    real = TrainStep.__call__

    def broken(self, batches, key, rate):
        result = real(self, batches, key, rate)
        return result if self.optimizer.step.item() < 3 else StepResult(metrics, norm)

    monkeypatch.setattr(TrainStep, "__call__", broken)
    with pytest.raises(TrainingError, match=rf"{what} is not a finite number at step 3.*jsonl:\d"):
        run(save_every=1)

    failed = of_type(tmp_path / "run1", events.RunFailed)[0]
    assert (failed.step, failed.kind) == (2, "not_finite")
    assert failed.last_checkpoint.endswith("0000002")
    assert "--learning-rate" in failed.what_to_do
    assert [e.step for e in of_type(tmp_path / "run1", events.StepCompleted)] == [1, 2]
    assert RunDirectory(tmp_path / "run1").read_status() == "failed"

    # What is advised can be done as it stands, and is another run from the last sound adapter.
    monkeypatch.undo()
    words = shlex.split(failed.what_to_do.split("`")[1])
    assert words[:2] == ["orpo-mlx", "train"]
    assert main([*words[2:], "--run-dir", str(tmp_path / "anew")]) == 0
    assert of_type(tmp_path / "anew", events.RunFinished)[0].reason == "completed"


@pytest.mark.parametrize(
    ("text", "meaning", "advice", "kind"),
    [
        ("[METAL] ... kIOGPUCommandBufferCallbackErrorOutOfMemory", "out of memory", "--max-seq",
         "out_of_memory"),
        ("... kIOGPUCommandBufferCallbackErrorImpactingInteractivity", "display", "display off",
         "gpu_timeout"),
        ("[METAL] Command buffer execution failed: Caused GPU Timeout Error "
         "(00000002:kIOGPUCommandBufferCallbackErrorTimeout).", "longer than macOS allows",
         "--command-buffers short", "gpu_timeout"),
        ("[metal::malloc] Attempting to allocate 17179869184 bytes which is greater than the "
         "maximum allowed buffer size of 14302248960 bytes.", "larger than the GPU takes",
         "--micro-batch-parts 2", "out_of_memory"),
        ("Caused GPU Hang Error (00000003:kIOGPUCommandBufferCallbackErrorHang)", "hung",
         "--command-buffers short", "gpu_timeout"),
        ("Discarded (victim of GPU error/recovery) "
         "(00000005:kIOGPUCommandBufferCallbackErrorInnocentVictim)", "another program",
         "Close other programs", "other"),
        ("Ignored (for causing prior/excessive GPU errors) "
         "(00000004:kIOGPUCommandBufferCallbackErrorSubmissionsIgnored)", "earlier error",
         "--command-buffers short", "gpu_timeout"),
        ("Internal Error (0000000e:Internal Error).", "display", "display off", "gpu_timeout"),
        ("[save] No space left on device", "disk is full", "Free some space", "disk"),
        ("something new", "unexpected", "train.log", "other"),
    ],
)  # fmt: skip
def test_an_error_of_mlx_ends_the_run_with_cause_and_remedy(
    run, monkeypatch, tmp_path, text, meaning, advice, kind
):
    def broken(self, batches, key, rate):
        raise RuntimeError(text)

    monkeypatch.setattr(TrainStep, "__call__", broken)
    with pytest.raises(TrainingError) as caught:
        run()

    assert caught.value.exit_code == 1
    assert meaning in caught.value.message
    assert advice in caught.value.what_to_do
    failed = of_type(tmp_path / "run1", events.RunFailed)[0]
    assert (failed.error, failed.kind) == ("RuntimeError", kind)
    assert text in (tmp_path / "run1" / "train.log").read_text()


def test_a_disk_too_full_for_events_is_told_all_the_same(model_folder, pairs_file, tmp_path):
    config = settings(model_folder, pairs_file(12), tmp_path / "r", steps=400, sample_prompts=0)
    script = (
        "import resource, signal, sys; from orpo_mlx.cli.commands.train import main;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)); sys.exit(main())"
    )
    flags = ["--model", config.model, "--data", config.data, "--run-dir", config.run_dir,
             "--steps", "400", "--report-every", "1", "--rank", "1", "--num-layers", "1",
             "--target-modules", "q_proj", "--sample-prompts", "0", "--quiet"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, flags)], capture_output=True, text=True
    )

    assert done.returncode == 1
    assert "internal error" not in done.stderr
    assert "File too large" in done.stderr
    assert damage(next(iter_checkpoints(tmp_path / "r" / "checkpoints"))) is None


def test_an_evaluation_that_is_not_finite_ends_the_run(run, monkeypatch):
    monkeypatch.setattr("orpo_mlx.training.run.evaluate", lambda *_: np.full(8, np.nan))

    with pytest.raises(TrainingError, match="evaluation at step 0 is not finite"):
        run()


def test_a_run_that_saved_nothing_sends_nobody_to_a_resume(run, monkeypatch, tmp_path):
    def broken(*_):
        raise RuntimeError("something new")

    monkeypatch.setattr("orpo_mlx.training.run.evaluate", broken)
    with pytest.raises(TrainingError) as caught:
        run()
    monkeypatch.undo()
    assert of_type(tmp_path / "run1", events.RunFailed)[0].last_checkpoint is None
    assert "esume" not in caught.value.what_to_do
    words = shlex.split(caught.value.what_to_do.split("`")[1])
    assert main([*words[2:], "--run-dir", str(tmp_path / "anew")]) == 0
    with pytest.raises(RunError, match="saved no checkpoint to go on from"):
        check_run_folder(tmp_path / "run1")


def test_a_second_interrupt_ends_an_evaluation(run, monkeypatch, tmp_path):
    def slow(model, batches, objective, scoring, between, *more):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        between()
        raise AssertionError("went on")

    monkeypatch.setattr("orpo_mlx.training.run.evaluate", slow)

    assert run().reason == "aborted"
    assert of_type(tmp_path / "run1", events.RunFinished)[0].reason == "aborted"


def test_rows_dropped_from_the_validation_file_are_told(run, pairs_file):
    same = {"prompt": "Hi?", "chosen": "Yes.", "rejected": "Yes."}
    good = {"prompt": "Hi?", "chosen": "Yes.", "rejected": "No."}
    held_out = pairs_file([good, same, same], name="valid.jsonl")

    result = run(valid_data=str(held_out), valid_fraction=0)

    notes = [event.text for event in of_type(result.run_dir, events.NoteLogged)]
    assert any("of the 3 rows of --valid-data 1 are kept" in note for note in notes)


def test_json_output_is_the_event_file(model_folder, pairs_file, tmp_path, capsys):
    config = ["--model", model_folder, "--data", pairs_file(8), "--run-dir", tmp_path / "r",
              "--steps", "2", "--rank", "2", "--json"]  # fmt: skip

    assert main([str(part) for part in config]) == 0

    assert capsys.readouterr().out == (tmp_path / "r" / "events.jsonl").read_text()


def test_the_report_holds_no_control_codes_when_stdout_is_no_terminal(
    model_folder, pairs_file, tmp_path, capsys
):
    config = ["--model", model_folder, "--data", pairs_file(8), "--run-dir", tmp_path / "r",
              "--steps", "2", "--rank", "2"]  # fmt: skip

    assert main([str(part) for part in config]) == 0

    output = capsys.readouterr().out
    assert "\x1b" not in output
    assert "\r" not in output
    assert "step 2/2" in output.replace("step  2", "step 2")


def test_training_works_in_a_thread_and_leaves_signals_alone(run):
    before = signal.getsignal(signal.SIGINT)
    done = []

    worker = threading.Thread(target=lambda: done.append(run().reason))
    worker.start()
    worker.join()

    assert done == ["completed"]
    assert signal.getsignal(signal.SIGINT) is before


def test_nothing_of_a_dry_run_stays_on_disk(model_folder, pairs_file, tmp_path, capsys):
    data = pairs_file(8)
    before = sorted(os.listdir(tmp_path))

    code = main(["--model", str(model_folder), "--data", str(data), "--dry-run"])

    assert code == 0
    assert "8 read, 8 kept" in capsys.readouterr().out
    # No run: only which way of scoring fits the model is remembered.
    home = tmp_path / "orpo_mlx_home"
    assert sorted(os.listdir(tmp_path)) == sorted([*before, home.name])
    assert [path.parent.name for path in home.rglob("*.*")] == ["ways"]


def test_a_dry_run_tells_whether_compiling_would_pay(model_folder, pairs_file, monkeypatch, capsys):
    def tried(run: Candidate, _clock: object) -> tuple[object, object]:
        return run.memory, replace(run.speed, facts=("the step is not compiled: tried",))

    monkeypatch.setattr(run_plan, "may_pay", lambda *_: True)
    monkeypatch.setattr(Candidate, "tried", tried)

    assert main(["--model", str(model_folder), "--data", str(pairs_file(8)), "--dry-run"]) == 0
    assert "the step is not compiled: tried" in capsys.readouterr().out


def test_a_header_that_makes_most_of_the_loss_is_told(run, model_folder, pairs_file):
    def warned(**changes):
        told = [
            e.text for e in of_type(run(rows=rows, steps=1, **changes).run_dir, events.NoteLogged)
        ]
        return [text for text in told if "begin with the same" in text]

    header = "Alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu. " * 3
    rows = [
        {"prompt": f"{header}{i}", "chosen": f"Yes {i}.", "rejected": f"No {i}."} for i in range(8)
    ]
    (text,) = warned(nll_scope="full")
    tokens, share = re.search(r"same (\d+) tokens, which make (\d+)%", text).groups()
    assert int(tokens) > 20
    assert 50 < int(share) < 100
    assert warned() == []
    for row in rows:
        row["chosen"] = header + row["chosen"] + header
    assert warned(nll_scope="full") == []

"""A reward model from training to use: saved, resumed, told of, rating, comparing, exported."""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from safetensors.numpy import load_file

from orpo_mlx import demo
from orpo_mlx.__main__ import main
from orpo_mlx.adapters.reward_head import HEAD_FILE, HEAD_WEIGHT
from orpo_mlx.runs.checkpoints import iter_checkpoints
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.events import DriftMeasured, RunEvaluated, SampleGenerated, read_events
from orpo_mlx.training.train import resume

ANSWERS = ["A goose says honk. Thank you for asking!", "Hmm, perhaps honk.", "No idea."]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward")
    words = [
        "--model", demo.model_path(), "--data", some(demo.train_path(), folder / "train.jsonl"),
        "--valid-data", some(demo.valid_path(), folder / "valid.jsonl"), "--objective", "reward",
        "--steps", "5", "--micro-batch-size", "4", "--rank", "4", "--learning-rate", "5e-3",
        "--dropout", "0.1", "--eval-every", "0", "--save-every", "1", "--keep-checkpoints", "99",
        "--run-dir", folder / "run", "--quiet",
    ]  # fmt: skip
    assert main(["train", *map(str, words)]) == 0
    return RunDirectory(folder / "run")


def some(rows, file):
    """Copy the first rows of the demo's."""
    file.write_text("".join(rows.read_text().splitlines(keepends=True)[:12]))
    return file


@pytest.fixture
def candidates(tmp_path):
    file = tmp_path / "candidates.jsonl"
    file.write_text(json.dumps({"prompt": "What does a goose say?", "responses": ANSWERS}) + "\n")
    return file


def events_of(run):
    return [record.event for record in read_events(run.events_file)]


def score(capsys, run, file, *words):
    capsys.readouterr()
    assert main(["score", str(run.path), str(file), "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def by_hand(run, question, text):
    """The reward by mlx-lm alone, which knows nothing of heads."""
    model, tokenizer = mlx_lm.load(str(demo.model_path()), adapter_path=str(run.adapter_folder))
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": text}]
    ids = tokenizer.apply_chat_template(turns, tokenize=True)
    assert ids[-1] in tokenizer.eos_token_ids
    head = mx.load(str(run.adapter_folder / HEAD_FILE))[HEAD_WEIGHT]
    return (model.model(mx.array([ids]))[0, -1].astype(mx.float32) @ head[0]).item()


def test_nothing_is_sampled_and_no_drift_measured(run):
    assert not [e for e in events_of(run) if isinstance(e, SampleGenerated | DriftMeasured)]
    assert any("writes no answers" in getattr(event, "text", "") for event in events_of(run))


def test_its_end_tells_held_out_accuracy_beside_guessing(run):
    (told,) = [event for event in events_of(run) if isinstance(event, RunEvaluated)]
    assert told.verdict.startswith("rates the chosen answer higher in ")
    assert "better than guessing (50 %)" in told.verdict
    content = json.loads(run.evaluation_file.read_text())
    assert list(content["sides"]) == ["adapter"]
    measured = ["preference_accuracy", "chosen_rewards", "rejected_rewards", "reward_margin"]
    assert list(content["metrics"]) == measured


def test_an_interrupted_run_ends_with_the_same_bytes(run, tmp_path):
    again = tmp_path / "run"
    shutil.copytree(run.path, again)
    shutil.rmtree(again / "adapter")
    for checkpoint in iter_checkpoints(again / "checkpoints"):
        if int(checkpoint.name) > 3:
            shutil.rmtree(checkpoint)
    lines = (again / "events.jsonl").read_text().splitlines(keepends=True)
    (again / "events.jsonl").write_text("".join(x for x in lines if "RunFinished" not in x))
    (again / "state.json").unlink()
    resume(RunDirectory(again), {"evaluate": False})
    for name in ("adapters.safetensors", HEAD_FILE):
        assert (again / "adapter" / name).read_bytes() == (run.adapter_folder / name).read_bytes()
    last = "checkpoints/0000005/optimizer.safetensors"
    assert (again / last).read_bytes() == (run.path / last).read_bytes()


def test_the_start_of_the_head_follows_from_the_seed_and_is_about_one_in_size(run):
    head = load_file(run.checkpoints_folder / "0000000" / HEAD_FILE)[HEAD_WEIGHT]
    width = head.shape[1]
    # Of so many normal numbers the squares add up to 1, give or take a few times sqrt(2 / width).
    assert abs(float((head**2).sum()) * (width + 1) / width - 1) < 4 * (2 / width) ** 0.5
    trained = load_file(run.adapter_folder / HEAD_FILE)[HEAD_WEIGHT]
    assert np.abs(trained - head).max() > 1e-4


# Rating


def test_a_score_is_the_head_on_the_state_of_the_last_token(run, candidates, capsys):
    (row,) = score(capsys, run, candidates)["rows"]
    wanted = [by_hand(run, "What does a goose say?", text) for text in ANSWERS]
    assert row["scores"] == pytest.approx(wanted, abs=1e-4)


def test_a_pipe_is_told_each_phase_of_rating(run, candidates, capsys):
    assert main(["score", str(run.path), str(candidates)]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "(after " in line]
    assert [line.split(" ...")[0] for line in said] == ["loading the weights", "rating"]


def test_scored_pairs_agree_with_evaluate_and_can_be_trained_on_with_margins(run, tmp_path, capsys):
    out, each = tmp_path / "scored.jsonl", tmp_path / "each.jsonl"
    found = score(capsys, run, run.path.parent / "valid.jsonl", "--out", str(out))
    assert main(["evaluate", str(run.path), "--per-pair", str(each)]) == 0
    by_row = {row["row"]: row["adapter"] for row in map(json.loads, each.read_text().splitlines())}
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert found["pairs"] == len(rows) == len(by_row)
    for row in rows:
        wanted = by_row[row["provenance"]["source"]]
        assert row["score_chosen"] == pytest.approx(wanted["chosen_rewards"], abs=1e-4)
        assert row["score_rejected"] == pytest.approx(wanted["rejected_rewards"], abs=1e-4)
    right = [row["score_chosen"] > row["score_rejected"] for row in rows]
    assert found["preference_accuracy"] == pytest.approx(np.mean(right))
    words = ["--model", demo.model_path(), "--data", out, "--objective", "reward", "--use-margin"]
    words += ["--keep-inverted", "--micro-batch-size", "2", "--valid-fraction", "0", "--dry-run"]
    assert main(["train", *map(str, words)]) == 0


def test_it_compares_answers_in_place_of_a_person(run, candidates, tmp_path, capsys):
    (row,) = score(capsys, run, candidates)["rows"]
    out = tmp_path / "pairs.jsonl"
    judge = f"reward:{run.path}"
    assert main(["data", "pairs", str(candidates), str(out), "--judge", judge]) == 0
    (pair,) = map(json.loads, out.read_text().splitlines())
    best, worst = np.argmax(row["scores"]), np.argmin(row["scores"])
    said = pair["chosen"][0]["content"], pair["rejected"][0]["content"]
    assert said == (ANSWERS[best], ANSWERS[worst])
    assert pair["margin"] == pytest.approx(row["scores"][best] - row["scores"][worst], abs=1e-4)
    assert (pair["provenance"]["judged"], pair["provenance"]["reward_run"]) == (
        "by a reward model", run.id,
    )  # fmt: skip


def test_the_best_of_some_answers_that_a_model_writes(run, tmp_path):
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "pairs.jsonl"
    prompts.write_text(json.dumps({"prompt": "What does a cow say?"}) + "\n")
    words = [prompts, out, "--model", demo.model_path(), "--candidates", "4", "--max-tokens", "12"]
    judge = ["--judge", f"reward:{run.path}"]
    assert main(["data", "pairs", *map(str, words), *judge]) == 0
    (pair,) = map(json.loads, out.read_text().splitlines())
    assert pair["provenance"]["candidates"] == 4
    assert pair["chosen"] != pair["rejected"]


# Leaving


def test_peft_gets_the_head_as_a_sequence_classifier_has_it(run, tmp_path):
    out = tmp_path / "peft"
    assert main(["export", str(run.path), "--to", "peft", "--out", str(out)]) == 0
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["task_type"], config["modules_to_save"]) == ("SEQ_CLS", ["score"])
    head = load_file(out / "adapter_model.safetensors")["base_model.model.score.weight"]
    np.testing.assert_array_equal(head, load_file(run.adapter_folder / HEAD_FILE)[HEAD_WEIGHT])
    assert "text-classification" in (out / "README.md").read_text()


@pytest.mark.parametrize("format", ["gguf", "gguf-lora", "ollama", "fused", "mlx", "lmstudio"])
def test_other_formats_have_no_place_for_the_head(run, format, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["export", str(run.path), "--to", format, "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert f"--to {format}: run is a reward model" in said
    assert "peft" in said
    assert not out.exists()


# What cannot be


def test_who_writes_no_answers_is_neither_asked_nor_judged(run, tmp_path, capsys):
    words = ["--judge-url", "http://127.0.0.1:9/v1", "--judge-name", "x"]
    assert main(["judge", str(run.path), *words, "--journal", str(tmp_path / "j")]) == 2
    assert "is a reward model" in capsys.readouterr().err
    assert not (tmp_path / "j").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--use-margin"], "--use-margin: 200 of 200 pairs of"),
        (["--center", "-1"], "--center"),
        (["--beta", "0.2"], "--beta: does nothing with --objective reward"),
        (
            ["--stop-drift", "1"],
            "--stop-drift: does nothing with --objective reward; it is for",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused_and_nothing_is_written(words, said, tmp_path, capsys):
    place = tmp_path / "run"
    command = ["train", "--demo", "--objective", "reward", "--run-dir", str(place), *words]
    assert main(command) == 2
    assert said in capsys.readouterr().err
    assert not place.exists()


def test_only_a_reward_model_rates(run, candidates, tmp_path, capsys):
    other = tmp_path / "orpo"
    shutil.copytree(run.path, other)
    (other / "adapter" / HEAD_FILE).unlink()
    out = tmp_path / "pairs.jsonl"
    for words in (
        ["score", str(other), str(candidates)],
        ["data", "pairs", str(candidates), str(out), "--judge", f"reward:{other}"],
    ):
        assert main(words) == 2
        assert "a reward model is needed to rate answers" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("judge", ["me", "reward:", "model:x"])
def test_a_judge_is_named_as_it_should_be(judge, candidates, tmp_path, capsys):
    out = tmp_path / "pairs.jsonl"
    assert main(["data", "pairs", str(candidates), str(out), "--judge", judge]) == 2
    assert "needs reward:RUN" in capsys.readouterr().err


def test_prompts_without_answers_cannot_be_rated(run, tmp_path, capsys):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "What does a cow say?"}\n')
    assert main(["score", str(run.path), str(prompts)]) == 2
    assert "there is nothing to rate" in capsys.readouterr().err


def test_a_damaged_head_is_refused_before_it_is_used(run, candidates, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(run.path, broken)
    path = Path(broken / "adapter" / HEAD_FILE)
    mx.save_safetensors(str(path), {HEAD_WEIGHT: mx.full((1, 7), float("nan"))})
    assert main(["score", str(broken), str(candidates)]) == 2
    assert f"{HEAD_FILE}: tensor score.weight has shape (1, 7)" in capsys.readouterr().err

"""`orpo-mlx evaluate`: what it prints is right, and what it cannot judge it refuses."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from orpo_mlx.__main__ import main as program

Evaluate = Callable[..., dict[str, Any]]


@pytest.fixture
def evaluate(capfd: pytest.CaptureFixture[str]) -> Evaluate:
    """Return `evaluate(*words) -> what --json printed`, without drift; it must succeed."""

    def run(*words: object, drift: bool = False) -> dict[str, Any]:
        capfd.readouterr()
        besides = ["--json"] if drift else ["--json", "--no-drift"]
        code = program(["evaluate", *map(str, words), *besides])
        said = capfd.readouterr()
        assert code == 0, said.err
        assert all(json.loads(line)["event"] == "progress" for line in said.err.splitlines())
        return json.loads(said.out)

    return run


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return `refused(*words) -> stderr`; the exit code must be 2, and nothing else is printed."""

    def run(*words: object) -> str:
        capfd.readouterr()
        code = program(["evaluate", *map(str, words)])
        said = capfd.readouterr()
        assert (code, said.out) == (2, "")
        assert "Traceback" not in said.err
        assert len(said.err.strip().splitlines()) >= 2  # what is wrong, and what to do
        return said.err

    return run


def values(found: dict[str, Any], side: str) -> dict[str, float]:
    return {name: row[side]["value"] for name, row in found["metrics"].items()}


def test_the_numbers_are_those_of_the_trainings_own_evaluation(trained, evaluate):
    found = evaluate(trained.orpo.path)
    assert found["compared"] == ["base", "adapter"]
    shared = ("preference_accuracy", "log_odds_ratio", "logps_margin", "chosen_logps",
              "rejected_logps")  # fmt: skip
    for side, wanted in (("base", trained.before), ("adapter", trained.after)):
        measured = values(found, side)
        for name in shared:
            assert measured[name] == pytest.approx(wanted[name], abs=1e-6), (side, name)
        assert measured["chosen_nll"] == pytest.approx(wanted["nll_loss"], abs=1e-6)
    assert trained.before["log_odds_ratio"] != pytest.approx(
        trained.after["log_odds_ratio"], abs=0.1
    )


def odds(sums: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    p = np.exp(sums / tokens)
    return np.log(p / (1 - p))


def recomputed(rows: list[dict[str, Any]], side: str) -> dict[str, np.ndarray]:
    """The measures of each pair in plain float64, from the rows of --per-pair alone."""
    chosen = np.array([row[side]["chosen_logp_sum"] for row in rows])
    rejected = np.array([row[side]["rejected_logp_sum"] for row in rows])
    lengths = [np.array([row[f"{name}_tokens"] for row in rows]) for name in ("chosen", "rejected")]
    margin = chosen / lengths[0] - rejected / lengths[1]
    return {
        "preference_accuracy": (margin > 0).astype(float),
        "logps_margin": margin,
        "log_odds_ratio": odds(chosen, lengths[0]) - odds(rejected, lengths[1]),
    }


def test_anyone_can_compute_it_again_from_the_rows_per_pair(trained, evaluate, tmp_path):
    file = tmp_path / "pairs.jsonl"
    found = evaluate(trained.orpo.path, "--per-pair", file)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["row"] for row in rows] == [f"valid.jsonl:{i + 1}" for i in range(24)]
    # Each prompt comes twice, one row after the other.
    groups = np.array([row["group"] for row in rows])
    assert list(groups) == [i // 2 * 2 for i in range(24)]
    before, after = recomputed(rows, "base"), recomputed(rows, "adapter")
    random = np.random.default_rng(77)  # a bootstrap of its own: other draws, other code
    drawn = [random.choice(np.unique(groups), 12) for _ in range(3000)]
    places = [np.concatenate([np.flatnonzero(groups == g) for g in draw]) for draw in drawn]
    for name, per_pair in after.items():
        said = found["metrics"][name]["difference"]
        moved = per_pair - before[name]
        assert said["value"] == pytest.approx(moved.mean(), abs=2e-6)
        edges = np.quantile([moved[p].mean() for p in places], [0.025, 0.975])
        width = edges[1] - edges[0]
        assert said["low"] == pytest.approx(edges[0], abs=0.12 * width + 1e-9)
        assert said["high"] == pytest.approx(edges[1], abs=0.12 * width + 1e-9)
    tokens = sum(row["chosen_tokens"] for row in rows)
    nll = -sum(row["adapter"]["chosen_logp_sum"] for row in rows) / tokens
    assert values(found, "adapter")["chosen_nll"] == pytest.approx(nll, rel=1e-6)
    assert found["counts"]["chosen_tokens"] == tokens


def test_a_run_against_its_copy_differs_by_nothing(trained, evaluate, copy_folder):
    found = evaluate(trained.orpo.path, "--against", copy_folder(trained.orpo.path, "orpo"))
    assert found["compared"] == ["other", "adapter"]
    for row in found["metrics"].values():
        assert row["other"] == row["adapter"]
    differences = {name: row["difference"] for name, row in found["metrics"].items()}
    # No pair of 12 groups prefers otherwise; of others one might: Wilson's interval of 0 of 12.
    share = differences.pop("preference_accuracy")
    assert list(share.values()) == pytest.approx([0, -0.2425, 0.2425], abs=5e-4)
    assert all(row == {"value": 0, "low": 0, "high": 0} for row in differences.values())
    assert not found["verdict"]["is_shown"]
    assert found["verdict"]["smallest_change"] == 6 / 12


def test_two_runs_are_compared_as_each_is_with_the_base(trained, evaluate):
    both = evaluate(trained.orpo.path, "--against", trained.sft.path)
    alone = {side: evaluate(run.path) for side, run in
             (("adapter", trained.orpo), ("other", trained.sft))}  # fmt: skip
    for side, found in alone.items():
        assert values(both, side) == values(found, "adapter")
        assert values(both, "base") == values(found, "base")
    assert "of 24 held-out pairs (sft -> orpo)" in both["verdict"]["text"]
    margins = both["metrics"]["logps_margin"]
    assert margins["difference"]["value"] == pytest.approx(
        margins["adapter"]["value"] - margins["other"]["value"]
    )
    assert both["notes"] == []


def test_a_folder_and_a_file_are_judged_as_the_run_is(trained, evaluate):
    run = evaluate(trained.orpo.path)
    words = ["--model", trained.model, "--data", trained.valid]
    folder = evaluate(*words, "--adapter", trained.orpo.adapter_folder)
    for side in ("base", "adapter"):
        assert values(folder, side) == pytest.approx(values(run, side), abs=1e-5)
    assert folder["counts"]["held_out"] is False
    alone = evaluate(*words)
    assert values(alone, "base") == values(folder, "base")
    assert alone["compared"] == ["base"]
    assert alone["verdict"]["text"].startswith("prefers the chosen answer in ")


def test_pairs_are_drawn_by_the_seed_and_scores_are_looked_at(trained, evaluate, tmp_path):
    def rows(*words: object) -> list[str]:
        file = tmp_path / "pairs.jsonl"
        found = evaluate(trained.orpo.path, "--per-pair", file, *words)
        names = [json.loads(line)["row"] for line in file.read_text().splitlines()]
        assert len(names) == found["counts"]["pairs"]
        return names

    first = rows("--pairs", 12, "--seed", 1)
    assert len(set(first)) == 12
    assert rows("--pairs", 12, "--seed", 1) == first
    assert rows("--pairs", 12, "--seed", 2) != first
    found = evaluate(trained.orpo.path)
    assert [(row["low"], row["high"], row["pairs"]) for row in found["score_gaps"]] == [
        (3, 4, 12), (5, 5, 6), (6, 6, 6)
    ]  # fmt: skip
    whole = sum(row["pairs"] * row["adapter"]["value"] for row in found["score_gaps"]) / 24
    assert values(found, "adapter")["preference_accuracy"] == pytest.approx(whole)


def test_a_person_reads_a_table_and_one_sentence(trained, capfd):
    words = ["--drift-prompts", "5", "--drift-tokens", "4"]
    assert program(["evaluate", str(trained.orpo.path), *words]) == 0
    said = capfd.readouterr()
    assert "24 held-out pairs of 12 prompts" in said.out
    assert "drift from the base on 5 neutral prompts" in said.out
    for label in (
        "KL per token (adapter)",
        "preference accuracy",
        "NLL of chosen",
        "of like length",
        "score gap 5 to 5",
    ):
        assert label in said.out
    assert said.out.splitlines()[-1].startswith(("prefers the chosen", "no difference could be"))


def test_a_file_or_pipe_is_told_each_phase(trained, capfd, tmp_path):
    short = ("--drift-prompts", "5", "--drift-tokens", "2", "--report", str(tmp_path / "r.html"))
    assert program(["evaluate", str(trained.orpo.path), *short]) == 0
    lines = capfd.readouterr().err.splitlines()
    assert all(re.fullmatch(r".* \.\.\. \(after [\d.]+ m?s\)", line) for line in lines)
    assert [line.split(" ...")[0] for line in lines] == [
        "reading the data", "tokenizing the pairs", "loading the weights",
        "scoring pairs, base", "drift: plain text, base", "drift: answering",
        "scoring pairs, adapter", "drift: plain text, adapter", "drift: comparing, adapter",
        "drift: greedy answers, adapter", "drawing the intervals", "scoring example pairs",
    ]  # fmt: skip


def test_every_row_is_accounted_for_on_the_terminal(trained, tmp_path, capfd):
    long = {**trained.rows[0], "chosen": "It is. " * 900}
    rows = [*trained.rows, trained.rows[3], long, {**long, "prompt": "Why is it so?"}]
    data = tmp_path / "mine.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert program(["evaluate", str(trained.orpo.path), "--data", str(data), "--no-drift"]) == 0
    lines = capfd.readouterr().out.splitlines()
    start = lines.index("rows    27 read, 24 kept, 3 dropped")
    assert lines[start + 1 : start + 4] == [
        "        dropped 1: duplicate row (mine.jsonl:25)",
        "        dropped 2: response longer than max_seq_length 1,024 (mine.jsonl:26, "
        "mine.jsonl:27)",
        "pairs   24 pairs of 12 prompts",
    ]


def test_the_training_data_are_called_by_their_name(trained, evaluate):
    found = evaluate(trained.orpo.path, "--data", trained.valid.with_name("train.jsonl"))
    assert any("is what the run was trained on" in note for note in found["notes"])
    other = evaluate(trained.orpo.path, "--data", trained.valid)
    assert not any("was trained on" in note for note in other["notes"])


def test_a_run_on_other_data_may_have_seen_these_pairs(trained, evaluate, tmp_path):
    copy = Path(shutil.copytree(trained.sft.path, tmp_path / "elsewhere"))
    text = (copy / "config.toml").read_text()
    (copy / "config.toml").write_text(text.replace(str(trained.valid), "/other/valid.jsonl"))
    (note,) = evaluate(trained.orpo.path, "--against", copy)["notes"]
    assert "elsewhere divided its data otherwise (valid_data differ)" in note


def test_an_unfinished_run_is_judged_by_its_newest_checkpoint(trained, evaluate, tmp_path):
    copy = Path(shutil.copytree(trained.orpo.path, tmp_path / "half"))
    shutil.rmtree(copy / "adapter")
    found = evaluate(copy)
    assert found["notes"] == ["run half has no result; its checkpoint of step 6 is taken"]
    assert values(found, "adapter") == values(evaluate(trained.orpo.path), "adapter")


def test_an_adapter_in_the_format_of_peft_is_judged_alike(trained, evaluate, tmp_path, capfd):
    words = ["export", str(trained.orpo.path), "--to", "peft", "--out", str(tmp_path / "peft")]
    assert program(words) == 0
    found = evaluate("--model", trained.model, "--adapter", tmp_path / "peft",
                     "--data", trained.valid)  # fmt: skip
    wanted = values(evaluate(trained.orpo.path), "adapter")
    assert values(found, "adapter") == pytest.approx(wanted, abs=1e-5)


# What is refused


def test_a_run_that_is_being_trained_is_not_judged(trained, refused, tmp_path):
    copy = Path(shutil.copytree(trained.orpo.path, tmp_path / "busy"))
    with replace(trained.orpo, path=copy).lock():
        said = refused(copy)
    assert "being trained" in said
    assert "orpo-mlx stop busy --wait" in said


def test_an_adapter_is_not_compared_with_itself(trained, refused):
    said = refused(trained.orpo.path, "--against", f"{trained.orpo.path}/../orpo")
    assert "is what it would be compared with" in said
    assert "leave it out: then the base model is the other side" in said
    words = ["--model", trained.model, "--data", trained.valid, "--against", trained.orpo.path]
    assert "compared with" in refused(*words, "--adapter", trained.orpo.adapter_folder)


def test_the_adapter_of_a_run_is_no_run_and_it_is_said_how_it_is_judged(trained, refused):
    folder = trained.orpo.adapter_folder
    wanted = f"--model MODEL --adapter {folder} --data FILE"
    for words in ([folder], [trained.sft.path, "--against", folder]):
        said = refused(*words)
        assert f"{folder}: is an adapter, not a run" in said
        assert wanted in said


def test_an_adapter_of_another_base_is_refused(trained, refused, make_model_folder, tmp_path):
    other = make_model_folder(tmp_path / "other", seed=5)
    said = refused("--model", other, "--adapter", trained.orpo.adapter_folder,
                   "--data", trained.valid)  # fmt: skip
    assert "was trained on" in said


@pytest.mark.parametrize("count", [1, 9])
def test_too_few_pairs_are_refused(trained, refused, tmp_path, count):
    few = tmp_path / "few.jsonl"
    few.write_text("".join(json.dumps(row) + "\n" for row in trained.rows[:count]))
    said = refused(trained.orpo.path, "--data", few)
    assert f"few.jsonl: {count} usable pairs; at least 10 are needed" in said


def test_a_run_without_held_out_pairs_is_refused(trained, refused, tmp_path):
    copy = Path(shutil.copytree(trained.orpo.path, tmp_path / "none"))
    text = (copy / "config.toml").read_text()
    lines = [x for x in text.splitlines() if not x.startswith(("valid_data", "valid_fraction"))]
    (copy / "config.toml").write_text("\n".join(["valid_fraction = 0.0", *lines]))
    said = refused(copy)
    assert "held out no pairs" in said
    assert "--data FILE" in said


def test_data_that_changed_since_the_run_are_refused(trained, refused, tmp_path):
    copy = Path(shutil.copytree(trained.orpo.path, tmp_path / "changed"))
    longer = tmp_path / "valid.jsonl"
    longer.write_text(trained.valid.read_text() + json.dumps(trained.rows[0]) + "\n")
    text = (copy / "config.toml").read_text()
    (copy / "config.toml").write_text(text.replace(str(trained.valid), str(longer)))
    assert "has changed since run changed was trained" in refused(copy)


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        ([], "which run?"),
        (["RUN", "--model", "m"], "both a run and --model"),
        (["--model", "m"], "--data DATA"),
        (["RUN", "--pairs", "many"], "--pairs: many is not a whole number"),
        (["RUN", "--seed", "-1"], "--seed: -1 is not a whole number"),
        (["RUN", "--pairs", "9"], "--pairs: 9 is not a whole number from 10 on"),
        (["RUN", "--report", "x", "--per-pair", "x"], "both name x"),
        (["--model", "m", "--data", "d", "--drift-tokens", "9"], "none is given"),
        (["RUN", "--layout", "pairs"], "--layout: says how --data is read"),
        (["RUN", "--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["RUN", "--against", "nowhere"], "nowhere"),
        (["RUN", "--per-pair", "/nowhere/pairs.jsonl"], "not a place for a file"),
        (["RUN", "--pears", "9"], "did you mean --pairs?"),
        (["RUN", "--no-drift", "--drift-tokens", "9"], "--no-drift and --drift-tokens"),
        (["RUN", "--save", "--against", "RUN"], "--save: what is kept in a run's folder"),
        (["--model", "m", "--data", "d", "--save"], "--save: what is kept in a run's folder"),
        (["RUN", "--drift-prompts", "4"], "--drift-prompts: 4 is not a whole number from 5 on"),
        (["RUN", "--drift-tokens", "0"], "--drift-tokens: 0 is not a whole number from 1 on"),
        (["RUN", "--drift-data", "nowhere.txt"], "nowhere.txt: no such file"),
    ],
)
def test_what_cannot_be_meant_is_refused(trained, refused, words, needed):
    words = [str(trained.orpo.path) if word == "RUN" else word for word in words]
    assert needed in refused(*words)


def test_a_file_that_is_something_else_is_not_replaced(trained, refused):
    before = trained.valid.read_bytes()
    assert "another file already" in refused(trained.orpo.path, "--per-pair", trained.valid)
    assert trained.valid.read_bytes() == before


def test_a_score_that_is_no_number_names_its_row(trained, capfd, monkeypatch):
    from orpo_mlx.evaluation import scores

    whole = scores.iter_scores

    def broken(*words: Any) -> Any:
        for batch, found in whole(*words):
            factors = mx.array([float("nan") if i == 4 else 1.0 for i in batch.indices])
            yield batch, found._replace(chosen_sum=found.chosen_sum * factors)

    monkeypatch.setattr(scores, "iter_scores", broken)
    assert program(["evaluate", str(trained.orpo.path), "--no-drift"]) == 1
    said = capfd.readouterr()
    assert said.out == ""
    assert "valid.jsonl:5" in said.err


def test_what_is_saved_is_what_was_printed(trained, evaluate, copy_folder):
    run = copy_folder(trained.sft.path)
    printed = evaluate(run, "--save")
    assert json.loads((run / "evaluation.json").read_text()) == printed
    assert html.escape(printed["verdict"]["text"]) in (run / "report.html").read_text()


# Drift


def test_drift_is_measured_for_each_adapter_by_the_seed(trained, evaluate, tmp_path):
    own = tmp_path / "own.txt"
    own.write_text("".join(f"Say {i} words.\n" for i in range(7)))
    words = [trained.orpo.path, "--drift-data", own, "--drift-tokens", 5]
    found = evaluate(*words, "--against", trained.sft.path, drift=True)["drift"]
    assert (found["prompts"], found["prompts_from"]) == (7, str(own))
    assert 7 <= found["answer_tokens"] <= 35
    assert set(found["kl_per_token"]) == {"adapter", "other"}
    for row in found["kl_per_token"].values():
        assert 0 < row["low"] < row["value"] < row["high"]
    moved = found["text_nll"]
    assert moved["difference"]["value"] == pytest.approx(
        moved["adapter"]["value"] - moved["base"]["value"]
    )
    assert len(found["answers"]) == 5
    apart = [shown["kl_per_token"] for shown in found["answers"]]
    assert apart == sorted(apart, reverse=True)
    alone = evaluate(*words, drift=True)["drift"]
    assert alone["kl_per_token"]["adapter"] == found["kl_per_token"]["adapter"]
    assert alone == evaluate(*words, drift=True)["drift"]
    other = evaluate(*words, "--seed", 1, drift=True)["drift"]
    shares = [one["kl_per_token"]["adapter"]["value"] for one in (other, alone)]
    assert shares[0] != shares[1]  # not the interval alone: other answers were drawn


def test_a_model_alone_has_no_drift(trained, evaluate):
    found = evaluate("--model", trained.model, "--data", trained.valid, drift=True)
    assert found["drift"] is None


# The page


def test_the_report_shows_the_pairs_that_moved_most_with_their_tokens(
    trained, evaluate, tmp_path
):  # fmt: skip
    file, rows_file = tmp_path / "report.html", tmp_path / "pairs.jsonl"
    found = evaluate(trained.orpo.path, "--report", file, "--per-pair", rows_file)
    text = file.read_text(encoding="utf-8")
    assert found["verdict"]["text"].replace("->", "-&gt;") in text
    rows = [json.loads(line) for line in rows_file.read_text().splitlines()]
    before, after = recomputed(rows, "base"), recomputed(rows, "adapter")
    moved = after["logps_margin"] - before["logps_margin"]
    shown = re.findall(r"<h3>(valid\.jsonl:\d+): margin", text)
    assert shown[0] == rows[int(np.argmax(moved))]["row"]
    assert len(set(shown)) == 8
    assert rows[int(np.argmin(moved))]["row"] == shown[4]
    # The tokens' log-probs add up to what the pair scored.
    section = text.split(f"<h3>{shown[0]}")[1].split("</section>")[0]
    chosen = section.split("<h4>chosen</h4>")[1].split("<h4>")[0]
    numbers = np.array(re.findall(r"<i>(-?[\d.]+)</i><i>(-?[\d.]+)</i>", chosen), float)
    row = next(row for row in rows if row["row"] == shown[0])
    wanted = [row[side]["chosen_logp_sum"] for side in ("base", "adapter")]
    assert len(numbers) == row["chosen_tokens"]
    assert numbers.sum(axis=0) == pytest.approx(wanted, abs=0.006 * len(numbers))
    assert evaluate(trained.orpo.path, "--report", file)  # an earlier report is replaced


def test_the_report_on_other_pairs_still_names_what_the_run_was_trained_on(
    trained, evaluate, tmp_path
):  # fmt: skip
    file, pairs = tmp_path / "report.html", tmp_path / "others.jsonl"
    pairs.write_bytes(trained.valid.read_bytes())
    evaluate(trained.orpo.path, "--data", pairs, "--report", file)
    measured, settings = file.read_text(encoding="utf-8").split("<h2>Settings of the run")
    assert f"<td>Data</td><td>{pairs}</td>" in measured
    assert f"<td>data</td><td>{trained.valid.with_name('train.jsonl')}</td>" in settings


def test_a_page_that_is_no_report_is_not_replaced(trained, refused, tmp_path):
    file = tmp_path / "mine.html"
    file.write_text("<p>mine</p>")
    assert "another file already" in refused(trained.orpo.path, "--report", file)
    assert file.read_text() == "<p>mine</p>"


def test_rewards_from_an_adapter_are_measured_from_it(trained, evaluate, tmp_path, capfd):
    run, start, beta = tmp_path / "from-start", trained.orpo.adapter_folder, 0.3
    words = ["--objective", "dpo", "--reference", "start", "--init-adapter", start, "--beta", beta,
             "--model", trained.model, "--data", trained.valid, "--valid-data", trained.valid,
             "--steps", "3", "--learning-rate", "1e-3", "--run-dir", run]  # fmt: skip
    assert program(["train", *map(str, words)]) == 0
    capfd.readouterr()
    rows_file = tmp_path / "rows.jsonl"
    evaluate(run, "--against", trained.orpo.path, "--per-pair", rows_file)
    rows = [json.loads(line) for line in rows_file.read_text().splitlines()]
    found = evaluate(run)
    at_end = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    for answer in ("chosen", "rejected"):
        sums = {
            side: np.array([row[side][f"{answer}_logp_sum"] for row in rows])
            for side in ("base", "other", "adapter")
        }
        wanted = {side: beta * (sums[side] - sums["other"]).mean() for side in ("base", "adapter")}
        assert min(map(abs, wanted.values())) > 1e-3
        for said in (found, at_end):
            assert values(said, "base")[f"{answer}_rewards"] == pytest.approx(
                wanted["base"], abs=1e-5
            )
            assert values(said, "adapter")[f"{answer}_rewards"] == pytest.approx(
                wanted["adapter"], abs=1e-5
            )


def test_a_start_that_is_gone_is_missed(trained, refused, tmp_path, capfd):
    start, run = tmp_path / "start", tmp_path / "run"
    shutil.copytree(trained.orpo.adapter_folder, start)
    words = ["--objective", "dpo", "--reference", "start", "--init-adapter", start, "--model",
             trained.model, "--data", trained.valid, "--valid-data", trained.valid, "--steps", "1",
             "--run-dir", run]  # fmt: skip
    assert program(["train", *map(str, words)]) == 0
    shutil.rmtree(start)
    assert str(start) in refused(run)

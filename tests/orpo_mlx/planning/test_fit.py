"""What is saved on, what is suggested, what a probe measures, and models on the Hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from support.hub import point_client

from orpo_mlx.adapters.dropout import KeyedDropout
from orpo_mlx.cli import main as command
from orpo_mlx.config import build_config
from orpo_mlx.data.batching.buckets import Bucket, BucketTable
from orpo_mlx.data.batching.shape import BatchShape, Lengths
from orpo_mlx.demo.simulate import Script, simulate
from orpo_mlx.errors import ConfigError
from orpo_mlx.models.shape import Linear, ModelShape
from orpo_mlx.planning import fit
from orpo_mlx.planning.batch_shape import longest_batch
from orpo_mlx.planning.memory import Savings, count_costs, iter_savings
from orpo_mlx.planning.plan import Question
from orpo_mlx.planning.search import first_fit, without_recomputing
from orpo_mlx.runs import events
from orpo_mlx.runs.checkpoints import FoundCheckpoint
from orpo_mlx.runs.control import send_request
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.listing import memory_shares
from orpo_mlx.runs.lock import RunLock
from orpo_mlx.scoring.batches import buckets_of_run
from orpo_mlx.scoring.packed import PackedRow
from orpo_mlx.scoring.select import WAYS
from orpo_mlx.training import memory, prepare
from orpo_mlx.training.preparation import plan as run_plan
from orpo_mlx.training.speed.trial import Begun, Candidate, Trial
from orpo_mlx.training.train import resume, train


def a_model(vocab: int = 1000, blocks: int = 12) -> ModelShape:
    block = tuple(
        Linear(f"layers.0.{name}", 256, 1024) for name in ("q_proj", "k_proj", "v_proj", "up_proj")
    )
    return ModelShape(
        weight_bytes=10_000_000, vocab=vocab, hidden=256, heads=4, head_width=256, kv_width=256,
        float_bytes=4, blocks=(block,) * blocks,
    )  # fmt: skip


def ask(limit: int = 1 << 60, vocab: int = 1000, way: str = "packed", **settings: Any) -> Question:
    config = build_config({"num_layers": -1, "max_seq_length": 512, **settings})
    pairs = [Lengths(200, 150, 100)] * 8
    return Question(a_model(vocab), config, WAYS[way], pairs, limit=limit)


# What is saved on


def test_auto_recomputes_nothing_where_everything_fits():
    assert ask().plan().savings.recompute_every == 0


def test_auto_recomputes_as_few_blocks_as_fit():
    """Each limit just below what one share of the blocks needs leads to the next share."""
    limit, taken = ask().plan().estimate.total, []
    while True:
        plan = ask(limit).plan()
        if plan.estimate.total > limit:
            break
        taken.append(plan.savings.recompute_every)
        limit = plan.estimate.total - 1
    every = list(dict.fromkeys(taken))
    assert every == [0, 8, 4, 3, 2, 1]


@pytest.mark.parametrize(("setting", "every"), [("off", 0), ("on", 3)])
def test_what_the_user_sets_is_not_changed(setting: str, every: int):
    own = {"grad_checkpoint_every": 3} if setting == "on" else {}
    for limit in (1, 1 << 60):
        plan = ask(limit, grad_checkpoint=setting, **own).plan()
        assert plan.savings.recompute_every == every


@pytest.mark.parametrize("way", ["shared", "fork"])
def test_ways_that_cannot_recompute_do_not(way: str):
    assert ask(1, way=way).plan().savings.recompute_every == 0


def test_the_head_takes_what_the_layers_need_anyway_but_not_less_than_it_needs_to_be_fast():
    # Layers take 119.7 MB; of a chunk 4 buffers of 4 bytes for each word are alive at a time.
    assert ask(vocab=14_600).plan().savings.head_chunk == 512
    assert ask(vocab=14_700).plan().savings.head_chunk == 256
    assert ask(vocab=29_200).plan().savings.head_chunk == 256
    assert ask(vocab=29_300).plan().savings.head_chunk == 128
    assert ask(vocab=200_000).plan().savings.head_chunk == 64


def test_a_smaller_chunk_is_taken_before_a_block_is_recomputed():
    roomy = ask(vocab=200_000).plan()
    tight = ask(roomy.estimate.total - 1, vocab=200_000).plan()
    assert tight.savings == Savings(0, 32)
    assert tight.estimate.total < roomy.estimate.total


def test_what_does_not_fit_is_answered_by_what_needs_least():
    question = ask(1)
    train = longest_batch(question.train, question.config, WAYS["packed"])
    costs = count_costs(question.shape, question.config, train)
    options = iter_savings(question.config, costs)
    totals = [costs.with_savings(option).total for option in options]
    assert question.plan().estimate.total == min(totals) < totals[0]


def test_the_trunk_cache_counts():
    question = replace(ask(), beside=123_456_789)
    assert question.answer().total == ask().answer().total + 123_456_789
    limit = question.answer().total - 1
    assert replace(question, limit=limit).plan().savings.recompute_every > 0


# What is refused and suggested


@pytest.mark.parametrize("setting", ["auto", "off", "on"])
def test_a_refusal_names_settings_that_fit(setting: str):
    need = ask(1, grad_checkpoint=setting).answer().total
    question = ask(need // 2, grad_checkpoint=setting)
    with pytest.raises(ConfigError) as caught:
        fit.require_fit(question)
    better = first_fit("instead", question)
    assert better is not None
    assert f"These settings would fit: {better.flags}." in caught.value.what_to_do
    assert "--allow-overcommit" in caught.value.what_to_do
    assert question.answer(**better.changes).total == better.total <= need // 2


def test_a_run_that_only_fits_by_recomputing_is_not_refused_unless_it_is_off():
    least = ask(1, grad_checkpoint="off", tokens_per_batch=256).answer().total
    assert fit.require_fit(ask(least - 1, tokens_per_batch=256)).savings.recompute_every > 0
    with pytest.raises(ConfigError) as caught:
        fit.require_fit(ask(least - 1, grad_checkpoint="off"))
    assert "--grad-checkpoint auto" in caught.value.what_to_do


def test_overcommitting_goes_on_with_what_needs_least():
    plan = fit.require_fit(ask(1, allow_overcommit=True))
    assert plan.savings.recompute_every == 1
    assert plan.estimate.total > 1


def test_a_resumed_run_keeps_its_savings_or_is_refused():
    kept = Savings(2, 64)
    assert fit.require_fit(ask(), kept).savings == kept
    with pytest.raises(ConfigError, match="are there") as caught:
        fit.require_fit(ask(1), kept)
    assert "resume it where there is more memory" in caught.value.what_to_do


def test_more_blocks_than_the_model_has_are_refused_as_by_a_training(
    model_folder: Path, capsys: pytest.CaptureFixture[str]
):
    model = ["fit", "--model", str(model_folder), "--memory", "64GB"]
    assert command.main([*model, "--num-layers", "99"]) == 2
    said = capsys.readouterr().err
    assert "--num-layers 99: this model has" in said
    assert "or -1 for all" in said
    assert command.main(model) == 0  # the default is no wish
    assert command.main([*model, "--num-layers", "99", "--init-adapter", "x"]) == 0


# Runs


@pytest.fixture
def settings(
    model_folder: Path, pairs_file: Callable[..., Path], tmp_path: Path
) -> Callable[..., Any]:
    data = str(pairs_file())

    def build(name: str = "run", **more: Any) -> Any:
        own = {"model": str(model_folder), "data": data, "steps": 4, "valid_fraction": 0}
        return build_config({**own, "run_dir": str(tmp_path / "runs" / name), **more})

    return build


def starts(run: Path) -> list[events.RunStarted]:
    told = [record.event for record in events.read_events(run / "events.jsonl")]
    return [event for event in told if isinstance(event, events.RunStarted)]


class _StopsAt:
    """A report that asks its run to stop after a step."""

    def __init__(self, run: Path, step: int) -> None:
        self.run, self.step = RunDirectory(run), step

    def handle(self, event: Any, line: str = "") -> None:
        if isinstance(event, events.StepCompleted) and event.step == self.step:
            send_request(self.run, "stop")

    def catch_up(self, past: Any) -> None: ...
    def progress(self, *_: Any) -> None: ...
    def close(self) -> None: ...


def test_a_resumed_run_saves_on_what_it_saved_on_before(
    settings: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    """Memory is short at the start and plenty at the resume; the bytes are those of one run."""
    monkeypatch.setattr(memory, "available_bytes", lambda: 1_000_000)
    own = {"allow_overcommit": True, "report_every": 1}
    whole = train(settings("whole", **own))
    stopped = train(settings("parts", **own), report=_StopsAt(whole.run_dir.parent / "parts", 2))
    assert stopped.reason == "stopped"
    monkeypatch.setattr(memory, "available_bytes", lambda: 1 << 50)
    again = resume(RunDirectory(stopped.run_dir))

    first, second = starts(again.run_dir)
    assert first.grad_checkpoint_every == second.grad_checkpoint_every > 0
    assert first.head_chunk == second.head_chunk
    fresh = train(settings("fresh", report_every=1))
    assert starts(fresh.run_dir)[0].grad_checkpoint_every == 0
    weights = [
        (result.run_dir / "adapter" / "adapters.safetensors").read_bytes()
        for result in (whole, again)
    ]
    assert weights[0] == weights[1]


def test_recomputing_by_itself_is_told(
    settings: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(memory, "available_bytes", lambda: 1_000_000)
    result = train(settings(allow_overcommit=True, steps=1))
    told = (result.run_dir / "events.jsonl").read_text()
    assert "adapted blocks is computed again" in told
    assert "would do without" not in told


def test_a_smaller_forward_pass_without_recomputing_is_named():
    own = {"tokens_per_batch": 2048}
    limit = ask(**own).plan().estimate.total - 1
    question = ask(limit, **own)
    assert question.plan().savings.recompute_every > 0
    better = without_recomputing(question)
    assert better is not None
    assert better.flags == "--tokens-per-batch 1024"
    assert question.plan(**better.changes).savings.recompute_every == 0
    assert without_recomputing(ask(1, **own)) is None


def test_the_band_is_from_finished_runs_here(
    settings: Callable[..., Any], capsys: pytest.CaptureFixture[str]
):
    result = train(settings(steps=1))
    started = starts(result.run_dir)[0]
    told = [record.event for record in events.read_events(result.run_dir / "events.jsonl")]
    finished = next(event for event in told if isinstance(event, events.RunFinished))
    share = finished.peak_memory_bytes / started.estimated_peak_bytes
    runs = str(result.run_dir.parent)
    simulate(Script(steps=3, speed=0.0), run_dir=str(Path(runs) / "simulated"))
    assert memory_shares(runs) == [share]

    command.main(["fit", "--model", started.config["model"], "--runs-dir", runs])
    shown = capsys.readouterr().out
    assert f"measured peaks were {round(share * 100)} % of the estimate in 1 run on" in shown


# The probe


def test_a_probe_tells_time_and_peak_and_keeps_nothing(
    settings: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = settings(steps=6)
    words = ["fit", "--model", config.model, "--data", config.data, "--steps", "6", "--probe"]
    words += ["--runs-dir", str(tmp_path / "none")]
    held = mx.get_active_memory()  # by other tests of this process
    assert command.main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    time = found["time"]
    assert time["steps"] == 6
    assert time["seconds_total"] == pytest.approx(6 * time["seconds_per_step"])
    assert 0 < time["seconds_per_step"] <= 1.001 * time["batch_seconds"]
    assert 0 < time["peak_memory_bytes"] <= held + time["estimated_bytes"]
    assert time["batch_pairs"] == 4
    assert not (tmp_path / "none").exists()
    assert command.main(words) == 0
    assert "for 6 steps" in capsys.readouterr().out


def test_the_longest_batch_is_tried(
    settings: Callable[..., Any], pairs_file: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    rows = [{"prompt_ids": [5] * 9, "chosen_ids": [6, 2], "rejected_ids": [7, 2]}] * 7
    rows.append({"prompt_ids": [5] * 50, "chosen_ids": [6] * 60 + [2], "rejected_ids": [7, 2]})
    data = str(pairs_file(rows, "uneven.jsonl"))
    words = ["--model", settings().model, "--data", data, "--valid-fraction", "0", "--json"]
    command.main(["fit", *words, "--micro-batch-size", "1", "--probe"])
    time = json.loads(capsys.readouterr().out)["time"]
    assert (time["batch_pairs"], time["batch_tokens"]) == (1, 50 + 61 + 2)
    assert time["seconds_per_step"] < time["batch_seconds"]


def test_a_probe_needs_pairs(model_folder: Path, capsys: pytest.CaptureFixture[str]):
    assert command.main(["fit", "--model", str(model_folder), "--probe"]) == 2
    assert "--probe: needs pairs" in capsys.readouterr().err


def test_what_does_not_fit_is_not_probed(
    settings: Callable[..., Any], capsys: pytest.CaptureFixture[str]
):
    config = settings()
    words = ["fit", "--model", config.model, "--data", config.data, "--probe", "--memory", "1MB"]
    assert command.main(words) == 1
    assert "no steps were tried" in capsys.readouterr().out


# Models on the Hub


@pytest.fixture
def hub(hub_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    point_client(hub_server, tmp_path / "cache", monkeypatch)
    return hub_server


def test_a_model_on_the_hub_is_judged_without_its_weights(
    hub: Any, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    hub.add_model("who/tiny", model_folder)
    weights = (model_folder / "model.safetensors").stat().st_size
    assert command.main(["fit", "--model", "who/tiny", "--memory", "16GB", "--json"]) == 0
    there = json.loads(capsys.readouterr().out)
    assert command.main(["fit", "--model", str(model_folder), "--memory", "16GB", "--json"]) == 0
    here = json.loads(capsys.readouterr().out)
    assert there == here
    assert there["parts"]["weights"] == pytest.approx(weights, rel=0.01)
    assert hub.sent_bytes < weights
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_model_in_several_files_is_added_up(
    hub: Any, model_folder: Path, copy_folder: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    import mlx.core as mx

    folder = copy_folder(model_folder)
    arrays: Any = mx.load(str(folder / "model.safetensors"))
    names = sorted(arrays)
    (folder / "model.safetensors").unlink()
    parts = {"model-00001-of-00002.safetensors": names[:9]}
    parts["model-00002-of-00002.safetensors"] = names[9:]
    for file, own in parts.items():
        mx.save_safetensors(str(folder / file), {name: arrays[name] for name in own})
    places = {name: file for file, own in parts.items() for name in own}
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    hub.add_model("who/sharded", folder)
    command.main(["fit", "--model", "who/sharded", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["parts"]["weights"] == sum(array.nbytes for array in arrays.values())


@pytest.mark.parametrize(
    ("fault", "says", "advice"),
    [
        ("gated", "this model is gated", "accept the terms"),
        ("bad_token", "refused the access token", "hf auth login"),
        ("forbidden", "may not read this model", "read access"),
        ("rate_limited", "too many requests", "Wait a few minutes"),
        ("unavailable", "a fault of its own", "Try again later"),
    ],
)
def test_what_the_hub_refuses_is_said_in_a_sentence(
    hub: Any, model_folder: Path, capsys: pytest.CaptureFixture[str], fault: str, says: str,
    advice: str,
):  # fmt: skip
    hub.add_model("who/tiny", model_folder)
    hub.fault, hub.fault_on = fault, "who/tiny"
    assert command.main(["fit", "--model", "who/tiny"]) == 2
    shown = capsys.readouterr().err
    assert says in shown
    assert advice in shown
    assert "Traceback" not in shown


def test_an_unknown_model_is_said(hub: Any, capsys: pytest.CaptureFixture[str]):
    assert command.main(["fit", "--model", "who/nothing"]) == 2
    assert "knows no such model" in capsys.readouterr().err


def test_offline_the_cached_copy_is_judged(
    hub: Any, model_folder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    from huggingface_hub import constants

    from orpo_mlx.models.download import download_model

    hub.add_model("who/tiny", model_folder)
    download_model("who/tiny")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert command.main(["fit", "--model", "who/tiny", "--memory", "16GB"]) == 0
    assert "fits:" in capsys.readouterr().out
    assert command.main(["fit", "--model", "who/other", "--memory", "16GB"]) == 2
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err


# Batches filled up to a few shapes


def test_shapes_for_which_there_is_no_room_are_given_up(
    settings: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    prepared = prepare.prepare(settings())
    plain, bucket = prepared.speed.train, Bucket(((300, 300),) * 4, 3600, 2400, 600)
    speed = replace(
        prepared.speed,
        compiled=True,
        train=replace(plain, bucket_table=BucketTable((bucket,), 0.0)),
    )

    def with_buckets(available: int, resumed: FoundCheckpoint | None = None) -> Any:
        monkeypatch.setattr(memory, "available_bytes", lambda: available)
        path, data = prepared.folder.path, prepared.data
        needs = memory.find_needs(prepared.config, prepared.spec, path, data, resumed)
        return needs.with_buckets(prepared.plan, speed)

    larger, kept = with_buckets(1 << 60)
    assert kept is speed
    assert larger.estimate.total > 2 * prepared.plan.estimate.total
    assert larger.savings == prepared.plan.savings
    same, given_up = with_buckets(larger.estimate.total - 1)
    assert same is prepared.plan
    assert (given_up.compiled, given_up.train.bucket_table) == (False, None)
    assert "too little memory" in given_up.notes[-1]
    resumed = FoundCheckpoint(Path(), {"compiled": True}, ())
    with pytest.raises(ConfigError, match="are there") as caught:
        with_buckets(larger.estimate.total - 1, resumed)
    assert "resume it where there is more memory" in caught.value.what_to_do


def test_a_resumed_run_is_compiled_only_if_it_was(
    settings: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    """There is no room for filled-up batches at the start, and plenty at the resume."""

    def begin(run: Candidate, _clock: Any) -> Begun:
        table = buckets_of_run(run.config, run.speed.train, run.pairs, run.total_steps)
        return Begun(run.speed.train, table, (0,), 1, 1.0, 60.0)

    def compile_it(_run: Candidate, begun: Begun, _clock: Any) -> Trial:
        return Trial(begun.table, 1, 1.0, 0.5, 0.0)

    monkeypatch.setattr(run_plan, "may_pay", lambda *_: True)
    monkeypatch.setattr(Candidate, "_begin", begin)
    monkeypatch.setattr(Candidate, "_compile", compile_it)
    huge = BatchShape(rows=1 << 40)
    with monkeypatch.context() as short:
        short.setattr(PackedRow, "bucket_shape", lambda *_: huge)
        config = settings(report_every=1)
        train(config, report=_StopsAt(Path(config.run_dir), 2))
    again = resume(RunDirectory(Path(config.run_dir)))

    assert again.reason == "completed"
    assert [start.is_compiled for start in starts(again.run_dir)] == [False, False]


def test_dropout_does_not_decide_how_pairs_are_scored(settings: Callable[..., Any]):
    """Its masks follow the shape of a batch: with it no two ways have the same gradient."""
    prepared = prepare.prepare(settings(dropout=0.3))

    assert (prepared.scoring.way.name, prepared.scoring.why) == ("packed", "")
    prepared.model.train()
    layers = [m for m in prepared.model.modules() if isinstance(m, KeyedDropout)]
    assert layers
    assert all(layer.training for layer in layers)


def test_what_trainings_that_are_going_on_may_take_is_not_available(
    settings: Callable[..., Any], capsys: pytest.CaptureFixture[str]
):
    result = train(settings(steps=1))
    estimated = starts(result.run_dir)[0].estimated_peak_bytes
    words = ["fit", "--model", str(settings().model), "--runs-dir", str(result.run_dir.parent)]

    def told(*more: str) -> dict[str, Any]:
        command.main([*words, *more, "--json"])
        return json.loads(capsys.readouterr().out)

    before = told()
    with RunLock(RunDirectory(result.run_dir).lock_file):
        beside, given = told(), told("--memory", "1GB")
    assert before["taken_bytes"] == 0
    assert beside["taken_bytes"] == estimated > 0
    assert beside["available_bytes"] == before["available_bytes"] - estimated
    assert (given["available_bytes"], given["taken_bytes"]) == (1_000_000_000, 0)
    assert told() == before


def test_long_rows_are_scored_without_mask_arrays_as_fit_says(
    settings: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = [
        {"prompt_ids": [3 + i] * (1200 + 100 * i), "chosen_ids": [4, 5], "rejected_ids": [6]}
        for i in range(4)
    ]
    data = tmp_path / "long.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    long = {"data": str(data), "max_seq_length": 2048, "valid_fraction": 0, "steps": 1}
    words = ["fit", "--model", str(settings().model), "--data", str(data), "--json"]
    assert command.main([*words, "--max-seq-length", "2048", "--valid-fraction", "0"]) == 0
    said = json.loads(capsys.readouterr().out)["scoring"]

    prepared = [prepare.prepare(settings(**long)) for _ in range(2)]  # tried, and remembered
    assert {said, *(one.scoring.way.name for one in prepared)} == {"causal"}
    assert prepared[0].identity["scoring"] == "causal"
    # Remembered is what was tried for long rows; short ones are tried for themselves.
    assert prepare.prepare(settings(steps=1)).scoring.way.name == "packed"

"""The benchmark scripts run and reckon right; how fast anything is, no test says."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import psutil
import pytest

from orpo_mlx import demo
from orpo_mlx.runs.events import EventWriter, RunFinished

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
TINY = shlex.split(
    "--hidden 32 --layers 1 --heads 2 --vocab 64 --pairs 4 --prompt-tokens 4 --response-tokens 4 "
    "--micro-batch-size 2 --steps 2 --warmup-steps 1"
)
MEASURED = (
    "step_ms",
    "pairs_per_second",
    "tokens_per_second",
    "cpu_seconds_per_step",
    "peak_memory_bytes",
    "peak_rss_bytes",
)


def run_benchmark(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def read_json(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def compare() -> ModuleType:
    """compare.py as a module."""
    spec = importlib.util.spec_from_file_location("benchmark_compare", BENCHMARKS / "compare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def imported(name: str) -> ModuleType:
    """A script as a module; it imports its neighbours by their bare names."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with this project's core in two commits; the real one is left alone."""
    if shutil.which("git") is None:
        pytest.skip("comparing revisions needs git")
    folder = tmp_path / "repository"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "orpo_mlx", folder / "orpo_mlx", ignore=ignore)
    git(folder, "init", "--quiet")
    commit(folder, "one")
    (folder / "note.txt").write_text("two")
    commit(folder, "two")
    return folder


def git(folder: Path, *arguments: str) -> str:
    # Run from a git hook, these variables would point at the repository of the hook.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return done.stdout.strip()


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all", "--force")
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.invalid")
    git(folder, *identity, "commit", "--quiet", "--no-verify", "--no-gpg-sign", "-m", message)


def test_step_time_measures_something_of_everything():
    measured = read_json(run_benchmark("step_time.py", *TINY, "--json"))
    for name in MEASURED:
        assert math.isfinite(measured[name]), name
        assert measured[name] > 0, name
    assert len(measured["step_seconds"]) == 2
    # 64 words, nothing learned yet: about log 64 nats per token, plus 0.1 * log 2.
    assert measured["loss"] == pytest.approx(math.log(64) + 0.1 * math.log(2), rel=0.2)
    assert measured["conditions"]["workload"]["hidden"] == 32


@pytest.mark.slow
def test_step_time_reaches_every_option_of_the_trainer():
    options = ["--quantize", "4", "--grad-checkpoint", "--accumulation", "2", "--rank", "2"]
    options += ["--targets", "q_proj,v_proj", "--warmup-steps", "0", "--set", "lam=0.25"]
    measured = read_json(run_benchmark("step_time.py", *TINY, *options, "--json"))
    settings = measured["conditions"]["settings"]
    assert measured["conditions"]["workload"]["bits"] == 4
    assert settings["grad_checkpoint"] == "on"
    assert settings["grad_accumulation_steps"] == 2
    assert settings["rank"] == 2
    assert settings["target_modules"] == ["q_proj", "v_proj"]
    assert settings["lam"] == 0.25
    assert measured["cpu_seconds_per_step"] > 0


def test_step_time_refuses_a_setting_that_does_not_exist():
    done = run_benchmark("step_time.py", *TINY, "--set", "rnak=4")
    assert done.returncode == 2
    assert "Did you mean rank?" in done.stderr


@pytest.mark.slow
def test_mlx_own_cross_entropy_is_measured_beside_the_heads(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.ways.cross_entropy", "--words", "700",
         "--positions", "4", "--rounds", "2"],
        capture_output=True, text=True, timeout=120, cwd=ROOT,
    )  # fmt: skip
    found = read_json(done)

    assert found["words"] == 700
    for ours, _ in [found["exact"][kind]["ours"] for kind in ("wide", "sure", "high")]:
        assert ours < 1e-4
    assert set(found["cost"]["milliseconds"]) == {"ours", "fused"}


@pytest.mark.slow
def test_compiling_is_measured_round_by_round(tmp_path: Path):
    if shutil.which("g++") is None:
        pytest.skip("mx.compile needs a C++ compiler on a CPU")
    out = tmp_path / "compiled.json"
    words = ["--model", str(demo.model_path()), "--data", str(demo.train_path()), "--rounds", "2"]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.ways.compiled", *words, "--out", str(out)],
        check=True, capture_output=True, timeout=300, cwd=ROOT,
    )  # fmt: skip
    found = json.loads(out.read_text())

    assert set(found["rows"]) == {"tight", "filled", "compiled"}
    assert all(len(taken) == 2 for taken in found["taken"].values())
    assert found["rows"]["tight"]["ratio"] == 1
    assert 1 <= len(found["compiling"]) <= 3


def test_compare_measures_two_revisions_and_leaves_no_worktree(repository):
    revisions = ["--a-revision", "HEAD~1", "--b-revision", "HEAD", "--rounds", "1", "--json"]
    done = run_benchmark("compare.py", *revisions, "--repository", str(repository), "--", *TINY)
    report = read_json(done)
    commits = [git(repository, "rev-parse", name) for name in ("HEAD~1", "HEAD")]
    assert [side["revision"] for side in report["sides"]] == commits
    # The same trainer on the same pairs: equal loss, and one round never makes a difference real.
    assert report["same_loss"] is True
    assert len(report["comparisons"]) == 4
    for comparison in report["comparisons"]:
        assert comparison["ratio"] > 0
        assert math.isfinite(comparison["ratio"])
        assert comparison["is_real"] is False
    assert len(git(repository, "worktree", "list").splitlines()) == 1


@pytest.mark.slow
def test_compare_measures_two_settings_and_says_when_they_do_other_work():
    options = ["--a", "--rank 2 --set lam=0", "--b", "--grad-checkpoint", "--rounds", "1"]
    done = run_benchmark("compare.py", *options, "--", *TINY)
    assert done.returncode == 0, done.stderr
    assert "B: working tree" in done.stdout
    assert "--grad-checkpoint" in done.stdout
    assert "the work was not the same" in done.stdout
    assert "fewer than 6 rounds: no verdict" in done.stdout


def test_compare_names_a_revision_that_does_not_exist(repository):
    done = run_benchmark("compare.py", "--a-revision", "nope", "--repository", str(repository))
    assert done.returncode == 1
    assert "nope" in done.stderr or "rev-parse" in done.stderr


def test_sides_run_in_abba_order(compare, monkeypatch):
    order = []

    def run_once(side):
        order.append(side.name)
        return {"step_ms": 1.0}

    monkeypatch.setattr(compare, "run_once", run_once)
    a, b = (compare.Side(name, ROOT, "working tree", []) for name in "AB")
    compare.run_rounds(a, b, 4)
    assert "".join(order) == "ABBAABBA"


def test_twice_the_time_in_every_round_is_a_ratio_of_two(compare):
    # The machine slows down from round to round; within each round B takes twice as long.
    a = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]
    found = compare.compare("step_ms", a, [2 * x for x in a])
    assert (found.median_a, found.median_b) == pytest.approx((1.25, 2.5))
    assert (found.ratio, found.low, found.high) == pytest.approx((2, 2, 2))
    assert found.is_real


def test_no_difference_is_claimed_when_rounds_disagree(compare):
    found = compare.compare("step_ms", [1.0] * 8, [0.8, 1.3] * 4)
    assert found.ratio == pytest.approx(1.05)
    assert found.low < 1 < found.high
    assert not found.is_real


def test_no_difference_is_claimed_between_equal_numbers_or_from_five_rounds(compare):
    assert not compare.compare("peak_memory_bytes", [7.0] * 8, [7.0] * 8).is_real
    assert not compare.compare("peak_memory_bytes", [7.0] * 5, [9.0] * 5).is_real
    assert compare.compare("peak_memory_bytes", [7.0] * 6, [9.0] * 6).is_real


def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says(compare):
    import numpy as np

    random, covered = np.random.default_rng(0), 0
    for _ in range(200):
        shared = random.lognormal(0, 0.05, 12)  # what both runs of a round have in common
        a, b = (shared * random.lognormal(0, 0.02, 12) for _ in range(2))
        found = compare.compare("step_ms", list(a), list(1.2 * b))
        covered += found.low <= 1.2 <= found.high
    assert 0.88 <= covered / 200 <= 1


@pytest.mark.parametrize(
    ("words", "a", "b", "shared"),
    [
        (["--a", "--grad-checkpoint", "--b", ""], "--grad-checkpoint", "", []),
        (["--a=--rank 4", "--", "--json", "--a"], "--rank 4", "", ["--json", "--a"]),
        (["--b", "--rank 4 --steps 2", "--rounds", "3"], "", "--rank 4 --steps 2", []),
    ],
)
def test_options_of_a_side_may_begin_with_dashes(compare, words, a, b, shared):
    args, rest = compare.parse(words)
    assert (args.a, args.b, rest) == (a, b, shared)


# side by side


@pytest.fixture(scope="module")
def side_by_side() -> ModuleType:
    """side_by_side.py as a module."""
    return imported("side_by_side")


@pytest.fixture
def tiny(side_by_side, monkeypatch) -> None:
    """A workload and a model that take a moment."""
    workload = side_by_side.Workload(prompt_tokens=6, response_tokens=4)
    monkeypatch.setitem(side_by_side.WORKLOADS, "hh", workload)
    monkeypatch.setitem(side_by_side.SIZES, "S", {"hidden": 32, "layers": 1, "heads": 2})


HAND_MADE = {
    "hidden_size": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "vocab_size": 10,
}


def test_the_work_of_a_step_is_what_a_count_by_hand_gives(side_by_side):
    shapes = side_by_side.Shapes(tokens=3, scored=2, attention=5)
    # q and o 16 each, k and v 8 each, the MLP 3 * 32: 144 weights; the adapter 2 * (4 + 4).
    linear = 3 * (4 * 144 + 6 * 16)
    attention, head = 12 * 4 * 5, 4 * 4 * 10 * 2
    assert side_by_side.flop(shapes, HAND_MADE, ["q_proj"], 2) == linear + attention + head


def test_needed_is_every_prompt_once_and_what_is_scored(side_by_side):
    pair = side_by_side.TokenPair([5, 6, 7], [8, 1], [1])
    # The prompt's two first tokens, then answers of two and one that begin with its last.
    attention = (1 + 2) + (3 + 4) + 3
    assert side_by_side.useful([pair], "response") == side_by_side.Shapes(5, 3, attention)
    assert side_by_side.useful([pair], "full") == side_by_side.Shapes(5, 5, attention)


def test_nobody_computes_less_than_is_needed_and_rows_in_full_compute_more_than_packed_ones(
    side_by_side,
):
    case = side_by_side.Case("hh")
    config = side_by_side.model_config(case.random())
    work = {
        name: side_by_side.count_work(case, side_by_side.SYSTEMS[name], config)
        for name in ("orpo-mlx", "orpo-mlx plain", "mlx-lm-lora")
    }
    ours, plain, peer = work.values()
    assert ours["useful_flop"] == plain["useful_flop"] == peer["useful_flop"]
    assert ours["useful_flop"] < ours["done_flop"] < 1.2 * ours["useful_flop"]
    assert plain["done_flop"] > 2 * ours["done_flop"]
    assert peer["done_flop"] == pytest.approx(plain["done_flop"], rel=0.05)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_two_ways_of_this_trainer_are_measured_side_by_side(side_by_side, tmp_path, capsys):
    out = tmp_path / "result.json"
    arguments = ["--workloads", "hh", "--vocab", "64", "--rounds", "1", "--systems"]
    systems = "orpo-mlx,orpo-mlx plain"
    assert side_by_side.main([*arguments, systems, "--out", str(out)]) == 0
    (case,) = json.loads(out.read_text())["cases"]
    ours, plain = case["rows"]
    # Three steps of the same weights and rows: one before, two measured.
    assert len(ours["losses"]) == 3
    assert ours["losses"] == pytest.approx(plain["losses"], rel=1e-4)
    assert [len(seconds) for seconds in ours["cpu_seconds"]] == [2]
    assert ours["against_first"]["cpu_seconds"]["ratio"] == 1
    for name in ("cpu_seconds_per_pair", "wall_seconds_per_pair", "peak_memory_bytes"):
        assert plain[name] > 0, name
    assert "| orpo-mlx plain |" in capsys.readouterr().out


def test_a_peer_without_an_environment_is_named_with_what_makes_it(
    side_by_side, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sys.modules["make_peers"], "ENVIRONMENTS", tmp_path)
    assert side_by_side.main(["--systems", "orpo-mlx,mlx-tune"]) == 2
    assert "make_peers.py mlx-tune" in capsys.readouterr().out


@pytest.mark.parametrize("script", ["real_model.py"])
def test_a_script_for_peers_names_what_makes_their_environments(script: str, tmp_path: Path):
    command = [sys.executable, str(BENCHMARKS / script)]
    command += ["--model", "m", "--data", "d", "--out", str(tmp_path / "out.json")]
    environment = os.environ | {"ORPO_MLX_PEERS": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "make_peers.py mlx-lm-lora trl" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_pilot_study_measures_each_cell_once_and_draws_it(tmp_path: Path):
    rows = [
        {
            "conversations": [{"from": "human", "value": f"What is {n} plus {n}?"}],
            "chosen": {"from": "gpt", "value": f"It is {2 * n}, of course."},
            "rejected": {"from": "gpt", "value": f"Perhaps {2 * n + 1}, or another."},
        }
        for n in range(24)
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(rows), encoding="utf-8")
    out = tmp_path / "pilot.json"
    words = ["--model", str(demo.model_path()), "--data", str(tmp_path / "pairs.json")]
    words += ["--runs", str(tmp_path / "runs"), "--out", str(out), "--cells", "sft,orpo-1"]
    words += ["--seeds", "0", "--steps", "2", "--held-out", "12"]
    first = run_benchmark("pilot_study.py", *words)
    assert first.returncode == 0, first.stderr
    cells = json.loads(out.read_text())["cells"]
    assert [cell["name"] for cell in cells] == ["sft", "orpo-1"]
    assert [at["step"] for at in cells[0]["course"]] == [0, 1, 2]
    assert cells[0]["course"][0] == cells[1]["course"][0]  # the model before any step
    assert cells[0]["course"][2] != cells[1]["course"][2]
    assert out.with_suffix(".svg").read_text().count("change of held-out log-probs") == 2
    again = run_benchmark("pilot_study.py", *words)
    assert (again.returncode, again.stderr) == (0, "")
    assert json.loads(out.read_text())["cells"] == cells


@pytest.mark.parametrize(
    ("reason", "asked"), [("stopped", ["resume", "evaluate"]), ("completed", ["evaluate"])]
)
def test_the_pilot_study_goes_on_with_a_run_that_was_stopped(
    tmp_path: Path, monkeypatch, reason: str, asked: list[str]
):
    study = imported("pilot_study")
    cell = {"name": "sft", "seed": 0, "rate": 1e-4, "steps": 2}
    args = study.build_parser().parse_args(
        ["--model", "m", "--data", "d", "--out", "o", "--runs", str(tmp_path)]
    )
    run = tmp_path / "sft-seed0-rate0.0001-steps2"
    run.mkdir()
    with closing(EventWriter(run / "events.jsonl")) as writer:
        writer.write(RunFinished(reason, 1, 2.0, None))
    commands: list[str] = []
    monkeypatch.setattr(study, "command", lambda *words: commands.append(words[0]) or "{}")
    study.measure(args, (tmp_path, tmp_path), cell)
    assert commands == asked


def test_what_a_real_model_cannot_do_without_is_what_a_count_by_hand_gives(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(HAND_MADE), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"w" * 1000)
    args = argparse.Namespace(model=str(tmp_path), pairs=1)
    pair = {"prompt_ids": [5, 6, 7], "chosen_ids": [8, 1], "rejected_ids": [1]}
    least = imported("real_model").least(args, [pair, pair])
    # 5 tokens in a row of 64. Of each the block keeps 4 + 4 of the stream, 4 + 2 + 2, 8 + 8 of the
    # MLP; two heads' scores of prompts 16 by 16 and of two answers 16 by 16 + 16.
    scores = 2 * (16 * 16 + 2 * 16 * 32)
    assert least["score_bytes"] == 4 * scores
    assert least["kept_bytes"] == 1000 + 4 * (64 * 32 + scores)


def test_every_peer_is_pinned(side_by_side):
    for peer in side_by_side.PEERS.values():
        assert peer.script.is_file(), peer.name
        lines = (BENCHMARKS / "peers" / f"{peer.name}.txt").read_text().splitlines()
        for line in [*lines, *peer.alone]:
            name, pinned, version = line.partition("==")
            assert all((name, pinned, version)), line
            assert "/" not in line, line
        assert any(line.startswith(f"{peer.name}==") for line in [*lines, *peer.alone])


def test_the_picture_of_costs_has_a_line_for_each_way_in_each_panel(side_by_side):
    del side_by_side  # its folder is where cost.py is found
    sys.path.insert(0, str(BENCHMARKS))
    cost = importlib.import_module("cost")
    sys.path.remove(str(BENCHMARKS))
    points = [
        {
            "at": at,
            "unique_tokens": 100.0 * at,
            "attention_share": 0.1,
            "ways": {
                name: {"cpu_seconds_per_pair": seconds * at, "peak_memory_bytes": 1e8}
                for name, seconds in (("default", 0.1), ("plain", 0.3))
            },
        }
        for at in (1, 2, 4)
    ]
    tree = ElementTree.fromstring(cost.draw({"length": points, "vocabulary": points}))
    lines = [element for element in tree.iter() if element.tag.endswith("polyline")]
    assert len(lines) == 2 * 2 * 2 + 2  # and of time in step with the tokens
    broken = [element.attrib["points"] for element in lines if "stroke-dasharray" in element.attrib]
    assert broken[0] == lines[0].attrib["points"]  # that of this default, which grows as they do
    # Twice the cost at twice the size is a straight line upwards where both scales are logarithms.
    (x0, y0), (x1, y1), (x2, y2) = (
        map(float, place.split(",")) for place in lines[0].attrib["points"].split()
    )
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y1 - y0 == pytest.approx(y2 - y1, abs=0.2)
    assert y2 < y0
    assert "| vocabulary | 4 | 400 | 10% | 0.400 | 1.200 | 100 | 100 |" in cost.describe(
        {"vocabulary": points}
    )


@pytest.fixture
def distributed(side_by_side, tiny) -> ModuleType:
    """distributed.py as a module, with a tiny model."""
    return imported("distributed")


def test_cpu_time_is_that_of_all_processes_together(distributed):
    this = psutil.Process()
    before = this.cpu_times().user
    found = distributed.user_seconds([this, this, this])
    assert 0 < 3 * before <= found <= 3 * this.cpu_times().user


def test_two_processes_are_measured_beside_one(distributed, tmp_path, capsys):
    """Where nothing but a run uses the loopback device more bytes travel than gradients alone."""
    out, svg = tmp_path / "result.json", tmp_path / "macs.svg"
    words = shlex.split(
        "--workload hh --vocab 64 --pairs-per-step 4 --steps 2 --rounds 1 --ranks 2"
    )
    assert distributed.main([*words, "--out", str(out), "--svg", str(svg)]) == 0
    one, two = json.loads(out.read_text())["rows"]
    # Seven layers of rank 2 on 32 numbers, four times as many within the MLP; both processes send
    # the whole once.
    payload = 4 * 2 * (4 * (32 + 32) + 3 * (32 + 128))
    assert one["payload_bytes"] == two["payload_bytes"] == payload
    assert (one["computed_bytes_per_step"], two["computed_bytes_per_step"]) == (0, 2 * payload)
    assert two["wire_bytes_per_step"] > 2 * payload
    assert one["exchange_seconds"] == 0 < two["exchange_seconds"]
    assert 0.5 <= two["busiest_share"] < 1 == one["busiest_share"]
    assert "| 2 | 0.01 MB | 2 |" in capsys.readouterr().out
    assert ElementTree.fromstring(svg.read_text()).tag.endswith("svg")


def test_macs_are_modelled_by_the_share_of_the_busiest_and_the_link(distributed, monkeypatch):
    """Eight pairs of one length; 125 MB are 1 s at 1 Gbit/s.

    The busiest of two has 1/2, of four 1/4, of three 3/8.
    """
    pair = {"prompt_ids": [2] * 5, "chosen_ids": [2] * 4, "rejected_ids": [2] * 4}
    monkeypatch.setattr(distributed, "random_pairs", lambda workload: [pair] * 8)
    setup = distributed.Setup(pairs_per_step=8, steps=1)
    model = distributed.model_of(setup, Path("nowhere"), 8, 125_000_000, 10.0)
    assert model["no exchange"][:4] == pytest.approx([1, 2, 8 / 3, 4])
    hop = distributed.HOP_SECONDS
    slow = [10 / (5 + 1 + 4 * hop), 10 / (3.75 + 4 / 3 + 6 * hop), 10 / (2.5 + 1.5 + 8 * hop)]
    assert model["1 Gbit/s"][:4] == pytest.approx([1, *slow])
    assert model["10 Gbit/s"][1] == pytest.approx(10 / (5 + 0.1 + 4 * hop))


def test_efficiency_is_the_gain_by_process(distributed):
    alone = {"pairs_per_second": 2.0, "seconds_per_step": 4.0, "exchange_seconds": 0.0}
    found = {"pairs_per_second": 3.6, "seconds_per_step": 2.2, "exchange_seconds": 0.11}
    row = distributed.row(8, 2, 1000, found, alone)
    assert (row["times_as_fast"], row["efficiency"]) == pytest.approx((1.8, 0.9))
    assert row["exchange_share"] == pytest.approx(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_data_scale_measures_every_stage(tmp_path: Path, kind: str):
    done = run_benchmark(
        "data_scale.py", "--rows", "40", "--folder", str(tmp_path), "--kind", kind,
        *(["--stage", "read"] if kind == "parquet" else []),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    stages = [line.split()[0] for line in done.stdout.splitlines()[1:]]
    assert stages == (["read"] if kind == "parquet" else ["read", "tokenize", "check"])
    assert all(" 40 rows in " in line for line in done.stdout.splitlines()[1:])


@pytest.mark.slow
def test_the_app_keeps_the_budgets_that_do_not_depend_on_the_machine():
    found = read_json(run_benchmark("tui_budget.py", "--quick", "--json"))
    measured, budgets = found["measured"], found["budgets"]
    assert set(measured) == set(budgets)
    assert all(value > 0 for value in measured.values())
    # A count of what four growing charts at 160x48 send, and CPU against CPU of the same process.
    for name in ("redraw_bytes", "first_paint", "redraw", "attach_per_event"):
        assert measured[name] < budgets[name], (name, measured)

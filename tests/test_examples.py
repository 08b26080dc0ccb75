"""Every example runs, and the flat loop computes what the trainer computes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import orpo_mlx
from orpo_mlx import demo
from orpo_mlx.config import TrainConfig
from orpo_mlx.config.train_config import iter_settings
from orpo_mlx.data.types import PreferencePair
from orpo_mlx.runs import events

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
LAM, LEARNING_RATE = 0.5, 2e-3


def run_example(name: str, *arguments: str) -> str:
    """Run a script as a reader of the README would and return what it prints."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loop_losses(*arguments: str) -> list[float]:
    printed = run_example("01_loop.py", *arguments)
    return [float(loss) for loss in re.findall(r"^step \d+  loss ([\d.]+)$", printed, re.M)]


def trainer_losses(run_dir: Path) -> list[float]:
    config = TrainConfig(
        model=str(demo.model_path()),
        data=str(demo.train_path()),
        order="file",
        valid_fraction=0,
        lam=LAM,
        learning_rate=LEARNING_RATE,
        schedule="constant",
        warmup=0,
        max_grad_norm=0,
        rank=8,
        scale=2.0,
        num_layers=-1,
        micro_batch_size=8,
        seed=0,
        steps=5,
        report_every=1,
        run_dir=str(run_dir),
    )
    orpo_mlx.train(config)
    records = events.read_events(run_dir / "events.jsonl")
    return [r.event.value("loss") for r in records if isinstance(r.event, events.StepCompleted)]


@pytest.fixture(scope="module")
def flat() -> list[float]:
    """The losses of five steps of the flat loop."""
    return loop_losses("--lam", str(LAM), "--learning-rate", str(LEARNING_RATE))


def test_the_flat_loop_and_the_trainer_have_the_same_losses(flat, tmp_path):
    assert len(flat) == 5
    assert flat == pytest.approx(trainer_losses(tmp_path / "run"), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("other", [["--lam", "0.49"], ["--learning-rate", "0.0019"]])
def test_the_loop_is_sensitive_enough_for_that_comparison(flat, other):
    assert loop_losses("--steps", "2", *other)[1] != pytest.approx(flat[1], abs=1e-4)


def test_the_loop_shows_nothing_but_the_method():
    source = (EXAMPLES / "01_loop.py").read_text(encoding="utf-8")
    imports = re.findall(r"^(?:from|import) (orpo_mlx.*)$", source, re.M)
    assert imports == ["orpo_mlx import demo"]


def test_every_line_of_the_quickstart_file_is_a_setting_with_its_effect():
    from orpo_mlx.config.file import load_config, read_settings

    path = EXAMPLES / "02_quickstart.toml"
    known = {setting.name for setting in iter_settings()}
    assert set(read_settings(path)) <= known
    assert load_config(path).lam == 0.25
    text = path.read_text(encoding="utf-8")
    settings = re.findall(r"^(?:#.*\n)?\w+ = .*$", text, re.M)
    assert len(settings) == len(read_settings(path))
    assert [line for line in settings if "#" not in line] == []


def test_the_quickstart_file_trains(tmp_path, monkeypatch):
    from orpo_mlx.cli.commands.train import main

    monkeypatch.chdir(ROOT)  # where the README says to start it; its data path is relative
    run_dir = tmp_path / "run"
    flags = ["--model", str(demo.model_path()), "--run-dir", str(run_dir), "--sample-every", "0"]
    settings = ["--config", "examples/02_quickstart.toml", "--steps", "2", "--quiet"]
    assert main([*settings, *flags]) == 0
    assert (run_dir / "adapter" / "adapters.safetensors").stat().st_size > 0


def test_the_own_dataset_example_shows_what_each_way_trains_on(tmp_path):
    printed = run_example("03_own_dataset.py", "--folder", str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "messages.jsonl", "strings.jsonl", "tokenized.jsonl",
    ]  # fmt: skip
    # One answer of each way, with the end-of-turn token that must be learned.
    assert "Answer:' [[' The sea is blue.<|end|>']]" in printed
    assert "<|user|>What colour is the sea?<|end|><|assistant|>' [['Blue.<|end|>']]" in printed
    assert "'<|begin|>The sea is' [[' blue.<|end|>']]" in printed
    assert "1 dropped: identical text (messages.jsonl:2)" in printed


def test_the_export_example_asks_a_model_that_answers_as_the_adapter_does(tmp_path):
    printed = run_example("04_export.py", "--folder", str(tmp_path))
    made = {path.name for path in tmp_path.iterdir()} - {"orpo_mlx_home"}
    assert made == {"peft", "adapter.gguf", "model"}
    answers = dict(re.findall(r"^(base|base \+ adapter|fused model) {2,}(.+)$", printed, re.M))
    assert answers["fused model"] == answers["base + adapter"] != answers["base"]
    assert "FAIL" not in printed


def test_the_tiny_preferences_are_24_clean_pairs():
    from orpo_mlx.data.layouts.detect import detect_layout, to_pairs
    from orpo_mlx.data.sources.source import read_rows
    from orpo_mlx.data.types import Account

    rows = read_rows(EXAMPLES / "data" / "tiny_preferences.jsonl")
    account = Account()
    layout = detect_layout(rows)
    pairs = to_pairs(rows, layout, account)
    assert layout.name.startswith("explicit chat")
    assert (account.read, account.dropped, len(pairs)) == (24, {}, 24)
    texts = {json.dumps(pair.prompt) for pair in pairs if isinstance(pair, PreferencePair)}
    assert len(texts) == 24


def test_the_tiny_preferences_are_not_won_by_length():
    lines = (EXAMPLES / "data" / "tiny_preferences.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    lengths = {n: [len(r[n][0]["content"]) for r in rows] for n in ("chosen", "rejected")}
    longer = sum(a > b for a, b in zip(lengths["chosen"], lengths["rejected"], strict=True))
    assert 8 <= longer <= 16
    assert 0.9 < sum(lengths["chosen"]) / sum(lengths["rejected"]) < 1.1


def test_the_readme_names_every_example_and_only_those():
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b(\d\d_\w+\.\w+|data/\w+\.jsonl)\b", text))
    files = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*")}
    runnable = {f for f in files if re.fullmatch(r"\d\d_\w+\.(py|toml)|data/\w+\.jsonl", f)}
    assert named == runnable

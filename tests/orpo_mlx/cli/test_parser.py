"""The command line: every setting, every mistake answered, nothing decided twice."""

from __future__ import annotations

import sys
import tomllib
import types
from pathlib import Path
from typing import Any

import pytest

from orpo_mlx.cli import main as program
from orpo_mlx.cli.commands.train import TrainCommand, build_train_parser, parse_train
from orpo_mlx.cli.exit_codes import run_command
from orpo_mlx.cli.parser import TextRequested, number_option
from orpo_mlx.config import TrainConfig
from orpo_mlx.config.objective import OWN_SETTINGS
from orpo_mlx.config.train_config import iter_settings
from orpo_mlx.errors import ConfigError, DataError, RunError, TrainingError
from orpo_mlx.runs.directory import create_run

NEEDED = ["--model", "m", "--data", "d.jsonl"]
SETTINGS = {setting.name: setting for setting in iter_settings()}


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORPO_MLX_HOME", str(tmp_path / "home"))


def refusal(*words: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_train(words)
    return caught.value


def requested_text(*words: str) -> str:
    with pytest.raises(TextRequested) as caught:
        parse_train(words)
    return caught.value.text


# Settings


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_a_flag_and_stands_in_the_help(name: str) -> None:
    text = " ".join(build_train_parser().format_help().split())
    setting = SETTINGS[name]
    assert f" {setting.flag}" in text
    assert setting.help.split(".")[0] in text


FLAG_WORDS = {"int": "9", "float": "0.5", "str": "some text", "list": "a,b", "map": "a=b,c=d.0"}


@pytest.mark.parametrize("name", [n for n, s in SETTINGS.items() if s.kind in FLAG_WORDS])
def test_every_valued_flag_reaches_its_setting(name: str) -> None:
    setting = SETTINGS[name]
    needed = NEEDED[:2] if name == "data" else NEEDED  # a second data file is refused
    others = ["--eval-every", "9", "--grad-checkpoint", "on", "--trunk-cache", "disk"]
    words = [setting.flag, FLAG_WORDS[setting.kind]]
    if name == "label_smoothing":
        words = [setting.flag, "0.25"]
    if name == "report_to":
        words = [setting.flag, "tensorboard"]
    command = parse_train([*needed, *words, *others, *objective_with(name)])
    expected = {
        "int": 9,
        "float": 0.25 if name == "label_smoothing" else 0.5,
        "str": "some text",
        "list": ["tensorboard"] if name == "report_to" else ["a", "b"],
    }
    expected = {**expected, "map": {"a": "b", "c": "d.0"}}[setting.kind]
    if name == "trunk_cache_dir":  # need not exist, so it is made absolute as it is written
        expected = str(Path(str(expected)).absolute())
    assert getattr(command.config, name) == expected
    assert command.origins[name] == setting.flag


def objective_with(name: str) -> list[str]:
    """The words that choose an objective which has a setting; none for most."""
    owners = [key for key, names in OWN_SETTINGS.items() if name in names]
    return [] if "orpo" in owners or not owners else ["--objective", owners[-1]]


@pytest.mark.parametrize("name", [n for n, s in SETTINGS.items() if s.kind == "bool"])
@pytest.mark.parametrize("value", [True, False])
def test_every_switch_can_be_turned_both_ways(name: str, value: bool) -> None:
    flag = SETTINGS[name].flag if value else SETTINGS[name].flag.replace("--", "--no-", 1)
    own = objective_with(name) if value else []
    command = parse_train([*NEEDED, flag, "--eval-every", "9", "--alpha", "16", *own])
    assert getattr(command.config, name) is value


@pytest.mark.parametrize("name", [n for n, s in SETTINGS.items() if s.kind == "choice"])
def test_every_choice_can_be_chosen(name: str) -> None:
    others = objective_with(name)
    if name == "ipo_length":
        others += ["--dpo-loss", "ipo"]
    if name == "reference":
        others += ["--init-adapter", "here"]
    for choice in SETTINGS[name].choices:
        command = parse_train([*NEEDED, SETTINGS[name].flag, choice, *others])
        assert getattr(command.config, name) == choice


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('model = "m"\ndata = "d"\nrank = 16\nlam = 0.3\nepochs = 2\n')
    command = parse_train(["--config", str(file), "--rank", "32", "--steps", "5"])
    assert (command.config.rank, command.config.lam, command.config.seed) == (32, 0.3, 0)
    assert command.config.steps == 5, "a flag wins over a file's contradicting setting"
    assert command.origins["rank"] == "--rank"
    assert command.origins["lam"] == f"{file}: lam"
    assert "seed" not in command.origins


@pytest.mark.parametrize("number", ["-1", "-1e-5", "-.5", "-inf", "-2.5E+3", "5e-053"])
def test_a_rate_that_cannot_be_one_is_a_value_and_refused(number: str) -> None:
    message = refusal(*NEEDED, "--learning-rate", number).message
    needs = "a number above 1e-12 and at most 10"
    assert message == f"--learning-rate: found {number!r}, needs {needs}"


# Mistakes


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("--lerning-rate", "--learning-rate"), ("--batch-size", "--micro-batch-size"),
        ("--iters", "--steps"), ("--lambda", "--lam"), ("--lora-rnak", "--rank"),
        ("--learning", "--learning-rate"), ("--quite", "--quiet"), ("--no-dor", "--no-dora"),
    ],
)  # fmt: skip
def test_an_unknown_option_names_the_nearest(wrong: str, right: str) -> None:
    message = refusal(*NEEDED, wrong, "1").message
    assert message == f"{wrong}: there is no such option; did you mean {right}?"


def test_all_unknown_options_are_named_together() -> None:
    message = refusal("--lerning-rate=1", "--rnak", "2", "--zzzzzz").message
    assert [line.split(":")[0] for line in message.split("\n")] == [
        "--lerning-rate", "--rnak", "--zzzzzz",
    ]  # fmt: skip


def test_bad_values_from_flags_and_file_are_reported_together(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("rank = 0\n")
    message = refusal("--config", str(file), "--learning-rate", "abc", "--max-seq-length", "1")
    for part in (f"{file}: rank", "--learning-rate: found 'abc'", "--max-seq-length: found '1'"):
        assert part in message.message


def test_a_missing_value_is_named_with_what_is_needed() -> None:
    assert refusal(*NEEDED, "--rank").message == (
        "--rank: the value is missing, needs a whole number at least 1 and at most 4096"
    )
    assert "--config: the value is missing" in refusal("--config").message


def test_a_switch_with_a_value_is_explained() -> None:
    error = refusal(*NEEDED, "--dora=false")
    assert "takes no value" in error.message
    assert "--no-dora" in error.what_to_do


def test_a_word_without_an_option_is_explained() -> None:
    assert "'pairs.jsonl': stands alone" in refusal("pairs.jsonl").message


@pytest.mark.parametrize("given", [[], ["--model", "m"], ["--data", "d"]])
def test_without_model_and_data_two_examples_say_what_is_needed(given: list[str]) -> None:
    error = refusal(*given)
    missing = {"--model", "--data"} - set(given)
    assert all(name in error.message for name in missing)
    assert "--demo" in error.what_to_do
    assert "--data pairs.jsonl" in error.what_to_do


def test_contradicting_modes_are_refused() -> None:
    assert "--quiet and --json" in refusal(*NEEDED, "--quiet", "--json").message
    assert "--demo and --resume" in refusal("--demo", "--resume", "x").message


# Texts and modes


def test_help_groups_the_settings_and_ends_with_two_examples() -> None:
    text = requested_text("--help")
    assert text.index("Model:") < text.index("Data:") < text.index("examples:")
    assert text[text.index("examples:") :].count("python -m orpo_mlx.train") == 2
    assert all(len(line) <= 100 for line in text.splitlines())


def test_show_config_prints_a_settings_file_with_origins() -> None:
    text = requested_text("--rank", "16", "--show-config")
    assert tomllib.loads(text)["rank"] == 16
    shown = [line.split(" = ")[0] for line in text.splitlines()]
    unset = text.splitlines()[-1]
    assert all(name in shown or name in unset for name in SETTINGS)


def test_show_config_still_refuses_bad_settings() -> None:
    assert "--rank" in refusal("--rank", "0", "--show-config").message


def test_modes_are_carried_over() -> None:
    command = parse_train([*NEEDED, "--dry-run", "--json", "--debug"])
    assert (command.dry_run, command.output, command.debug) == (True, "json", True)
    plain = parse_train(NEEDED)
    assert plain == TrainCommand(
        TrainConfig(model="m", data="d.jsonl"), {"model": "--model", "data": "--data"}
    )


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the demo package."""
    import orpo_mlx

    fake: Any = types.ModuleType("orpo_mlx.demo")
    fake.SETTINGS = {"rank": 4, "epochs": 3.0}
    fake.model_path, fake.train_path, fake.valid_path = (
        lambda: Path("/demo/m"), lambda: Path("/demo/t"), lambda: Path("/demo/v"),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "orpo_mlx.demo", fake)
    monkeypatch.setattr(orpo_mlx, "demo", fake, raising=False)


def test_the_demo_brings_its_settings_and_flags_win(demo: None) -> None:
    command = parse_train(["--demo", "--rank", "2", "--steps", "5", "--valid-fraction", "0.5"])
    config = command.config
    assert command.demo
    assert (config.model, config.data, config.rank, config.steps) == ("/demo/m", "/demo/t", 2, 5)
    assert config.valid_data is None
    assert command.origins["model"] == "--demo"


def test_the_demos_validation_pairs_do_not_judge_other_data(demo: None) -> None:
    assert parse_train(["--demo", "--data", "mine"]).config.valid_data is None
    assert parse_train(["--demo"]).config.valid_data == "/demo/v"


# Resume


def test_resume_takes_the_runs_settings_and_collects_overrides() -> None:
    run = create_run(TrainConfig(model="m", data="pairs.jsonl", rank=16, epochs=3))
    command = parse_train(["--resume", run.id, "--save-every", "7", "--steps", "9"])
    assert command.resume == run
    assert command.config.rank == 16
    assert command.resume_overrides == {"save_every": 7, "steps": 9}
    assert command.origins["rank"] == f"run {run.id}"
    assert parse_train(["--resume", str(run.path)]).resume_overrides == {}


def test_resume_still_checks_what_is_given() -> None:
    run = create_run(TrainConfig(model="m", data="pairs.jsonl"))
    assert "--save-every" in refusal("--resume", run.id, "--save-every", "x").message
    with pytest.raises(RunError, match="there is no run 'pears'"):
        parse_train(["--resume", "pears"])


def test_a_run_can_be_resumed_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pairs.jsonl").write_text("")
    run = create_run(TrainConfig(model="m", data="pairs.jsonl"))
    monkeypatch.chdir("/")
    assert parse_train(["--resume", run.id]).config.data == str(tmp_path / "pairs.jsonl")


# Exit codes and messages


def raising(error: BaseException) -> Any:
    def function() -> int:
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "code", "first"),
    [
        (ConfigError("--rank: wrong", "Correct it."), 2, "error: --rank: wrong"),
        (DataError("d:7: no", "Fix."), 2, "error: d:7: no"),
        (TrainingError("loss is NaN", "Lower the rate."), 1, "error: loss is NaN"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("a/0"), 1, "error: internal error (ZeroDivisionError: a/0)"),
        (RuntimeError("odd"), 1, "error: internal error (RuntimeError: odd)"),
        (
            RuntimeError("[metal::load_device] No Metal device available."),
            1,
            "error: no GPU of this Mac can be reached ([metal::load_device] No Metal device "
            "available.)",
        ),
        (
            RuntimeError(
                "Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"
            ),
            1,
            "error: the GPU ran out of memory (Insufficient Memory (00000008:"
            "kIOGPUCommandBufferCallbackErrorOutOfMemory))",
        ),
    ],
)
def test_errors_become_messages_and_exit_codes(
    error: BaseException, code: int, first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(raising(error)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == first
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 4


def test_debug_shows_the_traceback_and_the_message_last(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command(raising(ConfigError("bad", "Fix it.")), debug=True) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("error: bad\nFix it.\n")


def test_requested_texts_go_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(raising(TextRequested("text\n"))) == 0
    assert capsys.readouterr() == ("text\n", "")


# orpo-mlx


def test_without_arguments_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main([]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name}" in text for name in program.COMMANDS)
    assert text.count("  orpo-mlx train ") == 2


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["trian"]) == 2
    assert capsys.readouterr().err.startswith(
        "error: trian: there is no such command; did you mean train?"
    )


@pytest.mark.parametrize("name", program.COMMANDS)
def test_every_command_has_a_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main([name, "--help"]) == 0
    assert f"orpo-mlx {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["watch", "stop", "pause", "unpause", "checkpoint", "sample", "resume"]
)
def test_a_missing_run_is_asked_for(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main([name]) == 2
    assert "which run?" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["stop", "pause", "unpause", "checkpoint", "sample"])
def test_a_run_that_is_not_running_cannot_be_asked(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = create_run(TrainConfig(model="m", data="pairs.jsonl"))
    assert program.main([name, run.id]) == 2
    assert f"run {run.id} is not running (it is crashed)" in capsys.readouterr().err


def test_mistakes_in_train_are_answered_before_anything_is_prepared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("orpo_mlx.cli.commands.train.train", raising(AssertionError()))
    assert program.main(["train", "--lerning-rate", "1"]) == 2
    assert program.main(["train", "--help"]) == 0
    assert "--learning-rate" in capsys.readouterr().err


def test_train_and_resume_pass_their_words_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    ended = types.SimpleNamespace(exit_code=0)

    def resumed(run: Any, overrides: Any, **_: Any) -> Any:
        seen.append((run.id, overrides))
        return ended

    monkeypatch.setattr(
        "orpo_mlx.cli.commands.train.train", lambda config, **_: seen.append(config.model) or ended
    )
    monkeypatch.setattr("orpo_mlx.cli.commands.train.resume", resumed)
    run = create_run(TrainConfig(model="m", data="pairs.jsonl"))
    assert program.main(["train", *NEEDED]) == 0
    assert program.main(["resume", run.id, "--quiet", "--save-every", "7"]) == 0
    assert seen == ["m", (run.id, {"save_every": 7})]


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("orpo-mlx 0.")


@pytest.mark.parametrize(
    "words",
    [
        ["export", "~nobody-here/run", "--to", "mlx"],
        ["plot", "run", "--out", "~nobody-here/a.svg"],
        ["runs", "--runs-dir", "~nobody-here/runs"],
    ],
)
def test_the_home_of_a_user_who_does_not_exist_is_bad_input(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from orpo_mlx.__main__ import main as program

    assert program(words) == 2
    assert "the name of a user who does not exist" in capsys.readouterr().err


def test_bounds_are_written_out() -> None:
    with pytest.raises(ConfigError, match=r"from 0 to 2147483647\n"):
        number_option({"seed": "-1"}, "seed", 0, 0, 2**31 - 1, whole=True)


def test_too_long_a_path_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda: bool(Path("x" * 300).is_file())) == 2
    assert "the name is too long" in capsys.readouterr().err

"""Wrong and damaged input meets one clear refusal, early, and nothing is changed by it.

Every case calls the real command and has a number and a name; related cases share a number. The
promises: exit code 2, `error:` first, at most four lines, no traceback, no file written, and no
weights of the model read (what only the weights can show excepted). A few cases are accepted.
"""

from __future__ import annotations

import gzip
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.damage import DAMAGES, edit_json
from support.hub import TOKEN, client_environment

from orpo_mlx.__main__ import main as program
from orpo_mlx.cli.commands.train import main
from orpo_mlx.runs.directory import RunDirectory

REPO = "tiny-org/tiny-model"
SMALL = ("--rank", "2", "--num-layers", "-1", "--micro-batch-size", "2", "--sample-tokens", "2")
SECONDS = 10.0
"""The most work before a refusal: of this process and of those it started, on all cores."""

row = pytest.param


@dataclass(frozen=True)
class Answer:
    """What a command left on the terminal."""

    code: int
    out: str
    err: str

    def require_refusal(self, says: tuple[str, ...], at_most: int) -> None:
        """Check the promises that can be read off the terminal."""
        assert self.code == 2, self
        assert self.err.startswith("error: "), self
        assert "Traceback" not in self.out + self.err
        assert len(self.err.splitlines()) <= at_most, self.err
        for part in says:
            assert part in self.err


def everything_in(*folders: Path) -> dict[str, bytes | None]:
    """Return path and content of all there is, None for folders."""
    found = (path for folder in folders for path in (folder, *folder.rglob("*")))
    return {str(p): p.read_bytes() if p.is_file() else None for p in found}


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Answer]:
    """Return `run(*words, process=False) -> Answer`: the training command, here or as a process."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object, process: bool = False) -> Answer:
        arguments = [str(word) for word in words]
        if process:
            done = subprocess.run(
                [sys.executable, "-m", "orpo_mlx.train", *arguments],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            return Answer(done.returncode, done.stdout, done.stderr)
        capfd.readouterr()
        code = main(arguments)
        said = capfd.readouterr()
        return Answer(code, said.out, said.err)

    return run


@pytest.fixture
def refused(
    command: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Answer]:
    """Return `refused(*words, says=(...))`: run, check every promise, hand back the answer."""

    def check(
        *words: object,
        says: tuple[str, ...],
        at_most: int = 4,
        process: bool = False,
        may_read_headers: bool = False,
    ) -> Answer:
        before = everything_in(tmp_path)
        with monkeypatch.context() as patch:
            forbid_weights(patch, may_read_headers)
            started = cpu_seconds()
            answer = command(*words, process=process)
        assert cpu_seconds() - started < SECONDS
        answer.require_refusal(says, at_most)
        assert everything_in(tmp_path) == before
        return answer

    return check


def cpu_seconds() -> float:
    """Return what this process and its ended children have computed; waiting is not in it."""
    now = os.times()
    return now.user + now.system + now.children_user + now.children_system


def forbid_weights(patch: pytest.MonkeyPatch, may_read_headers: bool) -> None:
    """Fail the test when the model's weights are read into memory."""
    from mlx_lm import utils

    from orpo_mlx.models import load
    from orpo_mlx.training.preparation import (
        adapted,  # before the patch, or it would keep what is patched in
    )

    real = utils.load_model

    def unread(*words: Any, lazy: bool = False, **options: Any) -> Any:
        if not (lazy and may_read_headers):
            pytest.fail("the weights were read before the input was refused")
        return real(*words, lazy=True, **options)

    patch.setattr(utils, "load_model", unread)
    for module in (load, adapted):
        patch.setattr(module, "read_weights", lambda *_: pytest.fail("the weights were read"))


@pytest.fixture
def needed(model_folder: Path, pairs_file: Callable[..., Path]) -> list[object]:
    """A sound model and sound data, as words of the command line."""
    return ["--model", model_folder, "--data", pairs_file(), *SMALL]


@pytest.fixture(scope="module")
def finished(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 3 steps with a checkpoint of each; read only."""
    folder = tmp_path_factory.mktemp("finished")
    data = folder / "pairs.jsonl"
    rows = [{"prompt": f"What is {i}?", "chosen": "It is.", "rejected": "No."} for i in range(6)]
    data.write_text("".join(json.dumps(item) + "\n" for item in rows), encoding="utf-8")
    words = ["--model", model_folder, "--data", data, "--run-dir", folder / "run", *SMALL]
    more = ["--steps", 3, "--save-every", 1, "--valid-fraction", 0, "--quiet"]
    assert main([str(word) for word in [*words, *more]]) == 0
    return folder / "run"


@pytest.fixture
def stopped(finished: Path, tmp_path: Path) -> Path:
    """The run as a kill after the checkpoint of step 2 leaves it."""
    run = Path(shutil.copytree(finished, tmp_path / "stopped"))
    shutil.rmtree(run / "adapter")
    shutil.rmtree(run / "checkpoints" / "0000003")
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    saved = [n for n, line in enumerate(lines) if '"CheckpointSaved"' in line]
    (run / "events.jsonl").write_text("".join(lines[: saved[2] + 1]), encoding="utf-8")
    return run


# The command line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        row(["--lerning-rate", "1"], ("--lerning-rate", "did you mean --learning-rate"),
            id="row 1: misspelt option"),
        row(["--learning-rate", "abc"], ("--learning-rate", "'abc'", "a number above 1e-12"),
            id="row 2: a word for a number"),
        row(["--learning-rate", "-1"], ("--learning-rate", "'-1'", "a number above 1e-12"),
            id="row 2: negative learning rate"),
        row(["--learning-rate", "nan"], ("--learning-rate", "'nan'", "a number above 1e-12"),
            id="row 2: nan"),
        row(["--learning-rate", "0"], ("--learning-rate", "'0'", "a number above 1e-12"),
            id="row 2: zero learning rate"),
        row(["--batch-size", "0"], ("--batch-size", "did you mean --micro-batch-size"),
            id="row 3: another trainer's batch size"),
        row(["--micro-batch-size", "0"], ("--micro-batch-size", "'0'", "at least 1"),
            id="row 3: empty batches"),
        row(["--rank", "0"], ("--rank", "'0'", "at least 1"), id="row 3: rank 0"),
        row(["--max-seq-length", "1"], ("--max-seq-length", "'1'", "at least"),
            id="row 3: no room for tokens"),
        row(["--iters", "10"], ("--iters", "did you mean --steps"),
            id="row 4: another trainer's steps"),
        row(["--steps", "10", "--epochs", "2"], ("--steps 10", "--epochs 2", "only one of both"),
            id="row 4: steps and epochs"),
    ],
)  # fmt: skip
def test_a_mistaken_option_is_named_with_what_is_allowed(
    refused: Callable[..., Answer], needed: list[object], words: list[str], says: tuple[str, ...]
) -> None:
    refused(*needed, *words, says=says)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        row(["--data", "other.jsonl"], ("--data: given twice", ",other.jsonl"),
            id="two data files"),
        row(["--model", ""], ("--model: needed to train",), id="empty model"),
        row(["--target-modules", ""], ("--target-modules: names no layer", "q_proj"),
            id="no target"),
        row(["--target-modules", "nothing"], ("--target-modules nothing", "Available: all, down"),
            id="unknown target"),
        row(["--num-layers", "99"], ("--num-layers 99", "2 blocks"), id="too many blocks"),
        row(["--seed", "-1"], ("at least 0 and below 2,147,483,648",), id="large limit"),
        row(["--model", "x" * 300], ("--model: 'xxx", "File name too long"), id="long name"),
        row(["--run-dir", "x" * 300], ("cannot be written (File name too long",), id="long run"),
        row(["--model", "~nobody-here/x"], ("~nobody-here/x", "--model"), id="unknown user"),
        row(["--runs-dir", "~nobody-here/x"], ("there is no such user",), id="unknown user's runs"),
        row(["--resume", "~nobody-here/x"], ("there is no run '~nobody-here/x'",),
            id="unknown user's run"),
        row(["--config", "~nobody-here/x"], ("~nobody-here/x", "cannot be read"),
            id="unknown user's settings"),
        row(["--init-adapter", "nowhere"], ("nowhere: there is no such folder",), id="no adapter"),
        row(["--resume"], ("--resume: the value is missing, needs RUN",), id="resume what"),
        row(["more.jsonl"], ("'more.jsonl': stands alone",), id="a word by itself"),
    ],
)  # fmt: skip
def test_a_slip_on_the_command_line_is_answered(
    refused: Callable[..., Answer], needed: list[object], words: list[str], says: tuple[str, ...]
) -> None:
    refused(*needed, *words, says=says, may_read_headers=True)


def test_model_and_data_in_each_other_s_place_are_recognised(
    refused: Callable[..., Answer], model_folder: Path, pairs_file: Callable[..., Path]
) -> None:
    data = pairs_file()
    refused("--model", data, "--data", model_folder, says=("a folder with a model,", "--model"))
    refused("--model", data, "--data", data, says=(f"{data}: a file", "give them as --data"))


def test_a_resumed_run_stays_in_its_folder(refused: Callable[..., Answer], stopped: Path) -> None:
    words = ["--resume", stopped, "--run-dir", "elsewhere"]
    refused(*words, says=("--run-dir elsewhere", f"stays in its folder, {stopped}"))


def test_a_resumed_run_keeps_its_own_adapter(
    refused: Callable[..., Answer], stopped: Path, adapter: Path
) -> None:
    words = ["--resume", stopped, "--init-adapter", adapter]
    refused(*words, says=(f"--init-adapter {adapter}", "its own adapter", "leave out --resume"))


def test_a_run_in_the_place_of_its_adapter_is_recognised(
    refused: Callable[..., Answer], needed: list[object], finished: Path
) -> None:
    says = (f"Give {finished / 'adapter'}",)
    refused(*needed, "--init-adapter", finished, says=says)
    refused("--model", needed[1], "--data", finished, says=("or a run, not preference pairs",))


def test_a_run_whose_settings_are_lost_is_not_said_to_be_a_new_one(
    refused: Callable[..., Answer], tmp_path: Path
) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.toml").touch()
    refused("--resume", "half", says=("half/config.toml: does not say --model and --data",))


def test_no_one_is_advised_to_resume_a_finished_run(
    finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert program(["stop", str(finished)]) == 2
    said = capfd.readouterr().err
    assert "is not running (it is completed): nothing to stop" in said
    assert "orpo-mlx resume" not in said


def test_validation_on_the_training_data_is_pointed_out(
    command: Callable[..., Answer], needed: list[object]
) -> None:
    answer = command(*needed, "--valid-data", needed[3], "--dry-run")
    assert (answer.code, answer.err) == (0, "")
    assert "warning: --valid-data is the training data itself" in answer.out


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_training_does_not_need_anyone_to_listen(
    needed: list[object], tmp_path: Path, closed: str
) -> None:
    words = [sys.executable, "-m", "orpo_mlx.train", *needed, "--steps", 1, "--run-dir", "run"]
    line = f"{shlex.join(str(word) for word in words)} {closed}"
    done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert RunDirectory(tmp_path / "run").read_status() == "completed"


@pytest.mark.parametrize("process", [False, row(True, id="as a process")])
def test_row_5_a_finished_run_is_never_trained_over(
    refused: Callable[..., Answer], needed: list[object], finished: Path, process: bool
) -> None:
    before = everything_in(finished)
    says = (str(finished), "completed", "nothing was changed", "Choose another --run-dir")
    refused(*needed, "--run-dir", finished, says=says, process=process)
    refused("--resume", finished, says=(str(finished), "finished", "--init-adapter"))
    assert everything_in(finished) == before


@pytest.mark.parametrize(
    ("option", "place", "reason"),
    [
        row("--run-dir", "file", "a run needs a folder, this is a file", id="row 6: a file"),
        row("--run-dir", "file/run", "Not a directory", id="row 6: a file in the path"),
        row("--runs-dir", "file", "Not a directory", id="row 6: the folder of all runs is a file"),
        row("--run-dir", "/proc/run", "cannot be written", id="row 6: not writable"),
        row("--runs-dir", "/proc/none/runs", "cannot be written", id="row 6: runs not writable"),
        row("--run-dir", "closed/run", "Permission denied", id="row 6: no permission"),
    ],
)
def test_a_place_that_cannot_be_written_is_known_before_the_work(
    refused: Callable[..., Answer],
    needed: list[object],
    tmp_path: Path,
    option: str,
    place: str,
    reason: str,
) -> None:
    if place.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("this system has no /proc")
    if place.startswith("closed") and os.geteuid() == 0:
        pytest.skip("everything is permitted to the superuser")
    (tmp_path / "file").write_text("something")
    (tmp_path / "closed").mkdir(mode=0o555)
    refused(*needed, option, tmp_path / place, says=(str(tmp_path / place), reason))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        row("rank = 8\nlam = = 1\n", ("line 2, column 7",), id="row 7: two equal signs"),
        row("rank: 8\n", ("line 1, column 5", "TOML"), id="row 7: YAML"),
        row("lora_rnak = 8\n", ("unknown setting lora_rnak", "did you mean rank"),
            id="row 8: misspelt key"),
        row("rank = 0\n", ("rank", "found 0", "at least 1"), id="row 8: refused value"),
    ],
)  # fmt: skip
def test_a_mistaken_settings_file_is_named_with_the_place(
    refused: Callable[..., Answer],
    needed: list[object],
    tmp_path: Path,
    text: str,
    says: tuple[str, ...],
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text, encoding="utf-8")
    words = needed[:4]  # the small settings would win over the file's
    refused(*words, "--config", file, says=(str(file), *says))


@pytest.mark.parametrize("option", ["--run-dir", "--resume"])
def test_row_9_a_second_trainer_names_the_first(
    refused: Callable[..., Answer], needed: list[object], stopped: Path, option: str
) -> None:
    words = [*needed, option] if option == "--run-dir" else [option]
    with RunDirectory(stopped).lock():
        refused(*words, stopped, says=(str(stopped), f"process {os.getpid()}"))


def test_row_10_a_resume_with_another_rank_shows_both(
    refused: Callable[..., Answer], stopped: Path
) -> None:
    refused("--resume", stopped, "--rank", "16", says=("--rank: was 2, is now 16",))


def test_row_10_a_resume_with_another_model_shows_both(
    refused: Callable[..., Answer],
    stopped: Path,
    make_model_folder: Callable[..., Path],
    tmp_path: Path,
) -> None:
    other = make_model_folder(tmp_path / "other", seed=1)
    says = ("--model (its content): was ", "is now ")
    said = refused("--resume", stopped, "--model", other, says=says, may_read_headers=True)
    assert len(max(said.err.split(), key=len)) < 40  # a hash is told apart by its beginning


def test_row_10_a_resume_with_changed_data_shows_both(
    refused: Callable[..., Answer], stopped: Path, pairs_file: Callable[..., Path]
) -> None:
    says = ("--data (its content): was ", "is now ")
    refused("--resume", stopped, "--data", pairs_file(), says=says, may_read_headers=True)


def test_row_11_a_resume_without_checkpoints_says_what_was_looked_for(
    refused: Callable[..., Answer], stopped: Path
) -> None:
    shutil.rmtree(stopped / "checkpoints")
    (stopped / "checkpoints").mkdir()
    refused("--resume", stopped, says=(str(stopped), "looked for", "0000100"))


def test_row_11_a_resume_of_what_is_no_run_says_what_was_looked_for(
    refused: Callable[..., Answer], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    refused("--resume", "empty", says=("empty", "is not a run", "looked for config.toml"))
    refused("--resume", "nowhere", says=("nowhere", "orpo-mlx runs"))


def test_row_12_a_damaged_checkpoint_is_passed_over_with_a_warning(
    command: Callable[..., Answer], stopped: Path
) -> None:
    file = stopped / "checkpoints" / "0000002" / "adapters.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)

    answer = command("--resume", stopped)

    assert answer.code == 0, answer
    assert "warning: checkpoint 0000002 was skipped: adapters.safetensors" in answer.out
    assert "taken up again after step 1" in answer.out
    assert "completed after step 3" in answer.out


# Data


def lines_of(*rows: object) -> bytes:
    """Return rows as JSON lines."""
    return "".join(json.dumps(item) + "\n" for item in rows).encode()


PAIR = {"prompt": "What is the sea?", "chosen": "It is wide.", "rejected": "It is dry."}
CHAT = {
    "prompt": [{"role": "user", "content": "What is the sea?"}],
    "chosen": [{"role": "assistant", "content": "It is wide."}],
    "rejected": [{"role": "assistant", "content": "It is dry."}],
}


PAIRS = [{**PAIR, "prompt": f"What is {i}?"} for i in range(4)]


def chat_with(content: object, role: str = "user") -> dict[str, object]:
    """Return a chat row whose prompt has this content or role."""
    return {**CHAT, "prompt": [{"role": role, "content": content}]}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        row(b"", ("0 rows", "empty"), id="row 14: empty file"),
        row(b"\n  \n\n", ("0 rows", "only blank lines"), id="row 14: blank lines"),
        row(lines_of(*[PAIR] * 6) + b'{"prompt": "a", }\n',
            ("pairs.jsonl:7", "column 17", "trailing comma"), id="row 15: trailing comma"),
        row(lines_of(PAIR, [1, 2]), ("pairs.jsonl:2", "expected an object, found a list"),
            id="row 16: a list"),
        row(lines_of(PAIR, 7), ("pairs.jsonl:2", "expected an object, found a number"),
            id="row 16: a number"),
        row(lines_of(PAIR, PAIR) + b'{"prompt": "caf\xe9"}\n',
            ("pairs.jsonl:3", "byte offset", "WINDOWS-1252"), id="row 18: not UTF-8"),
        row(lines_of({"q": "1", "a": "2", "b": "3"}),
            ("Columns found: a, b, q", "Layouts accepted:", "--map prompt=", "chosen="),
            id="row 20: unknown columns"),
        row(lines_of(PAIR, {**PAIR, "rejected": CHAT["rejected"]}),
            ("pairs.jsonl:2", "chosen is text", "rejected is a list"), id="row 21: text and list"),
        row(lines_of(*[{**PAIR, "rejected": PAIR["chosen"]}] * 3),
            ("0 of 3 rows usable", "3 identical text"), id="row 22: identical pairs"),
        row(lines_of(PAIR), ("1 pair is left", "--micro-batch-size is 2"),
            id="row 23: fewer pairs than a batch"),
        row(lines_of(CHAT, chat_with(None)), ("pairs.jsonl:2", "prompt[0].content", "is null"),
            id="row 24: content null"),
        row(lines_of(CHAT, chat_with(7)), ("pairs.jsonl:2", "prompt[0].content", "a number"),
            id="row 24: content a number"),
        row(lines_of(CHAT, chat_with([{"type": "image_url"}])),
            ("pairs.jsonl:2", "prompt[0].content", "'image_url'"), id="row 24: a picture"),
        row(lines_of(CHAT, chat_with("Hello", "bot")),
            ("pairs.jsonl:2", "'bot'", "known roles: system, user"), id="row 25: unknown role"),
        row(lines_of(PAIR, {**PAIR, "chosen": "\ud800"}),
            ("pairs.jsonl:2", "'chosen'", "not valid text"), id="row 27: half a character"),
    ],
)  # fmt: skip
def test_bad_data_is_named_by_file_and_line(
    refused: Callable[..., Answer],
    model_folder: Path,
    tmp_path: Path,
    content: bytes,
    says: tuple[str, ...],
) -> None:
    (tmp_path / "pairs.jsonl").write_bytes(content)
    words = ["--model", model_folder, "--data", "pairs.jsonl", *SMALL, "--valid-fraction", 0]
    refused(*words, says=("pairs.jsonl", *says))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        row("nowhere.jsonl", ("nowhere.jsonl: no such file",), id="row 13: no file"),
        row(
            "org/pairs", ("org/pairs: not in the cache", "HF_HUB_OFFLINE is set"), id="row 13: Hub"
        ),
        row(".", ("a folder without data files", ".parquet"), id="row 13: a folder"),
        row("a.jsonl:2,nowhere.jsonl:1", ("a.jsonl: no such file",), id="row 13: in a mixture"),
        row("a.jsonl:x,b.jsonl", ("the weight is 'x'", "a number above 0"), id="bad weight"),
    ],
)
def test_data_that_is_not_there_is_named(
    refused: Callable[..., Answer], model_folder: Path, name: str, says: tuple[str, ...]
) -> None:
    refused("--model", model_folder, "--data", name, says=says)


PARQUET = b"PAR1" + b"\x00" * 60
HEADER = b"prompt,chosen,rejected\n"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        row("a.parquet", PARQUET, ("a.parquet: not a complete Parquet file", "its end is missing"),
            id="row 28: truncated Parquet"),
        row("a.parquet", lines_of(PAIR), ("a.parquet: not a complete Parquet file",),
            id="row 28: a text file"),
        row("a.csv", b"", ("a.csv: 0 rows",), id="row 14: empty CSV"),
        row("a.csv", HEADER, ("a.csv: 0 rows", "only a header"), id="row 14: only a header"),
        row("a.csv", HEADER + b"a,b,c\na,b\n", ("a.csv:row 2", "2 cells", "3 columns"),
            id="row 15: a cell missing"),
        row("a.csv", HEADER + b"a,caf\xe9,c\n", ("a.csv:2", "byte offset", "WINDOWS-1252"),
            id="row 18: CSV not UTF-8"),
        row("a.jsonl.gz", gzip.compress(lines_of(PAIR))[:-9], ("not a complete gzip file",),
            id="row 28: truncated gzip"),
        row("a.jsonl.gz", gzip.compress(lines_of(PAIR, 7)), ("a.jsonl.gz:2", "found a number"),
            id="row 16: a number, packed"),
        row("a.xlsx", b"PK\x03\x04", (".xlsx files are not read", "Convert it to JSONL"),
            id="a spreadsheet"),
    ],
)  # fmt: skip
def test_bad_files_of_other_kinds_are_named_too(
    refused: Callable[..., Answer],
    model_folder: Path,
    tmp_path: Path,
    name: str,
    content: bytes,
    says: tuple[str, ...],
) -> None:
    (tmp_path / name).write_bytes(content)
    refused("--model", model_folder, "--data", name, *SMALL, says=says)


def test_row_29_without_pyarrow_the_command_that_installs_it_is_shown(
    refused: Callable[..., Answer],
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "a.parquet").write_bytes(PARQUET + b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    says = ("a.parquet: CSV and Parquet are read with pyarrow", "pip install 'pyarrow")
    refused("--model", model_folder, "--data", "a.parquet", says=says)


def test_row_30_a_hub_dataset_without_a_train_split_lists_its_splits(
    refused: Callable[..., Answer],
    model_folder: Path,
    hub_server: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub_server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    files = {f"data/{name}-00000-of-00001.parquet": b"" for name in ("train_a", "train_b")}
    hub_server.add_dataset("org/pairs", files)
    says = ("org/pairs: several splits would do", "train_a, train_b", "--data-split train_a")
    refused("--model", model_folder, "--data", "org/pairs", says=says)
    files = {f"data/{name}-00000-of-00001.parquet": b"" for name in ("one", "two")}
    hub_server.add_dataset("org/pairs", files)
    says = ("org/pairs: there is no train split", "one, two", "--data-split one")
    refused("--model", model_folder, "--data", "org/pairs", says=says)


def test_data_is_looked_at_before_the_model(refused: Callable[..., Answer]) -> None:
    refused("--model", REPO, "--data", "nowhere.jsonl", says=("nowhere.jsonl: no such file",))


def test_row_26_responses_too_long_show_a_length_that_would_do(
    refused: Callable[..., Answer], model_folder: Path, tmp_path: Path
) -> None:
    rows = [{**PAIR, "chosen": "sea " * n, "rejected": "moon " * n} for n in range(20, 40)]
    (tmp_path / "pairs.jsonl").write_bytes(lines_of(*rows))
    words = ["--model", model_folder, "--data", "pairs.jsonl", "--max-seq-length"]
    says = ("0 of 20 rows usable", "Longest pair:", "the limit is 16", "would keep 95 %")
    advice = refused(*words, 16, says=says).err.splitlines()[-1]
    enough = advice.split("--max-seq-length ")[1].split()[0]
    assert 100 < int(enough) < 250


@pytest.mark.parametrize(
    "content",
    [
        row(b"\xef\xbb\xbf" + lines_of(*PAIRS), id="row 17: byte-order mark"),
        row(json.dumps(PAIRS).encode(), id="row 19: a JSON list"),
        row(json.dumps(PAIRS, indent=2).encode(), id="row 19: a JSON list in many lines"),
        row(lines_of(chat_with([{"type": "text", "text": "Hello"}]), chat_with("Hi"), CHAT),
            id="row 24: parts of text"),
    ],
)  # fmt: skip
def test_odd_but_clear_files_are_accepted_without_a_word(
    command: Callable[..., Answer], model_folder: Path, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "pairs.jsonl").write_bytes(content)
    words = ["--model", model_folder, "--data", "pairs.jsonl", "--valid-fraction", 0, *SMALL]
    answer = command(*words, "--dry-run")
    assert (answer.code, answer.err) == (0, "")
    assert "0 dropped" in answer.out


# Models


def without_config(folder: Path) -> None:
    """Remove config.json."""
    (folder / "config.json").unlink()


def cut_config(folder: Path) -> None:
    """Cut config.json in its second line."""
    (folder / "config.json").write_text('{"model_type": "llama",\n "hidden_si', encoding="utf-8")


def list_config(folder: Path) -> None:
    """Make config.json a list."""
    (folder / "config.json").write_text("[1, 2]", encoding="utf-8")


def nameless(folder: Path) -> None:
    """Drop the architecture."""
    edit_json(folder / "config.json", drop=("model_type",))


def pickled(folder: Path) -> None:
    """Leave pickle weights only."""
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def lfs_pointer(folder: Path) -> None:
    """Put a Git-LFS pointer in the place of the weights."""
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 99\n"
    (folder / "model.safetensors").write_bytes(pointer)


def web_page(folder: Path) -> None:
    """Put a web page in the place of the weights."""
    (folder / "model.safetensors").write_bytes(b"<!DOCTYPE html><html>Sign in</html>")


def shard_missing(folder: Path) -> None:
    """Name three weight files, of which the second is not there."""
    names = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts = np.array_split(sorted(tensors), 3)
    for name, keys in zip(names, parts, strict=True):
        save_file({str(key): tensors[key] for key in keys}, folder / name)
    (folder / names[1]).unlink()
    shards = {str(k): n for n, keys in zip(names, parts, strict=True) for k in keys}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}), encoding="utf-8")


def unknown_type(folder: Path) -> None:
    """Name an architecture nobody has."""
    edit_json(folder / "config.json", model_type="lama9")


CANARY = 'open("executed", "w").close()\nclass Model: ...\nclass ModelArgs: ...\n'


def own_code(folder: Path) -> None:
    """Ask mlx-lm to run a file of the model."""
    (folder / "own.py").write_text(CANARY, encoding="utf-8")
    edit_json(folder / "config.json", model_file="own.py")


def own_architecture(folder: Path) -> None:
    """Ask transformers to run a file of the model, for an architecture mlx-lm does not have."""
    (folder / "own.py").write_text(CANARY, encoding="utf-8")
    edit_json(folder / "config.json", model_type="own", auto_map={"AutoModel": "own.Model"})


MODELS = [
    row(without_config, ("config.json is missing",), id="row 31: no config.json"),
    row(cut_config, ("config.json, line 2", "not JSON"), id="row 32: config.json cut"),
    row(list_config, ("config.json", "holds a list", "object"), id="row 32: config.json a list"),
    row(nameless, ("config.json", "model_type is missing"), id="row 32: no model_type"),
    row(unknown_type, ("'lama9'", f"mlx-lm {version('mlx-lm')}", "List: python -c"),
        id="row 33: unknown model_type"),
    row(pickled, ("pytorch_model.bin", "pickle weights are not read", "safetensors"),
        id="row 34: pickle weights"),
    row(lfs_pointer, ("model.safetensors", "this is a Git-LFS pointer", "git lfs pull"),
        id="row 35: Git-LFS pointer"),
    row(web_page, ("model.safetensors", "this is an HTML page", "Download"),
        id="row 35: web page"),
    row(shard_missing, ("1 of 3", "model-00002-of-00003.safetensors"), id="row 36: shard missing"),
    row(own_code, ("model_file", "own.py", "was not run"), id="row 37: model_file"),
    row(own_architecture, ("auto_map", "own.Model", "was not run"), id="row 37: auto_map"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "says"), MODELS)
def test_a_bad_model_folder_is_named_with_the_file(
    refused: Callable[..., Answer],
    pairs_file: Callable[..., Path],
    copy_folder: Callable[..., Path],
    model_folder: Path,
    damage: Callable[[Path], None],
    says: tuple[str, ...],
) -> None:
    folder = copy_folder(model_folder, "model")
    damage(folder)
    refused("--model", folder, "--data", pairs_file(), says=(str(folder), *says))


def test_row_33_the_command_in_the_advice_lists_the_architectures(
    refused: Callable[..., Answer], needed: list[object], copy_folder: Callable[..., Path]
) -> None:
    folder = copy_folder(Path(str(needed[1])), "model")
    unknown_type(folder)
    said = refused(*needed, "--model", folder, says=("lama9",)).err
    shown = said[said.index("python -c") :].strip().replace("python", sys.executable, 1)
    done = subprocess.run(shown, shell=True, capture_output=True, text=True, check=True)
    assert {"llama", "qwen3"} <= set(done.stdout.split())


def test_row_37_code_that_is_not_needed_is_ignored_and_never_run(
    command: Callable[..., Answer],
    pairs_file: Callable[..., Path],
    copy_folder: Callable[..., Path],
    model_folder: Path,
    tmp_path: Path,
) -> None:
    folder = copy_folder(model_folder, "model")
    own_architecture(folder)
    edit_json(folder / "config.json", model_type="llama")
    assert command("--model", folder, "--data", pairs_file(), "--dry-run").code == 0
    assert not list(tmp_path.rglob("executed"))


def test_row_38_messages_without_a_chat_template_show_how_to_choose_one(
    refused: Callable[..., Answer], make_model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_model_folder(tmp_path / "base", chat_template=None)
    (tmp_path / "chats.jsonl").write_bytes(lines_of(*[CHAT] * 4))
    says = (str(folder), "no chat template", "--chat-template chatml")
    refused("--model", folder, "--data", "chats.jsonl", says=says)


def test_row_39_a_template_against_system_messages_is_quoted_and_they_are_folded(
    command: Callable[..., Answer], make_model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}"
        "{{ raise_exception('System role not supported here') }}{% endif %}"
        "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    folder = make_model_folder(tmp_path / "strict", chat_template=template)
    system = {"role": "system", "content": "Be brief."}
    chats = [
        {**CHAT, "prompt": [system, {"role": "user", "content": f"What is sea {i}?"}]}
        for i in range(4)
    ]
    (tmp_path / "chats.jsonl").write_bytes(lines_of(*chats))

    answer = command("--model", folder, "--data", "chats.jsonl", *SMALL, "--steps", 1)

    assert (answer.code, answer.err) == (0, "")
    assert "System role not supported here" in answer.out
    assert "4 kept, but: system folded into the first user turn" in answer.out


@pytest.mark.parametrize(
    ("fault", "repo", "says"),
    [
        row("gated", REPO, ("this model is gated", "accept the terms"), id="row 40: gated"),
        row("bad_token", REPO, ("refused the access token (401)", "hf auth login"),
            id="row 40: wrong token"),
        row("", "tiny-org/other", ("the Hub knows no such model", "Check the spelling"),
            id="row 40: unknown model"),
        row("offline", "tiny-org/other", ("HF_HUB_OFFLINE is set", f"In the cache: {REPO}"),
            id="row 40: offline"),
    ],
)  # fmt: skip
def test_each_no_of_the_hub_has_its_sentence_and_the_token_stays_secret(
    command: Callable[..., Answer],
    refused: Callable[..., Answer],
    needed: list[object],
    hub_server: Any,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    repo: str,
    says: tuple[str, ...],
) -> None:
    hub_server.add_model(REPO, model_folder)
    for name, value in client_environment(hub_server, tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    if fault == "offline":
        assert command(*needed, "--model", REPO, "--dry-run", process=True).code == 0
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    else:
        (tmp_path / "home").mkdir()
        hub_server.fault = fault

    answer = refused(*needed, "--model", repo, says=(repo, *says), process=True)
    detailed = command(*needed, "--model", repo, "--debug", process=True)

    assert "Traceback" in detailed.err
    assert TOKEN not in answer.out + answer.err + detailed.out + detailed.err
    assert f"Bearer {TOKEN}" in hub_server.tokens
    assert not any(TOKEN.encode() in (held or b"") for held in everything_in(tmp_path).values())


# Adapters


@pytest.fixture
def adapter(finished: Path, copy_folder: Callable[..., Path]) -> Path:
    """An adapter of the sound model, free to be damaged."""
    return copy_folder(finished / "adapter", "adapter")


@pytest.mark.parametrize(("damage", "says"), DAMAGES)
def test_a_bad_adapter_is_named_with_the_tensor(
    refused: Callable[..., Answer],
    needed: list[object],
    adapter: Path,
    damage: Callable[[Path], None],
    says: tuple[str, ...],
) -> None:
    damage(adapter)
    words = [*needed, "--init-adapter", adapter]
    refused(*words, says=(str(adapter), *says), may_read_headers=True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lora_parameters": {"keys": ["w_odd"], "rank": 2, "scale": 2.0, "dropout": 0.0}},
         "it adapts w_odd"),
        ({"num_layers": 99}, "num_layers 99: this model has 2 blocks"),
    ],
    ids=["layer", "blocks"],
)  # fmt: skip
def test_an_adapter_that_does_not_fit_is_blamed_by_its_file_and_no_flag_is(
    refused: Callable[..., Answer],
    needed: list[object],
    adapter: Path,
    change: dict[str, Any],
    says: str,
) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    answer = refused(*needed, "--init-adapter", adapter, says=(f"{path}: {says}", "trained on"),
                     may_read_headers=True)  # fmt: skip
    assert "--target-modules" not in answer.err
    assert "--num-layers" not in answer.err


@pytest.mark.parametrize("process", [False, row(True, id="as a process")])
def test_row_45_an_adapter_of_another_model_names_both(
    refused: Callable[..., Answer],
    make_model_folder: Callable[..., Path],
    needed: list[object],
    adapter: Path,
    tmp_path: Path,
    process: bool,
) -> None:
    other = make_model_folder(tmp_path / "other", seed=1)
    words = [*needed, "--model", other, "--init-adapter", adapter]
    says = (str(adapter), f"was trained on {needed[1]}", f"the base model here is {other}")
    refused(*words, says=says, process=process, may_read_headers=True)


@pytest.fixture
def peft_adapter(adapter: Path, tmp_path: Path) -> Path:
    """The same adapter as PEFT writes it."""
    folder = tmp_path / "peft"
    folder.mkdir()
    tensors = {
        "base_model.model."
        + name.replace(".lora_a", ".lora_A.weight").replace(".lora_b", ".lora_B.weight"): (
            np.ascontiguousarray(tensor.T)
        )
        for name, tensor in load_file(adapter / "adapters.safetensors").items()
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_row_42_an_adapter_of_peft_is_imported(
    command: Callable[..., Answer], needed: list[object], peft_adapter: Path, tmp_path: Path
) -> None:
    words = [*needed, "--init-adapter", peft_adapter, "--run-dir", tmp_path / "run"]
    answer = command(*words, "--steps", 1, "--quiet")
    assert (answer.code, answer.err) == (0, "")
    assert (tmp_path / "run" / "adapter" / "adapters.safetensors").exists()


@pytest.mark.parametrize("option", ["--model", "--resume"])
def test_row_42_an_adapter_of_peft_in_another_place_is_named(
    refused: Callable[..., Answer], needed: list[object], peft_adapter: Path, option: str
) -> None:
    words = [*needed, option] if option == "--model" else [option]
    refused(*words, peft_adapter, says=(str(peft_adapter), "is an adapter", "--init-adapter"))


def test_row_42_a_damaged_adapter_of_peft_is_named_too(
    refused: Callable[..., Answer], needed: list[object], peft_adapter: Path
) -> None:
    edit_json(peft_adapter / "adapter_config.json", r=4)
    says = (str(peft_adapter), "has shape (64, 2)", "(64, 4) is needed")
    refused(*needed, "--init-adapter", peft_adapter, says=says, may_read_headers=True)


# The same as a process of its own


@pytest.mark.parametrize(
    ("words", "says"),
    [
        row(["--lerning-rate", "1"], ("--learning-rate",), id="row 1: misspelt option"),
        row(["--data", "nowhere.jsonl"], ("no such file",), id="row 13: no file"),
        row(["--data", "bad.jsonl"], ("bad.jsonl:2", "column"), id="row 15: not JSON"),
        row(["--model", "empty"], ("config.json is missing",), id="row 31: no config.json"),
        row(["--model", "coded"], ("model_file", "was not run"), id="row 37: model_file"),
        row(["--init-adapter", "empty"], ("adapter_config.json",), id="row 44: no adapter"),
        row(["--rank", "0"], ("--rank", "at least 1"), id="row 3: rank 0"),
    ],
)
def test_a_process_refuses_with_the_same_words(
    refused: Callable[..., Answer],
    needed: list[object],
    copy_folder: Callable[..., Path],
    tmp_path: Path,
    words: list[str],
    says: tuple[str, ...],
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.jsonl").write_bytes(lines_of(PAIR) + b"{'prompt': 1}\n")
    own_code(copy_folder(Path(str(needed[1])), "coded"))
    sound = needed[:2] if words[0] == "--data" else needed
    refused(*sound, *words, says=says, process=True)

"""`orpo-mlx bench` from the command line: bad input at once, the short form for real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orpo_mlx.bench import suite
from orpo_mlx.bench.parts import NAMES
from orpo_mlx.cli.commands import bench
from orpo_mlx.cli.main import main

RESULT: dict[str, Any] = {
    "command": "orpo-mlx bench", "form": "full", "started": "today", "seconds": 1.0,
    "is_complete": True, "power": [{"after": "the start", "load": 1.0}],
    "parts": [{"name": "verify", "title": "Verify", "status": "done", "reason": "",
               "seconds": 1.0, "limit_seconds": 9, "rows": []}],
}  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a bench was asked for, which does nothing here."""
    found: list[Any] = []

    def run_bench(request: Any, command: str, listener: Any, keep: Any) -> dict[str, Any]:
        found.extend((request, command))
        listener.doing("verify", "loading", 1.0)
        listener.ended(RESULT["parts"][0])
        keep(RESULT)
        return RESULT

    monkeypatch.setattr(suite, "run_bench", run_bench)
    return found


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--only", "verfy"], "there is no such part; did you mean verify?"),
        (["--only", "verify,stepss"], "there is no such part; did you mean steps?"),
        (["--shrt"], "--shrt: there is no such option; did you mean --short?"),
        (["--out"], "--out: the value is missing"),
        (["--model", "./nope"], "./nope: there is no such folder"),
        (["--model", "~/nope"], "~/nope: there is no such folder"),
    ],
)
@pytest.mark.usefixtures("asked")
def test_bad_input_is_refused_before_anything_is_done(
    words: list[str], says: str, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *words]) == 2
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_is_there_is_not_replaced(asked, tmp_path: Path, capsys):
    (tmp_path / bench.NUMBERS).write_text("mine")
    assert main(["bench", "--out", str(tmp_path)]) == 2
    assert "there is a report already" in capsys.readouterr().err
    assert asked == []


def test_a_place_that_is_a_file_is_refused(asked, tmp_path: Path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["bench", "--out", str(tmp_path / "file")]) == 2
    assert "the folder cannot be made" in capsys.readouterr().err
    assert asked == []


def test_page_and_numbers_lie_in_a_new_folder_of_the_present_one(
    asked, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "--offline", "--only", "verify,attention"]) == 0
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("orpo-mlx-bench-")
    page = (folder / bench.PAGE).read_text()
    assert json.loads((folder / bench.NUMBERS).read_text()) == RESULT
    shown = capsys.readouterr()
    assert shown.out.startswith(page)
    assert str(folder) in shown.out
    assert "verify            1.0 s  done" in shown.err
    request, command = asked
    assert (request.only, request.is_offline) == (("verify", "attention"), True)
    assert command == "orpo-mlx bench --offline --only verify,attention"


def test_a_folder_as_model_is_found_by_workers_and_named_to_nobody(
    asked, tmp_path: Path, copy_folder, model_folder: Path, monkeypatch
):
    copy_folder(model_folder, "secret-name")
    monkeypatch.chdir(tmp_path)
    main(["bench", "--out", "o", "--model", "secret-name"])
    request, command = asked
    assert request.model == str((tmp_path / "secret-name").resolve())
    assert command == "orpo-mlx bench --model FOLDER"


def test_programs_get_json_on_both_streams(asked, tmp_path: Path, capsys):
    assert main(["bench", "--json", "--out", str(tmp_path / "o")]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == RESULT
    (line,) = map(json.loads, shown.err.splitlines())
    assert (line["event"], line["name"], line["status"]) == ("part", "verify", "done")
    assert main(["bench", "--json", "--out", str(tmp_path / "o")]) == 2
    assert json.loads(capsys.readouterr().out)["event"] == "failed"


def test_a_check_that_failed_is_exit_code_1(asked, tmp_path: Path, monkeypatch):
    part = {**RESULT["parts"][0], "rows": [{"name": "gradient", "passed": False, "value": None}]}
    monkeypatch.setattr(suite, "run_bench", lambda *rest: {**RESULT, "parts": [part]})
    assert main(["bench", "--out", str(tmp_path / "o")]) == 1


def test_the_help_names_every_part():
    text = " ".join(bench.build_bench_parser().format_help().split())
    assert all(name in text for name in NAMES)


# For real


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home folder of a user with a name."""
    return tmp_path_factory.mktemp("Users") / "anna.example"


@pytest.mark.slow
def test_the_short_form_does_everything_and_names_nobody(home: Path, monkeypatch):
    home.mkdir()
    for name in ("HOME", "USER", "LOGNAME"):
        monkeypatch.setenv(name, str(home) if name == "HOME" else "anna.example")
    out = home / "report"
    command = [sys.executable, "-m", "orpo_mlx", "bench", "--short", "--offline", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=home)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((out / bench.NUMBERS).read_text())
    assert [part["name"] for part in result["parts"]] == list(NAMES)
    # On a busy machine a part may be late, but none may fail.
    assert {part["status"] for part in result["parts"]} <= {"done", "late"}
    assert result["is_complete"]
    first = next(row for row in result["parts"][-1]["rows"] if row["way"] == "default")
    assert first["seconds_per_pair"] > 0
    for name in (bench.PAGE, bench.NUMBERS):
        text = (out / name).read_text()
        assert "anna.example" not in text
        assert str(home.parent) not in text
        assert "/tmp/" not in text
    # What it made is gone, and it left nothing beside the report.
    assert [path.name for path in home.iterdir() if not path.name.startswith(".")] == ["report"]

"""What the pages say is so: tables are current, examples run, commands parse, links lead on."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from orpo_mlx import __main__ as program
from orpo_mlx import commands_data
from orpo_mlx.command_line import (
    Parser,
    TextRequested,
    build_train_parser,
    parse_fit,
    parse_train,
)
from orpo_mlx.config import TrainConfig
from orpo_mlx.data.formats import LAYOUTS, detect_layout
from orpo_mlx.data.sources import Row
from orpo_mlx.export import adapter_import, command
from orpo_mlx.runs.directory import create_run, default_runs_dir
from orpo_mlx.runs.events import EVENT_TYPES, METRIC_NAMES
from orpo_mlx.settings_file import load_config

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
HEAVY = {"mlx", "mlx_lm", "transformers", "torch"}


def blocks(language: str, text: str = README) -> list[str]:
    """The code blocks of a language in a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def generator() -> Any:
    path = ROOT / "tests" / "regenerate_docs.py"
    spec = importlib.util.spec_from_file_location("regenerate_docs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Tables


def test_the_generated_tables_are_current():
    assert generator().regenerate(README) == README, "run `make docs`"


def test_a_changed_table_would_be_noticed():
    regenerate = generator().regenerate
    assert regenerate(README.replace("| `--rank` | 8 |", "| `--rank` | 9 |")) == README
    assert regenerate(README.replace("| `--rank` | 8 |", "")) == README
    with pytest.raises(ValueError, match="settings:begin"):
        regenerate(README.replace("<!-- settings:begin -->", ""))


@pytest.mark.parametrize("option", build_train_parser().options())
def test_every_option_of_train_is_documented(option: str):
    assert re.search(rf"`{option.replace('--no-', '--', 1)}[ `]", README)


@pytest.mark.parametrize("name", program.COMMANDS)
def test_every_command_and_each_of_its_options_is_documented(name: str):
    assert re.search(rf"`orpo-mlx {name}[ `]", README)
    with pytest.raises(TextRequested) as asked:
        program.COMMANDS[name].run(["--help"])
    for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", asked.value.text):
        assert option in README or option.replace("--no-", "--", 1) in README


@pytest.mark.parametrize("name", commands_data.COMMANDS)
def test_every_data_command_and_each_of_its_options_is_documented(name: str):
    assert f"data {name}" in README
    with pytest.raises(TextRequested) as asked:
        commands_data.main([name, "--help"])
    for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", asked.value.text):
        assert re.search(rf"`{option.replace('--no-', '--', 1)}[ `]", README), option


def layout_rows() -> list[tuple[str, str]]:
    part = README.split("<!-- layouts:begin -->")[1].split("<!-- layouts:end -->")[0]
    return re.findall(r"^\| (.+?) \| `(.+)` \|$", part, re.M)


@pytest.mark.parametrize(("name", "line"), layout_rows())
def test_each_example_line_has_the_layout_it_stands_for(name: str, line: str):
    found = detect_layout([Row(json.loads(line), "README.md:1")])
    assert found.name.split(" (")[0] == name
    assert found.to_pair(Row(json.loads(line), "README.md:1")).__class__.__name__.endswith("Pair")


def test_every_layout_has_an_example_line():
    assert sorted(name for name, _ in layout_rows()) == sorted(
        layout.name.split(" (")[0] for layout in LAYOUTS
    )


@pytest.mark.parametrize("metric", METRIC_NAMES)
def test_every_metric_is_named_beside_its_name_in_trl(metric: str):
    table = README.split("What is logged, and what TRL calls it:")[1].split("And settings:")[0]
    assert f"`{metric}`" in table


# Examples


def test_the_python_blocks_run_one_after_the_other(tmp_path: Path):
    """In a process of their own, in an empty folder, as a reader would type them in."""
    script = "\n".join(blocks("python"))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    reason, before, after = printed[0].split()
    assert reason == "completed"
    assert float(after) < float(before)
    # The lines of the event reader: one for each of the five steps.
    assert [line.split()[0] for line in printed[1:]] == ["1", "2", "3", "4", "5"]
    assert all(0 < float(line.split()[1]) < 5 for line in printed[1:])


def test_the_event_reader_takes_five_lines():
    (block,) = (block for block in blocks("python") if "read_events" in block)
    assert len([line for line in block.splitlines() if line.strip()]) == 5


@pytest.mark.parametrize("block", blocks("toml"))
def test_the_settings_files_are_settings_files(block: str, tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_text(block, encoding="utf-8")
    load_config(path)


def command_lines() -> Iterator[str]:
    """Every line of a shell block that starts one of our programs, in all pages."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for block in [*blocks("sh", text), *re.findall(r"(?:^ {4,}\S.*\n)+", text, re.M)]:
            for line in block.replace("\\\n", " ").splitlines():
                if re.match(r"\s*(orpo-mlx|python -m orpo_mlx(\.train)?)( |$)", line):
                    yield line.split(" #")[0].strip()


class Parsed(Exception):
    """The words were understood; nothing is done."""


def stop_after(function: Callable[..., Any]) -> Callable[..., NoReturn]:
    def parse(*words: Any, **named: Any) -> NoReturn:
        function(*words, **named)
        raise Parsed

    return parse


COMMAND_LINES = list(dict.fromkeys(command_lines()))


def test_the_command_lines_of_the_pages_are_found():
    assert len(COMMAND_LINES) >= 12


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_every_command_line_parses(line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(ROOT)  # where the pages say to start them
    create_run(TrainConfig(model="m", data="d", run_dir=str(default_runs_dir() / "RUN")))
    words = shlex.split(line)
    if words[:2] == ["orpo-mlx", "data"]:
        monkeypatch.setattr(Parser, "parse", stop_after(Parser.parse))
        with pytest.raises((Parsed, TextRequested)):
            program._dispatch(words[1:])
    elif words[0] == "orpo-mlx":
        monkeypatch.setattr(program, "_parse", stop_after(program._parse))
        monkeypatch.setattr(program, "parse_train", stop_after(parse_train))
        monkeypatch.setattr(program, "parse_fit", stop_after(parse_fit))
        monkeypatch.setattr(command, "parse_export", stop_after(command.parse_export))
        monkeypatch.setattr(
            adapter_import, "parse_adapter", stop_after(adapter_import.parse_adapter)
        )
        with pytest.raises((Parsed, TextRequested)):
            program._dispatch(words[1:])
    elif words[2] == "orpo_mlx.train":
        try:
            parse_train(words[3:])
        except TextRequested:
            assert "--show-config" in words
    else:
        pytest.fail(f"no test knows how to read: {line}")


@pytest.mark.parametrize("line", ["orpo-mlx stop RUN --wiat", "orpo-mlx train --demo --rnk 2"])
def test_a_command_line_with_a_mistake_would_be_noticed(line: str, monkeypatch):
    from orpo_mlx.errors import ConfigError

    monkeypatch.setattr(program, "_parse", stop_after(program._parse))
    with pytest.raises(ConfigError):
        program._dispatch(shlex.split(line)[1:])


@pytest.mark.parametrize("target", re.findall(r"`?make ([a-z-]+)", "\n".join(blocks("sh"))))
def test_every_make_target_of_the_readme_exists(target: str):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize("module", ["orpo_mlx", "orpo_mlx.train"])
def test_help_is_answered_without_mlx(module: str):
    script = (
        "import runpy, sys\n"
        f"sys.argv = [{module!r}, '--help']\n"
        "try:\n"
        f"    runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n"
        "    sys.stderr.write(f'{end.code} ' + ' '.join(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    code, *loaded = done.stderr.split()
    assert (code, done.stdout.startswith("usage: ")) == ("0", True)
    assert {name.split(".")[0] for name in loaded}.isdisjoint(HEAVY)


# Files


def tree_paths() -> Iterator[tuple[str, str]]:
    """(path, phrase) of every line of the README's tree; folders end in a slash."""
    (tree,) = (block for block in blocks("text") if "ARCHITECTURE.md  " in block)
    folders: list[str] = []
    for line in tree.splitlines():
        found = re.match(r"( *)(\S+) {2,}(\S.*)$", line)
        assert found, f"needs a phrase: {line}"
        depth = len(found[1]) // 2
        path = "".join(folders[:depth]) + found[2]
        if found[2].endswith("/"):
            folders[depth:] = [found[2]]
        yield path, found[3]


def test_everything_in_the_tree_exists():
    for path, _ in tree_paths():
        assert (ROOT / path).exists(), path
        assert (ROOT / path).is_dir() == path.endswith("/"), path


def test_every_module_is_in_the_tree():
    named = {path for path, _ in tree_paths()}
    files = {
        path.relative_to(ROOT).as_posix()
        for folder in ("orpo_mlx", "examples", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert files - named == set()


def test_every_page_and_folder_at_the_top_is_in_the_tree():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs a git clone to know what belongs to the project")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    top = {name.split("/")[0] for name in done.stdout.split("\0") if name}
    named = {path.split("/")[0] for path, _ in tree_paths()}
    assert {name for name in top if not name.startswith(".")} <= named


def anchors(text: str) -> set[str]:
    """The names GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_inside_the_project_leads_somewhere(page: str):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


def test_every_test_that_holds_a_figure_exists():
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", README)
    assert len(named) >= 12
    for file, name in named:
        (path,) = (ROOT / "tests").rglob(file)
        source = path.read_text(encoding="utf-8")
        assert re.search(rf"^def {name}\(", source, re.M), f"{file}::{name}"
        compile(source, str(path), "exec")


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_module_and_test_named_in_a_page_exists(page: str):
    text = (ROOT / page).read_text(encoding="utf-8")
    for name in re.findall(r"`((?:[\w]+/)*\w+\.py)`", text):
        places = [*ROOT.glob(name), *(ROOT / "orpo_mlx").rglob(name), *(ROOT / "tests").rglob(name)]
        assert places or name == "utils.py", name


def test_every_event_named_in_the_architecture_exists():
    for name in re.findall(r"\b(?:Run|Step|Eval)[A-Z]\w+|\bResumed\b", ARCHITECTURE):
        assert name in EVENT_TYPES, name


def test_the_changelog_has_a_place_for_what_comes_next():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[Unreleased\]$", text, re.M)

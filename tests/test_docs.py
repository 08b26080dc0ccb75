"""What the pages say is so: tables are current, examples run, commands parse, links lead on."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import pytest

from orpo_mlx.cli import main as program
from orpo_mlx.cli.commands import adapter, export, fit, train
from orpo_mlx.cli.data import main
from orpo_mlx.cli.parser import Parser, TextRequested
from orpo_mlx.config import TrainConfig
from orpo_mlx.config.file import load_config
from orpo_mlx.data.layouts.detect import LAYOUTS, detect_layout
from orpo_mlx.data.sources.source import Row
from orpo_mlx.errors import ConfigError
from orpo_mlx.runs.directory import create_run, default_runs_dir
from orpo_mlx.runs.events import EVENT_TYPES
from orpo_mlx.runs.metrics import METRICS
from tui.shell.keymap import keymap_from
from tui.shell.settings import CHOICES, Settings, load_keys

ROOT = Path(__file__).parents[1]
GUIDES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
PAGES = [
    "README.md",
    *GUIDES,
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "examples/README.md",
    "benchmarks/README.md",
]
TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
README = TEXTS["README.md"]
# What a user reads: where something is documented is a matter of taste, that it is, is not.
FOR_USERS = "\n".join(TEXTS[page] for page in ["README.md", *GUIDES])
LONGEST_PAGE = 400
LONGEST_README = 180
LONGEST_ARCHITECTURE = 160
HEAVY = {"mlx", "mlx_lm", "transformers", "torch"}


def blocks(language: str, text: str = FOR_USERS) -> list[str]:
    """The code blocks of a language in a text, by default in all pages for users."""
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


@pytest.mark.parametrize("page", generator().PARTS)
def test_the_generated_parts_are_current(page: str):
    text = TEXTS[f"docs/{page}"]
    assert generator().regenerate(page, text) == text, "run `make docs`"


def test_every_generated_part_is_in_a_page_that_is_regenerated():
    known = {(page, name) for page, parts in generator().PARTS.items() for name in parts}
    for page, text in TEXTS.items():
        for name in re.findall(r"<!-- ([\w-]+):begin -->", text):
            assert name == "layouts" or (page.removeprefix("docs/"), name) in known, name


def test_a_changed_table_would_be_noticed():
    def regenerate(text: str) -> str:
        return generator().regenerate("settings.md", text)

    page = TEXTS["docs/settings.md"]
    assert regenerate(page.replace("| `--rank` | 8 |", "| `--rank` | 9 |")) == page
    assert regenerate(page.replace("| `--rank` | 8 |", "")) == page
    with pytest.raises(ValueError, match="settings:begin"):
        regenerate(page.replace("<!-- settings:begin -->", ""))


@pytest.mark.parametrize("option", train.build_train_parser().options())
def test_every_option_of_train_is_documented(option: str):
    assert re.search(rf"`{option.replace('--no-', '--', 1)}[ `]", FOR_USERS)


@pytest.mark.parametrize("name", program.COMMANDS)
def test_every_command_and_each_of_its_options_is_documented(name: str):
    assert re.search(rf"`orpo-mlx {name}[ `]", FOR_USERS)
    with pytest.raises(TextRequested) as asked:
        program.COMMANDS[name].run(["--help"])
    for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", asked.value.text):
        assert option in FOR_USERS or option.replace("--no-", "--", 1) in FOR_USERS


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_data_command_and_each_of_its_options_is_documented(name: str):
    assert f"data {name}" in FOR_USERS
    with pytest.raises(TextRequested) as asked:
        main.main([name, "--help"])
    for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", asked.value.text):
        assert re.search(rf"`{option.replace('--no-', '--', 1)}[ `]", FOR_USERS), option


def layout_rows() -> list[tuple[str, str]]:
    part = TEXTS["docs/data.md"].split("<!-- layouts:begin -->")[1].split("<!-- layouts:end -->")[0]
    return re.findall(r"^\| (.+?) \| `(.+)` \|$", part, re.M)


@pytest.mark.parametrize(("name", "line"), layout_rows())
def test_each_example_line_has_the_layout_it_stands_for(name: str, line: str):
    found = detect_layout([Row(json.loads(line), "data.md:1")])
    assert found.name.split(" (")[0] == name
    assert found.to_pair(Row(json.loads(line), "data.md:1")).__class__.__name__.endswith("Pair")


def test_every_layout_has_an_example_line():
    assert sorted(name for name, _ in layout_rows()) == sorted(
        layout.name.split(" (")[0] for layout in LAYOUTS
    )


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_is_named_beside_its_name_in_trl(metric: str):
    page = TEXTS["docs/training.md"]
    table = page.split("What is logged, and what TRL calls it:")[1].split("And settings:")[0]
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


def settings_files() -> list[str]:
    return [b for page in PAGES if page != "docs/app.md" for b in blocks("toml", TEXTS[page])]


@pytest.mark.parametrize("block", settings_files())
def test_the_settings_files_are_settings_files(block: str, tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_text(block, encoding="utf-8")
    load_config(path)


def test_the_keys_of_the_page_of_the_app_can_be_used(tmp_path: Path):
    (block,) = blocks("toml", TEXTS["docs/app.md"])
    (tmp_path / "keys.toml").write_text(block, encoding="utf-8")
    keys, problems = load_keys(tmp_path)
    keymap, refused = keymap_from(keys)
    assert (problems, refused) == ([], [])
    assert len(keymap) == len(keys) >= 2


def test_every_setting_of_the_app_is_documented():
    page = TEXTS["docs/app.md"]
    for field in fields(Settings):
        assert field.name == "rest" or f"| `{field.name}` | " in page, field.name
    assert f"| `charset` | {', '.join(CHOICES['charset'])} |" in page


def command_lines() -> Iterator[str]:
    """Every line of a shell block that starts one of our programs, in all pages."""
    for page in PAGES:
        text = TEXTS[page]
        for block in [*blocks("sh", text), *re.findall(r"(?:^ {4,}\S.*\n)+", text, re.M)]:
            for line in block.replace("\\\n", " ").splitlines():
                if re.match(r"\s*(orpo-mlx|python -m orpo_mlx(\.train)?)( |$)", line):
                    command = line.split(" #")[0].strip()
                    if command != "orpo-mlx":  # opens the app, which has its own tests
                        yield command


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


READERS = {"train": train, "resume": train, "fit": fit, "export": export, "adapter": adapter}
"""Commands whose words are checked further after they are parsed."""


def read_words(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a command read its words, and stop before it does anything."""
    if module := READERS.get(words[0]):
        name = f"parse_{'train' if words[0] == 'resume' else words[0]}"
        monkeypatch.setattr(module, name, stop_after(getattr(module, name)))
    else:
        monkeypatch.setattr(Parser, "parse", stop_after(Parser.parse))
    program.COMMANDS[words[0]].run(words[1:])


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_every_command_line_parses(line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(ROOT)  # where the pages say to start them
    run = create_run(TrainConfig(model="m", data="d", run_dir=str(default_runs_dir() / "RUN")))
    (run.checkpoints_folder / "0000005").mkdir()
    (run.checkpoints_folder / "0000005" / "adapter_config.json").write_text("{}")
    words = shlex.split(line)
    if words == ["orpo-mlx"]:
        return
    if words[0] == "orpo-mlx":
        with pytest.raises((Parsed, TextRequested)):
            read_words(words[1:], monkeypatch)
    elif words[2] == "orpo_mlx.train":
        try:
            train.parse_train(words[3:])
        except TextRequested:
            assert "--show-config" in words
    else:
        pytest.fail(f"no test knows how to read: {line}")


@pytest.mark.parametrize("line", ["orpo-mlx stop RUN --wiat", "orpo-mlx train --demo --rnk 2"])
def test_a_command_line_with_a_mistake_would_be_noticed(line: str, monkeypatch):
    with pytest.raises(ConfigError):
        read_words(shlex.split(line)[1:], monkeypatch)


def commands_in_sentences() -> list[tuple[str, str]]:
    """(words before the options, option) of what the pages say in a line of text."""
    spans = re.findall(r"`orpo-mlx ((?:data |adapter )?[a-z]+)( [^`]*)`", "\n".join(TEXTS.values()))
    found = [(words, flag) for words, rest in spans for flag in re.findall(r"--[a-z][a-z-]*", rest)]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize(("words", "option"), commands_in_sentences())
def test_every_option_of_a_command_in_a_sentence_is_in_its_help(words: str, option: str):
    name, *rest = words.split()
    with pytest.raises(TextRequested) as asked:
        program.COMMANDS[name].run([*rest, "--help"])
    assert re.search(rf"{option}(?![\w-])", asked.value.text)


def test_commands_in_sentences_are_found():
    assert {("verify", "--data"), ("watch", "--plain")} <= set(commands_in_sentences())


@pytest.mark.parametrize("target", re.findall(r"`?make ([a-z-]+)", "\n".join(blocks("sh"))))
def test_every_make_target_of_the_pages_exists(target: str):
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


def headings(text: str) -> list[str]:
    """The names GitHub gives to the headings of a page, in order; code is no heading."""
    prose = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.M | re.S)
    found = re.findall(r"^#+ (.+)$", prose, re.M)
    return [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in found]


def anchors(text: str) -> set[str]:
    return set(headings(text))


def links(page: str) -> Iterator[tuple[str, str]]:
    """(file relative to the page, anchor) of every link into the project; one of them may be ""."""
    prose = re.sub(r"^ *```.*?^ *```$|`[^`\n]*`", "", TEXTS[page], flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not target.startswith("https://"):
            name, _, anchor = target.partition("#")
            yield name, anchor


def dead_links(page: str) -> list[str]:
    """The links of a page that lead to no file of the project, or to no heading in it."""
    dead = []
    for name, anchor in links(page):
        file = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        if not file.is_relative_to(ROOT) or not file.exists():
            dead.append(name)
        elif anchor and anchor not in anchors(file.read_text(encoding="utf-8")):
            dead.append(f"{name}#{anchor}")
    return dead


@pytest.mark.parametrize("page", PAGES)
def test_every_link_inside_the_project_leads_somewhere(page: str):
    assert dead_links(page) == []


@pytest.mark.parametrize(
    "link", ["docs/nowhere.md", "#no-such-heading", "docs/data.md#no-such-heading", "../elsewhere"]
)
def test_a_dead_link_would_be_noticed(link: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(TEXTS, "README.md", f"{README}\n[here]({link})\n")
    assert dead_links("README.md") == [link]


def test_no_two_headings_of_a_page_share_an_anchor():
    """The second would be reached by another name than the one tested above."""
    for page in ["README.md", *GUIDES]:
        found = headings(TEXTS[page])
        assert len(set(found)) == len(found), page


@pytest.mark.parametrize("page", GUIDES)
def test_every_guide_is_found_from_the_readme_and_short(page: str):
    assert (page, "") in links("README.md")
    assert len(TEXTS[page].splitlines()) <= LONGEST_PAGE


def test_the_pages_at_the_top_are_short():
    assert len(README.splitlines()) <= LONGEST_README
    assert len(TEXTS["ARCHITECTURE.md"].splitlines()) <= LONGEST_ARCHITECTURE


def test_every_package_of_the_core_is_in_the_readme_and_the_architecture():
    packages = {path.parent.name for path in (ROOT / "orpo_mlx").glob("*/__init__.py")}
    for text in (README, TEXTS["ARCHITECTURE.md"]):
        assert packages - set(re.findall(r"\w+", text)) == set()


def test_every_picture_of_a_screen_is_one_that_is_taken():
    script = (ROOT / "docs" / "make_screens.py").read_text(encoding="utf-8")
    pages = ("README.md", "docs/app.md", "docs/chat.md", "docs/serving.md")
    shown = {name for page in pages for name, _ in links(page)}
    pictures = {Path(name).stem for name in shown if "screens/" in name}
    taken = {file.stem for file in (ROOT / "docs" / "screens").glob("*.svg")}
    dark = {name for name in taken if not name.endswith("-light")}
    assert {name.removesuffix("-light") for name in pictures} == dark
    assert taken - dark == {f"{name}-light" for name in dark - {"live-animated"}}
    for name in dark:
        assert f'"{name}"' in script or f"{name}.svg" in script, name


def test_every_test_that_holds_a_figure_exists():
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", FOR_USERS)
    assert len(named) >= 12
    for file, name in named:
        (path,) = (ROOT / "tests").rglob(file)
        source = path.read_text(encoding="utf-8")
        assert re.search(rf"^def {name}\(", source, re.M), f"{file}::{name}"
        compile(source, str(path), "exec")


def test_the_figures_in_the_readme_are_those_of_the_page_they_come_from():
    part = README.split("## The objective, and how")[1].split("## Limits")[0]
    rows = [row for row in re.findall(r"^\|.*\|$", part, re.M) if re.search(r"\d", row)]
    assert len(rows) >= 4
    for row in rows:
        figures = "|".join(row.split("|")[-3:])  # measured and held to, or time and memory
        assert figures in TEXTS["docs/measured.md"], row


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_module_and_test_named_in_a_page_exists(page: str):
    text = TEXTS[page]
    for name in re.findall(r"`((?:[\w]+/)*\w+\.py)`", text):
        places = [*ROOT.glob(name), *(ROOT / "orpo_mlx").rglob(name), *(ROOT / "tests").rglob(name)]
        assert places or "NAME" in name or name == "utils.py", name


def test_every_event_named_in_the_architecture_exists():
    for name in re.findall(r"\b(?:Run|Step|Eval)[A-Z]\w+|\bResumed\b", TEXTS["ARCHITECTURE.md"]):
        assert name in EVENT_TYPES, name


def test_the_changelog_has_a_place_for_what_comes_next():
    assert re.search(r"^## \[Unreleased\]$", TEXTS["CHANGELOG.md"], re.M)

"""The export command: what it understands, what it says, and in which order."""

import json

import pytest

from orpo_mlx.__main__ import main as program
from orpo_mlx.cli.commands.export import parse_export
from orpo_mlx.cli.parser import TextRequested
from orpo_mlx.errors import ConfigError
from orpo_mlx.export.formats.table import FORMATS, OPTIONS, Format


def test_a_command_line_is_understood():
    command = parse_export(
        [
            "RUN",
            "--to",
            "peft",
            "--out",
            "here",
            "--checkpoint",
            "best",
            "--dtype=float16",
            "--force",
        ]
    )
    assert command is not None
    assert (command.source, command.format.name, command.out) == ("RUN", "peft", "here")
    assert (command.checkpoint, command.force, command.as_json) == ("best", True, False)
    assert command.options == {"dtype": "float16"}


MISTAKES = [
    ([], "to which format"),
    (["RUN"], "--to FORMAT"),
    (["--to", "peft"], "which run or adapter"),
    (["RUN", "--to", "pfet"], "Did you mean peft?"),
    (["RUN", "--to", "onnx"], "gguf-lora"),
    (["RUN", "--to", "peft", "--dtype", "float61"], "Did you mean float16?"),
    (["RUN", "--to", "mlx", "--dtype", "float16"], "--to mlx does not take it"),
    (["RUN", "--to", "peft", "--fore"], "--force"),
    (["RUN", "--to"], "the value is missing"),
    (["RUN", "OTHER", "--to", "peft"], "OTHER"),
]


@pytest.mark.parametrize(("words", "says"), MISTAKES)
def test_a_mistake_is_named(words, says):
    with pytest.raises(ConfigError) as error:
        parse_export(words)
    assert says in str(error.value)


def test_help_names_every_format_and_who_takes_an_option():
    with pytest.raises(TextRequested) as asked:
        parse_export(["--help"])
    for word in (*(one.name for one in FORMATS), *(option.flag for option in OPTIONS)):
        assert word in asked.value.text


def test_every_option_of_a_format_is_declared():
    names = {option.name for option in OPTIONS}
    assert all(set(one.options) <= names for one in FORMATS)
    assert {name for one in FORMATS for name in one.options} == names


@pytest.mark.parametrize("one", FORMATS, ids=lambda one: one.name)
def test_every_format_has_a_module_that_exports(one: Format):
    import importlib

    module = importlib.import_module(f"orpo_mlx.export.formats.{one.module}")
    assert callable(module.export)


def test_the_list_explains_every_format(capfd):
    assert program(["export", "--list"]) == 0
    text = capfd.readouterr().out
    assert program(["export", "--list", "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)
    assert [row["format"] for row in rows] == [one.name for one in FORMATS]
    for row in rows:
        assert sorted(row) == ["format", "loss", "what", "who_reads_it"]
        assert all(value in text for value in row.values())


def test_the_events_come_in_order_with_their_fields(make_adapter, export, tmp_path):
    made = make_adapter("llama")
    events = export(made.folder, "--to", "peft", "--out", tmp_path / "peft")
    names = [event["event"] for event in events]
    assert names == ["started", "progress", "progress", "progress", "verified", "finished"]
    assert events[0] == {"event": "started", "format": "peft", "out": str(tmp_path / "peft")}
    assert [event["done"] for event in events[1:4]] == [0, 1, 2]
    assert {event["total"] for event in events[1:4]} == {3}
    for check in events[4]["checks"]:
        assert check.keys() >= {"name", "passed", "value", "limit", "text"}
    done = events[5]
    assert done.keys() >= {"format", "path", "files", "seconds", "command", "notes"}
    sizes = {file["name"]: file["bytes"] for file in done["files"]}
    assert sizes == {path.name: path.stat().st_size for path in (tmp_path / "peft").iterdir()}


def test_a_refusal_is_an_event_too(make_adapter, tmp_path, capfd):
    made = make_adapter("llama", dora=True)
    words = ["export", str(made.folder), "--to", "gguf-lora", "--out", str(tmp_path / "x.gguf")]
    assert program([*words, "--json"]) == 2
    said = capfd.readouterr()
    last = json.loads(said.out.splitlines()[-1])
    assert last["event"] == "failed"
    assert "DoRA" in last["message"]
    assert "fused" in last["what_to_do"]
    assert said.err.startswith("error: ")


def test_a_mistake_on_the_command_line_is_an_event_too(capfd):
    assert program(["export", "RUN", "--to", "pfet", "--json"]) == 2
    assert json.loads(capfd.readouterr().out)["event"] == "failed"


def test_people_read_what_was_checked_and_how_to_go_on(make_adapter, tmp_path, capfd):
    made = make_adapter("llama")
    program(["export", str(made.folder), "--to", "gguf-lora", "--out", str(tmp_path / "x.gguf")])
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == f"export to gguf-lora: {tmp_path / 'x.gguf'}"
    assert any(line.startswith("  ok    delta: ") for line in lines)
    assert lines[-1] == f"use it   llama-cli -m BASE.gguf --lora {tmp_path / 'x.gguf'}"


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (["--to", "peft"], "adapter-peft"),
        (["--to", "gguf-lora"], "adapter-gguf-lora.gguf"),
        (["--to", "gguf-lora", "--out", "into"], "into/adapter-gguf-lora.gguf"),
        (["--to", "gguf-lora", "--out", "name.gguf"], "name.gguf"),
    ],
)
def test_without_a_name_the_result_lies_here_under_the_adapters(
    words, path, make_adapter, export, tmp_path, monkeypatch
):
    made = make_adapter("llama")
    monkeypatch.chdir(tmp_path)
    assert export(made.folder, *words)[-1]["path"] == path
    assert (tmp_path / path).exists()

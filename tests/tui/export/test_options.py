"""The export form asks for what `orpo-mlx export` takes, no more and no less."""

from __future__ import annotations

from pathlib import Path

import pytest

from orpo_mlx.cli.commands.export import parse_export
from orpo_mlx.errors import OrpoError
from orpo_mlx.export.formats.table import FORMATS, OPTIONS
from tui.export.options import (
    FIELDS,
    FIELDS_BY_NAME,
    NEEDED,
    fields_for,
    missing,
    option_words,
    place_of,
)

FILLED = {field.name: field.values[-1] if field.values else "x" for field in FIELDS}


def test_every_option_of_a_format_has_a_labelled_field():
    assert {option.name for option in OPTIONS} == set(FIELDS_BY_NAME) - {"model", "lmstudio"}
    for field in FIELDS:
        assert not field.label.startswith("--"), f"{field.name}: give it a label"
        assert len(field.label) <= 16


@pytest.mark.parametrize("format", [one.name for one in FORMATS])
def test_what_the_form_gives_is_what_the_command_takes(format):
    words = option_words(format, FILLED)
    command = parse_export(["run", "--to", format, *words])
    assert command.model == "x"
    assert set(command.options) == set(next(f for f in FORMATS if f.name == format).options)


@pytest.mark.parametrize("format", [one.name for one in FORMATS])
def test_an_untouched_form_gives_nothing(format):
    untouched = {field.name: field.values[0] if field.values else "" for field in FIELDS}
    assert option_words(format, untouched) == []


def test_an_option_is_given_only_to_formats_that_take_it():
    assert option_words("mlx", FILLED) == ["--base-id", "x", "--model", "x"]
    with pytest.raises(OrpoError, match="does not take it"):
        parse_export(["run", "--to", "mlx", *option_words("gguf", FILLED)])


def test_what_a_format_cannot_do_without_comes_first_and_is_asked_for():
    assert next(field.name for field in fields_for(["mlx", "ollama"])) == NEEDED["ollama"]
    field, said = missing(["mlx", "ollama"], {"base_gguf": " "})
    assert field is FIELDS_BY_NAME["base_gguf"]
    assert said.startswith("ollama needs Base GGUF")
    assert missing(["mlx", "ollama"], {"base_gguf": "a.gguf"}) == (None, "")
    assert missing(["gguf", "gguf-lora"], {}) == (None, "")


@pytest.mark.parametrize(
    ("format", "given", "place"),
    [
        ("gguf-lora", "", "/out/run-gguf-lora.gguf"),
        ("mlx", "", "/out/run-mlx"),
        ("hub", "", "/out/run-hub"),
        ("lmstudio", "/lm/models", "/lm/models/orpo-mlx/run"),
    ],
)
def test_files_are_named_by_run_and_format(format, given, place):
    assert place_of(format, "run", Path("/out"), {"lmstudio": given}) == Path(place)


def test_lm_studio_is_looked_for_by_the_export_where_it_is_not_named():
    assert place_of("lmstudio", "run", Path("/out"), {"lmstudio": " "}) is None

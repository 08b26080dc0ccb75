"""What someone new is told, by value."""

from __future__ import annotations

import json

import pytest

from orpo_mlx.data.sources.source import read_rows
from tui.new_run import hints
from tui.new_run.data.files import may_hold_pairs, reading_text
from tui.new_run.hints import fitting_lines

TEXTS = [hints.MODELS_HERE, hints.MODELS_ON_HUB, hints.DATA_HERE]


def test_only_whole_paragraphs_are_shown_and_an_example_is_never_broken():
    texts = ["One two three four five six.", "  an example", "More."]
    assert fitting_lines(texts, 20, 5) == ["", "One two three four", "five six.", "  an example"]
    assert fitting_lines(texts, 20, 3) == ["", "One two three four", "five six."]
    assert fitting_lines(texts, 20, 2) == []
    assert fitting_lines(["One.", "  a long, long example", "More."], 20, 9) == ["", "One."]


@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("width", [58, 78, 200])
def test_every_text_keeps_to_the_width(texts, width):
    lines = fitting_lines(texts, width, 99)
    assert max(map(len, lines)) <= min(width, 96) or width < 78
    assert not any(line.endswith("-") for line in lines)


def test_the_example_is_data_that_can_be_read(tmp_path):
    example = hints.DATA_HERE[1].strip()
    assert set(json.loads(example)) == {"prompt", "chosen", "rejected"}
    file = tmp_path / "pairs.jsonl"
    file.write_text(example + "\n")
    assert len(read_rows(file)) == 1
    named = [".jsonl", ".json", ".csv", ".jsonl.gz", ".parquet"]
    assert all(may_hold_pairs(tmp_path / f"a{end}") for end in named)


def test_reading_tells_where_from_since_when_and_how_to_stop_it():
    assert reading_text("/a.jsonl", 0.4) == "Reading the pairs ..."
    assert reading_text("/a.jsonl", 3.2) == "Reading the pairs ... 3 s"
    assert reading_text("/a.jsonl", 75).startswith("Reading the pairs ... 1 min 15 s\nTo stop it, ")
    far = reading_text("org/far", 0, "downloading org/far: 1 MB of 2 MB")
    assert reading_text("org/far", 0).startswith("Downloading from the Hub")
    assert far.startswith("Downloading org/far: 1 MB of 2 MB\nTo stop it, ")  # said once

"""What is said of a dataset of the Hub, by value."""

from __future__ import annotations

import pytest

from orpo_mlx.data.catalogue.card import DatasetCard
from orpo_mlx.data.catalogue.curated import CURATED
from orpo_mlx.data.catalogue.search import FoundDataset
from tui.new_run.data.dataset_text import (
    about_lines,
    downloads_text,
    licence_text,
    needed_settings,
    rows_text,
)
from tui.new_run.data.files import files_here, folder_of, is_search

FOUND = FoundDataset("org/some", 12_345, 3, "10K<n<100K", None, None, curated=False)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        ("10K<n<100K", "10K-100K"),
        ("n<1K", "< 1K"),
        ("n>1T", "> 1T"),
        ("44,245 pairs, single turn", "44,245"),
        (None, "?"),
    ],
)
def test_rows_are_told_as_exactly_as_they_are_known(size, text):
    found = FoundDataset("a/b", None, None, size, None, None, curated=False)
    assert rows_text(found) == text
    assert rows_text(found, DatasetCard(rows=1234)) == "1,234"


def test_what_is_not_known_is_a_question_mark():
    assert (licence_text(FOUND), downloads_text(FOUND)) == ("?", "12.3 k")
    assert licence_text(FOUND, DatasetCard(licence="mit")) == "mit"


def test_all_that_is_known_stands_below_the_list():
    card = DatasetCard(("q", "good", "bad"), "", 12, 3_000, "mit", True, "several subsets: a, b.")
    assert about_lines(FOUND, card) == [
        "12 rows · columns q, good, bad · licence mit · choosing it downloads 3 kB",
        "gated: accept its terms on its page, then `hf auth login`",
        "several subsets: a, b.",
    ]
    asked = about_lines(FOUND, None)
    assert asked == ["10K-100K rows · licence ?", "asking the Hub for its columns and size ..."]
    assert about_lines(FOUND, "no answer")[-1] == "no answer"


def test_a_known_dataset_says_what_is_taken_with_it():
    by_id = {entry.id: entry for entry in CURATED}
    entry = by_id["HuggingFaceH4/ultrafeedback_binarized"]
    found = FoundDataset(
        entry.id, None, None, "61,135 pairs", "mit", "help", True, settings=entry.settings
    )
    assert needed_settings(found) == {"data_split": "train_prefs"}
    lines = about_lines(found, "x")
    assert lines[:2] == ["61,135 rows · licence mit", "help"]
    assert "Taken with it: --data-split train_prefs" in lines
    assert "Suits it: --max-seq-length 2048" in lines


@pytest.mark.parametrize(
    ("text", "searches"),
    [
        ("maths", True),
        ("two words", True),
        ("", False),
        ("org/name", False),
        ("pairs.jsonl", False),
        ("~", False),
        (".", False),
        ("here", False),
        ("x" * 5_000, True),
        ("\0", True),
    ],
)
def test_words_are_searched_for_and_paths_are_not(tmp_path, monkeypatch, text, searches):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert is_search(text) is searches


def test_files_of_known_kinds_are_offered(tmp_path):
    for name in ("b.jsonl", "a.csv.gz", "notes.txt", "c.parquet"):
        (tmp_path / name).touch()
    (tmp_path / "folder.json").mkdir()
    assert [path.name for path in files_here(tmp_path)] == ["a.csv.gz", "b.jsonl", "c.parquet"]
    assert files_here(tmp_path / "none") == []
    for number in range(40):
        (tmp_path / f"many-{number:02d}.json").touch()
    assert [path.name for path in files_here(tmp_path)][-1] == "many-26.json"


@pytest.mark.parametrize(
    ("data", "folder"),
    [("{here}/b.jsonl", "{here}"), ("{here}", "{here}"), ("org/data", "{working}"),
     ("", "{working}"), ("{here}/" + "x" * 5_000, "{working}")],
)  # fmt: skip
def test_one_goes_on_looking_beside_the_data(tmp_path, monkeypatch, data, folder):
    here, working = tmp_path / "here", tmp_path / "working"
    for path in (here, working):
        path.mkdir()
    monkeypatch.chdir(working)
    assert str(folder_of(data.format(here=here))) == folder.format(here=here, working=working)

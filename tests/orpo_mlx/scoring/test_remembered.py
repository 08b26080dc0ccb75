"""A way that fitted is not tried again, unless something it depends on is another."""

from __future__ import annotations

import pytest

from orpo_mlx.scoring.base import Scoring
from orpo_mlx.scoring.remembered import remembered_scoring
from orpo_mlx.scoring.select import WAYS
from orpo_mlx.storage.cache import cache_folder


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ORPO_MLX_HOME", str(tmp_path))


def found() -> Scoring:
    return Scoring(WAYS["fork"], "full", "packed: gradients differ by 1")


def never() -> Scoring:
    raise AssertionError("it was tried again")


def test_the_same_content_is_not_tried_again():
    content = ["model", {"rank": 8}]
    assert remembered_scoring(content, "full", found) == found()
    assert remembered_scoring(content, "full", never) == found()


@pytest.mark.parametrize("other", [(["other", {"rank": 8}], "full"), (["model", {}], "response")])
def test_other_content_is(other):
    remembered_scoring(["model", {"rank": 8}], "full", found)
    with pytest.raises(AssertionError, match="tried again"):
        remembered_scoring(*other, never)


@pytest.mark.parametrize("damaged", ["", "[1]", '{"way": "none", "why": ""}', "\x00"])
def test_a_damaged_memory_is_replaced(damaged):
    remembered_scoring("m", "full", found)
    (path,) = cache_folder("ways").iterdir()
    path.write_text(damaged)
    assert remembered_scoring("m", "full", found) == found()
    assert remembered_scoring("m", "full", never) == found()


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder belongs")
    assert remembered_scoring("m", "full", found) == found()

"""The page: all that was measured is on it, nothing is fetched, no text of others is markup."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from orpo_mlx.evaluation.report.page import MARK, page
from orpo_mlx.runs.evaluation import interval_text

EVIL = "<script>alert('x')</script>\x1b[31m\u202e"


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def sides(value: float = 0.5) -> dict[str, Any]:
    return {"base": interval(value), "adapter": interval(value + 0.2), "difference": interval(0.2)}


def token(text: str, base: float, adapter: float) -> dict[str, Any]:
    return {"text": text, "special": False, "base": base, "adapter": adapter}


CONTENT: dict[str, Any] = {
    "model": "some/model", "data": "pairs.jsonl",
    "sides": {"base": "some/model", "adapter": "run-1"}, "compared": ["base", "adapter"],
    "metrics": {"preference_accuracy": sides(), "chosen_nll": sides(2.0)},
    "like_length": {"pairs": 7, **sides(), "longer_is_chosen": 0.25},
    "score_gaps": [{"low": 1, "high": 2, "pairs": 9, **sides()},
                   {"low": 3, "high": 4, "pairs": 8, **sides()}],
    "drift": {
        "prompts": 30, "prompts_from": "the shipped list", "longest_answer": 48,
        "answer_tokens": 900, "kl_per_token": {"adapter": interval(0.25)},
        "kl_by_kind": {"adapter": {"code": 0.125, "talk": 0.5}},
        "kl_by_position": {"adapter": [0.5, 0.25, 0.125]},
        "text_nll": {"base": interval(3.0), "adapter": interval(3.1), "difference": interval(0.1)},
        "text_tokens": 700, "method": "KL",
        "answers": [{"prompt": "Why is it so?", "kind": "talk", "kl_per_token": 0.75,
                     "base": "Because.", "adapter": "Who knows."}],
    },
    "verdict": {"text": "prefers the chosen answer", "is_shown": True},
    "counts": {
        "pairs": 17, "groups": 16, "available": 20, "held_out": True, "chosen_tokens": 99,
        "rejected_tokens": 88, "ties": {"base": 0, "adapter": 1},
        "rows": {"read": 20, "kept": 18, "dropped": {"duplicate row": 2}},
    },
    "seed": 3, "method": {"interval": "bootstrap"}, "notes": ["mind this"],
    "versions": {"mlx": "0.32.1"},
    "examples": [{
        "row": "pairs.jsonl:4", "margin": {"base": -0.1, "adapter": 0.4}, "prompt": "Why?",
        "chosen": [token("So", -1.0, -0.25), token(".\n", -2, -2.25)],
        "rejected": [token("No", -1.0, -3.5)],
    }],
    "margins": {"base": [-1.0, 0.0, 1.0], "adapter": [-0.5, 0.5, 1.5]},
    "settings": {"lam": 0.3},
}  # fmt: skip


class Reader(HTMLParser):
    """Collects tags, and fails where one is closed that is not open."""

    VOID = ("meta", "rect", "line", "polyline", "circle", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


def test_the_page_holds_what_was_measured():
    text = page(CONTENT)
    assert MARK in text
    for said in (
        "prefers the chosen answer", "mind this", "17 held-out pairs of 16 prompts",
        "50.0 % (40.0 to 60.0)", "+20.0 pt (+10.0 to +30.0)", "2.000 (1.900 to 2.100)",
        "20 read, 18 kept; dropped: 2 duplicate row", "pairs.jsonl:4: margin -0.100 -> +0.400",
        "<i>-1.00</i><i>-0.25</i>", "score gap 3 to 4 (8 pairs)", "0 (base), 1 (adapter)",
        "0.32.1", "lam", "25.0%", "30 prompts from the shipped list", "0.250 (0.150 to 0.350)",
        "<td>code</td><td>0.125</td>", "<pre>Who knows.</pre>", "0.750 nats per token apart",
    ):  # fmt: skip
        assert said in text, said
    assert read(text).tags.count("svg") == 3


def test_what_was_not_measured_or_has_no_scores_is_left_out():
    text = page({**CONTENT, "drift": None, "score_gaps": [], "examples": [], "settings": {}})
    assert read(text).tags.count("svg") == 1
    for absent in ("Drift", "<h2>Pairs", "score gap", "Settings"):
        assert absent not in text


def test_a_token_is_coloured_by_which_way_it_moved():
    text = page(CONTENT)
    assert re.findall(r'<span class="(\w+)"><b>([^<]*)</b>', text) == [
        ("up", "So"), ("same", ".↵"), ("down", "No")
    ]  # fmt: skip


def test_nothing_is_fetched_and_nothing_runs():
    reader = read(page(CONTENT))
    assert {"script", "link", "img", "iframe"}.isdisjoint(reader.tags)
    assert {"src", "href"}.isdisjoint(name for name, _ in reader.attributes)
    assert not any(name.startswith("on") for name, _ in reader.attributes)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all strings that come from outside."""
    if isinstance(value, str):
        return [path]
    if not isinstance(value, (dict, list)):
        return []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [place for key, inner in items for place in places(inner, (*path, key))]


@pytest.mark.parametrize("place", [p for p in places(CONTENT) if p[0] != "compared"])
def test_no_text_from_outside_is_markup_or_control_characters(place: tuple[Any, ...]):
    content = copy.deepcopy(CONTENT)
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = EVIL
    text = page(content)
    read(text)
    assert "<script" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_names_of_settings_and_reasons_are_escaped_too():
    content = copy.deepcopy(CONTENT)
    content["settings"][EVIL] = 1
    content["counts"]["rows"]["dropped"][EVIL] = 1
    assert "<script" not in page(content)


def test_a_value_is_written_with_its_unit_and_no_minus_zero():
    found = {"value": -0.00001, "low": -0.125, "high": 0.05}
    assert interval_text("preference_accuracy", found, True) == "0.0 pt (-12.5 to +5.0)"
    assert interval_text("chosen_nll", found) == "0.000 (-0.125 to 0.050)"

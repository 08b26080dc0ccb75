"""`orpo-mlx data convert`: what is written is what training reads, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orpo_mlx.__main__ import main
from orpo_mlx.data.layouts.detect import LayoutChoice, laid_out, to_pairs
from orpo_mlx.data.sources.source import read_rows
from orpo_mlx.data.types import Account, Pair

SAMPLES = Path(__file__).parents[3] / "data" / "layouts"


def pairs_of(path: Path) -> list[Pair]:
    rows = read_rows(path)
    return to_pairs(*laid_out(rows, LayoutChoice()), Account())


def content(pairs: list[Pair]) -> list[tuple[Any, ...]]:
    return [(p.prompt, p.chosen, p.rejected, getattr(p, "tools", None), p.label) for p in pairs]


@pytest.mark.parametrize(
    "name", sorted(path.name for path in SAMPLES.iterdir() if path.suffix != ".md")
)
def test_every_layout_is_the_same_pairs_after_writing(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert main(["data", "convert", str(SAMPLES / name), str(out)]) == 0
    assert content(pairs_of(out)) == content(pairs_of(SAMPLES / name))
    again = tmp_path / "again.jsonl"
    assert main(["data", "convert", str(out), str(again)]) == 0
    assert content(pairs_of(again)) == content(pairs_of(out))


def test_each_line_says_where_it_came_from(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out.jsonl"
    assert main(["data", "convert", str(SAMPLES / "hh_rlhf.jsonl"), str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["provenance"] for row in rows[:2]] == [
        {"source": "hh_rlhf.jsonl:1", "layout": "transcript"},
        {"source": "hh_rlhf.jsonl:2", "layout": "transcript"},
    ]
    shown = capsys.readouterr().out
    assert "9 read, 6 kept, 3 dropped; format: transcript" in shown
    assert "dropped 1: empty rejected (hh_rlhf.jsonl:8)" in shown


def test_what_exists_is_replaced_only_by_force(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("precious\n")
    words = ["data", "convert", str(SAMPLES / "alpaca.jsonl"), str(out)]
    assert main(words) == 2
    assert "exists" in capsys.readouterr().err
    assert out.read_text() == "precious\n"
    assert main([*words, "--force"]) == 0
    assert len(pairs_of(out)) == 6


def test_the_source_may_be_replaced_by_its_own_normal_form(
    pairs_file: Callable[..., Path],
) -> None:
    path = pairs_file(5)
    before = content(pairs_of(path))
    assert main(["data", "convert", str(path), str(path), "--force"]) == 0
    assert content(pairs_of(path)) == before


def test_a_failing_conversion_leaves_nothing_behind(
    pairs_file: Callable[..., Path], tmp_path: Path
) -> None:
    source = pairs_file([{"prompt": "p", "chosen": "a", "rejected": "a"}])
    assert main(["data", "convert", str(source), str(tmp_path / "out.jsonl")]) == 2
    assert [path.name for path in tmp_path.glob("*out*")] == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "SRC is missing"),
        (["a.jsonl"], "OUT.jsonl is missing"),
        (["nowhere.jsonl", "out.jsonl"], "no such file"),
        (["{src}", "out.csv"], "written as JSON lines"),
        (["{src}", "{dir}"], "is not a file"),
        (["{src}", "no/such/folder/out.jsonl"], "there is no folder"),
        (["{src}", "out.jsonl", "--map", "prompt"], "--map"),
        (["{src}", "out.jsonl", "--layout", "plain"], "there is no such layout"),
        (["{src}", "out.jsonl", "--forse"], "--force"),
    ],
)
def test_mistakes_are_answered(
    words: list[str],
    says: str,
    tmp_path: Path,
    pairs_file: Callable[..., Path],
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dir.jsonl").mkdir()
    places = {"{src}": str(pairs_file(3)), "{dir}": "dir.jsonl"}
    assert main(["data", "convert", *(places.get(word, word) for word in words)]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


def test_a_mapping_and_kept_ties_are_taken(pairs_file: Callable[..., Path], tmp_path: Path) -> None:
    rows = [{"q": "p", "a": {"good": "x", "bad": "y"}, "s": 3, "t": 3}]
    source, out = pairs_file(rows), tmp_path / "out.jsonl"
    table = ["prompt=q", "chosen=a.good", "rejected=a.bad", "score_chosen=s", "score_rejected=t"]
    words = ["data", "convert", str(source), str(out), "--map", *table]
    assert main(words) == 2
    assert main([*words, "--keep-ties"]) == 0
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert row["prompt"] == [{"role": "user", "content": "p"}]

"""Several sources in one word."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo_mlx.config import TrainConfig
from orpo_mlx.config.file import load_config, with_absolute_paths, write_settings
from orpo_mlx.config.mixture import Named, parse_mixture, write_mixture
from orpo_mlx.data.sources.mixture import draw_shares
from orpo_mlx.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a.jsonl", [Named("a.jsonl")]),
        ("a.jsonl,b.parquet", [Named("a.jsonl"), Named("b.parquet")]),
        ("a.jsonl:2,b.parquet:1", [Named("a.jsonl", 2), Named("b.parquet", 1)]),
        ("a.jsonl:2, org/set", [Named("a.jsonl", 2), Named("org/set", 1)]),
        ("a.jsonl:0.5,b:1e1", [Named("a.jsonl", 0.5), Named("b", 10)]),
        ("a.jsonl:3", [Named("a.jsonl")]),
    ],
)
def test_names_and_weights_are_read(text: str, found: list[Named]) -> None:
    assert parse_mixture(text) == found


def test_a_path_that_exists_is_one_source_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b:2").write_text("")
    assert parse_mixture("a,b:2") == [Named("a,b:2")]


@pytest.mark.parametrize(
    "text", ["a,", ",", "a:0,b", "a:-1,b", "a:x,b", "a:inf,b", "a:nan,b", ":2"]
)
def test_what_is_no_name_or_weight_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--data"):
        parse_mixture(text)


def test_a_scarce_source_is_used_whole_and_sets_the_scale() -> None:
    drawn = draw_shares([1000, 30, 500], [2, 1, 1], seed=0)
    # 30 rows for one share: 60, 30 and 30.
    assert [len(part) for part in drawn] == [60, 30, 30]
    assert drawn[1] == list(range(30))


@given(
    st.lists(st.tuples(st.integers(1, 200), st.floats(0.01, 100)), min_size=2, max_size=5),
    st.integers(0, 9),
)
def test_no_row_comes_twice_and_every_source_is_there(
    sources: list[tuple[int, float]], seed: int
) -> None:
    counts, weights = [c for c, _ in sources], [w for _, w in sources]
    drawn = draw_shares(counts, weights, seed)
    assert drawn == draw_shares(counts, weights, seed)
    for count, part in zip(counts, drawn, strict=True):
        assert part == sorted(set(part))
        assert part
        assert 0 <= part[0] <= part[-1] < count


def test_a_mixture_survives_the_settings_file_with_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text("")
    config = with_absolute_paths(TrainConfig(data="a.jsonl:2,org/set:1"))
    assert config.data == f"{tmp_path}/a.jsonl:2,org/set:1"
    (tmp_path / "run.toml").write_text(write_settings(config))
    assert load_config(tmp_path / "run.toml").data == config.data
    assert write_mixture(parse_mixture(config.data)) == config.data

"""How a run is computed is said by its checkpoint; words that are not known are refused."""

from __future__ import annotations

from typing import Any

import pytest

from orpo_mlx.errors import CheckpointError
from orpo_mlx.training.identity import require_known_plan


@pytest.mark.parametrize(
    "manifest",
    [
        {},
        {"scoring": "packed", "savings": {"recompute_every": 0, "head_chunk": 256}},
        {"scoring": "plain", "savings": {"head_chunk": 16}},
        {"savings": {}},
    ],
)
def test_what_this_version_writes_is_known(manifest: dict[str, Any]):
    require_known_plan(manifest)


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ({"scoring": []}, "scoring is []"),
        ({"scoring": "quantum"}, "scoring is 'quantum'"),
        ({"savings": [1]}, "savings are [1]"),
        ({"savings": {"head_chunk": "x"}}, "head_chunk is 'x'"),
        ({"savings": {"head_chunk": 0}}, "'head_chunk': 0"),
        ({"savings": {"head_chunk": -1}}, "'head_chunk': -1"),
        ({"savings": {"recompute_every": -2}}, "'recompute_every': -2"),
        ({"savings": {"later": 1}}, "'later' is unknown"),
    ],
)
def test_what_it_does_not_know_is_refused_with_what_was_found(manifest: dict[str, Any], said: str):
    with pytest.raises(CheckpointError) as caught:
        require_known_plan(manifest)
    assert said in caught.value.message
    assert "--init-adapter" in caught.value.what_to_do

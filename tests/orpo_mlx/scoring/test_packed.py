"""Rows whose prompts are not padded: how they are divided, and when they are worth their calls."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from orpo_mlx.config import build_config
from orpo_mlx.data.batching.buckets import bucket_of
from orpo_mlx.data.batching.packed import pack, split_exactly
from orpo_mlx.data.batching.shape import Lengths
from orpo_mlx.data.types import TokenPair
from orpo_mlx.objectives.base import PairScores
from orpo_mlx.planning.fit import likely_way
from orpo_mlx.scoring import packed as packed_way
from orpo_mlx.scoring.packed import PackedRow, wants_causal


def test_prompts_of_one_length_share_a_rectangle_and_others_never():
    lengths = [(40, 10), (41, 12), (40, 16), (0, 3), (41, 700), (41, 690)]
    groups = split_exactly(lengths)

    assert sorted(i for group in groups for i in group) == list(range(6))
    assert all(len({lengths[i][0] for i in group}) == 1 for group in groups)
    # The answer of 12 would fill a rectangle of 704: it is cheaper by itself.
    assert sorted(map(sorted, groups)) == [[0, 2], [1], [3], [4, 5]]


def test_a_rectangle_of_prompts_has_no_padding_and_answers_stand_behind_it():
    lengths = [(8, 3, 5), (6, 4, 4), (8, 9, 1), (1, 2, 2)]
    pairs = [TokenPair([i + 1] * p, [90] * c, [91] * r) for i, (p, c, r) in enumerate(lengths)]
    packed = pack(pairs, score_prompts=True, exact=True)

    found = []
    cells = np.where(packed.is_cell, packed.ids[packed.cells], -1)
    at = 0
    for group in packed.groups:
        shape = group.prompt_scores.shape
        prompts = cells[at : at + group.prompt_scores.size].reshape(shape)
        assert (prompts > 0).all()
        assert set(group.prompt_lengths.tolist()) == {shape[1]}
        found += prompts[:, :1].ravel().tolist()
        at += group.prompt_scores.size
        answers = cells[at : at + group.answer_scores.size].reshape(group.answer_scores.shape)
        for row, length in zip(answers, group.answer_lengths, strict=True):
            assert (row[:length] > 0).all()
            assert (row[length:] == -1).all()
        at += group.answer_scores.size
    assert at == cells.size
    assert sorted(found) == [1, 2, 3]  # the prompt of one token is the first of its answers


def batch(*lengths: tuple[int, int]) -> list[Lengths]:
    return [Lengths(prompt, answer, answer) for prompt, answer in lengths]


@pytest.mark.parametrize("score_prompts", [False, True])
def test_scored_positions_and_their_places_are_each_others_inverse(score_prompts):
    pairs = [TokenPair([7] * p, [8] * c, [9] * r) for p, c, r in [(8, 3, 5), (1, 2, 2), (6, 4, 1)]]
    packed = pack(pairs, score_prompts)
    answers, prompts = 3 + 5 + 2 + 2 + 4 + 1, 7 + 0 + 5

    is_scored = packed.places >= 0
    assert is_scored.sum() == answers + prompts * score_prompts
    np.testing.assert_array_equal(
        packed.scored[packed.places[is_scored]], np.flatnonzero(is_scored)
    )
    assert len({*packed.places[is_scored]}) == is_scored.sum()
    assert len(packed.places) == len(packed.ids)


@pytest.mark.parametrize("prompt", [1, 8], ids=["row 0 is scored", "row 0 is a prompt's"])
def test_no_gradient_comes_from_what_fills_scored_positions_up(prompt, monkeypatch):
    """Filling reads row 0. Here every value counts, filling's too, and each row has one gradient:
    that of its own place, or none."""
    pairs = [TokenPair([7] * prompt, [8] * 3, [9] * 5), TokenPair([7] * prompt, [8] * 2, [9])]
    filled = bucket_of([TokenPair([7] * 20, [8] * 50, [9] * 60)] * 3)
    arrays = tuple(map(mx.array, PackedRow().arrays(pairs, "response", filled)))
    packed = pack(pairs, False, filled)
    assert (packed.places[0] == 0) == (prompt == 1)
    assert len(packed.scored) >= (packed.places >= 0).sum() + 64

    def all_values(values, group, _scope):
        return [values.sum() * mx.ones(len(group.prompt_lengths))] * len(PairScores._fields)

    monkeypatch.setattr(packed_way, "read_out", lambda _model, hidden, *_: hidden.sum(axis=-1))
    monkeypatch.setattr(packed_way, "score_group", all_values)

    def value(hidden):
        monkeypatch.setattr(PackedRow, "hidden", lambda *_: [hidden[None]])
        return PackedRow().score(None, arrays, "response", 256)[0].sum()

    found = np.array(mx.grad(value)(mx.ones((len(packed.ids), 4))))
    wanted = np.where(packed.places >= 0, len(packed.order), 0)
    np.testing.assert_array_equal(found, np.repeat(wanted[:, None], 4, axis=1))


def test_calls_are_counted_against_cells():
    # One pair each way is one group: what is saved is the padding of the prompt, 17 -> 32.
    assert wants_causal([batch((2000, 50))])
    # Nothing is saved: 2000 tokens, all but the last, are a multiple of 16.
    assert not wants_causal([batch((2001, 48))])
    # 24 prompts that differ by one token: padding saves 23 calls of 20,000 cells and costs less
    # than 8 times 2 * 1100 each.
    near = batch(*[(1090 + i, 20) for i in range(16)])
    assert not wants_causal([near])
    # Prompts that differ by half their length.
    apart = batch(*[(1000 + 70 * i, 20) for i in range(16)])
    assert wants_causal([apart])


def test_short_rows_are_never_scored_that_way():
    apart = [(100 + 50 * i, 60) for i in range(8)]
    assert not wants_causal([batch(*apart)])
    assert wants_causal([batch(*[(10 * prompt, 60) for prompt, _ in apart])])


def test_on_a_gpu_cells_under_an_array_count_double(monkeypatch: pytest.MonkeyPatch):
    pairs = batch((2001, 48))
    assert not wants_causal([pairs])
    gpu: Any = type("Device", (), {"type": mx.DeviceType.gpu})
    monkeypatch.setattr(mx, "default_device", lambda: gpu)
    assert wants_causal([pairs])


def test_the_batches_that_settings_make_decide():
    pairs = batch(*[(1090 + i, 20) for i in range(16)])
    together = {"batching": "fixed", "micro_batch_size": 16, "max_seq_length": 4096}

    def way(**changes: Any) -> str:
        return likely_way(build_config({**together, **changes}), pairs).name

    assert way() == "packed"
    assert way(micro_batch_size=1) == "causal"
    # By tokens three come together at most, which are three calls either way.
    assert way(batching="tokens") == "causal"
    # Cut at 1100 most are of one length; at 600 they are short.
    assert way(max_seq_length=1100) == "causal"
    assert way(max_seq_length=600) == "packed"
    assert way(scoring="shared") == "shared"
    assert likely_way(build_config(together), []).name == "packed"

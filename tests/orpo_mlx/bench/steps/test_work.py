"""The work nobody can avoid, counted by hand."""

from __future__ import annotations

from orpo_mlx.bench.steps.work import UsefulWork, useful_work
from orpo_mlx.models.shape import Linear, ModelShape

SHAPE = ModelShape(
    weight_bytes=0, vocab=10, hidden=4, heads=2, head_width=4, kv_width=2, float_bytes=4,
    blocks=((Linear("q", 4, 4), Linear("mlp", 4, 8), Linear("experts", 4, 8, 4, 0.5)),),
)  # fmt: skip


def test_the_work_of_a_pair_is_what_a_count_by_hand_gives():
    work = useful_work(SHAPE, [(3, 2, 1)], rank=2)
    # Two tokens of the prompt, then answers of two and one that begin with its last.
    tokens, scored = 5, 3
    weights, widths = 16 + 32 + 16, 8 + 12 + 6
    looks = (1 + 2) + (3 + 4) + 3
    assert work == UsefulWork(
        frozen=4 * weights * tokens + 4 * 4 * 10 * scored,
        attention=12 * 1 * 4 * looks,
        adapter=6 * 2 * widths * tokens,
    )


def test_pairs_add_up_and_each_kind_has_its_rate():
    one = useful_work(SHAPE, [(3, 2, 1)], 2)
    two = useful_work(SHAPE, [(3, 2, 1)] * 2, 2)
    assert two == UsefulWork(2 * one.frozen, 2 * one.attention, 2 * one.adapter)
    assert UsefulWork(6.0, 8.0, 10.0).floor_seconds(2.0, 4.0, 5.0) == 3 + 2 + 2

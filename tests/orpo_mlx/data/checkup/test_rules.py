"""From counts to words: the verdict, the interval of a share, and codes that stay the same."""

from __future__ import annotations

import pytest

from orpo_mlx.data.checkup.counts import percent
from orpo_mlx.data.checkup.findings import Finding, in_order, judge
from orpo_mlx.data.checkup.rules import interval, on_plan, on_score, slug


def test_the_worst_finding_decides_the_verdict() -> None:
    info, warning, error = (Finding(level, "x", "y") for level in ("info", "warning", "error"))
    assert judge([info], 5, 4).level == "good"
    assert judge([info, warning], 5, 4).text == (
        "usable, with 1 warning: 4 of 5 rows can be trained on"
    )
    assert judge([info, warning, error], 5, 4).level == "unusable"
    assert in_order([info, error, warning]) == [error, warning, info]


def test_the_interval_of_a_share_is_wilsons() -> None:
    # Worked out by Newcombe, Statistics in Medicine 17 (1998), table I.
    for right, count, low, high in (
        (81, 263, 0.2553, 0.3662), (0, 20, 0.0, 0.1611), (29, 29, 0.8830, 1.0),
    ):  # fmt: skip
        assert interval(right, count) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("right", "level", "said"),
    [(40, "info", ""), (64, "warning", "little left"), (5, "warning", "the wrong way round")],
)
def test_what_the_base_model_makes_of_the_pairs_is_judged(
    right: int, level: str, said: str
) -> None:
    finding = on_score(right, 64)
    assert finding.level == level
    assert said in finding.what_to_do


def test_codes_are_made_of_the_reason_without_what_a_template_said() -> None:
    assert slug("template refused: no system") == "template-refused"
    assert slug("control tokens in a text, escaped") == "control-tokens-in-a-text-escaped"


def test_nearly_all_and_nearly_none_are_never_called_all_and_none() -> None:
    assert [percent(share) for share in (0, 0.001, 0.5, 0.999, 1)] == [
        "0 %", "under 1 %", "50 %", "over 99 %", "100 %",
    ]  # fmt: skip


def test_validation_on_the_training_data_is_a_warning() -> None:
    assert on_plan("--valid-data is the training data itself: ...").level == "warning"
    assert on_plan("the chat template takes no system message, ...").level == "info"

"""Rates are counted, and exactness is judged by what was asked for."""

from __future__ import annotations

import pytest

from orpo_mlx.bench.kernels import products
from orpo_mlx.models.precision import VARIABLE

KINDS = ["float32", "bfloat16", "float16", "4-bit"]


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_LEAST_SECONDS", 0.0)


def test_each_kind_of_product_has_a_rate():
    first, *rates = products.iter_products({"size": 64, "rates": KINDS}, lambda label: None)
    assert (first["is_exact"], first["passed"]) == (True, True)
    assert [row["of"] for row in rates] == KINDS
    for row in rates:
        assert row["flop_per_second"] > 0
        assert row["times"] == 3


@pytest.mark.parametrize(
    ("said", "error", "passed"),
    [("0", 3e-4, False), ("1", 3e-4, True), ("1", 5e-3, False), ("0", 2e-7, True)],
)
def test_rounded_products_are_wrong_only_where_exact_ones_were_asked_for(
    said: str, error: float, passed: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(VARIABLE, said)
    monkeypatch.setattr(products, "product_error", lambda: error)
    (row,) = products.iter_products({"size": 64, "rates": []}, lambda label: None)
    assert row["passed"] is passed

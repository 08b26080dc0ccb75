"""A kernel of a recurrent layer is judged by plain operations, its gradient too."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest

from orpo_mlx.bench.kernels.recurrent import iter_recurrent

FAST = "gated delta, mx.fast.gated_delta_update"


def found() -> dict[str, Any]:
    return {row["name"]: row for row in iter_recurrent({"tokens": 5}, lambda label: None)}


def test_what_this_device_has_equals_plain_operations():
    rows = found()
    judged = [row for row in rows.values() if "forward_apart" in row]
    assert len(judged) >= 2
    assert all(row["passed"] for row in judged), rows


WRITTEN_FOR = {(16, 16), (16, 32), (16, 48), (16, 64), (24, 24), (32, 32)}
"""Heads of keys and values, 128 wide, that the Metal library of mlx 0.32.4 has the kernel for."""


@pytest.mark.skipif(not hasattr(mx.fast, "gated_delta_update"), reason="an older mlx")
def test_layers_are_such_as_a_mac_has_the_kernel_for(monkeypatch: pytest.MonkeyPatch):
    real, seen = mx.fast.gated_delta_update, set()

    def noted(q, k, v, *rest):
        seen.add((q.shape[-1], v.shape[-1], (k.shape[2], v.shape[2])))
        return real(q, k, v, *rest)

    monkeypatch.setattr(mx.fast, "gated_delta_update", noted)
    found()
    ((key_width, width, heads),) = seen
    assert (key_width, width) == (128, 128)
    assert heads in WRITTEN_FOR


@pytest.mark.skipif(not hasattr(mx.fast, "gated_delta_update"), reason="an older mlx")
def test_a_wrong_gradient_fails_and_a_missing_one_is_said(monkeypatch: pytest.MonkeyPatch):
    real: Any = mx.fast.gated_delta_update

    def wrong(q, k, v, gamma, beta):
        return real(q, mx.stop_gradient(k), v, gamma, beta)

    monkeypatch.setattr(mx.fast, "gated_delta_update", wrong)
    row = found()[FAST]
    assert (row["forward_apart"] < 1e-4 < row["gradient_apart"], row["passed"]) == (True, False)

    def without(q, k, v, gamma, beta):
        @mx.custom_function
        def compute(q: mx.array) -> mx.array:
            return real(q, k, v, gamma, beta)[0]

        @compute.vjp
        def refuse(*_: Any) -> Any:
            raise ValueError("[CustomKernel::vjp] Not implemented")

        return [compute(q)]

    monkeypatch.setattr(mx.fast, "gated_delta_update", without)
    row = found()[FAST]
    assert row["passed"] is True
    assert "Not implemented" in row["text"]

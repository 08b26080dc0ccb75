"""Adapters of tiny models of every architecture; no base weights, since no export needs them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orpo_mlx.__main__ import main as program


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return `refused(*words, code=2) -> text on stderr`: the real command, which must fail."""

    def run(*words: object, code: int = 2) -> str:
        capfd.readouterr()
        assert program([str(word) for word in words]) == code
        said = capfd.readouterr().err
        assert said.startswith("error: ")
        assert "Traceback" not in said
        return said

    return run

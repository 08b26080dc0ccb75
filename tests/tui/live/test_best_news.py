"""A new best evaluation is told once, while there is still something to train."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from orpo_mlx.runs.events import RunFinished
from tui.live import best_news
from tui.live.best_news import BestNews


@pytest.fixture
def app():
    """As much of an app as news needs; `told` has the texts."""
    told = []

    def notify(text, *, timeout, markup):
        assert (timeout, markup) == (best_news.BEST_SECONDS, False)
        told.append(text)

    return SimpleNamespace(told=told, notify=notify)


@pytest.fixture
def clock(monkeypatch):
    """A clock to set."""
    now = SimpleNamespace(monotonic=lambda: now.value, value=100.0)
    monkeypatch.setattr(best_news, "time", now)
    return now


def test_a_new_best_is_told_one_at_a_time(app, clock, make_state, make_eval):
    news, state = BestNews(app), make_state({"step": 20}, make_eval(20, loss=0.5, is_best=True))
    news.tell(state)
    news.tell(state)
    assert app.told == ["Best so far: 0.5000 at 20"]
    clock.value += best_news.BEST_SECONDS
    news.tell(state)
    assert len(app.told) == 2


def test_no_best_is_told_before_learning_and_at_the_end(app, clock, make_state, make_eval):
    """At the end the card of the run says it."""
    best = make_eval(20, is_best=True)
    for given in (
        [{"step": 20}],
        [make_eval(0, is_best=True), {"step": 20}],
        [{"step": 100}, best],
        [{"step": 20}, best, RunFinished("stopped", 20, 1.0, None)],
    ):
        BestNews(app).tell(make_state(*given))
    assert app.told == []

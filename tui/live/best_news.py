"""New best evaluations of a run, told as it trains."""

from __future__ import annotations

import time

from tui.run.state import RunState
from tui.shell.host import Host

BEST_SECONDS = 4.0
"""How long a new best evaluation is shown; others meanwhile are not told."""


class BestNews:
    """New best evaluations of one run, one at a time; at its end the card says which it was."""

    def __init__(self, app: Host) -> None:
        self.app = app
        self._until = 0.0

    def tell(self, state: RunState) -> None:
        """Show the best evaluation of a run in a toast."""
        best, now = state.best, time.monotonic()
        is_last = state.ended is not None or state.step >= state.total_steps
        if best is None or not best.step or is_last or now < self._until:
            return
        self._until = now + BEST_SECONDS
        text = f"Best so far: {best.value('loss'):.4f} at {best.step}"
        self.app.notify(text, timeout=BEST_SECONDS, markup=False)

"""What is told of runs without being asked: ends, crashes that are gone on with, failed starts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from orpo_mlx.formatting import visible
from orpo_mlx.runs.directory import RunDirectory, runs_folder
from orpo_mlx.runs.listing import RunSummary
from tui import auto_resume
from tui.ending import crash_words
from tui.run_state import RunState
from tui.status import ALIVE
from tui.trainer_log import add_line, ended_line, log_of, mark_seen, read_tail, sweep

if TYPE_CHECKING:
    from tui.app import OrpoApp


BEST_SECONDS = 4.0
"""How long a new best evaluation is shown; others meanwhile are not told."""

_SILENT = "It said nothing."


class BestNews:
    """New best evaluations of one run, one at a time; at its end the card says which it was."""

    def __init__(self, app: OrpoApp) -> None:
        self.app = app
        self._until = 0.0

    def tell(self, state: RunState) -> None:
        """Show the best evaluation of a run in a toast."""
        best, now = state.best, time.monotonic()
        is_last = state.ended is not None or state.step >= state.total_steps
        if best is None or not best.step or is_last or now < self._until:
            return
        self._until = now + BEST_SECONDS
        text = f"Best so far: {best.loss:.4f} at {best.step}"
        self.app.notify(text, timeout=BEST_SECONDS, markup=False)


class RunNews:
    """Compares each listing of the runs with the one before."""

    def __init__(self, app: OrpoApp) -> None:
        self.app = app
        self._runs: list[RunSummary] = []

    def ended(self, runs: list[RunSummary]) -> list[RunSummary]:
        """Return the runs that were alive when this was asked last and are no more."""
        alive = {run.path for run in self._runs if run.status in ALIVE}
        self._runs = runs
        return [run for run in runs if run.path in alive and run.status not in ALIVE]

    async def tell_end(self, run: RunSummary) -> None:
        """Say that a run has ended; go on with one that crashed, if the settings ask for it."""
        code = self.app.exit_code(run.path)
        log = log_of(RunDirectory(run.path))
        if run.status == "crashed" and code is not None:
            # Only this app was told how the process ended; any later one reads it here.
            add_line(log, ended_line(code))
        self._announce(run)
        if run.status == "crashed":
            cause, _ = crash_words(read_tail(log, 1 << 13), code)
            await self._go_on(RunDirectory(run.path), run.step, cause)

    def _announce(self, run: RunSummary) -> None:
        """Ring, and show a toast where the run's own card is not on screen: it would cover that."""
        text = f"{run.id} {run.status} at step {run.step}"
        if getattr(self.app.screen, "shown_run", None) != run.path:
            is_bad = run.status in ("crashed", "failed")
            self.app.notify(
                text, severity="error" if is_bad else "information", timeout=8, markup=False
            )
        self.app.ring(text)

    async def _go_on(self, run: RunDirectory, step: int, cause: str) -> None:
        attempt = auto_resume.go_on(run, step, cause, self.app.settings)
        if attempt is None:
            return
        self.app.notify(attempt.text, title="Automatic resume", timeout=12, markup=False)
        if attempt.start is None:
            return
        self.app.starts[run.path] = attempt.start
        if not await attempt.start.wait():
            words = visible(attempt.start.read_log(600)).strip().splitlines()
            text = f"{run.id} could not go on. {words[-1] if words else _SILENT}"
            self.app.notify(text, severity="error", timeout=12, markup=False)

    def tell_failed_starts(self) -> None:
        """Clear what starts have left behind; tell of those that failed unseen. For a thread."""
        for log in sweep(runs_folder(self.app.runs_dir), self.app.clock()):
            words = visible(read_tail(log, 2000)).strip().splitlines() or [_SILENT]
            mark_seen(log)
            self.app.notify(
                f"{words[-1]}\nAll it said: {log.with_suffix('.seen')}",
                title=f"{log.stem} did not start", severity="warning", timeout=20, markup=False,
            )  # fmt: skip

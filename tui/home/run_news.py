"""What is told of runs without being asked: ends, crashes that are gone on with, failed starts."""

from __future__ import annotations

from pathlib import Path

from orpo_mlx.runs.directory import RunDirectory, runs_folder
from orpo_mlx.runs.listing import RunSummary
from orpo_mlx.text.formatting import visible
from tui.processes import auto_resume
from tui.processes.launcher import Start
from tui.processes.trainer_log import add_line, ended_line, log_of, mark_seen, read_tail, sweep
from tui.run.ending import crash_words
from tui.run.status import ALIVE
from tui.shell.host import Host

_SILENT = "It said nothing."


class RunNews:
    """Compares each listing of the runs with the one before.

    Args:
        app: shows what is told.
        starts: trainers started by this app, by run; one that is started here is added.
    """

    def __init__(self, app: Host, starts: dict[Path, Start]) -> None:
        self.app = app
        self._starts = starts
        self._runs: list[RunSummary] = []
        self._gone_on: set[Path] = set()
        """Runs gone on with that no listing has shown alive since: they may be over by the next."""

    def ended(self, runs: list[RunSummary]) -> list[RunSummary]:
        """Return the runs that were alive when this was asked last and are no more."""
        alive = {run.path for run in self._runs if run.status in ALIVE}
        # One listing may be older than the trainer; how that ended is known only after its end.
        alive |= {path for path in self._gone_on if self.app.exit_code(path) is not None}
        self._runs = runs
        ended = [run for run in runs if run.path in alive and run.status not in ALIVE]
        self._gone_on -= {run.path for run in runs if run in ended or run.status in ALIVE}
        return ended

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
        self._starts[run.path] = attempt.start
        if await attempt.start.wait():
            self._gone_on.add(run.path)
        else:
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

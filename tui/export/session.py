"""All exports of this session: whose they are, whose turn it is, what is asked meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from tui.export.jobs import Job
from tui.export.writer import ExportWriter
from tui.parts.ask import AskChoice, AskScreen
from tui.shell.host import Host


class Exports:
    """Keeps a writer for each run, so that an export goes on when its screen is left.

    Args:
        app: shows questions and says that an export has ended.
    """

    def __init__(self, app: Host) -> None:
        self._app = app
        self._writers: dict[Path, ExportWriter] = {}
        self._turn = asyncio.Lock()

    def writer(self, run: Path) -> ExportWriter:
        """Return the writer of a run."""
        if run not in self._writers:
            self._writers[run] = ExportWriter(run, self._turn)
        return self._writers[run]

    @property
    def unfinished(self) -> str:
        """What is being written now, "" for nothing."""
        return next((one.unfinished for one in self._writers.values() if one.unfinished), "")

    def start(
        self, writer: ExportWriter, jobs: Sequence[Job], checkpoint: str, values: Mapping[str, str]
    ) -> None:
        """Write jobs; the app does it, not the screen."""
        work = partial(self._write, writer, jobs, checkpoint, values)
        writer.work = self._app.run_worker(work, group=f"export {writer.run}", exclusive=True)

    async def _write(
        self, writer: ExportWriter, jobs: Sequence[Job], checkpoint: str, values: Mapping[str, str]
    ) -> None:
        await writer.write_all(jobs, checkpoint, values, self.ask_replace)
        if not any(getattr(one, "writer", None) is writer for one in self._app.screen_stack):
            is_bad = any(job.state == "failed" for job in jobs)
            text = f"Export of {writer.run.name}: {writer.status}"
            severity = "error" if is_bad else "information"
            self._app.notify(text, severity=severity, timeout=8, markup=False)
            self._app.ring(text)

    async def ask_replace(self, text: str) -> bool:
        """Ask whether something that is there already shall be replaced; from a worker only."""
        question = AskScreen(
            "Replace an earlier export?",
            f"{text} The old one is removed once the new one is complete and checked.",
            [AskChoice("no", "Keep it"), AskChoice("yes", "Replace", is_dangerous=True)],
        )
        return await self._app.push_screen_wait(question) == "yes"

"""Exports being written, one after the other, each by a process of its own; no Textual.

It belongs to the app, not to a screen: one may leave the screen and come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tui.export.jobs import Job
from tui.export.options import option_words
from tui.processes.children import JsonLinesChild

HINT = "Space chooses formats, ctrl+r writes them."
DONE = "All written and checked. y copies the command that uses the selected format."

AskReplace = Callable[[str], Awaitable[bool]]
"""Asks whether what a text says is there already shall be replaced."""


class Work(Protocol):
    """What writes, seen from outside: it can be ended, as a worker can."""

    @property
    def is_cancelled(self) -> bool:
        """Whether it is being ended."""
        ...

    def cancel(self) -> None:
        """End it."""
        ...


class ExportWriter:
    """The exports of one run.

    Args:
        run: its folder.
        turn: held while something is written; two models at a time may not fit into memory.

    Attributes:
        words: behind `python`, the command that exports.
        jobs: those started last; kept when they have ended.
        status: a sentence about how it stands.
        on_change: called after every change; None while no screen shows it.
        work: what writes, for ending it; None if nothing does.
    """

    def __init__(self, run: Path, turn: asyncio.Lock) -> None:
        self.run = run
        self.words = ["-m", "orpo_mlx", "export"]
        self.jobs: list[Job] = []
        self.status = HINT
        self.on_change: Callable[[], None] | None = None
        self.work: Work | None = None
        self._turn = turn

    @property
    def is_writing(self) -> bool:
        """Whether something is being written, waits for it, or is being ended."""
        return self.work is not None

    @property
    def unfinished(self) -> str:
        """What is being written now, "" for nothing."""
        if not self.is_writing:
            return ""
        open_jobs = [job.format for job in self.jobs if job.state in ("writing", "waiting")]
        return f"export of {self.run.name} to {open_jobs[0]}" if open_jobs else ""

    async def write_all(
        self,
        jobs: Sequence[Job],
        checkpoint: str,
        values: Mapping[str, str],
        ask_replace: AskReplace,
    ) -> None:
        """Write all jobs; cancelling this ends the one being written, the others do not begin.

        Args:
            jobs: formats and places.
            checkpoint: a step, "best" or "final".
            values: options by name, as in the form.
            ask_replace: asked about places that only the export knows.
        """
        self.jobs = list(jobs)
        self.say("Waiting for another export to end ..." if self._turn.locked() else "Starting ...")
        try:
            async with self._turn:
                for job in self.jobs:
                    words = ["--checkpoint", checkpoint, *option_words(job.format, values)]
                    await self._write(job, words)
                    if job.is_taken and await ask_replace(job.message):
                        job.force = True
                        await self._write(job, words)
        finally:
            for job in self.jobs:
                if job.state in ("waiting", "writing"):
                    job.state = "ended"
            self.work = None
            self.say(self._summary())

    def say(self, text: str) -> None:
        """Change the status."""
        self.status = text
        self._changed()

    def stop(self) -> None:
        """End what is being written; it takes a moment to clean up."""
        if self.work is not None and not self.work.is_cancelled:
            self.say("Ending ...")
            self.work.cancel()

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()

    async def _write(self, job: Job, words: Sequence[str]) -> None:
        job.begin()
        self.say(f"Writing {job.format}. ctrl+g ends it; you may leave this screen.")
        async with JsonLinesChild([*self.words, *self._command(job), *words]) as child:
            async for message in child:
                if isinstance(message, dict):
                    job.apply(message)
                    self._changed()
        job.close(child.exit_code, child.complaint)
        self._changed()

    def _command(self, job: Job) -> list[str]:
        words = [str(self.run), "--to", job.format, "--json"]
        words += ["--out", str(job.path)] if job.path is not None else []
        return [*words, "--force"] if job.force else words

    def _summary(self) -> str:
        if any(job.state == "ended" for job in self.jobs):
            return "Ended; ctrl+r starts again."
        failed = sum(job.state == "failed" for job in self.jobs)
        if not failed:
            return DONE
        return f"{len(self.jobs) - failed} written, {failed} failed."

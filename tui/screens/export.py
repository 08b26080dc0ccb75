"""An adapter leaving for other programs: formats, where to, progress, proof, how to use it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from textual import on, work
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, SelectionList, Static
from textual.widgets.selection_list import Selection
from textual.worker import Worker, get_current_worker

from orpo_mlx.formatting import format_bytes
from orpo_mlx.runs.directory import RunDirectory
from tui.children import ChildFailed, JsonLinesChild, ask_child
from tui.commands import bindings
from tui.export_jobs import Job, job_lines
from tui.export_options import OWN_PLACES, fields_for, file_name, missing, option_words
from tui.screens.ask import Answer, AskScreen
from tui.screens.base import AppScreen
from tui.widgets.choices import Choices
from tui.widgets.export_form import ExportForm
from tui.widgets.line_view import LineView

_HINT = "Space chooses formats, ctrl+r writes them."


class ExportScreen(AppScreen):
    """Writes the chosen formats one after the other, each in a process of its own.

    Args:
        run: the folder of a run.
    """

    AREA = "export"
    HELP = (
        "Choose with space what the adapter shall become; below the list stands which programs "
        "read it and what is lost. ctrl+r starts. Every export is opened again and compared with "
        "the adapter before it takes its place, and the command that uses it is shown."
    )
    TITLE = "orpo-mlx · Export"
    CSS_PATH = "export.tcss"
    BINDINGS = bindings("export", "screen")

    @dataclass
    class SpaceFound(Message, bubble=False):
        """How much room the target's disk has."""

        text: str

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.run = RunDirectory(run)
        self.words = ["-m", "orpo_mlx", "export"]
        self.formats: dict[str, dict[str, Any]] = {}
        self.jobs: list[Job] = []
        self.status = "Asking which formats there are ..."
        self._worker: Worker[None] | None = None

    def compose_body(self) -> Iterable[Widget]:
        yield Choices(id="formats", compact=True)
        yield Static("", id="about", markup=False)
        folder = self.orpo.settings.export_folder or str(Path.home() / "orpo-mlx")
        yield ExportForm(self.run, folder, id="target")
        yield LineView(id="jobs")
        yield Static(self.status, id="status", markup=False)

    def on_mount(self) -> None:
        self.query_one("#title").left = f"{self.TITLE} · {self.run.id}"  # type: ignore[attr-defined]
        self._list.focus()
        self._ask_formats()
        self._look_for_space()

    @property
    def _list(self) -> Choices:
        return self.query_one("#formats", Choices)

    @property
    def form(self) -> ExportForm:
        """Where to, and the options of the chosen formats."""
        return self.query_one(ExportForm)

    # Formats

    @work(exclusive=True, group="formats")
    async def _ask_formats(self) -> None:
        try:
            found = await ask_child([*self.words, "--list", "--json"])
        except ChildFailed as error:
            self._say(str(error))
            return
        self.formats = {one["format"]: one for one in found}
        self._list.add_options(
            Selection(f"{name:<10} {one['who_reads_it']}", name, index == 0)
            for index, (name, one) in enumerate(self.formats.items())
        )
        self._list.highlighted = 0
        self._say(_HINT)

    @property
    def chosen(self) -> list[str]:
        """The chosen formats in the order of the list."""
        selected = set(self._list.selected)
        return [name for name in self.formats if name in selected]

    @on(SelectionList.SelectedChanged)
    def _show_fields(self) -> None:
        self.form.show_fields(fields_for(self.chosen))
        if self._worker is None and not self.jobs:
            self._say(_HINT)  # what was missing for another choice is not any more

    @on(SelectionList.SelectionHighlighted)
    def _show_about(self) -> None:
        if one := self.formats.get(self._highlighted):
            text = f"Writes {one['what']}.\nLost on the way: {one['loss']}."
            self.query_one("#about", Static).update(text)

    @property
    def _highlighted(self) -> str:
        index = self._list.highlighted
        return "" if index is None else str(self._list.get_option_at_index(index).value)

    # Where to

    @on(Input.Changed, "#folder")
    def _folder_changed(self) -> None:
        self._look_for_space()

    @work(thread=True, exclusive=True, group="space")
    def _look_for_space(self) -> None:
        """Look how much is free, in a thread: a folder may be on the network."""
        text = _free_space(self.form.folder)
        if not get_current_worker().is_cancelled:
            self.post_message(self.SpaceFound(text))

    def on_export_screen_space_found(self, message: SpaceFound) -> None:
        self.form.free_text = message.text

    @work(exclusive=True, group="ask")
    async def action_browse(self) -> None:
        """Choose the target folder, or the file of the focused field."""
        from textual_fspicker import FileOpen, SelectDirectory

        field = self.form.file_field
        if field is not None and field.has_focus:
            picker: Any = FileOpen(Path.home(), "The base model's GGUF")
            if path := await self.app.push_screen_wait(picker):
                field.value = str(path)
            return
        place = _existing(self.form.folder)
        picker = SelectDirectory(place, "Folder for the exports")
        if path := await self.app.push_screen_wait(picker):
            self.form.folder = path

    # Writing

    @property
    def is_writing(self) -> bool:
        """Whether something is being written now."""
        return self._worker is not None and self._worker.is_running

    @property
    def unfinished(self) -> str:
        return next((f"export to {j.format}" for j in self.jobs if j.state == "writing"), "")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Say which commands make sense now."""
        if action == "start":
            return not self.is_writing
        if action == "stop":
            return self.is_writing
        return True

    @work(exclusive=True, group="ask")
    async def action_start(self) -> None:
        """Write the chosen formats; ask before anything is replaced."""
        chosen, values = self.chosen, self.form.values
        if problem := self._problem(chosen, values):
            self._say(problem)
            return
        jobs = [Job(name, self._place(name)) for name in chosen]
        taken = [job for job in jobs if job.path is not None and _is_taken(job.path)]
        if taken:
            names = ", ".join(job.path.name for job in taken if job.path)
            answer = await self._ask_replace(f"{names}: there already, in {self.form.folder}.")
            if not answer:
                return
            for job in taken:
                job.force = True
        self.jobs = jobs
        self.query_one(LineView).following = True
        self.add_class("-started")
        self.orpo.change_settings(replace(self.orpo.settings, export_folder=str(self.form.folder)))
        self._worker = self._write_all(values)
        self.refresh_bindings()

    def _problem(self, chosen: list[str], values: dict[str, str]) -> str:
        if not chosen:
            return "Choose a format first: space marks the selected one."
        if not str(self.form.folder_text).strip():
            return "Where to? Give a folder, or ctrl+o chooses one."
        return missing(chosen, values)

    def _place(self, format: str) -> Path | None:
        return None if format in OWN_PLACES else self.form.folder / file_name(self.run.id, format)

    async def _ask_replace(self, text: str) -> bool:
        question = AskScreen(
            "Replace an earlier export?",
            f"{text} The old one is removed once the new one is complete and checked.",
            [Answer("no", "Keep it"), Answer("yes", "Replace", is_dangerous=True)],
        )
        return await self.app.push_screen_wait(question) == "yes"

    @work(exclusive=True, group="write")
    async def _write_all(self, values: dict[str, str]) -> None:
        for job in self.jobs:
            await self._write(job, values)
            if job.is_taken and await self._ask_replace(job.message):
                job.force = True
                await self._write(job, values)
        failed = sum(job.state == "failed" for job in self.jobs)
        done = len(self.jobs) - failed
        self._say(
            f"{done} written, {failed} failed: the reason stands above."
            if failed
            else "All written and checked. ctrl+y copies the command that uses the selected format."
        )
        self._worker = None
        self.query_one(LineView).following = False
        self.refresh_bindings()
        self._look_for_space()

    async def _write(self, job: Job, values: dict[str, str]) -> None:
        job.begin()
        self._say(f"Writing {job.format}. esc or ctrl+g ends it.")
        self._show_jobs()
        try:
            async with JsonLinesChild(self._command(job, values)) as child:
                async for message in child:
                    if isinstance(message, dict):
                        job.apply(message)
                        self._show_jobs()
            job.close(child.exit_code, child.complaint)
        finally:
            if job.state == "writing":
                job.state = "ended"
        self._show_jobs()

    def _command(self, job: Job, values: dict[str, str]) -> list[str]:
        words = [*self.words, str(self.run.path), "--to", job.format, "--json"]
        words += ["--checkpoint", self.form.checkpoint]
        words += ["--out", str(job.path)] if job.path is not None else []
        words += ["--force"] if job.force else []
        return [*words, *option_words(job.format, values)]

    def action_stop(self) -> None:
        """End what is being written."""
        if self._worker is not None:
            self._worker.cancel()
            self._worker = None
            for job in self.jobs:
                job.state = "ended" if job.state in ("waiting", "writing") else job.state
            self._say("Ended; ctrl+r starts again.")
            self._show_jobs()
            self.refresh_bindings()

    def action_back(self) -> None:
        """Leave; ask first while something is being written."""
        if self.unfinished:
            self._ask_to_leave()
        else:
            super().action_back()

    @work(exclusive=True, group="ask")
    async def _ask_to_leave(self) -> None:
        question = AskScreen(
            f"End the {self.unfinished}?",
            "It is not complete; nothing is left of it. What was written before stays.",
            [Answer("no", "Go on"), Answer("yes", "End it", is_dangerous=True)],
        )
        if await self.app.push_screen_wait(question) == "yes":
            self.action_stop()
            self.action_back()

    def action_copy(self) -> None:
        """Copy the command that uses the selected format, or the one written last."""
        written = [job for job in self.jobs if job.command]
        if not written:
            self._say("Nothing is written yet.")
            return
        own = [job for job in written if job.format == self._highlighted]
        self.orpo.copy((own or written)[-1].command)

    # Showing

    def _say(self, text: str) -> None:
        self.status = text
        self.query_one("#status", Static).update(text)
        self._show_small()

    def _show_jobs(self) -> None:
        view = self.query_one(LineView)
        width, charset = view.size.width - 2, self.orpo.charset
        view.show([line for job in self.jobs for line in job_lines(job, width, charset)])
        self._show_small()

    def on_resize(self) -> None:
        super().on_resize()
        if self.is_mounted:
            self._show_jobs()

    def sentence(self) -> str:
        parts = [f"{job.format} {job.state}" for job in self.jobs]
        said = f" {', '.join(parts)}." if parts else ""
        return f"Export of {self.run.id}.{said} {self.status}"


def _is_taken(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def _existing(path: Path) -> Path:
    """Return the nearest folder that exists."""
    return next((p for p in (path, *path.absolute().parents) if p.is_dir()), Path.home())


def _free_space(folder: Path) -> str:
    try:
        return f"{format_bytes(shutil.disk_usage(_existing(folder)).free)} free"
    except OSError:
        return "free space unknown"

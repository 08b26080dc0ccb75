"""An adapter leaving for other programs: formats, where to, progress, proof, how to use it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from textual import on, work
from textual.events import DescendantFocus
from textual.widget import Widget
from textual.widgets import SelectionList, Static
from textual.widgets.selection_list import Selection

from orpo_mlx.export.formats.table import FORMATS, find_format
from orpo_mlx.runs.directory import RunDirectory
from tui.export.form import ExportForm, existing_folder
from tui.export.jobs import Job, jobs_lines
from tui.export.options import FIELDS_BY_NAME, GOALS, fields_for, missing, place_of
from tui.export.session import Exports
from tui.export.writer import HINT
from tui.parts.base_screen import AppScreen, pane
from tui.parts.choices import Choices
from tui.parts.line_view import LineView
from tui.shell.commands import bindings


class ExportScreen(AppScreen):
    """Shows the exports of a run, which the session's `ExportWriter` of that run writes.

    Args:
        run: the folder of a run.
        exports: those of this session.
    """

    AREA = "export"
    HELP = (
        "Choose with space what the adapter shall become; below the list stands which programs "
        "read it and what is lost. ctrl+r starts. Every export is opened again and compared with "
        "the adapter before it takes its place, and the command that uses it is shown. Leaving "
        "this screen does not end an export; quitting does, after asking."
    )
    TITLE = "orpo-mlx · Export"
    CSS_PATH = "screen.tcss"
    BINDINGS = bindings("export", "screen")

    def __init__(self, run: Path, exports: Exports) -> None:
        super().__init__()
        self._exports = exports
        self.run = RunDirectory(run)

    def compose_body(self) -> Iterable[Widget]:
        rows = (Selection(f"{goal:<39} {name}", name) for name, goal in GOALS.items())
        yield pane(Choices(*rows, id="formats", compact=True), "What for")
        yield Static("", id="about", markup=False)
        folder = self.orpo.settings.export_folder or str(Path.home() / "orpo-mlx")
        yield pane(ExportForm(self.run, folder, id="target"), "Where to")
        yield pane(LineView(id="jobs"), "Written")
        yield Static("", id="status", markup=False)

    def on_mount(self) -> None:
        self.query_one("#title").left = f"{self.TITLE} · {self.run.id}"  # type: ignore[attr-defined]
        self.writer = self._exports.writer(self.run.path)
        self.query_one(LineView).following = False
        begun = [job.format for job in self.writer.jobs] or [FORMATS[0].name]
        for name in begun:
            self._list.select(name)
        self._list.highlighted = list(GOALS).index(begun[0])
        self._list.focus()
        self.writer.on_change = self._show_jobs
        self._show_jobs()

    def on_unmount(self) -> None:
        if self.writer.on_change == self._show_jobs:  # else it is shown anew already
            self.writer.on_change = None

    @property
    def _list(self) -> Choices:
        return self.query_one("#formats", Choices)

    @property
    def form(self) -> ExportForm:
        """Where to, and the options of the chosen formats."""
        return self.query_one(ExportForm)

    # Formats

    @property
    def chosen(self) -> list[str]:
        """The chosen formats in the order of the list."""
        selected = set(self._list.selected)
        return [one.name for one in FORMATS if one.name in selected]

    @on(SelectionList.SelectedChanged)
    def _show_fields(self) -> None:
        self.form.show_fields(fields_for(self.chosen))
        if not self.writer.jobs:
            self.writer.say(HINT)  # what was missing for another choice is not any more

    @on(SelectionList.SelectionHighlighted)
    def _show_about(self) -> None:
        if one := find_format(self._highlighted):
            text = (
                f"Writes {one.what}; for {one.who_reads_it}.\nLost on the way: {one.loss}.\n"
                f"Size: {one.size}."
            )
            self.query_one("#about", Static).update(text)

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        """Explain the field or the format one is at."""
        if field := FIELDS_BY_NAME.get(event.widget.id or ""):
            self.query_one("#about", Static).update(f"{field.label}: {field.help}")
        elif event.widget is self._list:
            self._show_about()

    @property
    def _highlighted(self) -> str:
        index = self._list.highlighted
        return "" if index is None else str(self._list.get_option_at_index(index).value)

    # Where to

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
        picker = SelectDirectory(existing_folder(self.form.folder), "Folder for the exports")
        if path := await self.app.push_screen_wait(picker):
            self.form.folder = path

    # Writing

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Say which commands make sense now."""
        if not self.is_mounted or action not in ("start", "stop"):
            return True
        return self.writer.is_writing == (action == "stop")

    @work(exclusive=True, group="ask")
    async def action_start(self) -> None:
        """Write the chosen formats; ask before anything is replaced."""
        chosen, values = self.chosen, self.form.values
        if problem := self._problem(chosen, values):
            self.writer.say(problem)
            return
        folder = self.form.folder
        jobs = [Job(name, place_of(name, self.run.id, folder, values)) for name in chosen]
        taken = [job for job in jobs if job.path is not None and _is_taken(job.path)]
        if taken:
            names = ", ".join(job.path.name for job in taken if job.path)
            if not await self._exports.ask_replace(f"{names}: there already, in {folder}."):
                return
            for job in taken:
                job.force = True
        self.orpo.change_settings(replace(self.orpo.settings, export_folder=str(folder)))
        self.query_one(LineView).focus()  # arrows scroll there, and letters are keys
        self._exports.start(self.writer, jobs, self.form.checkpoint, values)

    def _problem(self, chosen: list[str], values: dict[str, str]) -> str:
        if not chosen:
            return "Choose a format first: space marks the selected one."
        if not str(self.form.folder_text).strip():
            return "Where to? Give a folder, or ctrl+o chooses one."
        if str(self.form.folder).startswith("~"):
            return f"{self.form.folder}: nobody has that home folder. Give another one."
        field, said = missing(chosen, values)
        if field:
            self.form.query_one(f"#{field.name}").focus()
        return said

    def action_stop(self) -> None:
        """End what is being written."""
        self.writer.stop()

    def action_copy(self) -> None:
        """Copy the command that uses the selected format, or the one written last."""
        written = [job for job in self.writer.jobs if job.command]
        if not written:
            self.writer.say("Nothing is written yet.")
            return
        own = [job for job in written if job.format == self._highlighted]
        self.orpo.copy((own or written)[-1].command)

    # Showing

    def _show_jobs(self) -> None:
        if not self.is_open:
            return
        writer, view = self.writer, self.query_one(LineView)
        self.set_class(bool(writer.jobs), "-started")
        view.show(jobs_lines(writer.jobs, view.size.width - 2, self.orpo.charset))
        self.query_one("#status", Static).update(writer.status)
        self.refresh_bindings()
        self._show_small()

    def on_resize(self) -> None:
        if self.is_mounted:
            super().on_resize()
            self._show_jobs()

    def sentence(self) -> str:
        parts = [f"{job.format} {job.state}" for job in self.writer.jobs]
        said = f" {', '.join(parts)}." if parts else ""
        return f"Export of {self.run.id}.{said} {self.writer.status}"


def _is_taken(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and any(path.iterdir()))

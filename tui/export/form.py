"""Where an export goes, from which checkpoint, and the options of the chosen formats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Label, Select, Static
from textual.worker import get_current_worker

from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.storage.disk import existing_parent, free_bytes
from orpo_mlx.text.formatting import format_bytes
from tui.export.options import FIELDS, Field
from tui.parts.choices import Tick
from tui.parts.fields.text_field import TextField
from tui.parts.form import Form, OneOf

FINAL, BEST = "final", "best"


class ExportForm(Form):
    """Rows of label and field; only those of the chosen formats are shown."""

    @dataclass
    class SpaceFound(Message, bubble=False):
        """How much room the target's disk has."""

        text: str

    def __init__(self, run: RunDirectory, folder: str, *, id: str) -> None:
        super().__init__(id=id)
        self._run, self._folder = run, folder

    def compose(self) -> ComposeResult:
        names = checkpoint_names(self._run)
        with Horizontal(classes="row"):
            yield Label("To folder")
            yield TextField(self._folder, id="folder", compact=True)
            yield Static("", id="free", markup=False)
        with Horizontal(classes="row"):
            yield Label("Checkpoint")
            yield OneOf(names, value=names[0][1], allow_blank=False, id="checkpoint", compact=True)
        for field in FIELDS:
            with Horizontal(classes="row -empty", id=f"row-{field.name}"):
                yield Label(field.label)
                yield from _widgets(field)

    def on_mount(self) -> None:
        self.look_for_space()

    @on(Input.Changed, "#folder")
    @work(thread=True, exclusive=True, group="space")
    def look_for_space(self) -> None:
        """Look how much is free, in a thread: a folder may be on the network."""
        text = free_space(self.folder)
        if not get_current_worker().is_cancelled:
            self.post_message(self.SpaceFound(text))

    def on_export_form_space_found(self, message: SpaceFound) -> None:
        self.query_one("#free", Static).update(message.text)

    def show_fields(self, fields: Sequence[Field]) -> None:
        """Show these options and no others."""
        for field in FIELDS:
            self.query_one(f"#row-{field.name}").set_class(field not in fields, "-empty")

    @property
    def folder_text(self) -> str:
        """The target folder as typed."""
        return self.query_one("#folder", Input).value

    @property
    def folder(self) -> Path:
        """The target folder."""
        try:
            return Path(self.folder_text).expanduser()
        except RuntimeError:  # a ~name that nobody has
            return Path(self.folder_text)

    @folder.setter
    def folder(self, path: Path) -> None:
        self.query_one("#folder", Input).value = str(path)

    @property
    def free_text(self) -> str:
        """What stands beside the folder."""
        return str(self.query_one("#free", Static).content)

    @property
    def checkpoint(self) -> str:
        """A step, "best" or "final"."""
        return str(self.query_one("#checkpoint", Select).value)

    @property
    def file_field(self) -> Input | None:
        """The field of a file, None while it is not shown."""
        field = self.query_one("#base_gguf", Input)
        return field if field.display else None

    @property
    def values(self) -> dict[str, str]:
        """What is filled in, by the name of the option; "" for nothing."""
        return {field.name: self._value(field) for field in FIELDS}

    def _value(self, field: Field) -> str:
        if field.kind == "choice":
            return str(self.query_one(f"#{field.name}", Select).value)
        if field.kind == "switch":
            return "yes" if self.query_one(f"#{field.name}", Tick).value else ""
        return self.query_one(f"#{field.name}", Input).value


def _widgets(field: Field) -> Iterable[Input | Select[str] | Tick]:
    if field.kind == "choice":
        choices = [(value, value) for value in field.values]
        yield OneOf(choices, value=field.values[0], allow_blank=False, id=field.name, compact=True)
    elif field.kind == "switch":
        yield Tick(field.hint, id=field.name, compact=True)
    else:
        yield TextField(placeholder=field.hint, id=field.name, compact=True)


def checkpoint_names(run: RunDirectory) -> list[tuple[str, str]]:
    """Return (text, value) of what can be exported, the run's result first."""
    try:
        steps = sorted(
            int(path.name) for path in run.checkpoints_folder.iterdir() if path.name.isdigit()
        )
    except OSError:
        steps = []
    names = [("final result", FINAL)] if run.adapter_folder.is_dir() else []
    if steps:
        names.append(("best validation loss", BEST))
        names += [(f"step {step:,}", str(step)) for step in reversed(steps)]
    return names or [("final result", FINAL)]


def existing_folder(path: Path) -> Path:
    """Return the nearest folder that exists, the path itself or one above it."""
    place = existing_parent(path)
    return place if place.is_dir() else place.parent


def free_space(folder: Path) -> str:
    """Return how much room there is where the folder is, or will be."""
    try:
        return f"{format_bytes(free_bytes(folder))} free"
    except OSError:
        return "free space unknown"

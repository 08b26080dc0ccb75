"""Four steps to a run: model, data, settings, review; beside them what it will need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from textual import events, on, work
from textual.widget import Widget
from textual.widgets import Button

from orpo_mlx.errors import OrpoError
from orpo_mlx.text.formatting import visible
from tui.new_run import fit_facts
from tui.new_run.data.map_columns import MapColumnsScreen
from tui.new_run.data.step import DataStep
from tui.new_run.draft import Draft
from tui.new_run.keeper import DraftKeeper
from tui.new_run.models.step import ModelStep
from tui.new_run.peers.dialog import PeersScreen
from tui.new_run.planning import Planning
from tui.new_run.presets import PRESETS
from tui.new_run.settings_step import SettingRow, SettingsStep
from tui.new_run.steps import DATA, FORM, MODEL, REVIEW, STEPS, first_open_step, is_offered
from tui.new_run.sweep.dialog import SweepScreen
from tui.new_run.sweep.start import start_sweep
from tui.parts.base_screen import AppScreen
from tui.parts.key_order import Released
from tui.parts.tab_strip import TabStrip
from tui.parts.title_bar import TitleBar
from tui.processes.launcher import running_runs
from tui.shell.commands import bindings
from tui.shell.messages import StartTraining
from tui.shell.names import short_name
from tui.shell.settings import config_folder

_WIDE = 96
_NEW = Draft()
DRAFT_FILE = "draft.json"
_ROOM_FOR_HINT = 80
_AT_ONCE = ("escape", "ctrl+c", "ctrl+q")
"""Keys that act while a model is checked."""
_PARTS_OF_DATA = ("data_subset", "data_split", "data_revision")


class NewRunScreen(AppScreen):
    """Asks for a run; what was chosen is kept as a draft until it is started.

    Args:
        draft: to begin with.
    """

    AREA = "new"
    HELP = (
        "Four steps: model, data, settings, review. Ctrl+n goes on, esc goes back; what you chose "
        "is kept, also when you leave. Memory is estimated anew with every change. Numbers 1 to 4 "
        "go to a step when no text is being typed; what is typed over a list of models or data "
        "goes into the field above it. F2 goes from this machine to the Hub, where words are "
        "searched for; nothing is downloaded before you choose."
    )
    TITLE = "orpo-mlx · New run"
    CSS_PATH = "screen.tcss"
    BINDINGS = bindings("new", "screen")

    def __init__(self, draft: Draft = _NEW) -> None:
        super().__init__()
        self.draft = draft
        self.step = FORM if draft.own else MODEL
        self.keeper = DraftKeeper(self, config_folder() / DRAFT_FILE)
        self._is_checking = False
        """Whether a model is being looked at before it is taken."""

    def compose_body(self) -> Iterable[Widget]:
        yield TabStrip(STEPS, id="steps")
        yield Planning(self.orpo.charset, self.orpo.runs_dir)

    def on_mount(self) -> None:
        self.change(self.draft)
        self.go_to(self.step)
        self._offer_draft()

    @property
    def planning(self) -> Planning:
        """The steps and the card."""
        return self.query_one(Planning)

    # Going

    def go_to(self, step: int) -> None:
        """Show a step; what was chosen is safe, even if the terminal is closed."""
        if step != self.step:
            self.app.clear_notifications()  # what was said of the other step
            if self.draft.own:
                self.keeper.keep(self.draft)
        self.step = step
        self.query_one("#steps", TabStrip).active = step
        self.planning.open(step)
        self.refresh_bindings()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """Say what digits do where one is."""
        self._show_hint()

    def _show_hint(self) -> None:
        around = self.focused.ancestors_with_self if self.focused else ()
        widgets = (one for one in around if isinstance(one, Widget))
        is_text = any(one.check_consume_key("1", "1") for one in widgets)
        hint = "digits type" if is_text else "1 to 4: a step"
        if self._is_checking:
            has_room = self.size.width >= _ROOM_FOR_HINT
            hint = "checking the model ... esc ends it" if has_room else "checking ..."
        self.query_one("#steps", TabStrip).hint = hint

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer what makes sense in this step."""
        return is_offered(action, self.step)

    @on(TabStrip.Picked)
    def _step_picked(self, message: TabStrip.Picked) -> None:
        self.go_to(message.index)

    def action_next(self) -> None:
        """Take what is pointed at if nothing is chosen, and go on."""
        pointed = self.planning.models.pointed
        if self.step == MODEL and not self.draft.model and pointed:
            self._take_model(pointed.name)
        elif self.step < REVIEW:
            self.go_to(self.step + 1)

    def action_step_1(self) -> None:
        self.go_to(MODEL)

    def action_step_2(self) -> None:
        self.go_to(DATA)

    def action_step_3(self) -> None:
        self.go_to(FORM)

    def action_step_4(self) -> None:
        self.go_to(REVIEW)

    def action_back(self) -> None:
        """One step back; from the first one out, the draft kept; first ends what is checked."""
        if self._is_checking:
            self.workers.cancel_group(self, "model")
            return
        if self.step > MODEL:
            self.go_to(self.step - 1)
            return
        if self.draft.own and self.keeper.keep(self.draft):
            self.notify("Your choices are kept; n offers them again.")
        super().action_back()

    def begin_text(self, event: events.Key | events.Paste) -> None:
        """Over the lists of the first two steps one types into the field above them."""
        self.planning.begin_text(event)

    def lets_wait(self, event: events.Key | events.Paste) -> bool:
        """What is typed while a model is checked is meant for the step that comes then."""
        return self._is_checking and getattr(event, "key", "") not in _AT_ONCE

    # The draft

    def change(self, draft: Draft) -> None:
        """Plan something else."""
        self.draft = draft
        self.planning.show(draft)

    @work(exclusive=True, group="offer")
    async def _offer_draft(self) -> None:
        if kept := await self.keeper.offer():
            self.change(kept)
            self.go_to(first_open_step(kept))

    @work(exclusive=True, group="offer")
    async def action_afresh(self) -> None:
        """Forget the draft, after asking."""
        if await self.keeper.forget():
            self.planning.forget_typed()
            self.change(Draft())
            self.go_to(MODEL)

    # Models and data

    @on(ModelStep.Chosen)
    def _choose_model(self, message: ModelStep.Chosen) -> None:
        self._take_model(message.model)

    def _take_model(self, name: str) -> None:
        """Go on with a model; one on this machine that cannot be used is refused here."""
        folder = Path(name).expanduser()
        if folder.exists():
            # Before the first await: the next key may be there already.
            self._is_checking = True
            self._show_hint()
            self._check_model(folder.absolute())
        else:
            self._go_on_with(name)

    @work(exclusive=True, group="model")
    async def _check_model(self, folder: Path) -> None:
        is_usable = False
        try:
            why = await self.planning.why_no_model(str(folder))
            if is_usable := not why:
                self.planning.models.remember(folder)
                self._go_on_with(str(folder))
            else:
                self.notify(why, severity="error", timeout=12, markup=False)
        finally:
            self._is_checking = False
            # Keys that wait were meant for the step after.
            self.app.post_message(Released(drops=not is_usable))
            if self.is_open:
                self._show_hint()

    def _go_on_with(self, name: str) -> None:
        self.change(self.draft.with_model(name))
        self.go_to(DATA)

    @on(DataStep.Chosen)
    def _choose_data(self, message: DataStep.Chosen) -> None:
        changed = self.draft.with_data(message.data)
        # Another dataset has other subsets and splits.
        old = {} if changed.data == self.draft.data else dict.fromkeys(_PARTS_OF_DATA)
        self.change(changed.with_values({**old, **message.settings}))
        self._tell_taken(message.settings)

    @on(Planning.Counted)
    def _count_pairs(self, message: Planning.Counted) -> None:
        before = self.draft.get("objective")
        self.change(self.draft.with_pairs(message.pairs, message.is_labelled))
        if (objective := self.draft.get("objective")) != before:
            self.notify(f"For these data the objective is {objective} now.")

    def _tell_taken(self, settings: Mapping[str, str]) -> None:
        if settings:
            self.notify(f"Taken with it: {fit_facts.settings_text(settings)}", markup=False)

    def action_source(self) -> None:
        """Show what is on this machine, or what is on the Hub."""
        planning = self.planning
        (planning.models if self.step == MODEL else planning.data).switch_source()

    def action_browse(self) -> None:
        """Choose a model's folder, or a file with pairs."""
        planning = self.planning
        (planning.models if self.step == MODEL else planning.data).browse()

    @work(exclusive=True, group="map")
    async def action_map(self) -> None:
        """Say which columns are prompt, chosen and rejected."""
        if not self.draft.data:
            self.notify("Choose data first; then it can be said which column is which.")
            return
        columns = self.planning.data.columns()
        mapped = self.draft.own.get("map") or {}
        chosen = await self.app.push_screen_wait(MapColumnsScreen(columns, mapped))
        if chosen is not None:
            self.change(self.draft.with_value("map", chosen))

    # Settings

    @on(SettingRow.Changed)
    def _change_setting(self, message: SettingRow.Changed) -> None:
        self.change(self.draft.with_value(message.name, message.value))

    @on(SettingsStep.PresetChosen)
    def _change_preset(self, message: SettingsStep.PresetChosen) -> None:
        self.change(self.draft.with_preset(message.preset))

    def action_preset(self) -> None:
        """Take the next preset."""
        names = list(PRESETS)
        place = (names.index(self.draft.preset) + 1) % len(names)
        self.change(self.draft.with_preset(names[place]))

    def action_copy_command(self) -> None:
        """Copy the command line that does the same."""
        self.orpo.copy(self.draft.command())

    @work(exclusive=True, group="sweep")
    async def action_sweep(self) -> None:
        """Give a setting several values."""
        sweeps = await self.app.push_screen_wait(SweepScreen(self.draft))
        if sweeps is not None:
            self.change(replace(self.draft, sweeps=sweeps))

    @work(exclusive=True, group="peers")
    async def action_peers(self) -> None:
        """Say who computes it: processes of this machine, or several machines."""
        planned = await self.app.push_screen_wait(PeersScreen(self.draft))
        if planned is not None:
            self.change(planned)

    def action_reset(self) -> None:
        """Give the focused setting its value of the preset again."""
        form = self.planning.form
        if form.focused_name:
            self.change(self.draft.with_value(form.focused_name, None))
            form.write_focused()

    def action_suggestion(self) -> None:
        """Take the first settings that fit."""
        if better := self.planning.suggestion():
            self.change(self.draft.with_values(better))
            self.notify(f"Taken: {fit_facts.settings_text(better)}", markup=False)
        else:
            self.notify("There is no suggestion.")

    # Measuring and starting

    @on(Button.Pressed, "#probe")
    def action_probe(self) -> None:
        """Measure 3 steps on the longest batch."""
        why = self.planning.why_not()
        if not why and (running := running_runs(self.orpo.runs_dir)):
            why = (
                f"{running[0].id} is being trained: measuring beside it would hold two models in "
                "memory and tell a wrong time. Measure when it has ended."
            )
        if why:
            self.notify(why, severity="warning", markup=False)
        else:
            self.planning.probe()

    @on(Button.Pressed, "#start")
    def action_start(self) -> None:
        """Start the training; the draft is kept until it has begun."""
        if why := self.planning.why_not():
            self.notify(why, severity="warning", markup=False)
            return
        self.keeper.keep(self.draft)
        if self.draft.hostfile:
            self.action_copy_command()
            text = "A terminal starts it, with that command; Runs shows it as soon as it is there."
            self.notify(text, title="Several Macs", timeout=12)
            return
        if self.draft.sweeps:
            self._start_sweep()
            return
        self.keeper.expect_run()
        self.planning.end_questions()  # a measurement holds the model that the trainer loads
        try:
            self.post_message(StartTraining(self.draft.config(), self.draft.processes))
        except OrpoError as error:
            self.orpo.show_error(error)

    @work(exclusive=True, group="sweep")
    async def _start_sweep(self) -> None:
        """Put the runs into the queue and leave: the list of runs shows them."""
        self.planning.end_questions()
        try:
            count = await start_sweep(self.orpo, self.draft)
        except OrpoError as error:
            self.orpo.show_error(error)
            return
        self._forget()
        self.app.notify(f"{count} runs follow one another, also without the app.")
        super().action_back()

    def on_screen_resume(self) -> None:
        """Leave once a training has begun: nothing is to be planned any more."""
        if self.keeper.has_begun:
            self._forget()
            self.call_later(super().action_back)
        elif self.keeper.is_expecting:
            self.planning.show(self.draft)  # its questions were ended
        self.keeper.expect_none()

    def _forget(self) -> None:
        self.draft = Draft()
        self.keeper.drop()

    def on_unmount(self) -> None:
        if self.keeper.has_begun:
            self._forget()
        elif self.draft.own:
            self.keeper.keep(self.draft)

    # Showing

    @on(Planning.Changed)
    def _show_title(self) -> None:
        names = dict.fromkeys(short_name(n) for n in (self.draft.model, self.draft.data) if n)
        self.query_one("#title", TitleBar).right = visible(" · ".join(names))
        self._show_small()

    def on_resize(self) -> None:
        super().on_resize()
        self.planning.card.set_full(self.size.width >= _WIDE)

    def sentence(self) -> str:
        place = f"New run, step {self.step + 1} of 4, {STEPS[self.step].lower()}"
        return f"{place}. {self.planning.sentence()}"

"""Four steps to a run: model, data, settings, review; beside them what it will need."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from textual import on, work
from textual.containers import Container
from textual.widget import Widget
from textual.widgets import Button, ContentSwitcher

from orpo_mlx.errors import OrpoError
from orpo_mlx.formatting import visible
from orpo_mlx.runs.listing import iter_runs
from tui import fit_facts
from tui.commands import bindings
from tui.draft import SETTINGS, Draft
from tui.names import short_name
from tui.presets import PRESETS
from tui.screens.base import AppScreen
from tui.screens.drafts import forget_draft, keep_draft, offer_draft
from tui.screens.map_columns import MapColumnsScreen
from tui.settings import config_folder
from tui.widgets.data_step import DataStep
from tui.widgets.fit_card import FitCard
from tui.widgets.model_step import ModelStep
from tui.widgets.review_step import ReviewStep, review_text
from tui.widgets.settings_step import SettingRow, SettingsStep
from tui.widgets.tab_strip import TabStrip

STEPS = ("Model", "Data", "Settings", "Review")
MODEL, DATA, FORM, REVIEW = range(4)
_IDS = ("model", "data", "settings", "review-step")
_WIDE = 96
DRAFT_FILE = "draft.json"


class NewRunScreen(AppScreen):
    """Asks for a run; what was chosen is kept as a draft until it is started."""

    AREA = "new"
    HELP = (
        "Four steps: model, data, settings, review. Ctrl+n goes on, esc goes back; what you chose "
        "is kept, also when you leave. Memory is estimated anew with every change. Numbers 1 to 4 "
        "go to a step when no text is being typed."
    )
    TITLE = "orpo-mlx · New run"
    CSS_PATH = "new_run.tcss"
    BINDINGS = bindings("new", "screen")

    def __init__(self) -> None:
        super().__init__()
        self.draft = Draft()
        self.step = MODEL
        self.file = config_folder() / DRAFT_FILE
        self._runs_before: set[Path] | None = None

    def compose_body(self) -> Iterable[Widget]:
        charset = self.orpo.charset
        yield TabStrip(STEPS, id="steps")
        with Container(id="planning"):
            with ContentSwitcher(initial=_IDS[MODEL], id="step"):
                yield ModelStep(self._known_fit)
                yield DataStep(charset)
                yield SettingsStep()
                yield ReviewStep()
            yield FitCard(charset)

    def on_mount(self) -> None:
        self.change(self.draft)
        self.go_to(MODEL)
        self._offer_draft()

    # Going

    def go_to(self, step: int) -> None:
        """Show a step."""
        self.step = step
        self.query_one("#steps", TabStrip).active = step
        self.query_one("#step", ContentSwitcher).current = _IDS[step]
        self._current.focus_first()
        self.refresh_bindings()
        self._ask()

    @property
    def _current(self) -> ModelStep | DataStep | SettingsStep | ReviewStep:
        kinds = (ModelStep, DataStep, SettingsStep, ReviewStep)
        return self.query_one(kinds[self.step])

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer what makes sense in this step."""
        steps = {
            "next": (MODEL, DATA, FORM), "browse": (MODEL, DATA), "source": (MODEL,),
            "map": (DATA,), "reset": (FORM,), "preset": (FORM, REVIEW), "start": (REVIEW,),
            "copy_command": (FORM, REVIEW),
        }  # fmt: skip
        return self.step in steps.get(action, (self.step,))

    @on(TabStrip.Picked)
    def _step_picked(self, message: TabStrip.Picked) -> None:
        self.go_to(message.index)

    def action_next(self) -> None:
        """Take what is pointed at if nothing is chosen, and go on."""
        models = self.query_one(ModelStep)
        if self.step == MODEL and not self.draft.model and models.pointed:
            self.change(self.draft.with_model(models.pointed.name))
        if self.step < REVIEW:
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
        """One step back; from the first one out, the draft kept."""
        if self.step > MODEL:
            self.go_to(self.step - 1)
            return
        if self.draft.own and self._keep():
            self.notify("Your choices are kept; n offers them again.")
        super().action_back()

    # The draft

    def change(self, draft: Draft) -> None:
        """Plan something else; every part shows it and is asked for again."""
        self.draft = draft
        for step in (ModelStep, DataStep, SettingsStep):
            self.query_one(step).show(draft)
        self._ask()

    def _keep(self) -> bool:
        return keep_draft(self, self.draft, self.file)

    @work(exclusive=True, group="offer")
    async def _offer_draft(self) -> None:
        if kept := await offer_draft(self.app, self.file):
            self.change(kept)
            self.go_to(MODEL if not kept.model else DATA if not kept.data else FORM)

    @work(exclusive=True, group="offer")
    async def action_afresh(self) -> None:
        """Forget the draft, after asking."""
        if await forget_draft(self.app, self.file):
            self.change(Draft())
            self.go_to(MODEL)

    # Models and data

    @on(ModelStep.Pointed)
    def _fit_pointed(self) -> None:
        if self.step == MODEL:
            self._ask()

    @on(ModelStep.Chosen)
    def _choose_model(self, message: ModelStep.Chosen) -> None:
        self.change(self.draft.with_model(message.model))
        self.go_to(DATA)

    @on(DataStep.Chosen)
    def _choose_data(self, message: DataStep.Chosen) -> None:
        self.change(self.draft.with_data(message.data))

    def action_source(self) -> None:
        """Show the models of this machine, or those of the Hub."""
        self.query_one(ModelStep).switch_source()

    def action_browse(self) -> None:
        """Choose a model's folder, or a file with pairs."""
        self.query_one(ModelStep if self.step == MODEL else DataStep).browse()

    @work(exclusive=True, group="map")
    async def action_map(self) -> None:
        """Say which columns are prompt, chosen and rejected."""
        if "map" not in SETTINGS:
            self.notify("This version tells the columns by their names alone.")
            return
        columns = self.query_one(DataStep).columns()
        mapped = self.draft.own.get("map") or {}
        chosen = await self.app.push_screen_wait(MapColumnsScreen(columns, mapped))
        if chosen is not None:
            self.change(self.draft.with_value("map", chosen))

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

    def action_reset(self) -> None:
        """Give the focused setting its value of the preset again."""
        form = self.query_one(SettingsStep)
        if form.focused_name:
            self.change(self.draft.with_value(form.focused_name, None))
            form.write_focused()

    def action_suggestion(self) -> None:
        """Take the first settings that fit."""
        answer = self._card.answer
        better = fit_facts.first_suggestion(answer) if answer else {}
        if better:
            self.change(self.draft.with_values(better))
            self.notify(f"Taken: {fit_facts.settings_text(better)}", markup=False)
        else:
            self.notify("There is no suggestion.")

    # Asking

    @property
    def _card(self) -> FitCard:
        return self.query_one(FitCard)

    def _ask(self) -> None:
        """Have estimated and checked what is planned now; known answers are not asked again."""
        problems, data = self.draft.problems(), self.query_one(DataStep)
        if self.step != MODEL and not problems:
            data.look(at_once=self.step in (DATA, REVIEW))
        pointed = self.query_one(ModelStep).pointed if self.step == MODEL else None
        model = pointed.name if pointed else self.draft.model
        if not model:
            self._card.ask_nothing("choose a model to see what it needs")
        elif problems:
            self._card.ask_nothing("not estimated: a setting cannot be used")
        else:
            self._card.ask(self._fit_words(model))
        self._show_review()
        self.on_resize()

    def _fit_words(self, model: str) -> list[str]:
        """Return what to ask for; data that cannot be read leave the worst case."""
        with_data = self.step != MODEL and self.query_one(DataStep).is_readable
        return self.draft.fit_words("" if with_data else model)

    def _known_fit(self, model: str) -> Any:
        """Return what is known of a model's fit, for the table of models."""
        return self._card.answers.known(self.draft.fit_words(model))

    @on(FitCard.Answered)
    def _show_answers(self) -> None:
        self.query_one(ModelStep).refresh_fits()
        self._show_review()
        self.on_resize()

    @on(DataStep.Answered)
    def _data_checked(self) -> None:
        self._ask()

    def action_probe(self) -> None:
        """Measure 3 steps on the longest batch."""
        if why := self._why_not():
            self.notify(why, severity="warning", markup=False)
        else:
            self._card.probe(self._fit_words(self.draft.model))
            self._show_review()

    def _show_review(self) -> None:
        card, data = self._card, self.query_one(DataStep)
        text = review_text(
            self.draft, card.answer, data.answer, card.note, self.orpo.charset, data.refusal
        )
        self.query_one(ReviewStep).show(text, may_start=not self._why_not())

    # Starting

    def _why_not(self) -> str:
        """Return why no training can be started, "" if one can."""
        problems = self.draft.problems()
        if unmet := self.draft.missing() or (problems[0].text if problems else ""):
            return unmet
        return self.query_one(DataStep).refusal

    @on(Button.Pressed, "#probe")
    def _probe_pressed(self) -> None:
        self.action_probe()

    @on(Button.Pressed, "#start")
    def action_start(self) -> None:
        """Start the training; the draft is kept until it has begun."""
        if why := self._why_not():
            self.notify(why, severity="warning", markup=False)
            return
        self._keep()
        self._runs_before = self._runs()
        try:
            self.orpo.start(self.draft.config())
        except OrpoError as error:
            self.orpo.show_error(error)

    def _has_begun(self) -> bool:
        """Tell whether the training that was started here has a run."""
        before = self._runs_before
        return before is not None and bool(self._runs() - before)

    def _runs(self) -> set[Path]:
        return {run.path for run in iter_runs(self.orpo.runs_dir)}

    def on_screen_resume(self) -> None:
        """Leave once a training has begun: nothing is to be planned any more."""
        if self._has_begun():
            self._forget()
            self.call_later(super().action_back)
        self._runs_before = None

    def _forget(self) -> None:
        self.draft = Draft()
        self.file.unlink(missing_ok=True)

    def on_unmount(self) -> None:
        if self._has_begun():
            self._forget()
        elif self.draft.own:
            self._keep()

    def on_resize(self) -> None:
        super().on_resize()
        self._card.set_full(self.size.width >= _WIDE)
        names = dict.fromkeys(short_name(n) for n in (self.draft.model, self.draft.data) if n)
        title = self.query_one("#title")
        title.right = visible(" · ".join(names))  # type: ignore[attr-defined]

    def sentence(self) -> str:
        place = f"New run, step {self.step + 1} of 4, {STEPS[self.step].lower()}"
        return f"{place}. {self._current.sentence()} {self._card.sentence()}"

"""The four steps of a planned run, beside them what it will need; asked for with each change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Container
from textual.message import Message
from textual.widgets import ContentSwitcher, Input

from tui.new_run import fit_facts
from tui.new_run.data.step import DataStep
from tui.new_run.draft import Draft
from tui.new_run.fit_card import FitCard
from tui.new_run.models.step import ModelStep
from tui.new_run.review_step import ReviewStep, review_text
from tui.new_run.settings_step import SettingsStep
from tui.new_run.steps import DATA, MODEL, REVIEW
from tui.parts.fields.path_field import PathField
from tui.processes.children import ChildFailed
from tui.shell.charset import CharsetName

_IDS = ("model", "data", "settings", "review-step")
_KINDS = (ModelStep, DataStep, SettingsStep, ReviewStep)


class Planning(Container):
    """Shows a draft in the step that is open, and keeps `fit` and `data check` up to date."""

    class Changed(Message):
        """Something became known that the screen's title or sentence may tell."""

    @dataclass
    class Counted(Message):
        """The check of the data found so many training pairs, or answers with a label each."""

        pairs: int
        is_labelled: bool = False

    def __init__(self, charset: CharsetName, runs_dir: Path | None) -> None:
        super().__init__(id="planning")
        self.charset: CharsetName = charset
        self.runs_dir = runs_dir
        self.draft = Draft()
        self.step = MODEL

    def compose(self) -> ComposeResult:
        with ContentSwitcher(initial=_IDS[MODEL], id="step"):
            yield ModelStep(self._known_fit, self.charset)
            yield DataStep(self.charset)
            yield SettingsStep()
            yield ReviewStep()
        yield FitCard(self.charset, self.runs_dir)

    # The parts

    @property
    def card(self) -> FitCard:
        """What the run needs."""
        return self.query_one(FitCard)

    @property
    def models(self) -> ModelStep:
        """The first step."""
        return self.query_one(ModelStep)

    @property
    def data(self) -> DataStep:
        """The second step."""
        return self.query_one(DataStep)

    @property
    def form(self) -> SettingsStep:
        """The third step."""
        return self.query_one(SettingsStep)

    @property
    def _current(self) -> ModelStep | DataStep | SettingsStep | ReviewStep:
        return self.query_one(_KINDS[self.step])

    # Showing

    def open(self, step: int) -> None:
        """Open a step."""
        self.step = step
        self.query_one("#step", ContentSwitcher).current = _IDS[step]
        self._current.focus_first()
        self._ask()

    def begin_text(self, event: events.Key | events.Paste) -> None:
        """Give the focus to the field of a step that takes what is typed over its list."""
        step = self._current
        if not isinstance(step, (ModelStep, DataStep)) or isinstance(self.screen.focused, Input):
            return
        if isinstance(event, events.Paste) or (
            event.key != "space" and step.check_consume_key(event.key, event.character)
        ):
            self.screen.set_focus(step.query_one(PathField))

    def show(self, draft: Draft) -> None:
        """Plan something else; every part shows it and is asked for again."""
        self.draft = draft
        for part in (self.models, self.data, self.form):
            part.show(draft)
        self._ask()

    # Asking

    def _ask(self) -> None:
        """Have estimated and checked what is planned now; known answers are not asked again."""
        problems = self.draft.problems()
        if self.step != MODEL and not problems:
            self.data.look(at_once=self.step in (DATA, REVIEW))
        pointed = self.models.pointed if self.step == MODEL else None
        model = pointed.name if pointed else self.draft.model
        if not model:
            self.card.ask_nothing("choose a model to see what it needs")
        elif problems:
            self.card.ask_nothing("not estimated: a setting cannot be used")
        else:
            rows = self.models.in_view if self.step == MODEL else ()
            also = [self.draft.fit_words(row.name) for row in rows]
            self.card.ask(self._fit_words(model), also)
        self._show_review()
        self.post_message(self.Changed())

    def _fit_words(self, model: str) -> list[str]:
        """Return what to ask for; data that cannot be read leave the worst case."""
        with_data = self.step != MODEL and self.data.is_readable
        return self.draft.fit_words("" if with_data else model)

    def _known_fit(self, model: str) -> Mapping[str, Any] | ChildFailed | None:
        """Return what is known of a model's fit, for the table of models."""
        return self.card.answers.kept_for(self.draft.fit_words(model))

    def end_questions(self) -> None:
        """End what is being estimated or measured."""
        self.card.ask_nothing("ended: the training begins")

    def forget_typed(self) -> None:
        """Empty the fields above the lists."""
        for field in self.query(PathField):
            field.value = ""

    def probe(self) -> None:
        """Measure 3 steps on the longest batch."""
        self.card.probe(self._fit_words(self.draft.model))
        self._show_review()

    async def why_no_model(self, model: str) -> str:
        """Return why a model on this machine cannot be used, "" if it can."""
        try:
            await self.card.answers.ask(self.draft.fit_words(model))
        except ChildFailed as failed:
            return str(failed)
        return ""

    def suggestion(self) -> dict[str, Any]:
        """Return the first settings that would fit, {} if there are none."""
        return fit_facts.first_suggestion(self.card.answer) if self.card.answer else {}

    def why_not(self) -> str:
        """Return why no training can be started, "" if one can."""
        problems = self.draft.problems()
        if unmet := self.draft.missing() or (problems[0].text if problems else ""):
            return unmet
        return self.data.refusal

    def _show_review(self) -> None:
        card, data = self.card, self.data
        text = review_text(
            self.draft, card.answer, data.answer, card.note, self.charset, data.refusal
        )
        self.query_one(ReviewStep).show(text, may_start=not self.why_not())

    @on(ModelStep.FitsWanted)
    def _fit_in_view(self, message: ModelStep.FitsWanted) -> None:
        message.stop()
        if message.is_new_list:
            self.card.answers.forget_failures()
        if self.step == MODEL:
            self._ask()

    @on(DataStep.Answered)
    def _data_checked(self) -> None:
        answer = self.data.answer or {}
        pairs = (answer.get("split") or {}).get("train", 0)
        is_labelled = bool(answer.get("labels"))
        if (pairs, is_labelled) != (self.draft.pairs, self.draft.is_labelled):
            self.post_message(self.Counted(pairs, is_labelled))
        self._ask()

    @on(FitCard.Answered)
    def _show_answers(self) -> None:
        self.models.refresh_fits()
        self._show_review()
        self.post_message(self.Changed())

    def sentence(self) -> str:
        """Return the open step and what the run needs as sentences."""
        return f"{self._current.sentence()} {self.card.sentence()}"

"""The four steps to a run, with made-up answers of `fit` and `data check`."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.widgets import DataTable, Input, OptionList, Select

from orpo_mlx import demo
from orpo_mlx.errors import ModelError
from tui.answers import Answers
from tui.draft import Draft, save_draft
from tui.model_list import ModelRow
from tui.screens.ask import Answer, AskScreen
from tui.screens.map_columns import MapColumnsScreen
from tui.screens.new_run import DRAFT_FILE, NewRunScreen
from tui.screens.runs import RunsScreen
from tui.settings import config_folder
from tui.widgets.data_step import DataStep
from tui.widgets.fit_card import FitCard
from tui.widgets.model_step import ModelStep
from tui.widgets.pair_preview import PairPreview
from tui.widgets.review_step import ReviewStep

FAKE = str(Path(__file__).parents[2] / "fakes" / "fake_planning.py")
ROWS = [
    ModelRow(str(demo.model_path()), "built-in demo model", "4 bit", 1, "llama", "built-in",
             folder=str(demo.model_path())),
    ModelRow("org/huge", "org/huge", "bf16", 9_000_000_000, "llama", "cache", folder="/none"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _made_up(monkeypatch, tmp_path):
    """Answers of the fake, at once; two models here, one on the Hub."""

    def answers(program):
        return Answers([FAKE, program[-1]], delay_seconds=0)

    def search(text):
        if text == "nothing":
            raise ModelError("The Hub does not answer.", "Use what is here.")
        return [ModelRow("mlx-community/found", "mlx-community/found", "4 bit", 5, place="hub")]

    monkeypatch.setattr("tui.widgets.fit_card.Answers", answers)
    monkeypatch.setattr("tui.widgets.data_step.Answers", answers)
    monkeypatch.setattr("tui.widgets.model_step.local_models", lambda folders: ROWS)
    monkeypatch.setattr("tui.widgets.model_step.search_hub", search)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def open_new(open_app, wait_for):
    """Return `open(size=)`: the screen with its models listed."""

    @asynccontextmanager
    async def open(size=(80, 24)):
        async with open_app(size) as pilot:
            screen = NewRunScreen()
            pilot.app.push_screen(screen)
            await wait_for(pilot, lambda: screen.query_one(ModelStep).shown, "models")
            yield pilot, screen

    return open


def answered(screen: NewRunScreen) -> bool:
    """Whether nothing is being asked any more."""
    card, data = screen.query_one(FitCard), screen.query_one(DataStep)
    return not card.note.startswith("estimating") and "Reading" not in data.state


async def test_the_whole_way_by_keyboard(open_new, wait_for, screen_text, monkeypatch):
    started = []
    async with open_new() as (pilot, screen):
        monkeypatch.setattr(screen.orpo, "start", started.append)
        await wait_for(pilot, lambda: screen.query_one(FitCard).answer, "a fit")
        await pilot.press("enter")
        await wait_for(pilot, lambda: screen.step == 1)
        await pilot.press("enter")
        await wait_for(pilot, lambda: screen.query_one(DataStep).answer, "a check")
        await wait_for(pilot, lambda: answered(screen))
        assert "usable: 3 of 4 rows" in screen_text(pilot.app)
        await pilot.press("ctrl+n", "ctrl+n")
        await wait_for(pilot, lambda: "2 pairs train, 1 validate" in screen_text(pilot.app))
        await pilot.press("ctrl+r")
        assert started == [screen.draft.config()]
        assert started[0].data == str(demo.train_path())
        assert started[0].lam == demo.SETTINGS["lam"]


async def test_every_row_gets_a_verdict_when_it_is_pointed_at(open_new, wait_for, screen_text):
    async with open_new((160, 48)) as (pilot, _):
        await pilot.press("down")
        await wait_for(pilot, lambda: "✗ too large" in screen_text(pilot.app))
        await pilot.press("up")
        await wait_for(pilot, lambda: "✓ fits easily" in screen_text(pilot.app))
        # What is known stays in the table; the card shows the model pointed at.
        assert "✗ too large" in screen_text(pilot.app)
        assert "weights" in screen_text(pilot.app)


async def test_the_list_is_filtered_and_an_id_can_be_typed(open_new, wait_for):
    async with open_new() as (pilot, screen):
        screen.query_one("#model-text").focus()
        await pilot.press(*"huge")
        await wait_for(pilot, lambda: len(screen.query_one(ModelStep).shown) == 1)
        screen.query_one("#model-text", Input).value = "org/typed"
        await pilot.press("enter")
        await wait_for(pilot, lambda: screen.draft.model == "org/typed")
        assert screen.step == 1


async def test_the_hub_is_searched_and_says_when_it_is_silent(open_new, wait_for, screen_text):
    async with open_new() as (pilot, screen):
        await pilot.press("f2", *"nothing", "enter")
        await wait_for(pilot, lambda: "The Hub does not answer" in screen_text(pilot.app))
        screen.query_one("#model-text", Input).value = "some"
        await pilot.press("enter")
        await wait_for(pilot, lambda: screen.query_one(ModelStep).shown)
        await wait_for(pilot, lambda: screen.query_one("#model-table", DataTable).has_focus)
        assert "the start downloads 5 B" in screen_text(pilot.app)
        await pilot.press("enter")
        await wait_for(pilot, lambda: screen.draft.model == "mlx-community/found")


@pytest.fixture
def open_data(open_new, wait_for):
    """Return `open(data, size=)`: the data step with these data."""

    @asynccontextmanager
    async def open(data: str, size=(80, 24)):
        async with open_new(size) as (pilot, screen):
            screen.change(Draft().with_values({"model": "org/m", "data": data}))
            screen.go_to(1)
            data_step = screen.query_one(DataStep)
            await wait_for(pilot, lambda: data_step.answer or "Reading" not in data_step.state)
            yield pilot, screen

    return open


async def test_pairs_are_shown_as_text_tokens_raw_and_lengths(open_data, wait_for, screen_text):
    async with open_data("pairs.jsonl", (100, 40)) as (pilot, screen):
        screen.query_one(PairPreview).focus()
        await wait_for(pilot, lambda: "[red]Why[/red] ?" in screen_text(pilot.app))
        await pilot.press("right")
        await wait_for(pilot, lambda: "Pair 2 of 3" in screen_text(pilot.app))
        await pilot.press("left", "v")
        await wait_for(pilot, lambda: "▒ [red]Why[/red]│?│" in screen_text(pilot.app))
        await pilot.press("v")
        await wait_for(pilot, lambda: '"question": "[red]Why[/red] ?"' in screen_text(pilot.app))
        await pilot.press("v")
        await wait_for(pilot, lambda: "what a limit costs" in screen_text(pilot.app))
        await pilot.click("#data-view", offset=(2, 0))
        await wait_for(pilot, lambda: screen.query_one(PairPreview).view == "text")


async def test_a_finding_opens_its_rows(open_data, wait_for, screen_text):
    async with open_data("pairs.jsonl") as (pilot, screen):
        findings = screen.query_one("#data-findings", OptionList)
        findings.focus()
        findings.highlighted = 0
        await pilot.press("enter")
        await wait_for(pilot, lambda: "Pair 1 of 1 shown · pairs.jsonl:4" in screen_text(pilot.app))
        await pilot.press("x")
        await wait_for(pilot, lambda: "of 3 shown" in screen_text(pilot.app))


async def test_data_that_cannot_be_read_are_named_and_leave_the_worst_case(
    open_data, wait_for, screen_text
):
    async with open_data("broken.jsonl") as (pilot, screen):
        await wait_for(pilot, lambda: "broken.jsonl:1: not UTF-8." in screen_text(pilot.app))
        await wait_for(pilot, lambda: answered(screen))
        answer = screen.query_one(FitCard).answer
        assert answer is not None
        assert answer["pairs"] == 0
        assert "not UTF-8. Convert it." in screen.sentence()


async def test_the_columns_of_data_with_other_names_are_known(open_data):
    async with open_data("odd.jsonl") as (_, screen):
        assert screen.query_one(DataStep).columns() == ["bad", "good", "question"]
        assert screen.query_one(DataStep).state.startswith("odd.jsonl:1: no known layout")


async def test_columns_are_asked_for_until_both_answers_have_one(open_new, wait_for, screen_text):
    chosen = []
    async with open_new() as (pilot, _):
        mapped = {"prompt": "q", "score": "s"}
        pilot.app.push_screen(MapColumnsScreen(["bad", "good", "q"], mapped), chosen.append)
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, MapColumnsScreen))
        await pilot.press("enter", *"good", "enter", "enter")
        await wait_for(pilot, lambda: "need a column" in screen_text(pilot.app))
        await pilot.press(*"ba", "right", "enter")
        await wait_for(pilot, lambda: chosen)
    # What the form does not ask for stays as it was given.
    assert chosen == [{"prompt": "q", "score": "s", "chosen": "good", "rejected": "bad"}]


async def test_a_setting_is_changed_explained_refused_and_reset(open_new, wait_for, screen_text):
    async with open_new() as (pilot, screen):
        screen.change(Draft({"model": "org/m", "data": "pairs.jsonl"}))
        screen.go_to(2)
        field = screen.query_one("#row-rank .field", Input)
        field.focus()
        await wait_for(pilot, lambda: "Rank of the adapter matrices" in screen_text(pilot.app))
        assert "Effect: higher learns more" in screen_text(pilot.app)
        await pilot.press("end", "6")
        await wait_for(pilot, lambda: screen.draft.own.get("rank") == "86")
        await pilot.press("x")
        await wait_for(pilot, lambda: "! found '86x'" in screen_text(pilot.app))
        assert "not estimated" in screen.query_one(FitCard).note
        await pilot.press("f5")
        await wait_for(pilot, lambda: "rank" not in screen.draft.own)
        assert field.value == "8"
        assert screen.draft.problems() == []


async def test_nothing_counts_as_changed_before_something_was(open_new, wait_for):
    async with open_new() as (pilot, screen):
        screen.change(screen.draft.with_preset("thorough"))
        screen.go_to(2)
        await wait_for(pilot, lambda: screen.query_one("#row-rank .field", Input).value == "16")
        await pilot.press("f6")
        await wait_for(pilot, lambda: screen.draft.preset == "demo")
        assert dict(screen.draft.own) == {}


async def test_a_conflict_stands_at_its_fields_and_stops_the_start(open_new, wait_for, screen_text):
    async with open_new((100, 60)) as (pilot, screen):
        screen.change(Draft({"model": "m", "data": "d", "rslora": "true"}))
        screen.go_to(2)
        said = "! --rslora: needs --alpha"
        await wait_for(pilot, lambda: screen_text(pilot.app).count(said) == 2)
        choice = screen.query_one("#row-rslora .field", Select)
        assert choice.value == "true"
        await pilot.press("ctrl+n", "ctrl+r")
        await wait_for(pilot, lambda: said in screen_text(pilot.app))
        assert screen.query_one("#start").disabled


async def test_a_change_is_estimated_anew_and_a_suggestion_can_be_taken(open_new, wait_for):
    async with open_new() as (pilot, screen):
        screen.change(Draft({"model": "org/huge", "max_seq_length": "512"}))
        screen.go_to(2)
        card = screen.query_one(FitCard)
        await wait_for(pilot, lambda: card.answer and card.answer["parts"]["head"] == 5120)
        await pilot.press("f7")
        await wait_for(pilot, lambda: card.answer and card.answer["parts"]["head"] == 2560)
        assert screen.draft.get("max_seq_length") == 256


async def test_a_probe_tells_the_time_and_its_answer_stays(open_data, wait_for, screen_text):
    async with open_data("pairs.jsonl") as (pilot, screen):
        screen.go_to(3)
        await wait_for(pilot, lambda: answered(screen))
        await pilot.press("f4")
        review = screen.query_one(ReviewStep)
        await wait_for(pilot, lambda: "about 1 min: 120 steps of 0.5 s" in review.text)
        screen.go_to(2)
        screen.go_to(3)
        assert "120 steps of 0.5 s" in review.text


async def test_what_was_chosen_is_kept_and_offered_again(open_app, open_new, wait_for):
    async with open_new() as (pilot, screen):
        screen.change(Draft({"model": "org/m", "rank": "4"}))
        await pilot.press("escape")
        await wait_for(pilot, lambda: pilot.app.screen is not screen)
    assert json.loads((config_folder() / DRAFT_FILE).read_text())["own"]["rank"] == "4"
    async with open_app() as pilot:
        screen = NewRunScreen()
        pilot.app.push_screen(screen)
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        await pilot.press("enter")
        await wait_for(pilot, lambda: screen.draft.own.get("rank") == "4")
        assert screen.step == 1


async def test_a_draft_can_be_forgotten_after_asking(open_app, wait_for):
    save_draft(Draft({"model": "org/m"}), config_folder() / DRAFT_FILE)
    async with open_app() as pilot:
        screen = NewRunScreen()
        pilot.app.push_screen(screen)
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        await pilot.press("enter")
        await wait_for(pilot, lambda: screen.draft.model == "org/m")
        await pilot.press("f9")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        await pilot.press("right", "enter")
        await wait_for(pilot, lambda: screen.draft == Draft())
    assert not (config_folder() / DRAFT_FILE).exists()


async def test_once_a_training_has_begun_the_planning_is_over(open_new, wait_for, make_run):
    async with open_new() as (pilot, screen):
        screen.change(Draft({"model": "org/m", "data": "pairs.jsonl"}))
        screen.go_to(3)

        def start(config):
            make_run("begun")
            pilot.app.push_screen(AskScreen("Live", "", [Answer("ok", "OK")]))

        screen.orpo.start = start  # type: ignore[method-assign]
        screen.action_start()
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        pilot.app.pop_screen()
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        assert not screen.keeper.file.exists()


async def test_a_refused_start_leaves_everything_as_it_was(open_new, wait_for):
    async with open_new() as (pilot, screen):
        draft = Draft({"model": "org/m", "data": "pairs.jsonl"})
        screen.change(draft)
        screen.orpo.start = lambda config: pilot.app.push_screen(  # type: ignore[method-assign]
            AskScreen("Not started", "", [Answer("ok", "OK")])
        )
        screen.action_start()
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        pilot.app.pop_screen()
        await wait_for(pilot, lambda: pilot.app.screen is screen)
        assert screen.draft == draft
        assert screen.keeper.file.exists()


async def test_steps_are_reached_by_mouse_and_by_number(open_new, wait_for):
    async with open_new() as (pilot, screen):
        await pilot.click("#steps", offset=(24, 0))
        await wait_for(pilot, lambda: screen.step == 2)
        await pilot.press("escape")
        assert screen.step == 1
        await pilot.press("4")
        await wait_for(pilot, lambda: screen.step == 3)
        assert "Choose a model and data first." in screen.sentence()


async def test_data_that_cannot_be_read_are_named_in_the_review_and_not_started(
    open_data, wait_for
):
    async with open_data("broken.jsonl") as (pilot, screen):
        data = screen.query_one(DataStep)
        await wait_for(pilot, lambda: data.refusal)
        screen.go_to(3)
        review = screen.query_one(ReviewStep)
        await wait_for(pilot, lambda: "! broken.jsonl:1: not UTF-8." in review.text)
        assert review.query_one("#start").disabled


async def test_a_path_may_be_begun_while_the_list_has_the_focus(open_new, wait_for):
    """Letters are keys there: q would ask to quit."""
    async with open_new() as (pilot, screen):
        screen.go_to(1)
        await wait_for(pilot, lambda: screen.query_one("#data-offers").has_focus)
        field = screen.query_one("#data-text", Input)
        await pilot.press("/", "q", "a")
        await wait_for(pilot, lambda: field.value == "/qa")
        assert pilot.app.screen is screen


async def test_the_same_file_is_read_again_when_it_is_named_again(open_data, wait_for):
    async with open_data("pairs.jsonl") as (pilot, screen):
        data = screen.query_one(DataStep)
        await wait_for(pilot, lambda: data.answer)
        asked, ask = [], data.checks.ask

        def count(words):
            asked.append(words in [list(key) for key in data.checks.kept])
            return ask(words)

        data.checks.ask = count
        data.query_one("#data-text", Input).focus()
        await wait_for(pilot, lambda: data.query_one("#data-text").has_focus)
        await pilot.press("enter")
        await wait_for(pilot, lambda: asked)
        assert asked == [False]  # not from memory: the file may be another by now
        await wait_for(pilot, lambda: answered(screen) and data.answer)

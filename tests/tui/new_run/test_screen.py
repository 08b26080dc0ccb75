"""The four steps to a run, with made-up answers of `fit` and `data check`."""

from __future__ import annotations

import asyncio
import json

import pytest
from huggingface_hub import constants
from textual.coordinate import Coordinate
from textual.events import Key
from textual.widgets import DataTable, Input, Select

from orpo_mlx import demo
from tui.home.screen import RunsScreen
from tui.new_run.data.step import HUB, DataStep
from tui.new_run.draft import Draft, save_draft
from tui.new_run.fit_card import FitCard
from tui.new_run.models.catalogue import ModelRow
from tui.new_run.models.step import ModelStep
from tui.new_run.models.table import ModelTable
from tui.new_run.review_step import ReviewStep
from tui.new_run.screen import DRAFT_FILE, NewRunScreen
from tui.parts.ask import AskChoice, AskScreen
from tui.shell.settings import config_folder

pytestmark = pytest.mark.usefixtures("made_up")


async def test_the_whole_way_by_keyboard(open_new, wait_for, screen_text, monkeypatch, answered):
    started = []
    async with open_new() as (pilot, screen):
        monkeypatch.setattr(pilot.app, "start", lambda *given: started.append(given))
        await wait_for(pilot, lambda: screen.query_one(FitCard).answer, "a fit")
        await pilot.press("enter")
        await wait_for(pilot, lambda: screen.step == 1)
        await pilot.press("enter")
        await wait_for(pilot, lambda: screen.query_one(DataStep).answer, "a check")
        await wait_for(pilot, lambda: answered(screen))
        assert "usable: 200 of 201 rows" in screen_text(pilot.app)
        await pilot.press("ctrl+n", "ctrl+n")
        await wait_for(pilot, lambda: "180 pairs train, 20 validate" in screen_text(pilot.app))
        await pilot.press("ctrl+r")
        assert started == [(screen.draft.config(), 1)]
        assert started[0][0].data == str(demo.train_path())
        assert started[0][0].lam == demo.SETTINGS["lam"]


async def test_every_row_gets_a_verdict_when_it_is_pointed_at(open_new, wait_for, screen_text):
    async with open_new((160, 48)) as (pilot, _):
        await pilot.press("down")
        await wait_for(pilot, lambda: "✗ too large" in screen_text(pilot.app))
        await pilot.press("up")
        await wait_for(pilot, lambda: "✓ fits easily" in screen_text(pilot.app))
        # What is known stays in the table; the card shows the model pointed at.
        assert "✗ too large" in screen_text(pilot.app)
        assert "weights" in screen_text(pilot.app)


async def test_verdicts_take_the_colour_of_another_theme(open_new, wait_for):
    async with open_new() as (pilot, screen):
        table = screen.query_one(ModelTable)
        colour = lambda: str(table.get_cell_at(Coordinate(1, 3)).style)  # noqa: E731
        await wait_for(pilot, lambda: pilot.app.theme_variables["error"] in colour())
        dark = colour()
        pilot.app.theme = "orpo-light"
        await wait_for(pilot, lambda: colour() != dark)
        assert pilot.app.theme_variables["error"] in colour()


async def test_rows_in_view_get_a_verdict_without_being_pointed_at(open_new, wait_for, screen_text):
    async with open_new((160, 48)) as (pilot, screen):
        await wait_for(pilot, lambda: "✗ too large" in screen_text(pilot.app))
        assert screen.query_one(ModelStep).pointed.title == "built-in demo model"
        # A change makes all of it old: it is asked for again.
        screen.change(screen.draft.with_value("rank", "4"))
        words = screen.draft.fit_words("org/huge")
        await wait_for(pilot, lambda: screen.query_one(FitCard).answers.kept_for(words))


async def test_rows_wait_for_the_step_to_be_open(open_new, wait_for):
    async with open_new((160, 48)) as (pilot, screen):
        screen.go_to(1)
        card = screen.query_one(FitCard)
        screen.change(Draft({"model": "org/m", "rank": "4"}))
        await wait_for(pilot, lambda: card.answer and not card.note)
        huge = screen.draft.fit_words("org/huge")
        assert card.answers.kept_for(huge) is None
        screen.go_to(0)
        await wait_for(pilot, lambda: card.answers.kept_for(huge))


async def test_a_model_without_a_fit_says_so_and_why_when_pointed_at(
    open_new, wait_for, screen_text
):
    async with open_new((100, 30)) as (pilot, screen):
        rows = [ModelRow("org/ok", "org/ok"), ModelRow("org/broken", "org/broken")]
        screen.query_one(ModelStep).show_rows(0, rows)
        await wait_for(pilot, lambda: "? not known" in screen_text(pilot.app))
        await wait_for(pilot, lambda: "fits easily" in screen_text(pilot.app))
        await pilot.press("down")
        await wait_for(pilot, lambda: "not UTF-8" in screen.query_one(FitCard).note)


async def test_a_row_of_the_hub_is_asked_about_once_it_is_pointed_at(
    open_new, wait_for, screen_text, hub_server, monkeypatch, tmp_path
):
    monkeypatch.setattr(constants, "ENDPOINT", hub_server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("tui.new_run.models.step._DWELL_SECONDS", 0)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "model.safetensors").write_bytes(b"x" * 5_000)
    for name in ("org/open", "org/gated"):
        hub_server.add_model(name, tmp_path / "there").about = {"tags": ["license:mit"]}
    hub_server.models["org/gated"].about["gated"] = "auto"
    async with open_new((100, 30)) as (pilot, screen):
        rows = [ModelRow(n, n, place="hub") for n in ("org/open", "org/gated", "org/none")]
        screen.query_one(ModelStep).show_rows(1, rows)
        screen.query_one(ModelStep).switch_source(1)
        await wait_for(pilot, lambda: "licence mit" in screen_text(pilot.app))
        await wait_for(pilot, lambda: "the start downloads 5 kB" in screen_text(pilot.app))
        assert {path for _, path in hub_server.requests} == {"/api/models/org/open"}
        screen.query_one("#model-table").focus()
        await pilot.press("down")
        await wait_for(pilot, lambda: "gated: accept its terms" in screen_text(pilot.app))
        await pilot.press("down")
        await wait_for(pilot, lambda: "knows no such model" in screen_text(pilot.app))


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


async def test_a_setting_is_changed_explained_refused_and_reset(open_new, wait_for, screen_text):
    async with open_new() as (pilot, screen):
        screen.change(Draft({"model": "org/m", "data": "pairs.jsonl"}))
        screen.go_to(2)
        field = screen.query_one("#row-rank .field", Input)
        field.focus()
        await wait_for(pilot, lambda: "Rank of the adapter matrices" in screen_text(pilot.app))
        assert "Memory: higher needs a little more" in screen_text(pilot.app)
        await pilot.press("end", "6")
        await wait_for(pilot, lambda: screen.draft.own.get("rank") == "86")
        await pilot.press("x")
        await wait_for(pilot, lambda: "! found '86x'" in screen_text(pilot.app))
        assert "not estimated" in screen.query_one(FitCard).note
        await pilot.press("f5")
        await wait_for(pilot, lambda: "rank" not in screen.draft.own)
        assert field.value == "8"
        assert screen.draft.problems() == []


async def test_a_rate_with_a_digit_too_many_is_refused(open_new, wait_for, screen_text):
    async with open_new((100, 30)) as (pilot, screen):
        screen.change(Draft({"model": "org/m", "data": "pairs.jsonl"}))
        screen.go_to(2)
        screen.query_one("#row-learning_rate .field", Input).focus()
        await pilot.press(*"5e-053")
        await wait_for(pilot, lambda: screen.draft.own.get("learning_rate") == "5e-053")
        await wait_for(pilot, lambda: "! found '5e-053', needs a" in screen_text(pilot.app))
        assert screen.planning.why_not()
        await pilot.press("backspace")
        await wait_for(pilot, lambda: "! found" not in screen_text(pilot.app))


async def test_nothing_counts_as_changed_before_something_was(open_new, wait_for):
    async with open_new() as (pilot, screen):
        screen.change(screen.draft.with_preset("thorough"))
        screen.go_to(2)
        await wait_for(pilot, lambda: screen.query_one("#row-rank .field", Input).value == "16")
        await pilot.press("f6")
        await wait_for(pilot, lambda: screen.draft.preset == "demo")
        assert dict(screen.draft.own) == {}


async def test_what_it_begins_with_keeps_its_preset(made_up, open_app, wait_for, answered):
    async with open_app((100, 30)) as pilot:
        draft = Draft().with_model(str(demo.model_path())).with_data(str(demo.train_path()))
        pilot.app.push_screen(screen := NewRunScreen(draft))
        preset = await wait_for(pilot, lambda: screen.query_one("#preset", Select))
        await wait_for(pilot, lambda: preset.value == "demo" and answered(screen))
        assert screen.draft.preset == "demo"


async def test_a_conflict_stands_at_its_fields_and_stops_the_start(open_new, wait_for, screen_text):
    async with open_new((100, 120)) as (pilot, screen):
        screen.change(Draft({"model": "m", "data": "d", "rslora": "true"}))
        screen.go_to(2)
        said = "! --rslora: needs --alpha"
        await wait_for(pilot, lambda: said in screen_text(pilot.app))
        choice = screen.query_one("#row-rslora .field", Select)
        assert choice.value == "true"
        await pilot.press("ctrl+n", "ctrl+r")
        await wait_for(pilot, lambda: said in screen_text(pilot.app))
        assert screen.query_one("#start").disabled


async def test_a_doubt_stands_at_its_fields_and_stops_nothing(open_new, wait_for, screen_text):
    async with open_new((100, 60)) as (pilot, screen):
        screen.change(Draft({"model": "m", "data": "d", "lam": "0", "learning_rate": "0.01"}))
        screen.go_to(2)
        await wait_for(pilot, lambda: "warning: --lam 0: the rejected" in screen_text(pilot.app))
        assert "warning: --learning-rate 0.01 is high" in screen_text(pilot.app)
        await pilot.press("ctrl+n")
        assert not screen.query_one("#start").disabled


async def test_changed_settings_behind_advanced_are_counted(open_new, wait_for, screen_text):
    async with open_new((100, 60)) as (pilot, screen):
        screen.change(Draft({"model": "m", "data": "d", "dropout": "0.1", "rank": "4"}))
        screen.go_to(2)
        await wait_for(pilot, lambda: "more, 1 changed)" in screen_text(pilot.app))
        screen.query_one("#advanced-switch").press()
        await wait_for(pilot, lambda: "- Advanced (" in screen_text(pilot.app))


async def test_only_settings_of_the_chosen_objective_are_shown(open_new, wait_for):
    async with open_new((100, 60)) as (pilot, screen):
        screen.change(Draft({"model": "m", "data": "d", "rank": "4"}))
        screen.go_to(2)
        await pilot.pause()
        screen.query_one("#advanced-switch").press()
        await wait_for(pilot, lambda: screen.query("#row-beta"))
        await wait_for(pilot, lambda: not screen.query_one("#row-beta").display)
        assert screen.query_one("#row-lam").display
        screen.change(screen.draft.with_value("objective", "dpo"))
        await wait_for(pilot, lambda: screen.query_one("#row-beta").display)
        assert not screen.query_one("#row-lam").display


async def test_a_batch_larger_than_the_data_stops_the_start(open_new, wait_for, screen_text):
    async with open_new((100, 60)) as (pilot, screen):
        screen.change(Draft({"model": "m", "data": "few.jsonl"}))
        screen.go_to(1)
        await wait_for(pilot, lambda: screen.draft.pairs == 3)
        await pilot.press("ctrl+n")
        said = "! --micro-batch-size 4 is more than the 3 training pairs"
        await wait_for(pilot, lambda: said in screen_text(pilot.app))
        await pilot.press("ctrl+n")
        assert screen.query_one("#start").disabled
        screen.change(screen.draft.with_value("valid_fraction", "0.1"))
        assert not screen.draft.problems()  # another split: not counted yet


async def test_a_change_is_estimated_anew_and_a_suggestion_can_be_taken(open_new, wait_for):
    async with open_new() as (pilot, screen):
        screen.change(Draft({"model": "org/huge", "max_seq_length": "512"}))
        screen.go_to(2)
        card = screen.query_one(FitCard)
        await wait_for(pilot, lambda: card.answer and card.answer["parts"]["head"] == 5120)
        await pilot.press("f7")
        await wait_for(pilot, lambda: card.answer and card.answer["parts"]["head"] == 2560)
        assert screen.draft.get("max_seq_length") == 256


async def test_a_probe_tells_the_time_and_its_answer_stays(
    open_data, wait_for, screen_text, answered
):
    async with open_data("pairs.jsonl") as (pilot, screen):
        screen.go_to(3)
        await wait_for(pilot, lambda: answered(screen))
        await pilot.press("f4")
        review = screen.query_one(ReviewStep)
        await wait_for(pilot, lambda: "about 1 min: 120 steps of 0.5 s" in review.text)
        screen.go_to(2)
        screen.go_to(3)
        assert "120 steps of 0.5 s" in review.text


async def test_a_folder_that_was_typed_is_checked_listed_and_pointed_at_on_return(
    open_new, wait_for, tmp_path
):
    (tmp_path / "unusable").mkdir()
    typed = tmp_path / "typed"
    typed.mkdir()
    for name in ("config.json", "model.safetensors"):
        (typed / name).write_text("{}")
    async with open_new() as (pilot, screen):
        said, models = [], screen.query_one(ModelStep)
        screen.notify = lambda text, **_: said.append(text)
        for folder in ("unusable", "typed"):
            field = screen.query_one("#model-text", Input)
            field.focus()
            field.value = str(tmp_path / folder)
            await pilot.press("enter")
            await wait_for(pilot, lambda: said)
            assert (screen.step, screen.draft.model) == (0, "") or folder == "typed"
        await wait_for(pilot, lambda: screen.step == 1)
        assert said == ["no model is there\nChoose another."]
        await pilot.press("escape")
        await wait_for(pilot, lambda: models.pointed and models.pointed.name == str(typed))
        assert screen.query_one("#model-text", Input).value == ""


@pytest.mark.parametrize("is_usable", [True, False])
async def test_keys_wait_for_the_step_after_while_a_model_is_checked(
    open_new, wait_for, screen_text, is_usable
):
    async with open_new() as (pilot, screen):
        # The fit of the model under the cursor is asked for again and does not come.
        await wait_for(pilot, lambda: screen.query_one(FitCard).answer)
        asked, answered = asyncio.Event(), asyncio.Event()

        async def check(model):
            asked.set()
            await answered.wait()
            return "" if is_usable else "no model is there"

        screen.planning.why_no_model = check
        await pilot.press("enter")
        await asked.wait()
        await wait_for(pilot, lambda: "checking " in screen_text(pilot.app))
        await pilot.press(*"pairs", "7")
        assert screen.query_one("#model-text", Input).value == ""
        assert (screen.step, screen.query_one("#data-text", Input).value) == (0, "")
        answered.set()
        await wait_for(pilot, lambda: "checking " not in screen_text(pilot.app))
        if is_usable:
            await wait_for(pilot, lambda: screen.query_one("#data-text", Input).value == "pairs7")
        else:
            await pilot.press("x")  # what was typed for another step is gone, the screen lives
            await wait_for(pilot, lambda: screen.query_one("#model-text", Input).value == "x")
        assert screen.step == is_usable


async def test_keys_right_behind_the_one_that_goes_on_are_of_the_step_after(open_new, wait_for):
    async with open_new() as (pilot, screen):
        await wait_for(pilot, lambda: screen.query_one(FitCard).answer)
        for key in ("ctrl+n", "f", "a", "c"):  # as a terminal sends them, without a pause
            pilot.app.post_message(Key(key, key if len(key) == 1 else None))
        await wait_for(pilot, lambda: screen.query_one("#data-text", Input).value == "fac")
        assert screen.query_one("#model-text", Input).value == ""


async def test_escape_ends_the_check_of_a_model_and_stays(open_new, wait_for, screen_text):
    async with open_new() as (pilot, screen):
        await wait_for(pilot, lambda: screen.query_one(FitCard).answer)
        screen.planning.why_no_model = lambda model: asyncio.Event().wait()
        await pilot.press("enter")
        await wait_for(pilot, lambda: "checking " in screen_text(pilot.app))
        await pilot.press("escape")
        await wait_for(pilot, lambda: "checking " not in screen_text(pilot.app))
        assert pilot.app.screen is screen
        assert (screen.step, screen.draft.model) == (0, "")


async def test_measuring_ends_when_the_training_starts_and_is_refused_beside_one(
    open_data, wait_for, answered, make_run, monkeypatch
):
    async with open_data("pairs.jsonl") as (pilot, screen):
        screen.go_to(3)
        await wait_for(pilot, lambda: answered(screen))
        card, ended = screen.query_one(FitCard), []

        async def forever(words):
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                ended.append(words)
                raise

        monkeypatch.setattr(card.answers, "ask", forever)
        await pilot.press("f4")
        await wait_for(pilot, lambda: "measuring 3 steps" in card.note)
        pilot.app.start = lambda *given: pilot.app.push_screen(  # type: ignore[method-assign]
            AskScreen("Not started", "", [AskChoice("ok", "OK")])
        )
        screen.action_start()
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        await wait_for(pilot, lambda: any("--probe" in words for words in ended))
        pilot.app.pop_screen()
        await wait_for(pilot, lambda: card.answer)  # what was ended is asked again

        said = []
        running = make_run("busy")
        monkeypatch.setattr("tui.new_run.screen.running_runs", lambda _: [running])
        screen.notify = lambda text, **_: said.append(text)
        await pilot.press("f4")
        await wait_for(pilot, lambda: said)
        assert said[0].startswith("busy is being trained: measuring beside it")


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
        screen.query_one("#model-text").value = "qwen"
        await pilot.press("f9")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        await pilot.press("right", "enter")
        await wait_for(pilot, lambda: screen.draft == Draft())
        assert screen.query_one("#model-text").value == ""
    assert not (config_folder() / DRAFT_FILE).exists()


async def test_once_a_training_has_begun_the_planning_is_over(open_new, wait_for, make_run):
    async with open_new() as (pilot, screen):
        screen.change(Draft({"model": "org/m", "data": "pairs.jsonl"}))
        screen.go_to(3)

        def start(config, processes):
            make_run("begun")
            pilot.app.push_screen(AskScreen("Live", "", [AskChoice("ok", "OK")]))

        pilot.app.start = start  # type: ignore[method-assign]
        screen.action_start()
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        pilot.app.pop_screen()
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        assert not screen.keeper.file.exists()


async def test_a_refused_start_leaves_everything_as_it_was(open_new, wait_for):
    async with open_new() as (pilot, screen):
        draft = Draft({"model": "org/m", "data": "pairs.jsonl"})
        screen.change(draft)
        pilot.app.start = lambda *given: pilot.app.push_screen(  # type: ignore[method-assign]
            AskScreen("Not started", "", [AskChoice("ok", "OK")])
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
        screen.go_to(3)
        await pilot.press("3")
        await wait_for(pilot, lambda: screen.step == 2)
        screen.go_to(3)
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


def post(app, text: str) -> None:
    """Type without waiting for anything, as a terminal hands on what was typed fast."""
    names = {"\n": "enter", "<": "backspace"}
    for sign in text:
        app.post_message(Key(names.get(sign, sign), None if sign == "<" else sign))


TYPED = "short 4bit/q?,a.jsonl"
"""Holds what is a key elsewhere: letters that quit, ask for help, go to a step."""


@pytest.mark.parametrize(
    ("step", "field", "focus"),
    [(0, "#model-text", "#model-table"), (1, "#data-text", "#data-offers")],
)
async def test_what_is_typed_over_a_list_goes_into_the_field(
    step, field, focus, open_new, wait_for, screen_text
):
    async with open_new() as (pilot, screen):
        screen.go_to(step)
        await wait_for(pilot, lambda: screen.query_one(focus).has_focus)
        await wait_for(pilot, lambda: "F1 Help" in screen_text(pilot.app))
        assert "q Quit" not in screen_text(pilot.app)
        post(pilot.app, f"{TYPED}x<\n")
        taken = ("model", "data")[step]
        await wait_for(pilot, lambda: screen.draft.get(taken) == TYPED)
        assert pilot.app.screen is screen


@pytest.mark.parametrize("typed", ["short.jsonl", "q2"])
async def test_a_list_of_the_hub_hands_on_what_is_typed_too(typed, open_new, wait_for):
    async with open_new() as (pilot, screen):
        screen.go_to(1)
        screen.action_source()
        data = screen.query_one(DataStep)
        await wait_for(pilot, lambda: data.place == HUB and data.query_one("#hub-data").size)
        data.query_one("#hub-data").focus()
        await wait_for(pilot, lambda: data.query_one("#hub-data").has_focus)
        post(pilot.app, typed)
        field = data.query_one("#data-text", Input)
        await wait_for(pilot, lambda: field.has_focus and field.value == typed)


async def test_letters_typed_before_the_next_step_has_its_list_are_not_lost(open_new, wait_for):
    async with open_new() as (pilot, screen):
        screen.change(Draft({"model": "org/small"}))
        screen.go_to(1)
        post(pilot.app, "short.jsonl\n")
        await wait_for(pilot, lambda: screen.draft.data == "short.jsonl")


async def test_the_form_is_walked_by_up_and_down_and_a_list_opens_on_enter(open_new, wait_for):
    async with open_new() as (pilot, screen):
        screen.change(Draft({"model": "org/small", "data": "pairs.jsonl"}))
        screen.go_to(2)
        preset = screen.query_one("#preset", Select)
        await wait_for(pilot, lambda: preset.has_focus)
        await pilot.press("down", "down")
        assert (screen.planning.form.focused_name, preset.expanded) == ("epochs", False)
        await pilot.press("up", "up")
        assert preset.has_focus
        await pilot.press("enter")
        await wait_for(pilot, lambda: preset.expanded)


@pytest.mark.parametrize("preset", ["demo", "thorough"])
async def test_a_draft_to_begin_with_keeps_its_preset(preset, made_up, open_app, wait_for):
    """A run like another one opens so; the form's own beginning, Balanced, is no choice."""
    draft = Draft(preset=preset).with_values({"model": "org/small", "data": "pairs.jsonl"})
    async with open_app() as pilot:
        screen = NewRunScreen(draft)
        pilot.app.push_screen(screen)
        await wait_for(pilot, lambda: screen.query_one("#preset").value == preset)
        await pilot.pause()
        assert (screen.draft.preset, screen.draft.own) == (preset, draft.own)
        await pilot.press("f6")
        await wait_for(pilot, lambda: screen.draft.preset != preset)


@pytest.mark.parametrize("size", [(60, 16), (80, 24)])
async def test_the_steps_say_what_a_digit_does_here(size, open_new, wait_for, screen_text):
    def said() -> str:
        return screen_text(pilot.app).split("\n")[1]

    async with open_new(size) as (pilot, screen):
        await wait_for(pilot, lambda: said().endswith("digits type"))  # the list's filter
        screen.change(Draft({"model": "org/m"}))
        screen.go_to(2)
        await wait_for(pilot, lambda: said().endswith("1 to 4: a step"))  # a field of choices
        await pilot.press("down", "down")
        await wait_for(pilot, lambda: said().endswith("digits type"))
        await pilot.press("2")
        assert (screen.step, screen.query_one("#row-epochs Input", Input).value) == (2, "2")
        await pilot.press("up", "1")
        await wait_for(pilot, lambda: screen.step == 0)

"""The second step: files, datasets of the Hub, and what `data check` says of them, made up."""

from __future__ import annotations

import re

import pytest
from huggingface_hub import constants
from textual.events import Paste
from textual.widgets import Input, OptionList, Static

from orpo_mlx.chat.feedback import labelled_file, pairs_file
from orpo_mlx.data.catalogue.curated import CURATED
from tui.new_run.data.dataset_table import DatasetTable
from tui.new_run.data.map_columns import MapColumnsScreen
from tui.new_run.data.pair_preview import PairPreview
from tui.new_run.data.step import HERE, HUB, PAIRS, DataStep
from tui.new_run.draft import Draft
from tui.new_run.fit_card import FitCard
from tui.new_run.models.table import ModelTable
from tui.new_run.steps import DATA


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
    open_data, wait_for, screen_text, answered
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


async def test_the_same_file_is_read_again_when_it_is_named_again(open_data, wait_for, answered):
    async with open_data("pairs.jsonl") as (pilot, screen):
        data = screen.query_one(DataStep)
        await wait_for(pilot, lambda: data.answer)
        asked, ask = [], data.checks.ask

        def count(words, *more):
            asked.append(words in [list(key) for key in data.checks.kept])
            return ask(words, *more)

        data.checks.ask = count
        data.query_one("#data-text", Input).focus()
        await wait_for(pilot, lambda: data.query_one("#data-text").has_focus)
        await pilot.press("enter")
        await wait_for(pilot, lambda: asked)
        assert asked == [False]  # not from memory: the file may be another by now
        await wait_for(pilot, lambda: answered(screen) and data.answer)


async def test_a_download_tells_how_far_it_is_and_can_be_stopped(open_new, wait_for, screen_text):
    async with open_new() as (pilot, screen):
        screen.change(Draft().with_values({"model": "org/m", "data": "org/far"}))
        screen.go_to(DATA)
        data = screen.query_one(DataStep)
        await wait_for(pilot, lambda: "Downloading org/far: 1 MB of 2 MB" in data.state)
        await wait_for(pilot, lambda: re.search(r"of 2 MB \d+ s", screen_text(pilot.app)))
        assert "a warning" not in data.state
        data.query_one("#data-text", Input).focus()
        await pilot.press("ctrl+u", "enter")
        await wait_for(pilot, lambda: not screen.draft.data and data.place == HERE)
        assert not data.state
        # The next question has its turn only once this one's process is gone.
        screen.change(screen.draft.with_values({"data": "pairs.jsonl"}))
        await wait_for(pilot, lambda: data.answer)


async def test_someone_new_is_told_what_pairs_are_where_there_is_room(
    open_new, wait_for, screen_text, tmp_path
):
    for number in range(12):
        (tmp_path / f"{number}.jsonl").touch()
    async with open_new() as (pilot, screen):
        screen.go_to(DATA)
        data = screen.query_one(DataStep)
        await wait_for(pilot, lambda: data.query_one("#data-offers").has_focus)
        # Fourteen rows leave four lines: whole paragraphs only, and none if none fits.
        assert "11.jsonl" in screen_text(pilot.app)
        assert "Files: .jsonl" not in screen_text(pilot.app)
        await pilot.resize_terminal(80, 40)
        await wait_for(pilot, lambda: '"rejected": "No idea."}' in screen_text(pilot.app))
        await pilot.resize_terminal(80, 16)
        await wait_for(pilot, lambda: "A training learns" not in screen_text(pilot.app))
        await pilot.press("end")
        await wait_for(pilot, lambda: "Browse ..." in screen_text(pilot.app))


async def test_keys_of_the_preview_work_from_the_findings(open_data, wait_for, screen_text):
    async with open_data("pairs.jsonl", (100, 40)) as (pilot, screen):
        findings = screen.query_one("#data-findings", OptionList)
        findings.focus()
        await pilot.press("right")
        await wait_for(pilot, lambda: "Pair 2 of 3" in screen_text(pilot.app))
        await pilot.press("left", "v")
        preview = screen.query_one(PairPreview)
        await wait_for(pilot, lambda: (preview.view, preview.index) == ("tokens", 0))
        await pilot.press("enter")
        await wait_for(pilot, lambda: "Pair 1 of 1" in screen_text(pilot.app))
        findings.focus()
        await pilot.press("x")
        await wait_for(pilot, lambda: "of 3 shown" in screen_text(pilot.app))
        assert findings.has_focus


# Datasets of the Hub

TEXT = [{"name": name, "dtype": "string"} for name in ("prompt", "chosen", "rejected")]
SPLITS = [{"name": "train", "num_examples": 77}]


@pytest.fixture
def hub(hub_server, monkeypatch):
    """The stand-in of the Hub, with one dataset."""
    monkeypatch.setattr(constants, "ENDPOINT", hub_server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("tui.new_run.data.dataset_table._DWELL_SECONDS", 0)
    info = {"features": TEXT, "splits": SPLITS}
    files = {"train.jsonl": b"{}\n" * 1_000}
    tags = ["dpo", "license:mit", "size_categories:n<1K"]
    about = {"downloads": 12_345, "tags": tags}
    hub_server.add_dataset("org/sea-dpo", files, dataset_info=info).about = about
    return hub_server


async def test_words_search_the_hub_and_a_row_is_taken(open_new, wait_for, screen_text, hub):
    async with open_new((120, 30)) as (pilot, screen):
        screen.go_to(1)
        data = screen.query_one(DataStep)
        await wait_for(pilot, lambda: data.query_one("#data-offers").has_focus)
        data.query_one("#data-text").focus()
        await pilot.press(*"sea", "enter")
        await wait_for(pilot, lambda: "org/sea-dpo" in screen_text(pilot.app))
        assert data.place == HUB
        assert "12.3 k" in screen_text(pilot.app)
        said = "77 rows · layout probably plain text · licence mit · choosing it downloads 3 kB"
        about = data.query_one("#hub-about", Static)
        await wait_for(pilot, lambda: str(about.content) == said)
        # Nothing of it was downloaded, and it is taken by its id.
        assert not any("resolve" in path for _, path in hub.requests)
        await wait_for(pilot, lambda: data.query_one("#hub-data").has_focus)
        await pilot.press("enter")
        await wait_for(pilot, lambda: screen.draft.data == "org/sea-dpo")
        assert data.place == PAIRS
        await wait_for(pilot, lambda: data.answer)


async def test_downloads_have_a_column_in_the_smallest_window(open_new, wait_for, screen_text, hub):
    async with open_new((60, 16)) as (pilot, screen):
        screen.go_to(1)
        await pilot.press("f2", *"sea", "enter")
        row = re.compile(r"org/sea-dpo +\S.* +12\.3k +mit")
        await wait_for(pilot, lambda: row.search(screen_text(pilot.app)))


async def test_known_datasets_are_offered_without_the_hub_and_bring_their_split(
    open_new, wait_for, screen_text
):
    """Down leads from the field to the list."""
    async with open_new((100, 40)) as (pilot, screen):
        screen.go_to(1)
        await wait_for(pilot, lambda: screen.query_one("#data-offers").has_focus)
        await pilot.press("f2")
        await wait_for(pilot, lambda: screen.query_one("#data-text").has_focus)
        await wait_for(pilot, lambda: "HF_HUB_OFFLINE is set" in screen_text(pilot.app))
        table = screen.query_one(DatasetTable)
        assert [found.id for found in table.shown] == [entry.id for entry in CURATED]
        await pilot.press("down", "down", "down")
        await wait_for(pilot, lambda: "Taken with it: --data-split" in screen_text(pilot.app))
        await pilot.press("enter")
        await wait_for(pilot, lambda: screen.draft.own.get("data_split") == "train_prefs")
        # Other data have other splits.
        screen.query_one(DataStep).post_message(DataStep.Chosen("other.jsonl"))
        await wait_for(pilot, lambda: screen.draft.data == "other.jsonl")
        assert "data_split" not in screen.draft.own


@pytest.mark.parametrize(
    ("fault", "said"),
    [("rate_limited", "there were too many requests"), ("bad_token", "the Hub refused the access")],
)
async def test_a_hub_that_refuses_is_told_below_what_is_known(
    open_new, wait_for, screen_text, hub, fault, said
):
    hub.fault = fault
    async with open_new() as (pilot, screen):
        screen.go_to(1)
        await pilot.press("f2")
        await wait_for(pilot, lambda: said in screen_text(pilot.app))
        assert "argilla/dpo-mix-7k" in screen_text(pilot.app)


async def test_home_end_and_pages_go_by_rows(open_new, wait_for):
    async with open_new() as (pilot, screen):
        screen.go_to(DATA)
        await pilot.press("f2")
        hub_list = screen.query_one(DatasetTable)
        await wait_for(pilot, lambda: "HF_HUB_OFFLINE" in hub_list.note)
        hub_list.table.focus()
        last = len(hub_list.shown) - 1
        for key, row in (
            ("end", last),
            ("home", 0),
            ("pagedown", last),
            ("pageup", 0),
        ):  # all are in view
            await pilot.press(key)
            await wait_for(pilot, lambda row=row: hub_list.table.cursor_row == row, key)
        screen.go_to(0)
        models = screen.query_one(ModelTable)
        await pilot.press("end")
        await wait_for(pilot, lambda: models.cursor_row == len(models.shown) - 1)
        await pilot.press("home")
        await wait_for(pilot, lambda: models.cursor_row == 0)


async def test_an_id_can_be_typed_and_the_places_are_reached_by_mouse(open_new, wait_for):
    async with open_new((100, 30)) as (pilot, screen):
        screen.go_to(1)
        data = screen.query_one(DataStep)
        await wait_for(pilot, lambda: data.query_one("#data-offers").has_focus)
        await pilot.click("#data-place", offset=(20, 0))
        await wait_for(pilot, lambda: data.place == HUB)
        data.query_one("#data-text", Input).value = "org/typed"
        await pilot.press("enter")
        await wait_for(pilot, lambda: screen.draft.data == "org/typed")
        await pilot.click("#data-place", offset=(3, 0))
        await wait_for(pilot, lambda: data.query_one("#data-offers").has_focus)
        assert screen.draft.data == "org/typed"


@pytest.mark.parametrize(
    ("columns", "guessed"),
    [
        (["question_text", "good", "bad", "id"], ["question_text", "good", "bad"]),
        (["preferred", "dispreferred"], ["", "preferred", "dispreferred"]),
        # Where two fit, neither is guessed.
        (["prompt", "question", "chosen", "best", "loser"], ["", "", "loser"]),
    ],
)
async def test_columns_with_telling_names_are_filled_in(open_new, wait_for, columns, guessed):
    async with open_new() as (pilot, _):
        pilot.app.push_screen(MapColumnsScreen(columns, {}))
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, MapColumnsScreen))
        values = [field.value for field in pilot.app.screen.query(Input)]
        assert values == guessed


async def test_a_path_may_be_pasted_as_terminals_write_it(open_new, wait_for, tmp_path):
    file = tmp_path / "my pairs.jsonl"
    file.touch()
    async with open_new() as (pilot, screen):
        screen.go_to(1)
        await wait_for(pilot, lambda: screen.query_one("#data-offers").has_focus)
        pilot.app.post_message(Paste(f"\n'{file}'\n"))
        field = screen.query_one("#data-text", Input)
        await wait_for(pilot, lambda: field.has_focus and field.value == f"'{file}'")
        await pilot.press("enter")
        await wait_for(pilot, lambda: screen.draft.data == str(file))


async def test_an_answer_takes_no_focus_from_a_path_that_is_being_typed(open_data, wait_for):
    async with open_data("pairs.jsonl") as (pilot, screen):
        data = screen.query_one(DataStep)
        await wait_for(pilot, lambda: data.answer)
        field = data.query_one("#data-text", Input)
        field.focus()
        await pilot.press("/", "q")
        before = data.answer
        screen.change(screen.draft.with_value("data_split", "train"))
        await wait_for(pilot, lambda: data.answer and data.answer is not before)
        assert field.has_focus
        assert field.value == "/q"


async def test_coming_back_the_field_names_the_data_that_are_shown(open_data, wait_for):
    async with open_data("broken.jsonl") as (pilot, screen):
        field = screen.query_one("#data-text", Input)
        await wait_for(pilot, lambda: field.has_focus)
        await pilot.press("1")
        assert field.value == "1"
        screen.go_to(0)
        screen.go_to(DATA)
        await wait_for(pilot, lambda: field.value == "broken.jsonl")


async def test_a_draft_is_safe_with_each_step(open_new, wait_for):
    """A terminal that is closed gives no time to keep it."""
    async with open_new() as (pilot, screen):
        await pilot.press("enter")
        await wait_for(pilot, lambda: screen.step == 1)
        assert screen.keeper.file.exists()


async def test_what_was_said_in_chats_is_offered_as_data(open_new, wait_for, screen_text):
    pairs_file().parent.mkdir(parents=True)
    pairs_file().write_text("{}\n" * 12)
    labelled_file().write_text("{}\n")
    pairs_file(is_chat=False).touch()  # all was taken back
    async with open_new() as (pilot, screen):
        screen.change(Draft().with_values({"model": "org/m"}))
        screen.go_to(DATA)
        await wait_for(pilot, lambda: screen.query_one("#data-offers").has_focus)
        text = screen_text(pilot.app)
        assert "From your chats: 12 pairs" in text
        assert "From your chats: 1 answer you liked or disliked, for KTO" in text
        assert "plain text" not in text
        await pilot.press("down", "enter")
        await wait_for(pilot, lambda: screen.draft.data == str(pairs_file()))

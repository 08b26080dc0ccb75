"""Who computes a planned run: asked for, shown as a command, kept, started."""

from __future__ import annotations

import json
import shlex

import pytest
from textual.widgets import Button, Input, Static

from orpo_mlx.cli.commands.fit import parse_fit
from orpo_mlx.cli.commands.train import parse_train
from tui.new_run.draft import Draft, load_draft, save_draft
from tui.new_run.peers.dialog import PeersScreen
from tui.new_run.review_step import ReviewStep, review_text

PLANNED = Draft().with_values({"model": "org/model", "data": "org/pairs"})


def planned(**given) -> Draft:
    return Draft(PLANNED.own, **given)


def test_the_command_says_who_computes():
    command = parse_train(shlex.split(planned(processes=3).command())[2:])
    assert (command.processes, command.hosts) == (3, None)
    command = parse_train(shlex.split(planned(hostfile="my macs.json").command())[2:])
    assert (command.processes, command.hosts) == (1, "my macs.json")
    assert "--processes" not in PLANNED.command()


def test_the_estimate_is_asked_for_so_many_here():
    assert parse_fit(planned(processes=3).fit_words()).processes == 3
    assert parse_fit(planned(processes=3).fit_words("org/other")).processes == 3
    assert parse_fit(planned(hostfile="macs.json").fit_words()).processes == 1


def test_the_review_says_it():
    assert "Shared    no, one process here; p: more" in review_text(PLANNED, None, None)
    assert "by 2 processes here; each holds the model" in review_text(
        planned(processes=2), None, None
    )
    assert "by the machines of macs.json" in review_text(planned(hostfile="macs.json"), None, None)


@pytest.mark.parametrize("who", [{"processes": 2}, {"hostfile": "macs.json"}])
def test_a_sweep_is_not_shared(who):
    (problem,) = planned(sweeps={"lam": ["0.1", "0.5"]}, **who).problems()
    assert problem.names == ()
    assert problem.text.startswith("--sweep and --")
    assert planned(**who).problems() == []


def test_it_is_kept_with_the_draft(tmp_path):
    for draft in (planned(processes=4), planned(hostfile="/m.json"), PLANNED):
        save_draft(draft, tmp_path / "draft.json")
        assert load_draft(tmp_path / "draft.json") == draft
    for odd in ({"processes": -1, "hostfile": 7}, {"processes": "many"}, {"processes": True}):
        (tmp_path / "odd.json").write_text(json.dumps({"own": {"model": "m"}, **odd}))
        assert load_draft(tmp_path / "odd.json") == Draft({"model": "m"})


@pytest.fixture
def hostfile(tmp_path):
    hosts = [{"ssh": "127.0.0.1", "ips": ["10.0.0.1"]}, {"ssh": "b.local", "ips": ["10.0.0.2"]}]
    (tmp_path / "macs.json").write_text(json.dumps(hosts))
    return "macs.json"


def said(dialog: PeersScreen, what: str) -> str:
    return " ".join(str(dialog.query_one(f"#{what}", Static).content).split())


async def ask(pilot, wait_for, cores=4) -> PeersScreen:
    await pilot.press("p")
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, PeersScreen))
    dialog = pilot.app.screen
    dialog.cores = cores
    await wait_for(pilot, lambda: dialog.focused.id == "peers-count")
    return dialog


async def test_processes_are_asked_for_and_started(open_data, wait_for, monkeypatch, tmp_path):
    (tmp_path / "pairs.jsonl").write_text("{}\n")
    async with open_data("pairs.jsonl") as (pilot, screen):
        assert not screen.check_action("peers", ())
        screen.go_to(3)
        started = []
        monkeypatch.setattr(pilot.app, "start", lambda *given: started.append(given))
        dialog = await ask(pilot, wait_for)
        for text, need in (("0", "1 to 4"), ("5", "1 to 4"), ("x", "1 to 4")):
            dialog.query_one("#peers-count", Input).value = text
            await pilot.press("enter")
            await wait_for(pilot, lambda need=need: need in said(dialog, "dialog-problem"))
        dialog.query_one("#peers-count", Input).value = "2"
        await wait_for(pilot, lambda: said(dialog, "peers-command").endswith("--processes 2"))
        assert said(dialog, "dialog-problem") == ""
        await pilot.press("enter")
        review = screen.query_one(ReviewStep)
        await wait_for(pilot, lambda: "--processes 2" in review.text)
        # What the fake says of each process: a model of 1 GB, 10 kB of tokens, 20 MB to exchange.
        await wait_for(pilot, lambda: "about 2 x 1.02 GB of 8 GB" in review.text)
        assert "the busiest has 52 % of a step" in review.text
        await pilot.press("f4")
        await wait_for(pilot, lambda: "120 steps of 0.3 s" in review.text)
        assert "about 36 s" in review.text
        assert "if each of 2 is as fast as the one measured" in review.text
        await wait_for(pilot, lambda: not screen.planning.why_not())
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: started)
        assert started == [(screen.draft.config(), 2)]


@pytest.mark.parametrize("size", [(60, 16), (80, 24)])
async def test_of_several_macs_the_command_is_shown_and_copied_not_started(
    open_data, wait_for, monkeypatch, hostfile, size
):
    async with open_data("pairs.jsonl", size) as (pilot, screen):
        copied, started = [], []
        monkeypatch.setattr(pilot.app, "copy", copied.append)
        monkeypatch.setattr(pilot.app, "start", lambda *given: started.append(given))
        screen.go_to(3)
        dialog = await ask(pilot, wait_for)
        field = dialog.query_one("#peers-hostfile", Input)
        field.value = "none.json"
        await pilot.press("enter")
        await wait_for(pilot, lambda: "none.json: cannot be read" in said(dialog, "dialog-problem"))
        field.value = hostfile
        await wait_for(
            pilot, lambda: "2 machines: 127.0.0.1, b.local." in said(dialog, "peers-machines")
        )
        assert all(button.region.bottom <= size[1] - 1 for button in dialog.query(Button))
        dialog.query_one("#copy", Button).press()
        await wait_for(pilot, lambda: copied)
        await pilot.press("enter")
        await wait_for(pilot, lambda: pilot.app.screen is screen)
        await wait_for(pilot, lambda: not screen.planning.why_not())
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: len(copied) == 2)
        assert copied[0] == copied[1] == screen.draft.command()
        assert copied[0].endswith(f"--hosts {hostfile}")
        assert started == []


async def test_both_at_once_are_refused_and_escape_changes_nothing(open_data, wait_for, hostfile):
    async with open_data("pairs.jsonl") as (pilot, screen):
        screen.go_to(3)
        before = screen.draft
        dialog = await ask(pilot, wait_for)
        dialog.query_one("#peers-count", Input).value = "2"
        dialog.query_one("#peers-hostfile", Input).value = hostfile
        await pilot.press("enter")
        await wait_for(pilot, lambda: "give only one of both" in said(dialog, "dialog-problem"))
        await pilot.press("escape")
        await wait_for(pilot, lambda: pilot.app.screen is screen)
        assert screen.draft == before

"""The screen of a server, with a process behind it that answers nobody."""

from __future__ import annotations

import json
import socket
import urllib.request
from pathlib import Path

import pytest

from orpo_mlx.demo import model_path
from tui.parts.ask import AskScreen
from tui.serve.screen import ServeScreen
from tui.serve.session import free_port

FAKE = str(Path(__file__).parents[2] / "fakes" / "fake_serve.py")


@pytest.fixture
def served():
    """Return `use(app) -> its server`, which starts the stand-in from now on."""

    def use(app):
        app.server.words = [FAKE]
        return app.server

    return use


async def open_serve(pilot, wait_for, *keys):
    await pilot.press(*(keys or ("v",)))
    return await wait_for(
        pilot, lambda: isinstance(pilot.app.screen, ServeScreen) and pilot.app.screen
    )


async def test_it_opens_from_runs_and_shows_address_names_and_questions(
    open_app, make_run, wait_for, screen_text, served, monkeypatch
):
    make_run("run-a")
    copied = []
    async with open_app((100, 30)) as pilot:
        server = served(pilot.app)
        monkeypatch.setattr(pilot.app, "copy", copied.append)
        await wait_for(pilot, lambda: pilot.app.screen.selected)
        screen = await open_serve(pilot, wait_for)
        await wait_for(pilot, lambda: "3 questions" in screen_text(pilot.app))
        text = screen_text(pilot.app)
        for said in ("http://127.0.0.1:8080/v1", "run-a", "tiny (the base)", "curl ", "200", "404"):
            assert said in text
        assert "\\x1b[2Jodd" in text  # written out
        await pilot.press("y", "u", "c")
        assert copied == [server.state.curl, "http://127.0.0.1:8080/v1", server.command]
        assert "serve" in copied[2]
        assert screen.sentence().startswith("Serving run-a, tiny at http://")


async def test_it_goes_on_when_the_screen_is_left_and_ends_by_a_key(
    open_app, make_run, wait_for, screen_text, served
):
    make_run("run-a")
    async with open_app((100, 30)) as pilot:
        server = served(pilot.app)
        await wait_for(pilot, lambda: pilot.app.screen.selected)
        await open_serve(pilot, wait_for)
        await wait_for(pilot, lambda: server.state.requests == 3)
        first = server.state
        await pilot.press("escape")
        await wait_for(pilot, lambda: not isinstance(pilot.app.screen, ServeScreen))
        assert server.state.phase == "ready"
        await open_serve(pilot, wait_for)
        assert server.state is first  # not started again
        await wait_for(pilot, lambda: "3 questions" in screen_text(pilot.app))
        await pilot.press("s")
        await wait_for(pilot, lambda: "No server runs" in screen_text(pilot.app))
        assert "starts it" in screen_text(pilot.app)
        await pilot.press("s")
        await wait_for(pilot, lambda: server.state.requests == 3 and server.state is not first)


async def test_marked_runs_are_served_together_and_others_wait_for_the_end(
    open_app, make_run, wait_for, screen_text, served
):
    for name in ("run-a", "run-b", "run-c"):
        make_run(name)
    async with open_app((100, 30)) as pilot:
        server = served(pilot.app)
        runs = pilot.app.screen
        await wait_for(pilot, lambda: runs.selected)
        await pilot.press("space", "down", "space")
        marked = set(runs.marked)
        await open_serve(pilot, wait_for)
        await wait_for(pilot, lambda: server.state.phase == "ready")
        assert set(server.runs) == marked
        assert len(server.state.models) == 3
        await pilot.press("escape", "space", "up", "space", "down", "down")
        other = runs.selected.path
        assert other not in marked
        await open_serve(pilot, wait_for)
        said = f"pressed again serves {other.name}"
        await wait_for(pilot, lambda: said in screen_text(pilot.app))
        await pilot.press("s", "s")
        await wait_for(pilot, lambda: server.runs == (other,) and server.state.phase == "ready")


async def test_what_goes_wrong_is_shown_with_what_to_do(
    open_app, make_run, wait_for, screen_text, served
):
    make_run("run-bad")
    async with open_app((60, 16)) as pilot:
        served(pilot.app)
        await wait_for(pilot, lambda: pilot.app.screen.selected)
        await open_serve(pilot, wait_for)
        await wait_for(pilot, lambda: "ended before it saved" in screen_text(pilot.app))
        assert "Go on." in screen_text(pilot.app)


async def test_leaving_the_app_asks_about_a_server(open_app, make_run, wait_for, served):
    make_run("run-a")
    async with open_app((80, 24)) as pilot:
        server = served(pilot.app)
        await wait_for(pilot, lambda: pilot.app.screen.selected)
        await open_serve(pilot, wait_for)
        await wait_for(pilot, lambda: server.state.phase == "ready")
        await pilot.press("q")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AskScreen))
        await pilot.press("escape")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, ServeScreen))
        assert server.state.phase == "ready"


async def test_the_real_server_answers_while_the_app_shows_it(open_app, make_run, wait_for):
    make_run("run-a")
    async with open_app((100, 30)) as pilot:
        server = pilot.app.server
        server.words = ["-m", "orpo_mlx", "serve", "--model", str(model_path())]
        server.start([])
        await wait_for(pilot, lambda: server.state.phase == "ready", seconds=60)

        def ask() -> dict:
            body = {"model": "demo", "prompt": "The sea", "max_tokens": 3}
            request = urllib.request.Request(
                f"{server.state.url}/completions", json.dumps(body).encode()
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)

        worker = pilot.app.run_worker(ask, thread=True)
        await wait_for(pilot, lambda: worker.is_finished)
        assert worker.result["model"] == "demo"
        await wait_for(pilot, lambda: server.state.requests == 1)
        server.stop()
        port = int(server.state.url.split(":")[2].split("/")[0])
        await wait_for(pilot, lambda: _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_port_in_use_is_passed_over():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port(port) != port
        assert free_port(port, 1) == 0

"""What the app's tests share: an app on an own folder, simulated runs, the screen as text."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot

from orpo_mlx import demo
from orpo_mlx.demo.simulate import Script, simulate
from orpo_mlx.errors import ModelError
from orpo_mlx.runs import events
from orpo_mlx.runs.directory import RunDirectory
from tui.app import OrpoApp
from tui.new_run.models.catalogue import ModelRow, models_below
from tui.processes.answers import Answers
from tui.run.state import RunState

NOW = 1_700_000_000.0
DEADLINE_SECONDS = 20.0


@pytest.fixture(autouse=True)
def calm_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No blinking, no animation, one time zone, no colours of the machine's own."""
    monkeypatch.setenv("TEXTUAL_ANIMATIONS", "none")
    for name in ("NO_COLOR", "SSH_TTY", "SSH_CONNECTION", "COLORFGBG", "TERM_PROGRAM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    """The folder of all runs, empty."""
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def make_run(runs_dir: Path) -> Callable[..., RunDirectory]:
    """Return `make(name="run-a", **script) -> RunDirectory`: a simulated run played to its end."""

    def make(name: str = "run-a", **script: Any) -> RunDirectory:
        given = {"steps": 40, "speed": 0.0, **script}
        return simulate(Script(**given), run_dir=str(runs_dir / name))[0]

    return make


LOST = "process 1 (mac) is lost: it has ended"
WORDS = "12:00:01 loading the model\nlibc++abi: terminating due to uncaught exception"


@pytest.fixture
def share() -> Callable[..., RunDirectory]:
    """Return `share(run, *hosts, lost_at=0)`: make a run one of several processes.

    Three of five tokens are the first one's. With `lost_at` the second was lost at that step.
    """

    def make(run: RunDirectory, *hosts: str, lost_at: int = 0) -> RunDirectory:
        tokens = [300, *[200] * (len(hosts) - 1)][: len(hosts)]
        lines = []
        for record in events.read_events(run.events_file):
            raw = dict(record.raw)
            if record.name == "RunStarted":
                raw |= {"hosts": hosts}
            if record.name == "StepCompleted":
                part = {"wait_seconds": 0.1, "exchange_seconds": 0.02, "step_seconds": 0.5}
                raw |= {"peer_tokens": tokens, **part}
            if lost_at and raw.get("step", 0) > lost_at:
                break
            lines.append(json.dumps(raw) + "\n")
        if lost_at:
            end = events.RunFailed("PeerLostError", LOST, "So.", lost_at, "/c", "peer", 1, WORDS)
            lines.append(events.encode(end, record.time))
        run.events_file.write_text("".join(lines))
        return run

    return make


OpenApp = Callable[..., AbstractAsyncContextManager["Pilot[None]"]]


@pytest.fixture
def open_app(runs_dir: Path) -> OpenApp:
    """Return `open(size=(80, 24), **app)`, an async context that gives a pilot.

    On leaving it waits for the app's workers, so that no task outlives its test.
    """

    @asynccontextmanager
    async def open(size: tuple[int, int] = (80, 24), **given: Any) -> AsyncIterator[Pilot[None]]:
        given = {"charset": "braille", "theme": "orpo-dark", "clock": lambda: NOW, **given}
        app = OrpoApp(runs_dir, **given)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            yield pilot
            # Children of workers are ended by them, which takes a moment.
            workers = list(app.workers)
            app.workers.cancel_all()
            await asyncio.gather(*(w.wait() for w in workers), return_exceptions=True)

    return open


@pytest.fixture
def wait_for() -> Callable[..., Any]:
    """Return `await wait_for(pilot, condition)`: until it holds, or the test fails."""

    async def wait(
        pilot: Pilot[Any],
        condition: Callable[[], Any],
        what: str = "",
        seconds: float = DEADLINE_SECONDS,
    ) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            await pilot.pause()
            # A widget asked for before it is there is a reason to wait, too.
            with contextlib.suppress(LookupError):
                if found := condition():
                    return found
            if time.monotonic() > deadline:
                pytest.fail(f"never: {what or condition}\n{text_of(pilot.app)}")
            await asyncio.sleep(0.01)

    return wait


def text_of(app: App[Any]) -> str:
    """The screen as text, lines without trailing blanks."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)


@pytest.fixture
def screen_text() -> Callable[[App[Any]], str]:
    """Return `screen_text(app) -> str`."""
    return text_of


METRICS = {
    "loss": 1.0, "nll_loss": 0.9, "odds_ratio_loss": 0.5, "log_odds_ratio": 0.2,
    "chosen_logps": -1.0, "rejected_logps": -1.5, "preference_accuracy": 0.5, "logps_margin": 0.5,
}  # fmt: skip


def _measured(values: dict[str, Any]) -> dict[str, Any]:
    """Put what is a metric into the event's `metrics`."""
    metrics = {name: values.get(name, usual) for name, usual in METRICS.items()}
    return {k: v for k, v in values.items() if k not in METRICS} | {"metrics": metrics}


@pytest.fixture
def make_state() -> Callable[..., RunState]:
    """Return `make(*events, start=..., **config) -> RunState`: the state after these events.

    A `RunStarted` of 100 steps comes first; events come a second apart. An event may also be a
    dictionary: it is a step with these values, every other metric being an ordinary number.
    `make.records(...)` returns them as they come from a file.
    """

    def records(
        *given: events.Event | dict[str, Any],
        total: int = 100,
        cadence: dict[str, int] | None = None,
        hosts: Sequence[str] = (),
        **config: Any,
    ) -> list[events.Record]:
        started = events.RunStarted(
            run_id="r", model="m", data="d", total_steps=total, pairs_train=80, pairs_valid=8,
            trainable_parameters=1, total_parameters=10, config={"lam": 0.1, **config}, versions={},
            objective="orpo", metrics=list(METRICS), cadence=cadence or {},
            hosts=[*hosts], run_path="/r/r",
        )  # fmt: skip
        found = []
        for second, event in enumerate([started, *given]):
            if isinstance(event, dict):
                event = events.StepCompleted(**{"step_seconds": 2.0, **_measured(event)})
            found.append(events.Record(event, type(event).__name__, NOW + second, {}))
        return found

    def make(*given: events.Event | dict[str, Any], **how: Any) -> RunState:
        state = RunState()
        for record in records(*given, **how):
            state.apply(record)
        return state

    make.records = records  # type: ignore[attr-defined]
    return make


@pytest.fixture
def make_eval() -> Callable[..., events.EvalCompleted]:
    """Return `make(step, **values) -> EvalCompleted`."""

    def make(step: int, **values: Any) -> events.EvalCompleted:
        given = {"pairs": 8, "seconds": 3.0, **_measured(values)}
        return events.EvalCompleted(**given, step=step)

    return make


# Planning a run

FAKE = str(Path(__file__).parents[1] / "fakes" / "fake_planning.py")
ROWS = [
    ModelRow(str(demo.model_path()), "built-in demo model", "4 bit", 1, "llama", "built-in",
             folder=str(demo.model_path())),
    ModelRow("org/huge", "org/huge", "bf16", 9_000_000_000, "llama", "cache", folder="/none"),
]  # fmt: skip


@pytest.fixture
def made_up(monkeypatch, tmp_path):
    """Answers of the fake, at once; two models here, one on the Hub."""

    def answers(program):
        return Answers([FAKE, "fit" if "fit" in program else "check"], delay_seconds=0)

    def search(text):
        if text == "nothing":
            raise ModelError("The Hub does not answer.", "Use what is here.")
        return [ModelRow("mlx-community/found", "mlx-community/found", "4 bit", 5, place="hub")]

    monkeypatch.setattr("tui.new_run.fit_card.Answers", answers)
    monkeypatch.setattr("tui.new_run.data.step.Answers", answers)
    monkeypatch.setattr(
        "tui.new_run.models.step.local_models",
        lambda folders: [*ROWS, *(row for folder in folders for row in models_below(folder))],
    )
    monkeypatch.setattr("tui.new_run.models.step.search_hub", search)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def trainer(runs_dir: Path) -> Iterator[RunDirectory]:
    """A run that is being trained, by a process that plays it."""
    path = runs_dir / "run-a"
    words = ["simulate", "--speed", "10", "--steps", "5000", "--run-dir", str(path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "orpo_mlx", *words], start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    run = RunDirectory(path)
    while not run.is_locked():
        assert process.poll() is None
        time.sleep(0.05)
    yield run
    process.kill()
    process.wait()

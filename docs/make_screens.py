"""Make docs/screens, pictures of the app from a real run: `python docs/make_screens.py`.

Each screen is taken in the dark and in the light theme. Everything runs from a copy in a folder of
its own, so that no picture shows where a checkout lies. It takes some minutes: four trainings of
the built-in model, a test and two exports. With `--size 80x24 --out FOLDER` it makes them at
another size, to be looked at.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCREENS = ROOT / "docs" / "screens"
STAGE = Path(tempfile.gettempdir()) / "orpo-mlx-demo"
PATIENCE_SECONDS = 600.0
FRAME_SECONDS = 1.5


@dataclass(frozen=True)
class Given:
    """What the command line says."""

    size: tuple[int, int]
    out: Path


def given() -> Given:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="100x30", metavar="COLUMNSxROWS")
    parser.add_argument("--out", type=Path, default=SCREENS)
    parser.add_argument("--play", action="store_true", help=argparse.SUPPRESS)
    words = parser.parse_args()
    columns, rows = words.size.split("x")
    return Given((int(columns), int(rows)), words.out.absolute())


def main() -> None:
    """Prepare the copy, and play in it."""
    if "--play" in sys.argv:
        asyncio.run(play())
        return
    given().out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(STAGE, ignore_errors=True)
    for name in ("orpo_mlx", "tui"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, STAGE / "app" / name, ignore=ignored)
    home = {"HOME": STAGE, "ORPO_MLX_HOME": STAGE / "home", "HF_HOME": STAGE / "cache"}
    env = {**os.environ, **{name: str(path) for name, path in home.items()}}
    env |= {"PYTHONPATH": str(STAGE / "app"), "HF_HUB_OFFLINE": "1", "TEXTUAL_ANIMATIONS": "none"}
    # Commands that are on the PATH are shown by their names alone.
    env["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    command = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:], "--play"]
    try:
        subprocess.run(command, cwd=STAGE / "app", env=env, check=True)
    finally:
        shutil.rmtree(STAGE, ignore_errors=True)


async def play() -> None:
    """Go through the app as a user would, and take a picture of every screen."""
    from tui.app import OrpoApp

    train("demo-lambda-0.1", "--lam", "0.1")
    await welcome()
    app: Any = OrpoApp(theme="orpo-dark", charset="braille", is_calm=True)
    async with app.run_test(size=given().size) as pilot:
        stage = Stage(app, pilot)
        await stage.until(lambda: bool(app.screen.runs))
        await stage.live()
        await stage.test()
        await stage.chat()
        await stage.export()
        await stage.press("escape", "escape")
        await stage.until(lambda: len(app.screen.table.runs) == 2)
        await stage.wait(2.5)
        await stage.take("runs")
        await stage.compare()
        await stage.serve()
        await stage.judge()
        await stage.press("f8")
        await stage.until(lambda: "warning" in app.screen.status or "well" in app.screen.status)
        # The kernel's version says nothing to a reader.
        for fact in app.screen.facts:
            if fact["name"] == "system":
                fact["text"] = fact["text"].split()[0]
        app.screen._show()
        await stage.wait(0.5)
        await stage.take("doctor")
        await stage.press("escape")
        await stage.new_run()
        await stage.asides()


async def welcome() -> None:
    """Take a picture of the first start: no run yet."""
    from tui.app import OrpoApp

    app: Any = OrpoApp(STAGE / "none", theme="orpo-dark", charset="braille", is_calm=True)
    async with app.run_test(size=given().size) as pilot:
        stage = Stage(app, pilot)
        await stage.until(lambda: "Try the demo" in stage.text())
        await stage.take("welcome")


def train(name: str, *words: str) -> None:
    """Train the demo."""
    folder = str(STAGE / "home" / "runs" / name)
    command = [sys.executable, "-m", "orpo_mlx", "train", "--demo", "--quiet", "--run-dir", folder]
    subprocess.run([*command, *words], check=True)


class Stage:
    """The app with what is done in it to get its pictures."""

    def __init__(self, app: Any, pilot: Any) -> None:
        self.app, self.pilot = app, pilot

    async def press(self, *keys: str) -> None:
        for key in keys:
            await self.pilot.press(key)
            await self.pilot.pause(0.2)

    async def wait(self, seconds: float) -> None:
        await self.pilot.pause(seconds)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a state; end with an error if it does not come."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            await self.pilot.pause(0.1)
            try:
                if condition():
                    return
            except (AttributeError, LookupError):
                pass  # the screen that has it is not there yet
            if time.monotonic() > deadline:
                raise TimeoutError(f"never came:\n{self.text()}")

    def text(self) -> str:
        strips = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip) for strip in strips)

    def picture(self) -> str:
        """Return the screen as SVG that fetches nothing."""
        self.app.clear_notifications()
        svg = self.app.export_screenshot(title="orpo-mlx")
        return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S)

    async def take(self, name: str) -> None:
        self.save(name)
        self.app.theme = "orpo-light"
        await self.wait(0.5)
        self.save(f"{name}-light")
        self.app.theme = "orpo-dark"
        await self.wait(0.5)

    def save(self, name: str) -> None:
        if str(ROOT) in self.text():
            raise ValueError(f"{name}: it shows where the checkout lies, {ROOT}")
        (given().out / f"{name}.svg").write_text(self.picture(), encoding="utf-8")
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()

    async def live(self) -> None:
        await self.press("m")
        await self.until(lambda: "Starting" in self.text() and "Loading" not in self.text())
        await self.take("starting")
        await self.until(lambda: self.app.screen.AREA == "live" and self.app.screen.caught_up)
        frames = []
        for step in (4, 12, 19):
            await self.until(lambda step=step: self.app.screen.state.step >= step)
            await self.wait(0.5)
            frames.append(self.picture())
            if step == 19:
                await self.take("live")
        await self.until(lambda: self.app.screen.AREA == "result" and "interval" in self.text())
        await self.wait(1.0)
        await self.take("result")
        await self.press("escape")
        await self.until(lambda: self.app.screen.status == "completed")
        await self.wait(1.0)
        await self.take("live-complete")
        frames.append(self.picture())
        (given().out / "live-animated.svg").write_text(animated(frames), encoding="utf-8")

    async def test(self) -> None:
        await self.press("t")
        state = self.app.screen.state
        await self.until(lambda: state.ready and not state.is_busy)
        await self.press("ctrl+n")
        await self.until(lambda: bool(state.pairs) and not state.is_busy)
        await self.press("ctrl+n", "enter")
        await self.until(lambda: len(state.done) == 2)
        await self.press("ctrl+r")
        await self.until(lambda: len(state.scores) == 2)
        await self.wait(0.5)
        await self.take("test")
        await self.press("escape")

    async def chat(self) -> None:
        await self.press("C")
        session = self.app.screen.session
        await self.until(lambda: session.ready)
        for text in ("What does a cow say?", "And a duck?"):
            self.app.screen.query_one("#line").value = text
            await self.press("enter")
            await self.until(lambda: session.talk.last is not None and not session.is_busy)
        await self.press("ctrl+r")
        await self.press("f7", "f7", "f7")  # what is said of the opinion names a folder
        await self.take("chat")
        await self.press("escape")

    async def compare(self) -> None:
        """Two runs in one chart, then the table of a sweep."""
        await self.press("c")
        await self.until(lambda: "25" in self.text())
        await self.wait(2.0)
        await self.take("compare")
        await self.press("escape")
        for lam in ("0.05", "0.2", "0.4"):
            await asyncio.to_thread(train, f"demo-lambda-{lam}", "--lam", lam)
        await self.until(lambda: len(self.app.screen.table.runs) == 5)
        await self.press("home", *["space", "down"] * 5, "c")
        await self.until(lambda: len(self.app.screen.rows) == 5 and self.app.screen.selected)
        await self.wait(1.0)
        await self.take("group")
        await self.press("escape")
        await self.press("home", *["space", "down"] * 5)

    async def judge(self) -> None:
        await self.press("j")
        await self.until(lambda: self.app.screen.state.duel is not None)
        await self.wait(0.5)
        await self.take("judge")
        await self.press("escape")

    async def serve(self) -> None:
        await self.press("v")
        await self.until(lambda: "/v1" in self.text())
        await self.wait(0.5)
        await self.take("serve")
        await self.press("s", "escape")

    async def export(self) -> None:
        await self.press("e")
        await self.until(lambda: self.app.screen.AREA == "export" and bool(self.app.screen.chosen))
        await self.press("down", "space", "ctrl+r")
        writer = self.app.screen.writer
        await self.until(lambda: [job.state for job in writer.jobs] == ["written"] * 2)
        await self.wait(0.5)
        await self.take("export")

    async def new_run(self) -> None:
        await self.press("n")
        await self.until(lambda: "fits" in self.text())
        await self.take("new-run-1-model")
        await self.press("enter", "f2")
        await self.until(lambda: "not searched" in self.text())
        await self.press("down", "down")
        await self.take("new-run-2-hub")
        await self.press("f2", "enter")
        await self.until(lambda: self.app.screen.query_one("#data").answer is not None)
        await self.press("v")
        await self.wait(3.0)
        await self.take("new-run-2-data")
        await self.press("ctrl+n")
        await self.wait(2.0)
        await self.take("new-run-3-settings")
        await self.press("ctrl+n", "f4")
        await self.until(lambda: "measured peak" in self.text())
        await self.take("new-run-4-review")

    async def asides(self) -> None:
        """Help, the palette and the app's own settings, over the step that is shown."""
        for key, name in (("f1", "help"), ("ctrl+p", "palette"), ("comma", "settings")):
            await self.press(key)
            await self.wait(1.0)
            await self.take(name)
            await self.press("escape")
        # An open palette keeps the colours it was opened with.
        self.app.theme = "orpo-light"
        await self.press("ctrl+p")
        await self.wait(1.0)
        self.save("palette-light")
        await self.press("escape")


def animated(frames: list[str]) -> str:
    """Return SVG pictures of one size as one that shows them in turn, for ever.

    Readers who asked for less motion see the last one.
    """
    opening = re.match(r"<svg[^>]*>", frames[0])
    assert opening
    seconds, share = len(frames) * FRAME_SECONDS, 100 / len(frames)
    style = (
        f"@keyframes turn {{ 0%, {share:.2f}% {{ visibility: visible }} "
        f"{share + 0.01:.2f}%, 100% {{ visibility: hidden }} }} "
        f".frame {{ visibility: hidden; animation: turn {seconds:g}s step-end infinite }} "
        "@media (prefers-reduced-motion: reduce) { .frame { animation: none } "
        ".frame:last-of-type { visibility: visible } }"
    )
    parts = [opening.group(), f"<style>{style}</style>"]
    for index, frame in enumerate(frames):
        inner = frame[frame.index(">") + 1 : frame.rindex("</svg>")]
        delay = f"animation-delay: {index * FRAME_SECONDS:g}s"
        parts.append(f'<g class="frame" style="{delay}">{inner}</g>')
    return "\n".join([*parts, "</svg>"])


if __name__ == "__main__":
    main()

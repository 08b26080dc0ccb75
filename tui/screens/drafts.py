"""Keeping a planned run, offering it again, forgetting it."""

from __future__ import annotations

from pathlib import Path

from textual.app import App
from textual.screen import Screen

from tui.draft import Draft, load_draft, save_draft
from tui.screens.ask import Answer, AskScreen


def keep_draft(screen: Screen[None], draft: Draft, file: Path) -> bool:
    """Write a draft; where that fails it is said, and False is returned."""
    try:
        save_draft(draft, file)
    except OSError as error:
        text = f"{file}: cannot be written ({error.strerror})"
        screen.notify(text, severity="warning", markup=False)
        return False
    return True


async def offer_draft(app: App[None], file: Path) -> Draft | None:
    """Ask whether to go on with a kept draft; None if there is none or it is not wanted."""
    kept = load_draft(file)
    if kept is None:
        return None
    what = f"Model {kept.model or 'not chosen'}, data {kept.data or 'not chosen'}."
    answers = [Answer("on", "Go on"), Answer("afresh", "Begin afresh")]
    question = AskScreen("Go on where you left?", what, answers)
    return kept if await app.push_screen_wait(question) == "on" else None


async def forget_draft(app: App[None], file: Path) -> bool:
    """Forget what was chosen, after asking; False if it is to be kept."""
    question = AskScreen(
        "Begin afresh?",
        "Model, data and settings chosen here are forgotten.",
        [Answer("keep", "Keep them"), Answer("forget", "Forget them", is_dangerous=True)],
    )
    if await app.push_screen_wait(question) != "forget":
        return False
    file.unlink(missing_ok=True)
    return True

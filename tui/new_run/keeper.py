"""A planned run between visits: kept, offered again, forgotten once its training has begun."""

from __future__ import annotations

from pathlib import Path

from orpo_mlx.runs.listing import iter_runs
from tui.new_run.draft import Draft, load_draft, save_draft
from tui.parts.ask import AskChoice, AskScreen
from tui.parts.base_screen import AppScreen
from tui.shell.names import place_text


class DraftKeeper:
    """Keeps the draft of a screen in a file.

    Args:
        screen: which plans the run; questions and complaints are shown there.
        file: where the draft is kept.
    """

    def __init__(self, screen: AppScreen, file: Path) -> None:
        self._screen = screen
        self.file = file
        self._runs_before: set[Path] | None = None

    def keep(self, draft: Draft) -> bool:
        """Write a draft; where that fails it is said, and False is returned."""
        try:
            save_draft(draft, self.file)
        except OSError as error:
            text = f"{self.file}: cannot be written ({error.strerror})"
            self._screen.notify(text, severity="warning", markup=False)
            return False
        return True

    def drop(self) -> None:
        """Forget the draft."""
        self.file.unlink(missing_ok=True)

    async def offer(self) -> Draft | None:
        """Ask whether to go on with a kept draft; None if there is none or it is not wanted."""
        kept = load_draft(self.file)
        if kept is None:
            return None
        model, data = (place_text(name) or "not chosen" for name in (kept.model, kept.data))
        answers = [AskChoice("on", "Go on"), AskChoice("afresh", "Begin afresh")]
        question = AskScreen("Go on where you left?", f"Model {model}, data {data}.", answers)
        return kept if await self._ask(question) == "on" else None

    async def forget(self) -> bool:
        """Forget what was chosen, after asking; False if it is to be kept."""
        question = AskScreen(
            "Begin afresh?",
            "Model, data and settings chosen here are forgotten.",
            [AskChoice("keep", "Keep them"), AskChoice("forget", "Forget them", is_dangerous=True)],
        )
        if await self._ask(question) != "forget":
            return False
        self.drop()
        return True

    async def _ask(self, question: AskScreen) -> str | None:
        return await self._screen.app.push_screen_wait(question)

    # A training that is started from it

    def expect_run(self) -> None:
        """Note which runs there are: one more means that the training has begun."""
        self._runs_before = self._runs()

    def expect_none(self) -> None:
        """Wait for no run any more."""
        self._runs_before = None

    @property
    def is_expecting(self) -> bool:
        """Whether a training was started."""
        return self._runs_before is not None

    @property
    def has_begun(self) -> bool:
        """Whether the training that was started has a run."""
        return self._runs_before is not None and bool(self._runs() - self._runs_before)

    def _runs(self) -> set[Path]:
        return {run.path for run in iter_runs(self._screen.orpo.runs_dir)}

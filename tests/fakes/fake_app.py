"""The app with a chat open, whose model is `fake_chat.py`.

python tests/fakes/fake_app.py RUNS_DIR RUN
"""

from __future__ import annotations

import sys
from pathlib import Path

from tui.app import OrpoApp
from tui.chat.screen import ChatScreen

FAKE_CHAT = str(Path(__file__).with_name("fake_chat.py"))


class FakeApp(OrpoApp):
    """Opens the chat of a run at once."""

    CSS_PATH = Path(__file__).parents[2] / "tui/app.tcss"

    def on_mount(self) -> None:
        screen = ChatScreen(Path(sys.argv[2]))
        screen.words = [FAKE_CHAT]
        self.call_later(self.push_screen, screen)


FakeApp(Path(sys.argv[1]), is_calm=True).run()

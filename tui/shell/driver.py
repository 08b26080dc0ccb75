"""The terminal as Textual drives it, and the end of the app when that terminal is gone.

A closed window is told in three ways, of which any may be missing: SIGHUP, which only the shell may
get; the end of the input; an error on writing. Textual's own driver reads an ended input again and
again without a pause, and blocks the app once its writer has failed.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from codecs import getincrementaldecoder
from collections.abc import Callable
from typing import IO, Any

from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver

PATIENCE_SECONDS = 10.0
"""How long the app may close its screens and children; children die with it in any case."""

_TICK_SECONDS = 0.1
_READ_BYTES = 1 << 12


class TerminalDriver(LinuxDriver):
    """Ends the app, as leaving it does, when its terminal is gone, or at a SIGTERM."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._is_ending = False
        self._file = _Output(sys.__stderr__, self.end_app)  # type: ignore[assignment]
        for name in (signal.SIGHUP, signal.SIGTERM):
            signal.signal(name, lambda *_: self.end_app())

    def end_app(self) -> None:
        """End the app without a question; what it could ask about lives on or is kept."""
        if self._is_ending:
            return
        self._is_ending = True
        insist = threading.Timer(PATIENCE_SECONDS, os._exit, (1,))
        insist.daemon = True
        insist.start()
        with contextlib.suppress(RuntimeError):  # the loop has ended: so has the app
            self._loop.call_soon_threadsafe(self._app.exit)

    def run_input_thread(self) -> None:
        """Read keys until the app stops reading, or there is nothing more to come."""
        parser = XTermParser(self._debug)
        # Not UTF-8 is what some terminals send for a mouse beyond column 223.
        decode = getincrementaldecoder("utf-8")("replace").decode
        while not self.exit_event.is_set():
            if select.select([self.fileno], [], [], _TICK_SECONDS)[0]:
                read = self._read()
                if not read:
                    self.end_app()
                    return
                if text := decode(read):  # else it was half a character
                    for event in parser.feed(text):
                        self.process_message(event)
            for event in parser.tick():
                self.process_message(event)

    def _read(self) -> bytes:
        try:
            return os.read(self.fileno, _READ_BYTES)
        except OSError:  # EIO: hung up
            return b""


class _Output:
    """A file that is written to until that fails once.

    Args:
        file: the terminal.
        on_failure: called when nothing can be written any more.
    """

    def __init__(self, file: IO[str] | None, on_failure: Callable[[], None]) -> None:
        self._file = file
        self._on_failure = on_failure

    def write(self, text: str) -> None:
        self._try(lambda file: file.write(text))

    def flush(self) -> None:
        self._try(lambda file: file.flush())

    def _try(self, what: Callable[[IO[str]], object]) -> None:
        if self._file is None:
            return
        try:
            what(self._file)
        except OSError:
            self._file = None
            self._on_failure()

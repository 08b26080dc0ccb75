"""Writing to the terminal: text, errors; streams that survive its end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from orpo_mlx.errors import OrpoError
from orpo_mlx.runs.event_text import WIDTH
from orpo_mlx.text.formatting import visible, written_out

if TYPE_CHECKING:
    from rich.console import Console


def make_console() -> Console:
    """Return a console on stdout that survives the terminal's end and odd encodings."""
    from rich.console import Console
    from rich.segment import Segment

    class SteadyConsole(Console):
        def render(self, renderable: Any, options: Any = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                if not segment.control:
                    segment = Segment(written_out(segment.text), segment.style)
                yield segment

        def on_broken_pipe(self) -> None:
            # Rich would end the process here, and with it the training.
            raise BrokenPipeError

    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    return SteadyConsole(highlight=False, markup=False, emoji=False)


def write_or_mute(text: str) -> None:
    try:
        print_text(text)
    except OSError:
        silence()


def is_terminal(stream: Any) -> bool:
    """Tell whether a person reads a stream; None is no stream."""
    return stream is not None and stream.isatty()


def terminal_width() -> int:
    """Return the columns of the terminal, 80 if there is none."""
    import shutil

    return shutil.get_terminal_size((WIDTH, 24)).columns


def print_error(error: OrpoError, details: str = "") -> None:
    """Write an error to stderr, with its traceback if `details` holds one."""
    write_error(details + format_error(error))


def print_internal_error(error: Exception, details: str = "") -> None:
    """Write an error nobody foresaw to stderr."""
    words = visible(f"{type(error).__name__}: {error}".split("\n")[0])
    advice = "" if details else "Run it again with --debug to see where; please report it.\n"
    write_error(f"{details}error: internal error ({words})\n{advice}")


def print_error_text(text: str) -> None:
    """Write one line to stderr."""
    write_error(visible(text) + "\n")


def write_error(text: str) -> None:
    """Write to stderr what may hold words of others."""
    write_controls(written_out(text))


def write_controls(text: str) -> None:
    """Write to stderr as it is: only what moves the cursor, and words that are harmless."""
    try:
        sys.stderr.write(text.encode("utf-8", "replace").decode("utf-8"))
        sys.stderr.flush()
    except OSError:
        return  # nobody is there to read it


def print_text(text: str) -> int:
    """Write text, which may hold words of others, to stdout; return the exit code 0."""
    return print_controls(written_out(text))


def print_controls(text: str) -> int:
    """Write text to stdout as it is: only what clears the screen, and words that are harmless."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()
    return 0


def open_missing_streams() -> None:
    """Give a process that was started without stdout or stderr (`>&-`) somewhere to write.

    The first file opened later would otherwise get the number of stdout, and what native code
    prints would land in it.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def flush() -> None:
    """Write what is still buffered, so that a broken pipe shows here and not at exit."""
    sys.stdout.flush()


def silence() -> None:
    """Point stdout at nothing after its reader went away: else Python complains at exit."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):
        return  # stdout is no file (captured in a test)


def format_error(error: OrpoError) -> str:
    """Return an error for stderr: what is wrong first, what to do last."""
    return visible(f"error: {error.report}\n{error.what_to_do}").rstrip() + "\n"

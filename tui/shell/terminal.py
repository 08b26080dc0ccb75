"""What the terminal can show: its background and its characters."""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Mapping

from tui.shell.charset import CharsetName


def choose_charset(environment: Mapping[str, str], encoding: str | None) -> CharsetName:
    """Return the finest charset that looks right in this terminal.

    macOS draws braille in Terminal.app with gaps between cells, a console has no glyphs for it.
    """
    if "utf" not in (encoding or "").lower():
        return "ascii"
    if environment.get("TERM") in ("linux", "dumb", "vt100"):
        return "ascii"
    return "blocks" if environment.get("TERM_PROGRAM") == "Apple_Terminal" else "braille"


def choose_theme(environment: Mapping[str, str], background: str | None) -> str:
    """Return the theme for a background such as "rgb:1212/1212/1212"; dark if nothing is known."""
    is_light = _is_light(background)
    if is_light is None:
        last = environment.get("COLORFGBG", "").rpartition(";")[2]
        is_light = last.isdigit() and int(last) in (7, *range(9, 16))
    return "orpo-light" if is_light else "orpo-dark"


def _is_light(background: str | None) -> bool | None:
    found = re.search(r"rgb:([0-9a-f]+)/([0-9a-f]+)/([0-9a-f]+)", background or "", re.IGNORECASE)
    if not found:
        return None
    red, green, blue = (int(part, 16) / (16 ** len(part) - 1) for part in found.groups())
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.5


def ask_background(patience_seconds: float = 0.1) -> str | None:
    """Ask the terminal for its background (OSC 11); None if it does not answer in time."""
    import termios
    import tty

    try:
        descriptor = sys.stdin.fileno()
        kept = termios.tcgetattr(descriptor)
    except (termios.error, OSError, ValueError):
        return None
    answer = b""
    try:
        tty.setcbreak(descriptor)
        os.write(sys.stdout.fileno(), b"\x1b]11;?\x1b\\")
        deadline = time.monotonic() + patience_seconds
        while (left := deadline - time.monotonic()) > 0 and len(answer) < 64:
            if select.select([descriptor], [], [], left)[0]:
                answer += os.read(descriptor, 64)
                if answer.endswith((b"\x07", b"\x1b\\")):
                    break
    except OSError:
        return None
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSANOW, kept)
    return answer.decode("ascii", errors="replace") or None


def is_remote(environment: Mapping[str, str]) -> bool:
    """Tell whether the terminal is at the other end of a network."""
    return bool(environment.get("SSH_TTY") or environment.get("SSH_CONNECTION"))


def desktop_note(environment: Mapping[str, str], text: str) -> str:
    """Return what makes the terminal show a note outside its window (OSC 9), "" where it cannot.

    Within tmux it would not get through.
    """
    known = environment.get("TERM_PROGRAM", "") in ("iTerm.app", "WezTerm", "ghostty")
    known = known or environment.get("TERM", "") in ("xterm-kitty", "xterm-ghostty")
    if not known or environment.get("TMUX"):
        return ""
    return f"\x1b]9;{''.join(c if c.isprintable() else ' ' for c in text)}\x07"


def copy_locally(text: str) -> bool:
    """Copy by macOS' own tool, since Terminal.app ignores OSC 52; False where there is none."""
    if sys.platform != "darwin" or is_remote(os.environ):
        return False
    try:
        subprocess.run(["pbcopy"], input=text.encode(), check=True, timeout=2)
    except (OSError, subprocess.SubprocessError):
        return False
    return True

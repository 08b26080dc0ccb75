"""What a command raises becomes a message and an exit code."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable

from orpo_mlx.cli.parser import TextRequested
from orpo_mlx.cli.terminal import (
    flush,
    open_missing_streams,
    print_error,
    print_error_text,
    print_internal_error,
    print_text,
    silence,
)
from orpo_mlx.errors import ConfigError, DeviceError, OrpoError
from orpo_mlx.runs.faults import explain
from orpo_mlx.text.redaction import redact_logs


def run_command(function: Callable[[], int], debug: bool = False) -> int:
    """Run a command and turn what it raises into messages; return the exit code.

    0 done, 1 the run or the program failed, 2 bad input, 130 interrupted.
    """

    open_missing_streams()
    redact_logs()
    try:
        code = function()
        flush()
        return code
    except TextRequested as request:
        text = request.text
        return run_command(lambda: print_text(text))
    except BrokenPipeError:  # `orpo-mlx runs | head -1`
        silence()
        return 0
    except KeyboardInterrupt as interrupt:
        print_error_text(str(interrupt) or "interrupted")
        return 130
    except OrpoError as error:
        print_error(error, traceback.format_exc() if debug else "")
        return error.exit_code
    except Exception as error:
        details = traceback.format_exc() if debug else ""
        if foreseen := _foreseen(error):
            print_error(foreseen, details)
            return foreseen.exit_code
        print_internal_error(error, details)
        return 1


def _foreseen(error: Exception) -> OrpoError | None:
    """Return in words of our own what others raise; None if it is not known."""
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return ConfigError(f"{str(error.filename)[:40]}...: the name is too long", "Shorten it.")
    if not isinstance(error, RuntimeError):
        return None
    if "home directory" in str(error):
        return _NO_SUCH_USER  # of pathlib's `expanduser`
    if fault := explain(str(error)):
        words = str(error).split("\n")[0]
        return DeviceError(f"{fault.meaning} ({words})", fault.outside)
    return None


_NO_SUCH_USER = ConfigError(
    "a path begins with ~ and the name of a user who does not exist", "Write the folder out."
)

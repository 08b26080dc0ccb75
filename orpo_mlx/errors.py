"""Every error a user can meet, each with what happened and what to do next.

Tree (each also is the standard exception a caller would already catch):

    OrpoError
      ConfigError(ValueError)        a setting, flag or settings file is wrong
      DataError(ValueError)          preference data cannot be read or used
      ModelError(ValueError)         a model folder or Hub model cannot be used
      AdapterError(ValueError)       adapter weights do not fit or are not sound
      ExportError(ValueError)        an export cannot be written as asked
        TargetExistsError            something is there already
        NoPlaceError                 the place where another program looks was not found
      ExportCheckError(RuntimeError) what was exported is not what it should be; exit code 1
      RunError(RuntimeError)         a run directory is taken, finished, missing or locked
      CheckpointError(RuntimeError)  no checkpoint can be resumed
      TrainingError(RuntimeError)    the run itself failed; the exit code is 1, not 2
        NotFiniteError               a number it computed is NaN or infinite
      DeviceError(RuntimeError)      MLX or the GPU failed outside a run; exit code 1
      PeerError                      another process of the run is why it ends
        PeerLostError(TrainingError)   it died, hangs or cannot be reached
        PeerRefusedError(RunError)     it was given something else

To add one: subclass the topic, take `message` and `what_to_do`, keep it picklable (no extra
constructor arguments), and give the message its four parts: where, what was found, what is
needed, what to do.
"""

from __future__ import annotations

from copy import copy
from typing import Self


class OrpoError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: where, what was found and what is needed. No trailing newline.
        what_to_do: the user's next step, one sentence or two.
    """

    exit_code = 2
    kind = ""
    """Of an error that a program tells from others of its class."""

    def __init__(self, message: str, what_to_do: str) -> None:
        super().__init__(message, what_to_do)
        self.message = message
        self.what_to_do = what_to_do

    @property
    def report(self) -> str:
        """The message with all that is shown below it, for people."""
        return self.message

    def advising(self, what_to_do: str) -> Self:
        """Return the same error with another next step."""
        other = copy(self)
        other.what_to_do, other.args = what_to_do, (self.message, what_to_do)
        return other

    def __str__(self) -> str:
        return f"{self.report}\n{self.what_to_do}" if self.what_to_do else self.report


class ConfigError(OrpoError, ValueError):
    """A flag, a settings key or a combination of them is not allowed."""


class DataError(OrpoError, ValueError):
    """Preference data is missing, malformed, or leaves nothing to train on."""


class ModelError(OrpoError, ValueError):
    """A model is missing, incomplete, unsupported or asks to run code."""


class AdapterError(OrpoError, ValueError):
    """Adapter weights are damaged, incomplete or belong to another model."""


class ExportError(OrpoError, ValueError):
    """A format cannot express this adapter, or its target cannot be written."""


class TargetExistsError(ExportError):
    """Something is there already that an export may replace if it is asked to."""

    kind = "target_exists"


class NoPlaceError(ExportError):
    """The place where another program looks was not found."""

    kind = "no_place"


class ExportCheckError(OrpoError, RuntimeError):
    """A check after writing failed; what was written is gone again, exit code 1."""

    exit_code = 1


class RunError(OrpoError, RuntimeError):
    """A run directory cannot be used for what was asked."""


class CheckpointError(OrpoError, RuntimeError):
    """Nothing can be resumed, or the resumed run would not be the same run."""


class TrainingError(OrpoError, RuntimeError):
    """The run started and then failed: not the user's input, exit code 1."""

    exit_code = 1


class DeviceError(OrpoError, RuntimeError):
    """MLX or its GPU failed where no run did: not the user's input, exit code 1."""

    exit_code = 1


class NotFiniteError(TrainingError):
    """A loss, gradient or metric is NaN or infinite; nothing computed after it means anything."""


class PeerError(OrpoError):
    """Another process of the run is why it ends.

    Whoever raises it sets what is known of that process: its `rank`, and what it printed last.
    """

    rank: int | None = None
    last_lines = ""

    @property
    def report(self) -> str:
        return with_last_lines(self.message, self.last_lines)


class PeerLostError(PeerError, TrainingError):
    """Another process of the run died, stopped, hangs or cannot be reached."""


class PeerRefusedError(PeerError, RunError):
    """Another process of the run found bad input, or has other settings, data or versions."""


def with_last_lines(message: str, lines: str) -> str:
    """Return a message with what another process printed last, if that is known."""
    return f"{message}\nIts last lines:\n{lines}" if lines else message


def reason_of(error: BaseException) -> str:
    """Return what an exception says, as one short line for use inside a message.

    The system's own words alone for a file error: the message around it names the file.
    """
    return _one_line(getattr(error, "strerror", None) or str(error)) or type(error).__name__


def describe(error: BaseException) -> str:
    """Return an exception's kind and what it says, as one short line."""
    name = type(error).__name__
    return f"{name}: {_one_line(str(error)) or name}"


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # Some name the field on the first line and the reason on the next.
    return " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])[:200]

"""The vocabulary between a training process and everyone who watches it.

The trainer appends one JSON object per line to `events.jsonl` and knows nothing about its readers:
the terminal report, the app, a notebook and the tests all read the same lines. A reader ignores
fields and events it does not know, and leaves a last line without a newline for later: the writer
may still be at it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

from orpo_mlx.errors import RunError, reason_of
from orpo_mlx.runs.typed import LARGEST_INT, is_time, problem
from orpo_mlx.storage.atomic import sync_descriptor
from orpo_mlx.storage.regular import MAX_TEXT_BYTES, open_regular
from orpo_mlx.text.redaction import redacted

SCHEMA_VERSION = 2

DONE = ("completed", "early_stop", "drift")
"""Reasons of `RunFinished` with which there is nothing to resume."""

FailureKind = Literal["not_finite", "out_of_memory", "gpu_timeout", "disk", "peer", "other"]


@dataclass(frozen=True)
class RunStarted:
    """First event of a run, and of each process that resumed it."""

    run_id: str
    model: str
    data: str
    total_steps: int
    pairs_train: int
    pairs_valid: int
    trainable_parameters: int
    total_parameters: int
    config: dict[str, Any]
    versions: dict[str, str]
    objective: str
    """What is trained on: a name of `orpo_mlx.objectives`."""
    metrics: list[str]
    """What each step and evaluation of it measures, in order; `runs/metrics.py` explains them."""
    resumed_from_step: int = 0
    run_path: str = ""
    """The run's folder."""
    scoring: str = ""
    """How pairs are computed: packed, causal, shared, fork or plain."""
    float32_error: float = 0.0
    """Relative error of a float32 product, measured: 1e-7 is exact, 5e-4 TF32; 0: not recorded."""
    is_compiled: bool = False
    """Whether the step is compiled, once for each shape of a batch."""
    trunk_blocks: int = 0
    """Blocks below the adapter whose outputs are kept; 0 without a trunk cache."""
    estimated_peak_bytes: int = 0
    """What was expected as the most this run would need; 0 if nothing was estimated."""
    available_bytes: int = 0
    """Memory there was for it: on a Mac what Metal recommends, elsewhere all RAM."""
    grad_checkpoint_every: int = 0
    """One of so many blocks is computed again in the backward pass; 0: none."""
    head_chunk: int = 0
    """Scored positions whose logits are held at a time; 0: not recorded."""
    cache_limit_bytes: int = 0
    """Freed buffers MLX may keep; 0: its own limit."""
    memory_limit_bytes: int = 0
    """Above this MLX waits before it allocates more; 0: its own limit."""
    cadence: dict[str, int] = field(default_factory=dict)
    """Every how many steps the run is reported, evaluated, sampled and saved; 0: only at the start
    and the end. `reports_slow` and `saves_by_time`: also each slow step, also by the clock."""
    checkpoint_bytes: int = 0
    """What each checkpoint takes on the disk."""
    hosts: list[str] = field(default_factory=list)
    """Where each process of the run is; empty for a run of one."""


@dataclass(frozen=True)
class DataPrepared:
    """What the rows became: read = kept + the sum of dropped."""

    read: int
    kept: int
    dropped: dict[str, int]
    noted: dict[str, int]
    """Kept but changed or unusual, by reason ("prompt cut", ...)."""
    layout: str
    token_percentiles: dict[str, int]
    first_pair: dict[str, Any]
    """The first training pair decoded: prompt, chosen, rejected. Of answers with a label: prompt,
    and good or bad."""
    nll_scope: str = "response"
    """What is scored: "full": the prompt, too, in the NLL; anything else: responses only."""


SIMULATION = "simulation"
"""Stands among the versions of a run that only pretended to train."""


@dataclass(frozen=True)
class _Measured:
    metrics: dict[str, float]
    """By the names in `RunStarted.metrics`."""
    step: int

    def value(self, name: str) -> float:
        """Return a metric, NaN if it was not measured."""
        return self.metrics.get(name, math.nan)


@dataclass(frozen=True)
class StepCompleted(_Measured):
    """Means over the steps since the last such event; the last one is `step` (1-based)."""

    epoch: float = 0.0
    learning_rate: float = 0.0
    grad_norm: float = 0.0
    """Global norm of the last step's gradient before clipping."""
    pairs: int = 0
    tokens: int = 0
    """Pairs and tokens (without padding) seen since the run began."""
    pairs_per_second: float = 0.0
    tokens_per_second: float = 0.0
    step_seconds: float = 0.0
    """Mean wall time of the steps since the last event; evaluation and saving excluded."""
    active_memory_bytes: int = 0
    peak_memory_bytes: int = 0
    process_bytes: int = 0
    """What the whole process holds in RAM now, as the system counts it."""
    batch_shapes: int = 0
    """Different shapes of batches since this process began."""
    trunk_hits: int = 0
    """Outputs of the blocks below the adapter that were kept when they were needed."""
    trunk_misses: int = 0
    """Such outputs that had to be computed."""
    trunk_bytes: int = 0
    """What is kept of them."""
    peer_tokens: list[int] = field(default_factory=list)
    """Tokens that each process computed since the last event; empty for a run of one."""
    wait_seconds: float = 0.0
    """Of a step, how long the first process to be ready waited for the last."""
    exchange_seconds: float = 0.0
    """Of a step, how long gradients travelled."""


@dataclass(frozen=True)
class EvalCompleted(_Measured):
    """Validation metrics over `pairs` pairs; NLL over their tokens, the rest over pairs."""

    pairs: int = 0
    seconds: float = 0.0
    is_best: bool = False


@dataclass(frozen=True)
class DriftMeasured:
    """How far the adapter has moved the model on neutral prompts; 0 for the base itself."""

    step: int
    kl_per_token: float
    """Mean KL divergence from the base, in nats, on answers the base itself samples."""
    low: float
    high: float
    """Of its 95 % interval, over prompts."""
    prompts: int
    seconds: float


@dataclass(frozen=True)
class SampleGenerated:
    """A held-out prompt answered greedily; `system` is its own system turn, "" for none."""

    step: int
    prompt: str
    response: str
    index: int
    system: str = ""


@dataclass(frozen=True)
class CheckpointSaved:
    """A checkpoint is complete on disk."""

    step: int
    path: str
    seconds: float
    bytes: int


@dataclass(frozen=True)
class NoteLogged:
    """Something the user should know; level is "info" or "warning"."""

    level: str
    text: str


@dataclass(frozen=True)
class Paused:
    """The trainer waits, memory kept."""

    step: int


@dataclass(frozen=True)
class Resumed:
    """The trainer goes on after a pause, or a new process took the run up at `step`.

    After the latter every StepCompleted, EvalCompleted and SampleGenerated of a later step that
    stands before this line is void: it is being computed again.
    """

    step: int
    new_process: bool = False


@dataclass(frozen=True)
class RunFinished:
    """The run ended as asked: `reason` is one of `DONE`, stopped or aborted."""

    reason: str
    step: int
    seconds: float
    adapter_path: str | None
    best_step: int | None = None
    peak_memory_bytes: int = 0
    """The most MLX held at a time in this process, the loading of the model included."""
    peak_process_bytes: int = 0
    """The most the whole process was seen to hold in RAM, looked at with each report."""
    batch_shapes: int = 0
    """As in StepCompleted, at the end of this process."""
    trunk_hits: int = 0
    trunk_misses: int = 0
    trunk_bytes: int = 0


@dataclass(frozen=True)
class RunFailed:
    """The run ended by an error."""

    error: str
    message: str
    what_to_do: str
    step: int
    last_checkpoint: str | None
    kind: FailureKind = "other"
    """What went wrong, for programs; the message is for people."""
    peer: int | None = None
    """Rank of the process that is why, where another one of the run is."""
    last_lines: str = ""
    """What that process printed last, where it is known."""


@dataclass(frozen=True)
class RunEvaluated:
    """After the end: base and adapter were compared on held-out pairs, see `runs/evaluation.py`."""

    step: int
    verdict: str
    """One sentence."""
    pairs: int
    available: int
    """Held-out pairs they were drawn from."""
    seconds: float
    path: str
    """Of evaluation.json."""
    report: str
    """Of the page."""
    kl_per_token: float | None = None
    """Drift from the base on neutral prompts, in nats; None: not measured."""


Event = (
    RunStarted | DataPrepared | StepCompleted | EvalCompleted | SampleGenerated | CheckpointSaved
    | DriftMeasured | NoteLogged | Paused | Resumed | RunFinished | RunFailed | RunEvaluated
)  # fmt: skip


EVENT_TYPES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        RunStarted, DataPrepared, StepCompleted, EvalCompleted, SampleGenerated, CheckpointSaved,
        DriftMeasured, NoteLogged, Paused, Resumed, RunFinished, RunFailed, RunEvaluated,
    )
}  # fmt: skip

_FIELDS = {cls: frozenset(f.name for f in fields(cls)) for cls in EVENT_TYPES.values()}
_step_numbers = itemgetter(*(f.name for f in fields(StepCompleted) if f.type in ("int", "float")))


class Record(NamedTuple):
    """One line of the file: an event, or None for one this version does not know or cannot use."""

    event: Event | None
    name: str
    time: float
    """Unix seconds."""
    raw: dict[str, Any]
    damage: str = ""
    """Why a line that is whole makes no event."""


def encode(event: Event, now: float | None = None) -> str:
    """Return the event as one line of JSON, newline included.

    Raises:
        ValueError: a number is NaN or infinite; such a step must end the run, not be logged.
    """
    head = {
        "event": type(event).__name__,
        "v": SCHEMA_VERSION,
        "time": round(time.time() if now is None else now, 3),
        "monotonic": round(time.monotonic(), 3),
    }
    return json.dumps({**head, **asdict(event)}, ensure_ascii=False, allow_nan=False) + "\n"


def decode(line: str) -> Record:
    """Read one complete line back; fields this version does not know are ignored.

    Raises:
        ValueError: the line is not a JSON object with an event name; it was torn.
    """
    try:
        raw = json.loads(line)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:  # too many digits, too deep
        return Record(None, "line", 0.0, {}, f"a line cannot be read ({reason_of(error)})")
    return _record(raw)


def _record(raw: Any) -> Record:
    if not isinstance(raw, dict) or not isinstance(raw.get("event"), str):
        raise ValueError(f"not an event: {str(raw)[:80]!r}")
    name, time = raw["event"], raw.get("time", 0.0)
    cls = EVENT_TYPES.get(name)
    if raw.get("v", SCHEMA_VERSION) != SCHEMA_VERSION:  # a line made by hand may have none
        cls = None
    if not is_time(time):
        return Record(None, name[:80], 0.0, raw, f"{name[:80]}: time is no moment of a calendar")
    if cls is None:
        return Record(None, name[:80], float(time), raw)
    if not (cls is StepCompleted and _is_plain_step(raw)) and (wrong := problem(cls, raw)):
        return Record(None, name, float(time), raw, f"{name}: {wrong}")
    return Record(_event(cls, raw), name, float(time), raw)


def _is_plain_step(raw: dict[str, Any]) -> bool:
    """Tell quickly whether a step holds numbers of usual sizes; of all others `problem` tells."""
    try:
        # Takes numbers only: text, nested values and integers that no float holds raise.
        each, tokens = raw["metrics"].values(), raw["peer_tokens"]
        size = math.hypot(*_step_numbers(raw), *each, *tokens)
        return size < LARGEST_INT and type(raw["step"]) is int and type(tokens) is list
    except (AttributeError, KeyError, OverflowError, TypeError):
        return False


def _event(cls: type, raw: dict[str, Any]) -> Any:
    known = _FIELDS[cls]
    if raw.keys() >= known:
        # The line's dictionary becomes the event's own: setting 18 frozen fields one after the
        # other is a quarter of the time it takes to read a long run.
        event = object.__new__(cls)
        object.__setattr__(event, "__dict__", raw)
        return event
    return cls(**{key: value for key, value in raw.items() if key in known})


class EventWriter:
    """Append events to a file, one flushed line each.

    A partial last line left by a killed process is ended first, so that it can never swallow the
    next event; readers skip it as damaged.

    Raises:
        RunError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            torn = path.exists() and not _ends_with_newline(path)
            # Unbuffered: what could not be written must not come back when the file is closed.
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise unusable(path, error) from None
        if torn:
            self._append("\n")

    def write(self, event: Event) -> str:
        """Append one event, flush it, and return its line."""
        line = redacted(encode(event))
        self._append(line)
        return line

    def _append(self, text: str) -> None:
        # A lone surrogate (a file name that is not UTF-8) becomes its JSON escape.
        rest = memoryview(text.encode("utf-8", errors="backslashreplace"))
        while rest:
            rest = rest[self._file.write(rest) or 0 :]

    def sync(self) -> None:
        """Wait until all events are on the disk; called with each checkpoint."""
        sync_descriptor(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _ends_with_newline(path: Path) -> bool:
    with open_regular(path) as file:
        if file.seek(0, 2) == 0:
            return True
        file.seek(-1, 2)
        return file.read(1) == b"\n"


class EventReader:
    """Follow a growing event file; each call to `poll` returns what is new and complete."""

    def __init__(self, path: Path, max_bytes: int = 1 << 20) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self._offset = 0

    def poll(self) -> list[Record]:
        """Return the new complete events, about `max_bytes` of file at a time; [] at the end.

        Raises:
            OSError: the file is there and cannot be read.
        """
        while chunk := self._next_lines():
            if records := _decode_lines(chunk):
                return records
        return []

    def _next_lines(self) -> bytes:
        try:
            with open_regular(self.path) as file:
                file.seek(self._offset)
                chunk = file.read(self.max_bytes)
                if b"\n" not in chunk:
                    chunk += file.readline(MAX_TEXT_BYTES)  # one line longer than max_bytes
        except FileNotFoundError:
            return b""
        end = chunk.rfind(b"\n") + 1
        if not end and len(chunk) > MAX_TEXT_BYTES:
            end = len(chunk)  # no line of ours: passed over
        self._offset += end
        return chunk[:end]


def read_events(path: Path) -> Iterator[Record]:
    """Yield the events of a file in order; torn and unfinished lines are skipped.

    Raises:
        RunError: the file is there and cannot be read.
    """
    reader = EventReader(path)
    try:
        while records := reader.poll():
            yield from records
    except OSError as error:
        raise unusable(path, error) from None


def unusable(path: Path, error: OSError) -> RunError:
    """Return the error of an event file that cannot be opened, read or written."""
    return RunError(
        f"{path}: the events of the run cannot be used ({reason_of(error)})",
        "Make it a regular file that you may read and write, and see that the disk has space.",
    )


def read_last_events(path: Path, max_bytes: int = 1 << 18) -> list[Record]:
    """Return the complete events in the last `max_bytes` of a file, in order; [] if unreadable.

    The time is bounded however long the run was. A last event larger than that is still found.
    """
    try:
        with open_regular(path) as file:
            size = file.seek(0, 2)
            while True:
                start = max(0, size - max_bytes)
                file.seek(start)
                chunk = file.read(min(size - start, max_bytes))
                first = 0 if start == 0 else chunk.find(b"\n") + 1
                end = chunk.rfind(b"\n") + 1
                if end > first or start == 0 or max_bytes > MAX_TEXT_BYTES:
                    return _decode_lines(chunk[first:end])
                max_bytes *= 4
    except OSError:
        return []


def _decode_lines(data: bytes) -> list[Record]:
    lines = data.decode("utf-8", errors="replace").split("\n")[:-1]
    try:
        # All at once: the names of the fields are then made once, not once a line.
        found = json.loads(f"[{','.join(lines)}]")
        # A damaged line may be one with its neighbour; then there are not as many values.
        if len(found) == len(lines):
            return [_record(raw) for raw in found]
    except (ValueError, RecursionError):
        pass  # a line is damaged: which one is found below
    records = []
    for line in lines:
        try:
            records.append(decode(line))
        except ValueError:
            continue  # torn by a kill
    return records

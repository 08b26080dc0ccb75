"""A process that answers and scores for someone at a prompt: JSON lines in, JSON lines out.

One request a line on standard input, each with an `id` of the caller's:

    {"op": "answer", "id": 1, "prompt": "Why?", "temperature": 0.7, "top_p": 0.95,
     "max_tokens": 256, "seed": 0, "sides": ["base", "adapter"]}      or "pair": 3 for "prompt",
                                                    or "turns": [{"role": ..., "content": ...}, ...]
    {"op": "score", "id": 2, "prompt": "Why?", "chosen": "So.", "rejected": "No."}   or "pair": 3
    {"op": "pairs", "id": 3, "count": 20}           held-out pairs of the run
    {"op": "checkpoint", "id": 4, "name": "final"}  or a step number as text
    {"op": "cancel"}                                ends the answers being made
    {"op": "quit"}                                  so does the end of the input

Answers: `ready` once, then per request any number of `text` and one `answered`, `scored`, `pairs`,
`loaded` or `failed`. The app that asks never loads mlx itself.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import mlx.core as mx

from orpo_mlx.adapters import files, lora
from orpo_mlx.adapters.reward_head import require_answers
from orpo_mlx.chat.conversation import as_text
from orpo_mlx.config import TrainConfig
from orpo_mlx.config.train_config import required
from orpo_mlx.data.prepare import find_training_data, prepare_data
from orpo_mlx.data.tokens.encoder import Encoder, TemplateRefused, fold_system
from orpo_mlx.data.tokens.tokenize import tokenize_pair
from orpo_mlx.data.types import Drop, Message, PreferencePair, TokenPair
from orpo_mlx.errors import ConfigError, DataError, OrpoError, describe
from orpo_mlx.generation.sampling import Sampling
from orpo_mlx.generation.side_by_side import SIDES, PairScore, Side, SideBySide
from orpo_mlx.generation.user_turn import PromptReader
from orpo_mlx.models import load
from orpo_mlx.runs.checkpoints import find_newest, iter_checkpoints
from orpo_mlx.runs.directory import RunDirectory
from orpo_mlx.runs.listing import find_run

Say = Callable[[dict[str, Any]], None]
GoesOn = Callable[[], bool]
FINAL = "final"


@dataclass
class Playground:
    """A loaded model, its adapter, and where other adapters of the same run lie.

    Attributes:
        checkpoints: adapter folders by name: "final", or the step of a checkpoint.
        manifest: what the run's newest checkpoint recorded of its data; {} for a model alone.
        pairs: held-out pairs of the run, read when first asked for.
        held_out: whether they are that; else nothing was, and these were trained on.
    """

    both: SideBySide
    loaded: load.LoadedModel
    name: str
    config: TrainConfig | None
    checkpoints: dict[str, Path]
    current: str
    manifest: dict[str, Any] = field(default_factory=dict, repr=False)
    pairs: Sequence[TokenPair] | None = field(default=None, repr=False)
    held_out: bool = True

    @property
    def encoder(self) -> Encoder:
        """The tokenizer with its template."""
        return Encoder(self.both.tokenizer)


# Opening


def open_playground(given: dict[str, Any]) -> Playground:
    """Load the model and the adapter a command line names.

    Raises:
        OrpoError: there is nothing to load, or it cannot be loaded.
    """
    if given.get("run"):
        run = find_run(given["run"], given.get("runs_dir"))
        config = run.read_config()
        found = adapters_of(run)
        if not found:
            raise _no_adapter(run)
        name, template = required(config, "model"), config.chat_template
        place = _load(name, config.revision, template, found, given.get("checkpoint"), config)
        place.manifest = find_newest(run.checkpoints_folder).manifest
        return place
    if not given.get("model"):
        raise ConfigError("--run or --model: one is needed.", "Give --run RUN or --model MODEL.")
    folders = {FINAL: Path(given["adapter"])} if given.get("adapter") else {}
    return _load(given["model"], None, None, folders, None, None)


def _no_adapter(run: RunDirectory) -> ConfigError:
    if run.is_locked():
        return ConfigError(
            f"run {run.id}: it has saved no adapter yet.",
            f"Wait for its first checkpoint, or ask for one: orpo-mlx checkpoint {run.id}.",
        )
    return ConfigError(
        f"run {run.id}: it ended before it saved an adapter.",
        f"Resume it, orpo-mlx resume {run.id}, or choose another run.",
    )


def adapters_of(run: RunDirectory) -> dict[str, Path]:
    """Return the adapters of a run by name, the one to begin with last."""
    found = {str(int(p.name)): p for p in sorted(iter_checkpoints(run.checkpoints_folder))}
    if run.adapter_folder.is_dir():
        found[FINAL] = run.adapter_folder
    return found


def _load(
    name: str,
    revision: str | None,
    template: str | None,
    adapters: dict[str, Path],
    wanted: str | None,
    config: TrainConfig | None,
) -> Playground:
    current = wanted or next(reversed(adapters), "")
    if current and current not in adapters:
        raise _no_checkpoint(current, adapters)
    spec = files.read_adapter_spec(adapters[current]) if current else None
    if current:
        require_answers(adapters[current])
    loaded = load.load_model(load.resolve_model(name, revision), chat_template=template)
    if spec is not None:
        lora.attach_adapter(loaded.model, spec, seed=0)
        files.load_adapter_into(
            loaded.model, adapters[current], loaded.fingerprint, loaded.path.name
        )
    both = SideBySide(loaded.model, loaded.tokenizer)
    return Playground(both, loaded, name, config, adapters, current)


def _no_checkpoint(name: str, adapters: dict[str, Path]) -> ConfigError:
    return ConfigError(
        f"checkpoint {name}: there is none of this name.", f"There are: {', '.join(adapters)}."
    )


def ready(place: Playground) -> dict[str, Any]:
    return {
        "event": "ready",
        "model": place.name,
        "checkpoints": list(place.checkpoints),
        "checkpoint": place.current or None,
        "chat": place.encoder.has_chat_template,
        "memory_bytes": mx.get_active_memory(),
    }


# Requests


def read_requests(source: TextIO) -> queue.Queue[dict[str, Any] | None]:
    """Read lines on a thread of their own, so that `cancel` is seen while an answer is made."""
    requests: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def read() -> None:
        for line in source:
            try:
                request = json.loads(line)
            except ValueError:
                request = {"op": line.strip()[:40]}
            if not isinstance(request, dict):
                request = {"op": str(request)[:40]}
            if request.get("op") == "quit":
                break
            requests.put(request)
        requests.put(None)

    threading.Thread(target=read, daemon=True).start()
    return requests


def handle(place: Playground, request: dict[str, Any], say: Say, goes_on: GoesOn) -> None:
    """Do one request; what is wrong with it is said, and the next one is taken.

    Args:
        place: what answers.
        request: see the docstring of this module.
        say: takes what is answered.
        goes_on: asked before each token; False ends the answers where they are.
    """
    ops = {"answer": _answer, "score": _score, "pairs": _pairs, "checkpoint": _checkpoint}
    op = request.get("op")
    if op == "cancel":  # of an answer that was finished already
        return
    try:
        if op not in ops:
            raise ConfigError(f"op {op!r}: there is none of this name.", f"One of {list(ops)}.")
        ops[op](place, request, say, goes_on)
    except OrpoError as error:
        say(failed(request.get("id"), error))
    except (TypeError, ValueError, KeyError) as error:
        text = f"the request {op!r} cannot be read ({describe(error)})."
        say(failed(request.get("id"), ConfigError(text, "See the docstring of this module.")))


def failed(request_id: Any, error: OrpoError) -> dict[str, Any]:
    said = {"message": error.message, "what_to_do": error.what_to_do}
    return {"event": "failed", "id": request_id, **said}


def _answer(place: Playground, request: dict[str, Any], say: Say, goes_on: GoesOn) -> None:
    sampling = _sampling(request)
    sides: tuple[Side, ...] = tuple(side for side in SIDES if side in request.get("sides", SIDES))
    if not place.both.has_adapter:
        sides = ("base",)
    prompt = _prompt_ids(place, request)
    answers = place.both.answer(
        prompt,
        sampling,
        lambda side, text: say(
            {"event": "text", "id": request.get("id"), "side": side, "text": text}
        ),
        goes_on,
        sides,
    )
    say(
        {
            "event": "answered",
            "id": request.get("id"),
            "prompt_tokens": len(prompt),
            "sides": {
                side: {
                    "text": answer.text,
                    "tokens": len(answer.logps),
                    "mean_logp": sum(answer.logps) / len(answer.logps) if answer.logps else None,
                    "tokens_per_second": len(answer.logps) / max(answer.seconds, 1e-9),
                    "ended": answer.ended,
                }
                for side, answer in answers.items()
            },
        }
    )


def _sampling(request: dict[str, Any]) -> Sampling:
    limits = {
        "temperature": (0, 10),
        "top_p": (0, 1),
        "max_tokens": (1, 1 << 20),
        "seed": (0, 1 << 31),
    }
    given = {name: request[name] for name in limits if name in request}
    for name, value in given.items():
        low, high = limits[name]
        kinds = (int,) if isinstance(getattr(Sampling, name), int) else (int, float)
        if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigError(
                f"{name}: {value!r} is not a number from {low} to {high}.", "Change it."
            )
    return Sampling(**given)


def is_cancelled(requests: queue.Queue[dict[str, Any] | None]) -> bool:
    """Look at the next request without taking it, unless it is `cancel`."""
    with requests.mutex:
        if not requests.queue:
            return False
        first = requests.queue[0]
        if first is not None and first.get("op") == "cancel":
            requests.queue.popleft()
            return True
        return first is None  # the caller is gone


def _prompt_ids(place: Playground, request: dict[str, Any]) -> list[int]:
    if "pair" in request:
        return list(_held_out(place, request["pair"]).prompt)
    return encode_turns(place.encoder, _turns(request))


def _turns(request: dict[str, Any]) -> list[Message]:
    if "turns" not in request:
        return [{"role": "user", "content": str(request["prompt"])}]
    turns: list[Message] = [
        {"role": str(turn["role"]), "content": str(turn["content"])} for turn in request["turns"]
    ]
    if not turns or turns[-1]["role"] != "user":
        raise DataError("the turns do not end with the user's.", "Add what is to be answered.")
    return turns


def encode_turns(encoder: Encoder, turns: list[Message]) -> list[int]:
    """Return the ids of turns, up to where the answer begins.

    Without a chat template their text is continued. A template that can switch thinking off writes
    an empty thought, as before the answers that were trained on.

    Raises:
        DataError: the last turn is empty, or the template refuses them.
    """
    if not turns[-1]["content"].strip():
        raise DataError("the prompt is empty.", "Type something for the model to answer.")
    if not encoder.has_chat_template:
        return encoder.encode(as_text(turns))
    folded = fold_system(turns) if encoder.folds_system else turns
    thinks = False if encoder.switches_thinking else None
    try:
        return encoder.encode(encoder.render(folded, True, thinks))
    except TemplateRefused as error:
        raise DataError(f"the chat template refuses this prompt: {error}", "Change it.") from error


def _score(place: Playground, request: dict[str, Any], say: Say, _: Any) -> None:
    pair = _held_out(place, request["pair"]) if "pair" in request else _tokenized(place, request)
    sides = SIDES if place.both.has_adapter else ("base",)
    scores = {side: place.both.score(pair, side) for side in sides}
    say(
        {
            "event": "scored",
            "id": request.get("id"),
            "tokens": {
                "chosen": _pieces(place, pair.chosen),
                "rejected": _pieces(place, pair.rejected),
            },
            "sides": {side: _said_score(score) for side, score in scores.items()},
        }
    )


def _said_score(score: PairScore) -> dict[str, Any]:
    chosen, rejected = score.means
    return {
        "chosen": score.chosen,
        "rejected": score.rejected,
        "chosen_logps": chosen,
        "rejected_logps": rejected,
        "log_odds_ratio": score.log_odds_ratio,
    }


def _pieces(place: Playground, ids: Any) -> list[str]:
    return [str(place.both.tokenizer.decode([int(i)])) for i in ids]


def _tokenized(place: Playground, request: dict[str, Any]) -> TokenPair:
    prompt, *sides = (str(request[name]) for name in ("prompt", "chosen", "rejected"))
    encoder = place.encoder
    if encoder.has_chat_template:
        answers: Any = [[{"role": "assistant", "content": side}] for side in sides]
        pair = PreferencePair([{"role": "user", "content": prompt}], *answers)
    else:
        pair = PreferencePair(prompt, sides[0], sides[1])
    tokens = tokenize_pair(pair, encoder, 1 << 20)
    if isinstance(tokens, Drop):
        raise DataError(f"this pair cannot be scored: {tokens.reason}.", "Change its texts.")
    return tokens


def _pairs(place: Playground, request: dict[str, Any], say: Say, _: Any) -> None:
    pairs = _all_held_out(place)[: int(request.get("count", 20))]
    reader = PromptReader(place.both.tokenizer)
    shown = [_shown(place, reader, pair) for pair in pairs]
    say({
        "event": "pairs", "id": request.get("id"), "held_out": place.held_out, "pairs": shown,
    })  # fmt: skip


def _shown(place: Playground, reader: PromptReader, pair: TokenPair) -> dict[str, str]:
    """Return a pair as people read it: the user's last words, answers without special tokens."""
    tokenizer = place.both.tokenizer
    answers = {
        name: tokenizer.decode(list(getattr(pair, name)), skip_special_tokens=True).strip()
        for name in ("chosen", "rejected")
    }
    return {"source": pair.source, "prompt": reader.read(pair.prompt).user, **answers}


def _held_out(place: Playground, index: Any) -> TokenPair:
    pairs = _all_held_out(place)
    if not isinstance(index, int) or not 0 <= index < len(pairs):
        raise ConfigError(f"pair {index}: there are {len(pairs)}.", "Give a number from 0 on.")
    return pairs[index]


def _all_held_out(place: Playground) -> Sequence[TokenPair]:
    """Return the run's validation pairs, or its training pairs where nothing was held out."""
    if place.pairs is None:
        if place.config is None:
            raise ConfigError("held-out pairs belong to a run.", "Open a run, not a model.")
        found = find_training_data(
            place.config, place.manifest.get("content", {}).get("data_revision")
        )
        data = prepare_data(
            place.config, found, place.both.tokenizer, place.loaded.path,
            place.loaded.config.get("vocab_size"), place.name,
        )  # fmt: skip
        place.held_out = len(data.valid) > 0
        place.pairs = data.valid if place.held_out else data.train
    return place.pairs


def _checkpoint(place: Playground, request: dict[str, Any], say: Say, _: Any) -> None:
    name = str(request["name"])
    use_checkpoint(place, name)
    say({"event": "loaded", "id": request.get("id"), "checkpoint": name})


def use_checkpoint(place: Playground, name: str) -> None:
    """Let the adapter of a checkpoint answer from now on.

    Raises:
        ConfigError: there is none of this name.
        AdapterError: it does not fit.
    """
    if name not in place.checkpoints:
        raise _no_checkpoint(name, place.checkpoints)
    files.load_adapter_into(place.loaded.model, place.checkpoints[name], place.loaded.fingerprint)
    place.current = name

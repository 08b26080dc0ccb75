"""A process that answers and scores for someone at a prompt: JSON lines in, JSON lines out.

One request a line on standard input, each with an `id` of the caller's:

    {"op": "answer", "id": 1, "prompt": "Why?", "temperature": 0.7, "top_p": 0.95,
     "max_tokens": 256, "seed": 0, "sides": ["base", "adapter"]}      or "pair": 3 for "prompt",
                                                    or "turns": [{"role": ..., "content": ...}, ...]
                                                    both: the prompt, written as that of the pair is
    {"op": "score", "id": 2, "prompt": "Why?", "chosen": "So.", "rejected": "No."}   or "pair": 3,
                                                    or both likewise
    {"op": "pairs", "id": 3, "count": 20}           held-out pairs of the run
    {"op": "checkpoint", "id": 4, "name": "final"}  or a step number as text
    {"op": "ask", "id": 5, "prompts": [[{"role": ..., "content": ...}], ...], "max_tokens": 256}
                                                    greedily, of the base and each checkpoint
    {"op": "cancel"}                                ends the answers being made
    {"op": "quit"}                                  so does the end of the input

Answers: `ready` once, then per request any number of `text` or `asking` and one `answered`,
`asked`, `scored`, `pairs`, `loaded` or `failed`. The app that asks never loads mlx itself.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TextIO

import mlx.core as mx

from orpo_mlx.data.prepare import find_training_data, prepare_data
from orpo_mlx.data.prompts import WrittenPrompt
from orpo_mlx.data.tokens.tokenize import tokenize_pair
from orpo_mlx.data.types import Drop, Message, PreferencePair, TokenPair
from orpo_mlx.errors import ConfigError, DataError, OrpoError, describe
from orpo_mlx.generation.context import ContextFull, longest_answer
from orpo_mlx.generation.sampling import Sampling
from orpo_mlx.generation.side_by_side import SIDES, PairScore, Side
from orpo_mlx.generation.user_turn import PromptReader
from orpo_mlx.serving.place import Playground, encode_turns, use_checkpoint
from orpo_mlx.serving.prompt_answers import BASE, ask_each

Say = Callable[[dict[str, Any]], None]
GoesOn = Callable[[], bool]


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
    ops = {
        "answer": _answer, "ask": _ask, "score": _score, "pairs": _pairs, "checkpoint": _checkpoint,
    }  # fmt: skip
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
    sampling = replace(sampling, max_tokens=_longest(place, prompt, request, sampling.max_tokens))
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
                    "is_full": len(prompt) + len(answer.logps) == place.context,
                }
                for side, answer in answers.items()
            },
        }
    )


def _longest(place: Playground, prompt: list[int], request: dict[str, Any], max_tokens: int) -> int:
    try:
        return longest_answer(len(prompt), max_tokens, place.context)
    except ContextFull as error:
        if len(request.get("turns", [])) < 2:
            raise
        advice = "Say an earlier turn again (/edit #1), or begin anew (/new)."
        raise error.advising(advice) from None


def _ask(place: Playground, request: dict[str, Any], say: Say, goes_on: GoesOn) -> None:
    number, names = request.get("id"), [*place.checkpoints]
    prompts = [
        WrittenPrompt(_turns({"turns": turns}), "", f"prompt {i}")
        for i, turns in enumerate(request["prompts"], start=1)
    ]

    def tell(done: int, total: int, label: str, _: str) -> None:
        say({"event": "asking", "id": number, "done": done, "total": total, "label": label})

    longest = _sampling(request).max_tokens
    answers = ask_each(place, prompts, names, longest, tell, goes_on)
    sides = [name for name in (BASE, *names) if any(name in given for given in answers)]
    say({"event": "asked", "id": number, "sides": sides, "answers": answers})


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
    if "pair" in request and "prompt" not in request:
        return list(_held_out(place, request["pair"]).prompt)
    turns = _turns(request)
    if _is_of_plain_text(place, request) and turns[-1]["content"].strip():
        return place.encoder.encode(turns[-1]["content"])
    return encode_turns(place.encoder, turns)


def _is_of_plain_text(place: Playground, request: dict[str, Any]) -> bool:
    """Tell whether a prompt takes the place of one that the training read without a template."""
    marks = PromptReader(place.both.tokenizer).user_marks if "pair" in request else None
    if marks is None:
        return False
    prompt = _held_out(place, request["pair"]).prompt
    return marks.before not in place.both.tokenizer.decode(list(prompt))


def _turns(request: dict[str, Any]) -> list[Message]:
    if "turns" not in request:
        return [{"role": "user", "content": str(request["prompt"])}]
    turns: list[Message] = [
        {"role": str(turn["role"]), "content": str(turn["content"])} for turn in request["turns"]
    ]
    if not turns or turns[-1]["role"] != "user":
        raise DataError("the turns do not end with the user's.", "Add what is to be answered.")
    return turns


def _score(place: Playground, request: dict[str, Any], say: Say, _: Any) -> None:
    is_itself = "pair" in request and "prompt" not in request
    pair = _held_out(place, request["pair"]) if is_itself else _tokenized(place, request)
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
    if encoder.has_chat_template and not _is_of_plain_text(place, request):
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


def _shown(place: Playground, reader: PromptReader, pair: TokenPair) -> dict[str, Any]:
    """Return a pair as people read it: the user's last words, answers without special tokens.

    `turns_before` counts the turns before these words, a system turn among them.
    """
    tokenizer = place.both.tokenizer
    answers = {
        name: tokenizer.decode(list(getattr(pair, name)), skip_special_tokens=True).strip()
        for name in ("chosen", "rejected")
    }
    *before, (_, prompt) = reader.turns(pair.prompt)
    said = {"source": pair.source, "prompt": prompt, **answers}
    return {**said, "turns_before": len(before)}


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

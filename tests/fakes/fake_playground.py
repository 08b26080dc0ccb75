"""A playground without a model: the protocol of `serving/playground.py`, answers made up."""

from __future__ import annotations

import json
import sys

PAIR = {"source": "x:1", "prompt": "Why is it so?", "chosen": "Yes it is.", "rejected": "No."}


def say(**message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def score(ratio: float) -> dict[str, object]:
    values = {"chosen": [-0.1, -2.0, -9.0], "rejected": [-1.5, -0.5]}
    means = {"chosen_logps": -3.7, "rejected_logps": -1.0}
    return {**values, **means, "log_odds_ratio": ratio}


def answer(text: str) -> dict[str, object]:
    return {
        "text": text, "tokens": 2, "mean_logp": -0.5, "tokens_per_second": 10.0, "ended": True,
    }  # fmt: skip


if sys.argv[1:] == ["broken"]:
    sys.exit("error: there is no such model.")
if sys.argv[1:] == ["slow"]:
    sys.stdin.readline()
say(
    event="ready", model="tiny", checkpoints=["0", "20", "final"], checkpoint="final",
    chat=True, memory_bytes=5_000_000,
)  # fmt: skip
late: list[dict[str, object]] = []
for line in sys.stdin:
    request = json.loads(line)
    if request["op"] == "pairs" and "late" in sys.argv and not late:
        late.append(request)
    elif request["op"] == "pairs":
        say(event="pairs", id=request.get("id"), held_out="trained" not in sys.argv, pairs=[PAIR])
    elif request["op"] == "answer":
        prompt = request.get("prompt", f"pair {request.get('pair')}")
        for side in ("base", "adapter"):
            say(event="text", id=request.get("id"), side=side, text=f"{side} on {prompt}")
        if prompt != "wait":
            sides = {side: answer(f"{side} on {prompt}") for side in ("base", "adapter")}
            say(event="answered", id=request.get("id"), prompt_tokens=3, sides=sides)
        for first in late:
            say(event="pairs", id=first.get("id"), held_out=True, pairs=[PAIR])
    elif request["op"] == "cancel":
        say(event="answered", id=None, prompt_tokens=3, sides={"base": answer("cut")})
    elif request["op"] == "score" and request.get("chosen") == request.get("rejected", ""):
        say(event="failed", id=None, message="the texts are the same.", what_to_do="Change one.")
    elif request["op"] == "score":
        tokens = {"chosen": ["Yes", " it", " is."], "rejected": ["No", "."]}
        say(
            event="scored",
            id=None,
            tokens=tokens,
            sides={"base": score(-0.5), "adapter": score(0.9)},
        )
    elif request["op"] == "checkpoint":
        say(event="loaded", id=None, checkpoint=request["name"])

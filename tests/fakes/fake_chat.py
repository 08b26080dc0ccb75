"""A model to talk with that is none: the protocol of `serving/playground.py`, answers made up.

A turn "wait" is answered when it is cancelled, "refuse" is refused, "fill" fills the context;
"long" as first word of the command line makes answers of many lines.
"""

from __future__ import annotations

import json
import sys


def say(**message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def answer(text: str, ended: bool = True) -> dict[str, object]:
    return {
        "text": text, "tokens": 2, "mean_logp": -0.5, "tokens_per_second": 10.0, "ended": ended,
    }  # fmt: skip


WORDS = sys.argv[1:]
if WORDS[:1] == ["broken"]:
    sys.exit("error: there is no such model.")
current = WORDS[WORDS.index("--checkpoint") + 1] if "--checkpoint" in WORDS else "final"
say(
    event="ready", model="tiny", checkpoints=["0", "20", "final"], checkpoint=current,
    chat=True, memory_bytes=5_000_000,
)  # fmt: skip
sides: list[str] = []
for line in sys.stdin:
    request = json.loads(line)
    if request["op"] == "checkpoint":
        current = request["name"]
        say(event="loaded", id=None, checkpoint=current)
    elif request["op"] == "cancel":
        say(event="answered", id=None, sides={side: answer("cut", ended=False) for side in sides})
    elif request["op"] == "ask":
        names = ["base", "0", "20", "final"]
        say(event="asking", id=None, done=1, total=4, label="asking base")
        given = [
            {n: answer(f"{n} on {p[-1]['content']}") for n in names} for p in request["prompts"]
        ]
        say(event="asked", id=None, sides=names, answers=given)
    elif request["turns"][-1]["content"] == "refuse":
        say(event="failed", id=None, message="the template refuses it.", what_to_do="Change it.")
    else:
        sides, turns = request["sides"], request["turns"]
        last, more = turns[-1]["content"], "\nline" * 30 if WORDS[:1] == ["long"] else ""
        texts = {side: f"{side} {current} on {last} ({len(turns)}){more}" for side in sides}
        for side, text in texts.items():
            say(event="text", id=None, side=side, text=text)
        if last == "fill":
            full = {**answer("full", ended=False), "is_full": True}
            say(event="answered", id=None, sides=dict.fromkeys(sides, full))
        elif last != "wait":
            say(event="answered", id=None, sides={s: answer(t) for s, t in texts.items()})

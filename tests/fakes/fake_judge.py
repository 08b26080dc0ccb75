"""Judging without a model: the protocol of `cli/judge/serve.py`, answers made up."""

from __future__ import annotations

import json
import sys

TOTAL = 3


def say(**message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def duel(place: int, said: list[str]) -> None:
    shown = {
        "place": place, "prompt": f"Why is it so, {place}?",
        "first": "Because it is.\n" + "It is long. " * 60,
        "second": f"Nobody knows {place}.\x1b[2J",
    }  # fmt: skip
    ties, skipped = said.count("tie"), said.count("skip")
    say(
        event="duel", duel=shown if place < TOTAL else None, number=place + 1, total=TOTAL,
        standing=f"{TOTAL - place} prompts left · 62 % won, interval 31 to 86",
        verdict="no difference could be shown: answers of run-a won 62 % of 8 comparisons",
        win_rate={"value": 0.62, "low": 0.31, "high": 0.86},
        counts={
            "judged": 8, "wins": said.count("first"), "ties": ties, "losses": said.count("second"),
            "identical": 0, "skipped": skipped, "dropped": 0, "left": TOTAL - place,
            "longer_won": 0,
        },
    )  # fmt: skip


if sys.argv[1:] == ["broken"]:
    sys.exit("error: there is no such model.")
if sys.argv[1:] == ["training"]:
    say(event="failed", message="run x: is being trained", what_to_do="Wait for its end.")
    sys.exit(2)
sys.stderr.write('{"event": "progress", "done": 4, "total": 20, "label": "answering prompts", '
                 '"unit": "rows"}\n')  # fmt: skip
sys.stderr.flush()
if sys.argv[1:] == ["slow"]:
    sys.stdin.readline()
say(
    event="ready", sides={"base": "tiny", "adapter": "run-a"}, compared=["base", "adapter"],
    journal="/runs/run-a/judge/0123456789ab.jsonl", notes=[],
)  # fmt: skip
said: list[str] = []
duel(0, said)
for line in sys.stdin:
    request = json.loads(line)
    assert request["place"] == len(said), "a verdict on what is shown"
    said.append(request["says"])
    duel(len(said), said)

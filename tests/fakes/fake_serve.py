"""A server without a model: the messages of `orpo-mlx serve --json`, made up."""

from __future__ import annotations

import json
import sys
import threading


def say(**message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


runs = sys.argv[1 : sys.argv.index("--port")]
if runs[0].endswith("run-bad"):
    say(event="failed", kind="", message="run run-bad: ended before it saved", what_to_do="Go on.")
    sys.exit(2)
names = [*(run.rpartition("/")[2] for run in runs), "tiny"]
say(
    event="ready", url="http://127.0.0.1:8080/v1", models=names, base="tiny", notes=[],
    curl="curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' -d "
    + repr(json.dumps({"model": names[0], "messages": [{"role": "user", "content": "Hello"}]})),
)  # fmt: skip
chat = "/v1/chat/completions"
say(event="request", path=chat, model=names[0], status=200, seconds=1.25)
say(event="request", path=chat, model="", status=404, seconds=0.001)
say(event="request", path="/v1/\x1b[2Jodd", model="", status=404, seconds=0.001)
try:
    threading.Event().wait()
except KeyboardInterrupt:
    sys.exit(130)

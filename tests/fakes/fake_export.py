"""`orpo-mlx export --json` without an adapter: every format ends in its own way.

mlx is written; peft fails its check; fused goes on until it is ended; lmstudio finds its place
taken unless --force; hub ends without a word; all others are written and name their options.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def say(event: str, **content: object) -> None:
    sys.stdout.write(json.dumps({"event": event, **content}) + "\n")
    sys.stdout.flush()


def check(passed: bool) -> dict[str, object]:
    text = "as it should be" if passed else "is another"
    return {"name": "delta", "passed": passed, "value": 2.5e-7, "limit": 1e-6, "text": text}


words = sys.argv[1:]
format = words[words.index("--to") + 1]
out = Path(words[words.index("--out") + 1]) if "--out" in words else Path("its-place")
say("started", format=format, out=str(out))
say("progress", done=1, total=4, label="tensors", unit="parts")
if format == "fused":
    time.sleep(600)
if format == "hub":
    sys.exit("error: the line went dead.")
if format == "lmstudio" and "--force" not in words:
    taken = {"message": "its-place: is there already.", "what_to_do": "Replace it with --force."}
    say("failed", kind="target_exists", **taken)
    sys.exit(1)
if format == "peft":
    say("verified", checks=[check(False)])
    say("failed", kind="", message="delta: is another.", what_to_do="Write --dtype float32.")
    sys.exit(1)
say("progress", done=4, total=4, label="tensors", unit="parts")
say("verified", checks=[check(True)])
if format == "mlx":
    out.mkdir(parents=True, exist_ok=True)
    (out / "adapters.safetensors").write_text("x" * 100)
files = [{"name": "adapters.safetensors", "bytes": 38_000_000}]
say(
    "finished", format=format, path=str(out), files=files, seconds=0.4,
    command=f"use-{format} {out}", notes=[" ".join(words[words.index("--json") :])],
)  # fmt: skip

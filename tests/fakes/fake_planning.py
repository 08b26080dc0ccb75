"""Stand-ins of `orpo-mlx fit --json` and `orpo-mlx data check --json`, with made-up numbers.

The first word says which. A model weighs 1 GB, and 10 bytes more for each token of
--max-seq-length, so that a changed setting is seen; a model whose name holds "huge" does not fit,
a folder named unusable holds none;
data named broken cannot be read, org/far is downloaded for ever, and odd.jsonl has no known layout
until --map gives it one.
"""

from __future__ import annotations

import json
import sys
from typing import NoReturn

THERE = 8_000_000_000


def value_of(flag: str, default: str = "") -> str:
    return sys.argv[sys.argv.index(flag) + 1] if flag in sys.argv else default


def fit() -> dict[str, object]:
    if value_of("--model").endswith("/unusable"):
        return {"event": "failed", "message": "no model is there", "what_to_do": "Choose another."}
    weights = 9_000_000_000 if "huge" in value_of("--model") else 1_000_000_000
    tokens = 10 * int(value_of("--max-seq-length", "1024"))
    suggestion = {"what": "instead", "flags": "--max-seq-length 256", "bytes": 4_000_000_000,
                  "settings": {"max_seq_length": 256}}  # fmt: skip
    answer: dict[str, object] = {
        "fits": weights + tokens <= THERE, "estimated_bytes": weights + tokens,
        "available_bytes": THERE, "parts": {"weights": weights, "head": tokens, "activations": 0},
        "scoring": "packed", "pairs": 180 if value_of("--data") else 0,
        "suggestions": [suggestion], "past_runs": [],
    }  # fmt: skip
    if "--probe" in sys.argv:
        answer["time"] = {"steps": 120, "seconds_per_step": 0.5, "seconds_total": 60.0,
                          "peak_memory_bytes": 1_100_000_000}  # fmt: skip
    if count := int(value_of("--processes", "0")):
        each = weights + tokens + 20_000_000
        answer["processes"] = {
            "processes": count, "process_bytes": each, "together_bytes": count * each,
            "busiest_share": 0.52, "idle_processes": 0.0, "link_gbit": 1.0,
            "alone_seconds_per_step": 0.5, "seconds_per_step": 0.3,
        }  # fmt: skip
    return answer


def token(text: str) -> dict[str, object]:
    return {"id": 1, "text": text, "special": text.startswith("<")}


def pair(line: int, prompt: str, chosen: str, rejected: str) -> dict[str, object]:
    texts = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    tokens = {side: [token(word) for word in text.split()] for side, text in texts.items()}
    where = f"pairs.jsonl:{line}"
    raw = {"question": prompt, "good": chosen, "bad": rejected}
    if not rejected:
        return {"where": where, **texts, "raw": raw, "tokens": None, "dropped": "empty rejected"}
    return {"where": where, **texts, "raw": raw, "tokens": tokens, "dropped": ""}


def check() -> dict[str, object]:
    spread = {"p5": 2, "p50": 4, "p90": 8, "p95": 9, "p99": 9, "max": 9, "mean": 4.5,
              "histogram": {"edges": [0, 5, 10], "counts": [2, 1]}}  # fmt: skip
    finding = {"level": "warning", "code": "dropped-empty-rejected",
               "text": "dropped: empty rejected", "what_to_do": "Write one.", "count": 1,
               "rows": ["pairs.jsonl:4"]}  # fmt: skip
    bias = {"level": "info", "code": "length-bias", "text": "chosen is longer", "what_to_do": "",
            "count": 0, "rows": []}  # fmt: skip
    return {
        "data": sys.argv[2], "model": value_of("--model"),
        "layout": {"name": "plain", "columns": {}}, "read": 201, "kept": 200, "dropped": {},
        "notes": {}, "max_seq_length": 1024, "findings": [finding, bias],
        "lengths": dict.fromkeys(("prompt", "chosen", "rejected", "total"), spread),
        "limits": [{"max_seq_length": 1024, "cut": 0, "dropped": 0}],
        "pairs": [pair(1, "[red]Why[/red] ?", "So it is", "No"), pair(2, "And ?", "Yes", "Hm"),
                  pair(4, "Then ?", "Ah", "")],
        "split": {"train": 3 if "few" in sys.argv[2] else 180, "valid": 20},
        "verdict": {"level": "warnings", "text": "usable: 200 of 201 rows"},
    }  # fmt: skip


def fail(message: str, what_to_do: str) -> NoReturn:
    said = {"event": "failed", "kind": "", "message": message, "what_to_do": what_to_do}
    sys.stdout.write(json.dumps(said) + "\n")
    sys.exit(2)


if "broken" in " ".join(sys.argv):
    fail("broken.jsonl:1: not UTF-8.", "Convert it.")
if sys.argv[1:3] == ["check", "org/far"]:
    far = {"done": 1_000_000, "total": 2_000_000, "label": "org/far", "unit": "bytes"}
    sys.stderr.write("a warning\n" + json.dumps({"event": "progress", **far}) + "\n")
    sys.stderr.flush()
    sys.stdin.read()  # until the app has enough of it
if sys.argv[1] == "check" and "odd.jsonl" in sys.argv[2] and "--map" not in sys.argv:
    fail("odd.jsonl:1: no known layout. Columns found: bad, good, question.", "Use --map.")
sys.stdout.write(json.dumps(fit() if sys.argv[1] == "fit" else check(), indent=2) + "\n")

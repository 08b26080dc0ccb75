"""Write tokens.json from the strings of cases.json; it uses nothing of orpo_mlx."""

from __future__ import annotations

import json
import re
from pathlib import Path

HERE = Path(__file__).parent


def encode(text: str, special: list[str]) -> list[int]:
    """Special tokens from 256 on, every other byte by itself."""
    pattern = "(" + "|".join(map(re.escape, sorted(special, key=len, reverse=True))) + ")"
    ids: list[int] = []
    for part in re.split(pattern, text):
        ids += [256 + special.index(part)] if part in special else list(part.encode())
    return ids


def row(prompt: str, answer: str, special: list[str]) -> dict[str, list[int]]:
    before, after = encode(prompt, special), encode(answer, special)
    return {"ids": before + after, "mask": [0] * len(before) + [1] * len(after)}


def make() -> str:
    families = json.loads((HERE / "cases.json").read_text(encoding="utf-8"))
    tokens = {
        f"{name}: {case['name']}": {
            side: row(case["expect"]["prompt"], case["expect"][side], family["special"])
            for side in ("chosen", "rejected")
        }
        for name, family in families.items()
        for case in family["cases"]
    }
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in tokens.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    (HERE / "tokens.json").write_text(make(), encoding="utf-8")

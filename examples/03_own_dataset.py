"""Three ways to bring your own pairs, and how to see what will be trained on.

    python examples/03_own_dataset.py                      # with the built-in demo model
    python examples/03_own_dataset.py --model FOLDER --folder my_data

Each way writes a small JSONL file, one pair per line, and reads it back the way a training run
does. What is between [[ and ]] is scored as an answer; what stands before it is the prompt.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from orpo_mlx import demo
from orpo_mlx.data.pipeline import prepare_file
from orpo_mlx.data.tokens.tokenize import decode_pair
from orpo_mlx.models.load import load_tokenizer

MAX_SEQ_LENGTH = 256

# 1. Strings. Nothing is added but the end-of-turn token: no chat template. The answer follows the
#    prompt directly, so the space or newline between them is yours to write. For base models and
#    for text that you have formatted yourself.
STRINGS = [
    {
        "prompt": "Question: What colour is the sea?\nAnswer:",
        "chosen": " The sea is blue.",
        "rejected": " Ugh, it is blue, and now good night.",
    },
    {
        "prompt": "Question: What does a cow eat?\nAnswer:",
        "chosen": " A cow eats grass.",
        "rejected": " Everybody knows that it eats grass.",
    },
]

# 2. Messages. The model's own chat template is applied, as it will be when you chat with the model:
#    the right choice for instruct models. The prompt may hold a system turn and earlier turns.
MESSAGES = [
    {
        "prompt": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What colour is the sea?"},
        ],
        "chosen": [{"role": "assistant", "content": "Blue."}],
        "rejected": [{"role": "assistant", "content": "There are many views on this."}],
    },
    {
        "prompt": [{"role": "user", "content": "What does a cow eat?"}],
        "chosen": [{"role": "assistant", "content": "Grass."}],
        "rejected": [{"role": "assistant", "content": "Grass. "}],
    },
]


# 3. Token ids, when you tokenize elsewhere. They are taken exactly as they are: special tokens,
#    template and the end-of-turn token are yours to put in, or the model never learns to stop.
def tokenized(tokenizer: Any) -> list[dict[str, Any]]:
    """Return one pair as ids: BOS and prompt, and answers that end with EOS."""

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return [
        {
            "prompt_ids": bos + ids("The sea is"),
            "chosen_ids": [*ids(" blue."), tokenizer.eos_token_id],
            "rejected_ids": [*ids(" a hoax."), tokenizer.eos_token_id],
        }
    ]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object per line; real line breaks inside a text become \\n."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


def show(path: Path, tokenizer: Any) -> None:
    """Prepare a file as a run would, and print what became of its rows."""
    prepared = prepare_file(path, tokenizer, MAX_SEQ_LENGTH)
    account = prepared.account
    print(f"\n{path.name}: {prepared.layout}")
    print(f"  {account.read} read, {account.kept} kept")
    # Rows that teach nothing are left out, never silently.
    for reason, count in account.dropped.items():
        print(f"  {count} dropped: {reason} ({', '.join(account.offenders[reason])})")
    for pair in prepared.pairs:
        text = decode_pair(pair, tokenizer)
        for name in ("chosen", "rejected"):
            # repr, because a missing space or a doubled newline is what one looks for here
            print(f"  {name:<8}  {text['prompt']!r} [[{text[name]!r}]]")


def main() -> None:
    """Write the three files and show each."""
    parser = argparse.ArgumentParser(description="Three ways to bring your own pairs.")
    parser.add_argument("--model", type=Path, default=demo.model_path(), help="model folder")
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    args = parser.parse_args()
    tokenizer = load_tokenizer(args.model)
    ways = {"strings": STRINGS, "messages": MESSAGES, "tokenized": tokenized(tokenizer)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in ways.items():
            write_rows(folder / f"{name}.jsonl", rows)
            show(folder / f"{name}.jsonl", tokenizer)
    print("\nTo train: python -m orpo_mlx.train --model MODEL --data FILE (first with --dry-run)")


if __name__ == "__main__":
    main()

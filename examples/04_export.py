"""From an adapter to other programs: trained, exported three ways, and asked a question.

    python examples/04_export.py                      # with the built-in demo model
    python examples/04_export.py --run RUN --folder exported

Each export opens what it wrote and checks it, and ends with the command that uses it. The fused
model needs no adapter any more: mlx-lm loads it here by itself and answers as base + adapter does.
"""

import argparse
import tempfile
from pathlib import Path

import mlx_lm

import orpo_mlx
from orpo_mlx import demo
from orpo_mlx.cli.commands.export import main as export
from orpo_mlx.config import TrainConfig
from orpo_mlx.runs.listing import find_run

PROMPT = "What colour is the sea?"

# Who reads what; `orpo-mlx export --list` has the other formats. To merge into a GGUF that you
# have, for Ollama or LM Studio: --to gguf --base-gguf FILE.
EXPORTS = {
    "peft": "peft",  # PEFT, transformers, vLLM
    "gguf-lora": "adapter.gguf",  # llama.cpp: llama-cli -m BASE.gguf --lora adapter.gguf
    "fused": "model",  # the whole tuned model, in the original's layout
}


def train_demo(folder: Path) -> Path:
    """Train the demo model for a few steps; return the run's folder."""
    config = TrainConfig(
        model=str(demo.model_path()),
        data=str(demo.train_path()),
        steps=16,
        valid_fraction=0,
        learning_rate=5e-3,
        micro_batch_size=4,
        run_dir=str(folder / "run"),
    )
    orpo_mlx.train(config)
    return folder / "run"


def answer(model: str, adapter: str | None = None) -> str:
    """Ask by mlx-lm alone."""
    loaded, tokenizer = mlx_lm.load(model, adapter_path=adapter)[:2]
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": PROMPT}], add_generation_prompt=True
    )
    return mlx_lm.generate(loaded, tokenizer, prompt=prompt, max_tokens=12).strip()


def main() -> None:
    """Train if no run is given, export, and compare the answers."""
    parser = argparse.ArgumentParser(description="An adapter for other programs.")
    parser.add_argument("--run", help="a run of yours; without it, one of the demo is trained")
    parser.add_argument("--folder", help="where the exports go; default: a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.folder or temporary)
        run = Path(find_run(arguments.run).path) if arguments.run else train_demo(Path(temporary))
        for format, name in EXPORTS.items():
            export([str(run), "--to", format, "--out", str(folder / name)])
            print()
        base = str(find_run(str(run)).read_config().model)
        print(PROMPT)
        print(f"base            {answer(base)}")
        print(f"base + adapter  {answer(base, str(run / 'adapter'))}")
        print(f"fused model     {answer(str(folder / 'model'))}")


if __name__ == "__main__":
    main()

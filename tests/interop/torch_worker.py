"""Real torch, transformers and PEFT, and llama.cpp's converters, which need them."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from worker import serve

SOURCE = Path(sys.argv[1])
"""llama.cpp's source."""
for part in (SOURCE, SOURCE / "gguf-py"):
    sys.path.insert(0, str(part))


def make_model(folder: str, seed: int, bits: int | None = None) -> None:
    """Write random weights for a config.json, under the names that transformers saves.

    Large and different everywhere, so that a swapped or shifted tensor shows. With `bits`, linear
    and embedding weights are rounded to what MLX makes of them when it quantizes.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    path = Path(folder)
    config = json.loads((path / "config.json").read_text())
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path), dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            _draw(name, parameter, config["model_type"])
    aside = path / "aside"
    model.save_pretrained(aside)
    shutil.move(aside / "model.safetensors", path / "model.safetensors")
    shutil.rmtree(aside)


def _draw(name: str, parameter: torch.Tensor, model_type: str) -> None:
    noise = torch.randn_like(parameter)
    if name.endswith(("A_log", "dt_bias", "layer_scalar")):
        parameter.add_(0.1 * noise)
    elif parameter.ndim == 1:
        # Gemma 1 to 3 and Qwen3.5 add 1 to the weights of their norms, others do not.
        parameter.add_(0.1 * noise)
    elif "embed" in name:
        parameter.copy_(0.5 * noise)
    else:
        fan_in = parameter.shape[-1] if "conv" not in name else 4
        parameter.copy_(noise / fan_in**0.5)


def tensors(folder: str, out: str) -> None:
    """Nothing but a copy in numpy's format, for a Python without torch."""
    arrays = load_file(Path(folder) / "model.safetensors")
    np.savez(out, **{name: array.float().numpy() for name, array in arrays.items()})


def put_tensors(folder: str, arrays: str) -> None:
    """The way back: write a model's weights from numpy's format."""
    loaded = np.load(arrays)
    found = {name: torch.from_numpy(np.ascontiguousarray(loaded[name])) for name in loaded.files}
    save_file(found, Path(folder) / "model.safetensors", metadata={"format": "pt"})


def convert_model(
    folder: str, out: str, outtype: str = "f32", options: tuple[str, ...] = ()
) -> str:
    """Run llama.cpp's convert_hf_to_gguf.py; returns the path of the GGUF."""
    _run("convert_hf_to_gguf.py", folder, "--outfile", out, "--outtype", outtype, *options)
    return out


def convert_lora(folder: str, base: str, out: str) -> str:
    """Run llama.cpp's convert_lora_to_gguf.py; returns the path of the GGUF."""
    _run("convert_lora_to_gguf.py", folder, "--base", base, "--outfile", out, "--outtype", "f32")
    return out


def _run(script: str, *words: str) -> None:
    import conversion

    given = sys.argv
    real = conversion.get_model_class
    sys.argv = [script, *words]
    try:
        conversion.get_model_class = _with_any_vocabulary(real)
        runpy.run_path(str(SOURCE / script), run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
    finally:
        conversion.get_model_class, sys.argv = real, given


def _with_any_vocabulary(get_model_class: Any) -> Any:
    """The converter knows tokenizers by a hash; ours, trained on the spot, is byte-level BPE."""
    from conversion import TextModel

    def get(*words: Any, **named: Any) -> Any:
        found = get_model_class(*words, **named)
        TextModel.get_vocab_base_pre = lambda self, tokenizer: "llama-bpe"
        found.set_vocab = lambda self: TextModel._set_vocab_gpt2(self)
        return found

    return get


def peft_logps(base: str, adapter: str | None, prompts: list[list[int]], out: str) -> list[str]:
    """Write the log-probs with transformers and PEFT; returns the warnings of loading."""
    import warnings

    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, adapter)
    model.eval()
    arrays = {}
    with torch.no_grad():
        for number, prompt in enumerate(prompts):
            logits = model(torch.tensor([prompt])).logits[0].double()
            arrays[str(number)] = torch.log_softmax(logits, -1).numpy()
    np.savez(out, **arrays)
    # What one part of Hugging Face says to another about its next version is not meant for us.
    own = [w for w in caught if not issubclass(w.category, FutureWarning | DeprecationWarning)]
    return [str(warning.message) for warning in own]


def peft_rewards(base: str, adapter: str, prompts: list[list[int]]) -> list[float]:
    """Return what transformers' sequence classifier makes of each prompt with PEFT's adapter."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    model: Any = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=1, dtype=torch.float32
    )
    model = PeftModel.from_pretrained(model, adapter).eval()
    with torch.no_grad():
        return [model(torch.tensor([prompt])).logits.item() for prompt in prompts]


if __name__ == "__main__":
    serve(make_model, tensors, put_tensors, convert_model, convert_lora, peft_logps, peft_rewards)

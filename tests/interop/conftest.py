"""Real llama.cpp and real PEFT beside MLX, on tiny models of every architecture in the table.

Each other program runs in an environment of its own (`setup.sh`) and is asked over a pipe. A model
is made by transformers, under Hugging Face's names, so that neither its names nor its weights come
from what is tested.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent
HOME = Path(os.environ.get("ORPO_MLX_INTEROP") or HERE.parents[1] / ".interop")


def _load_architectures() -> Any:
    path = HERE.parent / "fakes" / "architectures.py"
    spec = importlib.util.spec_from_file_location("fakes_architectures", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ARCHITECTURES = _load_architectures()
GELU_TABLE = (
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3 with vision",
    "gemma4",
    "gemma4 with vision",
    "starcoder2",
)
"""llama.cpp takes GELU from a table in half precision: these differ without any adapter, too."""
EXACT_GELU = ("gemma", "starcoder2")
"""mlx-lm computes their GELU exactly, transformers approximates it: they differ from the start."""
PER_EXPERT = ("mixtral", "qwen2_moe", "qwen3_moe")
"""transformers 5 stacks their experts; PEFT knows single ones with transformers 4."""

CONVERTER_OPTIONS = {"qwen3_5": ("--no-mtp",)}

RNG = np.random.default_rng(7)
PROMPTS = [RNG.integers(4, 250, size).tolist() for size in (1, 5, 12, 20, 31)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for `architecture` once for each model."""
    if "architecture" in metafunc.fixturenames:
        metafunc.parametrize("architecture", ARCHITECTURES.MODELS)


class Worker:
    """Another Python, started when first asked, started again after a crash."""

    def __init__(self, environment: dict[str, str], *command: str | Path) -> None:
        self.environment = environment
        self.command = [str(word) for word in command]
        self.process: subprocess.Popen[str] | None = None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda **args: self._ask(name, args)

    def _ask(self, name: str, args: dict[str, Any]) -> Any:
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, text=True,
                env={**_clean_environment(), **self.environment},
            )  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = {"call": name, "args": args}
        self.process.stdin.write(json.dumps(request, default=str) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"{self.command[-1]} died ({self.process.wait()}) at {request}")
        answer = json.loads(line)
        if "error" in answer:
            raise AssertionError(answer["error"])
        return answer["result"]

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process.wait()


def _clean_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "0"}


@pytest.fixture(scope="session")
def torch_worker() -> Iterator[Any]:
    """Calls of `torch_worker.py`."""
    yield from _worker(HOME / "torch/bin/python", HERE / "torch_worker.py", HOME / "source")


@pytest.fixture(scope="session")
def torch_before_worker() -> Iterator[Any]:
    """The same with transformers 4, whose experts are layers of their own."""
    path = {"PYTHONPATH": str(HOME / "transformers4")}
    yield from _worker(HOME / "torch/bin/python", HERE / "torch_worker.py", HOME / "source", **path)


@pytest.fixture(scope="session")
def llama_worker() -> Iterator[Any]:
    """Calls of `llama_worker.py`."""
    yield from _worker(HOME / "llama/bin/python", HERE / "llama_worker.py")


def _worker(python: Path, *command: Path, **environment: str) -> Iterator[Worker]:
    if not python.exists():
        pytest.skip(f"no {python}: run tests/interop/setup.sh, or set ORPO_MLX_INTEROP")
    worker = Worker(environment, python, *command)
    yield worker
    worker.close()


@dataclass
class Bench:
    """One tiny model in every program, and the answers of each, as log-probs per prompt.

    Attributes:
        name: of the architecture in `MODELS`.
        bits: "float32" or "4-bit": of the MLX model. The Hugging Face folder and the base GGUF
            then hold the same values, unpacked.
        folder: config.json, tokenizer and weights as transformers writes them.
        mlx_folder: what MLX loads; the same folder unless quantized.
        work: a folder for what is made on the way.
    """

    name: str
    bits: str
    folder: Path
    mlx_folder: Path
    work: Path
    torch: Any
    torch_before: Any
    llama: Any
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def tolerance(self) -> float:
        """Largest difference of a log-prob that llama.cpp may have from MLX."""
        return 2e-2 if self.name in GELU_TABLE else 2e-3

    @property
    def torch_tolerance(self) -> float:
        """Largest difference of a log-prob that torch may have from MLX."""
        return 2e-2 if self.name in EXACT_GELU else 2e-4

    def base_gguf(self) -> Path:
        """The base as a float32 GGUF, by the official converter."""
        if "base" not in self.made:
            self.made["base"] = self.to_gguf(self.folder, "base.gguf")
        return self.made["base"]

    def to_gguf(self, folder: Path, name: str, outtype: str = "f32") -> Path:
        """Convert a folder in Hugging Face's layout by the official converter."""
        options = CONVERTER_OPTIONS.get(self.name, ())
        out = self.work / name
        self.torch.convert_model(folder=folder, out=out, outtype=outtype, options=options)
        return out

    def lora_by_converter(self, peft: Path, name: str) -> Path:
        """Convert a PEFT adapter by the official converter."""
        out = self.work / name
        self.torch.convert_lora(folder=peft, base=self.folder, out=out)
        return out

    def in_llama(self, model: Path, lora: Path | None = None) -> list[np.ndarray]:
        """Ask llama.cpp."""
        out = self.work / "llama.npz"
        self.llama.logps(model=model, lora=lora, prompts=PROMPTS, out=out)
        return _read(out)

    def in_peft(self, adapter: Path | None, folder: Path | None = None) -> list[np.ndarray]:
        """Ask transformers, with an adapter by PEFT; loading must not warn."""
        out = self.work / "torch.npz"
        asked = self.torch_before if self.name in PER_EXPERT else self.torch
        said = asked.peft_logps(
            base=folder or self.folder, adapter=adapter, prompts=PROMPTS, out=out
        )
        assert not said, said
        return _read(out)

    def in_newest_peft(self, adapter: Path | None, folder: Path | None = None) -> list[np.ndarray]:
        """Ask transformers 5, with an adapter by PEFT, whatever it warns of."""
        out = self.work / "newest.npz"
        base = folder or self.folder
        self.torch.peft_logps(base=base, adapter=adapter, prompts=PROMPTS, out=out)
        return _read(out)

    def in_mlx(self, adapter: Path | None = None, folder: Path | None = None) -> list[np.ndarray]:
        """Ask mlx-lm, which loads model and adapter by itself."""
        import mlx.core as mx
        from mlx_lm.tuner.utils import load_adapters
        from mlx_lm.utils import load_model

        model, _ = load_model(folder or self.mlx_folder)
        if adapter is not None:
            model = load_adapters(model, str(adapter))
        model.eval()
        found = []
        for prompt in PROMPTS:
            logits = model(mx.array([prompt]))[0].astype(mx.float32)
            found.append(np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True)))
        return found

    def rewards_in_mlx(self, adapter: Path) -> list[float]:
        """Put a head beside an adapter and on what mlx-lm makes of each prompt's last token."""
        import mlx.core as mx
        from mlx_lm.tuner.utils import load_adapters
        from mlx_lm.utils import load_model

        model = load_adapters(load_model(self.mlx_folder)[0], str(adapter)).eval()
        states = [model.model(mx.array([prompt]))[0, -1] for prompt in PROMPTS]
        head = mx.random.normal((1, states[0].size), key=mx.random.key(5)) / states[0].size ** 0.5
        mx.save_safetensors(str(adapter / "reward_head.safetensors"), {"score.weight": head})
        return [(state @ head[0]).item() for state in states]

    def rewards_in_peft(self, adapter: Path) -> list[float]:
        """Ask transformers' sequence classifier with an adapter by PEFT."""
        return self.torch.peft_rewards(base=self.folder, adapter=adapter, prompts=PROMPTS)


def _read(path: Path) -> list[np.ndarray]:
    with np.load(path) as arrays:
        return [arrays[str(number)] for number in range(len(PROMPTS))]


@pytest.fixture(scope="session")
def difference() -> Callable[[list[np.ndarray], list[np.ndarray]], float]:
    """Return `difference(one, other)`: the largest of any log-prob at any position."""

    def largest(one: list[np.ndarray], other: list[np.ndarray]) -> float:
        return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))

    return largest


@pytest.fixture(scope="session")
def make_bench(
    torch_worker: Any,
    torch_before_worker: Any,
    llama_worker: Any,
    _tokenizer_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, str], Bench]:
    """Return `make(architecture, bits) -> Bench`; each is made once."""
    made: dict[tuple[str, str], Bench] = {}

    def make(name: str, bits: str = "float32") -> Bench:
        if (name, bits) not in made:
            work = tmp_path_factory.mktemp("interop")
            # Not the name: llama.cpp reads "phi3" in a file's name as a kind of tokenizer.
            folder = work / "model"
            _write_settings(folder, name, _tokenizer_folder)
            torch_worker.make_model(folder=folder, seed=3)
            mlx_folder = folder
            if bits == "4-bit":
                mlx_folder = work / "quantized"
                _quantize(folder, mlx_folder, torch_worker, work)
            made[name, bits] = Bench(
                name,
                bits,
                folder,
                mlx_folder,
                work,
                torch_worker,
                torch_before_worker,
                llama_worker,
            )
        return made[name, bits]

    return make


def _write_settings(folder: Path, name: str, tokenizer: Path) -> None:
    folder.mkdir()
    for file in tokenizer.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    config = ARCHITECTURES.build_config(name, len(vocabulary["model"]["vocab"]))
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def _quantize(folder: Path, mlx_folder: Path, torch_worker: Any, work: Path) -> None:
    """Write the model packed to 4 bits for MLX, and round the original to the same values."""
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten
    from mlx_lm.utils import load_model

    model, config = load_model(folder)
    nn.quantize(model, group_size=32, bits=4)
    mlx_folder.mkdir()
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (mlx_folder / file.name).write_bytes(file.read_bytes())
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(mlx_folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    config["quantization"] = {"group_size": 32, "bits": 4}
    (mlx_folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    plain, rounded = work / "plain.npz", work / "rounded.npz"
    torch_worker.tensors(folder=folder, out=plain)
    with np.load(plain) as arrays:
        np.savez(rounded, **{name: _rounded(arrays[name]) for name in arrays.files})
    torch_worker.put_tensors(folder=folder, arrays=rounded)


def _rounded(array: np.ndarray) -> np.ndarray:
    import mlx.core as mx

    if array.ndim != 2:
        return array
    packed = mx.quantize(mx.array(array), group_size=32, bits=4)
    return np.array(mx.dequantize(*packed, group_size=32, bits=4))


@pytest.fixture(scope="session")
def make_adapter(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return `make(bench, spec) -> folder`: a random adapter, A and B both far from zero."""

    def make(bench: Bench, spec: Any) -> Path:
        import mlx.core as mx
        from mlx.utils import tree_flatten
        from mlx_lm.utils import load_model

        from orpo_mlx.adapters.files import save_adapter
        from orpo_mlx.adapters.lora import attach_adapter

        model, _ = load_model(bench.mlx_folder)
        attach_adapter(model, spec, seed=5)
        mx.random.seed(11)
        drawn = [
            (name, 0.3 * mx.random.normal(array.shape) / array.shape[-1 if "_a" in name else -2])
            for name, array in tree_flatten(model.trainable_parameters())
            if not name.endswith(".m")
        ]
        model.load_weights(drawn, strict=False)
        folder = tmp_path_factory.mktemp("adapter") / "adapter"
        save_adapter(model, spec, folder, base_model=str(bench.mlx_folder))
        return folder

    return make

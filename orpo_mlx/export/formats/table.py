"""The formats an adapter can be exported to, and the options each takes. Declared once, here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """One value of `--to`.

    Attributes:
        name: the word after `--to`.
        what: what is written, in a few words.
        who_reads_it: the programs that take it.
        loss: what is lost on the way.
        module: the file of `orpo_mlx/export/formats` whose `export` writes it.
        options: names of the `OPTIONS` it takes.
        suffix: ".gguf" if it writes one file, "" if it writes a folder.
        size: about how large it is.
        carries_head: whether a reward model can go out by it.
        verified: other programs, with their versions, in which `tests/interop` compared it.
    """

    name: str
    what: str
    who_reads_it: str
    loss: str
    module: str
    options: tuple[str, ...] = ()
    suffix: str = ""
    size: str = ""
    verified: str = ""
    carries_head: bool = False


@dataclass(frozen=True)
class Option:
    """An option that only some formats take.

    Attributes:
        name: as in `Target.options`; the flag is --name with dashes.
        metavar: what stands for its value in the help; "" makes it a switch.
        help: one line.
        values: the values allowed, () for any.
    """

    name: str
    metavar: str
    help: str
    values: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """The word on the command line."""
        return "--" + self.name.replace("_", "-")


OPTIONS: tuple[Option, ...] = (
    Option(
        "dtype",
        "TYPE",
        "Number format of what is written: float32 (the default for adapters), float16 or "
        "bfloat16.",
        ("float32", "float16", "bfloat16"),
    ),
    Option(
        "base_id",
        "OWNER/NAME",
        "Hub id of the original (not MLX) base model, for programs that load it by name.",
    ),
    Option(
        "original",
        "MODEL",
        "The model the MLX base was made from, a folder or OWNER/NAME: its config.json and "
        "tokenizer files are taken.",
    ),
    Option(
        "quantize",
        "BITS",
        "Write a quantized MLX model (for LM Studio) instead of full precision: 4, 8, ...",
        ("2", "3", "4", "5", "6", "8"),
    ),
    Option("name", "NAME", "What the model is called in Ollama. [default: the run's name]"),
    Option("run", "", "Run `ollama create` too."),
    Option("repo", "OWNER/NAME", "Repository on the Hub; made if it is not there."),
    Option(
        "content",
        "FORMAT",
        "What is uploaded: mlx (the default), peft or fused.",
        ("mlx", "peft", "fused"),
    ),
    Option("public", "", "Make the repository public; it is private otherwise."),
    Option(
        "base_gguf",
        "FILE",
        "The GGUF of the base model to merge into: a file, or a Hub repository as "
        "OWNER/NAME:FILE.gguf. Without it gguf is made from the MLX weights.",
    ),
    Option(
        "weights_dtype",
        "TYPE",
        "Number format of the weights the adapter changes: keep (that of the base GGUF, q8_0 where "
        "it is coarser; the default), float32, float16, bfloat16 or q8_0. Without a base GGUF: of "
        "all weights, keep being that of the MLX model.",
        ("keep", "float32", "float16", "bfloat16", "q8_0"),
    ),
)

FORMATS: tuple[Format, ...] = (
    Format(
        "mlx",
        "the adapter folder, with a model card and checksums",
        "mlx-lm, orpo-mlx",
        "none",
        "mlx",
        ("base_id",),
        size="the adapter's, as trained",
        verified="mlx-lm 0.32.2",
    ),
    Format(
        "peft",
        "adapter_config.json and adapter_model.safetensors",
        "PEFT, transformers, vLLM, llama.cpp's converter",
        "none in float32",
        "peft",
        ("dtype", "base_id"),
        carries_head=True,
        size="4 bytes a weight of the adapter; 2 in half precision",
        verified="PEFT 0.21.2 with torch 2.13.0 and transformers 5.23.0 (mixtures of experts: "
        "4.57.6); llama.cpp's converter of 2026-10",
    ),
    Format(
        "gguf-lora",
        "the adapter alone as one GGUF file, for a GGUF of the base model",
        "llama.cpp (--lora), llama-cpp-python",
        "none in float32",
        "gguf_lora",
        ("dtype",),
        ".gguf",
        size="as peft",
        verified="llama.cpp of 2026-10 in llama-cpp-python 0.3.36; every tensor equal to the "
        "official converter's",
    ),
    Format(
        "fused",
        "the tuned model as a folder in the original Hugging Face layout, or quantized for MLX",
        "mlx-lm, transformers, vLLM, LM Studio, llama.cpp's converter",
        "rounding to the number format; more with --quantize",
        "fused",
        ("dtype", "base_id", "original", "quantize"),
        size="the whole model: 2 bytes a weight in half precision, 4 in float32; about 0.6 with "
        "--quantize 4",
        verified="mlx-lm 0.32.2, transformers 5.23.0, llama.cpp's converter and llama.cpp of "
        "2026-10; quantized: mlx-lm 0.32.2",
    ),
    Format(
        "gguf",
        "a complete GGUF of the tuned model, made from the MLX weights or merged into a GGUF of "
        "the base model",
        "llama.cpp, Ollama, LM Studio, llama-cpp-python",
        "rounding to the number format; merged only of what changes",
        "gguf_merged",
        ("base_gguf", "weights_dtype"),
        ".gguf",
        size="2 bytes a weight in half precision, 1 in q8_0; merged the base GGUF's, more where "
        "coarser weights become q8_0",
        verified="llama.cpp of 2026-10 in llama-cpp-python 0.3.36, with F32 and Q8_0 bases; made "
        "from the MLX weights in F32 every tensor equal to the official converter's",
    ),
    Format(
        "ollama",
        "a folder with a merged GGUF and a Modelfile: template, stop tokens, parameters",
        "Ollama (ollama create)",
        "as gguf",
        "ollama",
        ("base_gguf", "weights_dtype", "name", "run"),
        size="as gguf",
        verified="its GGUF as gguf; the Modelfile by its own tests, in no Ollama",
    ),
    Format(
        "lmstudio",
        "the tuned model in LM Studio's folder, quantized as its base; with --base-gguf a GGUF",
        "LM Studio",
        "that of quantizing anew, which is measured and said",
        "lmstudio",
        ("quantize", "base_gguf", "weights_dtype", "base_id"),
        size="the base's, or as gguf",
        verified="its files as fused and gguf; in no LM Studio",
    ),
    Format(
        "hub",
        "the adapter or the tuned model in a repository on the Hugging Face Hub",
        "whoever may read the repository",
        "what the uploaded format loses",
        "hub",
        ("repo", "content", "public", "base_id", "dtype", "original", "quantize"),
        size="that of the uploaded format",
        verified="huggingface_hub 2.4.0 with a stand-in of the Hub",
    ),
)


def find_format(name: str) -> Format | None:
    """Return the format of this name, None if there is none."""
    return next((one for one in FORMATS if one.name == name), None)

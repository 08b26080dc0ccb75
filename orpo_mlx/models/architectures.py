"""THE table: which architectures can leave MLX, what their layers are called, how rows are ordered.

Three programs name the same weight differently:

    MLX                                      Hugging Face (PEFT)                 GGUF
    model.layers.3.self_attn.q_proj          the same                            blk.3.attn_q
    model.layers.3.mlp.switch_mlp.up_proj    ...layers.3.mlp.experts.7.up_proj   blk.3.ffn_up_exps
    language_model.model.layers.3. ...       by root, see `Architecture`         blk.3. ...

and GGUF files hold the rows of some weights in another order. All of that is data here; no other
file knows a model by its name. To add an architecture: read its class in llama.cpp's `conversion/`
folder for names and order, add a row, and run `tests/interop`, which holds every row to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from orpo_mlx.errors import ExportError

Config = Mapping[str, Any]
Indices = np.ndarray
"""`new[i] = old[indices[i]]` along one axis."""


@dataclass(frozen=True)
class GgufOrder:
    """How GGUF orders a weight [O, I]: its rows and its columns; None leaves them.

    With factors B [O, R] and A [R, I]: the rows of B, the columns of A.
    """

    rows: Indices | None = None
    columns: Indices | None = None

    def ordered(self, weight: np.ndarray) -> np.ndarray:
        """Return a weight [O, I] as GGUF has it."""
        weight = weight if self.rows is None else weight[self.rows]
        return weight if self.columns is None else weight[:, self.columns]

    def restored(self, weight: np.ndarray) -> np.ndarray:
        """Return a weight [..., O, I] of GGUF as MLX has it."""
        weight = weight if self.rows is None else weight[..., np.argsort(self.rows), :]
        return weight if self.columns is None else weight[..., np.argsort(self.columns)]


# Orders


def _rope_rows(heads: int, outputs: int) -> Indices:
    """Rotary halves side by side: in each head, row h + i comes right after row i."""
    return np.arange(outputs).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)


def _query_rows(config: Config, outputs: int) -> GgufOrder:
    return GgufOrder(rows=_rope_rows(config["num_attention_heads"], outputs))


def _key_rows(config: Config, outputs: int) -> GgufOrder:
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    return GgufOrder(rows=_rope_rows(heads, outputs))


def _value_heads(config: Config, width: int) -> Indices:
    """Value heads of linear attention: grouped by key head in MLX, tiled over them in GGUF.

    Args:
        width: of all value heads together.
    """
    keys, values = config["linear_num_key_heads"], config["linear_num_value_heads"]
    return np.arange(width).reshape(keys, values // keys, -1).swapaxes(0, 1).reshape(-1)


def _value_rows(config: Config, outputs: int) -> GgufOrder:
    """The last rows are values; query and key rows before them stay."""
    heads = config["linear_num_value_heads"]
    width = outputs if outputs == heads else heads * config["linear_value_head_dim"]
    before = outputs - width
    return GgufOrder(rows=np.append(np.arange(before), before + _value_heads(config, width)))


def _value_columns(config: Config, _outputs: int) -> GgufOrder:
    width = config["linear_num_value_heads"] * config["linear_value_head_dim"]
    return GgufOrder(columns=_value_heads(config, width))


# What mlx-lm changes on loading, undone


def _minus_one(weight: Any) -> Any:
    """The weight of a norm that multiplies by 1 + weight."""
    return weight - 1.0


def _kernel_last(weight: Any) -> Any:
    """[C, K, 1] to [C, 1, K], as torch has the weight of a convolution."""
    return weight.swapaxes(1, 2)


# What GGUF holds in place of a parameter


def _unchanged(values: np.ndarray) -> np.ndarray:
    return values


def _decay(values: np.ndarray) -> np.ndarray:
    """The logarithm of a decay is kept as what it is multiplied with."""
    return -np.exp(values)


def _kernel(values: np.ndarray) -> np.ndarray:
    """[C, 1, K] to [C, K]."""
    return values[:, 0]


# Architectures


@dataclass(frozen=True)
class Architecture:
    """One row of the table.

    Attributes:
        title: as people call these models.
        model_types: `model_type` in config.json.
        gguf: `general.architecture` of a GGUF file.
        inner: name inside a block in MLX to name inside `blk.N.` in GGUF.
        experts: name inside a block in MLX to the one in Hugging Face, with {e} for the number of
            the expert: MLX and GGUF stack the experts of a block in one tensor.
        orders: rows or columns that GGUF orders differently, by name inside a block.
        root: what stands before "layers" and "embed_tokens" in MLX, in the class that
            `AutoModelForCausalLM` loads (for PEFT), and in the weight files of the original.
        head: the output layer in MLX; elsewhere "lm_head".
        peft_note: what to know about this model in PEFT; often empty.
        is_idle_in_vllm: whether vLLM finds none of the layers that PEFT's names mean, and says
            nothing: it loads another class than `AutoModelForCausalLM` (vLLM 34186, 48019).
        restores: what undoes mlx-lm's changes on loading, by the end of a parameter's name.
        adds_one_to_norms: whether GGUF has the weights of norms one larger, as 1 + weight is what
            the model multiplies by.
        converter_options: of llama.cpp's convert_hf_to_gguf.py, for what mlx-lm leaves out.
        written: of parameters that GGUF has under a name or in a form of its own: name inside a
            block in MLX to name inside `blk.N.` and what makes its values of the original's.
    """

    title: str
    model_types: tuple[str, ...]
    gguf: str
    inner: Mapping[str, str]
    experts: Mapping[str, str] = field(default_factory=dict)
    orders: Mapping[str, Callable[[Config, int], GgufOrder]] = field(default_factory=dict)
    root: tuple[str, str, str] = ("model.", "model.", "model.")
    head: str = "lm_head"
    peft_note: str = ""
    is_idle_in_vllm: bool = False
    restores: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    adds_one_to_norms: bool = False
    converter_options: tuple[str, ...] = ()
    written: Mapping[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = field(
        default_factory=dict
    )

    def restored(self, name: str, array: Any) -> Any:
        """Return a parameter as the original has it; `name` is its full name in MLX."""
        for end, restore in self.restores.items():
            if name.endswith(end):
                return restore(array)
        return array

    def gguf_name(self, path: str) -> str | None:
        """Return the GGUF tensor of a layer, "blk.3.attn_q.weight"; None if it has none."""
        if path == self.head:
            return "output.weight"
        if path == f"{self.root[0]}embed_tokens":
            return "token_embd.weight"
        block, inner = self._split(path)
        name = self.inner.get(inner) if block else None
        return f"blk.{block}.{name}.weight" if name else None

    def gguf_parameter(
        self, path: str, key: str
    ) -> tuple[str, Callable[[np.ndarray], np.ndarray]] | None:
        """Return the name in GGUF of a parameter in a form of its own, and what makes its values.

        The order of rows is not part of it. None: it is a usual one.
        """
        block, inner = self._split(path)
        found = self.written.get(f"{inner}.{key}".removeprefix("."))
        return (f"blk.{block}.{found[0]}", found[1]) if block and found else None

    def peft_names(self, path: str, experts: int = 0) -> list[str]:
        """Return the Hugging Face module of a layer, or those of all its experts, for PEFT."""
        return self._theirs(path, experts, self.root[1])

    def checkpoint_names(self, path: str, experts: int = 0) -> list[str]:
        """Return the same names as the original's weight files have them, without ".weight"."""
        return self._theirs(path, experts, self.root[2])

    def mlx_name(self, name: str) -> tuple[str, int | None]:
        """Return the MLX layer of a Hugging Face module, and the number of the expert if any."""
        if name == "lm_head":
            return self.head, None
        known = sorted({*self.root[1:]}, key=len, reverse=True)
        root = next((r for r in known if name.startswith((f"{r}layers.", f"{r}embed"))), None)
        if root is None:
            return name, None
        rest = name[len(root) :]
        block, _, inner = rest.removeprefix("layers.").partition(".")
        for ours, theirs in self.experts.items():
            if found := re.fullmatch(re.escape(theirs).replace(r"\{e\}", r"(\d+)"), inner):
                return f"{self.root[0]}layers.{block}.{ours}", int(found[1])
        return self.root[0] + rest, None

    def order(self, path: str, config: Config, outputs: int) -> GgufOrder:
        """Return how GGUF orders the rows and columns of a layer.

        Args:
            path: the layer in MLX.
            config: sizes of the language model (`BaseModel.text_config`).
            outputs: rows of its weight.
        """
        rule = self.orders.get(self._split(path)[1])
        return rule(config, outputs) if rule else GgufOrder()

    def _split(self, path: str) -> tuple[str, str]:
        """Return (number of the block, name inside it), ("", path) for what is in no block."""
        found = re.fullmatch(re.escape(self.root[0]) + r"layers\.(\d+)(?:\.(.+))?", path)
        return (found[1], found[2] or "") if found else ("", path)

    def _theirs(self, path: str, experts: int, root: str) -> list[str]:
        if path == self.head:
            return ["lm_head"]
        block, inner = self._split(path)
        if inner in self.experts:
            pattern = f"{root}layers.{block}.{self.experts[inner]}"
            return [pattern.format(e=number) for number in range(experts)]
        ours = self.root[0]
        return [root + path[len(ours) :] if path.startswith(ours) else path]


_ATTENTION = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
}
_MLP = {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
_USUAL = {**_ATTENTION, **_MLP}
_ROUTER = {"mlp.gate": "ffn_gate_inp"}
_EXPERTS = {
    "mlp.switch_mlp.gate_proj": "ffn_gate_exps",
    "mlp.switch_mlp.up_proj": "ffn_up_exps",
    "mlp.switch_mlp.down_proj": "ffn_down_exps",
}
_EXPERT_NAMES = {name: name.replace("switch_mlp", "experts.{e}") for name in _EXPERTS}
_ROPE = {"self_attn.q_proj": _query_rows, "self_attn.k_proj": _key_rows}
_SHARED_EXPERT = {
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
}
_LINEAR_ATTENTION = {
    "linear_attn.in_proj_qkv": "attn_qkv",
    "linear_attn.in_proj_z": "attn_gate",
    "linear_attn.in_proj_a": "ssm_alpha",
    "linear_attn.in_proj_b": "ssm_beta",
    "linear_attn.out_proj": "ssm_out",
}
_LAYER_SCALE = {"layer_scalar": ("layer_output_scale.weight", _unchanged)}
_PER_LAYER_INPUT = {"per_layer_input_gate": "inp_gate", "per_layer_projection": "proj"}

ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(
        "Llama, Mistral, SmolLM 1 and 2", ("llama", "mistral"), "llama", _USUAL, orders=_ROPE
    ),
    Architecture(
        "Mixtral",
        ("mixtral",),
        "llama",
        {
            **_ATTENTION,
            "block_sparse_moe.gate": "ffn_gate_inp",
            "block_sparse_moe.switch_mlp.gate_proj": "ffn_gate_exps",
            "block_sparse_moe.switch_mlp.up_proj": "ffn_up_exps",
            "block_sparse_moe.switch_mlp.down_proj": "ffn_down_exps",
        },
        experts={
            "block_sparse_moe.switch_mlp.gate_proj": "block_sparse_moe.experts.{e}.w1",
            "block_sparse_moe.switch_mlp.down_proj": "block_sparse_moe.experts.{e}.w2",
            "block_sparse_moe.switch_mlp.up_proj": "block_sparse_moe.experts.{e}.w3",
        },
        orders=_ROPE,
    ),
    Architecture("Qwen2, Qwen2.5", ("qwen2",), "qwen2", _USUAL),
    Architecture(
        "Qwen2-MoE",
        ("qwen2_moe",),
        "qwen2moe",
        {**_ATTENTION, **_ROUTER, **_EXPERTS, **_SHARED_EXPERT},
        experts=_EXPERT_NAMES,
        peft_note="PEFT 0.21 with transformers 5 leaves out the experts of this model, and does "
        "not say so; use it with transformers 4.",
    ),
    Architecture("Qwen3", ("qwen3",), "qwen3", _USUAL),
    Architecture(
        "Qwen3-MoE",
        ("qwen3_moe",),
        "qwen3moe",
        {**_ATTENTION, **_ROUTER, **_EXPERTS},
        experts=_EXPERT_NAMES,
    ),
    Architecture(
        "Qwen3.5",
        ("qwen3_5",),
        "qwen35",
        {**_USUAL, **_LINEAR_ATTENTION},
        orders={
            **dict.fromkeys(_LINEAR_ATTENTION, _value_rows),
            "linear_attn.out_proj": _value_columns,
            "linear_attn.conv1d": _value_rows,
            "linear_attn": _value_rows,
        },
        written={
            "linear_attn.A_log": ("ssm_a", _decay),
            "linear_attn.dt_bias": ("ssm_dt.bias", _unchanged),
            "linear_attn.conv1d.weight": ("ssm_conv1d.weight", _kernel),
            "linear_attn.norm.weight": ("ssm_norm.weight", _unchanged),
        },
        adds_one_to_norms=True,
        root=("language_model.model.", "model.", "model.language_model."),
        head="language_model.lm_head",
        restores={
            "input_layernorm.weight": _minus_one,
            "post_attention_layernorm.weight": _minus_one,
            "model.norm.weight": _minus_one,
            "q_norm.weight": _minus_one,
            "k_norm.weight": _minus_one,
            "conv1d.weight": _kernel_last,
        },
        converter_options=("--no-mtp",),
        is_idle_in_vllm=True,
    ),
    Architecture("Gemma", ("gemma",), "gemma", _USUAL, adds_one_to_norms=True),
    Architecture("Gemma 2", ("gemma2",), "gemma2", _USUAL, adds_one_to_norms=True),
    Architecture("Gemma 3 (text)", ("gemma3_text",), "gemma3", _USUAL, adds_one_to_norms=True),
    Architecture(
        "Gemma 3",
        ("gemma3",),
        "gemma3",
        _USUAL,
        root=("language_model.model.", "model.language_model.", "language_model.model."),
        head="language_model.lm_head",
        adds_one_to_norms=True,
    ),
    Architecture(
        "Gemma 4 (text)",
        ("gemma4_text",),
        "gemma4",
        {**_USUAL, **_PER_LAYER_INPUT},
        written=_LAYER_SCALE,
    ),
    Architecture(
        "Gemma 4",
        ("gemma4",),
        "gemma4",
        {**_USUAL, **_PER_LAYER_INPUT},
        root=("language_model.model.", "model.language_model.", "model.language_model."),
        head="language_model.lm_head",
        written=_LAYER_SCALE,
    ),
    Architecture(
        "Phi-3, Phi-3.5, Phi-4",
        ("phi3",),
        "phi3",
        {
            "self_attn.qkv_proj": "attn_qkv",
            "self_attn.o_proj": "attn_output",
            "mlp.gate_up_proj": "ffn_up",
            "mlp.down_proj": "ffn_down",
        },
    ),
    Architecture("SmolLM3", ("smollm3",), "smollm3", _USUAL, orders=_ROPE),
    Architecture("Granite 3", ("granite",), "granite", _USUAL, orders=_ROPE),
    Architecture("OLMo 2, OLMo 3", ("olmo2", "olmo3"), "olmo2", _USUAL),
    Architecture(
        "StarCoder2",
        ("starcoder2",),
        "starcoder2",
        {**_ATTENTION, "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"},
    ),
    Architecture("Command R7B, Aya", ("cohere2",), "cohere2", _USUAL),
)


def find_architecture(config: Config) -> Architecture:
    """Return the row of a model.

    Raises:
        ExportError: it is not in the table; lists what is.
    """
    model_type = config.get("model_type")
    for architecture in ARCHITECTURES:
        if model_type in architecture.model_types:
            return architecture
    raise ExportError(
        f"model_type {model_type!r}: names and order of its weights are not known here, so it is "
        f"not exported; nothing was written. Supported: {supported()}.",
        "--to peft works where mlx-lm and Hugging Face name the layers alike, --to mlx always.",
    )


def supported() -> str:
    """Return the architectures of the table in one line, by model_type."""
    return ", ".join(name for one in ARCHITECTURES for name in one.model_types)


def mlx_name(name: str) -> tuple[str, int | None]:
    """Return what MLX calls a Hugging Face module of any architecture, as far as names alone tell.

    The root stays as it is; experts are recognised by the patterns of all architectures.
    """
    for architecture in ARCHITECTURES:
        path, expert = architecture.mlx_name(name)
        if expert is not None:
            return path, expert
    return name, None

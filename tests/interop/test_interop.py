"""What leaves MLX computes the same elsewhere: in real llama.cpp and in real PEFT.

    tests/interop/setup.sh               # once
    python -m pytest -m slow tests/interop

"The same" is every log-prob of every token at every position of five prompts, against MLX with the
adapter. Tolerances: 2e-3 for llama.cpp (2e-2 where it takes GELU from a table in half precision),
2e-4 for torch (2e-2 where mlx-lm computes another GELU). The adapters move them by 1 or more.
"""

from __future__ import annotations

import json
from pathlib import Path
from unicodedata import category

import gguf
import numpy as np
import pytest
from interop.texts import CUTTINGS, TRICKY, Wrapped, trained_pieces, trained_tokenizer
from tokenizers import Tokenizer

from orpo_mlx.adapters.lora import AdapterSpec
from orpo_mlx.cli.commands.export import main as export
from orpo_mlx.export.new_gguf.vocabulary import add_vocabulary

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SPECS = {
    "all layers": AdapterSpec(rank=8, scale=3.7),
    "last block": AdapterSpec(rank=4, scale=20.0, num_layers=1),
}
CASES = [
    ("float32", "all layers"),
    ("float32", "last block"),
    ("4-bit", "all layers"),
]


@pytest.fixture
def record(request: pytest.FixtureRequest, tmp_path_factory):
    """Return `record(text)`: keeps a figure for the report, in $ORPO_MLX_INTEROP/figures.txt."""
    home = request.config.rootpath / ".interop"

    def write(*words: object) -> None:
        import os

        place = Path(os.environ.get("ORPO_MLX_INTEROP") or home) / "figures.txt"
        with place.open("a", encoding="utf-8") as file:
            file.write(" ".join(map(str, words)) + "\n")

    return write


def tensors(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(path).tensors}


def keys(path: Path) -> dict[str, object]:
    fields = gguf.GGUFReader(path).fields.values()
    return {field.name: field.contents() for field in fields if field.name[:5] != "GGUF."}


def test_the_models_are_the_same_everywhere(architecture, make_bench, difference, record):
    """Without any adapter: what follows then speaks of the adapter alone."""
    for bits in ("float32", "4-bit"):
        bench = make_bench(architecture, bits)
        wanted = bench.in_mlx()
        in_llama = difference(bench.in_llama(bench.base_gguf()), wanted)
        in_torch = difference(bench.in_peft(None), wanted)
        record("base", architecture, bits, f"llama.cpp {in_llama:.1e} torch {in_torch:.1e}")
        assert in_llama < bench.tolerance
        assert in_torch < bench.torch_tolerance


@pytest.mark.parametrize(("bits", "which"), CASES)
def test_the_exports_compute_what_mlx_computes(
    architecture, bits, which, make_bench, make_adapter, difference, record, tmp_path, capsys
):
    bench = make_bench(architecture, bits)
    adapter = make_adapter(bench, SPECS[which])
    wanted = bench.in_mlx(adapter)
    peft, lora = tmp_path / "peft", tmp_path / "adapter.gguf"
    export([str(adapter), "--to", "peft", "--out", str(peft)])
    export([str(adapter), "--to", "gguf-lora", "--out", str(lora)])
    official = bench.lora_by_converter(peft, "official.gguf")
    base = bench.base_gguf()

    ours, theirs = tensors(lora), tensors(official)
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert np.array_equal(ours[name], array), name
    # The official one adds what it finds in the model card.
    own = {key: value for key, value in keys(lora).items() if not key.startswith("orpo_mlx.")}
    assert own.items() <= keys(official).items()

    effect = difference(bench.in_mlx(), wanted)
    found = {
        "PEFT": difference(bench.in_peft(peft), wanted),
        "GGUF LoRA": difference(bench.in_llama(base, lora), wanted),
        "official GGUF LoRA": difference(bench.in_llama(base, official), wanted),
    }
    seen = difference(bench.in_llama(base), bench.in_llama(base, lora))
    shown = " ".join(f"{name} {value:.1e}" for name, value in found.items())
    record("adapter", architecture, bits, which, f"effect {effect:.1f} {shown}")
    assert effect > 50 * bench.tolerance
    assert seen > 50 * bench.tolerance
    assert found["PEFT"] < bench.torch_tolerance
    assert found["GGUF LoRA"] < bench.tolerance
    assert found["official GGUF LoRA"] < bench.tolerance


@pytest.mark.parametrize("bits", ["float32", "4-bit"])
def test_a_merged_gguf_computes_what_mlx_computes(
    architecture, bits, make_bench, make_adapter, difference, record, tmp_path, capsys
):
    bench = make_bench(architecture, bits)
    adapter = make_adapter(bench, SPECS["all layers"])
    wanted, base = bench.in_mlx(adapter), bench.base_gguf()
    exact, coarse, lora = (tmp_path / f"{name}.gguf" for name in ("exact", "coarse", "lora"))
    q8_0 = bench.to_gguf(bench.folder, "q8_0.gguf", "q8_0")
    export([str(adapter), "--to", "gguf", "--base-gguf", str(base), "--out", str(exact)])
    export([str(adapter), "--to", "gguf", "--base-gguf", str(q8_0), "--out", str(coarse)])
    export([str(adapter), "--to", "gguf-lora", "--out", str(lora)])

    found, rounded = bench.in_llama(exact), bench.in_llama(coarse)
    effect, off = difference(bench.in_llama(base), found), difference(found, wanted)
    lost, unmerged = difference(rounded, wanted), difference(bench.in_llama(q8_0, lora), wanted)
    record(
        "merged", architecture, bits,
        f"effect {effect:.1f} f32 {off:.1e} q8_0 {lost:.1e}, LoRA on q8_0 {unmerged:.1e}",
    )  # fmt: skip
    assert effect > 50 * bench.tolerance
    assert off < bench.tolerance
    # Eight bits round the base already; merging may round about as much once more.
    assert lost < 3 * unmerged
    merged = tensors(exact)
    assert {name: array.nbytes for name, array in tensors(base).items()} == {
        name: array.nbytes for name, array in merged.items()
    }
    assert abs(coarse.stat().st_size / q8_0.stat().st_size - 1) < 0.01


@pytest.mark.parametrize("bits", ["float32", "4-bit"])
def test_a_gguf_made_from_the_mlx_weights_is_what_the_official_converter_makes(
    architecture, bits, make_bench, make_adapter, difference, record, tmp_path, capsys
):
    """Every tensor and key; and it computes what MLX computes, from the text on."""
    bench = make_bench(architecture, bits)
    adapter = make_adapter(bench, SPECS["all layers"])
    wanted, whole, folder = bench.in_mlx(adapter), tmp_path / "whole.gguf", tmp_path / "fused"
    export([str(adapter), "--to", "gguf", "--weights-dtype", "float32", "--out", str(whole)])
    export([str(adapter), "--to", "fused", "--dtype", "float32", "--out", str(folder)])
    official = bench.to_gguf(folder, "official.gguf")

    ours, theirs = tensors(whole), tensors(official)
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        if name.endswith("ssm_a"):  # -exp, which torch rounds otherwise
            assert ours[name] == pytest.approx(array, rel=1e-6), name
        else:
            assert np.array_equal(ours[name], array), name
    own, said = keys(whole), keys(official)
    # The name of the cutting is that of the converter's stand-in, others are the model card's.
    sizes = [key for key in said if "general." not in key and key != "tokenizer.ggml.pre"]
    same = ["general.architecture", "general.type", "general.file_type", *sizes]
    assert {key: own.get(key) for key in same} == {key: said[key] for key in same}

    off = difference(bench.in_llama(whole), wanted)
    record("whole", architecture, bits, f"llama.cpp {off:.1e}")
    assert off < bench.tolerance
    tokenizer = Tokenizer.from_file(str(bench.folder / "tokenizer.json"))
    in_llama = bench.llama.tokens(model=whole, texts=TRICKY)
    assert dict(zip(TRICKY, in_llama, strict=True)) == {t: tokenizer.encode(t).ids for t in TRICKY}


def write_tokens(tokenizer: Tokenizer, folder: Path, architecture: str = "llama") -> None:
    """Write tokens.gguf, a file of a vocabulary alone."""
    tokenizer.save(str(folder / "tokenizer.json"))
    begins = {"bos_token": "<s>"} if architecture == "gemma4" else {}
    settings = json.dumps({"eos_token": "<|im_end|>", **begins})
    (folder / "tokenizer_config.json").write_text(settings)
    writer = gguf.GGUFWriter(folder / "tokens.gguf", architecture)
    wrapped = Wrapped(tokenizer, tokenizer.token_to_id("<s>") if begins else None)
    add_vocabulary(writer, folder, wrapped, tokenizer.get_vocab_size(), template=None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


@pytest.mark.parametrize(
    ("puts_space_first", "written_as", "kind"),
    [(True, "llama", "llama"), (False, "gemma3", "llama"), (False, "gemma4", "gemma4")],
    ids=["llama 2", "gemma", "gemma 4"],
)
def test_pieces_give_the_same_tokens_in_llama_cpp(
    puts_space_first, written_as, kind, llama_worker, tmp_path
):
    lines = ("\n", "\n\n", "\n\n\n") if kind == "gemma4" else ()
    tokenizer = trained_pieces(tmp_path, puts_space_first, lines)
    write_tokens(tokenizer, tmp_path, written_as)
    assert keys(tmp_path / "tokens.gguf")["tokenizer.ggml.model"] == kind
    in_llama = llama_worker.tokens(model=tmp_path / "tokens.gguf", texts=TRICKY)
    begin = [tokenizer.token_to_id("<s>")] if kind == "gemma4" else []
    wanted = {text: begin + tokenizer.encode(text).ids for text in TRICKY}
    assert dict(zip(TRICKY, in_llama, strict=True)) == wanted


@pytest.mark.parametrize("cutting", CUTTINGS)
def test_each_known_cutting_gives_the_same_tokens_in_llama_cpp(cutting, llama_worker, tmp_path):
    """The tokenizers learn the texts themselves, so that nearly every piece is one token."""
    steps, model = CUTTINGS[cutting]
    tokenizer = trained_tokenizer(steps, **model)
    write_tokens(tokenizer, tmp_path)
    assert keys(tmp_path / "tokens.gguf")["tokenizer.ggml.pre"] == cutting
    # llama.cpp's own expression for this one knows no marks: so it is in every GGUF with it.
    marked = ("M",) if cutting == "gpt-4o" else ()
    texts = [text for text in TRICKY if not any(category(c)[0] in marked for c in text)]
    in_llama = llama_worker.tokens(model=tmp_path / "tokens.gguf", texts=texts)
    assert dict(zip(texts, in_llama, strict=True)) == {t: tokenizer.encode(t).ids for t in texts}


@pytest.mark.parametrize("bits", ["float32", "4-bit"])
def test_a_fused_model_computes_what_mlx_computes(
    architecture, bits, make_bench, make_adapter, difference, record, tmp_path, capsys
):
    bench = make_bench(architecture, bits)
    adapter = make_adapter(bench, SPECS["all layers"])
    wanted, folder = bench.in_mlx(adapter), tmp_path / "model"
    export([str(adapter), "--to", "fused", "--dtype", "float32", "--out", str(folder)])
    model = bench.to_gguf(folder, "fused.gguf")
    found = {
        "mlx-lm": difference(bench.in_mlx(folder=folder), wanted),
        "transformers": difference(bench.in_peft(None, folder), wanted),
        "llama.cpp": difference(bench.in_llama(model), wanted),
    }
    effect = difference(bench.in_mlx(), wanted)
    shown = " ".join(f"{name} {value:.1e}" for name, value in found.items())
    record("fused", architecture, bits, f"effect {effect:.1f} {shown}")
    assert effect > 50 * bench.tolerance
    assert found["mlx-lm"] < 2e-4
    assert found["transformers"] < bench.torch_tolerance
    assert found["llama.cpp"] < bench.tolerance


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "qwen3_moe"])
def test_fused_experts_compute_the_same_in_transformers_5_too(
    name, make_bench, make_adapter, difference, tmp_path, capsys
):
    bench = make_bench(name)
    adapter = make_adapter(bench, SPECS["all layers"])
    export([str(adapter), "--to", "fused", "--dtype", "float32", "--out", str(tmp_path / "model")])
    found = bench.in_newest_peft(None, tmp_path / "model")
    assert difference(found, bench.in_mlx(adapter)) < bench.torch_tolerance


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3_5"])
def test_a_dora_adapter_computes_the_same_when_it_is_merged(
    name, make_bench, make_adapter, difference, record, tmp_path, capsys
):
    bench = make_bench(name)
    adapter = make_adapter(bench, AdapterSpec(rank=4, scale=3.7, dora=True))
    record("DoRA", name, require_both(bench, adapter, difference, tmp_path))


def require_both(bench, adapter, difference, folder: Path) -> str:
    """Merge into a GGUF and fuse; both must answer as MLX does. Returns how far off they are."""
    wanted, base = bench.in_mlx(adapter), bench.base_gguf()
    merged, model = folder / "merged.gguf", folder / "model"
    export([str(adapter), "--to", "gguf", "--base-gguf", str(base), "--out", str(merged)])
    export([str(adapter), "--to", "fused", "--dtype", "float32", "--out", str(model)])
    in_llama = difference(bench.in_llama(merged), wanted)
    in_torch = difference(bench.in_peft(None, model), wanted)
    assert difference(bench.in_mlx(), wanted) > 0.5
    assert in_llama < bench.tolerance
    assert in_torch < bench.torch_tolerance
    return f"merged GGUF {in_llama:.1e} fused {in_torch:.1e}"


@pytest.mark.parametrize("name", ["llama 3.2", "qwen2"])
def test_an_adapter_of_a_tied_embedding_computes_the_same_when_it_is_merged(
    name, make_bench, make_adapter, difference, record, tmp_path, capsys
):
    """mlx-lm applies it where tokens come in and where they go out."""
    bench = make_bench(name)
    adapter = make_adapter(bench, AdapterSpec(rank=4, scale=3.7, target_modules=("q_proj",)))
    add_layers(adapter, ("model.embed_tokens",))
    record("tied", name, require_both(bench, adapter, difference, tmp_path))


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_experts_compute_the_same_in_transformers_5_too(
    name, make_bench, make_adapter, difference, tmp_path
):
    """PEFT warns there of keys that it makes up itself for the blocks without an adapter."""
    bench = make_bench(name)
    adapter = make_adapter(bench, AdapterSpec(rank=4, scale=3.7, num_layers=1))
    export([str(adapter), "--to", "peft", "--out", str(tmp_path / "peft")])
    found = bench.in_newest_peft(tmp_path / "peft")
    assert difference(found, bench.in_mlx(adapter)) < bench.torch_tolerance
    assert difference(found, bench.in_mlx()) > 0.1


def test_a_dora_adapter_computes_the_same_in_peft(make_bench, make_adapter, difference, tmp_path):
    for name in ("llama", "qwen2"):  # without and with biases
        bench = make_bench(name)
        adapter = make_adapter(bench, AdapterSpec(rank=4, scale=3.7, dora=True))
        peft = tmp_path / name
        export([str(adapter), "--to", "peft", "--out", str(peft)])
        wanted = bench.in_mlx(adapter)
        assert difference(bench.in_peft(peft), wanted) < bench.torch_tolerance
        assert difference(bench.in_mlx(), wanted) > 0.5


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral"])
def test_a_reward_model_rates_the_same_in_transformers(
    name, make_bench, make_adapter, record, tmp_path
):
    bench = make_bench(name)
    adapter = make_adapter(bench, SPECS["all layers"])
    wanted = bench.rewards_in_mlx(adapter)
    export([str(adapter), "--to", "peft", "--out", str(tmp_path / "peft")])
    apart = np.abs(np.subtract(bench.rewards_in_peft(tmp_path / "peft"), wanted)).max()
    record("reward", name, apart)
    assert apart < 1e-3
    assert np.std(wanted) > 0.1


def test_an_adapter_of_embedding_and_head_computes_the_same(
    make_bench, make_adapter, difference, tmp_path
):
    bench = make_bench("llama")
    adapter = make_adapter(bench, AdapterSpec(rank=4, scale=3.7, target_modules=("q_proj",)))
    add_layers(adapter, ("model.embed_tokens", "lm_head"))
    peft, lora = tmp_path / "peft", tmp_path / "adapter.gguf"
    export([str(adapter), "--to", "peft", "--out", str(peft)])
    export([str(adapter), "--to", "gguf-lora", "--out", str(lora)])
    official = tensors(bench.lora_by_converter(peft, "official.gguf"))
    wanted = bench.in_mlx(adapter)

    assert {n: a.tolist() for n, a in tensors(lora).items()} == {
        n: a.tolist() for n, a in official.items()
    }
    assert difference(bench.in_peft(peft), wanted) < bench.torch_tolerance
    assert difference(bench.in_llama(bench.base_gguf(), lora), wanted) < 2e-3


def add_layers(adapter: Path, names: tuple[str, ...]) -> None:
    """Put layers into an adapter that orpo-mlx does not train, but mlx-lm does."""
    import mlx.core as mx

    path, settings = adapter / "adapters.safetensors", adapter / "adapter_config.json"
    arrays = dict(mx.load(str(path)))
    config = json.loads(settings.read_text())
    vocabulary = json.loads((Path(config["base_model"]) / "config.json").read_text())["vocab_size"]
    mx.random.seed(2)
    for name in names:
        inputs, outputs = (64, vocabulary) if name == "lm_head" else (vocabulary, 64)
        arrays[f"{name}.lora_a"] = 0.1 * mx.random.normal((inputs, 4))
        arrays[f"{name}.lora_b"] = 0.1 * mx.random.normal((4, outputs))
        config["lora_parameters"]["keys"].append(name)
    mx.save_safetensors(str(path), arrays, metadata={"format": "mlx"})
    settings.write_text(json.dumps(config))

"""Every way of scoring on tiny models of many mlx-lm architectures: the numbers of plain rows.

Which ways an architecture supports is written down below. When mlx-lm changes a model so that one
no longer fits (or begins to), the test of that model says so.
"""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from orpo_mlx.adapters.lora import AdapterSpec, attach_adapter
from orpo_mlx.adapters.reward_head import attach_head
from orpo_mlx.data.batching.buckets import build_buckets, packed_cost
from orpo_mlx.data.types import TokenPair
from orpo_mlx.errors import ConfigError
from orpo_mlx.models.recompute import recomputing
from orpo_mlx.objectives.base import ReferenceScores
from orpo_mlx.objectives.dpo import Dpo
from orpo_mlx.objectives.kto import Kto
from orpo_mlx.objectives.orpo import Orpo
from orpo_mlx.objectives.reward import Reward
from orpo_mlx.scoring import head
from orpo_mlx.scoring.activation_cache import ActivationCache, MemoryStore, find_cut
from orpo_mlx.scoring.base import Scoring, own_arrays
from orpo_mlx.scoring.select import WAYS, choose_scoring
from orpo_mlx.training.step import step_totals

VOCABULARY = 199
TOLERANCE = 1e-5
SCOPES = ("full", "response")

BASE = {
    "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-5, "vocab_size": VOCABULARY,
    "rope_theta": 10000.0, "max_position_embeddings": 512, "tie_word_embeddings": False,
}  # fmt: skip

WINDOW = {"sliding_window": 8, "layer_types": ["full_attention", "sliding_attention"]}
COHERE = {
    "layer_norm_eps": 1e-5, "logit_scale": 0.25, "attention_bias": False, "layer_norm_bias": False,
}  # fmt: skip

DELTA = {
    "full_attention_interval": 2, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_conv_kernel_dim": 4,
    "partial_rotary_factor": 0.5,
}  # fmt: skip

MODELS = {
    "llama": {},
    "llama, rope scaling": {
        "model_type": "llama",
        "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
        },
    },
    "llama, sliding window": {"model_type": "llama", **WINDOW},
    "llama, tied": {"model_type": "llama", "tie_word_embeddings": True},
    "ministral3": {
        **WINDOW,
        "rope_parameters": {
            "rope_theta": 10000.0, "rope_type": "default", "llama_4_scaling_beta": 0.1,
            "original_max_position_embeddings": 16,  # queries grow within these pairs
        },
    },
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {},
    "qwen3_moe": {
        "num_experts": 4, "num_experts_per_tok": 2, "decoder_sparse_step": 1,
        "mlp_only_layers": [], "moe_intermediate_size": 32, "norm_topk_prob": True,
    },
    "gemma": {},
    "gemma2": {
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
        "query_pre_attn_scalar": 16, "sliding_window": 8,
    },
    "gemma3_text": {"sliding_window": 8, "sliding_window_pattern": 2},
    "phi3": {"partial_rotary_factor": 1.0, "original_max_position_embeddings": 512},
    "smollm3": {},
    "granite": {
        "logits_scaling": 2.0, "attention_multiplier": 0.25, "embedding_multiplier": 2.0,
        "residual_multiplier": 0.5, "attention_bias": False, "mlp_bias": False,
    },
    "cohere": {**COHERE, "use_qk_norm": False},
    "cohere2": {**COHERE, "sliding_window": 8, "sliding_window_pattern": 2},
    "olmo2": {},
    "starcoder2": {"norm_epsilon": 1e-5},
    "gpt_oss": {  # attention sinks
        "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "stablelm": {
        "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.5, "use_qkv_bias": False,
        "qk_layernorm": False,
    },
    "gpt_neox": {
        "layer_norm_eps": 1e-5, "rotary_pct": 0.25, "use_parallel_residual": True,
        "rotary_emb_base": 10000,
    },
    "mamba": {
        "state_size": 8, "conv_kernel": 4, "use_bias": False, "use_conv_bias": True,
        "time_step_rank": 4,
    },
    "lfm2": {
        "norm_eps": 1e-5, "conv_bias": False, "conv_L_cache": 3, "block_dim": 64,
        "block_ff_dim": 96, "block_multiple_of": 32, "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False, "full_attn_idxs": [1],
    },
    "qwen3_5": {"text_config": {**BASE, **DELTA, "model_type": "qwen3_5_text"}},
    "qwen3_next": {
        **DELTA, "num_experts": 4, "num_experts_per_tok": 2, "decoder_sparse_step": 1,
        "shared_expert_intermediate_size": 32, "mlp_only_layers": [],
        "moe_intermediate_size": 32, "norm_topk_prob": True,
    },
    "granitemoehybrid": {
        "attention_bias": False, "embedding_multiplier": 2.0, "attention_multiplier": 0.25,
        "logits_scaling": 2.0, "residual_multiplier": 0.5, "layer_types": ["mamba", "attention"],
        "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_d_conv": 4,
        "mamba_n_groups": 2, "mamba_conv_bias": True, "mamba_proj_bias": False,
    },
    "mamba2": {
        "num_heads": 8, "head_dim": 16, "state_size": 16, "conv_kernel": 4, "n_groups": 2,
        "use_bias": False, "use_conv_bias": True, "layer_norm_epsilon": 1e-5,
        "time_step_limit": [0.001, 100.0], "time_step_rank": 4,
    },
}  # fmt: skip

ALL_WAYS = ("packed", "causal", "shared", "fork")
HYBRID = ("packed", "causal", "fork")
SUPPORTED = {
    **dict.fromkeys(MODELS, ALL_WAYS),
    "gemma2": ("shared", "fork"),  # its attention wants the mask as an array
    "mamba": ("fork",),  # its recurrence is its own code
    "lfm2": HYBRID,  # convolutions beside attention
    "qwen3_5": HYBRID,  # gated delta rule beside attention
    "qwen3_next": HYBRID,
    "granitemoehybrid": HYBRID,  # Mamba 2 beside attention
    "mamba2": HYBRID,
}

NOT_IN_GROUPS_OF_32 = ("mamba",)
"""Models with a linear layer whose input is no multiple of 32 wide."""


def make_pairs():
    """Odd sizes on purpose: a prompt of one token, one longer than any window, short responses."""
    rng = np.random.default_rng(0)
    lengths = [(12, 4, 9), (1, 7, 3), (30, 20, 15), (25, 1, 11)]
    return [
        TokenPair(*(rng.integers(3, VOCABULARY, size).tolist() for size in sizes))
        for sizes in lengths
    ]


PAIRS = make_pairs()


def make_model(name, quantized=False, target_modules=("all",), num_layers=-1):
    """Build a random model with an adapter whose B is not zero, so that A has a gradient too."""
    from mlx_lm.utils import _get_classes

    config = {**BASE, "model_type": name, **MODELS[name]}
    mx.random.seed(1)
    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(config))
    if quantized:
        nn.quantize(model, group_size=32, bits=4)
    spec = AdapterSpec(rank=3, target_modules=target_modules, num_layers=num_layers)
    attach_adapter(model, spec, seed=0)
    drawn = [
        (key, 0.05 * mx.random.normal(value.shape))
        for key, value in tree_flatten(model.trainable_parameters())
        if key.endswith("lora_b")
    ]
    model.load_weights(drawn, strict=False)
    model.train()
    return model


GOALS = {"dpo": Dpo(beta=0.1), "kto": Kto(beta=0.1, undesirable_weight=1.5)}


def loss_and_gradient(
    model, way, scope, cut=0, feed=own_arrays, goal=None, compiled=False, **options
):
    """Return the loss and every adapter gradient of `PAIRS` as one micro-batch.

    Args:
        goal: of `GOALS`, which are measured from made-up log-probs; None: ORPO, or rewards.
    """
    scoring = Scoring(WAYS[way], scope, cut=cut, **options)
    batch = scoring.build(PAIRS, range(len(PAIRS)))
    arrays = feed(batch)
    totals, compared_with = step_totals([batch]), None
    params = model.trainable_parameters()
    objective = Reward(center=0.1) if scope == head.REWARD else Orpo(lam=0.5, nll_scope=scope)
    if goal is not None:
        objective = GOALS[goal]
        sums = -5.3 * np.array([[len(p.chosen), len(p.rejected)] for p in PAIRS], np.float32).T
        order, labels = list(batch.indices), np.array([True, False, False, True])
        is_desirable = mx.array(labels[order]) if goal == "kto" else None
        compared_with = ReferenceScores(*mx.array(sums[:, order]), is_desirable)
        totals = totals._replace(desirable=mx.array(2.0))

    def loss_of(params):
        model.update(params)
        return objective(scoring.score(model, arrays), compared_with, totals)[0]

    try:
        with scoring.way.patched(model):
            both = mx.value_and_grad(loss_of)
            loss, gradient = (mx.compile(both) if compiled else both)(params)
        mx.eval(loss, gradient)
    finally:
        model.update(params)
    return loss.item(), {key: np.array(value) for key, value in tree_flatten(gradient)}


def largest_difference(one, other):
    """Return the largest relative difference of two (loss, gradient)."""
    (loss, gradient), (wanted_loss, wanted) = one, other
    assert gradient.keys() == wanted.keys()
    sizes = {key: np.linalg.norm(value) for key, value in wanted.items()}
    assert all(sizes.values()), "a parameter of the adapter has no gradient"
    distances = [np.linalg.norm(gradient[key] - wanted[key]) / sizes[key] for key in wanted]
    return max(abs(loss - wanted_loss) / abs(wanted_loss), *distances)


def attempt(model, way, scope):
    """Return (loss and gradient, None), or (None, what the model says against this way)."""
    try:
        return loss_and_gradient(model, way, scope), None
    except Exception as error:  # models that do not fit fail each in their own way
        return None, f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("bits", ["float32", "4-bit"])
@pytest.mark.parametrize("name", MODELS)
def test_every_supported_way_gives_the_loss_and_gradient_of_plain_rows(name, bits):
    if bits == "4-bit" and name in NOT_IN_GROUPS_OF_32:
        pytest.skip("no groups of 32")
    model = make_model(name, quantized=bits == "4-bit")

    for scope in SCOPES:
        plain = loss_and_gradient(model, "plain", scope)
        for way in SUPPORTED[name]:
            found, problem = attempt(model, way, scope)
            assert problem is None, (
                f"{name} no longer supports {way!r} ({problem}): mlx-lm changed this model or a "
                "seam; mend orpo_mlx/models/patches.py, or take the way out of SUPPORTED"
            )
            difference = largest_difference(found, plain)
            assert difference < TOLERANCE, (name, way, scope, difference)
        way = "packed" if "packed" in SUPPORTED[name] else "plain"
        with recomputing(model.layers):
            found = loss_and_gradient(model, way, scope, chunk=7)
        difference = largest_difference(found, plain)
        assert difference < TOLERANCE, (name, f"{way}, recomputed", scope, difference)


@pytest.mark.parametrize("name", [name for name in MODELS if "causal" in SUPPORTED[name]])
def test_attention_without_mask_arrays_equals_that_with_them(name):
    model = make_model(name)
    for scope in SCOPES:
        wanted = loss_and_gradient(model, "packed", scope)
        found = [loss_and_gradient(model, "causal", scope)]
        with recomputing(model.layers):
            found.append(loss_and_gradient(model, "causal", scope))
        for one in found:
            difference = largest_difference(one, wanted)
            assert difference < 1e-6, (name, scope, difference)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "gemma3_text"])
def test_attention_without_mask_arrays_may_be_compiled(name, has_compiler):
    if not has_compiler:
        pytest.skip("mx.compile needs a C++ compiler on a CPU")
    model = make_model(name)
    wanted = loss_and_gradient(model, "packed", "full")
    with recomputing(model.layers):
        found = loss_and_gradient(model, "causal", "full", compiled=True)
    assert largest_difference(found, wanted) < 1e-6


def masks_of(model, way, monkeypatch):
    """Return the mask of each call of MLX's attention and its queries, in a step of that way."""
    seen = []
    attention = mx.fast.scaled_dot_product_attention

    def recorded(queries, *args, mask=None, **kwargs):
        seen.append((mask, queries.shape[2]))
        return attention(queries, *args, mask=mask, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(mx.fast, "scaled_dot_product_attention", recorded)
        loss_and_gradient(model, way, "full")
    return seen


@pytest.mark.parametrize("name", ["llama", "qwen3", "mixtral", "olmo2", "gpt_neox", "granite"])
def test_no_mask_array_reaches_mlx_where_attention_has_no_window(name, monkeypatch):
    model = make_model(name)
    seen = masks_of(model, "causal", monkeypatch)

    assert {mask for mask, _ in seen} == {"causal"}
    # In each of two layers: four prompts of 11, 0, 29 and 24 tokens, one of which is not computed,
    # and four times two answers in a rectangle, which may be padded behind them.
    assert sorted(width for _, width in seen) == sorted([11, 29, 24, 16, 16, 32, 16] * 2)
    assert any(isinstance(mask, mx.array) for mask, _ in masks_of(model, "packed", monkeypatch))


def test_layers_with_a_window_get_their_array_and_the_others_none(monkeypatch):
    model = make_model("llama, sliding window")
    masks = [mask for mask, _ in masks_of(model, "causal", monkeypatch)]
    half = len(masks) // 2
    assert set(masks[:half]) == {"causal"}
    # One for all rows of a rectangle: their prompts are of one length.
    assert all(mask.shape[:-2] in ((), (1, 1)) for mask in masks[half:])


def test_on_a_gpu_queries_attend_in_few_calls_where_nothing_is_masked_by_an_array(monkeypatch):
    from orpo_mlx.scoring import attention

    model = make_model("llama, sliding window")
    monkeypatch.setattr(attention, "QUERY_BLOCK", 16)
    on_cpu = [width for _, width in masks_of(model, "causal", monkeypatch)]
    wanted = loss_and_gradient(model, "causal", "full")
    gpu = type("Device", (), {"type": mx.DeviceType.gpu})
    monkeypatch.setattr(attention.mx, "default_device", lambda: gpu)
    monkeypatch.setattr(head, "_after", lambda part, *_: part)  # empty operations of a CPU
    on_gpu = [width for _, width in masks_of(model, "causal", monkeypatch)]
    # Three prompts and four rectangles of answers, one of which is wide enough for two blocks.
    assert (len(on_cpu), len(on_gpu)) == (8 + 8, 7 + 8)
    assert largest_difference(loss_and_gradient(model, "causal", "full"), wanted) < 1e-6


@pytest.mark.parametrize("name", MODELS)
def test_every_supported_way_gives_the_rewards_and_gradient_of_plain_rows(name):
    model = make_model(name)
    attach_head(model, seed=0)
    plain = loss_and_gradient(model, "plain", head.REWARD)
    assert "score.weight" in plain[1]
    for way in SUPPORTED[name]:
        found = loss_and_gradient(model, way, head.REWARD)
        assert largest_difference(found, plain) < TOLERANCE, (name, way)


@pytest.mark.slow
@pytest.mark.parametrize("bits", ["float32", "4-bit"])
@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("name", MODELS)
def test_every_supported_way_gives_the_gradient_of_dpo_and_kto_of_plain_rows(name, goal, bits):
    if bits == "4-bit" and name in NOT_IN_GROUPS_OF_32:
        pytest.skip("no groups of 32")
    model = make_model(name, quantized=bits == "4-bit")
    plain = loss_and_gradient(model, "plain", "response", goal=goal)
    for way in SUPPORTED[name]:
        found = loss_and_gradient(model, way, "response", goal=goal)
        assert largest_difference(found, plain) < TOLERANCE, (name, way)


@pytest.mark.parametrize("name", [name for name in MODELS if SUPPORTED[name] != ALL_WAYS])
def test_a_way_that_is_not_supported_is_refused_aloud(name):
    model = make_model(name)

    for way in set(ALL_WAYS) - set(SUPPORTED[name]):
        assert attempt(model, way, "full")[1] is not None, (
            f"{name} now takes {way!r}: if its numbers are right, add it to SUPPORTED"
        )


@pytest.mark.parametrize("name", MODELS)
def test_auto_picks_the_first_supported_way_and_says_why_not_an_earlier_one(name):
    chosen = choose_scoring(make_model(name), "auto", "full", PAIRS, recomputes=False)

    assert chosen.way.name == SUPPORTED[name][0], chosen.why
    assert bool(chosen.why) == (chosen.way.name != "packed")


@pytest.mark.parametrize("name", ["llama", "gemma2", "mamba"])
def test_auto_tries_the_way_without_mask_arrays_in_place_of_the_other_where_rows_are_long(name):
    model = make_model(name)
    chosen = choose_scoring(model, "auto", "full", PAIRS, recomputes=False, row="causal")

    assert chosen.way.name == {"llama": "causal", "gemma2": "shared", "mamba": "fork"}[name]
    assert "packed" not in chosen.why
    assert ("causal" in chosen.why) == (name != "llama")


@pytest.mark.parametrize(
    "compiled",
    [
        pytest.param(False, id="plain step"),
        pytest.param(True, id="compiled", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", ["qwen3_5", "lfm2", "mamba2"])
def test_layers_with_states_see_no_other_pair_nor_what_fills_a_bucket(name, compiled, has_compiler):
    """Prompts of one token, one side only, and slots without a pair."""
    if compiled and not (has_compiler and name == "qwen3_5"):
        pytest.skip("compiling takes long, and needs a C++ compiler on a CPU")
    model = make_model(name)
    answers = [TokenPair(PAIRS[2].prompt, PAIRS[2].chosen, []), *PAIRS[:2]]
    rows = [answers, [PAIRS[1]], [TokenPair([5], [6, 7, 8], [9])] * 2]
    table = build_buckets([[TokenPair([1] * 31, [2] * 16, [3] * 16)] * 5], packed_cost)
    plain, filled = (
        Scoring(WAYS[way], "full", bucket_table=table if way == "packed" else None)
        for way in ("plain", "packed")
    )
    scores = filled.score
    for pairs in rows:
        batches = [each.build(pairs, range(len(pairs))) for each in (plain, filled)]
        with filled.way.patched(model):
            found = (mx.compile(lambda *x: tuple(scores(model, x))) if compiled else
                     lambda *x: scores(model, x))(*batches[1].arrays)  # fmt: skip
        wanted = plain.score(model, batches[0].arrays)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(np.array(one)[: len(pairs)], np.array(other), rtol=2e-5)
            assert not np.array(one)[len(pairs) :].any()


# Outputs kept below the adapter


@pytest.mark.parametrize("bits", ["float32", "4-bit"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_cut_at_a_block_gives_the_loss_and_gradient_of_the_whole(name, bits):
    """The last of two blocks is adapted: with windows in every second one, either kind is cut."""
    if bits == "4-bit" and name in NOT_IN_GROUPS_OF_32:
        pytest.skip("no groups of 32")
    model = make_model(name, quantized=bits == "4-bit", num_layers=1)
    plain = loss_and_gradient(model, "plain", "full")

    ways = [
        way for way in ("packed", "causal", "shared", "plain") if way in (*SUPPORTED[name], "plain")
    ]
    for way in ways if bits == "float32" else ways[:1]:
        cut = find_cut(model, WAYS[way])
        cache = ActivationCache(model, Scoring(WAYS[way], "full", cut=cut), MemoryStore(1 << 30))
        for hits in (0, len(PAIRS)):
            found = loss_and_gradient(model, way, "full", cut, cache.feed)
            assert cache.hits == hits
            difference = largest_difference(found, plain)
            assert difference < TOLERANCE, (name, way, difference)


@pytest.mark.parametrize("name", ["mamba"])
def test_a_recurrent_model_refuses_the_trunk_cache_with_a_reason(name):
    model = make_model(name, num_layers=1)
    way = choose_scoring(model, "auto", "full", PAIRS, recomputes=False).way

    with pytest.raises(ConfigError, match="fork scoring runs each prompt through the model's own"):
        find_cut(model, way)


# The head


@pytest.mark.parametrize("name", ["llama", "llama, sliding window", "gemma3_text"])
def test_attention_in_blocks_of_queries_changes_nothing(name, monkeypatch):
    # Causal alone, and two with sliding windows; rectangles are 16 and 32 wide.
    model = make_model(name)
    whole = loss_and_gradient(model, "packed", "full")
    computed = []
    attention = mx.fast.scaled_dot_product_attention

    def recorded(queries, keys, *args, **kwargs):
        computed.append(queries.shape[2] * keys.shape[2])
        return attention(queries, keys, *args, **kwargs)

    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", recorded)
    loss_and_gradient(model, "packed", "full")
    cells_whole = sum(computed)
    computed.clear()

    monkeypatch.setattr("orpo_mlx.scoring.attention.QUERY_BLOCK", 16)
    blocks = loss_and_gradient(model, "packed", "full")
    assert largest_difference(blocks, whole) < TOLERANCE
    assert sum(computed) < cells_whole


HEADS = {
    "frozen": ("llama", ("all",)),
    "frozen, tied": ("llama, tied", ("all",)),
    "frozen, soft-capped": ("gemma2", ("all",)),
    "adapted": ("llama", ("q_proj", "lm_head")),
}


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", HEADS)
def test_the_size_of_a_chunk_changes_nothing(kind, scope):
    name, targets = HEADS[kind]
    model = make_model(name, target_modules=targets)
    assert head.has_trainable_head(model) == (kind == "adapted")
    way = SUPPORTED[name][0]
    plain = loss_and_gradient(model, "plain", scope)

    for chunk in (1, 7, 256):
        found = loss_and_gradient(model, way, scope, chunk=chunk)
        difference = largest_difference(found, plain)
        assert difference < TOLERANCE, (chunk, difference)


@pytest.mark.parametrize("kind", HEADS)
def test_no_logits_larger_than_a_chunk_ever_exist(kind, monkeypatch):
    name, targets = HEADS[kind]
    model = make_model(name, target_modules=targets)
    shapes = []

    def recorded(model, hidden):
        logits = head_of(model, hidden)
        shapes.append(logits.shape)
        return logits

    head_of = head.run_head
    monkeypatch.setattr(head, "run_head", recorded)
    for scope in SCOPES:
        loss_and_gradient(model, SUPPORTED[name][0], scope, chunk=7)

    assert len(shapes) > 10
    assert {(shape[0], shape[2]) for shape in shapes} == {(1, VOCABULARY)}
    assert max(shape[1] for shape in shapes) == 7

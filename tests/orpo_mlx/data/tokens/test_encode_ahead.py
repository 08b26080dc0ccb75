"""Texts encoded together have the ids of texts encoded one by one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orpo_mlx.data import pipeline
from orpo_mlx.data.tokens.encoder import Encoder
from orpo_mlx.data.tokens.tokenize import tokenize_pair
from orpo_mlx.data.types import PreferencePair

TEXTS = ["", " ", "a", " a", "a\n", "</s>", "<s>x</s>", "é日🙂", "Human: x\n\nAssistant:", "\u200b"]


def pairs(count: int) -> list[PreferencePair]:
    return [
        PreferencePair(
            [{"role": "user", "content": f"{TEXTS[i % 10]} question {i}"}],
            [{"role": "assistant", "content": f"{TEXTS[(i + 3) % 10]} good {i}"}],
            [{"role": "assistant", "content": f"{TEXTS[(i + 5) % 10]} bad"}],
            f"a:{i}",
        )
        for i in range(count)
    ]


def test_pairs_tokenized_together_are_those_tokenized_alone(tokenizer: Any) -> None:
    made = pairs(2 * pipeline.CHUNK + 3)
    together, account = pipeline.prepare_pairs(made, tokenizer, 100)
    alone = [tokenize_pair(pair, tokenizer, 100) for pair in made]
    assert together == alone
    assert account.kept == len(made)


def test_many_texts_are_encoded_in_one_call(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, calls = Encoder(tokenizer), []
    assert encoder.encode("warm up")
    encoder.encode_ahead(TEXTS)
    monkeypatch.setattr(tokenizer, "encode", lambda *words, **options: calls.append(words) or [])
    for text in TEXTS:
        encoder.encode(text)
    assert calls == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(max_size=20), max_size=6))
def test_any_texts_have_the_same_ids(tokenizer: Any, texts: list[str]) -> None:
    texts = [text for text in texts if text.isprintable()]
    ahead, alone = Encoder(tokenizer), Encoder(tokenizer)
    ahead.encode_ahead(texts)
    assert [ahead.encode(text) for text in texts] == [alone.encode(text) for text in texts]


def test_a_tokenizer_that_encodes_many_differently_is_asked_one_by_one(tokenizer: Any) -> None:
    class Odd:
        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        @property
        def backend_tokenizer(self) -> Any:
            class Backend:
                def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
                    return tokenizer.backend_tokenizer.encode_batch_fast([t + "x" for t in texts])

            return Backend()

    encoder = Encoder(Odd())  # type: ignore[arg-type]
    encoder.encode_ahead(TEXTS)
    plain = Encoder(tokenizer)
    assert [encoder.encode(text) for text in TEXTS] == [plain.encode(text) for text in TEXTS]


SCRIPT = """
import hashlib, os, sys, warnings
warnings.simplefilter("error")
from transformers import AutoTokenizer
from orpo_mlx.data.tokens.encoder import Encoder
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
texts = [f"text number {i} of many, é" for i in range(400)]

def ids():
    encoder = Encoder(tokenizer)
    encoder.encode_ahead(texts)
    return hashlib.sha256(repr([encoder.encode(t) for t in texts]).encode()).hexdigest()

first = ids()
child = os.fork()
if child == 0:
    os._exit(0 if ids() == first else 1)
assert os.waitpid(child, 0)[1] == 0
print(first)
"""


def test_threads_and_forks_change_nothing(llama_folder: Path) -> None:
    """A process forked after threads were used must neither hang nor give other ids."""
    inherited = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"}
    found = []
    for parallel in ({"TOKENIZERS_PARALLELISM": "true"}, {"TOKENIZERS_PARALLELISM": "false"}, {}):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(llama_folder / "model")],
            env={**inherited, **parallel, "RAYON_NUM_THREADS": "2"},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append(done.stdout)
    assert len(set(found)) == 1


def test_control_tokens_that_are_escaped_are_not_looked_up(
    make_tokenizer: Callable[..., Any],
) -> None:
    tokenizer = make_tokenizer()
    ahead, alone = (Encoder(tokenizer, escape_special=True) for _ in range(2))
    text = alone.shield("say </s> twice")
    ahead.encode_ahead([text])
    assert ahead.encode(text) == alone.encode(text)
    assert tokenizer.eos_token_id not in ahead.encode(text)

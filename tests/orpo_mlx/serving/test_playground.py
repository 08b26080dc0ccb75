"""The process behind the test screen: JSON lines in, JSON lines out."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.families import FAMILIES, tokenizer_of

from orpo_mlx.cli.commands.playground import _serve
from orpo_mlx.data.prompts import WrittenPrompt
from orpo_mlx.data.tokens.encoder import Encoder
from orpo_mlx.data.tokens.tokenize import tokenize_pair
from orpo_mlx.data.types import PreferencePair, TokenPair
from orpo_mlx.generation.user_turn import PromptReader
from orpo_mlx.serving.place import encode_turns, open_playground
from orpo_mlx.serving.playground import _prompt_ids, handle
from orpo_mlx.serving.prompt_answers import ask_each
from orpo_mlx.training.train import train

Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def finished_run(
    model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Path]:
    """A run of two steps over eight pairs, one of them held out."""
    from orpo_mlx.config import TrainConfig

    folder = tmp_path_factory.mktemp("run")
    rows = [
        {"prompt": f"Say {i}.", "chosen": f"It is {i}.", "rejected": "The sea."} for i in range(8)
    ]
    data = folder / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = TrainConfig(
        model=str(model_folder), data=str(data), steps=2, valid_fraction=0.2, sample_prompts=0,
        rank=2, run_dir=str(folder / "run"),
    )  # fmt: skip
    train(config)
    return lambda: folder / "run"


@pytest.fixture
def ask(finished_run: Callable[[], Path]) -> Ask:
    """Send requests to a playground of the run; returns all it said."""

    def send(*requests: Any, words: list[str] | None = None) -> list[dict[str, Any]]:
        lines = [r if isinstance(r, str) else json.dumps(r) for r in requests]
        said = io.StringIO()
        words = words if words is not None else ["--run", str(finished_run())]
        _serve(words, _Patient(lines, said), said)  # type: ignore[arg-type]
        return [json.loads(line) for line in said.getvalue().splitlines()]

    return send


class _Patient:
    """Lines of an input that is closed only when each request before it was answered."""

    def __init__(self, lines: list[str], said: io.StringIO) -> None:
        self.lines, self.said = lines, said

    def __iter__(self) -> Any:
        for number, line in enumerate(self.lines, start=2):
            yield line
            while len(self._ends()) < number:
                time.sleep(0.002)

    def _ends(self) -> list[str]:
        """The lines that end a request, that of getting ready included."""
        lines = self.said.getvalue().splitlines()
        return [line for line in lines if json.loads(line)["event"] not in ("text", "asking")]


def test_it_begins_with_the_result_of_the_run(ask: Ask):
    (ready,) = ask()
    assert ready["event"] == "ready"
    assert ready["checkpoints"] == ["0", "1", "2", "final"]
    assert ready["checkpoint"] == "final"
    assert ready["memory_bytes"] > 0


def test_an_answer_comes_in_pieces_from_both_sides(ask: Ask):
    said = ask({"op": "answer", "id": 7, "prompt": "Say 3.", "max_tokens": 6})
    (done,) = [line for line in said if line["event"] == "answered"]
    for side in ("base", "adapter"):
        pieces = [x["text"] for x in said if x["event"] == "text" and x["side"] == side]
        assert "".join(pieces) == done["sides"][side]["text"]
        assert 1 <= done["sides"][side]["tokens"] <= 6
    assert {line.get("id") for line in said[1:]} == {7}


def test_several_turns_are_answered_as_the_template_writes_them(ask: Ask):
    one = [{"role": "user", "content": "Say 3."}]
    more = [*one, {"role": "assistant", "content": "It is 3."}, *one]
    with_system = [{"role": "system", "content": "Be brief."}, *one]
    requests = [{"op": "answer", "turns": turns, "max_tokens": 2} for turns in (one, more)]
    by_prompt = {"op": "answer", "prompt": "Say 3.", "max_tokens": 2}
    system = {"op": "answer", "turns": with_system, "max_tokens": 2, "sides": ["base"]}
    said = ask(by_prompt, *requests, system)
    prompt, first, third, briefly = (m for m in said if m["event"] == "answered")
    first["sides"] = {side: first["sides"][side]["text"] for side in first["sides"]}
    texts = {side: prompt["sides"][side]["text"] for side in prompt["sides"]}
    assert (first["sides"], first["prompt_tokens"]) == (texts, prompt["prompt_tokens"])
    assert third["prompt_tokens"] > 2 * prompt["prompt_tokens"]  # both turns and an answer
    assert briefly["prompt_tokens"] > prompt["prompt_tokens"]
    assert list(briefly["sides"]) == ["base"]


def test_prompts_are_asked_of_every_checkpoint_and_the_one_before_answers_again(ask: Ask):
    turns = [{"role": "user", "content": "Say 3."}]
    greedy = {"op": "answer", "turns": turns, "max_tokens": 4}
    said = ask(
        {"op": "checkpoint", "name": "1"}, greedy, {"op": "checkpoint", "name": "0"}, greedy,
        {"op": "ask", "id": 9, "prompts": [turns], "max_tokens": 4}, greedy,
    )  # fmt: skip
    by_one, by_zero, again = (m["sides"] for m in said if m["event"] == "answered")
    (asked,) = [m for m in said if m["event"] == "asked"]
    assert [m["done"] for m in said if m["event"] == "asking"] == [1, 2, 3, 4, 5]
    assert (asked["id"], asked["sides"]) == (9, ["base", "0", "1", "2", "final"])
    (answers,) = asked["answers"]
    texts = {side: answer["text"] for side, answer in answers.items()}
    assert texts["base"] == texts["0"] == by_zero["base"]["text"]
    assert texts["1"] == by_one["adapter"]["text"]
    assert texts["2"] == texts["final"]
    assert again["adapter"]["text"] == by_zero["adapter"]["text"]


def test_asking_ends_when_it_is_told_to(finished_run: Callable[[], Path]):
    place, told = open_playground({"run": str(finished_run())}), []
    prompts = [WrittenPrompt([{"role": "user", "content": "Say 1."}], "", "1")] * 3
    says_stop_once = iter([True, True, False])  # as `cancel` does: the next question is yes again
    answers = ask_each(
        place, prompts, ["0", "1"], 50, lambda *words: told.append(words[0]),
        lambda: next(says_stop_once, True),
    )  # fmt: skip
    assert [list(given) for given in answers] == [["base"], [], []]
    assert (answers[0]["base"]["ended"], told) == (False, [1])
    assert place.current == "final"


def test_an_answer_goes_to_the_end_of_the_context_and_a_longer_talk_is_refused(
    ask: Ask, finished_run: Callable[[], Path]
):
    encoder = open_playground({"run": str(finished_run())}).encoder

    def talk(tokens: int) -> list[dict[str, str]]:
        turns = [{"role": "user", "content": "Say 1."}, {"role": "assistant", "content": "1"}]
        letters = tokens - len(encode_turns(encoder, [*turns, user("a")])) + 1  # type: ignore[list-item]
        return [*turns, user("a" * letters)]

    def user(text: str) -> dict[str, str]:
        return {"role": "user", "content": text}

    three_left, one_left = (
        {"op": "answer", "turns": talk(tokens), "max_tokens": longest}
        for tokens, longest in ((509, 100), (511, 1))
    )
    full = {"op": "answer", "turns": talk(512)}
    alone = {"op": "answer", "prompt": "a" * 600}
    several = {"op": "ask", "prompts": [[user("Hi")], [user("a" * 600)]]}
    said = ask(three_left, {**three_left, "max_tokens": 2}, one_left, full, alone, several)
    answered = [m for m in said if m["event"] == "answered"]
    assert [m["prompt_tokens"] for m in answered] == [509, 509, 511]
    figures = [m["sides"]["adapter"] for m in answered]
    assert [(f["tokens"], f["is_full"]) for f in figures] == [(3, True), (2, False), (1, True)]
    by_talk, by_prompt, by_set = (m for m in said if m["event"] == "failed")
    assert by_talk["message"].count("512") == 2
    assert re.findall(r"/\w+", by_talk["what_to_do"]) == ["/edit", "/new"]
    assert "/new" not in by_prompt["what_to_do"]
    assert by_set["message"].startswith("prompt 2: ")


def test_a_fresh_adapter_answers_as_the_base(ask: Ask):
    said = ask({"op": "checkpoint", "name": "0"}, {"op": "score", "pair": 0})
    assert said[1] == {"event": "loaded", "id": None, "checkpoint": "0"}
    sides = said[2]["sides"]
    assert sides["base"] == sides["adapter"]


def test_a_pair_is_scored_token_by_token(ask: Ask):
    request = {"op": "score", "id": 1, "prompt": "Say 1.", "chosen": "It is 1.", "rejected": "No."}
    _, scored = ask(request)
    assert "".join(scored["tokens"]["chosen"]) == "It is 1.<|im_end|>"
    for side in ("base", "adapter"):
        score = scored["sides"][side]
        assert len(score["chosen"]) == len(scored["tokens"]["chosen"])
        mean = sum(score["rejected"]) / len(score["rejected"])
        assert score["rejected_logps"] == pytest.approx(mean)
    assert scored["sides"]["base"] != scored["sides"]["adapter"]


def test_the_held_out_pairs_are_at_hand(ask: Ask):
    said = ask({"op": "pairs", "count": 5}, {"op": "answer", "pair": 0, "max_tokens": 2})
    pairs = said[1]["pairs"]
    assert len(pairs) == 2  # a fifth of eight
    assert said[1]["held_out"] is True
    assert pairs[0]["chosen"].startswith("It is ")
    # The user's words, not the template's: "user\nSay 3." asked for something else.
    assert all(re.fullmatch(r"Say \d\.", pair["prompt"]) for pair in pairs)
    assert said[-1]["event"] == "answered"


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"op": "sing"}, "sing"),
        ("no json", "no json"),
        ("[1]", "[1]"),
        ({"op": "answer"}, "prompt"),
        ({"op": "answer", "prompt": "  "}, "empty"),
        ({"op": "answer", "turns": []}, "do not end"),
        ({"op": "answer", "turns": [{"role": "assistant", "content": "a"}]}, "do not end"),
        ({"op": "answer", "turns": "Hi"}, "cannot be read"),
        ({"op": "ask", "prompts": 3}, "cannot be read"),
        ({"op": "ask", "prompts": [[]]}, "do not end"),
        ({"op": "answer", "turns": [{"role": "user"}]}, "cannot be read"),
        ({"op": "answer", "prompt": "Say", "max_tokens": "many"}, "max_tokens"),
        ({"op": "answer", "prompt": "Say", "temperature": float("nan")}, "temperature"),
        ({"op": "score", "pair": 99}, "99"),
        ({"op": "score", "prompt": "a", "chosen": "b", "rejected": "b"}, "identical"),
        ({"op": "checkpoint", "name": "7"}, "7"),
    ],
)
def test_a_bad_request_is_answered_and_the_next_one_taken(ask: Ask, request_: Any, message: str):
    said = ask(request_, {"op": "pairs", "count": 1})
    assert said[1]["event"] == "failed"
    assert message in said[1]["message"]
    assert said[1]["what_to_do"]
    assert said[2]["event"] == "pairs"


def test_an_answer_can_be_cancelled(finished_run: Callable[[], Path]):
    """In a process of its own, as the app starts it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "orpo_mlx.cli.commands.playground", "--run", str(finished_run())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        lines = iter(process.stdout)
        assert json.loads(next(lines))["event"] == "ready"
        request = {"op": "answer", "prompt": "Say 1.", "max_tokens": 100_000, "temperature": 1.5}
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        assert json.loads(next(lines))["event"] == "text"
        process.stdin.write('{"op": "cancel"}\n{"op": "quit"}\n')
        process.stdin.flush()
        *_, last = (json.loads(line) for line in lines)
        assert last["event"] == "answered"
        assert max(side["tokens"] for side in last["sides"].values()) < 100_000
        assert process.wait() == 0


def test_a_run_without_an_adapter_says_what_to_do(
    finished_run: Callable[[], Path], tmp_path: Path, ask: Ask
):
    run = Path(shutil.copytree(finished_run(), tmp_path / "bare"))
    shutil.rmtree(run / "adapter")
    shutil.rmtree(run / "checkpoints")
    (said,) = ask(words=["--run", str(run)])
    assert said["event"] == "failed"
    assert "ended before it saved an adapter" in said["message"]


def test_a_model_alone_has_one_side(ask: Ask, model_folder: Path):
    words = ["--model", str(model_folder)]
    ready, *rest = ask({"op": "answer", "prompt": "Say 1.", "max_tokens": 3}, words=words)
    assert ready["checkpoint"] is None
    assert list(rest[-1]["sides"]) == ["base"]


def test_without_a_chat_template_the_text_of_all_turns_is_continued(
    ask: Ask, make_model_folder: Callable[..., Path], tmp_path: Path
):
    words = ["--model", str(make_model_folder(tmp_path / "plain", chat_template=None))]
    turns = [
        {"role": "user", "content": "The cat"},
        {"role": "assistant", "content": " sat on"},
        {"role": "user", "content": " the mat"},
    ]
    ready, *said = ask(
        {"op": "answer", "turns": turns, "max_tokens": 3},
        {"op": "answer", "prompt": "The cat sat on the mat", "max_tokens": 3},
        {"op": "answer", "turns": [{"role": "system", "content": "Be brief."}, *turns]},
        words=words,
    )
    assert ready["chat"] is False
    assert "no place for a system prompt" in said.pop()["message"]
    in_turns, in_one = (m for m in said if m["event"] == "answered")
    assert in_turns["prompt_tokens"] == in_one["prompt_tokens"]
    assert in_turns["sides"]["base"]["text"] == in_one["sides"]["base"]["text"]


@pytest.mark.parametrize("has_template", [True, False], ids=["template", "plain text"])
def test_an_edited_prompt_of_a_pair_takes_the_way_of_the_unedited_one(
    finished_run: Any, has_template: bool
):
    place = open_playground({"run": str(finished_run())})
    talk: Any = [{"role": "user", "content": "Say 1."}]
    answers: Any = [[{"role": "assistant", "content": text}] for text in ("It is 1.", "The sea.")]
    pair = PreferencePair(talk, *answers)
    if not has_template:
        pair = PreferencePair("Say 1.", " It is 1.", " The sea.")
    tokens = tokenize_pair(pair, place.encoder, 1 << 20)
    assert isinstance(tokens, TokenPair)
    place.pairs = [tokens]
    said: list[dict[str, Any]] = []
    handle(place, {"op": "pairs", "count": 5}, said.append, lambda: True)
    (shown,) = said[0]["pairs"]
    assert (shown["prompt"], shown["turns_before"]) == ("Say 1.", 0)
    # Sent as an edited one is, the same words are the same tokens.
    assert _prompt_ids(place, {"pair": 0, "prompt": shown["prompt"]}) == list(tokens.prompt)
    edited = {name: shown[name] for name in ("prompt", "chosen", "rejected")}
    if not has_template:  # what people read has no blank at its beginning
        edited |= {"chosen": " It is 1.", "rejected": " The sea."}
    scored = []
    for request in ({"pair": 0}, {"pair": 0, **edited}):
        handle(place, {"op": "score", **request}, scored.append, lambda: True)
    assert scored[0]["sides"] == scored[1]["sides"]
    other = _prompt_ids(place, {"pair": 0, "prompt": "Say 2."})
    assert place.both.tokenizer.decode(other) == place.both.tokenizer.decode(
        list(tokens.prompt)
    ).replace("1", "2")


def trained_prompt(talk: Any, tokenizer: Any) -> Sequence[int]:
    """The prompt of a pair of these turns, as a training has it."""
    answers: Any = [[{"role": "assistant", "content": text}] for text in ("Good.", "Bad.")]
    pair = tokenize_pair(PreferencePair(talk, *answers), tokenizer, 1 << 20)
    assert isinstance(pair, TokenPair)
    return pair.prompt


@pytest.mark.parametrize("family", FAMILIES)
def test_a_template_that_is_pasted_is_text_here_as_in_a_training(family: str):
    encoder = Encoder(tokenizer := tokenizer_of(family))
    pasted = encoder.render([{"role": "user", "content": "Hi"}], add_generation_prompt=True)
    talk: Any = [{"role": "user", "content": pasted}]
    assert encode_turns(encoder, talk) == trained_prompt(talk, tokenizer)


@pytest.mark.parametrize("turns", [1, 3, 4], ids=["one", "several", "system"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_reader_gives_back_the_turns_of_a_prompt(family: str, turns: int):
    talk: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Two?"},
    ][-turns:]
    tokenizer = tokenizer_of(family)
    found = PromptReader(tokenizer).turns(encode_turns(Encoder(tokenizer), talk))
    assert found[-1][0] == "user"
    assert found[-1][1].endswith("Two?")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("turns", [1, 3, 4], ids=["one", "several", "system"])
def test_turns_are_asked_with_the_tokens_that_a_training_on_them_has(family: str, turns: int):
    talk: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Two?"},
    ][-turns:]
    tokenizer = tokenizer_of(family)
    assert encode_turns(Encoder(tokenizer), talk) == trained_prompt(talk, tokenizer)

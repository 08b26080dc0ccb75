"""Models as judges: what is asked, kept, dropped, and what is said when they cannot be asked."""

from __future__ import annotations

import json
import re
import socket

import pytest

from orpo_mlx.errors import ConfigError, ModelError
from orpo_mlx.judging.by_model import judge_all
from orpo_mlx.judging.endpoint import KEY_VARIABLE, Endpoint
from orpo_mlx.judging.local import LocalJudge
from orpo_mlx.judging.tally import tally_of

KEY = "sk-very-secret-1234"


@pytest.fixture
def serve(fakes):
    """Return `serve(answer) -> ChatServer`, to be entered."""
    return fakes("chat_server").ChatServer


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    return KEY


def parts(asked: str) -> tuple[str, str, str]:
    """The request and both answers of what a judge is asked."""
    found = re.findall(r"<(request|answer_A|answer_B)>\n(.*?)\n</\1>", asked, re.DOTALL)
    assert [name for name, _ in found] == ["request", "answer_A", "answer_B"]
    return found[0][1], found[1][1], found[2][1]


def prefer_tuned(asked: str) -> str:
    return "A" if parts(asked)[1].startswith("tuned") else "B"


def opinion(asked: str) -> str:
    """At 0 the tuned one, at 1 the plain one, at 2 whatever comes first, at 3 nothing usable."""
    place = int(parts(asked)[0][4])
    right = prefer_tuned(asked)
    return [right, "AB".replace(right, ""), "A", "Hard to say" if right == "A" else "B"][place % 4]


def test_both_orders_are_asked_and_counted(make_contest, serve, key):
    contest = make_contest(8, same=(5,))
    with serve(opinion) as server:
        judge = Endpoint(server.url, "big", 16)
        judge_all(contest, judge)
        tally = tally_of(contest, judge.name)
        assert (tally.wins, tally.losses, tally.ties, tally.dropped) == (2, 1, 3, 2)
        assert tally.left == 0
        assert len(server.asked) == 14
        shown = [parts(content["messages"][0]["content"]) for _, _, content in server.asked]
        assert shown[:2] == [
            ("Why 0?", "plain 0", "tuned 0"), ("Why 0?", "tuned 0", "plain 0")
        ]  # fmt: skip
        path, headers, content = server.asked[0]
        assert path == "/v1/chat/completions"
        assert headers["Authorization"] == f"Bearer {KEY}"
        assert (content["model"], content["temperature"], content["max_tokens"]) == ("big", 0, 16)
        judge_all(contest, judge)  # all is kept
        assert len(server.asked) == 14
        judge_all(contest, Endpoint(server.url, "other", 16))
        assert len(server.asked) == 28
    kept = contest.ledger.path.read_text()
    assert '"reply": "Hard to say"' in kept
    assert KEY not in kept


def test_what_was_judged_before_a_failure_is_kept(make_contest, serve, key):
    contest = make_contest(4)
    replies = iter(["A", "B", "A", (429, {}, f'{{"error": "slow down, {KEY}"}}'.encode())])
    with serve(lambda _: next(replies)) as server:
        judge = Endpoint(server.url, "big", 16)
        with pytest.raises(ModelError, match=r"HTTP 429: .*slow down, \[key\]") as caught:
            judge_all(contest, judge)
    assert "the same command goes on" in str(caught.value)
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert len(contest.ledger.verdicts) == 3
    with serve(prefer_tuned) as server:
        judge.url = f"{server.url}/chat/completions"
        judge_all(contest, judge)
        assert len(server.asked) == 5
    assert tally_of(contest, judge.name).left == 0


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((500, {}, b"\x1b[2Jboom"), r"HTTP 500: \\x1b\[2Jboom"),
        ((401, {}, b""), "HTTP 401: nothing"),
        ((302, {"Location": "http://127.0.0.1:1/v1"}, b""), "HTTP 302"),
        ((200, {}, b"<html>hello</html>"), "no chat completion: <html>hello"),
        ((200, {}, b'{"choices": []}'), "no chat completion"),
        ((200, {}, b'{"choices": [{"message": {"content": null}}]}'), "no chat completion"),
        ((200, {}, b"[" * 100_000), "no chat completion"),
        ((200, {}, b"x" * (2 << 20)), "nonsense .its answer is larger than 1 MiB"),
    ],
)
def test_an_endpoint_that_answers_nonsense_is_named(make_contest, serve, key, answer, says):
    with serve(lambda _: answer) as server:
        with pytest.raises(ModelError, match=says) as caught:
            judge_all(make_contest(), Endpoint(server.url, "big", 16))
        assert len(server.asked) == 1
    assert server.url in caught.value.message
    assert len(caught.value.message) < 400


def test_an_endpoint_that_is_not_there_is_named(make_contest):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ModelError, match="cannot be reached"):
        judge_all(make_contest(), Endpoint(url, "big", 16))


def test_a_judge_without_any_verdict_is_not_asked_on(make_contest, serve):
    contest = make_contest(8)
    with serve(lambda _: "As a language model I \x1b[31m like both.") as server:
        judge = Endpoint(server.url, "big", 16)
        with pytest.raises(ModelError, match=r"none of its last replies is a verdict") as caught:
            judge_all(contest, judge)
        assert len(server.asked) == 6
    assert "\x1b" not in str(caught.value)
    assert tally_of(contest, judge.name).dropped == 3


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "localhost:8080", "http://", "http://a b/v1", "http://u:p@host/v1",
        "https://host/v1?key=secret", "http://host:port/v1", "http://[x/v1", "",
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_meant_is_refused_unsaid(url):
    with pytest.raises(ConfigError, match="--judge-url: ") as caught:
        Endpoint(url, "big", 16)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://host:8080", "http://host:8080/v1/chat/completions"),
        ("https://host/v1/", "https://host/v1/chat/completions"),
        ("https://host/api/v3", "https://host/api/v3/chat/completions"),
        ("http://host/v1/chat/completions", "http://host/v1/chat/completions"),
    ],
)
def test_the_usual_path_may_be_left_out(url, wanted):
    assert Endpoint(url, "big", 16).url == wanted


def test_a_list_of_models_is_enough_and_no_question_is_asked(serve, key):
    with serve(lambda _: pytest.fail("asked"), models=("small", "big")) as server:
        Endpoint(server.url, "big", 16).require_ready()
    assert server.asked == []


@pytest.mark.parametrize("models", [None, ("small",)])
def test_a_model_that_no_list_names_is_asked(serve, models):
    with serve(lambda _: "A", models=models) as server:
        Endpoint(server.url, "big", 16).require_ready()
    assert [content["model"] for _, _, content in server.asked] == ["big"]


def test_a_model_that_only_thinks_in_so_few_tokens_is_there(serve):
    message = {"role": "assistant", "content": None, "reasoning_content": "Well"}
    body = json.dumps({"choices": [{"message": message}]}).encode()
    with serve(lambda _: (200, {}, body), models=None) as server:
        Endpoint(server.url, "big", 16).require_ready()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda _: (404, {}, b"no such model"), "refused with HTTP 404: no such model"),
        (lambda _: (401, {}, b"who are you"), "refused with HTTP 401: who are you"),
        (lambda _: (200, {}, b"<html>"), "no chat completion: <html>"),
        (lambda _: (200, {}, b'{"choices": 3}'), "no chat completion"),
    ],
)
def test_what_no_server_of_chats_answers_is_found_by_the_first_question(serve, answer, says):
    with serve(answer, models=None) as server, pytest.raises(ModelError, match=says):
        Endpoint(server.url, "big", 16).require_ready()
    assert len(server.asked) == 1


def test_a_key_with_a_line_feed_is_refused_unsaid(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, f"{KEY}\nX-Other: 1")
    with pytest.raises(ConfigError, match="no key has") as caught:
        Endpoint("http://host", "big", 16)
    assert KEY not in str(caught.value)


def test_a_short_dummy_key_does_not_change_verdicts(make_contest, serve, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "A")
    contest = make_contest(2)
    with serve(lambda _: "A") as server:
        judge = Endpoint(server.url, "big", 16)
        judge_all(contest, judge)
    assert tally_of(contest, judge.name).ties == 2


def test_a_local_model_is_asked_in_its_own_template(make_contest, model_folder, monkeypatch):
    judge = LocalJudge(str(model_folder), 4)
    seen: list[str] = []
    encode = judge._writer.encode

    def listen(prompt, tools, source):
        ids = encode(prompt, tools, source)
        seen.append(judge._writer.tokenizer.decode(ids))
        return ids

    monkeypatch.setattr(judge._writer, "encode", listen)
    contest = make_contest(3)
    # A model of random weights has no verdict to give.
    with pytest.raises(ModelError, match="none of its last replies is a verdict"):
        judge_all(contest, judge)
    assert len(seen) == 6
    assert seen[0].startswith("<|im_start|>user\nTwo answers")
    assert seen[0].endswith("<|im_start|>assistant\n")
    assert parts(seen[1]) == ("Why 0?", "tuned 0", "plain 0")
    assert tally_of(contest, judge.name).dropped == 3

"""Asked over HTTP, each name answers as its model does elsewhere, and others are refused."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from orpo_mlx.demo import model_path
from orpo_mlx.serving.http_server import OpenAIServer, curl_line, serve_models
from orpo_mlx.serving.served_models import find_served_models

QUESTIONS = ["What colour is the sky?", "Where does a fish live?"]
NAMES = ["one", "two", "demo"]


class Client:
    """Asks one server; `told` is what the server said of itself."""

    def __init__(self, port: int, told: list[dict[str, Any]]) -> None:
        self.port, self.told = port, told

    def send(
        self, path: str, body: Any = None, method: str = "POST", **headers: str
    ) -> tuple[int, str, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, content if method == "POST" else None, headers)
        response = connection.getresponse()
        return response.status, response.read().decode(), response.headers

    def get(self, path: str) -> tuple[int, Any]:
        status, text, _ = self.send(path, method="GET")
        return status, json.loads(text)

    def chat(self, model: str, prompt: str, **more: Any) -> tuple[int, Any]:
        body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": 48, **more}
        status, text, _ = self.send("/v1/chat/completions", {"model": model, **body})
        return status, json.loads(text)

    def answer(self, model: str, prompt: str) -> str:
        status, said = self.chat(model, prompt)
        assert status == 200, said
        return said["choices"][0]["message"]["content"].strip()


@pytest.fixture(scope="module")
def client(adapters: list[Path]) -> Iterator[Client]:
    """A client of a server in this process, which an interrupt of its loop ends."""
    told: list[dict[str, Any]] = []
    is_ready = threading.Event()

    def say(message: dict[str, Any]) -> None:
        told.append(message)
        is_ready.set()

    server = OpenAIServer("127.0.0.1", 0)
    served = find_served_models([str(folder) for folder in adapters])
    thread = threading.Thread(target=serve_models, args=(server, served, say))
    thread.start()
    assert is_ready.wait(120)
    yield Client(server.server_port, told)
    server.shutdown()
    thread.join()


def test_the_models_are_listed_by_their_names_the_base_last(client: Client):
    status, found = client.get("/v1/models")
    assert (status, found["object"]) == (200, "list")
    assert [model["id"] for model in found["data"]] == NAMES
    assert client.get("/v1/models/two")[1]["id"] == "two"
    assert client.told[0]["models"] == NAMES
    assert client.told[0]["base"] == "demo"


@pytest.mark.parametrize("question", QUESTIONS)
def test_each_name_answers_as_its_model_does_by_itself(
    client: Client, greedy: Callable[[str, str], str], question: str
):
    wanted = {name: greedy(name, question) for name in NAMES}
    assert len(set(wanted.values())) == 3  # else nothing would be shown
    for _ in range(2):  # from the caches, too
        assert {name: client.answer(name, question) for name in NAMES} == wanted


def test_what_one_adapter_has_computed_of_a_prompt_is_not_taken_for_another(client: Client):
    question = "Who is afraid of the dark?"
    cached = [
        client.chat(name, question)[1]["usage"]["prompt_tokens_details"]["cached_tokens"]
        for name in ("one", "one", "two")
    ]
    start = 3  # the turn's beginning, which every question shares
    assert cached[0] <= start < cached[1]
    assert cached[2] <= start


def test_two_clients_ask_two_adapters_at_once_and_each_gets_its_own_answers(
    client: Client, greedy: Callable[[str, str], str]
):
    asked = [(name, question) for question in QUESTIONS for name in ("one", "two")] * 3
    wanted = [greedy(*each) for each in asked]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda each: client.answer(*each), asked))
    assert found == wanted


def test_a_streamed_answer_is_the_whole_one_in_pieces(client: Client):
    whole = client.answer("one", QUESTIONS[0])
    body = {
        "model": "one", "stream": True, "max_tokens": 48, "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": [{"type": "text", "text": QUESTIONS[0]}]}],
    }  # fmt: skip
    status, text, headers = client.send("/v1/chat/completions", body)
    assert (status, headers["Content-Type"]) == (200, "text/event-stream")
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line[:5] == "data:"]
    assert lines.pop() == "[DONE]"
    chunks = [json.loads(line) for line in lines]
    assert chunks.pop()["usage"]["completion_tokens"] > 5
    pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(pieces).strip() == whole
    assert len(pieces) > 5
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_word_ends_the_answer_where_it_begins_in_the_text(client: Client, stream: bool):
    whole = client.answer("demo", QUESTIONS[0])
    word = whole.split()[2]  # its token begins with a space, that of the word alone does not
    body = {
        "model": "demo", "max_tokens": 48, "stream": stream, "stop": [word],
        "messages": [{"role": "user", "content": QUESTIONS[0]}],
    }  # fmt: skip
    text = client.send("/v1/chat/completions", body)[1]
    lines = [line[6:] for line in text.split("\n\n") if line[:6] == "data: "] if stream else [text]
    choices = [json.loads(line)["choices"][0] for line in lines if line != "[DONE]"]
    said = [choice["delta" if stream else "message"].get("content") or "" for choice in choices]
    assert "".join(said) == whole.split(word)[0]
    assert choices[-1]["finish_reason"] == "stop"


@pytest.mark.parametrize(("host", "is_open"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_a_server_knows_whether_other_machines_reach_it(host: str, is_open: bool):
    server = OpenAIServer(host, 0)
    server.server_close()
    assert server.is_open is is_open


def test_a_seed_gives_the_same_answer_again_and_another_one_another(client: Client):
    said = [
        client.chat("demo", "Tell me.", seed=seed, temperature=1.5)[1]["choices"][0]["message"]
        for seed in (1, 1, 2)
    ]
    assert said[0] == said[1] != said[2]


def test_a_text_is_continued_also_from_exactly_where_an_answer_was_cut(client: Client):
    def go_on(prompt: str) -> str:
        status, text, _ = client.send(
            "/v1/completions", {"model": "demo", "prompt": prompt, "max_tokens": 6}
        )
        assert status == 200, text
        return json.loads(text)["choices"][0]["text"]

    start = "The sea is"
    first = go_on(start)
    second = go_on(start + first)
    assert second == go_on(start + first)  # the same, with and without a cache of all of it


def prompt_of(tokens: int) -> str:
    """A text of so many tokens of the demo's model, whose config.json says 512 positions."""
    counter = Tokenizer.from_file(str(model_path() / "tokenizer.json"))
    text = " the" * tokens
    assert len(counter.encode(text).ids) == tokens
    return text


@pytest.mark.parametrize("more", [{}, {"seed": 1}, {"stream": True}], ids=str)
def test_a_prompt_that_fills_the_context_is_refused_as_openai_does(
    client: Client, more: dict[str, Any]
):
    body = {"model": "two", "prompt": prompt_of(512), "max_tokens": 1, **more}
    status, text, _ = client.send("/v1/completions", body)
    said = json.loads(text)["error"]
    assert (status, said["code"], said["param"]) == (400, "context_length_exceeded", "prompt")
    assert said["message"].count("512") == 2  # its own length and the context
    status, said = client.chat("one", prompt_of(600), **({} if "stream" in more else more))
    assert (status, said["error"]["code"]) == (400, "context_length_exceeded")
    assert said["error"]["param"] == "messages"
    assert client.chat("two", "Hello")[0] == 200


@pytest.mark.parametrize("more", [{}, {"seed": 1}], ids=["batch", "single"])
def test_an_answer_ends_where_the_context_does(client: Client, more: dict[str, Any]):
    never_ends = {"1": -1000, "2": -1000}
    body = {"model": "demo", "prompt": prompt_of(509), "max_tokens": 50, "logit_bias": never_ends}
    status, text, _ = client.send("/v1/completions", {**body, **more})
    said = json.loads(text)
    assert (status, said["choices"][0]["finish_reason"]) == (200, "length")
    assert said["usage"]["prompt_tokens"] == 509
    assert said["usage"]["completion_tokens"] == 3


HELLO = [{"role": "user", "content": "Hello"}]
BAD = {
    "another path": ({"model": "/etc"}, 404),
    "a model of the Hub": ({"model": "mlx-community/Qwen3-0.6B-4bit"}, 404),
    "mlx-lm's own word": ({"model": "default_model"}, 404),
    "a name that is none": ({"model": ["one"]}, 404),
    "no model": ({"model": None}, 400),
    "an adapter": ({"adapters": "/tmp/adapter"}, 400),
    "a draft model": ({"draft_model": "some/model"}, 400),
    "a template": ({"chat_template_kwargs": {"chat_template": "{{ 1 }}"}}, 400),
    "no messages": ({"messages": []}, 400),
    "messages that are none": ({"messages": "Hello"}, 400),
    "a number as content": ({"messages": [{"role": "user", "content": 1}]}, 400),
    "a template that refuses": ({"messages": [{"role": "user", "content": "a"}] * 2}, 200),
    "too large a top_k": ({"top_k": 10**9, "temperature": 1}, 400),
    "a token that is none": ({"logit_bias": {"99999999": 1}}, 400),
    "a negative token": ({"logit_bias": {"-1": 1}}, 400),
    "stop that is no text": ({"stop": [1]}, 400),
    "an empty stop": ({"stop": ""}, 400),
    "a negative temperature": ({"temperature": -1}, 400),
    "a temperature that is none": ({"temperature": "warm"}, 400),
    "a seed without end": ({"seed": 2**64}, 400),
    "several answers": ({"n": 2}, 400),
    "a schema": ({"response_format": {"type": "json_object"}}, 400),
    "odd tools": ({"tools": "all"}, 400),
    "odd options of a stream": ({"stream": True, "stream_options": 1}, 400),
    "no tokens": ({"max_tokens": 0}, 400),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_served_is_refused_in_openais_form_and_harms_nothing(client: Client, case: str):
    changes, wanted = BAD[case]
    body = {"model": "one", "messages": HELLO, "max_tokens": 4, **changes}
    status, text, _ = client.send("/v1/chat/completions", body)
    said = json.loads(text)
    assert status == wanted, said
    if status != 200:
        assert said["error"].keys() == {"message", "type", "param", "code"}
        assert said["error"]["type"] == "invalid_request_error"
    if status == 404:
        assert said["error"]["code"] == "model_not_found"
    assert client.get("/health") == (200, {"status": "ok"})
    assert client.chat("two", "Hello")[0] == 200


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"nothing", b"\xff", b'{"temperature": NaN}', b"[" * 100_000,
                b'{"model": "one", "messages": [{"role": "user", "content": "a"}], "top_p": 1e999}']
)  # fmt: skip
def test_a_body_that_is_no_request_is_refused(client: Client, content: bytes):
    status, text, _ = client.send("/v1/chat/completions", content)
    assert status == 400
    assert json.loads(text)["error"]["type"] == "invalid_request_error"


def test_pictures_are_never_fetched(client: Client):
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.setblocking(False)
        url = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/picture.png"
        part = {"type": "image_url", "image_url": {"url": url}}
        body = {"model": "one", "messages": [{"role": "user", "content": [part]}]}
        assert client.send("/v1/chat/completions", body)[0] == 400
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


def test_other_paths_are_refused_and_pages_of_the_web_are_not_let_in(client: Client):
    for method, path in (("GET", "/"), ("GET", "/v1/models/none"), ("POST", "/v1/embeddings")):
        status, text, _ = client.send(path, {}, method)
        assert status == 404
        assert "there are:" in json.loads(text)["error"]["message"]
    _, _, headers = client.send("/v1/models", method="GET")
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ({"Origin": "https://page.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "page.example:8080"}, 403),  # a name that was made to lead to this machine
        ({"Host": "[odd"}, 403),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:1"}, 200),
    ],
)
def test_pages_of_the_web_get_no_answer(client: Client, headers: dict[str, str], wanted: int):
    body = {"model": "demo", "prompt": "The sea", "max_tokens": 1}
    assert client.send("/v1/completions", body, **headers)[0] == wanted
    assert client.send("/v1/models", method="GET", **headers)[0] == wanted


def test_each_question_is_told_with_its_model_status_and_time(client: Client):
    def told(model: str, status: int) -> bool:
        return any((m.get("model"), m.get("status")) == (model, status) for m in client.told)

    client.told.clear()
    client.chat("two", "Hello")
    client.chat("none", "Hello")
    deadline = time.monotonic() + 60
    while not (told("two", 200) and told("", 404)):  # told behind the answer
        assert time.monotonic() < deadline, client.told
        time.sleep(0.01)
    assert all(m["seconds"] >= 0 for m in client.told if m["event"] == "request")
    assert not [m for m in client.told if m["event"] == "note"]


def test_the_curl_line_keeps_an_odd_name_in_one_word():
    import shlex

    line = curl_line("http://127.0.0.1:1/v1", "it's; $(a)", chats=True)
    assert json.loads(shlex.split(line)[-1])["model"] == "it's; $(a)"
    assert shlex.split(curl_line("u", "m", chats=False))[1] == "u/completions"

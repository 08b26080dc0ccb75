"""`orpo-mlx serve` as a person runs it: a process, an address, a line for curl, Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orpo_mlx.__main__ import main as program
from orpo_mlx.demo import model_path


@contextlib.contextmanager
def serving(*words: object) -> Iterator[subprocess.Popen[str]]:
    """Start a server; whatever the test does, it is gone afterwards."""
    command = (sys.executable, "-P", "-m", "orpo_mlx", "serve", *map(str, words))
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            yield server
        finally:
            server.kill()


def first_lines(server: subprocess.Popen[str]) -> list[str]:
    assert server.stdout is not None
    lines = []
    for line in server.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith("Ctrl-C"):
            return lines
    raise AssertionError(server.communicate())


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return `refused(*words) -> stderr`; the exit code must be 2, and nothing else is printed."""

    def run(*words: object) -> str:
        code = program(["serve", *map(str, words)])
        said = capfd.readouterr()
        assert (code, said.out) == (2, "")
        assert "Traceback" not in said.err
        assert len(said.err.strip().splitlines()) >= 2  # what is wrong, and what to do
        return said.err

    return run


def test_the_printed_line_for_curl_works_and_ctrl_c_ends_it_in_order():
    with serving("--model", model_path(), "--port", "0") as server:
        lines = first_lines(server)
        assert "models   demo (the base)" in lines
        line = next(line.removeprefix("ask").strip() for line in lines if line.startswith("ask"))
        if shutil.which("curl"):
            done = subprocess.run(line, shell=True, capture_output=True, text=True, check=True)
            assert json.loads(done.stdout)["choices"][0]["message"]["content"]
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=60)
    assert (server.returncode, err) == (130, "stopped serving\n")
    assert not shutil.which("curl") or out.split()[1:3] == ["200", "demo"]


def test_ctrl_c_does_not_wait_for_an_answer_that_is_being_made():
    with serving("--model", model_path(), "--port", "0", "--json") as server:
        assert server.stdout is not None
        ready = json.loads(server.stdout.readline())
        body = {"model": "demo", "prompt": "The", "max_tokens": 10**7, "stream": True,
                "logit_bias": {str(stop): -1000 for stop in stops()}}  # fmt: skip
        request = urllib.request.Request(
            f"{ready['url']}/completions", json.dumps(body).encode(), {"User-Agent": "test"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            while not answer.readline().startswith(b"data: "):
                pass
            server.send_signal(signal.SIGINT)
            assert server.wait(60) == 130


def stops() -> set[int]:
    """The tokens at which the demo ends an answer."""
    from orpo_mlx.models.load import load_tokenizer

    return set(load_tokenizer(model_path()).eos_token_ids)


def test_it_is_served_to_this_machine_alone_unless_told():
    with serving("--model", model_path(), "--port", "0", "--json") as server:
        assert server.stdout is not None
        port = int(json.loads(server.stdout.readline())["url"].split(":")[2].split("/")[0])
        listening = Path("/proc/net/tcp")
        if listening.exists():
            rows = [row.split() for row in listening.read_text().splitlines()[1:]]
            mine = [row[1] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"]
            assert [address.split(":")[0] for address in mine] == ["0100007F"]
        assert server.poll() is None


def test_a_port_in_use_is_said_before_anything_is_loaded(refused: Callable[..., str]):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused("--model", model_path(), "--port", port)
    assert f"127.0.0.1:{port}" in said
    assert "--port 0" in said


def test_an_address_of_another_machine_is_refused(refused: Callable[..., str]):
    assert "--host" in refused("--model", model_path(), "--host", "192.0.2.1")


@pytest.mark.parametrize("port", ["-1", "70000", "http", "8080.5"])
def test_a_port_that_is_none_is_refused(refused: Callable[..., str], port: str):
    assert "--port" in refused("--model", model_path(), "--port", port)


def test_something_to_serve_is_needed(refused: Callable[..., str]):
    assert "orpo-mlx serve RUN" in refused()
    assert "no run" in refused("nothing-of-this-name")


@pytest.fixture
def adapter_of(tmp_path: Path) -> Callable[..., Path]:
    """Return `make(name, base, **config) -> folder`: an adapter as far as it is looked at."""

    def make(name: str, base: str, **config: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        content = {
            "fine_tune_type": "lora", "num_layers": 1, "base_model": base,
            "lora_parameters": {"rank": 2, "scale": 2.0, "dropout": 0.0}, **config,
        }  # fmt: skip
        (folder / "adapter_config.json").write_text(json.dumps(content))
        return folder

    return make


def test_adapters_of_different_bases_are_refused_with_what_to_do(
    refused: Callable[..., str], adapter_of: Callable[..., Path], model_folder: Path
):
    one = adapter_of("one", str(model_path()))
    two = adapter_of("two", str(model_folder))
    said = refused(one, two)
    assert str(model_folder) in said
    assert str(model_path()) in said
    assert f"serve {two} --port 8081" in said


def test_one_base_in_two_places_is_one_base_by_its_fingerprint(
    refused: Callable[..., str], adapter_of: Callable[..., Path]
):
    one = adapter_of("one", str(model_path()), base_fingerprint="same")
    moved = adapter_of("two", "/elsewhere/model", base_fingerprint="same")
    said = refused(one, moved)  # it comes as far as the model, which has another fingerprint
    assert "one server has one base" not in said
    assert "the adapter was trained on" in said


def test_two_of_one_name_are_refused_and_the_same_twice_is_once(
    refused: Callable[..., str], adapter_of: Callable[..., Path]
):
    first = adapter_of("a/mine", str(model_path()))
    second = adapter_of("b/mine", str(model_path()))
    assert "mine: 2 of the models" in refused(first, second)
    assert "adapters.safetensors" in refused(first, first)
    assert "demo: 2 of the models" in refused(adapter_of("demo", str(model_path())))


def test_a_reward_model_is_not_served(refused: Callable[..., str], adapter_of: Callable[..., Path]):
    folder = adapter_of("rater", str(model_path()))
    (folder / "reward_head.safetensors").write_bytes(b"")
    assert "reward model" in refused(folder)


@pytest.mark.slow
def test_the_client_of_openai_asks_streams_and_is_refused(tmp_path: Path):
    """In an environment of its own; skipped where the package index has nothing to give."""
    home = Path(os.environ.get("ORPO_MLX_OPENAI", tmp_path / "openai"))
    python = home / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        got = subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", "openai"], check=False
        )
        if got.returncode:
            pytest.skip("openai cannot be installed here")
    with serving("--model", model_path(), "--port", "0", "--json") as server:
        assert server.stdout is not None
        ready = json.loads(server.stdout.readline())
        done = subprocess.run(
            [str(python), "-c", _CLIENT, ready["url"]], capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 130
    found = json.loads(done.stdout)
    assert found["models"] == ["demo"]
    assert found["whole"] == found["streamed"]
    assert len(found["whole"]) > 10
    assert found["refused"] == ["NotFoundError", "model_not_found", "BadRequestError"]


_CLIENT = """
import json, sys, openai
client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
asked = dict(model="demo", temperature=0, max_tokens=32,
             messages=[{"role": "user", "content": "What colour is the sky?"}])
whole = client.chat.completions.create(**asked).choices[0].message.content
chunks = client.chat.completions.create(**asked, stream=True)
streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
refused = []
try:
    client.chat.completions.create(**{**asked, "model": "gpt-4o"})
except openai.APIStatusError as error:
    refused += [type(error).__name__, error.code]
try:
    client.chat.completions.create(**asked, extra_body={"adapters": "/tmp"})
except openai.APIStatusError as error:
    refused += [type(error).__name__]
print(json.dumps({"models": [m.id for m in client.models.list()], "whole": whole,
                  "streamed": streamed, "refused": refused}))
"""

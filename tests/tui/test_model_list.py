"""Models that are found: in folders, in a cache, on a stand-in of the Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from orpo_mlx.errors import ModelError
from tui import model_list


def make_model(folder: Path, weights: int = 100, **config: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    if weights:
        (folder / "model.safetensors").write_bytes(b"x" * weights)
    return folder


def test_folders_with_a_config_and_weights_are_models(tmp_path):
    make_model(tmp_path / "a" / "b", 30, quantization={"bits": 4})
    make_model(tmp_path / "c", 0)
    make_model(tmp_path / ".hidden")
    make_model(tmp_path / "1" / "2" / "3" / "4")
    found = list(model_list.models_below(tmp_path))
    assert [(row.name, row.quant, row.size) for row in found] == [
        (str(tmp_path / "a" / "b"), "4 bit", 30)
    ]


def test_the_cache_gives_ids_and_leaves_out_what_has_no_weights(tmp_path):
    make_model(tmp_path / "models--org--good" / "snapshots" / "1", torch_dtype="bfloat16")
    make_model(tmp_path / "models--org--partial" / "snapshots" / "1", 0)
    rows = model_list.cached_models(tmp_path)
    assert [(row.name, row.quant, row.place) for row in rows] == [("org/good", "bf16", "cache")]
    assert model_list.cached_models(tmp_path / "none") == []


def test_what_cannot_be_read_is_no_model(tmp_path):
    folder = make_model(tmp_path / "a")
    (folder / "config.json").write_bytes(b"\xff{")
    assert [row.kind for row in model_list.models_below(tmp_path)] == [""]
    assert list(model_list.models_below(tmp_path / "none")) == []


def test_the_built_in_model_comes_first_and_no_model_twice(tmp_path, monkeypatch):
    make_model(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    rows = model_list.local_models([tmp_path])
    assert rows[0].title == "built-in demo model"
    assert [row.name for row in rows].count(str(tmp_path / "mine")) == 1


def test_offline_the_hub_is_not_asked():
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE"):
        model_list.search_hub("qwen")


INFO = {
    "id": "mlx-community/Some-4bit", "downloads": 1200, "gated": False,
    "safetensors": {"parameters": {"U32": 100, "BF16": 10}, "total": 110},
    "config": {"model_type": "qwen2"},
}  # fmt: skip


class _Hub(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        status = 403 if "refused" in self.path else 200
        found = [INFO] if "filter=mlx" in self.path else []
        body = json.dumps(found if status == 200 else {}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_a_search_gives_sizes_and_formats_and_a_refusal_is_a_sentence():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    code = (
        "from tui import model_list\n"
        "print(model_list.search_hub('qwen'))\n"
        "try: model_list.search_hub('refused')\n"
        "except model_list.ModelError as error: print(error.message)"
    )
    url = f"http://127.0.0.1:{server.server_address[1]}"
    env = {**os.environ, "HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True,
            timeout=60,
        )  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    row = model_list.ModelRow(
        "mlx-community/Some-4bit", "mlx-community/Some-4bit", "4 bit", 420, "qwen2", "hub", 1200
    )
    assert done.stdout.splitlines() == [str([row]), "The Hub refused to search (403)."]

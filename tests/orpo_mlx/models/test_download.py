"""Downloads from a stand-in of the Hub on this machine, with the real client."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.hub import REFUSALS, TOKEN, client_environment, go_offline, point_client

from orpo_mlx.errors import ConfigError, ModelError
from orpo_mlx.models import download
from orpo_mlx.models.load import resolve_model

REPO = "tiny-org/tiny-model"


@pytest.fixture
def server(
    hub_server: Any, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """The stand-in with one model; the client is pointed at it with an empty cache."""
    point_client(hub_server, tmp_path / "cache", monkeypatch)
    hub_server.add_model(REPO, model_folder)
    return hub_server


def refused(server: Any, repo_id: str = REPO, revision: str | None = None) -> ModelError:
    """Download, expect a refusal within 10 seconds, and return it."""
    start = time.monotonic()
    with pytest.raises(ModelError) as error:
        download.download_model(repo_id, revision)
    assert time.monotonic() - start < 10
    assert TOKEN not in str(error.value)
    return error.value


def test_a_model_is_downloaded_once_and_is_the_same(server: Any, model_folder: Path) -> None:
    found = download.download_model(REPO)
    assert found.commit_hash == server.models[REPO].sha
    for file in model_folder.iterdir():
        assert (found.path / file.name).read_bytes() == file.read_bytes()
    server.requests.clear()
    assert download.download_model(REPO).path == found.path
    assert not [path for method, path in server.requests if method == "GET" and "resolve" in path]
    assert f"Bearer {TOKEN}" in server.tokens


def test_a_hub_id_resolves_to_a_checked_folder_and_its_commit(server: Any) -> None:
    folder = resolve_model(REPO, "main")
    assert (folder.name, folder.is_local) == (REPO, False)
    assert folder.revision == server.models[REPO].sha
    assert (folder.path / "model.safetensors").is_symlink()


def test_progress_rises_to_the_sum_of_the_sizes(server: Any) -> None:
    seen: list[tuple[int, int, str, str]] = []
    download.download_model(REPO, on_progress=lambda *report: seen.append(report))
    total = sum(len(content) for content in server.models[REPO].files.values())
    done = [report[0] for report in seen]
    assert done == sorted(done)
    assert seen[-1] == (total, total, REPO, "bytes")
    assert done[0] < total


def test_python_files_and_pickles_stay_on_the_hub(server: Any, model_folder: Path) -> None:
    extra = {"modeling.py": b"raise SystemExit", "pytorch_model.bin": b"\x80\x04", "a.gguf": b"g"}
    server.add_model(REPO, model_folder, **extra)
    names = {path.name for path in download.download_model(REPO).path.iterdir()}
    assert "model.safetensors" in names
    assert not names & set(extra)
    assert not [path for _, path in server.requests if path.endswith(tuple(extra))]


@pytest.mark.parametrize(
    ("fault", "said", "advised"),
    REFUSALS,
)
def test_each_answer_of_the_hub_has_its_own_sentence(
    server: Any, fault: str, said: str, advised: str
) -> None:
    server.fault = fault
    error = refused(server)
    assert said.format(kind="model") in error.message
    assert advised.format(url=f"{server.url}/{REPO}") in error.what_to_do


def test_an_unknown_model_could_also_be_a_folder(server: Any) -> None:
    error = refused(server, "tiny-org/other")
    assert "tiny-org/other: the Hub knows no such model" in error.message
    assert "./" in error.what_to_do


def test_an_unknown_revision_is_named(server: Any) -> None:
    assert "there is no revision 'v9'" in refused(server, revision="v9").message


@pytest.mark.parametrize("name", ["a--b/c", "org/na me", "org/-x", "org/x.git", "https:x"])
def test_an_invalid_id_never_reaches_the_hub(server: Any, name: str) -> None:
    assert "neither a folder nor a valid Hub id" in refused(server, name).message
    assert server.requests == []


def test_a_cut_connection_is_called_so(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    server.fault, server.fault_on = "cut", "model.safetensors"
    # The client goes on where it was cut until nothing new arrives; then it gives up.
    server.models[REPO].files["model.safetensors"] = b"x"
    assert "connection to the Hub was cut" in refused(server).message


def test_a_full_disk_is_called_so(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.HfApi.snapshot_download", fail)
    assert "the disk is full" in refused(server).message


def test_a_disk_too_small_is_known_before_the_download(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage("/"))(10**9, 10**9, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "0.0 GB are free" in refused(server).message
    assert not [path for _, path in server.requests if "safetensors" in path]


@pytest.mark.parametrize("how", ["no answer", "offline switch"])
def test_offline_names_the_models_that_are_here(
    server: Any, model_folder: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    server.add_model("tiny-org/cached", model_folder)
    here = download.download_model("tiny-org/cached")
    go_offline(monkeypatch, how)
    error = refused(server)
    assert "not in the cache" in error.message
    assert "In the cache: tiny-org/cached." in error.message
    cached = download.download_model("tiny-org/cached")
    assert cached.path == here.path
    assert "cached copy" in cached.note


def test_a_broken_hub_does_not_matter_when_the_model_is_cached(server: Any) -> None:
    here = download.download_model(REPO)
    server.fault = "broken"
    assert download.download_model(REPO).path == here.path
    server.fault = "gated"
    assert "gated" in refused(server).message


def test_half_a_cached_model_is_not_used(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (download.download_model(REPO).path / "model.safetensors").unlink()
    go_offline(monkeypatch)
    assert "not in the cache" in refused(server).message


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_model_that_wants_code_is_refused_before_its_weights(
    server: Any, copy_folder: Callable[..., Path], model_folder: Path, file: str
) -> None:
    folder = copy_folder(model_folder)
    config = json.loads((folder / file).read_text())
    own = {"auto_map": {"AutoModel": "m.M"}, "model_type": "own"}
    (folder / file).write_text(json.dumps({**config, **own}))
    server.add_model(REPO, folder)
    assert "asks to run code" in refused(server).message
    assert not [path for _, path in server.requests if "safetensors" in path]


def test_a_model_with_pickles_only_is_refused_before_the_download(
    server: Any, model_folder: Path
) -> None:
    files = server.add_model(REPO, model_folder).files
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    assert "pickle weights are not read" in refused(server).message
    assert not [path for _, path in server.requests if "resolve" in path]


@pytest.mark.parametrize("name", ["./none", "/none/at/all", "a/b/c", "~/none-x", "models/"])
def test_a_mistyped_path_is_not_asked_for_at_the_hub(server: Any, name: str) -> None:
    with pytest.raises(ModelError, match="there is no such folder"):
        resolve_model(name)
    assert server.requests == []


def test_a_mistyped_folder_gets_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "qwen-tiny").mkdir()
    with pytest.raises(ModelError, match="Did you mean qwen-tiny"):
        resolve_model(str(tmp_path / "qwen-tinny"))


def test_a_folder_has_no_revision(model_folder: Path) -> None:
    with pytest.raises(ConfigError, match="--revision v1"):
        resolve_model(str(model_folder), "v1")
    assert resolve_model(str(model_folder)).is_local


SCRIPT = """
import logging, sys
logging.basicConfig(level=logging.DEBUG)
from orpo_mlx.errors import ModelError
from orpo_mlx.models.download import download_model
try:
    print(download_model(sys.argv[1]))
except ModelError as error:
    print(error)
    import traceback; traceback.print_exc()
"""


@pytest.mark.parametrize("fault", ["", "bad_token", "gated"])
def test_the_token_is_in_no_output_and_no_file(
    hub_server: Any, model_folder: Path, tmp_path: Path, fault: str
) -> None:
    hub_server.add_model(REPO, model_folder)
    hub_server.fault = fault
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, REPO],
        env={**os.environ, **client_environment(hub_server, tmp_path / "home")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"Bearer {TOKEN}" in hub_server.tokens
    assert TOKEN not in done.stdout + done.stderr
    for file in (tmp_path / "home").rglob("*"):
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes()

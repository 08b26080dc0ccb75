"""The access token is shown nowhere, whoever sends it back."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from support.hub import TOKEN, point_client

from orpo_mlx.cli.main import main
from orpo_mlx.runs.events import EventWriter, NoteLogged
from orpo_mlx.text.formatting import visible, without_controls, written_out
from orpo_mlx.text.redaction import redacted, without_places

OTHER = "hf_other6789012345678901234567890abcde"


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
def test_a_token_of_the_environment_is_masked_by_every_gate(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(name, TOKEN)
    text = f"403: Bearer {TOKEN}, {TOKEN}!"
    stars = "*" * len(TOKEN)
    for gate in (redacted, visible, written_out, without_controls):
        assert gate(text) == f"403: Bearer {stars}, {stars}!"


def test_saved_tokens_are_masked_and_new_ones_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert redacted(f"{TOKEN} {OTHER}") == f"{TOKEN} {OTHER}"
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "stored_tokens").write_text(f"[mine]\nhf_token = {OTHER}\n")
    assert "hf_" not in redacted(f"{TOKEN} {OTHER}")


def test_short_words_are_no_tokens(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "a")
    assert redacted("a banana") == "a banana"


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--model", "ann/x", "--data", "DATA"],
        ["train", "--model", "MODEL", "--data", "ann/x"],
        ["data", "check", "ann/x"],
        ["export", "ADAPTER", "--to", "hub", "--repo", "ann/x"],
        ["export", "ADAPTER", "--to", "hub", "--repo", "ann/x", "--json"],
    ],
)
def test_a_server_that_sends_it_back_does_not_make_it_public(
    words: list[str], hub_server: Any, model_folder: Path, pairs_file: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
):  # fmt: skip
    point_client(hub_server, tmp_path / "cache", monkeypatch)
    hub_server.fault = "echo"
    adapter = tmp_path / "adapter"
    if "ADAPTER" in words:
        save_adapter_of(model_folder, adapter)
    places = {"DATA": str(pairs_file()), "MODEL": str(model_folder), "ADAPTER": str(adapter)}
    assert main([*(places.get(word, word) for word in words), "--debug"]) == 2
    said = capfd.readouterr()
    assert "Traceback" in said.err
    assert f"Bearer {TOKEN}" in hub_server.tokens
    assert TOKEN not in said.out + said.err
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and TOKEN.encode() in p.read_bytes()]


def save_adapter_of(model: Path, folder: Path) -> None:
    from orpo_mlx.adapters.files import save_adapter
    from orpo_mlx.adapters.lora import AdapterSpec, attach_adapter
    from orpo_mlx.models.load import load_model

    loaded = load_model(model)
    spec = AdapterSpec(rank=2, target_modules=("v_proj",))
    attach_adapter(loaded.model, spec, seed=1)
    save_adapter(loaded.model, spec, folder, str(model), loaded.fingerprint)


def test_what_a_library_logs_and_what_a_run_records_is_masked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    main(["--version"])
    logging.getLogger("huggingface_hub").warning("a warning for %s", TOKEN)
    assert TOKEN not in caplog.text
    writer = EventWriter(tmp_path / "events.jsonl")
    writer.write(NoteLogged("warning", f"the server says {TOKEN}"))
    writer.close()
    event = json.loads((tmp_path / "events.jsonl").read_text())
    assert "*****" in json.dumps(event)
    assert TOKEN not in json.dumps(event)


# What is sent to strangers


@pytest.fixture
def anna(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with a name, at a machine with a name; returns the home folder."""
    home = tmp_path / "Users" / "anna.berg"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USER", "anna.berg")
    monkeypatch.setenv("LOGNAME", "anna.berg")
    monkeypatch.setattr("getpass.getuser", lambda: "anna.berg")
    monkeypatch.setattr("platform.node", lambda: "Annas-Mac.local")
    return home


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{home}/models/Qwen: no config.json", "<path>: no config.json"),
        ("'{home}/My Models/x.json' is missing", "'<path>' is missing"),
        ("{home}/My Models/x.json is missing", "<path> is missing"),
        ("cannot open /opt/secret/list.txt, /var/x", "cannot open <path>, <path>"),
        ("~/models/x and ~anna.berg/y", "<path> and <path>"),
        ("anna.berg@Annas-Mac.local on ANNAS-MAC", "<user>@<host> on <host>"),
        ("run by anna.berg.", "run by <user>."),
    ],
)
def test_a_message_loses_its_places_and_names(text: str, wanted: str, anna: Path):
    assert without_places(text.format(home=anna)) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "0.31 pairs/s, 12 of 14 steps, 3 / 4",
        "mlx-community/Qwen3-0.6B-4bit, https://example.org/a/b",
        "float32 with MLX_ENABLE_TF32=0; a step: 1/4",
        "annabel, the cat",
    ],
)
@pytest.mark.usefixtures("anna")
def test_other_text_stays_as_it_is(text: str):
    assert without_places(text) == text


@pytest.mark.usefixtures("anna")
def test_a_token_goes_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert TOKEN not in without_places(f"403 for {TOKEN}")

"""Datasets from a stand-in of the Hub on this machine, with the real client."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet
from support.hub import REFUSALS, TOKEN, client_environment, go_offline, point_client

from orpo_mlx.config import TrainConfig
from orpo_mlx.data.sources.hub_datasets import (
    CONVERTED,
    RemoteDataset,
    RemoteFile,
    list_dataset,
)
from orpo_mlx.data.sources.source import (
    Choice,
    Source,
    find_data,
    find_sources,
    read_members,
    read_rows,
)
from orpo_mlx.errors import ConfigError, DataError

REPO = "tiny-org/tiny-pairs"


def rows(start: int, count: int) -> list[dict[str, str]]:
    return [
        {"prompt": f"What is {i}?", "chosen": f"It is {i}.", "rejected": "No."}
        for i in range(start, start + count)
    ]


def as_parquet(content: list[dict[str, str]]) -> bytes:
    stream = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(content), stream)
    return stream.getvalue()


def as_lines(content: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in content).encode()


PREFS = {
    "README.md": b"---\n---\n",
    "data/train_prefs-00000-of-00002.parquet": as_parquet(rows(0, 3)),
    "data/train_prefs-00001-of-00002.parquet": as_parquet(rows(3, 2)),
    "data/train_sft-00000-of-00001.parquet": as_parquet(rows(50, 4)),
    "data/test_prefs-00000-of-00001.parquet": as_parquet(rows(5, 1)),
}


@pytest.fixture
def server(hub_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stand-in with one dataset; the client is pointed at it with an empty cache."""
    point_client(hub_server, tmp_path / "cache", monkeypatch)
    hub_server.add_dataset(REPO, dict(PREFS))
    return hub_server


def prompts(source: Source) -> list[str]:
    return [row.values["prompt"] for part in read_members(source.members) for row in part]


def refused(name: str = REPO, **choice: str) -> DataError:
    """Look for a dataset, expect a refusal within 10 seconds, and return it."""
    start = time.monotonic()
    with pytest.raises(DataError) as error:
        find_data(name, Choice(**choice))
    assert time.monotonic() - start < 10
    assert TOKEN not in str(error.value)
    assert error.value.what_to_do
    return error.value


# What is chosen -----------------------------------------------------------------------------------


def test_the_preference_split_is_found_with_all_its_parts_in_order(server: Any) -> None:
    source = find_data(REPO)
    assert prompts(source) == [f"What is {i}?" for i in range(5)]
    assert source.members[0].what == "train_prefs"
    assert source.revisions == {REPO: server.datasets[REPO].sha}
    fetched = [path for method, path in server.requests if method == "GET" and "resolve" in path]
    assert not [path for path in fetched if "sft" in path or "test" in path]


def test_rows_are_named_by_file_and_row(server: Any) -> None:
    found = [row.source for row in read_rows(REPO)]
    assert found[0] == "train_prefs-00000-of-00002.parquet:row 1"
    assert found[3] == "train_prefs-00001-of-00002.parquet:row 1"


def test_a_dataset_is_downloaded_once(server: Any) -> None:
    find_data(REPO)
    server.requests.clear()
    find_data(REPO)
    assert not [path for _, path in server.requests if "resolve" in path]
    assert f"Bearer {TOKEN}" in server.tokens


def test_a_named_split_subset_and_revision_are_taken(server: Any) -> None:
    old = server.datasets[REPO]
    new = server.add_dataset(REPO, {"easy/train.jsonl": as_lines(rows(7, 1)), **PREFS})
    new.others["v1"] = old
    assert prompts(find_data(REPO, Choice(split="test_prefs"))) == ["What is 5?"]
    assert prompts(find_data(REPO, Choice(subset="easy"))) == ["What is 7?"]
    assert find_data(REPO, Choice(revision="v1")).revisions == {REPO: old.sha}


def test_for_validation_the_test_split_is_found(server: Any) -> None:
    assert prompts(find_data(REPO, role="valid")) == ["What is 5?"]


def test_row_30_without_a_train_split_the_splits_are_listed_with_the_option(server: Any) -> None:
    server.add_dataset(
        REPO, {f"data/{name}-00000-of-00001.parquet": b"" for name in ("first", "second")}
    )
    error = refused()
    assert f"{REPO}: there is no train split. Splits found: first, second." in error.message
    assert "--data-split first" in error.what_to_do


def test_two_splits_that_would_do_are_listed(server: Any) -> None:
    server.add_dataset(
        REPO, {f"data/train_{n}-00000-of-00001.parquet": b"" for n in ("sft", "gen")}
    )
    error = refused()
    assert "several splits would do" in error.message
    assert "train_gen, train_sft" in error.message
    assert "--data-split train_gen" in error.what_to_do


def test_several_subsets_are_listed_with_the_option(server: Any) -> None:
    server.add_dataset(REPO, {f"{name}/train.jsonl.gz": b"" for name in ("harmless", "helpful")})
    error = refused()
    assert "several subsets: harmless, helpful" in error.message
    assert "--data-subset harmless" in error.what_to_do


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"split": "train_pref"}, "no split 'train_pref'. Did you mean train_prefs?"),
        ({"subset": "hard"}, "no subset 'hard'"),
        ({"revision": "v9"}, "no revision 'v9'"),
    ],
)
def test_what_was_named_and_is_not_there_is_said(
    server: Any, choice: dict[str, str], said: str
) -> None:
    assert said.split(".")[0] in refused(**choice).message


def test_the_dataset_card_decides_where_it_describes_files(server: Any) -> None:
    files = {"a/x.jsonl": as_lines(rows(1, 1)), "b/y.jsonl": as_lines(rows(2, 1))}
    configs = [
        {"config_name": "first", "data_files": [{"split": "train", "path": "a/*"}]},
        {
            "config_name": "second",
            "data_files": [{"split": "train", "path": ["b/*"]}],
            "default": True,
        },
    ]
    server.add_dataset(REPO, files, configs=configs)
    assert prompts(find_data(REPO)) == ["What is 2?"]
    assert prompts(find_data(REPO, Choice(subset="first"))) == ["What is 1?"]


def test_a_dataset_of_scripts_is_read_from_the_copy_that_the_hub_makes(server: Any) -> None:
    copy = {"default/train/0000.parquet": as_parquet(rows(8, 2))}
    dataset = server.add_dataset(REPO, {"tiny-pairs.py": b"raise SystemExit", "x.arrow": b""})
    dataset.others[CONVERTED] = type(dataset)(copy)
    source = find_data(REPO)
    assert prompts(source) == ["What is 8?", "What is 9?"]
    assert source.revisions == {REPO: dataset.others[CONVERTED].sha}
    assert "Parquet copy" in source.notes[0]
    assert not [path for _, path in server.requests if path.endswith(".py")]


def test_without_readable_files_and_copy_both_are_said(server: Any) -> None:
    server.add_dataset(REPO, {"tiny-pairs.py": b"", "x.arrow": b""})
    error = refused()
    assert "no file that is read here (found: .arrow, .py)" in error.message
    assert "no Parquet copy" in error.message
    error = refused(revision="main")
    assert "made of main alone" in error.message


def test_its_own_files_are_preferred_to_the_copy(server: Any) -> None:
    server.datasets[REPO].others[CONVERTED] = type(server.datasets[REPO])({})
    assert len(prompts(find_data(REPO))) == 5
    assert not [path for _, path in server.requests if "convert" in path]


# Faults -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "said", "advised"),
    REFUSALS,
)
def test_each_answer_of_the_hub_has_its_own_sentence(
    server: Any, fault: str, said: str, advised: str
) -> None:
    server.fault = fault
    error = refused()
    page = f"{server.url}/datasets/{REPO}"
    assert said.format(kind="dataset") in error.message
    assert advised.format(url=page) in error.what_to_do


def test_an_unknown_dataset_could_also_be_a_file(server: Any) -> None:
    error = refused("tiny-org/other")
    assert "tiny-org/other: the Hub knows no such dataset" in error.message
    assert "no file or folder of that name either" in error.message


def test_a_mistyped_file_is_not_asked_for_at_the_hub(server: Any) -> None:
    assert "no such file" in refused("data/pairs.jsonl").message
    assert server.requests == []


def test_a_cut_connection_is_called_so(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    server.add_dataset(REPO, {"train.jsonl": b"x"})
    server.fault, server.fault_on = "cut", "train.jsonl"
    assert "connection to the Hub was cut" in refused().message


def test_a_disk_too_small_is_known_before_the_download(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage("/"))(10**9, 10**9, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "0.0 GB are free" in refused().message
    assert not [path for _, path in server.requests if "resolve" in path]


def test_a_file_that_arrives_damaged_is_removed_and_fetched_anew(server: Any) -> None:
    name = "data/train_prefs-00001-of-00002.parquet"
    server.damaged = {name}
    error = refused()
    assert "train_prefs-00001-of-00002.parquet arrived damaged (sha256 " in error.message
    server.damaged = set()
    assert len(prompts(find_data(REPO))) == 5


@pytest.mark.parametrize("how", ["no answer", "offline switch"])
def test_offline_the_cached_copy_is_used_and_said(
    server: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    first = find_data(REPO)
    go_offline(monkeypatch, how)
    again = find_data(REPO)
    assert prompts(again) == prompts(first)
    assert again.revisions == first.revisions
    assert "the cached copy is used" in again.notes[0]
    assert find_data(REPO, pinned=first.revisions).revisions == first.revisions


@pytest.mark.parametrize("how", ["no answer", "offline switch"])
def test_offline_a_dataset_that_is_not_here_names_those_that_are(
    server: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    find_data(REPO)
    go_offline(monkeypatch, how)
    error = refused("tiny-org/other")
    assert "not in the cache" in error.message
    assert f"In the cache: {REPO}." in error.message


def test_offline_a_split_that_was_never_fetched_is_an_error(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_data(REPO)
    go_offline(monkeypatch)
    assert "HF_HUB_OFFLINE is set" in refused(split="train_sft").message


def test_a_broken_hub_does_not_matter_when_the_dataset_is_cached(server: Any) -> None:
    find_data(REPO)
    server.fault = "broken"
    assert len(prompts(find_data(REPO))) == 5
    server.fault = "gated"
    assert "gated" in refused().message


# With a training ----------------------------------------------------------------------------------


def test_a_pinned_commit_is_read_although_the_branch_has_moved_on(server: Any) -> None:
    before = find_data(REPO)
    old = server.datasets[REPO]
    new = server.add_dataset(REPO, {"train.jsonl": as_lines(rows(90, 2))})
    new.others["older"] = old
    assert prompts(find_data(REPO)) == ["What is 90?", "What is 91?"]
    assert prompts(find_data(REPO, pinned=before.revisions)) == prompts(before)


def test_a_validation_split_is_used_unless_a_fraction_is_asked_for(server: Any) -> None:
    files = {"train.jsonl": as_lines(rows(0, 9)), "validation.jsonl": as_lines(rows(9, 1))}
    server.add_dataset(REPO, files)
    found = find_sources(TrainConfig(data=REPO))
    assert found.valid is not None
    assert prompts(found.valid) == ["What is 9?"]
    assert "validation pairs are those of" in found.notes[0]
    assert find_sources(TrainConfig(data=REPO, valid_fraction=0.5)).valid is None


def test_a_revision_needs_a_hub_dataset(server: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(as_lines(rows(0, 1)))
    with pytest.raises(ConfigError, match=r"--data-revision v1: .* is not a Hub dataset"):
        find_data(str(path), Choice(revision="v1"))
    with pytest.raises(ConfigError, match="--data-split test"):
        find_data(str(path), Choice(split="test"))


def test_an_invalid_id_never_reaches_the_hub(server: Any) -> None:
    with pytest.raises(DataError, match="nor a valid Hub id"):
        list_dataset("org/x.git")
    assert server.requests == []


SCRIPT = """
import logging, sys
logging.basicConfig(level=logging.DEBUG)
from orpo_mlx.__main__ import main
sys.exit(main(["data", "convert", sys.argv[1], sys.argv[2], "--debug"]))
"""


@pytest.mark.parametrize("fault", ["", "bad_token", "gated"])
def test_the_token_is_in_no_output_and_no_file(hub_server: Any, tmp_path: Path, fault: str) -> None:
    hub_server.add_dataset(REPO, dict(PREFS))
    hub_server.fault = fault
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, REPO, str(tmp_path / "out.jsonl")],
        env={**os.environ, **client_environment(hub_server, tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (2 if fault else 0), done.stderr
    assert f"Bearer {TOKEN}" in hub_server.tokens
    assert TOKEN not in done.stdout + done.stderr
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes()


def test_a_run_records_the_commit_and_resumes_with_it(
    server: Any,
    make_model_folder: Any,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from orpo_mlx.cli.commands.train import main

    model, run = make_model_folder(tmp_path / "model"), tmp_path / "run"
    server.add_dataset(REPO, {"train.jsonl": as_lines(rows(0, 12))})
    commit = server.datasets[REPO].sha
    words = ["--model", str(model), "--data", REPO, "--run-dir", str(run), "--rank", "2"]
    words += ["--steps", "2", "--micro-batch-size", "2", "--sample-prompts", "0"]
    assert main([*words, "--save-every", "1"]) == 0
    manifest = json.loads((run / "checkpoints" / "0000001" / "manifest.json").read_text())
    assert manifest["content"]["data_revision"] == {REPO: commit}
    assert commit[:12] in (run / "events.jsonl").read_text()

    shutil.rmtree(run / "checkpoints" / "0000002")
    (run / "state.json").unlink()
    lines = (run / "events.jsonl").read_text().splitlines(keepends=True)
    (run / "events.jsonl").write_text("".join(line for line in lines if "RunFinished" not in line))
    old = server.datasets[REPO]
    server.add_dataset(REPO, {"train.jsonl": as_lines(rows(50, 12))}).others["older"] = old
    capfd.readouterr()
    assert main(["--resume", str(run), "--data-revision", "main"]) == 2
    said = capfd.readouterr().err
    assert f"--data-revision of {REPO}: was '{commit}', is now" in said
    assert main(["--resume", str(run)]) == 0


@pytest.mark.parametrize("name", ["/etc/passwd", "../../secret.jsonl", "a/../../b.jsonl"])
def test_a_name_that_leads_out_of_the_dataset_is_refused(name: str) -> None:
    found = RemoteDataset(REPO, "0" * 40, [RemoteFile(name, 1)])
    with pytest.raises(DataError, match="leads out of the dataset"):
        found.fetch([name])

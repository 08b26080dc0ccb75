"""Exports as lines: how each stands, why one failed, what uses the result."""

from __future__ import annotations

from pathlib import Path

import pytest

from tui.export.jobs import Job, jobs_lines

CHECK = {"name": "answers", "passed": True, "value": 0.5, "limit": 1.0, "text": "equal"}
FINISHED = {
    "event": "finished", "path": "/out/run", "files": [{"bytes": 2_000_000}], "seconds": 3.0,
    "command": "ollama run x", "serve": ["llama-server -m x"], "notes": ["large"],
}  # fmt: skip


def text_of(jobs, width=60, charset="ascii") -> list[str]:
    return ["".join(text for _, text in line) for line in jobs_lines(jobs, width, charset)]


def test_a_job_waits_is_written_and_says_how_to_use_it():
    job = Job("mlx", None)
    assert text_of([job]) == [". mlx        waiting"]
    job.begin()
    assert text_of([job], charset="braille") == ["▶ mlx        reading the adapter"]
    job.apply({"event": "progress", "done": 5, "total": 10, "label": "weights"})
    assert text_of([job]) == ["> mlx        ########........ 5/10  weights"]
    job.apply({"event": "verified", "checks": [CHECK]})
    job.apply(FINISHED)
    job.close(0, "")
    assert text_of([job]) == [
        "v mlx        written: 1 file, 2 MB, 3.0 s",
        "    /out/run",
        "    use it: ollama run x",
        "    serve it: llama-server -m x",
        "    v passed answers [0.500, at most 1.000]: equal",
        "    note: large",
    ]


def test_nothing_to_use_is_not_mentioned():
    job = Job("mlx", None)
    job.begin()
    job.apply({**FINISHED, "command": "", "serve": [], "notes": []})
    assert text_of([job])[1:] == ["    /out/run"]


def test_failures_come_first_and_name_their_format():
    done, failed = Job("mlx", None), Job("gguf", Path("/x"))
    done.begin()
    done.apply({**FINISHED, "command": "", "notes": []})
    failed.begin()
    failed.close(-9, "")
    assert text_of([done, failed])[2:6] == [
        "", "  gguf", "    The export's process ended with code -9.",
        "    Try again; `orpo-mlx doctor` looks at the machine.",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [10, 30, 80])
def test_texts_are_wrapped_into_the_room_and_harmless(width):
    job = Job("mlx", None)
    job.fail("word " * 40 + "\x1b[31m", "do " * 30)
    lines = text_of([job], width)[1:]
    assert max(map(len, lines)) <= max(width, 25)
    assert "\x1b" not in "".join(lines)


def test_only_a_place_that_is_taken_may_be_replaced():
    job = Job("mlx", None)
    job.begin()
    job.apply(
        {
            "event": "failed",
            "kind": "target_exists",
            "message": "There.",
            "what_to_do": "Give --force.",
        }
    )
    assert job.is_taken
    job.force = True
    assert not job.is_taken
    job.force = False
    job.begin()
    assert not job.is_taken
    job.apply({"event": "failed", "kind": "", "message": "No.", "what_to_do": "Look."})
    assert not job.is_taken

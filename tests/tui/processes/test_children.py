"""Children answer in JSON lines and end with the app, however it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tui.processes.children import JsonLinesChild

DEADLINE_SECONDS = 20.0


@pytest.fixture
def program(tmp_path):
    """Return `make(body)`: a program with its folder as `place`."""

    def make(body: str) -> str:
        file = tmp_path / "program.py"
        head = "import json, os, subprocess, sys, time\nfrom pathlib import Path\n"
        file.write_text(f"{head}place = Path({str(tmp_path)!r})\n{body}")
        return str(file)

    return make


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:  # on Linux only; a zombie has ended, too
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"


def wait_until(condition) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "never"
        time.sleep(0.01)


async def test_a_child_answers_in_json_lines_and_strays_are_kept(program):
    file = program("print('hello')\nfor line in sys.stdin: print(line, end='')")
    async with JsonLinesChild([file]) as child:
        await child.send({"a": 1})
        async for message in child:
            assert message == {"a": 1}
            break
        assert list(child.stray) == ["hello"]
    assert child.exit_code is not None


async def test_a_child_that_fails_gives_its_complaint(program):
    async with JsonLinesChild([program("sys.exit('no such thing')")]) as child:
        assert [line async for line in child.lines()] == []
    assert (child.exit_code, child.complaint) == (1, "no such thing")


async def test_modules_of_the_present_folder_are_not_taken_for_ours(tmp_path, monkeypatch):
    for name in ("tui", "orpo_mlx"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not ours')")
    monkeypatch.chdir(tmp_path)
    async with JsonLinesChild(["-m", "orpo_mlx", "--version"]) as child:
        async for _ in child:
            pass
    assert "not ours" not in child.complaint
    assert child.stray


async def test_a_module_gets_its_words():
    async with JsonLinesChild(["-m", "json.tool", "--no-such-flag"]) as child:
        assert [line async for line in child.lines()] == []
    assert "unrecognized arguments: --no-such-flag" in child.complaint


CLEANS_UP = """
begun = place / "aside"
begun.write_text("half")
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
try:
    print(json.dumps([os.getpid(), child.pid]), flush=True)
    time.sleep(600)
finally:
    begun.unlink()
"""


async def test_closing_interrupts_once_so_that_a_child_cleans_up(program, tmp_path):
    async with JsonLinesChild([program(CLEANS_UP)]) as child:
        pids = await anext(aiter(child))
    assert child.exit_code not in (None, 0)
    assert not (tmp_path / "aside").exists()
    wait_until(lambda: not any(map(is_alive, pids)))


async def test_a_child_that_ignores_the_interrupt_is_ended_all_the_same(program, monkeypatch):
    monkeypatch.setattr("tui.processes.children._PATIENCE_SECONDS", 0.2)
    body = "import signal\nfor s in (2, 15): signal.signal(s, signal.SIG_IGN)\n"
    async with JsonLinesChild([program(body + "print(0, flush=True)\ntime.sleep(600)")]) as child:
        async for _ in child:
            break
    assert child.exit_code == -signal.SIGKILL


APP = """
import asyncio, json, sys
from tui.processes.children import JsonLinesChild

async def main():
    async with JsonLinesChild([sys.argv[1]]) as child:
        async for message in child:
            print(json.dumps(message), flush=True)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_no_child_outlives_an_app_that_is_killed(program, tmp_path):
    words = [sys.executable, "-c", APP, program(CLEANS_UP)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as app:
        pids = json.loads(app.stdout.readline())
        app.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, pids)))
    assert not (tmp_path / "aside").exists()


async def test_a_child_whose_start_is_cancelled_leaves_nothing_open(program):
    before = len(os.listdir("/dev/fd"))
    task = asyncio.create_task(JsonLinesChild([program("time.sleep(600)")]).__aenter__())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(os.listdir("/dev/fd")) <= before

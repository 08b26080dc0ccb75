"""A trainer without a model: does what its `lam` says, obeys a stop, and goes on when resumed.

0.1: completes; 0.2: fails; 0.3: is refused before it has a folder; 0.4: trains until it is asked to
stop, saves, and completes when it is resumed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from orpo_mlx.config.file import load_config
from orpo_mlx.runs.control import Inbox
from orpo_mlx.runs.directory import RunDirectory, create_run
from orpo_mlx.runs.events import EventWriter, RunFailed, RunFinished


def begin(file: str, place: str) -> RunDirectory:
    config = load_config(Path(file))
    if config.lam == 0.3:
        sys.stderr.write("reading\nerror: there is no such model\ntake another one\n")
        sys.exit(2)
    return create_run(config.model_copy(update={"run_dir": place}))


def main(words: list[str]) -> None:
    is_new = words[0] == "--config"
    run = begin(words[1], words[3]) if is_new else RunDirectory(Path(words[1]))
    with run.lock():
        writer, inbox = EventWriter(run.events_file), Inbox(run.control_folder)
        (run.path / "starts").open("a").write(f"{words[0]}\n")
        lam = run.read_config().lam
        end = RunFinished("completed", 5, 1.0, None)
        if lam == 0.2:
            end = RunFailed("NaN", "NaN at step 2", "Lower the rate.", 2, None, "not_finite")
        if lam == 0.4 and is_new:
            while not any(request.name == "stop" for request in inbox.poll()):
                time.sleep(0.01)
            (run.checkpoints_folder / "0000003").mkdir()
            end = RunFinished("stopped", 3, 1.0, None)
        writer.write(end)
        writer.close()


if __name__ == "__main__":
    main(sys.argv[1:])

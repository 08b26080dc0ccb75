"""Train in real processes that are killed with SIGKILL at random instants, and resumed each time.

    python kill_trainer.py MODEL DATA FOLDER KILLS SEED

Each process is forked from this one, which has done the imports but no computation: a kill then
costs a fraction of a second instead of seconds, so that many fit into a test. Prints one JSON
object: kills, damaged checkpoints, runs completed, and the differences of their final files from
the uninterrupted run's.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import mlx.core as mx

# Before mlx_lm, which makes a stream at import: forked processes must not share a GPU.
mx.set_default_device(mx.cpu)

import mlx_lm.models.llama  # noqa: E402
import mlx_lm.tuner.utils  # noqa: E402
import mlx_lm.utils  # noqa: F401, E402 - imported here so that the forked trainers need not

from orpo_mlx.cli.commands import train  # noqa: E402
from orpo_mlx.runs.checkpoints import damage, iter_checkpoints  # noqa: E402
from orpo_mlx.runs.directory import RunDirectory  # noqa: E402

OPTIONS = [
    "--steps", "25", "--micro-batch-size", "2", "--grad-accumulation-steps", "2", "--rank", "2",
    "--num-layers", "-1", "--learning-rate", "2e-3", "--dropout", "0.2", "--valid-fraction", "0.2",
    "--eval-every", "5", "--report-every", "1", "--save-every", "1", "--keep-checkpoints", "3",
    "--sample-prompts", "1", "--sample-tokens", "2",
    "--sample-every", "5", "--quiet",
]  # fmt: skip


def start(arguments: list[str], log: Path) -> int:
    """Fork a trainer; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os._exit(train.main(arguments))


def digest(run: Path) -> dict[str, str]:
    files = [*run.glob("adapter/*.safetensors"), *run.glob("checkpoints/0000025/*.safetensors")]
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(files)
    }


def losses(run: Path) -> dict[int, float]:
    """The loss of each step as last computed."""
    found = {}
    for line in (run / "events.jsonl").read_text().splitlines():
        if '"StepCompleted"' in line and line.endswith("}"):
            event = json.loads(line)
            found[event["step"]] = event["metrics"]["loss"]
    return found


def finish(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    model, data, folder, kills_wanted, seed = sys.argv[1:]
    folder, log = Path(folder), Path(folder) / "log"
    rng = random.Random(int(seed))
    fresh = ["--model", model, "--data", data, *OPTIONS, "--run-dir"]
    started = time.monotonic()
    code = finish(start([*fresh, str(folder / "whole")], log))
    usual = time.monotonic() - started
    assert code == 0, log.read_text()
    result = {"kills": 0, "damaged": [], "completed": 0, "different": [], "failed": []}
    while result["kills"] < int(kills_wanted):
        run = folder / f"run{result['completed']}"
        arguments = [*fresh, str(run)]
        while True:
            pid = start(arguments, log)
            time.sleep(rng.uniform(0.02, usual))
            os.kill(pid, signal.SIGKILL)
            if (code := finish(pid)) >= 0:
                break
            result["kills"] += 1
            if RunDirectory(run).read_status() == "completed":
                code = 0  # killed between its last event and its end
                break
            for checkpoint in iter_checkpoints(run / "checkpoints"):
                if reason := damage(checkpoint):
                    result["damaged"].append(f"{checkpoint}: {reason}")
            if any(iter_checkpoints(run / "checkpoints")):
                arguments = ["--resume", str(run), "--quiet"]
            elif run.exists():
                # Killed before the first checkpoint: there is nothing to go on from.
                run.rename(folder / f"early{result['kills']}")
        if code != 0:
            result["failed"].append(log.read_text()[-2000:])
            break
        result["completed"] += 1
        for what in (digest, losses):
            if what(run) != what(folder / "whole"):
                result["different"].append(f"{run.name}: {what.__name__}")
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()

"""Make each peer's own environment, from pinned requirements.

    python benchmarks/make_peers.py               # all of them
    python benchmarks/make_peers.py mlx-lm-lora   # one

They go into the user's cache, or where ORPO_MLX_PEERS says; this program names the folder.
Delete that folder to be rid of them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = Path(
    os.environ.get("ORPO_MLX_PEERS") or platformdirs.user_cache_path("orpo-mlx") / "peers"
)


@dataclass(frozen=True)
class Peer:
    """Another trainer.

    Attributes:
        name: of its package, of its environment, and of `peers/NAME.txt` with its requirements.
        alone: installed after those, without what it declares to need.
    """

    name: str
    alone: tuple[str, ...] = ()

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        return ENVIRONMENTS / self.name / "bin" / "python"

    @property
    def script(self) -> Path:
        """What runs its steps."""
        return HERE / "peers" / f"{self.name.replace('-', '_')}_steps.py"

    def wanted(self) -> str:
        """Return everything to be installed, as text."""
        requirements = HERE / "peers" / f"{self.name}.txt"
        return requirements.read_text(encoding="utf-8") + "\n".join(self.alone)

    def is_ready(self) -> bool:
        """Tell whether its environment is there and holds what is wanted now."""
        ready = ENVIRONMENTS / self.name / "ready"
        return ready.exists() and ready.read_text(encoding="utf-8") == self.wanted()


PEERS = {
    peer.name: peer
    for peer in (
        Peer("mlx-lm-lora"),
        Peer("mlx-tune"),
        Peer("trl"),
        # On Linux it declares a torch stack for CUDA, which its MLX trainer does without.
        Peer("unsloth-zoo", alone=("unsloth-zoo==2026.10.9", "cut-cross-entropy==25.1.1")),
    )
}


def main(argv: Sequence[str] | None = None) -> int:
    """Make the environments that were named and are not there yet."""
    parser = argparse.ArgumentParser(description="Make each peer's own environment.")
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"of {', '.join(PEERS)}")
    names = parser.parse_args(argv).peers or list(PEERS)
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        parser.error(f"no such peer: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    failed = [name for name in names if not make(PEERS[name])]
    for name in failed:
        print(f"error: {name} could not be installed here; the rest can be compared without it")
    return 1 if failed else 0


def make(peer: Peer) -> bool:
    """Make one environment; tell whether it is complete."""
    if peer.is_ready():
        print(f"{peer.name}: there already")
        return True
    folder = ENVIRONMENTS / peer.name
    print(f"{peer.name}: installing into {folder}", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    done = install(peer, ["--requirement", str(HERE / "peers" / f"{peer.name}.txt")])
    if done and peer.alone:
        done = install(peer, ["--no-deps", *peer.alone])
    if done:
        (folder / "ready").write_text(peer.wanted(), encoding="utf-8")
    return done


def install(peer: Peer, what: list[str]) -> bool:
    """Run pip in the peer's environment; tell whether it worked."""
    command = [str(peer.python), "-m", "pip", "install", "--quiet", *what]
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())

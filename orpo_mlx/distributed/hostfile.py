"""The file that names the machines of a run, in the form of `mlx.launch`.

A list of hosts or an object with `hosts`, `backend` and `envs`; each host has `ssh`, the name it is
reached by, and `ips`, at which its peers reach it. `mlx.distributed_config` writes one.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from orpo_mlx.errors import ConfigError, reason_of
from orpo_mlx.storage.regular import read_regular

BACKENDS = ("ring", "jaccl", "jaccl-ring")
"""Of `mlx.launch`, those that a run can take."""

_EXAMPLE = (
    '[{"ssh": "127.0.0.1", "ips": ["10.0.0.1"]}, {"ssh": "other.local", "ips": ["10.0.0.2"]}]'
)


@dataclass(frozen=True)
class PeerHost:
    """A machine of a run.

    Attributes:
        ssh: the name it is reached by; 127.0.0.1 is this machine, without ssh.
        ips: at which its peers reach it.
    """

    ssh: str
    ips: tuple[str, ...]

    @property
    def is_here(self) -> bool:
        """Whether it is the machine this process runs on."""
        own = {address.address for part in psutil.net_if_addrs().values() for address in part}
        return bool({self.ssh, *self.ips} & {*own, socket.gethostname(), "localhost"})


@dataclass(frozen=True)
class Hostfile:
    """What a hostfile says.

    Attributes:
        path: absolute.
        hosts: two at least, the first one owns the run.
        backend: as the file says, "ring" if it says nothing.
    """

    path: Path
    hosts: tuple[PeerHost, ...]
    backend: str


def read_hostfile(name: str) -> Hostfile:
    """Read a hostfile.

    Raises:
        ConfigError: it cannot be read, or names no two hosts with addresses.
    """
    path = Path(name).expanduser().absolute()
    try:
        raw: Any = json.loads(read_regular(path))
        named = raw if isinstance(raw, list) else raw["hosts"]
        hosts = tuple(_host(entry) for entry in named)
        backend = "ring" if isinstance(raw, list) else raw.get("backend") or "ring"
        if len(hosts) < 2:
            raise ValueError(f"it names {len(hosts)} of at least 2 hosts")
        if backend not in BACKENDS:
            raise ValueError(f"its backend is {backend!r:.40}, not {', '.join(BACKENDS)}")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({reason_of(error)})",
            "Make one with mlx.distributed_config, or correct the path.",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else reason_of(error)
        raise ConfigError(
            f"{path}: is no hostfile of mlx.launch ({why})",
            f"It looks like this: {_EXAMPLE}; mlx.distributed_config makes one.",
        ) from error
    return Hostfile(path, hosts, backend)


def _host(entry: dict[str, Any]) -> PeerHost:
    ssh, ips = entry["ssh"], entry.get("ips", [])
    if not isinstance(ssh, str) or not ssh or ssh.startswith("-"):
        raise ValueError(f"ssh is {ssh!r:.40}, not the name of a host")
    if not isinstance(ips, list) or not ips:
        raise ValueError(f"{ssh} has no ips")
    return PeerHost(ssh, tuple(str(ipaddress.ip_address(ip)) for ip in ips))

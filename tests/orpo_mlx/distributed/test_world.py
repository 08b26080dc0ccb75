"""Who there is, as mlx.launch says it: its variables written out, and some that cannot be."""

from __future__ import annotations

import json

import pytest

from orpo_mlx.distributed.world import World, read_world
from orpo_mlx.errors import ConfigError


@pytest.fixture
def told(tmp_path):
    """Return `told(rank, content, **more)`: an environment whose file has that content."""

    def write(rank, content, name="MLX_HOSTFILE", **more):
        (tmp_path / "file").write_text(content if isinstance(content, str) else json.dumps(content))
        return {"MLX_RANK": str(rank), name: str(tmp_path / "file"), **more}

    return write


def test_without_a_rank_or_others_a_process_is_alone(told):
    assert read_world({}) is None
    assert read_world({"MLX_HOSTFILE": "none"}) is None
    assert read_world(told(0, "")) is None  # what mlx.launch -n 1 writes
    assert read_world(told(0, [["10.0.0.1:32323"]])) is None


def test_a_ring_has_its_messages_on_the_port_after_the_last(told):
    nodes = [["10.0.0.1:32323", "10.0.1.1:32324"], ["10.0.0.2:32325", "10.0.1.2:32326"]]
    found = read_world(told(1, nodes, ORPO_MLX_PEERS_SECRET="s"))
    assert found == World(1, 2, ("10.0.0.1", 32327), ("10.0.0.1", "10.0.0.2"), "s", "ring")
    assert read_world(told(0, ["a:5", "b:7"])) == World(0, 2, ("a", 8), ("a", "b"))


def test_jaccl_names_its_first_host_alone(told):
    devices = [[None, "rdma_en2", None], ["rdma_en3", None, None], [None, None, None]]
    world = told(2, devices, "MLX_IBV_DEVICES", MLX_JACCL_COORDINATOR="10.0.0.1:32323")
    assert read_world(world) == World(
        2, 3, ("10.0.0.1", 32324), ("10.0.0.1", "process 1", "process 2"), "", "jaccl"
    )


@pytest.mark.parametrize(
    ("rank", "content"),
    [("2", ["a:1", "b:2"]), ("-1", ["a:1", "b:2"]), ("x", ["a:1", "b:2"]), ("0", "{"),
     ("0", ["a", "b"]), ("0", 7), ("0", [[], []])],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(told, rank, content):
    with pytest.raises(ConfigError, match="MLX_RANK is set") as refused:
        read_world(told(rank, content))
    assert "Unset MLX_RANK" in refused.value.what_to_do


def test_a_rank_without_a_file_is_refused(tmp_path):
    for file in ({}, {"MLX_HOSTFILE": str(tmp_path / "none")}):
        with pytest.raises(ConfigError, match="MLX_RANK is set"):
            read_world({"MLX_RANK": "0", **file})

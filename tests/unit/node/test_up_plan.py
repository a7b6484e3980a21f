"""What a local cluster looks like: ports, quorum, settings that the node itself accepts."""

import tomllib
from pathlib import Path

import pytest

from node.cli_errors import CliError
from node.settings import load_settings
from node.up_plan import existing_cluster, node_toml, plan_cluster


def test_node_i_adds_ten_to_each_port() -> None:
    """interface.md, Ports: 7171 HTTP, 7172 node to node, 7173 Raft."""
    plan = plan_cluster(Path("/d"), "c", 3, None, 7171)

    assert [(one.id, one.http_port, one.peer_port, one.raft_port) for one in plan.nodes] == [
        ("node1", 7171, 7172, 7173), ("node2", 7181, 7182, 7183), ("node3", 7191, 7192, 7193),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("nodes", "replicas", "quorum", "managers"),
    [
        (1, None, (1, 1, 1), 1),
        (2, None, (2, 2, 1), 1),
        (3, None, (3, 2, 2), 3),
        (3, 1, (1, 1, 1), 3),
        (4, None, (3, 2, 2), 3),
        (5, 5, (5, 3, 3), 5),
    ],
)
def test_quorums_overlap_and_voters_are_odd(
    nodes: int, replicas: int | None, quorum: tuple[int, int, int], managers: int
) -> None:
    """R + W > N; Raft groups have 1, 3 or 5 voters."""
    plan = plan_cluster(Path("/d"), "c", nodes, replicas, 7171)
    n, w, r = plan.quorum

    assert plan.quorum == quorum
    assert r + w > n
    assert len(plan.managers) == managers


@pytest.mark.parametrize(
    ("nodes", "replicas", "base", "text"),
    [
        (0, None, 7171, "--nodes"), (21, None, 7171, "--nodes"), (3, 4, 7171, "--rf 4"),
        (3, 0, 7171, "--rf 0"), (3, None, 65_530, "do not exist"), (3, None, 0, "do not exist"),
    ],
)  # fmt: skip
def test_impossible_numbers_are_usage_errors(
    nodes: int, replicas: int | None, base: int, text: str
) -> None:
    """Exit code 2, and the option is named."""
    with pytest.raises(CliError, match=text) as caught:
        plan_cluster(Path("/d"), "c", nodes, replicas, base)

    assert caught.value.code == 2


def test_the_written_settings_are_what_the_node_reads(tmp_path: Path) -> None:
    """Both sides of the file: written here, checked by node.settings; paths start at the file."""
    plan = plan_cluster(tmp_path, "ql-1", 3, None, 7171)
    node = plan.nodes[1]
    node.folder.mkdir()
    node.config.write_text(node_toml(plan, node), encoding="utf-8")

    settings = load_settings(node.config, {})

    assert (settings.node.id, settings.node.http_port) == ("node2", 7181)
    assert settings.node.data == node.folder
    assert settings.cluster.secret_file.resolve() == tmp_path / "secret"
    assert settings.cluster.managers["node3"] == "127.0.0.1:7193"
    assert (settings.cluster.n, settings.cluster.w, settings.cluster.r) == (3, 2, 2)
    assert settings.cluster.storage == ("node1", "node2", "node3")


def test_a_cluster_is_found_again_from_its_files(tmp_path: Path) -> None:
    """Ten nodes and more keep their order, by port and not by name."""
    plan = plan_cluster(tmp_path, "ql-1", 11, 5, 9000)
    tables = {node.id: tomllib.loads(node_toml(plan, node)) for node in plan.nodes}

    assert existing_cluster(tmp_path, dict(sorted(tables.items()))) == plan


def test_a_file_that_lacks_a_port_is_named() -> None:
    """Somebody edited it."""
    with pytest.raises(CliError, match="peer_port"):
        existing_cluster(Path("/d"), {"node1": {"node": {"id": "node1", "http_port": 1}}})

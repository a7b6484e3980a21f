"""`up` before any process starts: a cluster is made once, and its facts are not contradicted."""

import json
import tomllib
from pathlib import Path

import pytest

from node import up_process
from node.cli_errors import CliError
from node.settings import load_settings
from node.up import UpOptions, load_or_make, wait_ready, write_cluster_json
from node.up_plan import plan_cluster
from node.up_process import NodeProcess


def options(folder: Path, **changes: object) -> UpOptions:
    """The options of a plain `up`."""
    base = {"nodes": None, "replicas": None, "port_base": 21_171, "demo": False, "detach": True}
    return UpOptions(folder=folder, **{**base, **changes})  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def free_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports are another test's matter."""
    monkeypatch.setattr(up_process, "check_ports", lambda _: None)


def test_a_new_cluster_has_three_nodes_and_a_secret(tmp_path: Path) -> None:
    """32 bytes that only the owner may read."""
    plan, new = load_or_make(options(tmp_path / "d"))
    secret = tmp_path / "d" / "secret"

    assert new
    assert [one.id for one in plan.nodes] == ["node1", "node2", "node3"]
    assert len(secret.read_bytes()) == 32
    assert secret.stat().st_mode & 0o777 == 0o600


def test_the_second_time_the_same_cluster_is_found(tmp_path: Path) -> None:
    """Without its options being said again; the secret stays."""
    first, _ = load_or_make(options(tmp_path / "d", nodes=5, replicas=3))
    secret = (tmp_path / "d" / "secret").read_bytes()

    again, new = load_or_make(options(tmp_path / "d", port_base=None))

    assert not new
    assert again == first
    assert (tmp_path / "d" / "secret").read_bytes() == secret


@pytest.mark.parametrize("change", [{"replicas": 1}, {"port_base": 9000}], ids=["rf", "ports"])
def test_an_existing_cluster_is_not_contradicted(tmp_path: Path, change: dict) -> None:
    """--rf 1 on a cluster of three copies would be a lie; the user is told what holds."""
    load_or_make(options(tmp_path / "d"))

    with pytest.raises(CliError, match="was made with"):
        load_or_make(options(tmp_path / "d", **change))


def test_more_nodes_than_there_are_join(tmp_path: Path) -> None:
    """With the `[cluster]` table of the others, as somebody edited it, on the next ports; found again."""
    folder = tmp_path / "d"
    made, _ = load_or_make(options(folder))
    first = made.nodes[0].config
    first.write_text(first.read_text().replace("n = 3", "n = 3\nshards = 8"))

    plan, new = load_or_make(options(folder, nodes=5))

    assert not new
    assert [(one.id, one.http_port - 21_171, one.joins) for one in plan.nodes] == [
        ("node1", 0, False), ("node2", 10, False), ("node3", 20, False),
        ("node4", 30, True), ("node5", 40, True),
    ]  # fmt: skip
    cluster = load_settings(plan.nodes[4].config, {}).cluster
    tables = [tomllib.loads(one.config.read_text())["cluster"] for one in plan.nodes]
    assert tables[4] == tables[3] == tables[0]
    assert list(cluster.managers) == ["node1", "node2", "node3"]
    assert cluster.shards == 8
    assert load_or_make(options(folder, nodes=5)) == (plan, False)


@pytest.mark.parametrize(("nodes", "text"), [(2, "does not take away"), (21, "from 1 to 20")])
def test_no_fewer_nodes_and_not_too_many(tmp_path: Path, nodes: int, text: str) -> None:
    """A usage error, and nothing is written."""
    load_or_make(options(tmp_path / "d"))

    with pytest.raises(CliError, match=text):
        load_or_make(options(tmp_path / "d", nodes=nodes))

    assert len(list((tmp_path / "d").glob("node*"))) == 3


def test_cluster_json_tells_who_runs_where(tmp_path: Path) -> None:
    """interface.md: id, pid, http, peer and Raft addresses, data folder, log file of each node."""
    plan = plan_cluster(tmp_path, "ql-1", 3, None, 7171)

    write_cluster_json(
        tmp_path, plan, [NodeProcess(one, 100 + i) for i, one in enumerate(plan.nodes)]
    )

    body = json.loads((tmp_path / "cluster.json").read_text())
    assert body["cluster_id"] == "ql-1"
    assert body["nodes"][1] == {
        "id": "node2",
        "pid": 101,
        "http": "http://127.0.0.1:7181",
        "peer": "127.0.0.1:7182",
        "raft": "127.0.0.1:7183",
        "data": str(tmp_path / "node2"),
        "log": str(tmp_path / "node2" / "node.log"),
        "config": str(tmp_path / "node2" / "node.toml"),
    }


def test_a_node_that_dies_at_its_start_is_said_with_its_log(tmp_path: Path) -> None:
    """Not a time-out: the last lines of its log are in the message."""
    plan = plan_cluster(tmp_path, "ql-1", 1, None, 7171).nodes[0]
    plan.folder.mkdir()
    plan.log.write_text("first\nsecret file is missing\n", encoding="utf-8")

    with pytest.raises(CliError, match="secret file is missing"):
        wait_ready([NodeProcess(plan, 999_999_999)])

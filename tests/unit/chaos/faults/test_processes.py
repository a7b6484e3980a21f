"""What is left when a fault of processes does not bite, and for what reason a wiped node may be refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chaos.faults import KINDS, Site, processes
from chaos.processes import FaultDidNotBite


class Node:
    """A process that ends at once, with this code, having said that."""

    pid = 7

    def __init__(self, code: int | None) -> None:
        self.exit_code = code
        self.running = code is None


class Cluster:
    """Notes what is done to it; a node that is started says `words` and ends with `code`."""

    ids = ("node1", "node2")

    def __init__(self, folder: Path, words: str = "", code: int | None = 1) -> None:
        self.folder, self.words, self.code = folder, words, code
        self.calls: list[str] = []
        self.running: dict[str, Any] = {node: Node(None) for node in self.ids}
        self.text = "info: holds no store was said long ago\n"
        self.kill_fails_at = 99
        self.kills = 0
        self.data("node1").mkdir()
        (self.data("node1") / "rows").write_text("old")

    def data(self, node: str) -> Path:
        return self.folder / "data"

    def node(self, node: str) -> Any:
        return SimpleNamespace(folder=self.folder)

    def log_text(self, node: str) -> str:
        return self.text

    def kill(self, *nodes: str) -> dict[str, int]:
        self.kills += 1
        if self.kills >= self.kill_fails_at:
            raise FaultDidNotBite("had ended by itself")
        for node in nodes:
            self.running.pop(node)
        return dict.fromkeys(nodes, 7)

    def end_somehow(self, *nodes: str) -> dict[str, int]:
        self.calls.append(f"end {' '.join(nodes)}")
        return {node: self.running.pop(node).pid for node in nodes}

    def pause(self, *nodes: str) -> dict[str, int]:
        raise FaultDidNotBite("node2 is in state D")

    def resume(self, *nodes: str) -> None:
        self.calls.append(f"resume {' '.join(nodes)}")
        if "node1" in nodes:
            raise FaultDidNotBite("node1 had ended by itself")

    def stop_some(self, *nodes: str) -> dict[str, int]:
        for node in nodes:
            self.running.pop(node)
        raise FaultDidNotBite("not all ended in order upon SIGTERM")

    def start(self) -> None:
        self.calls.append("start")

    def start_without_waiting(self, node: str) -> Node:
        self.text += self.words
        self.running[node] = Node(self.code)
        return self.running[node]


def site(cluster: Cluster) -> Site:
    """A site of it."""
    given: Any = cluster
    return Site(given)


def test_nodes_that_were_stopped_run_on_if_another_did_not_stop(tmp_path: Path) -> None:
    """Each is resumed, also if one before it cannot be."""
    cluster = Cluster(tmp_path)

    with pytest.raises(FaultDidNotBite):
        KINDS["pause"].bite(site(cluster), ("node1", "node2"))
    KINDS["pause"].undo(site(cluster), ("node1", "node2"))

    assert cluster.calls == ["resume node1", "resume node2"]


def test_a_node_that_did_not_end_in_order_is_started_again(tmp_path: Path) -> None:
    """It is gone, whatever its exit code."""
    cluster = Cluster(tmp_path)

    with pytest.raises(FaultDidNotBite):
        KINDS["restart"].bite(site(cluster), ("node1",))
    KINDS["restart"].undo(site(cluster), ("node1",))

    assert cluster.calls == ["start"]


@pytest.mark.parametrize(
    ("words", "code", "refused"),
    [
        ("error: store holds no store. If this is the first start …", 2, True),
        ("error: port 15001 is in use", 1, False),
        ("holds no store, never mind", 0, False),
    ],
)
def test_a_wiped_node_is_refused_only_if_it_says_why(
    words: str, code: int, refused: bool, tmp_path: Path
) -> None:
    """One that fails for another reason, or says so and goes on, shows nothing of the kind."""
    cluster = Cluster(tmp_path, words, code)

    proof = KINDS["wipe"].bite(site(cluster), ("node1",))

    assert proof["refused"] is refused
    assert not (cluster.data("node1") / "rows").exists()
    KINDS["wipe"].heal(site(cluster), ("node1",))
    assert (cluster.data("node1") / "rows").read_text() == "old"


def test_the_old_disk_does_not_stay_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node on the empty disk runs, and ended just when it was to be killed."""
    monkeypatch.setattr(processes, "REFUSAL_SECONDS", 0.0)
    cluster = Cluster(tmp_path, code=None)
    cluster.kill_fails_at = 2

    with pytest.raises(FaultDidNotBite):
        KINDS["wipe"].bite(site(cluster), ("node1",))
    KINDS["wipe"].undo(site(cluster), ("node1",))

    assert (cluster.data("node1") / "rows").read_text() == "old"
    assert cluster.calls == ["end node1", "start"]
    KINDS["wipe"].undo(site(cluster), ("node1",))
    assert cluster.calls == ["end node1", "start"]

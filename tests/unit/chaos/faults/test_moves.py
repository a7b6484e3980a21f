"""Faults amid changes of the ring: who is struck, and what counts as a bite. The cluster is a script."""

from types import SimpleNamespace
from typing import Any

import pytest

from chaos.faults import moves
from chaos.faults.base import Site
from chaos.processes import FaultDidNotBite

MOVE = {"shard": 3, "from": "node2", "to": "node4", "stage": "copying"}
SHARDS = [{"shard": 3, "owners": ["node1"], "writes_to": [["node1", "node2"], ["node1", "node4"]]}]


class Script:
    """Answers by path, each look the next one; the last one stays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: Any) -> None:
        self.answers, self.struck = answers, list[tuple[str, str]]()
        monkeypatch.setattr(moves, "ask", lambda _, path, *a, **k: self.look(path))
        monkeypatch.setattr(moves, "told", lambda _, path, **k: self.look(path)[1])
        monkeypatch.setattr(moves, "_wait_for_end", lambda site: 1)
        self.held = [{"node1": {3: 80}, "node2": {3: 82}, "node3": {3: 81}}, {"node4": {3: 85}}]
        monkeypatch.setattr(moves, "entries_held", lambda site: self.held.pop(0))

    def look(self, path: str) -> Any:
        """(status, JSON)."""
        left = self.answers[path.rpartition("/")[2]]
        return left.pop(0) if len(left) > 1 else left[0]

    def site(self) -> Any:
        """A site whose nodes note that they are struck."""
        running = dict.fromkeys(("node1", "node2", "node3", "node4"))
        cluster: Any = SimpleNamespace(ids=("node1", "node2", "node3"), running=running)
        cluster.kill = lambda node: self.struck.append(("kill", node)) or {node: 7}
        cluster.pause = lambda node: self.struck.append(("pause", node)) or {node: 7}
        return Site(cluster)


class Asked(moves.Move):
    """A change without a preparation."""

    name = "asked"

    def prepared(self, site: Site) -> moves.Change:
        return moves.Change("/cluster/nodes/node4/add", {})


def change(*moving: dict[str, Any], number: int = 7) -> tuple[int, dict[str, Any]]:
    return 200, {"ring_epoch": 9, "change": {"id": number, "moving": list(moving)}}


OVER = (200, {"ring_epoch": 12, "change": None})
REFUSED = (409, {"error": {"code": "COMMAND_REFUSED", "reason": "CHANGE_RUNNING"}})


def script(monkeypatch: pytest.MonkeyPatch, *looks: Any) -> Script:
    return Script(
        monkeypatch,
        add=[(202, {"change": 7})],
        rebalance=[REFUSED],
        moves=list(looks),
        leader=[(200, {"node": "node1"})],
        shards=[(200, {"shards": SHARDS})],
    )


@pytest.mark.parametrize(
    ("role", "node"), [("new-node", "node4"), ("raft-leader", "node1"), ("old-owner", "node2")]
)
def test_who_has_the_role_is_struck_once_a_shard_is_in_the_stage(
    monkeypatch: pytest.MonkeyPatch, role: str, node: str
) -> None:
    """Not before: at the first look nothing moves. An old owner is another one than the leader."""
    made = script(monkeypatch, change(), change(MOVE), change(MOVE))

    proof = Asked().bite(made.site(), (f"kill:{role}:copying",))

    assert made.struck == [("kill", node)]
    assert proof["second"] == "409 CHANGE_RUNNING"
    assert (proof["change"], proof["shard"], proof["still_in_stage"]) == (7, 3, True)


def test_a_change_that_is_over_by_then_was_not_met(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the stage was seen, and between the look and the blow."""
    for looks in ((change(), OVER), (change(MOVE), OVER)):
        made = script(monkeypatch, *looks)
        with pytest.raises(FaultDidNotBite, match=r"ended before|was over"):
            Asked().bite(made.site(), ("pause:new-node:copying",))


def test_what_the_new_owner_holds_when_it_is_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the second of what its old owners held before: those of node1 and node2."""
    settling = {**MOVE, "stage": "settling"}
    made = script(monkeypatch, change(settling), change(settling))

    proof = Asked().bite(made.site(), ("pause:old-owner:settling",))

    assert (proof["new_node_holds"], proof["must_hold"]) == (85, 80)


def test_a_shard_that_went_on_at_the_same_moment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The change runs on, but that shard has left the stage: it counts, and says so."""
    made = script(monkeypatch, change(MOVE), change({**MOVE, "stage": "settling"}))

    proof = Asked().bite(made.site(), ("pause:new-node:copying",))

    assert proof["still_in_stage"] is False

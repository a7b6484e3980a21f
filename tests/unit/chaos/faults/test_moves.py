"""Faults amid changes of the ring: who is struck, and what counts as a bite. The cluster is a script."""

from types import SimpleNamespace
from typing import Any

import pytest

from chaos.faults import changes, moves, quorums, striking
from chaos.faults.base import Site
from chaos.processes import FaultDidNotBite

MOVE = {"shard": 3, "from": "node2", "to": "node4", "stage": "copying"}
SHARDS = [{"shard": 3, "owners": ["node1"], "writes_to": [["node1", "node2"], ["node1", "node4"]]}]


class Script:
    """Answers by path, each look the next one; the last one stays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: Any) -> None:
        self.answers, self.struck = answers, list[tuple[str, str]]()
        self.asked: list[tuple[str, Any]] = []
        monkeypatch.setattr(changes, "ask", self.ask)
        for module in (changes, moves, striking):
            monkeypatch.setattr(module, "told", lambda _, path, **k: self.look(path)[1])
        self.ends = list[int]()
        monkeypatch.setattr(moves, "wait_for_end", lambda site: self.ends.append(len(self.struck)))
        self.held = [{"node1": {3: 80}, "node2": {3: 82}, "node3": {3: 81}}, {"node4": {3: 85}}]
        monkeypatch.setattr(moves, "entries_held", lambda site: self.held.pop(0))

    def ask(self, cluster: Any, path: str, body: Any = None, **_: Any) -> Any:
        """As `look`; notes what was asked for."""
        if body is not None:
            self.asked.append((path, body))
        return self.look(path)

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

    def prepared(self, site: Site, wanted: str) -> moves.Change:
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
        settings=[REFUSED],
        control=[(200, {"quorum": {"n": 3, "w": 2, "r": 2}})],
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
    made = script(monkeypatch, change(), change(), change(MOVE), change(MOVE))

    proof = Asked().bite(made.site(), (f"kill:{role}:copying",))

    assert made.struck == [("kill", node)]
    assert proof["second"] == {
        "/cluster/rebalance": "409 CHANGE_RUNNING",
        "/cluster/settings": "409 CHANGE_RUNNING",
    }
    assert proof["blows"] == [["kill", node]]
    assert (proof["change"], proof["shard"], proof["still_in_stage"]) == (7, 3, True)


def test_a_change_that_is_over_by_then_was_not_met(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the stage was seen, and between the look and the blow."""
    for looks in ((change(), OVER), (change(), change(MOVE), OVER)):
        made = script(monkeypatch, *looks)
        with pytest.raises(FaultDidNotBite, match=r"ended before|was over"):
            Asked().bite(made.site(), ("pause:new-node:copying",))


def test_what_the_new_owner_holds_when_it_is_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the second of what its old owners held before: those of node1 and node2."""
    settling = {**MOVE, "stage": "settling"}
    made = script(monkeypatch, change(), change(settling), change(settling))

    proof = Asked().bite(made.site(), ("pause:old-owner:settling",))

    assert (proof["new_node_holds"], proof["must_hold"]) == (85, 80)


def test_a_shard_that_went_on_at_the_same_moment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The change runs on, but that shard has left the stage: it counts, and says so."""
    made = script(monkeypatch, change(), change(MOVE), change({**MOVE, "stage": "settling"}))

    proof = Asked().bite(made.site(), ("pause:new-node:copying",))

    assert proof["still_in_stage"] is False


def test_two_are_struck_at_once_and_never_the_same_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old owner that is stopped beside the leader is another one; who leads twice is struck once."""
    for roles, nodes in (
        ("raft-leader+old-owner", ["node1", "node2"]),
        ("new-node+raft-leader", ["node4", "node1"]),
        ("raft-leader+raft-leader", ["node1", "node2"]),
    ):
        made = script(monkeypatch, change(), change(MOVE), change(MOVE))

        proof = Asked().bite(made.site(), (f"kill+pause:{roles}:copying",))

        assert made.struck == list(zip(("kill", "pause"), nodes, strict=True))
        assert proof["struck"] == ", ".join(nodes)


def test_others_that_were_asked_for_too_late_show_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The change had ended meanwhile: what was answered is no proof of anything."""
    made = script(monkeypatch, OVER, change(MOVE), change(MOVE))

    assert Asked().bite(made.site(), ("kill:new-node:copying",))["second"] == {}


@pytest.mark.parametrize("stage", ["before", "begun", "after"])
def test_a_change_without_stages_is_struck_when_it_begins(
    monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Before it is asked for, as soon as it is taken, or when it has ended; N, W and R are noted."""
    made = script(monkeypatch, change())
    made.answers["settings"] = [(202, {"change": 7}), REFUSED]
    site = made.site()

    proof = quorums.ChangeQuorum().bite(site, (f"pause:old-owner:{stage}:3/2/2>3/3/1",))

    assert made.struck == [("pause", "node2")] or made.struck == [("pause", "node1")]
    assert made.asked[0][1]["w"] == 3
    assert len(proof.get("second", ())) == (2 if stage == "begun" else 0)
    assert made.ends == ([0, 0] if stage == "after" else [0])
    (note,) = site.quorums
    assert (note["before"], note["after"], note["ended_at"]) == ([3, 2, 2], [3, 3, 1], None)


def test_the_quorum_that_a_change_begins_with_is_put_in_force(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By way of 3/2/2, from which all others can be reached in a step; each is noted."""
    made = script(monkeypatch, change())
    monkeypatch.setattr(quorums, "without_trouble", lambda site, one: steps.append(one.quorum))
    steps: list[Any] = []
    made.answers["control"] = [(200, {"quorum": {"n": 3, "w": 3, "r": 1}})]

    asked = quorums.ChangeQuorum().prepared(made.site(), "3/1/3>3/2/2")

    assert steps == [(3, 2, 2), (3, 1, 3)]
    assert asked.body == {"n": 3, "w": 2, "r": 2}

"""What nodes say they hold, and which of their words are reports of damage."""

import json
from types import SimpleNamespace
from typing import Any

from chaos import states
from chaos.history import NodeState
from chaos.local_cluster import LocalCluster

TORN = {"level": "warning", "message": "damaged bytes in the log were set aside", "kind": "torn"}
CORRUPT = {**TORN, "level": "error", "kind": "corrupt"}


def status(entries: int, digest: str) -> dict[str, Any]:
    """What a node tells of one shard with rows and one without."""
    shards = {
        "3": {"entries": entries, "digest": digest},
        "4": {"entries": 0, "digest": "00"},
    }
    return {"storage": {"shards": shards, "quarantined_blocks": 1}}


def cluster(*looks: dict[str, Any], log: tuple[dict[str, Any], ...] = ()) -> Any:
    """One that answers these looks, one after the other; each node has said `log`."""
    answers = iter(looks)
    owners = {"shards": [{"shard": 3, "owners": ["node1", "node2"]}]}
    lines = "\n".join(["Traceback: a block cannot be read", *map(json.dumps, log)])
    made: Any = SimpleNamespace(
        spares=(), log_text=lambda _: lines,
        get=lambda path, **_: owners if path.endswith("shards") else next(answers),
    )  # fmt: skip
    made.logs = lambda node: LocalCluster.logs(made, node)
    return made


def look(first: dict[str, Any], second: dict[str, Any] | None) -> dict[str, Any]:
    """An answer of /cluster about two nodes."""
    return {"nodes": [{"id": "node1", "status": first}, {"id": "node2", "status": second}]}


def test_it_is_looked_until_all_agree(monkeypatch: Any) -> None:
    """A node that is silent, then one that lags; shards without rows are no business of ours."""
    monkeypatch.setattr(states, "_PAUSE_SECONDS", 0.0)
    whole, late = status(2, "aa"), status(1, "bb")

    found = states.last_states(
        cluster(look(whole, None), look(whole, late), look(whole, whole)), lambda: 7, 60
    )

    assert found == [
        NodeState(node, 7, {"3": (2, "aa")}, 1, 0, ("3",)) for node in ("node1", "node2")
    ]


def test_what_differs_when_time_is_up_is_told(monkeypatch: Any) -> None:
    """The checker names it; nothing is left out because it is not as it should be."""
    found = states.last_states(cluster(look(status(2, "aa"), status(1, "bb"))), lambda: 7, -1)

    assert [one.shards["3"] for one in found] == [(2, "aa"), (1, "bb")]


def test_a_tail_torn_by_a_kill_is_no_report_of_damage() -> None:
    """The kill that goes before the damage makes one: I14 would hold although nobody met the damage."""
    state = NodeState("node1", 7, {})

    assert states.with_damage(cluster(log=(TORN,)), state).damage == 0
    assert states.with_damage(cluster(log=(TORN, CORRUPT, CORRUPT)), state).damage == 2

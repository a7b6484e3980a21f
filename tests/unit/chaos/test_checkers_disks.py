"""Planted bugs on disks: a row on too few of them, copies that differ, a digest that is not what was told."""

from dataclasses import replace
from typing import Any

import pytest

from chaos.checkers import HOLDS, VIOLATED, Verdict, check
from chaos.evidence import COLD, END, Dump
from chaos.history import FaultRecord, History, NodeState
from tests.unit.chaos.histories import HEAD, NODES, clean

SHARDS = {"1": (3, "aa", "a1"), "2": (2, "bb", "b1")}
ROWS = {
    "1": {"agent1": ((1, 20),), "agent2": ((1, 10),)},
    "2": {"numbered1": ((1, 4), (5, 15))},
}
OWNS = ("1", "2")


def dump(node: str, moment: str = END, t: int = 2000, event: int = 0, **more: Any) -> Dump:
    return Dump(**{
        "node": node, "t": t, "moment": moment, "shards": SHARDS, "rows": ROWS, "event": event, **more
    })  # fmt: skip


def run(*dumps: Dump, **owns: tuple[str, ...]) -> History:
    """The clean run; each node told what stands in SHARDS, of the shards that it owns (all if not named)."""
    states = tuple(
        NodeState(
            one.node, 1500, {s: SHARDS[s][:2] for s in owns.get(one.node, OWNS)},
            owns=owns.get(one.node, OWNS),
        )
        for one in dumps if one.moment == END
    )  # fmt: skip
    return replace(clean(), head=replace(HEAD, converges=True), dumps=dumps, states=states)


def all_of(**changed: Dump) -> list[Dump]:
    return [changed.get(node, dump(node)) for node in NODES]


def found(history: History) -> dict[str, Verdict]:
    return {one.id: one for one in check(history)}


def violated(history: History) -> set[str]:
    return {id for id, one in found(history).items() if one.status == VIOLATED}


def without(number: int) -> dict[str, Any]:
    """The rows but one of agent1."""
    spans = tuple((a, b) for a, b in ((1, number - 1), (number + 1, 20)) if a <= b)
    return {**ROWS, "1": {**ROWS["1"], "agent1": spans}}


def test_equal_disks_that_hold_everything_pass() -> None:
    """Both in the end and when all nodes were down."""
    cold = [dump(node, COLD, 400, 1) for node in NODES]

    verdicts = found(run(*all_of(), *cold))

    assert (verdicts["I1d"].status, verdicts["I8d"].status) == (HOLDS, HOLDS)
    assert violated(run(*all_of(), *cold)) == set()


@pytest.mark.parametrize("number", [1, 13, 20])
def test_a_row_that_one_disk_lacks_in_the_end_is_caught(number: int) -> None:
    """I1d asks for N copies then; the owners differ as well."""
    short = dump("node2", rows=without(number))

    verdicts = found(run(*all_of(node2=short)))

    assert f"agent1:{number} is on 2 disks, not 3" in verdicts["I1d"].examples[0]
    assert verdicts["I8d"].status == VIOLATED


def test_a_row_on_one_disk_alone_when_all_were_down_is_caught() -> None:
    """W are enough before anything was repaired, one is not; the ends of a span count as well."""
    lacks = {node: dump(node, COLD, 400, 1, rows=without(20)) for node in ("node2", "node3")}

    one = [dump("node1", COLD, 400, 1), lacks["node2"], dump("node3", COLD, 400, 1)]
    two = [dump("node1", COLD, 400, 1), *lacks.values()]

    assert violated(run(*all_of(), *one)) == set()
    bad = found(run(*all_of(), *two))["I1d"]
    assert bad.status == VIOLATED
    assert bad.examples == ("agent1:20 is on 1 disks, not 2 (cold dump 1)",)


def test_what_was_acknowledged_after_the_dump_need_not_be_in_it() -> None:
    """Rows 11-20 of agent1 are acknowledged at 240; the dump is of 230."""
    early = [dump(node, COLD, 230, 1, rows=without(15)) for node in NODES]

    assert violated(run(*all_of(), *early)) == set()


def test_a_quorum_that_was_raised_asks_for_more_disks() -> None:
    """By the W of the time: 3 from 250 on, so a row that one of three lacks at 400 is a violation."""
    change = {"before": [3, 2, 2], "after": [3, 3, 1], "asked_at": 245, "ended_at": 250}
    raised = FaultRecord("quorum", ("x",), 240, 260, 265, 270, {"quorums": [change]})
    one = [
        dump("node1", COLD, 400, 1), dump("node2", COLD, 400, 1, rows=without(3)),
        dump("node3", COLD, 400, 1),
    ]  # fmt: skip
    history = run(*all_of(), *one)

    assert violated(replace(history, faults=(*history.faults, raised))) == {"I1d"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"shards": {**SHARDS, "1": (2, "aa", "a1")}}, "shard 1: entries on disk differ"),
        ({"shards": {**SHARDS, "1": (3, "ab", "a1")}}, "shard 1: entries on disk differ"),
        ({"shards": {**SHARDS, "1": (3, "aa", "xx")}}, "equal entries with other rows"),
        ({"broken": ("block 7: bad checksum",)}, "node3: block 7"),
    ],
)
def test_a_disk_that_differs_is_caught(change: dict[str, Any], text: str) -> None:
    """I8d: fewer entries, another entry, other bytes in the same entry, a block that fails its check."""
    history = run(*all_of(node3=dump("node3", **change)))

    assert violated(history) == {"I8d"}
    assert text in found(history)["I8d"].examples[0]


def test_a_disk_that_all_owners_share_and_nobody_told_of_is_caught() -> None:
    """Equal on all, but not what they said."""
    shards = {**SHARDS, "2": (2, "cc", "b1")}
    history = run(*(dump(node, shards=shards) for node in NODES))

    assert violated(history) == {"I8d"}
    assert "node1 said 2 entries" in found(history)["I8d"].examples[0]


def test_a_stranger_that_serves_something_is_caught() -> None:
    """A fourth node owns shard 1 alone; what it gave up of shard 2 may lie on its disk for a while."""
    history = run(*all_of(), dump("node4"), node4=("1",))
    told = {s: row[:2] for s, row in SHARDS.items()}
    serving = [replace(s, shards=told) if s.node == "node4" else s for s in history.states]

    assert violated(history) == set()
    bad = found(replace(history, states=tuple(serving)))["I8d"]
    assert bad.status == VIOLATED
    assert bad.examples == ("shard 2: node4 holds 2 entries and is no owner",)


def test_a_damaged_node_may_have_a_broken_block() -> None:
    """Whether it was met is I14; its copies must be whole again by the end all the same."""
    history = run(*all_of(node3=dump("node3", broken=("block 7: bad checksum",))))
    hurt = FaultRecord("corrupt", ("node3",), 200, 205, 300, 320, {"seen": "x"})

    assert violated(replace(history, faults=(*history.faults, hurt))) == set()

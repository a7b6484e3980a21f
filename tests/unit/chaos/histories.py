"""Histories made by hand: a clean one, and a way to plant one thing in it.

Two agents and one numbered writer; three nodes with N=3, W=2, R=2. Times are small integers.
"""

from dataclasses import replace
from typing import Any

from chaos.corpus import Corpus
from chaos.history import APPEND, COUNT, FINAL, OK, READ, FaultRecord, Head, History, Op

NODES = ("node1", "node2", "node3")
SERVICES = {"agent1": "chaos-agent1", "agent2": "chaos-agent2", "numbered1": "chaos-numbered1"}
HEAD = Head(
    "test", 5, 1_790_000_000_000_000, NODES, 3, 2, 2, SERVICES, ("numbered1",), converges=False
)  # fmt: skip
CORPUS = Corpus(HEAD.seed, HEAD.start_micros)
SENT = {"agent1": 20, "agent2": 10, "numbered1": 15}


def seen(client: str, first: int, last: int) -> list[list[str]]:
    """Rows as a read notes them: name and digest."""
    return [
        [f"{client}:{number}", CORPUS.digest(client, number, SERVICES[client])]
        for number in range(first, last + 1)
    ]


def everything() -> list[list[str]]:
    """All rows of the clean history."""
    return [row for client, last in SENT.items() for row in seen(client, 1, last)]


def append(
    id: int, client: str, rows: tuple[int, int], t: int, outcome: str = OK, **resp: Any
) -> Op:
    """A write from `t` to `t + 10`, through node1."""
    return Op(id, client, APPEND, "node1", t, t + 10, outcome, (rows,), "", resp)


def read(id: int, covers: str, rows: list[list[str]], t: int, complete: bool = True) -> Op:
    """A read from `t` to `t + 10`, through node2."""
    resp = {"complete": complete, "missing": [] if complete else ["7"], "rows": rows}
    return Op(id, "reader1", READ, "node2", t, t + 10, OK, (), covers, resp)


def count(id: int, counts: dict[str, int], t: int, complete: bool = True) -> Op:
    """A count by client, through node3."""
    resp = {"complete": complete, "missing": [] if complete else ["7"], "counts": counts}
    return Op(id, "reader1", COUNT, "node3", t, t + 10, OK, (), "", resp)


def final(id: int, node: str, rows: list[list[str]], complete: bool = True) -> Op:
    """A last read of all rows."""
    resp = {"complete": complete, "missing": [] if complete else ["7"], "rows": rows}
    return Op(id, "final", FINAL, node, 1000 + id, 1005 + id, OK, (), "", resp)


KILL = FaultRecord("kill", ("node3",), 200, 205, 300, 320, {"pids": {"node3": 9}})


def clean(*more: Op, rows: list[list[str]] | None = None) -> History:
    """A run in which all is well: a doubt and a resend, a repeat, a gap that is filled, reads."""
    found = everything() if rows is None else rows
    ops = (
        append(1, "agent1", (1, 10), 100),
        append(2, "agent1", (11, 20), 210, "unknown"),
        append(3, "agent1", (11, 20), 230),
        append(4, "agent2", (1, 10), 100),
        append(5, "agent2", (1, 10), 240),
        append(6, "numbered1", (1, 5), 100, ack_till=5, epoch=1),
        append(7, "numbered1", (9, 15), 210, ack_till=5, epoch=1, missing=[[6, 8]]),
        append(8, "numbered1", (6, 8), 240, ack_till=15, epoch=1),
        read(9, "agent1:0", seen("agent1", 1, 10), 150),
        read(10, "agent2", seen("agent2", 1, 10), 260),
        count(11, {"agent1": 20, "agent2": 10, "numbered1": 15}, 280),
        *more,
        *(final(20 + index, node, found) for index, node in enumerate(NODES)),
    )
    return History(HEAD, ops, (KILL,))


def without(history: History, *ids: int) -> History:
    """The history without some operations."""
    return replace(history, ops=tuple(op for op in history.ops if op.id not in ids))


def with_faults(history: History, *faults: FaultRecord) -> History:
    """The history with other faults."""
    return replace(history, faults=faults)

"""What may become of a request without numbers that is sent again, beyond "it is there once".

Limits that docs/consistency.md names; the checks allow just these. `traffic` is a chaos.sim.clients.Traffic.
"""

from typing import Any

from chaos.corpus import split_name
from chaos.history import APPEND, OK
from chaos.sim.clock import WALL_MICROS
from records.visibility import REPEAT_MICROS


def renamed(traffic: Any, name: str, complete: bool) -> bool:
    """Whether a row of an agent may come on two pages under two names (docs/consistency.md, "Pages").

    It has two if it was sent again beyond the edge of a dedupe window: by the first where that is seen, else
    by the second. The first is on each page of a complete read if it was acknowledged, and clocks are right.
    """
    client, number = split_name(name) or ("", 0)
    return any(
        doubtful or not complete
        for (one, rows), doubtful in _in_two(traffic).items()
        if one == client and any(first <= number <= last for first, last in rows)
    )


def two_of_one(traffic: Any) -> bool:
    """Whether a batch of an agent may be two entries of which the first was never acknowledged: its rows may
    come on no page, or on two (docs/consistency.md, "Pages")."""
    return any(_in_two(traffic).values())


def _in_two(traffic: Any) -> dict[tuple[str, Any], bool]:
    """(client, rows) of agents' batches that were sent in two dedupe windows, so they may be two entries;
    whether some sending in the first may have stored it without an acknowledgement."""
    windows: dict[tuple[str, Any], set[int]] = {}
    doubtful: set[tuple[str, Any]] = set()
    slack = max(int(abs(node.clock.skew) * 1e6) for node in traffic.nodes.values())
    for op in traffic.ops:
        if op.kind == APPEND and op.client not in traffic.numbered:
            key, until = (op.client, op.rows), traffic.now() if op.t_ret is None else op.t_ret
            ends = (op.t_inv // 1000 - slack, until // 1000 + slack)
            windows.setdefault(key, set()).update(
                (WALL_MICROS + at) // REPEAT_MICROS for at in ends
            )
            if op.outcome != OK or slack:
                doubtful.add(key)
    return {key: key in doubtful for key, found in windows.items() if len(found) > 1}


def twice_by_split(traffic: Any, name: str) -> bool:
    """Whether a row of an agent may be there twice (docs/consistency.md, "A service that is split").

    Its request was under way in the moment of a split, without an answer; or it was sent after it, through
    nodes of which some knew of it and others did not.
    """
    client, number = split_name(name) or ("", 0)
    if client in traffic.numbered:
        return False
    ops = [
        op
        for op in traffic.ops
        if (op.client, op.kind) == (client, APPEND)
        and any(first <= number <= last for first, last in op.rows)
    ]
    for at, index in traffic.splits(traffic.services[client]):
        before = [op for op in ops if op.t_inv <= at]
        answered = any(op.outcome == OK and (op.t_ret or at) < at for op in before)
        if before and len(ops) > 1 and not answered:
            return True
        if len({traffic.known[op.id] >= index for op in ops if op.t_inv > at}) > 1:
            return True
    return False

"""Invariants about time: how long appends take while one thing is broken, and a call without a quorum.

L1 writes go on under a single fault · L3 no hang without a quorum. Pure, from the history alone.

The figures are measured and told beside their goals. Judged is a bound that two loaded cores with three
nodes and all clients on them can hold, so that a violation is a fault of the cluster, not of the machine.
Requests count through nodes that ran: how long a client waits on a dead one is its own patience.
"""

import math
from collections.abc import Iterator, Sequence

from chaos.acks import NEVER
from chaos.blows import cut_off, touched
from chaos.facts import Facts
from chaos.history import APPEND, COUNT, OK, READ, FaultRecord, Op
from chaos.verdicts import Verdict, verdict

#: What reliability asks of a machine of its own, and what is judged: seconds of an append, p99.
APPEND_GOAL, APPEND_BOUND = 0.25, 5.0
#: The same for an answer of any kind where too few owners are there. A node may hold a write for 10 s.
ANSWER_GOAL, ANSWER_BOUND = 2.0, 11.5
#: Fewer requests than so many have no p99.
REQUESTS_MIN = 30
#: Share of the appends under a single fault that must be acknowledged. A client that was refused asks again,
#: some ask a node that a fault has struck under another name, so the least that shows that writes go on.
ACKED_SHARE = 0.25


def writes_go_on(facts: Facts) -> Verdict:
    """L1: with W owners left, appends through nodes that are not broken are acknowledged soon."""
    took, refused = [], 0
    for fault in facts.history.faults:
        if _single(facts, fault):
            for op in _met(facts.appends, fault):
                took += [_seconds(op)] if op.outcome == OK else []
                refused += op.outcome != OK
    asked = len(took) + refused
    stopped = asked >= REQUESTS_MIN and len(took) < ACKED_SHARE * asked
    enough = len(took) >= REQUESTS_MIN
    p50, p99 = _rank(took, 0.5), _rank(took, 0.99)
    figures = (
        f"{len(took):,} appends under single faults: p50 {p50:.3f} s, p99 {p99:.3f} s, the longest"
        f" {_rank(took, 1):.3f} s; {refused:,} others were to be sent again (goal: p99 {APPEND_GOAL} s)"
    )
    bad = [figures] if stopped or (enough and p99 > APPEND_BOUND) else []
    slow = f"p99 of appends under a single fault is above {APPEND_BOUND} s"
    return verdict(
        "L1", "writes go on", bad, "writes stop under a single fault" if stopped else slow,
        enough, figures, "too few appends met a single fault",
    )  # fmt: skip


def no_hang(facts: Facts) -> Verdict:
    """L3: where too few owners are left, nodes that run say so soon."""
    took: list[float] = []
    bad: list[str] = []
    asked = [op for op in facts.history.ops if op.kind in (APPEND, READ, COUNT)]
    for fault in facts.history.faults if facts.everyone else ():
        for op in _met(asked, fault, bool(cut_off(fault))):
            if not _bitten(fault) <= op.t_inv <= fault.t_heal:
                continue
            floor = facts.quorum_floor(op.t_inv, op.t_inv)
            needed = floor.w if op.kind == APPEND else floor.r
            away = facts.out_of_reach(op.node, op.t_inv, op.t_inv)
            if len(facts.everyone - away) >= needed:
                continue
            took.append(_seconds(op))
            if took[-1] > ANSWER_BOUND:
                bad.append(
                    f"{op.node} left {op.kind} {op.id} for {took[-1]:.1f} s without an answer"
                )
    late = sum(one > ANSWER_GOAL for one in took)
    return verdict(
        "L3", "no hang", bad, f"calls without a quorum had no answer within {ANSWER_BOUND} s",
        len(took),
        f"{len(took):,} calls without a quorum were answered: p50 {_rank(took, 0.5):.3f} s, the longest"
        f" {_rank(took, 1):.3f} s; {late:,} above the goal of {ANSWER_GOAL} s",
        "no call met too few nodes through one that ran",
    )  # fmt: skip


def _single(facts: Facts, fault: FaultRecord) -> bool:
    """Whether W owners of every shard are left, and nothing else is broken with it."""
    head = facts.history.head
    others = [one for one in facts.history.faults if one is not fault]
    same = not any(one.proof.get("quorums") for one in facts.history.faults)
    alone = same and not any(_overlap(one, fault) for one in others)
    return alone and len(head.nodes) == head.n and len(touched(fault)) <= head.n - head.w


def _overlap(one: FaultRecord, other: FaultRecord) -> bool:
    """Whether both worked at some moment; what never healed still does."""
    return _bitten(one) <= (other.t_healed or NEVER) and _bitten(other) <= (one.t_healed or NEVER)


def _met(ops: Sequence[Op], fault: FaultRecord, targets_run: bool = False) -> Iterator[Op]:
    """Requests in flight while a fault worked, through nodes that it did not touch (or that run on)."""
    for op in ops:
        if op.t_ret is None or op.node == "library":
            continue
        if op.node in touched(fault) and not targets_run:
            continue
        if op.t_inv <= fault.t_heal and op.t_ret >= _bitten(fault):
            yield op


def _bitten(fault: FaultRecord) -> int:
    return NEVER if fault.t_bitten is None else fault.t_bitten


def _seconds(op: Op) -> float:
    return ((op.t_ret or NEVER) - op.t_inv) / 1e9


def _rank(values: Sequence[float], share: float) -> float:
    """The nearest rank; 0 of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


CHECKERS = (writes_go_on, no_hang)

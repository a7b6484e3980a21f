"""Invariants about nodes rather than rows: what they hold in the end, and how they come back. Pure.

I7 no vanishing · I8 convergence · I14 corruption containment · I15 crash consistency · I17 one order · S6 a
lost disk is no owner
"""

from bisect import bisect_left, bisect_right
from typing import Any

from chaos.corpus import group_of, split_name
from chaos.facts import NEVER, Facts
from chaos.history import FaultRecord, Op
from chaos.states import disagreeing
from chaos.verdicts import UNSEEN, Verdict, verdict

#: Faults after which a process starts from what its disk kept.
CRASHES = ("kill", "failpoint", "power-cut", "corrupt", "wipe")


def no_vanishing(facts: Facts) -> Verdict:
    """I7: a row that a complete read showed before anybody had an answer for it stays in later ones.

    (Rows acknowledged before the later read began are the business of I1 and I4. Reads by an R of at most
    half of N are not looked at: the one owner asked may have a row that nobody acknowledged, the next not.)
    """
    complete = (op for op in facts.reads if op.resp["complete"] and facts.asked_most(op))
    reads = sorted(complete, key=lambda op: op.t_inv)
    first: dict[str, int] = {}
    for op in reads:
        for name, _ in op.resp["rows"]:
            first[name] = min(first.get(name, NEVER), op.t_ret or NEVER)
    begun = [op.t_inv for op in reads]
    bad, judged = [], 0
    for name, at in first.items():
        for op in reads[bisect_right(begun, at) : bisect_left(begun, _acked_at(facts, name))]:
            if _covers(op.covers, name) and _shown(facts, name, op):
                judged += 1
                if name not in facts.names(op):
                    bad.append(f"{name} had been read, {op.node} does not find it (op {op.id})")
    return verdict(
        "I7", "no vanishing", bad, "rows that were seen are gone", judged,
        f"rows seen before they were acknowledged were in {judged:,} later reads of them",
        "no row was read before it was acknowledged, and read again",
    )  # fmt: skip


def _acked_at(facts: Facts, name: str) -> int:
    parts = split_name(name)
    return NEVER if parts is None else facts.acked.get(parts[0], {}).get(parts[1], NEVER)


def _shown(facts: Facts, name: str, op: Op) -> bool:
    parts = split_name(name)
    return parts is None or facts.shown(*parts, op.t_ret or NEVER)


def _covers(covers: str, name: str) -> bool:
    parts = split_name(name)
    return parts is not None and covers in ("", parts[0], group_of(*parts))


def convergence(facts: Facts) -> Verdict:
    """I8: in the end all owners of a shard hold the same entries, each by its own word."""
    head, states = facts.history.head, facts.history.states
    if not head.converges:
        return Verdict("I8", "convergence", UNSEEN, "these nodes were not asked what they hold")
    told = {state.node: state for state in states}
    bad = [
        f"{node} does not tell what it holds" for node in head.nodes if states and node not in told
    ]
    shards = sorted({shard for state in states for shard in state.shards}, key=int)
    known = len(head.nodes) == head.n or all(state.owns is not None for state in states)
    judged = shards if known else []  # else who owns a shard is not known
    for shard in judged:
        held = disagreeing(told.values(), shard)
        if held:
            counts = ", ".join(f"{node} {count}" for node, count in sorted(held.items()))
            bad.append(f"shard {shard}: entries held differ: {counts}")
    return verdict(
        "I8", "convergence", bad, "replicas do not agree after the end", len(judged),
        f"the owners of all {len(judged)} shards with rows hold the same entries",
        "nobody told what it holds, or not every node owns every shard",
    )  # fmt: skip


def containment(facts: Facts) -> Verdict:
    """I14: damage done to one node is noticed there, or did no harm; no other node has any of it."""
    done = [
        one for one in facts.history.faults if one.what == "corrupt" and one.t_bitten is not None
    ]
    targets = {node for one in done for node in one.targets}
    bad = [
        f"{state.node} reports damage ({state.damage} times), and nobody damaged its files"
        for state in facts.history.states
        if done and state.node not in targets and state.damage
    ]
    found = sum(state.damage for state in facts.history.states if state.node in targets)
    return verdict(
        "I14", "corruption containment", bad, "damage has spread", len(done) and found,
        f"{len(done)} damaged files, {found} reports of it on that node, none on the others",
        "no file was damaged, or no damage was met",
    )  # fmt: skip


def crash_consistency(facts: Facts) -> Verdict:
    """I15: a node that ended at any moment starts again from what its disk kept."""
    crashes = [
        one
        for one in facts.history.faults
        if one.t_bitten is not None and (one.what in CRASHES or one.proof.get("crashed"))
    ]
    bad = [
        f"{', '.join(one.targets)} did not start after {one.what}: {one.error[:200]}"
        for one in crashes
        if one.t_healed is None
    ]
    longest = max(
        (
            one.proof.get("ready_seconds", (one.t_healed - one.t_heal) / 1e9)
            for one in crashes
            if one.t_healed is not None
        ),
        default=0.0,
    )
    return verdict(
        "I15", "crash consistency", bad, "a node does not start from its own disk", len(crashes),
        f"after {len(crashes)} crashes each node was ready again, the slowest after {longest:.1f} s",
        "no node crashed",
    )  # fmt: skip


def lost_disk(facts: Facts) -> Verdict:
    """S6: a node with an empty disk is no owner under its old name, and is one again once it was filled."""
    kinds = ("wipe", "lost-disk")
    lost = [one for one in facts.history.faults if one.what in kinds and one.t_bitten is not None]
    bad = [
        f"{_lost(one)} started on an empty disk as if nothing had been"
        for one in lost
        if not one.proof.get("refused")
    ]
    brought = [one for one in lost if one.what == "lost-disk" and one.t_healed is not None]
    bad += [text for one in brought for text in _not_as_documented(one.proof)]
    return verdict(
        "S6", "a lost disk is no owner", bad, "a node counts as an owner of what it lost",
        len(lost),
        f"{len(lost)} nodes with an empty disk were refused under their old name, {len(brought)} brought in"
        " again by the documented way and filled",
        "no disk was lost",
    )  # fmt: skip


def _lost(fault: FaultRecord) -> str:
    return fault.proof.get("node") or ", ".join(fault.targets)


def _not_as_documented(proof: dict[str, Any]) -> list[str]:
    """What is wrong with a node that came with an empty disk and was made an owner."""
    node, bad = proof["came"], []
    if proof["way"] == "rejoin" and not proof.get("waits"):
        bad.append(f"{node} was admitted with another store while the ring counted on the old one")
    if proof["new_incarnation"] == proof["incarnation"]:
        bad.append(f"{node} has another store under the same incarnation")
    if not proof["owns"]:
        bad.append(f"{node} owns nothing in the end")
    bad += [
        f"{node} holds {proof['holds'].get(shard, 0)} entries of shard {shard}, {count} were lost"
        for shard, count in proof["held"].items()
        if proof["holds"].get(shard, 0) < count
    ]
    return bad


def one_order(facts: Facts) -> Verdict:
    """I17: the last reads give the rows in one order, whichever node is asked."""
    expected = _names(facts.finals[0]) if facts.finals else {}
    bad, judged = [], 0
    for op in facts.finals[1:]:
        found = _names(op)
        theirs = [name for name in expected if name in found]
        ours = [name for name in found if name in expected]
        judged += len(ours)
        bad += [
            f"{op.node} has {one} where another node has {other} (op {op.id})"
            for one, other in zip(ours, theirs, strict=True)
            if one != other
        ]
    return verdict(
        "I17", "one order", bad, "nodes give rows in other orders", judged,
        f"{judged:,} rows came in the same order through another node",
        "no rows were read through two nodes in the end",
    )  # fmt: skip


def _names(op: Op) -> dict[str, None]:
    """The rows of a read in their order, each once (I2 judges doubles)."""
    return dict.fromkeys(name for name, _ in op.resp["rows"])


CHECKERS = (no_vanishing, convergence, containment, crash_consistency, lost_disk, one_order)

"""Invariants about hiding rows and changing the ring. Pure.

I7r no resurrection · I13 deletion safety · R1 one change at a time, each to its end
"""

from collections import defaultdict

from chaos.corpus import row_name
from chaos.evidence import ManagerLog
from chaos.facts import NEVER, Facts
from chaos.hides import Hide
from chaos.verdicts import Verdict, verdict

#: A change that is possible at any time.
REBALANCE = "/cluster/rebalance"
#: Kinds of faults that are changes of the ring.
CHANGES = ("join", "drain", "replace", "quorum")


def no_resurrection(facts: Facts) -> Verdict:
    """I7r: a row that is hidden is in no later read, whoever was away when it was hidden."""
    gone: list[tuple[Hide, set[str]]] = []
    for hide in facts.hides:
        acked = facts.acked.get(hide.client, {})
        before = [number for number, at in acked.items() if at < hide.t_inv]
        covered = [number for number in before if hide.must(number, facts.corpus)]
        gone.append((hide, {row_name(hide.client, number) for number in covered}))
    bad, judged = [], 0
    for op in facts.reads if gone else ():
        sure = [(hide.sure_from(op.node), names) for hide, names in gone]
        after = {name for at, names in sure if at is not None and at <= op.t_inv for name in names}
        judged += bool(after)
        bad += [
            f"{name} was hidden, {op.node} shows it (op {op.id})"
            for name in sorted(after & facts.names(op))
        ]
    rows = len({name for _, names in gone for name in names})
    return verdict(
        "I7r", "no resurrection", bad, "rows that were hidden are read", judged,
        f"none of {rows:,} hidden rows is in any of {judged:,} later reads",
        "nothing was hidden, or nothing read after it",
    )  # fmt: skip


def deletion_safety(facts: Facts) -> Verdict:
    """I13: of a client whose rows were hidden, all others that were acknowledged are still there."""
    kept: dict[str, list[str]] = defaultdict(list)
    for client in sorted({hide.client for hide in facts.hides}):
        kept[client] = [row_name(*one) for one in facts.promised(client, NEVER)]
    bad = [
        f"{name} was not hidden, and {op.node} does not find it"
        for op in facts.finals
        for names in kept.values()
        for name in names
        if name not in facts.names(op)
    ]
    many = sum(map(len, kept.values()))
    return verdict(
        "I13", "deletion safety", bad, "more is gone than was asked for", many and len(facts.finals),
        f"{many:,} rows beside the hidden ones are found through each of {len(facts.finals)} nodes",
        "nothing was hidden",
    )  # fmt: skip


def one_change(facts: Facts) -> Verdict:
    """R1: a second change is refused while one runs, each ends, and who is read has been filled before."""
    changes = [
        one for one in facts.history.faults if one.what in CHANGES and one.t_bitten is not None
    ]
    told = [
        (one.proof.get("change"), path, answer)
        for one in changes
        for path, answer in one.proof.get("second", {}).items()
    ]
    bad = [
        f"{path} beside change {number} was told: {answer}"
        for number, path, answer in told
        if answer.startswith("2") or (path == REBALANCE and "CHANGE_RUNNING" not in answer)
    ]
    bad += [text for log in facts.history.logs[:1] for text in _taken_while_one_ran(log)]
    bad += [
        f"change {one.proof.get('change')} did not end after {', '.join(one.targets)}"
        for one in changes
        if one.t_healed is None
    ]
    bad += [
        f"shard {one.proof.get('shard')} is read from a node with {one.proof['new_node_holds']} entries;"
        f" a quorum held {one.proof['must_hold']} before change {one.proof.get('change')}"
        for one in changes
        if one.proof.get("new_node_holds", 0) < one.proof.get("must_hold", 0)
    ]
    bad += [
        f"{one.proof['quorums'][-1]['after']} was asked for, {one.proof['in_force']} is in force after it"
        for one in changes
        if "in_force" in one.proof and one.proof["in_force"] != one.proof["quorums"][-1]["after"]
    ]
    refused = sum("CHANGE_RUNNING" in answer for _, _, answer in told)
    stages = sorted({f"{one.proof.get('stage')}" for one in changes})
    return verdict(
        "R1", "one change at a time", bad, "changes of the ring run into each other, or do not end",
        len(changes),
        f"{len(changes)} changes met trouble ({', '.join(stages)}), {refused} others were refused"
        " meanwhile, and they ended",
        "no change of the ring met any trouble",
    )  # fmt: skip


def _taken_while_one_ran(log: ManagerLog) -> list[str]:
    """Changes that the control history has begun before the one before had ended."""
    pairs = zip(log.changes, log.changes[1:], strict=False)
    return [
        f"change {new} began by command {index} while change {old} ran"
        for (_, old), (index, new) in pairs
        if old and new
    ]


CHECKERS = (no_resurrection, deletion_safety, one_change)

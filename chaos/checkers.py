"""The invariants, by name, as pure functions from a history to a verdict a person understands.

They know what clients asked and were told, and which processes were proven to be away; nothing of how
the cluster works. A verdict without evidence says so: an invariant that was never put to the test did
not hold, it was not seen. Each checker is tested against a planted violation.

I1 durability · I2 exactly once · I3 integrity · I4 ack visibility · I5 ack arithmetic · I6 honest
partial · I9 no ack without a quorum (as seen from outside) · L2 service returns. Those about nodes, I7 I8
I14 I15 S6, stand in `checkers_nodes`; those from the disks, I1d I8d, in `checkers_disks`; I10 in
`checkers_control`; those about hiding and moving, I7r I13 R1, in `checkers_moves`; those about time, L1 L3,
in `checkers_time`.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from chaos import (
    bulk_checkers,
    checkers_control,
    checkers_disks,
    checkers_moves,
    checkers_nodes,
    checkers_time,
)
from chaos.acks import contradictions, refusals
from chaos.bulk_facts import BulkFacts
from chaos.corpus import row_name, split_name
from chaos.facts import NEVER, Facts
from chaos.history import APPEND, OK, READ, History, Op
from chaos.verdicts import HOLDS, UNSEEN, VIOLATED, Verdict, merged, verdict

__all__ = ["HOLDS", "UNSEEN", "VIOLATED", "Verdict", "check", "worth"]


def durability(facts: Facts) -> Verdict:
    """I1: each row that was acknowledged is in the last read through each node."""
    bad = []
    for op in facts.finals:
        seen = {name for name, _ in op.resp["rows"]}
        lost = [one for one in facts.promised("", NEVER) if row_name(*one) not in seen]
        bad += [f"{row_name(*one)} was acknowledged, {op.node} does not find it" for one in lost]
    many = f"all {facts.acked_count:,} acknowledged rows are found through each of"
    return verdict(
        "I1", "durability", bad, f"{lost_rows(facts):,} acknowledged rows are lost",
        facts.acked_count and len(facts.finals), f"{many} {len(facts.finals)} nodes",
        "nothing was acknowledged, or there was no last read",
    )  # fmt: skip


def lost_rows(facts: Facts) -> int:
    """How many different acknowledged rows some last read lacks."""
    lost: set[tuple[str, int]] = set()
    for op in facts.finals:
        seen = {name for name, _ in op.resp["rows"]}
        lost |= {one for one in facts.promised("", NEVER) if row_name(*one) not in seen}
    return len(lost)


def exactly_once(facts: Facts) -> Verdict:
    """I2: no answer has a row twice, and no count is above the rows that were ever sent."""
    bad = []
    for op in facts.reads:
        copies = Counter(name for name, _ in op.resp["rows"])
        bad += [
            f"{name} {count} times in one answer of {op.node} (op {op.id})"
            for name, count in copies.items()
            if count > 1
        ]
    for op in facts.counts:
        for client, count in op.resp["counts"].items():
            sent = bisect_left(facts.asked_times.get(client, []), op.t_ret or NEVER)
            if count > sent:
                bad.append(f"{op.node} counts {count} rows of {client}, {sent} were sent")
    evidence = len(facts.reads) + len(facts.counts)
    return verdict(
        "I2", "exactly once", bad, f"{doubled_rows(facts):,} rows are doubled", evidence,
        f"no row twice in {len(facts.reads):,} answers, no count too high in {len(facts.counts):,}",
        "nothing was read",
    )  # fmt: skip


def doubled_rows(facts: Facts) -> int:
    """How many different rows some answer has more than once."""
    doubled: set[str] = set()
    for op in facts.reads:
        copies = Counter(name for name, _ in op.resp["rows"])
        doubled |= {name for name, count in copies.items() if count > 1}
    return len(doubled)


def integrity(facts: Facts) -> Verdict:
    """I3: each row read is what some client sent under its name, and was sent before it was read."""
    services, known = facts.history.head.services, {}
    bad: list[str] = []
    rows = 0
    for op in facts.reads:
        for name, digest in op.resp["rows"]:
            rows += 1
            parts = split_name(name)
            if parts is None or facts.asked.get(parts[0], {}).get(parts[1], NEVER) > (
                op.t_ret or NEVER
            ):
                bad.append(f"{name}, read from {op.node} (op {op.id}), was sent by nobody")
                continue
            if name not in known:
                known[name] = facts.corpus.digest(*parts, services.get(parts[0], ""))
            if digest != known[name]:
                bad.append(f"{name}, read from {op.node} (op {op.id}), is not what was sent")
    return verdict(
        "I3", "integrity", bad, "rows are altered, or come from nowhere", rows,
        f"{rows:,} rows read are as they were sent, none from nowhere", "no row was read",
    )  # fmt: skip


def ack_visibility(facts: Facts) -> Verdict:
    """I4: a complete read has every row that was acknowledged before it began, during faults too."""
    bad, judged = [], 0
    for op in facts.reads:
        if op.kind != READ or not op.resp["complete"]:
            continue
        judged += 1
        seen = {name for name, _ in op.resp["rows"]}
        due = facts.promised(op.covers, op.t_inv, op.t_ret or NEVER)
        late = (one for one in due if row_name(*one) not in seen)
        bad += [
            f"{row_name(*one)}: {op.node} says complete without it (op {op.id})" for one in late
        ]
    for op in facts.counts:
        if not op.resp["complete"]:
            continue
        judged += 1
        for client in facts.acked:
            due = _due(facts, client, op)
            count = op.resp["counts"].get(client, 0)
            if count < due:
                bad.append(f"{op.node} counts {count} rows of {client}, {due} were acknowledged")
    return verdict(
        "I4", "ack visibility", bad, "complete reads lack rows acknowledged before they began",
        judged, f"{judged:,} complete reads during the run had every row acknowledged before",
        "no read during the run was complete",
    )  # fmt: skip


def _due(facts: Facts, client: str, op: Op) -> int:
    """Rows that a count must have: acknowledged before it began, and not hidden before it ended."""
    if client not in facts.maybe_hidden:
        return bisect_left(facts.acked_times[client], op.t_inv)
    times, end = facts.acked[client], op.t_ret or NEVER
    return sum(at < op.t_inv and facts.shown(client, n, end) for n, at in times.items())


def ack_arithmetic(facts: Facts) -> Verdict:
    """I5: what numbered writers are told is consistent; no good row is refused."""
    bad: list[str] = []
    told = [op for op in facts.appends if op.outcome == OK and "ack_till" in op.resp]
    for client in sorted({op.client for op in told}):
        answers = [op for op in told if op.client == client]
        bad += contradictions(client, answers)
        if client in facts.history.head.sequenced:
            for op in answers:
                bad += _stored_but_absent(facts, op)
            bad += _acks_of_unsent(facts, client, answers)
    bad += refusals(facts.appends)
    return verdict(
        "I5", "ack arithmetic", bad, "acknowledgements contradict each other", len(told),
        f"{len(told):,} answers to numbered rows agree with each other and with what is stored",
        "no numbered rows were answered",
    )  # fmt: skip


def _acks_of_unsent(facts: Facts, client: str, answers: list[Op]) -> list[str]:
    sent, bad, judged = facts.asked.get(client, {}), [], 0
    for op in sorted(answers, key=lambda one: one.t_ret or NEVER):
        till, at = op.resp["ack_till"], op.t_ret or NEVER
        unsent = [one for one in range(judged + 1, till + 1) if sent.get(one, NEVER) > at]
        bad += [f"{row_name(client, one)} is acknowledged unsent (op {op.id})" for one in unsent]
        judged = max(judged, till)
    return bad


def _stored_but_absent(facts: Facts, op: Op) -> list[str]:
    """Above ackTill, what is neither missing nor there: the answer implied that it is stored."""
    if not facts.finals:
        return []
    top = max((last for _, last in op.rows), default=0)
    gaps, rejected = op.resp.get("missing", ()), op.resp.get("rejected", ())
    return [
        f"{row_name(op.client, number)} was not named as missing (op {op.id}), and is not stored"
        for number in range(op.resp["ack_till"] + 1, top + 1)
        if number not in rejected
        and not any(a <= number <= b for a, b in gaps)
        and row_name(op.client, number) not in facts.final_names
        and facts.shown(op.client, number, NEVER - 1)
    ]


def honest_partial(facts: Facts) -> Verdict:
    """I6: who cannot reach R owners says `complete: false` and names what is missing."""
    bad, judged = [], 0
    for op in (*facts.reads, *facts.counts, *facts.bulk_reads):
        complete, missing = op.resp["complete"], op.resp.get("missing", [])
        if not complete:
            judged += 1
            if not missing:
                bad.append(f"{op.node} says partial and names nothing missing (op {op.id})")
        elif missing:
            bad.append(f"{op.node} says complete and names missing shards (op {op.id})")
        end = op.t_ret or NEVER
        away = facts.out_of_reach(op.node, op.t_inv, end)
        if facts.everyone and len(facts.everyone - away) < facts.quorum_floor(op.t_inv, end).r:
            judged += 1
            if complete:
                names = ", ".join(sorted(away))
                bad.append(f"{op.node} says complete with {names} away (op {op.id})")
    return verdict(
        "I6", "honest partial", bad, "answers claim more than they can know", judged,
        f"{judged:,} reads without enough nodes said so and named what was missing",
        "no read met too few nodes",
    )  # fmt: skip


def quorum_at_ack(facts: Facts) -> Verdict:
    """I9, from outside: nothing is acknowledged while fewer nodes than the W of the time are there to store
    it.
    """
    bad, judged = [], 0
    for op in (*facts.appends, *facts.bulk_appends) if facts.everyone else ():
        if op.t_ret is None:
            continue
        away = facts.out_of_reach(op.node, op.t_inv, op.t_ret)
        w = facts.quorum_floor(op.t_inv, op.t_ret).w
        if len(facts.everyone - away) >= w:
            continue
        judged += 1
        if op.outcome == OK:
            names = ", ".join(sorted(away))
            bad.append(
                f"{op.node} acknowledged op {op.id} of {op.client} by W={w} with {names} away"
            )
    return verdict(
        "I9", "quorum at ack", bad, "rows were acknowledged without a quorum", judged,
        f"{judged:,} writes that met too few nodes were not acknowledged",
        "no write met too few nodes",
    )  # fmt: skip


def half_answers(facts: Facts) -> Verdict:
    """N5: a part of an answer is never taken for one, wherever it ends."""
    swept = [
        (path, one)
        for fault in facts.history.faults
        for path, one in fault.proof.get("swept", {}).items()
    ]
    bad = [
        f"{path}: {k} bytes of an answer were taken for one"
        for path, one in swept
        for k in one["taken"]
    ]
    cut = sum(one["cut"] for _, one in swept)
    ends = ", ".join(f"{path} {one['bytes']} bytes" for path, one in swept if one["ended"])
    return verdict(
        "N5", "half answers", bad, "a part of an answer was taken for all of it", cut,
        f"{cut:,} answers that ended after 1, 2, 3 … bytes were taken for none; swept to the end:"
        f" {ends or 'none'}",
        "no answers were swept",
    )  # fmt: skip


def service_returns(facts: Facts) -> Verdict:
    """L2: after the heal every node is ready, and every row that a client still had is acknowledged."""
    history = facts.history
    bad = [
        f"{client} still had {rows} rows without an acknowledgement"
        for client, rows in history.unfinished.items()
    ]
    bad += [
        f"{', '.join(fault.targets)} did not come back after {fault.what}: {fault.error}"
        for fault in history.faults
        if fault.t_bitten is not None and fault.t_healed is None
    ]
    bitten = sum(fault.t_bitten is not None for fault in history.faults)
    return verdict(
        "L2", "service returns", bad, "the cluster did not recover by itself", bitten,
        f"after {bitten} faults all nodes are ready and no client has rows left", "no fault bit",
    )  # fmt: skip


CHECKERS: tuple[Callable[[Facts], Verdict], ...] = (
    durability, exactly_once, integrity, ack_visibility, ack_arithmetic, honest_partial, quorum_at_ack,
    half_answers, *checkers_nodes.CHECKERS, *checkers_disks.CHECKERS, *checkers_control.CHECKERS,
    *checkers_moves.CHECKERS, *checkers_time.CHECKERS, service_returns,
)  # fmt: skip


def check(history: History) -> list[Verdict]:
    """The verdicts of all checkers."""
    facts = Facts(history)
    found = [checker(facts) for checker in CHECKERS]
    if not history.head.bulk:
        return found
    bulk = {one.id: one for one in bulk_checkers.check(BulkFacts(history))}
    return [merged(one, bulk[one.id]) if one.id in bulk else one for one in found]


@dataclass(frozen=True, slots=True)
class Worth:
    """Whether a run proves anything; `reasons` say why not."""

    counts: bool
    reasons: tuple[str, ...]


def worth(history: History, acked_min: int, faults_min: int = 1) -> Worth:
    """A run counts if faults bit, requests overlapped each kind of them, and enough was acknowledged."""
    facts = Facts(history)
    bitten = [fault for fault in history.faults if fault.t_bitten is not None]
    reasons = []
    if len(bitten) < faults_min:
        reasons.append(f"{len(bitten)} faults bit, {faults_min} are needed")
    if history.head.bulk:
        reasons += bulk_checkers.reasons_against(BulkFacts(history))
    if facts.acked_count < acked_min:
        reasons.append(f"{facts.acked_count:,} rows were acknowledged, {acked_min:,} are needed")
    met = {one.what for one in bitten if _overlaps(history.ops, one.t_begin, one.t_heal)}
    if unmet := sorted({one.what for one in bitten} - met):
        reasons.append(f"no request overlapped {', '.join(unmet)}")
    if len(facts.finals) < len(history.head.nodes):
        have, need = len(facts.finals), len(history.head.nodes)
        reasons.append(f"the last read was complete through {have} of {need} nodes")
    if history.head.converges and not history.states:
        reasons.append("no node told what it holds in the end")
    return Worth(not reasons, tuple(reasons))


def _overlaps(ops: Iterable[Op], start: int, end: int) -> bool:
    return any(op.kind == APPEND and op.t_inv <= end and (op.t_ret or NEVER) >= start for op in ops)

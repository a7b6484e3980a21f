"""The invariants over bulk rows, from arrays of what was asked, promised and found. Pure.

I1 I2 I3 I4 I5 I7 I17, as in `checkers` and `checkers_nodes`; I6, I9 and L2 look at bulk requests where they
look at all others. Each is tested against a planted violation.
"""

from collections.abc import Callable, Iterable

import numpy as np

from chaos.acks import NEVER, contradictions, refusals
from chaos.bulk_facts import BulkFacts
from chaos.corpus import row_name
from chaos.facts import Facts
from chaos.history import BULK_READ, OK, Op
from chaos.verdicts import EXAMPLES_MAX, HOLDS, UNSEEN, VIOLATED, Verdict


class _Bad:
    """Violations: how many, and what some of them are called."""

    def __init__(self) -> None:
        self.count, self.examples = 0, []

    def rows(self, client: str, wrong: np.ndarray, text: str) -> None:
        """Adds the rows whose numbers a mask names."""
        numbers = np.flatnonzero(wrong)
        self.count += len(numbers)
        left = max(0, EXAMPLES_MAX - len(self.examples))
        self.examples += [f"{row_name(client, int(one))} {text}" for one in numbers[:left]]

    def texts(self, texts: Iterable[str], count: int = 1) -> None:
        """Adds violations by their texts, each for so many."""
        for text in texts:
            self.count += count
            self.examples.append(text)

    def verdict(self, id: str, name: str, if_bad: str, evidence: int, if_good: str) -> Verdict:
        """The verdict; `evidence` counts what was looked at."""
        if self.count:
            some = tuple(self.examples[:EXAMPLES_MAX])
            return Verdict(id, name, VIOLATED, f"in bulk: {if_bad}", self.count, some)
        if not evidence:
            return Verdict(id, name, UNSEEN, "no bulk rows showed it")
        return Verdict(id, name, HOLDS, f"in bulk: {if_good}")


def durability(facts: BulkFacts) -> Verdict:
    """I1: each row that was acknowledged is in the last read through each node."""
    bad = _Bad()
    for (node, client), op in facts.finals.items():
        lost = _lost(facts, client, op)
        bad.rows(client, lost, f"was acknowledged, {node} does not find it")
    return bad.verdict(
        "I1", "durability", f"{lost_rows(facts):,} acknowledged rows are lost",
        facts.acked_count and len(facts.finals),
        f"all {facts.acked_count:,} acknowledged rows are found",
    )  # fmt: skip


def _lost(facts: BulkFacts, client: str, op: Op) -> np.ndarray:
    return (facts.acked[client] < NEVER) & ~facts.mask(client, op.resp["found"])


def lost_rows(facts: BulkFacts) -> int:
    """How many different acknowledged rows some last read lacks."""
    total = 0
    for client in facts.tops:
        lost = facts.mask(client, ())
        for (_, whose), op in facts.finals.items():
            if whose == client:
                lost |= _lost(facts, client, op)
        total += int(lost.sum())
    return total


def exactly_once(facts: BulkFacts) -> Verdict:
    """I2: no answer has a row twice, and no count is above the rows that were ever sent."""
    bad = _Bad()
    for op in facts.reads:
        doubled = facts.mask(op.covers, op.resp["doubled"])
        bad.rows(op.covers, doubled, f"more than once in one answer of {op.node} (op {op.id})")
    for op in facts.counts:
        for client, count in op.resp["bulk"].items():
            sent = int((facts.asked[client] < (op.t_ret or NEVER)).sum())
            if count > sent:
                text = f"{op.node} counts {count} rows of {client}, {sent} were sent (op {op.id})"
                bad.texts([text], count - sent)
    return bad.verdict(
        "I2", "exactly once", f"{doubled_rows(facts):,} rows are doubled",
        len(facts.reads) + len(facts.counts),
        f"no row twice in {len(facts.reads):,} answers, no count too high in {len(facts.counts):,}",
    )  # fmt: skip


def doubled_rows(facts: BulkFacts) -> int:
    """How many different rows some answer has more than once."""
    total = 0
    for client in facts.tops:
        spans = [one for op in facts.reads if op.covers == client for one in op.resp["doubled"]]
        total += int(facts.mask(client, spans).sum())
    return total


def integrity(facts: BulkFacts) -> Verdict:
    """I3: each row read is what was sent under its name, and was sent before it was read."""
    bad, rows = _Bad(), 0
    for op in facts.reads:
        found = facts.mask(op.covers, op.resp["found"])
        rows += int(found.sum())
        unsent = found & (facts.asked[op.covers] > (op.t_ret or NEVER - 1))
        bad.rows(op.covers, unsent, f"read from {op.node} (op {op.id}), was sent by nobody")
        altered = facts.mask(op.covers, op.resp["altered"])
        bad.rows(op.covers, altered, f"read from {op.node} (op {op.id}), is not what was sent")
        if count := op.resp.get("strangers", [0])[0]:
            some = op.resp["strangers"][1][:1]
            bad.texts([f"{op.node} (op {op.id}) gives rows that nobody sent: {some}"], count)
    return bad.verdict(
        "I3", "integrity", "rows are altered, or come from nowhere", rows,
        f"{rows:,} rows read are as they were sent",
    )  # fmt: skip


def ack_visibility(facts: BulkFacts) -> Verdict:
    """I4: a complete read or count has every row that was acknowledged before it began."""
    bad, judged = _Bad(), 0
    for op in facts.reads:
        if op.kind != BULK_READ or not op.resp["complete"]:
            continue
        due = (facts.acked[op.covers] < op.t_inv) & facts.covered(op)
        judged += 1
        late = due & ~facts.mask(op.covers, op.resp["found"])
        bad.rows(op.covers, late, f"was acknowledged, {op.node} says complete without it ({op.id})")
    for op in facts.counts:
        if not op.resp["complete"]:
            continue
        judged += 1
        for client, times in facts.acked.items():
            due, count = int((times < op.t_inv).sum()), op.resp["bulk"].get(client, 0)
            if count < due:
                text = f"{op.node} counts {count} rows of {client}, {due} were acknowledged"
                bad.texts([text], due - count)
    return bad.verdict(
        "I4", "ack visibility", "complete reads lack rows acknowledged before they began", judged,
        f"{judged:,} complete reads had every row acknowledged before",
    )  # fmt: skip


def ack_arithmetic(facts: BulkFacts) -> Verdict:
    """I5: what numbered writers are told is consistent; no good row is refused."""
    bad = _Bad()
    told = [op for op in facts.appends if op.outcome == OK and "ack_till" in op.resp]
    for client in sorted({op.client for op in told}):
        answers = [op for op in told if op.client == client]
        bad.texts(contradictions(client, answers))
        _acks_of_unsent(facts, client, answers, bad)
        _stored_but_absent(facts, client, answers, bad)
    bad.texts(refusals(facts.appends))
    return bad.verdict(
        "I5", "ack arithmetic", "acknowledgements contradict each other", len(told),
        f"{len(told):,} answers to numbered rows agree",
    )  # fmt: skip


def _acks_of_unsent(facts: BulkFacts, client: str, answers: list[Op], bad: _Bad) -> None:
    asked = facts.asked[client]
    for op in answers:
        till, at = op.resp["ack_till"], op.t_ret or NEVER
        if till >= len(asked):
            bad.texts([f"{client}: ackTill {till} (op {op.id}), {len(asked) - 1} were ever sent"])
        bad.rows(client, _up_to(asked > at, till), f"is acknowledged unsent (op {op.id})")


def _stored_but_absent(facts: BulkFacts, client: str, answers: list[Op], bad: _Bad) -> None:
    """Above ackTill, what is neither missing nor there: the answer implied that it is stored."""
    finals = [op for (_, whose), op in facts.finals.items() if whose == client]
    if not finals:
        return
    stored = facts.mask(client, [one for op in finals for one in op.resp["found"]])
    for op in answers:
        top = max(last for _, last in op.rows)
        excused = facts.mask(client, op.resp.get("missing", ()))
        excused[np.asarray(op.resp.get("rejected", ()), np.int64)] = True
        implied = _up_to(~excused, top)
        implied[: op.resp["ack_till"] + 1] = False
        bad.rows(client, implied & ~stored, f"was not named missing (op {op.id}), and is absent")


def _up_to(mask: np.ndarray, top: int) -> np.ndarray:
    """The mask without what lies above a number, and without 0."""
    found = mask.copy()
    found[top + 1 :] = False
    found[0] = False
    return found


def no_vanishing(facts: BulkFacts) -> Verdict:
    """I7: a row that a complete read showed before anybody had an answer for it stays in later ones."""
    bad, judged = _Bad(), 0
    most = Facts(facts.history).asked_most
    reads = [op for op in facts.reads if op.resp["complete"] and op.t_ret is not None and most(op)]
    seen = {client: np.full(top + 1, NEVER, np.int64) for client, top in facts.tops.items()}
    for op in reads:
        found = facts.mask(op.covers, op.resp["found"])
        seen[op.covers][found] = np.minimum(seen[op.covers][found], op.t_ret or NEVER)
    for op in reads:
        due = (seen[op.covers] < op.t_inv) & (facts.acked[op.covers] >= op.t_inv)
        due &= facts.covered(op)
        judged += int(due.sum())
        gone = due & ~facts.mask(op.covers, op.resp["found"])
        bad.rows(op.covers, gone, f"had been read, {op.node} does not find it (op {op.id})")
    return bad.verdict(
        "I7", "no vanishing", "rows that were seen are gone", judged,
        f"{judged:,} times a row seen before its acknowledgement was seen again",
    )  # fmt: skip


def one_order(facts: BulkFacts) -> Verdict:
    """I17: the last reads give a client's rows in one order, whichever node is asked."""
    bad, judged = _Bad(), 0
    first: dict[str, Op] = {}
    for (node, client), op in facts.finals.items():
        other = first.setdefault(client, op)
        if other is op or other.resp["found"] != op.resp["found"]:
            continue  # rows that nobody acknowledged may be in one of them; I1 judges all others
        judged += 1
        if op.resp["order"] != other.resp["order"]:
            bad.texts([f"{node} gives the rows of {client} in another order than {other.node}"])
    return bad.verdict(
        "I17", "one order", "nodes give rows in other orders", judged,
        f"{judged} reads of whole clients gave the order that another node gave",
    )  # fmt: skip


CHECKERS: tuple[Callable[[BulkFacts], Verdict], ...] = (
    durability, exactly_once, integrity, ack_visibility, ack_arithmetic, no_vanishing, one_order,
)  # fmt: skip


def check(facts: BulkFacts) -> list[Verdict]:
    """The verdicts of all of these."""
    return [checker(facts) for checker in CHECKERS]


def reasons_against(facts: BulkFacts) -> list[str]:
    """Why the bulk part of a run proves nothing; empty if it does."""
    wanted = {(node, client) for node in facts.history.head.nodes for client in facts.tops}
    absent = sorted(wanted - set(facts.finals))
    reasons = [
        f"the last read of {client} through {node} is not complete" for node, client in absent
    ]
    silent = [client for client, times in facts.acked.items() if not (times < NEVER).any()]
    return reasons + [f"no row of {client} was acknowledged" for client in silent]

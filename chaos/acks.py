"""What answers to numbered rows must not say of each other, whoever sent the rows. Pure."""

from collections.abc import Iterable

from chaos.corpus import row_name
from chaos.history import Op

#: Time of what never happened.
NEVER = (1 << 63) - 1


def contradictions(client: str, answers: list[Op]) -> list[str]:
    """ackTill falls, or covers what the same answer calls missing."""
    bad = _falling(client, answers)
    for op in answers:
        till = op.resp["ack_till"]
        gaps = [(a, b) for a, b in op.resp.get("missing", ()) if a <= till]
        bad += [
            f"{client}: missing {a}-{b} lies under ackTill {till} (op {op.id})" for a, b in gaps
        ]
    return bad


def refusals(appends: Iterable[Op]) -> list[str]:
    """Good rows that were refused for their content."""
    bad = []
    for op in appends:
        for number in op.resp.get("rejected", ()):
            bad.append(f"{row_name(op.client, number)} is a good row and was refused (op {op.id})")
        if op.resp.get("conflict"):
            bad.append(f"{op.client}: CONFLICT although the same bytes were sent (op {op.id})")
    return bad


def _falling(client: str, answers: list[Op]) -> list[str]:
    """ackTill (within an epoch), and the epoch itself, never fall from one answer to a later request."""
    bad = []
    best, told_by = (0, 0), 0
    ends = sorted(answers, key=lambda op: op.t_ret or NEVER)
    at = 0
    for op in sorted(answers, key=lambda op: op.t_inv):
        while at < len(ends) and (ends[at].t_ret or NEVER) < op.t_inv:
            mark = (ends[at].resp.get("epoch", 0), ends[at].resp["ack_till"])
            if mark > best:
                best, told_by = mark, ends[at].id
            at += 1
        mark = (op.resp.get("epoch", 0), op.resp["ack_till"])
        if mark < best:
            was = f"epoch {best[0]}, ackTill {best[1]} (op {told_by})"
            bad.append(f"{client}: {was} fell to epoch {mark[0]}, ackTill {mark[1]} (op {op.id})")
    return bad

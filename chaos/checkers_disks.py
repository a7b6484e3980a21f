"""Invariants judged from the disks alone: dumps that the judge made of the stores, not what nodes say. Pure.

I1d durability on disk: acknowledged rows are in W dumps before anything could repair, in N in the end
I8d convergence on disk: owners hold equal entries and rows, by digests worked out anew; others hold nothing
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from chaos.bulk_facts import BulkFacts
from chaos.corpus import row_name
from chaos.evidence import COLD, END, Dump
from chaos.facts import NEVER, Facts
from chaos.verdicts import UNSEEN, Verdict, verdict


def durability_on_disk(facts: Facts) -> Verdict:
    """I1d: what was acknowledged is in the stores of W nodes when all were down, and of N in the end."""
    bulk = BulkFacts(facts.history)
    bad: list[str] = []
    judged = 0
    cold = _groups(facts.history.dumps, COLD)
    for dumps in cold:
        at = min(one.t for one in dumps)
        found = _lacking(facts, bulk, dumps, at, facts.quorum_floor(at, at).w)
        bad += found[0]
        judged += found[1]
    for dumps in _groups(facts.history.dumps, END):
        found = _lacking(facts, bulk, dumps, NEVER, facts.last_quorum.n)
        bad += found[0]
        judged += found[1]
    return verdict(
        "I1d", "durability on disk", bad, "acknowledged rows are on too few disks", judged,
        f"{judged:,} times an acknowledged row was looked for in the stores: on W disks each of the"
        f" {len(cold)} times that all nodes were down, on N in the end",
        "no store was dumped",
    )  # fmt: skip


def _groups(dumps: Sequence[Dump], moment: str) -> list[list[Dump]]:
    """Dumps of one moment of the run each."""
    found: dict[int, list[Dump]] = defaultdict(list)
    for one in dumps:
        if one.moment == moment:
            found[one.event].append(one)
    return [found[event] for event in sorted(found)]


def _lacking(
    facts: Facts, bulk: BulkFacts, dumps: Sequence[Dump], before: int, needed: int
) -> tuple[list[str], int]:
    """(rows promised before a time that fewer dumps than `needed` have, how many rows were looked for)."""
    bad: list[str] = []
    looked = 0
    for client, numbers in _promised(facts, bulk, before):
        looked += len(numbers)
        copies = np.zeros(len(numbers), np.int64)
        for one in dumps:
            copies += _within(one, client, numbers)
        for number, count in zip(numbers[copies < needed], copies[copies < needed], strict=True):
            when = f"{dumps[0].moment} dump {dumps[0].event}"
            bad.append(f"{row_name(client, number)} is on {count} disks, not {needed} ({when})")
    return bad, looked


def _promised(facts: Facts, bulk: BulkFacts, before: int) -> Iterator[tuple[str, np.ndarray]]:
    by_client: dict[str, list[int]] = defaultdict(list)
    for client, number in facts.promised("", before):
        by_client[client].append(number)
    for client, numbers in by_client.items():
        yield client, np.array(sorted(numbers), np.int64)
    for client, times in bulk.acked.items():
        yield client, np.flatnonzero(times < before)


def _within(dump: Dump, client: str, numbers: np.ndarray) -> np.ndarray:
    """Which numbers a dump has."""
    found = np.zeros(len(numbers), np.int64)
    for first, last in dump.spans(client):
        found[np.searchsorted(numbers, first) : np.searchsorted(numbers, last, side="right")] = 1
    return found


def convergence_on_disk(facts: Facts) -> Verdict:
    """I8d: in the end a shard's owners hold the same, as they said, and others serve nothing of it.

    What others gave up stays on their disks until the blocks around it are written anew (storage.moving).
    """
    dumps = {one.node: one for one in facts.history.dumps if one.moment == END}
    states = {one.node: one for one in facts.history.states if one.node in dumps}
    bad = [
        f"{node}: {text}"
        for node, one in dumps.items()
        if node not in facts.damaged
        for text in one.broken
    ]
    shards = sorted({shard for one in dumps.values() for shard in one.shards}, key=int)
    told = len(states) == len(dumps) and all(one.owns is not None for one in states.values())
    for shard in shards if told else ():
        owners = [node for node, one in states.items() if shard in (one.owns or ())]
        bad += _differing(facts, dumps, owners, shard)
        for node in owners:
            said = states[node].shards.get(shard, (0, ""))
            found = dumps[node].shards.get(shard, (0, "", ""))[:2]
            if said != found:
                bad.append(f"shard {shard}: {node} said {said[0]} entries, its disk has {found[0]}")
        bad += [
            f"shard {shard}: {node} holds {one.shards[shard][0]} entries and is no owner"
            for node, one in states.items()
            if node not in owners and shard in one.shards
        ]
    if not told:
        return Verdict("I8d", "convergence on disk", UNSEEN, "no dumps, or owners are not known")
    return verdict(
        "I8d", "convergence on disk", bad, "the disks of owners do not agree, or not with their words",
        len(shards),
        f"the disks of all owners of {len(shards)} shards hold the same entries and rows, as said",
        "the disks hold nothing",
    )  # fmt: skip


def _differing(
    facts: Facts, dumps: dict[str, Dump], owners: Sequence[str], shard: str
) -> Iterator[str]:
    """What is not equal among a shard's owners; of rows that may be hidden each removes its own copy when it
    likes.
    """
    held = {node: dumps[node].shards.get(shard, (0, "", "")) for node in owners}
    if len({one[:2] for one in held.values()}) > 1:
        counts = ", ".join(f"{node} {one[0]}" for node, one in held.items())
        yield f"shard {shard}: entries on disk differ: {counts}"
    elif not facts.hides and len({one[2] for one in held.values()}) > 1:
        yield f"shard {shard}: equal entries with other rows on {', '.join(owners)}"
    elif not facts.hides and any(
        dumps[node].rows.get(shard, {}) != dumps[owners[0]].rows.get(shard, {}) for node in owners
    ):
        yield f"shard {shard}: other numbers of rows on {', '.join(owners)}"


CHECKERS = (durability_on_disk, convergence_on_disk)

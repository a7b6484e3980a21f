"""How an entry stands after each owner's answer, and what a submission makes of it."""

import asyncio
from typing import Any

import pytest

from cluster.quorum_tally import Group
from ingestor.outcomes import EntryTally, Submission, Verdict
from ingestor.shards import unsequenced_pieces
from records.errors import DiskFull, QuorumUnavailable
from records.messages import EntryStatus, PutReply
from runtime.clock import SystemClock
from runtime.deadline import Deadline
from tests.support.fake_replica import FakeView
from tests.support.write_path import BASE, body_batch

STORED, DUPLICATE = EntryStatus.STORED, EntryStatus.DUPLICATE
CONFLICT, FENCED, STALE = EntryStatus.CONFLICT, EntryStatus.FENCED, EntryStatus.STALE


def submission(services: int = 1, needed: int = 2) -> Submission:
    """Four rows of each service."""
    rows = [{"service": f"s{i % services}", "message": str(i)} for i in range(4 * services)]
    piece = unsequenced_pieces(body_batch(rows), FakeView(), BASE, 3_600_000_000, 1 << 20)[0]
    limit = Deadline.after(SystemClock(), 5)
    return Submission(piece, needed, 2, limit, set(), asyncio.get_running_loop().create_future())


def reply(*statuses: EntryStatus, held: int = 0) -> PutReply:
    """An owner's answer, the same `held` for each entry."""
    count = len(statuses)
    return PutReply(statuses, (held,) * count, ((),) * count, ())


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        ([("a", STORED)], Verdict.OPEN),
        ([("a", STORED), ("b", DUPLICATE)], Verdict.WON),
        ([("a", STORED), ("b", CONFLICT), ("c", STORED)], Verdict.CONFLICT),
        ([("a", STORED), ("b", STORED), ("c", CONFLICT)], Verdict.WON),
        ([("a", FENCED), ("b", STORED), ("c", STORED)], Verdict.FENCED),
        ([("a", STALE), ("b", STORED), ("c", STORED)], Verdict.STALE),
        ([("a", STORED), ("a", STORED)], Verdict.OPEN),
    ],
)
async def test_the_verdict_of_an_entry(answers: list, verdict: Verdict) -> None:
    """W acks win; before that any refusal decides, and what is decided stays."""
    entry = submission().piece.entries[0]
    tally = EntryTally(entry, [Group(frozenset("abc"), 2)], 2)
    for owner, status in answers:
        tally.take(owner, status, 0, ())

    assert tally.verdict is verdict


@pytest.mark.parametrize(
    ("answers", "duplicates"),
    [
        ([("a", STORED), ("b", STORED)], 0),
        ([("a", DUPLICATE), ("b", DUPLICATE)], 4),
        ([("a", DUPLICATE), ("b", STORED)], 0),
        ([("a", DUPLICATE), ("b", STORED), ("c", DUPLICATE)], 4),
    ],
)
async def test_a_duplicate_is_what_w_owners_held(answers: list, duplicates: int) -> None:
    """One owner that had it is the trace of a write that was never acked."""
    one = submission()
    for owner, status in answers:
        one.take(owner, reply(status), 0)

    assert one.entries[0].duplicates == duplicates


async def test_a_partial_overlap_counts_its_rows() -> None:
    """Both owners held three of the four rows, one held all."""
    one = submission()
    one.take("a", reply(STORED, held=3), 0)
    one.take("b", reply(STORED, held=4), 0)

    assert one.entries[0].duplicates == 3


async def test_what_this_write_stored_is_no_duplicate() -> None:
    """The first try may have been stored; the second hears so."""
    one = submission()
    one.may_be_stored("a")
    one.take("a", reply(DUPLICATE), 0)
    one.take("b", reply(STORED), 0)
    one.take("b", reply(DUPLICATE), 0)

    assert one.entries[0].duplicates == 0


async def test_a_submission_is_done_when_all_its_entries_are() -> None:
    """Entries of others come before its own in the block: they are not looked at."""
    one = submission(services=6)
    count = len(one.entries)
    assert count > 1
    one.take("a", reply(CONFLICT, *[STORED] * count), 1)
    assert not one.settled
    one.take("b", reply(CONFLICT, *[STORED] * count), 1)

    assert one.settled
    assert one.done.exception() is None
    assert one.acks == 2


async def test_time_over_says_what_was_reached() -> None:
    """The error carries acks, needed and durable; a second expiry changes nothing."""
    one = submission()
    one.take("a", reply(STORED), 0)
    one.expire()
    one.expire()
    error: Any = one.done.exception()

    assert isinstance(error, QuorumUnavailable)
    assert (error.details["acks"], error.details["needed"]) == (1, 2)
    assert error.details["durable"] == "1/3"


async def test_full_disks_are_the_reason_only_if_they_suffice_as_one() -> None:
    """One full disk of three is no 507; two are, and after a possible store it is not definite."""
    one = submission()
    one.full.add("a")
    assert not one.disk_full
    one.full.add("b")
    one.may_be_stored("c")
    one.expire()
    error: Any = one.done.exception()

    assert isinstance(error, DiskFull)
    assert error.to_dict()["definite"] is False


async def test_while_a_shard_moves_w_of_the_old_and_w_of_the_new_owners_are_needed() -> None:
    """Old a, b, c; new a, b, d. Each two of one set alone are not enough, where they are not of both."""
    groups = (("a", "b", "c"), ("a", "b", "d"))
    view = FakeView(moving=tuple((shard, groups) for shard in range(32)))
    piece = unsequenced_pieces(
        body_batch([{"service": "s", "message": "m"}]), view, BASE, 3_600_000_000, 1 << 20
    )[0]

    def settled_by(*owners: str) -> bool:
        future = asyncio.get_running_loop().create_future()
        one = Submission(piece, 2, 2, Deadline.after(SystemClock(), 9), set(), future)
        for owner in owners:
            one.take(owner, PutReply((EntryStatus.STORED,), (0,), ((),), ()), 0)
        return one.settled

    assert piece.owners == ("a", "b", "c", "d")
    assert settled_by("a", "b")
    assert settled_by("a", "c", "d")
    assert not settled_by("a", "c")
    assert not settled_by("c", "d")
    assert not settled_by("a", "d")

"""What a new leader makes of rows that the one before acknowledged, and of which it has heard little."""

from dataclasses import replace

import pytest

from records.consistency import QuorumPolicy
from records.errors import DiskFull, Fenced, NotReady, QuorumUnavailable
from records.intervals import SeqIntervals
from tests.support.fake_replica import FakeReplicas, FakeView, FakeViews
from tests.support.write_path import numbered_batch, write_path

KEY = ("default", "shop", "p1")
SHARD = FakeView().shard_of(*KEY, 1)
OLD = FakeView(everything_led_by=("a", 1))
NEW = FakeView("b", everything_led_by=("b", 2))
#: c gives the shard to d.
MOVING = replace(NEW, ring_epoch=2, moving=((SHARD, (("a", "b", "c"), ("a", "b", "d"))),))


async def told_to_two(replicas: FakeReplicas) -> None:
    """1..3 were told, on a and b; c is back since, a is away."""
    async with write_path(replicas, FakeViews(OLD)) as old:
        replicas["c"].down = True
        await old.write(numbered_batch([1, 2, 3]))
        assert (await old.write(numbered_batch([4]))).ack_till == 4
    assert replicas["b"].told[(*KEY, 1)] == 3
    replicas["c"].down, replicas["a"].down = False, True


async def test_other_bytes_for_what_was_told_reach_no_owner_that_lacks_it() -> None:
    """The new leader knows of b alone that it holds 1..3: c would take the lie, and differ for ever."""
    replicas = FakeReplicas("a", "b", "c")
    await told_to_two(replicas)
    async with write_path(replicas, FakeViews(NEW)) as new:
        lie = await new.write(numbered_batch([1, 2, 3], text="other"))
        assert [one.seq for one in lie.conflicts] == [1, 2, 3]
        assert replicas["c"].seqs_of(KEY) == SeqIntervals([(4, 4)])

        again = await new.write(numbered_batch([1, 2, 3]))
        assert (again.ack_till, again.conflicts) == (4, ())
        assert replicas["c"].seqs_of(KEY) == SeqIntervals([(1, 4)])


@pytest.mark.parametrize("text", ["row", "other"])
async def test_told_rows_sent_again_do_not_wait_for_the_one_known_holder(text: str) -> None:
    """The holder that the leader knew, b, goes away as a returns: a is heard, and judges."""
    replicas = FakeReplicas("a", "b", "c")
    await told_to_two(replicas)
    async with write_path(replicas, FakeViews(NEW)) as new:
        assert (await new.write(numbered_batch([5]))).ack_till == 5
        replicas["a"].down, replicas["b"].down = False, True

        again = await new.write(numbered_batch([1, 2, 3], text=text), seconds=2)

        assert again.ack_till == 5
        assert [one.seq for one in again.conflicts] == ([] if text == "row" else [1, 2, 3])


async def test_told_rows_sent_again_wait_if_nobody_can_judge() -> None:
    """Both holders are away: no answer by the deadline, and nothing reaches c."""
    replicas = FakeReplicas("a", "b", "c")
    await told_to_two(replicas)
    async with write_path(replicas, FakeViews(NEW)) as new:
        await new.write(numbered_batch([5]))
        replicas["b"].down = True
        with pytest.raises(QuorumUnavailable):
            await new.write(numbered_batch([1, 2, 3], text="other"), seconds=0.5)

    assert replicas["c"].seqs_of(KEY) == SeqIntervals([(4, 5)])


async def test_rows_of_before_a_move_are_never_answered_as_missing() -> None:
    """a and c have 1..5, acknowledged before c began to give to d. With d full and b not taking them
    either, W of the new owners cannot have them: the producer waits, and is told no less than before.
    """
    replicas = FakeReplicas("a", "b", "c", "d")
    async with write_path(replicas, FakeViews(OLD)) as old:
        replicas["b"].down = True
        assert (await old.write(numbered_batch([1, 2, 3, 4, 5]))).ack_till == 5
    replicas["b"].down = False
    replicas["b"].broken["put"] = replicas["d"].broken["put"] = DiskFull("full")
    async with write_path(replicas, FakeViews(MOVING)) as new:
        with pytest.raises(NotReady, match="may be acknowledged"):
            await new.writer.producer_progress(*KEY, 1, new.deadline(2.0))

        replicas["d"].broken.clear()
        result = await new.writer.producer_progress(*KEY, 1, new.deadline())

    assert (result.ack_till, result.missing) == (5, ())
    assert replicas["d"].seqs_of(KEY) == SeqIntervals([(1, 5)])


async def test_an_owner_that_lost_rows_to_damage_is_no_witness_that_there_were_none() -> None:
    """a and b had 1..3, which were acknowledged; a is away, and b lost its copy. c never had them."""
    replicas = FakeReplicas("a", "b", "c")
    async with write_path(replicas, FakeViews(OLD)) as old:
        replicas["c"].down = True
        assert (await old.write(numbered_batch([1, 2, 3]))).ack_till == 3
    replicas["c"].down, replicas["a"].down = False, True
    replicas["b"].held.clear()
    replicas["b"].hole = True
    async with write_path(replicas, FakeViews(NEW)) as new:
        with pytest.raises(NotReady, match="not whole after damage: b"):
            await new.writer.producer_progress(*KEY, 1, new.deadline(2.0))

        replicas["a"].down = False
        assert (await new.writer.producer_progress(*KEY, 1, new.deadline())).ack_till == 3


async def test_what_a_damaged_owner_still_holds_is_put_to_others() -> None:
    """5 is on b alone, whose damage took other rows. a and c answer for what was acknowledged."""
    replicas = FakeReplicas("a", "b", "c")
    async with write_path(replicas, FakeViews(OLD)) as old:
        assert (await old.write(numbered_batch([1, 2, 3, 4]), ack="all")).ack_till == 4
        replicas["a"].down = replicas["c"].down = True
        with pytest.raises(QuorumUnavailable):
            await old.write(numbered_batch([5]), seconds=0.5)
    replicas["a"].down = replicas["c"].down = False
    replicas["b"].hole = True
    async with write_path(replicas, FakeViews(NEW)) as new:
        found = await new.writer.producer_progress(*KEY, 1, new.deadline())

    assert (found.ack_till, found.missing) == (5, ())


async def test_what_w_owners_hold_at_a_takeover_is_told_though_they_lose_it() -> None:
    """Nobody knows that 1..3 were told: owners learn it with the next put. The new leader sees them on W
    owners; two of these lose them to damage before its first answer, which must not be a lower one.
    """
    replicas = FakeReplicas("a", "b", "c")
    async with write_path(replicas, FakeViews(OLD)) as old:
        assert (await old.write(numbered_batch([1, 2, 3]), ack="all")).ack_till == 3
    async with write_path(replicas, FakeViews(NEW)) as new:
        with pytest.raises(Fenced):  # the producer is recovered for it; no progress is told
            await new.write(numbered_batch([9], epoch=0))
        replicas["a"].held.clear()
        replicas["c"].held.clear()

        assert (await new.write(numbered_batch([4]))).ack_till == 4


async def test_rows_that_a_watermark_keeps_from_others_are_not_answered_as_missing() -> None:
    """a and b have 1..3, acknowledged; b is away, and a has not heard yet of the watermark that passed them.
    c has: it takes them for duplicates, and stores nothing. The producer waits for a word of a or b.
    """
    replicas = FakeReplicas("a", "b", "c")
    async with write_path(replicas, FakeViews(OLD)) as old:
        replicas["c"].down = True
        assert (await old.write(numbered_batch([1, 2, 3]))).ack_till == 3
    replicas["c"].down, replicas["c"].passed, replicas["b"].down = False, True, True
    async with write_path(replicas, FakeViews(NEW)) as new:
        with pytest.raises(NotReady, match="may be acknowledged"):
            await new.writer.producer_progress(*KEY, 1, new.deadline(2.0))

        replicas["b"].down = False
        assert (await new.writer.producer_progress(*KEY, 1, new.deadline())).ack_till == 3


@pytest.mark.parametrize("text", ["row", "other"])
async def test_rows_that_nobody_holds_all_of_are_judged_in_parts(text: str) -> None:
    """Each of 1..3 is on two of four owners, never on d, which would take other bytes of all three."""
    replicas = FakeReplicas("a", "b", "c", "d")
    view = replace(OLD, nodes=("a", "b", "c", "d"), quorum=QuorumPolicy(4, 2, 3))
    async with write_path(replicas, FakeViews(view)) as path:
        await path.writer.producer_progress(*KEY, 1, path.deadline())  # taken over while all answer
        for seq, away in ((1, "cd"), (2, "ad"), (3, "bd")):
            for node in "abcd":
                replicas[node].down = node in away
            assert (await path.write(numbered_batch([seq]))).ack_till == seq
        for node in "abcd":
            replicas[node].down = False

        result = await path.write(numbered_batch([1, 2, 3], text=text))

        lied = text == "other"
        assert {one.seq for one in result.conflicts} == ({1, 2, 3} if lied else set())
        assert list(replicas["d"].seqs_of(KEY)) == ([] if lied else [(1, 3)])
        numbered = [row["message"] for row in replicas.visible() if row["service"] == "shop"]
        assert sorted(numbered) == ["row 1", "row 2", "row 3"]

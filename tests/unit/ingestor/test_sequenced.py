"""The sequenced write: ack arithmetic, duplicates, gaps, skips, conflicts, fences, takeover."""

import asyncio
from dataclasses import replace

import pytest

from records.errors import (
    Conflict,
    ConnectionLost,
    DiskFull,
    Fenced,
    NotLeader,
    NotReady,
    Overloaded,
    QuorumUnavailable,
    Refused,
    StaleRingEpoch,
)
from records.intervals import SeqIntervals
from records.messages import PutOptions
from tests.support.fake_replica import FakeReplicas, FakeView, FakeViews, Fault
from tests.support.write_path import numbered_batch, table_of, until, write_path

KEY = ("default", "shop", "p1")
HOME = FakeView().shard_of(*KEY, 1)


def led_by(node: str, epoch: int, me: str, index: int = 1) -> FakeView:
    """The view of node `me` when `node` leads everything by shard epoch `epoch`."""
    return FakeView(me, index=index, everything_led_by=(node, epoch))


async def test_ack_till_is_the_end_of_what_a_quorum_holds() -> None:
    """Rows 1..3, then 5: ackTill 3, missing 4; then 4 fills the gap."""
    async with write_path() as path:
        first = await path.write(numbered_batch([1, 2, 3]))
        gap = await path.write(numbered_batch([5]))
        filled = await path.write(numbered_batch([4]))

        assert (first.ack_till, first.max_seen, first.missing) == (3, 3, ())
        assert (gap.ack_till, gap.max_seen, gap.missing) == (3, 5, ((4, 4),))
        assert (filled.ack_till, filled.missing) == (5, ())


async def test_a_resend_is_a_duplicate_with_the_same_name_and_no_lower_ack() -> None:
    """The answer to a repeat: all duplicates, same batch id, ackTill not below the original's."""
    async with write_path() as path:
        first = await path.write(numbered_batch([1, 2, 3]), ack="all")
        await path.write(numbered_batch([4]), ack="all")
        again = await path.write(numbered_batch([1, 2, 3]))

        assert (again.accepted, again.duplicates) == (0, 3)
        assert again.batch_id == first.batch_id
        assert again.ack_till == 4


async def test_an_overlap_stores_only_what_is_new() -> None:
    """1..5 then 4..8 (equal rows): three accepted, two duplicates, eight rows visible."""
    async with write_path() as path:
        await path.write(numbered_batch([1, 2, 3, 4, 5]), ack="all")
        result = await path.write(numbered_batch([4, 5, 6, 7, 8]), ack="all")

        assert (result.accepted, result.duplicates, result.ack_till) == (3, 2, 8)
        assert sorted(row["seq"] for row in path.replicas.visible()) == list(range(1, 9))


async def test_a_skip_is_durable_and_counts_like_rows() -> None:
    """2..3 are declared lost with no row at all: ackTill passes them, on each owner."""
    async with write_path() as path:
        await path.write(numbered_batch([1, 4]), ack="all")
        result = await path.write(numbered_batch([], skips=((2, 3),)), ack="all")
        second = await path.write(numbered_batch([], skips=((5, 6),)), ack="all")

        assert (result.accepted, result.ack_till, result.missing) == (0, 4, ())
        assert second.ack_till == 6
        assert path.replicas["c"].seqs_of(KEY) == SeqIntervals([(1, 6)])


async def test_a_skip_beside_the_same_rows_is_not_lost_as_a_duplicate() -> None:
    """Rows 1..2 again, now with a skip of 3: another entry, or the skip would never be stored."""
    async with write_path() as path:
        await path.write(numbered_batch([1, 2]), ack="all")
        result = await path.write(numbered_batch([1, 2], skips=((3, 3),)), ack="all")

        assert (result.accepted, result.duplicates, result.ack_till) == (0, 2, 3)
        assert len(path.replicas.visible()) == 2


async def test_other_bytes_under_a_known_sequence_are_a_conflict_for_that_row_alone() -> None:
    """2 and 3 are held with other text: reported and kept in `_failed`; 4 and 5 are stored."""
    async with write_path() as path:
        await path.write(numbered_batch([1, 2, 3]), ack="all")
        batch = numbered_batch([2, 3, 4, 5], text="other")
        result = await path.write(batch, ack="all")

        assert [(row.seq, row.row, row.code) for row in result.conflicts] == [
            (2, 1, "conflict"),
            (3, 2, "conflict"),
        ]
        assert (result.accepted, result.duplicates, result.ack_till) == (2, 0, 5)
        seen = path.replicas.visible()
        stored = {row["seq"]: row["message"] for row in seen if row["service"] == "shop"}
        assert stored == {1: "row 1", 2: "row 2", 3: "row 3", 4: "other 4", 5: "other 5"}
        failed = [row for row in seen if row["service"] == "_failed"]
        assert len(failed) == 2
        assert '"message": "other 2"' in failed[0]["message"]
        assert path.metric("quorumlog_id_conflicts_total") == 2


async def test_a_batch_of_conflicts_alone_stores_no_row() -> None:
    """A producer that restarted its counter: all of its rows are refused and reported."""
    async with write_path() as path:
        await path.write(numbered_batch([1, 2]), ack="all")
        result = await path.write(numbered_batch([1, 2], text="other"), ack="all")

        assert (result.accepted, len(result.conflicts), result.ack_till) == (0, 2, 2)
        again = await path.write(numbered_batch([1, 2], text="other"), ack="all")
        assert (again.accepted, len(again.conflicts)) == (0, 2)
        assert len([r for r in path.replicas.visible() if r["service"] == "_failed"]) == 2


async def test_conflicts_on_different_owners_are_all_taken_out() -> None:
    """a holds another 2, b another 3 (never acked): two rounds, both rows reported."""
    async with write_path() as path:
        await path.write(numbered_batch([1]), ack="all")
        path.replicas["b"].down = path.replicas["c"].down = True
        with pytest.raises(QuorumUnavailable):
            await path.write(numbered_batch([2], text="old"), seconds=0.5)
        path.replicas["b"].down, path.replicas["a"].down = False, True
        with pytest.raises(QuorumUnavailable):
            await path.write(numbered_batch([3], text="old"), seconds=0.5)
        path.replicas["a"].down = path.replicas["c"].down = False

        result = await path.write(numbered_batch([1, 2, 3, 4]), ack="all")

        assert (result.accepted, result.duplicates) == (1, 1)
        assert {row.seq for row in result.conflicts} == {2, 3}


async def test_a_lost_reply_is_no_duplicate_and_ack_till_is_right() -> None:
    """Both quorum owners store, the replies vanish; the retry is not counted as a duplicate."""
    async with write_path() as path:
        await path.write(numbered_batch([1]), ack="all")
        path.replicas["a"].faults.append(Fault(lose_reply=True))
        path.replicas["b"].faults.append(Fault(lose_reply=True))
        path.replicas["c"].down = True

        result = await path.write(numbered_batch([2, 3]))

        assert (result.accepted, result.duplicates, result.ack_till) == (2, 0, 3)


async def test_what_one_owner_alone_holds_is_not_acked() -> None:
    """4 reaches a alone; then 5 reaches all: ackTill stays 3 and 4 is missing."""
    async with write_path() as path:
        await path.write(numbered_batch([1, 2, 3]), ack="all")
        path.replicas["b"].down = path.replicas["c"].down = True
        with pytest.raises(QuorumUnavailable) as caught:
            await path.write(numbered_batch([4]), seconds=0.5)
        assert caught.value.details["acks"] == 1
        path.replicas["b"].down = path.replicas["c"].down = False

        result = await path.write(numbered_batch([5]), ack="all")

        assert (result.ack_till, result.max_seen, result.missing) == (3, 5, ((4, 4),))


async def test_answers_of_one_producer_come_in_order() -> None:
    """The first batch's owners are slow: the second's answer waits, and shows no gap."""
    async with write_path() as path:
        await path.write(numbered_batch([1]), ack="all")
        for node in "abc":
            path.replicas[node].faults.append(Fault(delay=0.3))
        first = asyncio.create_task(path.write(numbered_batch([2, 3])))
        await until(lambda: path.replicas["c"].calls.count("put") == 2)
        second = await path.write(numbered_batch([4]))

        assert first.done()
        assert (second.ack_till, second.missing) == (4, ())


async def test_another_node_leads() -> None:
    """NOT_LEADER carries where to go, and is definite."""
    async with write_path(views=FakeViews(led_by("b", 7, "a"))) as path:
        with pytest.raises(NotLeader) as caught:
            await path.write(numbered_batch([1]))

        error = caught.value.to_dict()
        assert error["definite"] is True
        leader = error["leader"]
        assert (leader["node"], leader["http"]) == ("b", "http://b:7171")
        assert (leader["shard_epoch"], leader["ring_epoch"]) == (7, 1)
        assert not path.replicas["a"].held


async def test_without_a_leader_a_write_waits_for_one() -> None:
    """Nobody leads yet: held; named leader then, it is taken. Without any: NOT_LEADER without hint."""
    views = FakeViews(replace(led_by("a", 1, "a"), everything_led_by=None))
    async with write_path(views=views) as path:
        with pytest.raises(NotLeader) as caught:
            await path.write(numbered_batch([1]), seconds=0.1)
        assert caught.value.details["leader"] is None
        writing = asyncio.create_task(path.write(numbered_batch([1])))
        await asyncio.sleep(0.05)
        views.put(led_by("a", 1, "a", index=2))

        assert (await writing).ack_till == 1


async def test_a_new_leader_seals_before_it_accepts() -> None:
    """N-W+1 = 2 owners have to answer the seal; with one of three it waits, then says not ready."""
    replicas = FakeReplicas("a", "b", "c")
    replicas["b"].down = replicas["c"].down = True
    async with write_path(replicas) as path:
        with pytest.raises(NotReady):
            await path.write(numbered_batch([1]), seconds=0.5)
        assert "put" not in replicas["a"].calls

        replicas["b"].down = False
        result = await path.write(numbered_batch([1]))

        assert result.ack_till == 1
        assert replicas["b"].calls.index("seal") < replicas["b"].calls.index("put")


async def test_one_sealed_owner_of_three_is_not_enough() -> None:
    """All else works, but b and c cannot seal: the old leader could still reach both. No put."""
    replicas = FakeReplicas("a", "b", "c")
    for node in "bc":
        replicas[node].broken["seal"] = ConnectionLost("reset")
    async with write_path(replicas) as path:
        with pytest.raises(NotReady):
            await path.write(numbered_batch([1]), seconds=0.5)

        assert all("put" not in replicas[node].calls for node in "abc")


async def test_one_owner_of_three_cannot_say_what_a_producer_has() -> None:
    """Sealed everywhere, but only a tells its rows: the acked ones may be on b and c."""
    replicas = FakeReplicas("a", "b", "c")
    for node in "bc":
        replicas[node].broken["producer_states"] = ConnectionLost("reset")
    async with write_path(replicas) as path:
        with pytest.raises(NotReady) as caught:
            await path.write(numbered_batch([1]), seconds=0.5)

        assert caught.value.to_dict()["definite"] is True
        assert all("put" not in replicas[node].calls for node in "abc")


async def test_a_zombie_leader_gets_no_ack_and_learns_who_leads() -> None:
    """a led by epoch 1, b has sealed epoch 2; a has not heard of it and still writes."""
    replicas = FakeReplicas("a", "b", "c")
    old_view, new_view = FakeViews(led_by("a", 1, "a")), FakeViews(led_by("b", 2, "b"))
    async with write_path(replicas, old_view) as old, write_path(replicas, new_view) as new:
        # Both views differ on purpose: a was paused while the assignment moved.
        await new.write(numbered_batch([1, 2]), ack="all")
        blocks = [len(replicas[node].held) for node in "abc"]

        with pytest.raises((NotReady, NotLeader)):
            await old.write(numbered_batch([3]), seconds=0.5)
        old_view.put(led_by("b", 2, "a", index=2))
        with pytest.raises(NotLeader) as caught:
            await old.write(numbered_batch([3]), seconds=0.5)

        assert caught.value.details["leader"]["node"] == "b"
        assert [len(replicas[node].held) for node in "abc"] == blocks


async def test_a_leader_deposed_in_the_middle_of_a_write_gets_no_ack() -> None:
    """a has sealed and written; then b seals epoch 2; a's next put is STALE on every owner.

    The refusal is not definite: a put may have been stored before the fence rose.
    """
    replicas = FakeReplicas("a", "b", "c")
    views = FakeViews(led_by("a", 1, "a"))
    async with write_path(replicas, views) as old:
        await old.write(numbered_batch([1]), ack="all")
        async with write_path(replicas, FakeViews(led_by("b", 2, "b"))) as new:
            assert (await new.write(numbered_batch([2]), ack="all")).ack_till == 2
            writing = asyncio.create_task(old.write(numbered_batch([3])))
            await asyncio.sleep(0.05)
            assert not writing.done()
            views.put(led_by("b", 2, "a", index=2))

            with pytest.raises(NotLeader) as caught:
                await writing

            assert caught.value.to_dict()["definite"] is False
            assert caught.value.details["leader"]["node"] == "b"
            assert replicas["a"].seqs_of(KEY) == SeqIntervals([(1, 2)])
            assert (await new.write(numbered_batch([3]), ack="all")).ack_till == 3
        assert len(replicas.visible()) == 3


async def test_a_takeover_never_answers_less_than_was_told() -> None:
    """The old leader acked 1..5 on a and b. The new one reaches only b and c: still 5 or more."""
    replicas = FakeReplicas("a", "b", "c")
    async with write_path(replicas, FakeViews(led_by("a", 1, "a"))) as old:
        replicas["c"].down = True
        assert (await old.write(numbered_batch([1, 2, 3, 4, 5]))).ack_till == 5
    replicas["c"].down, replicas["a"].down = False, True
    async with write_path(replicas, FakeViews(led_by("b", 2, "b"))) as new:
        result = await new.write(numbered_batch([6]))

    assert (result.ack_till, result.missing) == (6, ())
    assert replicas["c"].seqs_of(KEY) == SeqIntervals([(1, 6)])


async def test_a_thin_tail_is_put_again_before_it_counts() -> None:
    """4..6 were put on a alone and never acked: the next leader copies them, then acks over them."""
    replicas = FakeReplicas("a", "b", "c")
    async with write_path(replicas, FakeViews(led_by("a", 1, "a"))) as old:
        await old.write(numbered_batch([1, 2, 3]), ack="all")
        replicas["b"].down = replicas["c"].down = True
        with pytest.raises(QuorumUnavailable):
            await old.write(numbered_batch([4, 5, 6]), seconds=0.5)
    replicas["b"].down = replicas["c"].down = False
    async with write_path(replicas, FakeViews(led_by("b", 2, "b"))) as new:
        result = await new.write(numbered_batch([7]))

        assert (result.ack_till, result.missing) == (7, ())
        assert new.metric("quorumlog_takeover_rows_total") == 3
    on_two = [n for n in "abc" if 5 in replicas[n].seqs_of(KEY)]
    assert len(on_two) >= 2
    assert len(replicas.visible()) == 7


@pytest.mark.parametrize("call", ["put", "fetch", "entries"])
async def test_a_tail_that_may_be_acked_is_put_again_before_anything_is_answered(call: str) -> None:
    """1..5 were acked on a and b; a is gone, and c cannot get them at first: not ready, no lesser ackTill.

    That happens after a power cut of all nodes, while some are still starting.
    """
    replicas = FakeReplicas("a", "b", "c")
    async with write_path(replicas, FakeViews(led_by("a", 1, "a"))) as old:
        replicas["c"].down = True
        assert (await old.write(numbered_batch([1, 2, 3, 4, 5]))).ack_till == 5
    replicas["c"].down, replicas["a"].down = False, True
    node = replicas["c" if call == "put" else "b"]
    node.broken[call] = QuorumUnavailable("broken")
    async with write_path(replicas, FakeViews(led_by("b", 2, "b"))) as new:
        with pytest.raises(NotReady, match="may be acknowledged"):
            await new.write(numbered_batch([6]), seconds=0.5)

        del node.broken[call]
        result = await new.write(numbered_batch([6]))

    assert (result.ack_till, result.missing) == (6, ())


async def test_a_tail_that_cannot_be_fetched_stays_missing() -> None:
    """The only holder loses its copy between the look and the fetch: missing, never acked over."""
    replicas = FakeReplicas("a", "b", "c")
    async with write_path(replicas, FakeViews(led_by("a", 1, "a"))) as old:
        await old.write(numbered_batch([1]), ack="all")
        replicas["b"].down = replicas["c"].down = True
        with pytest.raises(QuorumUnavailable):
            await old.write(numbered_batch([2]), seconds=0.5)
    replicas["b"].down = replicas["c"].down = False
    replicas["a"].faults.append(Fault(error=QuorumUnavailable("broken"), call="entries"))
    async with write_path(replicas, FakeViews(led_by("b", 2, "b"))) as new:
        result = await new.write(numbered_batch([3]))
        assert (result.ack_till, result.missing) == (1, ((2, 2),))

        filled = await new.write(numbered_batch([2]))
        assert (filled.ack_till, filled.missing) == (3, ())


async def test_other_bytes_for_what_is_durable_reach_no_owner_that_lacks_it() -> None:
    """a and b hold 1..3, c missed them: it would take the lie under the true entry's id, for ever."""
    replicas = FakeReplicas("a", "b", "c")
    async with write_path(replicas, FakeViews(led_by("a", 1, "a"))) as path:
        replicas["c"].down = True
        assert (await path.write(numbered_batch([1, 2, 3]))).ack_till == 3
        replicas["c"].down = False

        lie = await path.write(numbered_batch([1, 2, 3], text="other"))
        assert [one.seq for one in lie.conflicts] == [1, 2, 3]
        assert not replicas["c"].seqs_of(KEY)

        again = await path.write(numbered_batch([1, 2, 3]), ack="all")
        assert (again.ack_till, again.conflicts) == (3, ())
        assert replicas["c"].seqs_of(KEY) == SeqIntervals([(1, 3)])
    assert len([row for row in replicas.visible() if row.get("seq")]) == 3


async def test_a_new_epoch_fences_the_old_one() -> None:
    """The producer lost its log: epoch 2 is durable on W owners first, then epoch 1 is refused."""
    async with write_path() as path:
        await path.write(numbered_batch([1, 2]), ack="all")

        epoch = await path.writer.new_producer_epoch(*KEY, path.deadline())

        assert epoch == 2
        sealed = [n for n in "abc" if path.replicas[n].producer_epochs[HOME, KEY] == 2]
        assert len(sealed) >= 2
        puts = path.replicas["a"].calls.count("put")
        with pytest.raises(Fenced) as caught:
            await path.write(numbered_batch([3]))
        assert caught.value.details["epoch"] == 2
        assert path.replicas["a"].calls.count("put") == puts
        fresh = await path.write(numbered_batch([1], epoch=2, text="new"))
        assert (fresh.accepted, fresh.ack_till) == (1, 1)
        assert await path.writer.new_producer_epoch(*KEY, path.deadline()) == 3


async def test_a_new_epoch_is_newer_than_any_that_an_owner_knows() -> None:
    """Epoch 7 was sealed behind this leader's back: the next one is 8, not 2."""
    async with write_path() as path:
        await path.write(numbered_batch([1]), ack="all")
        for node in "bc":
            path.replicas[node].producer_epochs[HOME, KEY] = 7

        assert await path.writer.new_producer_epoch(*KEY, path.deadline()) == 8


async def test_owners_fence_an_epoch_that_this_leader_has_not_heard_of() -> None:
    """The epoch was sealed behind its back: the owners' word counts, and tells the newest."""
    async with write_path() as path:
        await path.write(numbered_batch([1]), ack="all")
        for node in "abc":
            path.replicas[node].producer_epochs[HOME, KEY] = 4

        with pytest.raises(Fenced) as caught:
            await path.write(numbered_batch([2]))

        assert caught.value.details["epoch"] == 4


async def test_an_epoch_that_nobody_issued_is_made_durable_before_use() -> None:
    """Rows must not be lost because the register of epochs was: sealed on W, then taken."""
    async with write_path() as path:
        result = await path.write(numbered_batch([1], epoch=5))

        assert result.ack_till == 1
        calls = path.replicas["a"].calls
        assert calls.index("seal_producer_epoch") < calls.index("put")
        with pytest.raises(Fenced):
            await path.write(numbered_batch([1], epoch=1))


async def test_progress_says_what_is_missing() -> None:
    """From the owners' sets: 1..2 and 5 are there, 3..4 are not."""
    async with write_path() as path:
        await path.write(numbered_batch([1, 2, 5]), ack="all")

        found = await path.writer.producer_progress(*KEY, 1, path.deadline())
        unknown = await path.writer.producer_progress(*KEY, 9, path.deadline())

        assert (found.ack_till, found.max_seen, found.missing) == (2, 5, ((3, 4),))
        assert (unknown.ack_till, unknown.max_seen, unknown.missing) == (0, 0, ())


async def test_progress_is_not_told_by_one_owner_alone() -> None:
    """What two others hold would be called missing, and sent again."""
    async with write_path() as path:
        await path.write(numbered_batch([1, 2]))
        path.replicas["b"].down = path.replicas["c"].down = True

        with pytest.raises(QuorumUnavailable):
            await path.writer.producer_progress(*KEY, 1, path.deadline(2))


async def test_bad_rows_of_a_sequenced_batch_are_durable_beside_it() -> None:
    """Their raw bytes go to `_failed` in the same block; their sequences are skips."""
    failed = table_of([{"service": "_failed", "level": "error", "message": "{broken"}])
    async with write_path() as path:
        batch = numbered_batch([1, 3], skips=((2, 2),), failed=failed, rejected_count=1)
        result = await path.write(batch, ack="all")

        assert (result.accepted, result.ack_till) == (2, 3)
        assert path.replicas["a"].put_sizes == [3]


async def test_a_ring_change_is_followed_with_the_same_entry() -> None:
    """Owners refuse ring epoch 1 in the middle: sealed and recovered anew under 2, then written."""
    replicas = FakeReplicas("a", "b", "c", "d")
    views = FakeViews()
    async with write_path(replicas, views) as path:
        await path.write(numbered_batch([1]), ack="all")
        for node in "abcd":
            replicas[node].ring_epoch = 2
        writing = asyncio.create_task(path.write(numbered_batch([2]), ack="all"))
        await asyncio.sleep(0.05)
        views.put(FakeView(index=2, ring_epoch=2, nodes=("b", "c", "d")))

        result = await writing

        assert (result.accepted, result.duplicates, result.ack_till) == (1, 0, 2)
        assert replicas["d"].shard_epochs


async def test_concurrent_producers_share_blocks_and_keep_their_own_arithmetic() -> None:
    """Forty producers at once: natural batching, each acked to its own end."""
    async with write_path() as path:
        results = await asyncio.gather(
            *(path.write(numbered_batch([1, 2, 3], producer=f"p{i}")) for i in range(40))
        )

        assert [one.ack_till for one in results] == [3] * 40
        assert len(path.replicas["a"].put_sizes) < 40


async def test_the_owners_remember_what_was_told() -> None:
    """Each put carries the ackTill answered before, so that the next leader answers no less."""
    async with write_path() as path:
        await path.write(numbered_batch([1, 2]), ack="all")
        await path.write(numbered_batch([3]), ack="all")

        assert path.replicas["a"].told[(*KEY, 1)] == 2


async def test_skips_of_sequences_in_conflict_are_refused_whole() -> None:
    """An owner that says CONFLICT to skips alone: there is no row to take out."""
    async with write_path() as path:
        batch = numbered_batch([], skips=((1, 2),))
        await path.write(batch, ack="all")
        for node in "abc":
            for one in path.replicas[node].held.values():
                one.entry = replace(one.entry, content_hash=b"x" * 16)
                one.rows = [{"seq": 1}]

        with pytest.raises(Conflict):
            await path.write(batch)


async def test_overload_is_definite_for_sequenced_batches_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Refused before anything was sent: the producer may count on it."""
    async with write_path() as path:
        await path.write(numbered_batch([1]))

        async def full(*_: object) -> None:
            raise Overloaded("full", retry_after_seconds=1)

        monkeypatch.setattr(path.writer._pipeline, "run", full)
        with pytest.raises(Overloaded) as caught:
            await path.write(numbered_batch([2]))

        assert caught.value.to_dict()["definite"] is True


async def test_a_repair_put_skips_the_shard_fence_in_the_model() -> None:
    """The model itself: a repair of an old leader's rows is taken, its own put is not."""
    async with write_path() as path:
        await path.write(numbered_batch([1]), ack="all")
        block = path.replicas["a"].blocks[-1]
        from records.block_codec import decode_block

        path.replicas["c"].held.clear()
        for shard in path.replicas["c"].shard_epochs:
            path.replicas["c"].shard_epochs[shard] = 9
        stale = path.replicas["c"].put_now(decode_block(block), PutOptions(1))
        repaired = path.replicas["c"].put_now(decode_block(block), PutOptions(1, repair=True))

        assert [str(one) for one in (*stale.statuses, *repaired.statuses)] == ["stale", "stored"]


@pytest.mark.parametrize("refusal", [NotLeader, NotReady, Overloaded, DiskFull])
async def test_no_refusal_is_definite_after_a_put_of_unknown_outcome(
    monkeypatch: pytest.MonkeyPatch, refusal: type[Refused]
) -> None:
    """The first round ends STALE, with a put that may be stored; the second is refused for sure."""
    async with write_path() as path:
        await path.write(numbered_batch([1]))
        rounds: list[Refused] = [
            StaleRingEpoch("newer", epoch=path.writer._views.current().ring_epoch),
            refusal("no", definite=True),
        ]

        async def run(*_: object) -> None:
            raise rounds.pop(0)

        monkeypatch.setattr(path.writer._pipeline, "run", run)
        with pytest.raises(refusal) as caught:
            await path.write(numbered_batch([2]))

        assert caught.value.to_dict()["definite"] is False


async def test_what_was_told_travels_with_the_next_put() -> None:
    """Owners remember it for the next leader."""
    async with write_path() as path:
        await path.write(numbered_batch([1, 2, 3]), ack="all")
        assert path.replicas["b"].told == {}
        await path.write(numbered_batch([4]), ack="all")
        assert path.replicas["b"].told == {("default", "shop", "p1", 1): 3}

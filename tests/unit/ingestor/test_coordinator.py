"""The unsequenced write: quorum, hold, duplicates, re-routing, cancellation, bounds."""

import asyncio
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from ingestor.batch import Batch, Identity
from ingestor.write_settings import WriteSettings
from records.consistency import QuorumPolicy
from records.errors import (
    Conflict,
    ConnectionLost,
    DiskFull,
    InvalidRequest,
    NotReady,
    Overloaded,
    QuorumlogError,
    QuorumUnavailable,
    Refused,
    StaleRingEpoch,
)
from tests.support.fake_replica import FakeReplicas, FakeView, FakeViews, Fault
from tests.support.write_path import (
    BASE,
    SteppedClock,
    body_batch,
    rows,
    table_of,
    until,
    write_path,
)

HOUR = 3_600_000_000


async def test_rows_of_many_services_reach_all_owners_once() -> None:
    """One request, twelve services over several shards: one block, every row on each owner."""
    batch = body_batch([{"service": f"s{i % 12}", "message": f"m{i}"} for i in range(100)])
    async with write_path() as path:
        result = await path.write(batch, ack="all")

        assert (result.accepted, result.duplicates) == (100, 0)
        assert (result.durable, result.owners) == (3, 3)
        for node in "abc":
            assert path.replicas[node].put_sizes == [100]
        messages = [row["message"] for row in path.replicas.visible("a")]
        assert sorted(messages) == sorted(f"m{i}" for i in range(100))


async def test_the_ack_waits_for_w_and_no_longer() -> None:
    """With one owner slow, the ack comes at W=2 of 3; the slow owner gets its copy later."""
    async with write_path() as path:
        path.replicas["c"].frozen = True

        result = await path.write(body_batch(rows(3)))

        assert result.durable == 2
        assert not path.replicas["c"].held


async def test_a_late_owner_is_counted_and_still_stores() -> None:
    """After a won quorum the third put goes on in the background."""
    async with write_path() as path:
        path.replicas["c"].gate = asyncio.Event()
        await path.write(body_batch(rows(3)))
        assert not path.replicas["c"].held

        path.replicas["c"].gate.set()
        await until(lambda: path.writer.tasks_running == 0)

        assert path.replicas["c"].held
        assert path.metric("quorumlog_write_late_replicas_total") == 1


async def test_one_dead_owner_changes_nothing() -> None:
    """A refused connection on one of three: W=2 acks at once, without a retry being needed."""
    async with write_path() as path:
        path.replicas["a"].down = True

        result = await path.write(body_batch(rows(3)))

        assert (result.accepted, result.durable) == (3, 2)


async def test_a_write_is_held_while_two_owners_are_away_and_done_when_one_returns() -> None:
    """Agents drop data on a fast 503: the request waits, the same bytes are sent again."""
    async with write_path() as path:
        path.replicas["a"].down = path.replicas["b"].down = True
        writing = asyncio.create_task(path.write(body_batch(rows(3))))
        await asyncio.sleep(0.2)
        assert not writing.done()

        path.replicas["b"].down = False
        result = await writing

        assert (result.accepted, result.duplicates, result.durable) == (3, 0, 2)
        assert path.replicas["b"].blocks[0] == path.replicas["c"].blocks[0]


async def test_a_write_that_stays_below_w_is_refused_as_unknown() -> None:
    """At the deadline: 503, not definite, with the acks it had; the row on c may exist."""
    async with write_path() as path:
        path.replicas["a"].down = path.replicas["b"].down = True

        with pytest.raises(QuorumUnavailable) as caught:
            await path.write(body_batch(rows(3)), seconds=0.5)

        assert caught.value.to_dict()["definite"] is False
        assert caught.value.details["acks"] == 1
        assert caught.value.details["needed"] == 2
        assert caught.value.details["durable"] == "1/3"
        assert caught.value.retry_after_seconds is not None
        assert path.writer.pending_bytes == 0


async def test_a_resend_through_another_coordinator_is_a_duplicate() -> None:
    """The identity is in the content, not in the node: another ingestor names the same entry."""
    replicas = FakeReplicas("a", "b", "c")
    batch = body_batch(rows(5))
    async with (
        write_path(replicas) as first,
        write_path(replicas, FakeViews(FakeView("b")), seed=2) as second,
    ):
        before = await first.write(batch, ack="all")
        after = await second.write(batch)

    assert (after.accepted, after.duplicates) == (0, 5)
    assert after.batch_id == before.batch_id
    assert len(replicas.visible()) == 5


async def test_the_same_line_twice_in_one_body_is_two_rows() -> None:
    """Two rows that merely look alike are both kept; their resend is two duplicates."""
    batch = body_batch([{"message": "tick", "timestamp": 1}] * 2)
    async with write_path() as path:
        first = await path.write(batch, ack="all")
        again = await path.write(batch)

        assert (first.accepted, again.accepted, again.duplicates) == (2, 0, 2)
        assert len(path.replicas.visible()) == 2


async def test_a_resend_across_the_window_boundary_is_seen_once() -> None:
    """A minute before and after the full hour: other ids, but the later one names the earlier."""
    clock = SteppedClock(BASE - BASE % HOUR + HOUR - 60_000_000)
    batch = body_batch(rows(4))
    async with write_path(clock=clock) as path:
        await path.write(batch, ack="all")
        clock.wall += 120_000_000
        await path.write(batch, ack="all")

        assert len(path.replicas["a"].held) == 2
        assert len(path.replicas.visible()) == 4


async def test_the_same_body_two_windows_later_is_new() -> None:
    """Outside the window the same bytes are a new entry: loss is worse than a double."""
    clock = SteppedClock()
    batch = body_batch(rows(4))
    async with write_path(clock=clock) as path:
        await path.write(batch, ack="all")
        clock.wall += 2 * HOUR
        result = await path.write(batch, ack="all")

        assert result.accepted == 4
        assert len(path.replicas.visible()) == 8


async def test_a_key_never_ages_and_refuses_other_rows() -> None:
    """An Idempotency-Key is one entry for ever; reused with other bytes it is a conflict, 409."""
    clock = SteppedClock()
    key = Identity(b"scope", b"order-17", ages=False, grade=1)
    async with write_path(clock=clock) as path:
        await path.write(Batch("default", table_of(rows(2)), key), ack="all")
        clock.wall += 100 * HOUR
        again = await path.write(Batch("default", table_of(rows(2)), key), ack="all")

        assert again.duplicates == 2
        with pytest.raises(Conflict) as caught:
            await path.write(Batch("default", table_of(rows(2, text="other")), key))
        assert caught.value.to_dict()["definite"] is True
        assert len(path.replicas.visible()) == 2


async def test_bad_rows_travel_in_the_same_write_but_are_not_counted() -> None:
    """`_failed` rows are an entry of their own, with the same quorum."""
    failed = table_of([{"service": "_failed", "level": "error", "message": "{broken"}])
    async with write_path() as path:
        batch = body_batch(rows(3), failed=failed, rejected_count=1)
        result = await path.write(batch, ack="all")

        assert result.accepted == 3
        assert path.replicas["a"].put_sizes == [4]
        assert "{broken" in [row["message"] for row in path.replicas.visible()]


async def test_a_request_of_bad_rows_alone_is_written() -> None:
    """The raw bytes are durable although there is no good row."""
    failed = table_of([{"service": "_failed", "level": "error", "message": "{broken"}])
    async with write_path() as path:
        batch = body_batch([], failed=failed, rejected_count=1)
        result = await path.write(batch)

        assert (result.accepted, result.durable >= 2) == (0, True)
        assert len(path.replicas.visible()) == 1


async def test_a_lost_reply_does_not_make_a_first_write_a_duplicate() -> None:
    """Two owners store, their replies are lost, the retry hears "duplicate": it was our own."""
    async with write_path() as path:
        path.replicas["a"].faults.append(Fault(lose_reply=True))
        path.replicas["b"].faults.append(Fault(lose_reply=True))
        path.replicas["c"].down = True

        result = await path.write(body_batch(rows(3)))

        assert (result.accepted, result.duplicates) == (3, 0)
        assert len(path.replicas.visible()) == 3


async def test_a_newer_ring_sends_the_write_to_the_new_owners_under_the_same_ids() -> None:
    """a and b refuse ring epoch 1; the view brings epoch 2 with owners b, c, d."""
    replicas = FakeReplicas("a", "b", "c", "d")
    views = FakeViews()
    async with write_path(replicas, views) as path:
        for node in "abcd":
            replicas[node].ring_epoch = 2
        replicas["c"].ring_epoch = 1
        writing = asyncio.create_task(path.write(body_batch(rows(3)), ack="all"))
        await asyncio.sleep(0.1)
        assert not writing.done()

        views.put(FakeView(index=2, ring_epoch=2, nodes=("b", "c", "d")))
        result = await writing

        assert (result.accepted, result.duplicates, result.durable) == (3, 0, 3)
        assert replicas["c"].held.keys() == replicas["d"].held.keys()
        assert not replicas["a"].held


async def test_full_disks_on_too_many_owners_are_507() -> None:
    """Definite while nothing can have been stored."""
    settings = WriteSettings(disk_full_hold_seconds=0.1)
    async with write_path(settings=settings) as path:
        for node in "ab":
            path.replicas[node].always = DiskFull("below the floor")
        path.replicas["c"].always = DiskFull("below the floor")

        with pytest.raises(DiskFull) as caught:
            await path.write(body_batch(rows(3)))

        assert caught.value.to_dict()["definite"] is True


async def test_full_disks_are_not_definite_while_a_put_is_under_way() -> None:
    """All owners were full; one has room by now, and stores the rows after the answer."""
    settings = WriteSettings(disk_full_hold_seconds=0.1)
    async with write_path(settings=settings) as path:
        gate = asyncio.Event()
        full = Fault(error=DiskFull("below the floor"))
        path.replicas["a"].faults.extend([full, Fault(gate=gate)])
        for node in "bc":
            path.replicas[node].always = DiskFull("below the floor")

        with pytest.raises(DiskFull) as caught:
            await path.write(body_batch(rows(3)))
        gate.set()
        await until(lambda: bool(path.replicas["a"].held))

        assert caught.value.to_dict()["definite"] is False


async def test_full_disks_are_not_definite_while_the_block_is_tried_for_others() -> None:
    """Two requests in one block: the time of one is over before the disks have been held for."""
    settings = WriteSettings(disk_full_hold_seconds=20.0, blocks_in_flight=1, linger_seconds=5.0)
    async with write_path(settings=settings) as path:
        gate = asyncio.Event()
        for node in "abc":
            full = [Fault(error=DiskFull("below the floor"))] * 5
            path.replicas[node].faults.extend([Fault(gate=gate), *full])
        texts = (("first", 20.0), ("hasty", 0.6), ("patient", 20.0))
        first, hasty, patient = (
            asyncio.create_task(path.write(body_batch(rows(3, text=text)), seconds=seconds))
            for text, seconds in texts
        )
        await asyncio.sleep(0.1)
        gate.set()
        with pytest.raises(DiskFull) as caught:
            await hasty
        await asyncio.gather(first, patient)
        assert len(path.replicas.visible()) == 9, "they were not in one block"

        assert caught.value.to_dict()["definite"] is False


async def test_a_disk_freed_during_the_hold_takes_the_write() -> None:
    """One full disk of three does no harm, two are waited for a moment."""
    async with write_path() as path:
        for node in "ab":
            path.replicas[node].faults.append(Fault(error=DiskFull("below the floor")))

        result = await path.write(body_batch(rows(3)))

        assert result.durable >= 2


async def test_ack_levels_raise_and_never_lower() -> None:
    """`one` still means W; `all` and a number wait for more; more than N cannot be met."""
    async with write_path() as path:
        path.replicas["c"].frozen = True
        assert (await path.write(body_batch(rows(1, text="one")), ack="one")).durable == 2
        assert (await path.write(body_batch(rows(1, text="two")), ack="1")).durable == 2
        with pytest.raises(QuorumUnavailable):
            await path.write(body_batch(rows(1, text="all")), ack="all", seconds=0.5)
        with pytest.raises(QuorumUnavailable):
            await path.write(body_batch(rows(1, text="three")), ack="3", seconds=0.5)
        with pytest.raises(InvalidRequest):
            await path.write(body_batch(rows(1)), ack="4")
        with pytest.raises(InvalidRequest):
            await path.write(body_batch(rows(1)), ack="most")


async def test_a_caller_that_leaves_does_not_end_its_write() -> None:
    """Cancelled in mid-flight: the rows still reach a quorum, and nothing is left behind."""
    async with write_path() as path:
        gate = asyncio.Event()
        for node in "abc":
            path.replicas[node].gate = gate
        writing = asyncio.create_task(path.write(body_batch(rows(3))))
        await until(lambda: "put" in path.replicas["a"].calls)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert not path.replicas.visible()

        gate.set()
        await until(lambda: path.writer.tasks_running == 0)

        assert len(path.replicas.visible()) == 3
        assert path.writer.pending_bytes == 0


async def test_a_caller_that_leaves_while_its_write_is_held_does_not_end_it_either() -> None:
    """It left before there was even a ring; its rows are written when there is one."""
    views = FakeViews(FakeView(ready=False))
    async with write_path(views=views) as path:
        writing = asyncio.create_task(path.write(body_batch(rows(3))))
        await asyncio.sleep(0.02)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        views.put(FakeView(index=2))
        await until(lambda: len(path.replicas.visible()) == 3)


async def test_what_is_pending_is_bounded() -> None:
    """Beyond `pending_bytes` a write is refused at once, definite, with a time to come back."""
    settings = WriteSettings(pending_bytes=2_000)
    async with write_path(settings=settings) as path:
        for node in "abc":
            path.replicas[node].frozen = True
        held = [
            asyncio.create_task(path.write(body_batch(rows(20, text=f"t{i}")), seconds=0.5))
            for i in range(4)
        ]
        await asyncio.sleep(0.1)

        with pytest.raises(Overloaded) as caught:
            await path.write(body_batch(rows(20, text="late")))

        assert caught.value.retry_after_seconds == 1
        outcomes = await asyncio.gather(*held, return_exceptions=True)
        assert all(isinstance(one, QuorumUnavailable | Overloaded) for one in outcomes)
        assert path.writer.pending_bytes == 0


async def test_without_a_ring_a_write_waits_for_it() -> None:
    """The first ring may come a moment after the first request; without one: not ready, definite."""
    views = FakeViews(FakeView(ready=False))
    async with write_path(views=views) as path:
        with pytest.raises(NotReady):
            await path.write(body_batch(rows(1)), seconds=0.1)
        writing = asyncio.create_task(path.write(body_batch(rows(1))))
        await asyncio.sleep(0.05)
        views.put(FakeView(index=2))

        assert (await writing).accepted == 1


async def test_a_stopped_writer_refuses() -> None:
    """After stop: definite, nothing stored."""
    async with write_path() as path:
        await path.writer.stop()
        with pytest.raises(NotReady):
            await path.write(body_batch(rows(1)))


async def test_one_node_with_w_1_needs_nobody_else() -> None:
    """N=1, W=1: durable 1/1."""
    view = FakeView(nodes=("a",), quorum=QuorumPolicy(1, 1, 1))
    async with write_path(FakeReplicas("a"), FakeViews(view)) as path:
        result = await path.write(body_batch(rows(2)))

        assert (result.durable, result.owners) == (1, 1)


async def test_errors_that_nobody_foresaw_count_as_failures_of_that_owner() -> None:
    """A bug in one replica's client costs that ack, not the write."""
    async with write_path() as path:
        path.replicas["a"].always = ValueError("a bug")

        assert (await path.write(body_batch(rows(2)))).durable == 2


async def test_a_stale_ring_that_never_arrives_is_an_unknown_outcome() -> None:
    """The owners are ahead and this node is cut off from the news."""
    async with write_path() as path:
        for node in "abc":
            path.replicas[node].always = StaleRingEpoch("newer", epoch=9)
        with pytest.raises(QuorumUnavailable):
            await path.write(body_batch(rows(1)), seconds=0.5)


async def test_an_owner_that_is_lost_after_the_send_is_asked_again() -> None:
    """Connections break on all three once; the second try is acked."""
    async with write_path() as path:
        for node in "abc":
            path.replicas[node].faults.append(Fault(error=ConnectionLost("reset")))

        assert (await path.write(body_batch(rows(2)))).accepted == 2


async def test_a_frozen_owner_does_not_gather_blocks_in_memory() -> None:
    """Beyond `owner_bytes_in_flight` it is sent nothing more; the others make up the quorum."""
    settings = WriteSettings(owner_bytes_in_flight=1)
    async with write_path(settings=settings) as path:
        path.replicas["c"].frozen = True
        for number in range(5):
            result = await path.write(body_batch(rows(1, text=f"t{number}")))
            assert result.durable == 2

        assert path.replicas["c"].calls.count("put") == 1
        refused = 'quorumlog_write_put_failures_total{code="OVERLOADED",target="c"}'
        assert path.metrics.snapshot()[refused] == 4


async def test_a_reply_about_other_entries_is_no_ack(monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner that answers for too few entries has confirmed nothing."""
    async with write_path() as path:
        honest = path.replicas["a"].put_now

        def short(block: Any, options: Any) -> Any:
            return replace(honest(block, options), statuses=(), duplicate_rows=(), conflict_seqs=())

        monkeypatch.setattr(path.replicas["a"], "put_now", short)
        path.replicas["b"].down = True
        with pytest.raises(QuorumUnavailable) as caught:
            await path.write(body_batch(rows(1)), seconds=0.5)

        assert caught.value.details["acks"] == 1
        failed = 'quorumlog_write_put_failures_total{code="UNKNOWN_OUTCOME",target="a"}'
        assert path.metrics.snapshot()[failed] >= 1


async def test_a_request_that_cannot_be_encoded_fails_alone() -> None:
    """Two requests share a block; one has a column that no Parquet file can hold."""
    settings = WriteSettings(linger_seconds=0.5)
    async with write_path(settings=settings) as path:
        path.replicas["a"].gate = path.replicas["b"].gate = asyncio.Event()
        first = asyncio.create_task(path.write(body_batch(rows(1))))
        await until(lambda: "put" in path.replicas["a"].calls)
        odd = table_of(rows(1, text="odd")).append_column(
            "odd", pa.array([None], pa.month_day_nano_interval())
        )
        bad = Batch("default", odd, Identity(b"s", b"odd"))
        good = asyncio.create_task(path.write(body_batch(rows(2, text="good"))))
        poisoned = asyncio.create_task(path.write(bad))
        await asyncio.sleep(0.05)
        path.replicas["a"].gate.set()
        with pytest.raises(QuorumlogError):
            await poisoned
        await first

        assert (await good).accepted == 2
        assert path.writer.pending_bytes == 0


@pytest.mark.parametrize("refusal", [NotReady, Overloaded, DiskFull, Conflict])
async def test_no_refusal_is_definite_after_a_newer_ring(
    monkeypatch: pytest.MonkeyPatch, refusal: type[Refused]
) -> None:
    """What was put under the older ring may be stored, however sure the refusal is of itself."""
    async with write_path() as path:
        rounds: list[Refused] = [
            StaleRingEpoch("newer", epoch=path.writer._views.current().ring_epoch),
            refusal("no", definite=True),
        ]

        async def run(*_: object) -> None:
            raise rounds.pop(0)

        monkeypatch.setattr(path.writer._pipeline, "run", run)
        with pytest.raises(refusal) as caught:
            await path.write(body_batch(rows(2)))

        assert caught.value.to_dict()["definite"] is False


async def test_a_refusal_of_one_piece_of_several_is_not_definite(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One piece meets full disks, of which it is sure; the bad rows' piece is stored."""
    failed = table_of([{"service": "_failed", "level": "error", "message": "{broken"}])
    settings = WriteSettings(block_target_rows=2, block_max_rows=2)
    async with write_path(settings=settings) as path:
        pipeline = path.writer._pipeline
        submit = pipeline._submit

        def one_full(*args: Any) -> list[Any]:
            made = submit(*args)
            assert len(made) == 2
            made[0].fail(DiskFull("full", definite=True))
            return made

        monkeypatch.setattr(pipeline, "_submit", one_full)
        with pytest.raises(DiskFull) as caught:
            await path.write(replace(body_batch(rows(2)), failed=failed))

        assert len(path.replicas.visible()) == 1
        assert caught.value.to_dict()["definite"] is False


async def test_a_conflict_is_not_definite_while_an_owner_is_still_to_answer() -> None:
    """a and b hold the key with other bytes; c, which lacks it, is slow and may store these."""
    key = Identity(b"scope", b"order-17", ages=False, grade=1)
    async with write_path() as path:
        path.replicas["c"].down = True
        await path.write(Batch("default", table_of(rows(2)), key))
        path.replicas["c"].gate = asyncio.Event()
        path.replicas["c"].down = False

        with pytest.raises(Conflict) as caught:
            await path.write(Batch("default", table_of(rows(2, text="other")), key))

        assert not path.replicas["c"].held
        assert caught.value.to_dict()["definite"] is False
        path.replicas["c"].gate.set()

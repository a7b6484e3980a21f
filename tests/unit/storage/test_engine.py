"""The replica's rules, called plainly: one test per rule of the engine's opening, and their order."""

import pytest

from records.block_codec import EncodedBlock
from records.errors import BlockCorrupt, StaleRingEpoch, StaleShardEpoch
from records.messages import EntryStatus, PutOptions, SealRequest
from storage.engine import Compare, Engine, Verdict, Wait
from storage.holdings import BlockPlace
from storage.judge import common, merged
from storage.log_format import RecordType
from tests.unit.storage.samples import Entry, block_of, plain, row, sequenced

STORED, DUPLICATE = EntryStatus.STORED, EntryStatus.DUPLICATE
CONFLICT, FENCED, STALE = EntryStatus.CONFLICT, EntryStatus.FENCED, EntryStatus.STALE
PUT = PutOptions(ring_epoch=1)
REPAIR = PutOptions(ring_epoch=1, repair=True)


class Replica:
    """An engine whose log is always durable at once."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.puts = 0

    def begin(self, block: EncodedBlock, options: PutOptions = PUT) -> int:
        """Decides a put that needs neither waiting nor comparing; leaves it pending."""
        verdict = self.engine.decide(block.header, options, {})
        assert isinstance(verdict, Verdict)
        self.puts += 1
        self.engine.begin(self.puts, block.header, verdict)
        return self.puts

    def finish(self, put: int) -> None:
        """The put's records are durable."""
        pending = self.engine._pending[put]
        header = pending.header
        place = BlockPlace(
            self.engine.holdings.blocks.end, header.block_id, 1, 0, 1, header.rows, 0, 0
        )
        self.engine.apply(put, place if pending.verdict.accepted else None)

    def put(self, block: EncodedBlock, options: PutOptions = PUT) -> Verdict:
        """A whole put."""
        put = self.begin(block, options)
        verdict = self.engine._pending[put].verdict
        self.finish(put)
        return verdict


def test_a_new_entry_is_stored_and_the_same_again_is_a_duplicate() -> None:
    """All of a duplicate's rows count as held."""
    replica = Replica()
    block = block_of(1, sequenced(1, 5), plain(9, 2))

    first, second = replica.put(block), replica.put(block)

    assert first.statuses == (STORED, STORED)
    assert second.statuses == (DUPLICATE, DUPLICATE)
    assert second.duplicate_rows == (5, 2)
    assert second.accepted == ()
    assert replica.engine.holdings.rows == 7


def test_the_same_entry_twice_in_one_block_is_stored_once() -> None:
    """Put-if-absent holds within a block too."""
    verdict = Replica().put(block_of(1, plain(1), plain(1)))

    assert verdict.statuses == (STORED, DUPLICATE)
    assert verdict.accepted == (0,)


def test_a_put_of_rows_that_are_being_written_waits() -> None:
    """Same id, or overlapping sequences: asked again after the first is durable, it is a duplicate."""
    replica = Replica()
    put = replica.begin(block_of(1, sequenced(1, 5)))

    for block in (block_of(2, sequenced(1, 5)), block_of(2, sequenced(5, 9))):
        assert replica.engine.decide(block.header, PUT, {}) == Wait((put,))
    free = replica.engine.decide(block_of(2, sequenced(6, 9)).header, PUT, {})
    assert isinstance(free, Verdict)

    replica.finish(put)
    assert replica.put(block_of(2, sequenced(1, 5))).statuses == (DUPLICATE,)


def test_a_failed_write_leaves_nothing_behind() -> None:
    """After `abandon` the same put is decided as if it came first."""
    replica = Replica()
    put = replica.begin(block_of(1, sequenced(1, 5)))

    replica.engine.abandon(put)

    assert replica.put(block_of(1, sequenced(1, 5))).statuses == (STORED,)


def test_overlap_asks_for_a_comparison_of_exactly_the_rows_in_common() -> None:
    """With all equal, the rest is stored and the rows held are counted."""
    replica = Replica()
    replica.put(block_of(1, sequenced(1, 5)))
    block = block_of(2, sequenced(4, 8))

    decision = replica.engine.decide(block.header, PUT, {})
    assert decision == Compare((((0, 0), ((4, 5),)),))
    verdict = replica.engine.decide(block.header, PUT, {(0, 0): (True, ())})

    assert isinstance(verdict, Verdict)
    assert verdict.statuses == (STORED,)
    assert verdict.duplicate_rows == (2,)


def test_overlap_with_other_contents_is_a_conflict_and_not_stored() -> None:
    """The reply names the sequences, so that the coordinator can put the good rows again."""
    replica = Replica()
    replica.put(block_of(1, sequenced(1, 5)))

    verdict = replica.engine.decide(
        block_of(2, sequenced(4, 8)).header, PUT, {(0, 0): (False, ((5, 5),))}
    )

    assert isinstance(verdict, Verdict)
    assert verdict.statuses == (CONFLICT,)
    assert verdict.conflict_seqs == (((5, 5),),)
    assert verdict.duplicate_rows == (1,)
    assert verdict.accepted == ()


def test_a_repair_with_conflicting_rows_is_stored_and_still_named() -> None:
    """Replicas must converge to one set; which rows show is decided by block ids."""
    replica = Replica()
    replica.put(block_of(1, sequenced(1, 5)))

    verdict = replica.engine.decide(
        block_of(2, sequenced(4, 8)).header, REPAIR, {(0, 0): (False, ((5, 5),))}
    )

    assert isinstance(verdict, Verdict)
    assert verdict.statuses == (STORED,)
    assert verdict.conflict_seqs == (((5, 5),),)


def test_overlap_within_a_block_is_compared_too() -> None:
    """The later entry against the earlier one (-1 - index)."""
    block = block_of(1, sequenced(1, 5), sequenced(5, 6))

    assert Replica().engine.decide(block.header, PUT, {}) == Compare((((1, -1), ((5, 5),)),))


@pytest.mark.parametrize(("equal", "status"), [(True, DUPLICATE), (False, CONFLICT)])
def test_a_known_id_with_another_hash_is_judged_by_its_rows(
    equal: bool, status: EntryStatus
) -> None:
    """Other bytes may hold the same rows (another block encoding); other rows are a conflict."""
    replica = Replica()
    replica.put(block_of(1, sequenced(1, 5)))
    block = block_of(2, sequenced(1, 5, "other "))

    assert replica.engine.decide(block.header, PUT, {}) == Compare((((0, 0), None),))
    proof = (equal, () if equal else ((1, 5),))
    verdict = replica.engine.decide(block.header, PUT, {(0, 0): proof})

    assert isinstance(verdict, Verdict)
    assert verdict.statuses == (status,)


def test_a_lower_shard_epoch_is_stale_after_a_higher_put() -> None:
    """raft.md 9.2: the higher epoch is stored with the same sync as the block."""
    replica = Replica()
    verdict = replica.put(block_of(1, sequenced(1, 5, shard_epoch=7)))

    assert [r.meta for r in verdict.records if r.type == RecordType.FENCE] == [[0, 7, ""]]
    assert replica.put(block_of(2, sequenced(6, 7, shard_epoch=6))).statuses == (STALE,)
    assert replica.put(block_of(3, sequenced(6, 7, shard=1, shard_epoch=6))).statuses == (STORED,)
    assert replica.put(block_of(4, plain(9))).statuses == (STORED,)


def test_repairs_skip_the_shard_and_producer_fences() -> None:
    """What was acked under an old epoch must reach every owner."""
    replica = Replica()
    replica.engine.seal(SealRequest(0, 9, "a"))
    replica.engine.seal_producer(0, ("default", "pay", "p"), 5)

    assert replica.put(block_of(1, sequenced(1, 5, shard_epoch=2)), REPAIR).statuses == (STORED,)


def test_an_older_producer_epoch_is_fenced() -> None:
    """Sealed, or merely seen newer: a zombie gets FENCED."""
    replica = Replica()
    replica.put(block_of(1, sequenced(1, 2, epoch=3)))

    assert replica.put(block_of(2, sequenced(3, 4, epoch=2))).statuses == (FENCED,)
    replica.engine.seal_producer(0, ("default", "pay", "p"), 8)
    assert replica.put(block_of(3, sequenced(3, 4, epoch=3))).statuses == (FENCED,)
    assert replica.put(block_of(4, sequenced(1, 2, epoch=8))).statuses == (STORED,)


def test_one_call_alone_raises_a_producer_epoch() -> None:
    """Who repeats it, asks for a lower one, or comes after rows of it, did not; or knows an older ring."""
    replica, producer = Replica(), ("default", "pay", "p")
    claim = replica.engine.claim_producer

    assert [claim(0, producer, epoch, 1)[1] for epoch in (2, 2, 1, 3)] == [True, False, False, True]
    assert claim(0, producer, 2, 1)[0].meta == [0, *producer, 3]
    assert claim(1, producer, 2, 1)[1]
    replica.put(block_of(1, sequenced(1, 2, epoch=7)))
    assert not claim(0, producer, 7, 1)[1]
    replica.engine.observe(4, {})
    with pytest.raises(StaleRingEpoch):
        claim(0, producer, 8, 3)
    assert claim(0, producer, 8, 4)[1]


def test_fences_come_before_duplicates() -> None:
    """A deposed leader gets no ack, not even for rows that are here."""
    replica = Replica()
    block = block_of(1, sequenced(1, 5, shard_epoch=2))
    replica.put(block)
    replica.engine.seal(SealRequest(0, 3, "new"))

    assert replica.put(block).statuses == (STALE,)


def test_seal_raises_repeats_and_refuses() -> None:
    """Greater: taken. Equal and same leader: answered again. Else: the highest epoch is told."""
    engine = Engine()

    assert engine.seal(SealRequest(4, 2, "a")).meta == [4, 2, "a"]
    assert engine.seal(SealRequest(4, 2, "a")).meta == [4, 2, "a"]
    for request in (SealRequest(4, 2, "b"), SealRequest(4, 1, "a")):
        with pytest.raises(StaleShardEpoch) as error:
            engine.seal(request)
        assert error.value.details["epoch"] == 2
    engine.observe(0, {4: 6})
    with pytest.raises(StaleShardEpoch):
        engine.seal(SealRequest(4, 5, "c"))
    assert engine.seal(SealRequest(4, 6, "c")).meta == [4, 6, "c"]


def test_an_older_ring_is_refused_and_a_newer_one_made_durable() -> None:
    """Every put carries the ring epoch; the record is written until it is durable once."""
    replica = Replica()
    newer = PutOptions(ring_epoch=5)

    first = replica.engine.decide(block_of(1, plain(1)).header, newer, {})
    again = replica.put(block_of(1, plain(1)), newer)
    later = replica.put(block_of(2, plain(2)), newer)

    assert isinstance(first, Verdict)
    assert [r.meta for r in first.records] == [r.meta for r in again.records] == [5]
    assert later.records == ()
    with pytest.raises(StaleRingEpoch) as error:
        replica.engine.decide(block_of(3, plain(3)).header, PUT, {})
    assert error.value.details["epoch"] == 5


def test_told_acks_are_kept_by_max() -> None:
    """Only what rises is written."""
    replica = Replica()
    key = ("default", "pay", "p", 1)
    options = PutOptions(1, told=((key, 4),))

    verdict = replica.put(block_of(1, sequenced(1, 5)), options)
    same = replica.put(block_of(2, sequenced(6, 6)), options)

    assert [r.meta for r in verdict.records if r.type == RecordType.TOLD] == [[[list(key), 4]]]
    assert RecordType.TOLD not in [r.type for r in same.records]
    (state,) = replica.engine.producer_replies(block_of(2, sequenced(6, 6)).header)
    assert (state.told, state.spans) == (4, ((1, 6),))


def test_rows_after_a_skip_are_new() -> None:
    """A skip holds its place without rows; a row that comes late after all is stored."""
    replica = Replica()
    skip = Entry([], producer="p", skips=((1, 3),))
    replica.put(block_of(1, skip))

    verdict = replica.put(block_of(2, sequenced(2, 2)))

    assert verdict.statuses == (STORED,)
    assert verdict.duplicate_rows == (0,)


@pytest.mark.parametrize("seqs", [((1, 9),), ((2, 3), (1, 1))])
def test_an_entry_whose_sequences_do_not_fit_its_rows_is_refused(seqs: tuple) -> None:
    """Checked before anything is written."""
    entry = Entry([row(k) for k in range(3)], producer="p", seqs=seqs)

    with pytest.raises(BlockCorrupt):
        Engine().decide(block_of(1, entry).header, PUT, {})


def test_replaying_records_gives_the_same_fences() -> None:
    """Every record of the log, applied to a fresh engine."""
    engine = Engine()
    engine.replay(RecordType.FENCE, [3, 7, "a"])
    engine.replay(RecordType.FENCE, [3, 6, "b"])
    engine.replay(RecordType.PRODUCER_EPOCH, [3, "default", "pay", "p", 4])
    engine.replay(RecordType.RING_EPOCH, 9)
    engine.replay(RecordType.TOLD, [[["default", "pay", "p", 4], 2]])
    engine.replay(RecordType.COMMIT, None)

    assert engine.fences == {3: (7, "a")}
    assert engine.ring_epoch == 9
    (state,) = engine.holdings.producers.states(3, ("default", "pay", "p"))
    assert (state.newest_epoch, state.told) == (4, 2)


def test_spans_in_common_and_merged() -> None:
    """The arithmetic beneath."""
    assert common(((1, 5), (8, 9)), ((4, 8),)) == ((4, 5), (8, 8))
    assert merged([(4, 5), (1, 2), (3, 3), (9, 9)]) == ((1, 5), (9, 9))

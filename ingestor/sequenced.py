"""The sequenced write: taken by the shard's leader, fenced by its epoch, answered with ack arithmetic.

A batch is one entry. Rows whose sequence is held with other bytes are taken out (they go to `_failed` and
are reported), and the rest is written as an entry of its own. Batches of one producer are sent as they
come and answered in that order, so that an answer never shows a gap that the one before is filling.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, replace
from enum import Enum

import pyarrow as pa

from cluster.quorum_tally import Group
from cluster.view import ViewSource
from ingestor.answers import AckRule, ack_rule, batch_id, counted
from ingestor.batch import Batch, RejectedRow, Sequence, WriteResult
from ingestor.conflicts import failed_rows, split_conflicts
from ingestor.dedupe import Progress
from ingestor.elsewhere import Elsewhere
from ingestor.leases import Led, ShardLeases
from ingestor.outcomes import EntryTally, Mine, Verdict
from ingestor.pipeline import Pipeline
from ingestor.producers import ProducerSession
from ingestor.recovery import Recovery
from ingestor.replay_desk import ReplayDesk
from ingestor.shards import Piece, merged, rows_within, sequenced_piece, unsequenced_pieces
from ingestor.waiting import newer_ring, ready_view
from ingestor.write_metrics import WriteMetrics
from ingestor.write_settings import WriteSettings
from records.block import Spans
from records.errors import (
    Conflict,
    DiskFull,
    Fenced,
    InvalidRequest,
    NotReady,
    Overloaded,
    QuorumUnavailable,
    Refused,
    StaleRingEpoch,
)
from records.messages import ProducerEpochKey
from records.visibility import REPEAT_MICROS
from ring.generations import EPOCHS_OF_A_GENERATION, generation_of, next_epoch
from runtime.clock import Clock
from runtime.deadline import Deadline
from runtime.tasks import Workers

#: Rows up to which an entry is made on the event loop; more go to a thread.
INLINE_ROWS = 1_000
#: Seconds that an answer waits for that of the producer's batch before.
ORDER_SECONDS = 1.0
#: Seconds until the next epoch is tried, if somebody else may have this one.
AGAIN_SECONDS = 0.05
#: One of those that hold rows says whether the same are sent again.
ANY_HOLDER = AckRule(1, 1)


class Claim(Enum):
    """What came of making an epoch a producer's newest; whichever it is, older ones are refused then."""

    #: By us: nobody else can have issued it, or will.
    OURS = "ours"
    #: Some owner knew it before: somebody else may have it, or an answer to us was lost.
    KNOWN = "known"
    #: There is a newer ring: look again who leads.
    STALE = "stale"


@dataclass(slots=True)
class _Work:
    """One batch under way: what is left of it, and what has happened to it."""

    batch: Batch
    sequence: Sequence
    table: pa.Table
    received_at: int
    mine: Mine
    conflicts: list[RejectedRow]
    refused: list[pa.Table]
    sent: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one epoch of a producer stands, as `heard` of `owners` owners say."""

    epoch: int
    progress: Progress
    heard: int
    owners: int


class SequencedWriter:
    """Writes sequenced batches for the shards that this node leads."""

    def __init__(
        self,
        views: ViewSource,
        leases: ShardLeases,
        recovery: Recovery,
        pipeline: Pipeline,
        clock: Clock,
        metrics: WriteMetrics,
        settings: WriteSettings,
        workers: Workers,
        desk: ReplayDesk,
        elsewhere: Elsewhere,
    ) -> None:
        self._desk = desk
        self._elsewhere = elsewhere
        self._views = views
        self._leases = leases
        self._recovery = recovery
        self._pipeline = pipeline
        self._clock = clock
        self._metrics = metrics
        self._settings = settings
        self._workers = workers

    async def write(self, batch: Batch, ack: str | None, deadline: Deadline) -> WriteResult:
        """Writes one batch; `conflicts` lists the rows that were not stored for their bytes.

        Raises:
            NotLeader: another node leads (definite, unless something was put before that showed).
            Fenced: the producer has a newer epoch. Conflict: skips alone, of rows held as rows.
        """
        sequence = batch.sequence
        if sequence is None:
            raise InvalidRequest("the batch has no sequence")
        received_at = batch.received_at or self._clock.wall_micros()
        work = _Work(batch, sequence, batch.table, received_at, set(), [], [])
        try:
            while True:
                led, session = await self._led(batch.tenant, sequence, deadline)
                if not await self._check_epoch(led, session, sequence.epoch, deadline):
                    continue
                done = await self._once(work, led, session, ack, deadline)
                if done is not None:
                    return done
        except Refused as error:
            if work.sent:
                error.doubt()
            raise

    async def _led(
        self, tenant: str, sequence: Sequence, deadline: Deadline
    ) -> tuple[Led, ProducerSession]:
        view = await ready_view(self._views, deadline)
        producer = (tenant, sequence.service, sequence.producer)
        led = await self._leases.hold(view.shard_of(*producer, sequence.epoch), deadline)
        try:
            return led, await self._recovery.session(led, producer, deadline)
        except QuorumUnavailable as error:
            raise NotReady(
                f"producer {sequence.producer} is not recovered: {error.message}",
                retry_after_seconds=1,
            ) from error

    async def _check_epoch(
        self, led: Led, session: ProducerSession, epoch: int, deadline: Deadline
    ) -> bool:
        """Whether rows of `epoch` may be written under this reign; False: look again who leads."""
        if epoch < session.newest_epoch:
            self._metrics.fenced.labels("producer").inc()
            raise Fenced("a newer epoch of this producer exists", epoch=session.newest_epoch)
        if epoch > max(1, session.newest_epoch):
            # Not one that this cluster issued, as far as its owners know: durable before first use.
            async with session.lock:
                return await self._claim(led, session, epoch, deadline) is not Claim.STALE
        return True

    async def _claim(
        self, led: Led, session: ProducerSession, epoch: int, deadline: Deadline
    ) -> Claim:
        """Makes `epoch` the producer's newest wherever rows of its older ones may be, the oldest first.

        So its home shard knows of each epoch before it is used, and older ones are refused where they
        were written, whoever leads there.

        Raises:
            Fenced: some owner knows a newer epoch (details: `epoch`).
        """
        view, producer = led.view, session.producer
        older = (view.shard_under(*producer, one) for one in range(generation_of(epoch)))
        try:
            for shard in dict.fromkeys(older):
                if shard != led.shard:
                    await self._elsewhere.seal(view, shard, producer, epoch, deadline)
            raised = await self._recovery.seal_epoch(led, session, epoch, deadline)
        except StaleRingEpoch as stale:
            await newer_ring(self._views, view, stale, deadline)
            return Claim.STALE
        except Fenced as error:
            session.newest_epoch = max(session.newest_epoch, int(error.details["epoch"]))
            raise
        return Claim.OURS if raised else Claim.KNOWN

    async def _once(
        self,
        work: _Work,
        led: Led,
        session: ProducerSession,
        ack: str | None,
        deadline: Deadline,
    ) -> WriteResult | None:
        """One round under one reign: the answer, or None: look again who leads, or write the rest."""
        rule = ack_rule(led.view.quorum, ack)
        numbered, pieces = await self._pieces(work, led)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        before, session.last = session.last, turn
        try:
            if not await self._are_the_same(numbered, work, led, session, deadline):
                return None
            entries = await self._put(work, pieces, rule, session, deadline)
            verdict = self._judge(work, led, session, entries)
            if verdict is Verdict.WON:
                await _wait_for(before, deadline.clamp(ORDER_SECONDS))
                return self._answer(work, led, session, entries)
        except QuorumUnavailable as error:
            error.details["ack_till"] = session.told(work.sequence.epoch)
            raise
        except StaleRingEpoch as stale:
            self._metrics.rerouted.inc()
            await newer_ring(self._views, led.view, stale, deadline)
        finally:
            turn.set_result(None)
        return None

    async def _put(
        self,
        work: _Work,
        pieces: list[Piece],
        rule: AckRule,
        session: ProducerSession,
        deadline: Deadline,
    ) -> list[EntryTally]:
        """Puts `pieces`. From here on no refusal is definite, unless this one says nothing was put."""
        sent_before, work.sent = work.sent, True
        try:
            return await self._pipeline.run(pieces, rule, work.mine, deadline, session)
        except (DiskFull, NotReady, Overloaded) as error:
            if error.is_definite:
                work.sent = sent_before
            raise

    async def _are_the_same(
        self,
        numbered: Piece | None,
        work: _Work,
        led: Led,
        session: ProducerSession,
        deadline: Deadline,
    ) -> bool:
        """Whether rows sent again are those that are durable, as one of their holders says.

        Asked only if another owner may lack them: it would store other bytes under their names. Are fewer
        than W holders known, the others are heard first: the one that is known may be away. Where nobody
        holds all of them, and some owner none, each part is asked of an owner that holds it.

        Raises:
            QuorumUnavailable: no holder answered by the deadline.
        """
        if numbered is None:
            return True
        epoch, spans = work.sequence.epoch, numbered.entries[0].seqs
        holders = session.judges(epoch, spans, led.writers)
        if holders is not None and len(holders) < led.view.quorum.w:
            others = Group(frozenset(led.owners) - holders, 1)
            await self._recovery.refresh(led, session, [others], deadline)
            holders = session.judges(epoch, spans, led.writers)
        if holders is None:
            return True
        asked = [replace(numbered, groups=(tuple(sorted(holders)),))] if holders else ()
        for piece in asked or self._parts(work, led, session, spans):
            entries = await self._put(work, [piece], ANY_HOLDER, session, deadline)
            if self._judge(work, led, session, entries) is not Verdict.WON:
                return False
        return True

    def _parts(
        self, work: _Work, led: Led, session: ProducerSession, spans: Spans
    ) -> Iterator[Piece]:
        """Parts of the rows, each for an owner that holds it: an entry there that shows nothing."""
        sequence = replace(work.sequence, skips=())
        for owner, part in session.witnesses(sequence.epoch, spans, led.writers):
            rows = rows_within(work.table, part)
            args = (work.batch.tenant, sequence, rows, led.view, led.epoch, work.received_at)
            yield replace(sequenced_piece(*args), groups=((owner,),))

    async def _pieces(self, work: _Work, led: Led) -> tuple[Piece | None, list[Piece]]:
        """The piece of the numbered rows, if there are any, and all pieces."""
        sequence, table = work.sequence, work.table
        pieces: list[Piece] = []
        if table.num_rows or sequence.skips:
            args = (work.batch.tenant, sequence, table, led.view, led.epoch, work.received_at)
            if table.num_rows <= INLINE_ROWS:
                pieces.append(sequenced_piece(*args))
            else:
                pieces.append(await self._workers.run(sequenced_piece, *args))
        numbered = pieces[0] if pieces else None
        window, most = REPEAT_MICROS, self._settings.block_max_rows
        pieces += unsequenced_pieces(work.batch, led.view, work.received_at, window, most)
        for index, rows in enumerate(work.refused):
            extra = failed_rows(work.batch, rows, work.received_at, index)
            pieces += unsequenced_pieces(extra, led.view, work.received_at, window, most)
        return numbered, merged(pieces, most)

    def _judge(
        self, work: _Work, led: Led, session: ProducerSession, entries: SequenceOf[EntryTally]
    ) -> Verdict:
        """How the round went; takes conflicting rows out of the work."""
        for one in entries:
            if one.verdict is Verdict.FENCED:
                self._metrics.fenced.labels("producer").inc()
                raise Fenced("a newer epoch of this producer exists", epoch=session.newest_epoch)
            if one.verdict is Verdict.STALE:
                self._metrics.fenced.labels("shard").inc()
                self._leases.refused(led)
                return Verdict.STALE
        numbered = [one for one in entries if one.entry.sequenced]
        if numbered and numbered[0].verdict is Verdict.CONFLICT:
            self._take_out(work, numbered[0])
            return Verdict.CONFLICT
        return Verdict.WON

    def _take_out(self, work: _Work, one: EntryTally) -> None:
        kept, refused, rejected = split_conflicts(work.table, one, work.batch)
        if not rejected:
            raise Conflict("these sequences are held with other bytes", definite=False)
        self._metrics.conflicts.inc(len(rejected))
        work.table = kept
        work.refused.append(refused)
        work.conflicts += rejected
        if kept.num_rows or work.sequence.skips:
            self._carry_over(work, one)

    def _carry_over(self, work: _Work, one: EntryTally) -> None:
        """Owners that stored the entry have its good rows from this write, not from an earlier one."""
        view = self._views.current()
        args = (work.batch.tenant, work.sequence, work.table, view, 0, work.received_at)
        renamed = sequenced_piece(*args).entries[0].entry_id
        stored = [owner for entry_id, owner in work.mine if entry_id == one.entry.entry_id]
        work.mine.update((renamed, owner) for owner in stored)

    def _answer(
        self, work: _Work, led: Led, session: ProducerSession, entries: SequenceOf[EntryTally]
    ) -> WriteResult:
        result = counted(entries, led.view, self._metrics)
        sequence = work.sequence
        progress = session.progress(sequence.epoch, led.writers)
        key = (work.batch.tenant, sequence.service, sequence.producer, sequence.epoch)
        numbered = [one.entry for one in entries if one.entry.sequenced]
        came = tuple(span for one in numbered for span in one.seqs)
        skips = tuple(span for one in numbered for span in one.skips)
        return replace(
            result,
            conflicts=tuple(work.conflicts),
            ack_till=progress.ack_till,
            max_seen=progress.max_seen,
            missing=progress.missing,
            asked=self._desk.answered(key, progress.missing, came, skips),
            new_epoch=self._is_elsewhere(key, led.shard),
        )

    def _is_elsewhere(self, key: ProducerEpochKey, shard: int) -> bool:
        """Whether a new epoch of this producer would be written in another shard."""
        view, producer = self._views.current(), key[:3]
        newest = len(view.generations(*key[:2])) - 1
        return newest > generation_of(key[3]) and view.shard_under(*producer, newest) != shard

    async def new_epoch(self, tenant: str, service: str, producer: str, deadline: Deadline) -> int:
        """The next epoch of a producer, durable on W owners; the ones before are refused from now on.

        It is of the service's newest generation, and issued by the leader of the shard that it is for; to
        one caller, though a paused leader and its successor both be asked: to the one whose seal raised it.
        A number that this leaves in doubt is skipped.

        Raises:
            NotLeader: ask the shard's leader. QuorumUnavailable: ask again; the number may be skipped.
            NotReady: a later split is not known here yet, or others raise epochs all the time.
        """
        while True:
            view = await ready_view(self._views, deadline)
            newest = len(view.generations(tenant, service)) - 1
            first = Sequence(service, producer, newest * EPOCHS_OF_A_GENERATION)
            led, session = await self._led(tenant, first, deadline)
            async with session.lock:
                epoch = next_epoch(session.newest_epoch, newest)
                if epoch is None or newest != len(led.view.generations(tenant, service)) - 1:
                    raise NotReady(f"{service} was split again", retry_after_seconds=1)
                with contextlib.suppress(Fenced):
                    claim = await self._claim(led, session, epoch, deadline)
                    if claim is Claim.OURS:
                        return epoch
                    if claim is Claim.STALE:
                        continue
            if deadline.remaining() <= AGAIN_SECONDS:
                raise NotReady(f"epochs of {producer} are raised elsewhere", retry_after_seconds=1)
            await self._clock.sleep(AGAIN_SECONDS)

    async def newest_epoch(
        self, tenant: str, service: str, producer: str, deadline: Deadline
    ) -> int:
        """The newest epoch of a producer of a split service; 0 if its home shard's leader will know."""
        view = await ready_view(self._views, deadline)
        if len(view.generations(tenant, service)) == 1:
            return 0
        return max(
            1, await self._elsewhere.newest_epoch(view, (tenant, service, producer), deadline)
        )

    async def progress(
        self, tenant: str, service: str, producer: str, epoch: int, deadline: Deadline
    ) -> WriteResult:
        """Where a producer stands, from what the owners say now; epoch 0 means its newest."""
        found = await self.standing(tenant, service, producer, epoch, deadline)
        key = (tenant, service, producer, found.epoch)
        return WriteResult(
            batch_id(()),
            0,
            0,
            found.heard,
            found.owners,
            ack_till=found.progress.ack_till,
            max_seen=found.progress.max_seen,
            missing=found.progress.missing,
            asked=self._desk.note(key, found.progress.missing),
        )

    async def standing(
        self, tenant: str, service: str, producer: str, epoch: int, deadline: Deadline
    ) -> Standing:
        """As `progress`, without a note of it.

        Raises:
            NotLeader: ask the shard's leader. QuorumUnavailable, NotReady: ask again.
        """
        epoch = epoch or await self.newest_epoch(tenant, service, producer, deadline)
        led, session = await self._led(tenant, Sequence(service, producer, epoch), deadline)
        w = led.view.quorum.w
        needed = [Group(one.members, max(one.needed, w)) for one in led.overlap]
        heard = await self._recovery.refresh(led, session, needed, deadline)
        chosen = epoch or max(1, session.newest_epoch)
        found = session.progress(chosen, led.writers)
        return Standing(chosen, found, len(heard), len(led.owners))


async def _wait_for(turn: "asyncio.Future[None] | None", seconds: float) -> None:
    if turn is not None and not turn.done():
        await asyncio.wait([turn], timeout=seconds)

"""Steps 3 and 4 of a takeover, for one producer at its first batch: what is there, and the thin tail.

N-W+1 owners say what they hold, and what the producer was told. Each acked row is on W owners, so at
least one of these has it, unless it lost it to damage: an owner with a hole (storage.holes) is heard, and
does not count as one of them. What lies above `told` on fewer than W of them is fetched from a holder and put
to the others; ackTill counts it only when their answers show it.

What cannot be put again stays `missing` if it was never acked: then N-W+1 of each owner set lack it, and the
producer sends it again. Else it may be acked, and an ackTill below it would take that back: the producer
waits until it is put, or enough owners lack it. While a shard moves, that holds for what W of the owners of
before have, as their word was enough then. It is put to the new ones rather than counted: if it came after
the copy was listed, nobody else brings it there.
"""

from collections.abc import Iterable

from cluster.quorum_call import Caller, ask_quorum
from cluster.quorum_tally import Group
from cluster.replica_client import Replicas
from ingestor.dedupe import ProducerLedger
from ingestor.leases import Led
from ingestor.producers import ProducerBook, ProducerSession
from ingestor.write_metrics import WriteMetrics
from ingestor.write_settings import WriteSettings
from records.block_codec import EncodedBlock
from records.errors import (
    Fenced,
    NotFound,
    NotReady,
    QuorumlogError,
    QuorumUnavailable,
    StaleRingEpoch,
)
from records.ids import EntryId
from records.intervals import SeqIntervals
from records.messages import EntriesRequest, EpochSealed, PutOptions, PutReply
from records.timestamps import MAX_MICROS, MICROS_PER_HOUR, MIN_MICROS
from records.visibility import EntryRef
from runtime.clock import Clock
from runtime.deadline import Deadline
from runtime.logs import get_logger

log = get_logger(__name__)
#: Seconds between two tries to put a tail again.
RETRY_SECONDS = 0.1


class Recovery:
    """Brings producers' sessions up to date with their owners."""

    def __init__(
        self,
        replicas: Replicas,
        book: ProducerBook,
        caller: Caller,
        clock: Clock,
        metrics: WriteMetrics,
        settings: WriteSettings,
    ) -> None:
        self._replicas = replicas
        self._book = book
        self._caller = caller
        self._clock = clock
        self._metrics = metrics
        self._grace = settings.recovery_grace_seconds

    async def session(
        self, led: Led, producer: tuple[str, str, str], deadline: Deadline
    ) -> ProducerSession:
        """The producer's session under this reign, recovered if it is new.

        Raises:
            QuorumUnavailable: fewer than N-W+1 owners answered by the deadline; or rows that may be acked
                could not be put again.
        """
        session = self._book.session(producer, led.reign)
        if session.ready:
            return session
        async with session.lock:
            while not session.ready:
                await self._recover(led, session, deadline)
        return session

    async def _recover(self, led: Led, session: ProducerSession, deadline: Deadline) -> None:
        """One try; after it the session is ready, or a pause is over."""
        heard = await self.refresh(led, session, led.overlap, deadline, whole=True)
        failed = None
        for ledger in session.ledgers():
            error = await self._thicken(led, session, ledger, deadline)
            if error and ledger.may_be_acked(ledger.thin(led.writers), led.overlap, heard):
                failed = error
        if failed is None:
            for ledger in session.ledgers():
                ledger.progress(
                    led.writers
                )  # kept from now on, though an owner may yet lose its copy
            session.ready = True
        elif deadline.remaining() <= RETRY_SECONDS:
            text = "rows that may be acknowledged are on too few owners"
            raise QuorumUnavailable(f"{text}: {failed.message}") from failed
        else:
            await self._clock.sleep(RETRY_SECONDS)

    async def refresh(
        self,
        led: Led,
        session: ProducerSession,
        needed: Iterable[Group],
        deadline: Deadline,
        *,
        whole: bool = False,
    ) -> list[str]:
        """Hears the producer's states from at least the `needed` owners; returns who answered.

        `whole`: where damage took entries that are not all back, an owner is heard, and asked again until it
        is whole: till then it may lack what was acknowledged, and counts as one that does not answer.
        """
        damaged: set[str] = set()

        async def states(owner: str, limit: Deadline) -> None:
            replica, sent = self._replicas.get(owner), self._book.calls.tick()
            found = await replica.producer_states(led.shard, session.producer, limit)
            session.hear(owner, found.states, sent, self._book.calls.tick())
            if whole and found.hole:
                damaged.add(owner)
                raise NotReady(f"damage took entries of shard {led.shard} from {owner}")
            damaged.discard(owner)

        grace = self._grace
        asking = ask_quorum(
            "producer_states",
            led.owners,
            states,
            needed,
            self._caller,
            deadline,
            grace_seconds=grace,
        )
        try:
            return sorted(await asking)
        except QuorumUnavailable as error:
            if damaged:
                error.message += f"; not whole after damage: {', '.join(sorted(damaged))}"
            raise

    async def seal_epoch(
        self, led: Led, session: ProducerSession, epoch: int, deadline: Deadline
    ) -> bool:
        """Makes `epoch` the producer's newest on W owners, and on more than half of each owner set.

        True: this very call raised it on so many. Another one cannot have done that as well, on whatever node
        that leads or believes so: the epoch is the caller's to issue. An owner that raised it, and whose
        answer was lost, counts for nobody.

        Raises:
            Fenced: some owner knows a newer one (details: `epoch`). StaleRingEpoch: or a newer ring.
        """

        async def seal(owner: str, limit: Deadline) -> EpochSealed:
            replica, ring = self._replicas.get(owner), led.reign[2]
            return await replica.seal_producer_epoch(
                led.shard, session.producer, epoch, ring, limit
            )

        answers = await ask_quorum(
            "seal_producer_epoch",
            led.owners,
            seal,
            led.deciders,
            self._caller,
            deadline,
            fatal=(StaleRingEpoch,),
        )
        newest = max(one.newest for one in answers.values())
        session.newest_epoch = max(session.newest_epoch, newest)
        if session.newest_epoch > epoch:
            raise Fenced("a newer epoch exists", epoch=session.newest_epoch)
        raised = {owner for owner, one in answers.items() if one.raised}
        return all(len(group.members & raised) >= group.needed for group in led.deciders)

    async def _thicken(
        self,
        led: Led,
        session: ProducerSession,
        ledger: ProducerLedger,
        deadline: Deadline,
    ) -> QuorumlogError | None:
        """Puts again what fewer than W are known to hold; why some of it could not be put."""
        spans, failed = ledger.thin(led.writers), None
        for holder in sorted(led.owners) if spans else ():
            held = ledger.held_by(holder)
            if any(held.overlap(*span) for span in spans):
                try:
                    await self._copy(led, session, ledger, holder, spans, deadline)
                except QuorumlogError as error:
                    log.warning("tail not put again", holder=holder, error=error)
                    failed = error
            spans = ledger.thin(led.writers)
        if (
            spans and failed is None
        ):  # a watermark has passed them there, of which a holder has not heard
            failed = QuorumUnavailable("owners took them for duplicates, and do not hold them")
        return failed if spans else None

    async def _copy(
        self,
        led: Led,
        session: ProducerSession,
        ledger: ProducerLedger,
        holder: str,
        spans: list[tuple[int, int]],
        deadline: Deadline,
    ) -> None:
        wanted = await self._entries(led, ledger, holder, SeqIntervals(spans), deadline)
        replica = self._replicas.get(holder)
        while wanted:
            blocks = await replica.fetch(tuple(wanted), deadline)
            if not blocks:
                raise NotFound(f"{holder} has them no longer")
            for block in blocks:
                await self._put_again(led, session, holder, block, deadline)
                self._metrics.recovered.inc(block.header.rows)
                done = {entry.entry_id for entry in block.header.entries}
                wanted = [one for one in wanted if one not in done]

    async def _put_again(
        self,
        led: Led,
        session: ProducerSession,
        holder: str,
        block: EncodedBlock,
        deadline: Deadline,
    ) -> None:
        options = PutOptions(ring_epoch=led.reign[2], repair=True)

        async def put(owner: str, limit: Deadline) -> PutReply:
            return await self._replicas.get(owner).put(block, options, limit)

        needed = [one for group in led.writers if (one := _others(group, holder)) is not None]
        if not needed:
            return
        owners = [owner for owner in led.owners if owner != holder]
        sent = self._book.calls.tick()
        limit = deadline.sooner(self._caller.pace.try_seconds)
        replies = await ask_quorum("put_again", owners, put, needed, self._caller, limit)
        now = self._book.calls.tick()
        for owner, reply in replies.items():
            mine = [one for one in reply.producers if one.producer[:3] == session.producer]
            session.hear(owner, mine, sent, now)

    async def _entries(
        self,
        led: Led,
        ledger: ProducerLedger,
        holder: str,
        spans: SeqIntervals,
        deadline: Deadline,
    ) -> list[EntryId]:
        """Entries on `holder` with rows in `spans`, or with skips alone; first among recent rows."""
        now = self._clock.wall_micros()
        recent = (now - 2 * MICROS_PER_HOUR, now + MICROS_PER_HOUR)
        replica = self._replicas.get(holder)
        for start, end in (recent, (MIN_MICROS, MAX_MICROS)):
            request = EntriesRequest(led.shard, start, end)
            reply = await replica.entries(request, deadline)
            found = [e for e in reply.entries if e.producer == ledger.key and _touches(e, spans)]
            if covers(found, spans, ledger.held_by(holder)):
                break
        return [one.entry_id for one in found]


def _others(group: Group, holder: str) -> Group | None:
    """Who of a group must still get what `holder` has; None if nobody must, or can."""
    members = group.members - {holder}
    needed = min(group.needed - (holder in group.members), len(members))
    return Group(members, needed) if needed > 0 else None


def _touches(entry: EntryRef, spans: SeqIntervals) -> bool:
    return not entry.seqs or any(spans.overlap(a, b) for a, b in entry.seqs)


def covers(entries: Iterable[EntryRef], spans: SeqIntervals, held: SeqIntervals) -> bool:
    """Whether the rows of `entries` are all of `spans` that `held` has."""
    rows = SeqIntervals(span for entry in entries for span in entry.seqs)
    wanted = [part for a, b in spans for part in held.overlap(a, b)]
    return not any(rows.gaps(a, b) for a, b in wanted)

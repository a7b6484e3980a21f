"""From pieces to their outcome: bounded, batched, encoded in a worker thread, put to the owners.

A submission lives from `run` until it is settled: confirmed, refused, or out of time. Its bytes count
against `pending_bytes` for as long, also when the caller has left, so memory stays bounded by refusal.
"""

import asyncio
from collections.abc import Sequence

from cluster.quorum_call import Caller, Pace
from cluster.replica_client import Replicas
from ingestor.answers import AckRule
from ingestor.batcher import Batcher
from ingestor.block_put import BlockPut, Lanes, Missed, PutParts, no_hints
from ingestor.dedupe import Calls
from ingestor.encode import encode_pieces
from ingestor.outcomes import EntryTally, Mine, Submission
from ingestor.producers import ProducerSession
from ingestor.shards import Piece
from ingestor.write_metrics import WriteMetrics
from ingestor.write_settings import WriteSettings
from records.errors import NotReady, Overloaded, QuorumlogError, StaleRingEpoch, Unknown
from records.ids import BlockId, block_id
from runtime.clock import Clock
from runtime.deadline import Deadline
from runtime.entropy import Entropy
from runtime.logs import get_logger
from runtime.tasks import Supervisor, Workers

log = get_logger(__name__)
_MICROS_PER_MS = 1000
#: Bytes that a piece costs besides its rows: headers, tallies, tasks. Counted, as a million tiny
#: requests are mostly this.
PIECE_BYTES = 8 << 10


class Pipeline:
    """The shared part of all writes of one node."""

    def __init__(
        self,
        replicas: Replicas,
        calls: Calls,
        clock: Clock,
        entropy: Entropy,
        metrics: WriteMetrics,
        settings: WriteSettings,
        workers: Workers,
        tasks: Supervisor,
        missed: Missed = no_hints,
    ) -> None:
        self._clock = clock
        self._entropy = entropy
        self._metrics = metrics
        self._settings = settings
        self._workers = workers
        self._pending = 0
        self._closed = False
        pace = Pace(
            settings.put_timeout_seconds,
            settings.backoff_first_seconds,
            settings.backoff_max_seconds,
        )
        self.caller = Caller(tasks, entropy, pace)
        self._parts = PutParts(
            replicas,
            calls,
            Lanes(settings.owner_bytes_in_flight),
            self.caller,
            clock,
            metrics,
            settings.disk_full_hold_seconds,
            missed,
        )
        self._batcher = Batcher(self._write_block, settings, clock, tasks, metrics)
        metrics.pending_bytes.set_function(lambda: self._pending)

    @property
    def pending_bytes(self) -> int:
        """Arrow bytes of submissions without an outcome."""
        return self._pending

    async def run(
        self,
        pieces: Sequence[Piece],
        rule: AckRule,
        mine: Mine,
        deadline: Deadline,
        session: ProducerSession | None = None,
    ) -> list[EntryTally]:
        """Writes all pieces and returns how each entry stands once all are settled.

        Args:
            rule: how many owners must confirm.
            mine: what this write has put so far; grows.
            session: of the producer of numbered rows; hears what their owners say.

        Raises:
            Overloaded: too much is pending (definite). StaleRingEpoch: route again under a newer ring.
            QuorumUnavailable, DiskFull: not confirmed by the deadline. Of several pieces one may be
                stored though another was refused, so an error is definite of a single piece alone.
        """
        submissions = self._submit(pieces, rule, mine, deadline, session)
        futures = [one.done for one in submissions]
        if futures:
            await asyncio.wait(futures, timeout=deadline.remaining())
        for one in submissions:
            if not one.settled:
                one.expire()
        errors = [error for future in futures if (error := future.exception()) is not None]
        for error in errors:
            if len(futures) > 1 and isinstance(error, QuorumlogError):
                error.doubt()
            if not isinstance(error, StaleRingEpoch):
                raise error
        if errors:
            raise errors[0]
        return [entry for one in submissions for entry in one.entries]

    def _submit(
        self,
        pieces: Sequence[Piece],
        rule: AckRule,
        mine: Mine,
        deadline: Deadline,
        session: ProducerSession | None,
    ) -> list[Submission]:
        if self._closed:
            raise NotReady("this node is shutting down", retry_after_seconds=1)
        size = sum(piece.nbytes + PIECE_BYTES for piece in pieces)
        if self._pending and self._pending + size > self._settings.pending_bytes:
            raise Overloaded(f"{self._pending} bytes are being written", retry_after_seconds=1)
        loop = asyncio.get_running_loop()
        made: list[Submission] = []
        for piece in pieces:
            needed = rule.needed(max(len(group) for group in piece.groups))
            future = loop.create_future()
            one = Submission(
                piece, needed, rule.w, deadline, mine, future, session, every=rule.every
            )
            cost = piece.nbytes + PIECE_BYTES
            self._pending += cost
            one.done.add_done_callback(lambda done, cost=cost: self._settled(done, cost))
            made.append(one)
        for one in made:
            self._batcher.submit(one)
        return made

    def _settled(self, done: "asyncio.Future[None]", cost: int) -> None:
        self._pending -= cost
        if not done.cancelled():
            done.exception()

    def close(self) -> None:
        """Takes nothing more; what has not been sent is refused."""
        self._closed = True
        for one in self._batcher.close():
            one.fail(NotReady("this node is shutting down", retry_after_seconds=1))

    async def _write_block(self, submissions: list[Submission]) -> None:
        waiting = [one for one in submissions if not one.settled]
        if not waiting:
            return
        try:
            begun = self._clock.monotonic()
            pieces = [one.piece for one in waiting]
            filters = self._settings.filters
            block = await self._workers.run(encode_pieces, pieces, self._next_id(), filters)
            self._metrics.encode.observe(self._clock.monotonic() - begun)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must reach its request
            await self._write_apart(waiting, error)
            return
        self._metrics.block_rows.observe(block.header.rows)
        self._metrics.bytes.inc(len(block.data))
        BlockPut(block, waiting, self._parts).start()
        await asyncio.wait([one.done for one in waiting])

    async def _write_apart(self, submissions: list[Submission], error: Exception) -> None:
        """A block that cannot be encoded: each request alone, so that only the bad one fails."""
        if len(submissions) > 1:
            for one in submissions:
                await self._write_block([one])
            return
        log.error("block cannot be encoded", rows=submissions[0].piece.rows, error=error)
        known = isinstance(error, QuorumlogError)
        submissions[0].fail(error if known else Unknown(f"rows cannot be encoded: {error!r}"))

    def _next_id(self) -> BlockId:
        return block_id(self._clock.wall_micros() // _MICROS_PER_MS, self._entropy.bytes(10))

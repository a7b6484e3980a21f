"""Puts of one node: judged, appended, and applied once they are on disk. A shell; the engine decides.

The life of a put: check bytes -> engine.decide (wait or compare as long as it says so) -> log.append ->
(writer thread: write, fdatasync) -> on the loop, in log order: engine.apply -> reply. Applying happens in
the log's callback, not after an await, so a cancelled caller changes nothing, and a seal that is answered
has seen every put before it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from records.block_codec import EncodedBlock, parse_prefix
from records.errors import BlockCorrupt, StorageFailed
from records.messages import PutOptions, PutReply
from runtime.clock import Clock
from runtime.failpoints import failpoint
from runtime.tasks import Workers
from storage.catalog import Checkpointer
from storage.comparing import compare_pairs, held_places
from storage.engine import Compare, Engine, Verdict, Wait
from storage.gauges import Gauges
from storage.holdings import BlockPlace
from storage.hot import HotSet
from storage.judge import Pair, Proof
from storage.log_format import Record, RecordType, check_block
from storage.wal import Position, Wal, Written


@dataclass(slots=True)
class _Write:
    """A put on its way to the disk: others wait on `done`, which never raises."""

    done: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class PutHost:
    """What puts need of the storage service around them.

    `read` runs work on a worker and sets a block aside that turns out damaged; `check` raises while puts are
    refused; `verify`: whether checksums of a block are looked at before it is stored.
    """

    read: Callable[..., Awaitable[dict[Pair, Proof]]]
    check: Callable[[], None]
    verify: bool


class Puts:
    """What is written to a node's log, and what of it is durable."""

    def __init__(
        self,
        engine: Engine,
        wal: Wal,
        hot: HotSet,
        checkpointer: Checkpointer,
        chores: Workers,
        clock: Clock,
        gauges: Gauges,
        host: PutHost,
    ) -> None:
        self._engine, self._wal, self._hot, self._checkpointer = engine, wal, hot, checkpointer
        self._chores, self._clock, self._gauges, self._host = chores, clock, gauges, host
        self._next_put = 0
        self._writing: dict[int, _Write] = {}

    async def run(self, block: EncodedBlock, options: PutOptions) -> PutReply:
        """See StorageService.put."""
        started = self._clock.monotonic()
        self._check_bytes(block)
        verdict = await self._judged(block, options)
        if verdict.accepted or verdict.records:
            await self._write(block, verdict)
            failpoint("put.before-ack")
            if options.repair:
                failpoint("repair.before-ack")
        self._gauges.put_seconds.observe(self._clock.monotonic() - started)
        self._gauges.count_put(block.header, verdict)
        return verdict.reply(self._engine.producer_replies(block.header))

    def _check_bytes(self, block: EncodedBlock) -> None:
        parts = parse_prefix(block.data)
        if parts.total_bytes != len(block.data):
            raise BlockCorrupt(f"{len(block.data)} bytes, the prefix says {parts.total_bytes}")
        if block.header.rows and "timestamp" not in block.header.columns:
            raise BlockCorrupt("a block with rows has no timestamps")
        if self._host.verify:
            check_block(memoryview(block.data))

    async def _judged(self, block: EncodedBlock, options: PutOptions) -> Verdict:
        """Asks the engine until it knows; ends with its verdict, on which no other put has acted yet."""
        proofs: dict[Pair, Proof] = {}
        generation = self._engine.holdings.generation
        while True:
            if generation != self._engine.holdings.generation:  # proofs name entries by number
                proofs, generation = {}, self._engine.holdings.generation
            decision = self._engine.decide(block.header, options, proofs)
            if isinstance(decision, Verdict):
                return decision
            if isinstance(decision, Wait):
                writes = [self._writing[put].done for put in decision.puts]
                await asyncio.wait(writes)
            else:
                try:
                    proofs.update(await self._compared(block, decision))
                except BlockCorrupt as error:  # the held one is set aside by now: judge again
                    if "ordinal" not in error.details:
                        raise
            self._host.check()

    def _write(self, block: EncodedBlock, verdict: Verdict) -> "asyncio.Future[None]":
        """Appends the verdict's records; the future ends when they are durable and applied."""
        put, header = self._next_put, block.header
        self._next_put += 1
        records = list(verdict.records)
        if verdict.accepted:
            whole = len(verdict.accepted) == len(header.entries)
            accepted = None if whole else list(verdict.accepted)
            records.append(Record(RecordType.BLOCK, accepted, block.data))
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[None] = loop.create_future()
        write = _Write(loop.create_future())

        def done(places: list[Written] | None, error: StorageFailed | None) -> None:
            self._written(put, block, verdict, places)
            write.done.set_result(None)
            _answer(answer, error)

        self._wal.append(records, done)
        self._engine.begin(put, header, verdict)
        self._writing[put] = write
        return answer

    def _written(
        self, put: int, block: EncodedBlock, verdict: Verdict, places: list[Written] | None
    ) -> None:
        del self._writing[put]
        if places is None:
            self._engine.abandon(put)
            return
        place = None
        if verdict.accepted:
            at, ordinal = places[-1], self._engine.holdings.blocks.end
            place = BlockPlace.of(ordinal, block.header, at.file, at.body_offset, len(block.data))
        self._engine.apply(put, place)
        self._advance(places)

    def _advance(self, places: Sequence[Written]) -> None:
        self._checkpointer.position = Position(places[-1].file, places[-1].end)

    async def _compared(self, block: EncodedBlock, wanted: Compare) -> dict[Pair, Proof]:
        held = held_places(self._engine.holdings, wanted)
        self._gauges.comparisons.inc(len(wanted.pairs))
        return await self._host.read(self._chores, compare_pairs, self._hot, block, wanted, held)

    def append(self, records: Sequence[Record]) -> "asyncio.Future[None]":
        """Appends records that need no judgement; the future ends when they are durable."""
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(places: list[Written] | None, error: StorageFailed | None) -> None:
            if places:
                self._advance(places)
            _answer(answer, error)

        self._wal.append(records, done)
        return answer


def _answer(answer: "asyncio.Future[None]", error: Exception | None) -> None:
    if answer.done():  # the caller was cancelled; the write is applied all the same
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(None)

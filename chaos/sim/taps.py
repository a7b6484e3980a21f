"""What a node's store did, seen from beside it: fences that were broken, blocks truly on the platter.

The taps keep their own books and ask nothing of the code under test: a fence counts from when its answer was
given, a block is durable when the platter holds its bytes and its name.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from chaos.sim.disk import SimDisk, SimFile
from records import envelope
from records.block import BlockHeader, EntryHeader
from records.block_codec import decode_header
from records.intervals import SeqIntervals
from records.messages import EntryStatus, PutOptions, PutReply, SealRequest
from storage.log_format import HEAD_BYTES, RecordType
from storage.service import StorageService

_ACKS = (EntryStatus.STORED, EntryStatus.DUPLICATE)


@dataclass(eq=False, slots=True)
class Written:
    """One block record as it went into a file. `synced`: an fdatasync of it has returned."""

    file: SimFile
    name: str
    start: int
    data: bytes
    header: BlockHeader
    accepted: tuple[int, ...]
    synced: bool = False

    @property
    def entries(self) -> list[EntryHeader]:
        """The accepted ones."""
        return [self.header.entries[index] for index in self.accepted]


class TappedDisk(SimDisk):
    """A SimDisk that keeps a list of the blocks written to log files."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.written: list[Written] = []

    def write(self, fd: int, parts: Any, at: int) -> int:
        """As ever; then notes the blocks among the parts."""
        name = self.handles[fd]
        count = super().write(fd, parts, at)
        previous: bytes = b""
        for part in parts:
            if len(part) > HEAD_BYTES and previous[4:5] == bytes([RecordType.BLOCK]):
                meta = envelope.unpackb(previous[HEAD_BYTES:])
                header = decode_header(part)
                accepted = tuple(range(len(header.entries))) if meta is None else tuple(meta)
                one = Written(self.names[name], name, at, bytes(part), header, accepted)
                self.written.append(one)
            at += len(part)
            previous = bytes(part) if len(part) < 4096 else b""
        return count

    def sync(self, fd: int) -> None:
        """As ever; what the file holds is synced then."""
        super().sync(fd)
        file = self.names[self.handles[fd]]
        for one in self.written:
            if one.file is file:
                one.synced = True

    def on_platter(self) -> Iterator[Written]:
        """The blocks that a power cut now would leave."""
        for one in self.written:
            end = one.start + len(one.data)
            if self.durable_names.get(one.name) is one.file and (
                one.file.platter[one.start : end] == one.data
            ):
                yield one

    def seqs_on_platter(self, producer: tuple[str, ...], epoch: int) -> SeqIntervals:
        """What a power cut now would leave of one producer epoch."""
        found = SeqIntervals()
        for one in self.on_platter():
            for entry in one.entries:
                if entry.sequenced and (entry.producer_key, entry.producer_epoch) == (
                    producer,
                    epoch,
                ):
                    found.update(entry.seqs)
                    found.update(entry.skips)
        return found


@dataclass(slots=True)
class Fences:
    """What one node has promised never to accept again: outlives restarts. Lines go to `broken`."""

    node: str
    broken: list[tuple[str, str]]
    shards: dict[int, int] = field(default_factory=dict)
    producers: dict[tuple[int, Any], int] = field(default_factory=dict)
    ring_epoch: int = 0

    def at_put(self, header: BlockHeader) -> tuple[int, list[tuple[int, int]]]:
        """The fences in force when a put arrives: (ring epoch, (shard epoch, producer epoch) of entries)."""
        return self.ring_epoch, [
            (
                self.shards.get(e.shard, 0),
                self.producers.get((e.shard, e.producer_key), 0) if e.sequenced else 0,
            )
            for e in header.entries
        ]

    def judge(
        self,
        fences: tuple[int, list[tuple[int, int]]],
        header: BlockHeader,
        options: PutOptions,
        reply: PutReply,
    ) -> None:
        """Whether an accepted put kept them."""
        ring_epoch, entries = fences
        if options.ring_epoch < ring_epoch:
            self._break(f"took ring epoch {options.ring_epoch} after {ring_epoch}")
        self.ring_epoch = max(self.ring_epoch, options.ring_epoch)
        rows = zip(header.entries, entries, reply.statuses, strict=True)
        for entry, (shard_epoch, producer_epoch), status in rows:
            if options.repair or not entry.sequenced or status not in _ACKS:
                continue
            if entry.shard_epoch < shard_epoch:
                self._break(f"took shard epoch {entry.shard_epoch} after {shard_epoch}")
            if entry.producer_epoch < producer_epoch:
                self._break(f"took producer epoch {entry.producer_epoch} after {producer_epoch}")
            known = self.shards.get(entry.shard, 0)
            self.shards[entry.shard] = max(known, int(entry.shard_epoch))

    def _break(self, text: str) -> None:
        self.broken.append(("I11", f"{self.node} {text}"))


class TappedStorage(StorageService):
    """The real storage service; what it answers is held against the fences it has promised."""

    fences: Fences

    async def put(self, block: Any, options: PutOptions) -> PutReply:
        """See StorageService."""
        before = self.fences.at_put(block.header)
        reply = await super().put(block, options)
        self.fences.judge(before, block.header, options, reply)
        return reply

    async def seal(self, request: SealRequest) -> None:
        """See StorageService."""
        await super().seal(request)
        known = self.fences.shards.get(request.shard, 0)
        self.fences.shards[request.shard] = max(known, request.epoch)

    async def seal_producer_epoch(self, shard: int, producer: Any, epoch: int) -> int:
        """See StorageService."""
        newest = await super().seal_producer_epoch(shard, producer, epoch)
        key = (shard, producer)
        self.fences.producers[key] = max(self.fences.producers.get(key, 0), newest)
        return newest

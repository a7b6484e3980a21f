"""What a node's store did, seen from beside it: fences that were broken, blocks truly on the platter.

The taps keep their own books and ask nothing of the code under test: a fence counts from when its answer was
given, a block is durable when the platter holds its bytes and its name.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from chaos.sim.disk import SimDisk
from chaos.sim.pages import SimFile
from records import envelope
from records.block import BlockHeader, EntryHeader
from records.block_codec import EncodedBlock, decode_header
from records.handover import Handover
from records.intervals import SeqIntervals
from records.messages import (
    EntryStatus,
    EpochSealed,
    PutOptions,
    PutReply,
    ScanReply,
    ScanRequest,
    SealRequest,
)
from storage.log_format import HEAD_BYTES, RecordType
from storage.service import StorageService

_ACKS = (EntryStatus.STORED, EntryStatus.DUPLICATE)
#: Where blocks lie; a segment is written and synced as a draft, then renamed.
KEPT, DRAFT = ("store/log/", "store/segments/"), ".new"


@dataclass(eq=False, slots=True)
class Written:
    """One block as it went into a log file, or one segment file (`start` is 0 then).

    `synced`: an fdatasync of it has returned. `rotten`: some of its bytes were damaged at rest.
    """

    file: SimFile
    name: str
    start: int
    data: bytes
    header: BlockHeader
    accepted: tuple[int, ...]
    synced: bool = False
    rotten: bool = False
    #: Of the block's entries the accepted ones.
    entries: list[EntryHeader] = field(init=False)

    def __post_init__(self) -> None:
        self.entries = [self.header.entries[index] for index in self.accepted]

    @property
    def segment(self) -> bool:
        """Whether it is a segment file."""
        return self.name.endswith(DRAFT)

    @property
    def end(self) -> int:
        """Where it ends in its file."""
        return self.start + len(self.data)

    @property
    def whole(self) -> bool:
        """Whether the platter has its bytes as they were written."""
        return self.file.platter[self.start : self.end] == self.data


class TappedDisk(SimDisk):
    """A SimDisk that keeps a list of the blocks written to log files, and of segments that were synced."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.written: list[Written] = []
        #: The entries of all of them by id.
        self.entries: dict[bytes, EntryHeader] = {}
        #: What was synced on disks that were lost.
        self.lost: list[Written] = []

    def wipe(self) -> None:
        """See SimDisk."""
        super().wipe()
        self.lost += [one for one in self.written if one.synced]
        self.written.clear()
        self.entries.clear()

    def write(self, fd: int, parts: Any, at: int) -> int:
        """As ever; and notes the blocks among the parts, also if it is cut off: they may have got through."""
        name, file = self.handles[fd]
        try:
            return super().write(fd, parts, at)
        finally:
            self._note(name, file, parts, at)

    def _note(self, name: str, file: SimFile, parts: Any, at: int) -> None:
        previous: bytes = b""
        for part in parts:
            if len(part) > HEAD_BYTES and previous[4:5] == bytes([RecordType.BLOCK]):
                meta = envelope.unpackb(previous[HEAD_BYTES:])
                header = decode_header(part)
                accepted = tuple(range(len(header.entries))) if meta is None else tuple(meta)
                self._add(Written(file, name, at, bytes(part), header, accepted))
            at += len(part)
            previous = bytes(part) if len(part) < 4096 else b""

    def _add(self, one: Written) -> None:
        self.written.append(one)
        self.entries.update((bytes(entry.entry_id), entry) for entry in one.entries)

    def sync(self, fd: int) -> None:
        """As ever; what the file holds is synced then."""
        super().sync(fd)
        name, file = self.handles[fd]
        if name.endswith(DRAFT):
            data = bytes(file.cache)
            header = header_of_segment(data)
            self._add(Written(file, name, 0, data, header, _all_of(header)))
        for one in self.written:
            if one.file is file:
                one.synced = True

    def on_platter(self) -> Iterator[Written]:
        """The blocks and segments in use that a power cut now would leave; those that rotted since as well.

        A file that was removed is none of them, even if a power cut might bring its name back.
        """
        files = {
            id(file)
            for name, file in self.durable_names.items()
            if name.startswith(KEPT) and not name.endswith(DRAFT) and self.names.get(name) is file
        }
        for one in self.written:
            if id(one.file) in files and (one.rotten or one.whole):
                yield one

    def seqs_on_platter(self, producer: tuple[str, ...], epoch: int) -> SeqIntervals:
        """What a power cut now would leave of one producer epoch; what rotted, or was lost with its disk, was
        there once, and counts."""
        found = SeqIntervals()
        for one in self._held():
            for entry in one.entries:
                if entry.sequenced and (entry.producer_key, entry.producer_epoch) == (
                    producer,
                    epoch,
                ):
                    found.update(entry.seqs)
                    found.update(entry.skips)
        return found

    def contents_on_platter(self) -> set[bytes]:
        """Content hashes of the entries that a power cut now would leave, or that rotted since."""
        return {entry.content_hash for one in self._held() for entry in one.entries}

    def _held(self) -> list[Written]:
        rotten = [one for one in self.written if one.rotten and one.synced]
        return [*(one for one in self.on_platter() if not one.rotten), *rotten, *self.lost]


def header_of_segment(data: bytes) -> BlockHeader:
    """The block header of a segment file's bytes: groups, front, mark (magic, length of front), footer."""
    footer = int.from_bytes(data[-8:-4], "little") + 8
    mark = len(data) - footer - 16
    assert data[mark : mark + 8] == b"QLSG0001"
    front = int.from_bytes(data[mark + 8 : mark + 16], "big")
    return decode_header(data[mark - front : mark])


def _all_of(header: BlockHeader) -> tuple[int, ...]:
    return tuple(range(len(header.entries)))


@dataclass(slots=True)
class Fences:
    """What one node has promised never to accept again: outlives restarts. Lines go to `broken`."""

    node: str
    broken: list[tuple[str, str]]
    shards: dict[int, int] = field(default_factory=dict)
    producers: dict[tuple[int, Any], int] = field(default_factory=dict)
    ring_epoch: int = 0
    #: The newest ring that it said it knows, durably, when shards moved.
    told_ring: int = 0

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
    #: Reads that were answered in this life.
    scans = 0
    #: Says what is wrong with the rows of a block that comes as a repair; "" if they are what was sent.
    altered: Callable[[EncodedBlock], str] = staticmethod(lambda _block: "")

    async def put(self, block: Any, options: PutOptions) -> PutReply:
        """See StorageService."""
        before = self.fences.at_put(block.header)
        reply = await super().put(block, options)
        self.fences.judge(before, block.header, options, reply)
        if options.repair and EntryStatus.STORED in reply.statuses and (why := self.altered(block)):
            self.fences.broken.append(("I14", f"{self.node_id} took as a repair {why}"))
        return reply

    async def scan(self, request: ScanRequest) -> tuple[ScanReply, pa.Table]:
        """See StorageService."""
        found = await super().scan(request)
        self.scans += 1
        return found

    async def seal(self, request: SealRequest) -> None:
        """See StorageService."""
        await super().seal(request)
        known = self.fences.shards.get(request.shard, 0)
        self.fences.shards[request.shard] = max(known, request.epoch)

    async def seal_producer_epoch(
        self, shard: int, producer: Any, epoch: int, ring_epoch: int
    ) -> EpochSealed:
        """See StorageService."""
        sealed = await super().seal_producer_epoch(shard, producer, epoch, ring_epoch)
        key = (shard, producer)
        self.fences.producers[key] = max(self.fences.producers.get(key, 0), sealed.newest)
        return sealed


def tap_moves(storage: TappedStorage) -> None:
    """Notes the fences that a started store promises, or takes over, when shards move."""
    moves, fences = storage.moves, storage.fences
    hand_over, raise_ring, take_over = moves.hand_over, moves.raise_ring, moves.take_over

    def promised(ring_epoch: int) -> None:
        fences.ring_epoch = max(fences.ring_epoch, ring_epoch)
        fences.told_ring = max(fences.told_ring, ring_epoch)

    async def handing(shard: int, ring_epoch: int) -> Handover:
        handed = await hand_over(shard, ring_epoch)
        promised(ring_epoch)
        return handed

    async def raising(ring_epoch: int) -> None:
        await raise_ring(ring_epoch)
        promised(ring_epoch)

    async def taking(handed: Handover, ring_epoch: int) -> None:
        await take_over(handed, ring_epoch)
        promised(ring_epoch)
        known = fences.shards.get(handed.shard, 0)
        fences.shards[handed.shard] = max(known, handed.fence)
        for producer, newest in handed.newest:
            key = (handed.shard, producer)
            fences.producers[key] = max(fences.producers.get(key, 0), newest)

    places: Any = moves
    places.hand_over, places.raise_ring, places.take_over = handing, raising, taking


def check_promises(storage: TappedStorage) -> None:
    """I15 of a store that has just started: it knows the rings and producers' epochs that it spoke for."""
    fences, engine = storage.fences, storage._engine
    if engine.ring_epoch < fences.told_ring:
        text = f"{fences.node} forgot ring epoch {fences.told_ring}, and knows {engine.ring_epoch}"
        fences.broken.append(("I15", text))
    for (shard, producer), epoch in fences.producers.items():
        known = engine.holdings.producers.newest_epoch(shard, producer)
        if known < epoch:
            text = (
                f"{fences.node} forgot producer epoch {epoch} of {producer[2]}, and knows {known}"
            )
            fences.broken.append(("I15", text))

"""Planted bugs of what heals a node: merging, hints, scrub, anti-entropy, reading from a disk that rots."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import cluster.anti_entropy
import cluster.handoff
import ingestor.block_put
import query.scatter
import storage.compaction
import storage.compaction_merge
import storage.fetch
import storage.hints
import storage.holdings
import storage.hot
import storage.merkle
import storage.scrub
import storage.scrub_read
import storage.segment_open
import storage.segment_write
from chaos.mutants.planting import Place, mutant
from chaos.sim.healing import ANTI_ENTROPY, COMPACTION, HINTS, SCRUB
from chaos.sim.plan import ROTS
from records.block_codec import encode_block, open_body, parse_prefix
from records.ids import ID_BYTES, EntryId
from records.messages import EntryStatus, PutOptions, PutReply
from runtime.deadline import Deadline
from storage.segment_file import segment_parts, segment_path

ROTTING = (*ROTS, *ROTS)


@mutant(
    "merging drops an entry of each merged segment",
    "I12",
    "I8",
    "I15",
    quick=True,
    parts=(COMPACTION,),
)
def _() -> Sequence[Place]:
    real = storage.compaction_merge._encoded
    holdings = storage.holdings.Holdings
    drop_merged: Any = holdings.drop_merged

    def encoded(pieces: Any) -> Any:
        return real(pieces[:-1] if len(pieces) > 1 else pieces)

    def drop(self: Any, ordinal: int) -> bool:
        if self.blocks[ordinal] is not None:
            self.table.drop(self.present(ordinal))
        return drop_merged(self, ordinal)

    return [(storage.compaction_merge, "_encoded", encoded), (holdings, "drop_merged", drop)]


@mutant(
    "segment renamed without fsync of the file", "I15", "I1", "I9", parts=(COMPACTION,),
    faults=("power", "power", "power all"),
)  # fmt: skip
def _() -> Sequence[Place]:
    def write_segment(directory: Any, number: int, block: Any, _step: Any = None) -> Any:
        draft = directory / f"{number:08d}.new"
        draft.write_bytes(b"".join(segment_parts(block.data)))
        target = directory / segment_path(number, block.header.min_ts, block.header.max_ts)
        target.parent.mkdir(parents=True)
        draft.rename(target)
        return target

    return [(storage.compaction, "write_segment", write_segment)]


@mutant(
    "folder of a segment made without fsync of the one around it", "I15", "I1", "I12",
    parts=(COMPACTION,), faults=("power", "power", "power all"),
)  # fmt: skip
def _() -> Sequence[Place]:
    real = storage.segment_write._make_folders

    def make(root: Any, folder: Any) -> list[Any]:
        real(root, folder)
        return []

    return [(storage.segment_write, "_make_folders", make)]


@mutant(
    "segments that no catalog names removed at start", "I15", "I1", "I12",
    parts=(COMPACTION,), faults=("power",) * 3 + ("power all",) * 2,
)  # fmt: skip
def _() -> Sequence[Place]:
    return [(storage.segment_open, "_adopt", lambda _e, _n, path, *_: path.unlink())]


@mutant(
    "hash not checked on disk read", "I3", "I14", "I1", "I4", parts=(COMPACTION,),
    faults=("rot bit",) * 12 + ("kill",) * 3,
)  # fmt: skip
def _() -> Sequence[Place]:
    return [(storage.hot, "decode_block", lambda _data: None)]


@mutant(
    "repair sends rows of a damaged block under new checksums", "I14", "I3", "I1", "I4",
    parts=(ANTI_ENTROPY, HINTS), faults=(*ROTTING, "kill", "power", "partition"), delay=0.1,
)  # fmt: skip
def _() -> Sequence[Place]:
    def restricted(hot: Any, place: Any, indexes: Sequence[int]) -> Any:
        header = hot.header(place)
        entries, at = [], 0
        for index in indexes:
            entries.append(replace(header.entries[index], row_start=at))
            at += header.entries[index].row_count
        table = storage.fetch._rows(hot, place, header, indexes)
        return encode_block(header.block_id, header.ring_epoch, table, tuple(entries))

    return [
        (storage.hot, "decode_block", lambda _data: None),
        (storage.fetch, "_restricted", restricted),
    ]


@mutant(
    "a hint counts to W", "I9", "I1", "I4", parts=(HINTS,), faults=("partition", "kill", "one way")
)
def _() -> Sequence[Place]:
    put: Any = ingestor.block_put.BlockPut
    real: Any = put._failure

    def failure(self: Any, owner: str, error: Exception) -> bool:
        found = real(self, owner, error)
        count = len(self._block.header.entries)
        stored = PutReply((EntryStatus.STORED,) * count, (0,) * count, ((),) * count, ())
        for submission, first in zip(self._submissions, self._firsts, strict=True):
            submission.take(owner, stored, first)
        return found

    return [(put, "_failure", failure)]


@mutant(
    "hints delivered under other names", "I2", "I8", parts=(HINTS,),
    faults=("kill", "kill", "power", "partition"),
)  # fmt: skip
def _() -> Sequence[Place]:
    async def deliver(self: Any, target: str, hints: Iterable[Any]) -> int:
        wanted = tuple(cluster.handoff.sift(hints, lambda *_: True).wanted)
        for block in await self._storage.fetch(wanted):
            header = block.header
            body = memoryview(block.data)[parse_prefix(block.data).body[0] :]
            table = open_body(body, header.columns).read()
            entries = tuple(replace(one, entry_id=_other(one.entry_id)) for one in header.entries)
            renamed = encode_block(header.block_id, header.ring_epoch, table, entries)
            options = PutOptions(self._views.current().ring_epoch, repair=True)
            limit = Deadline.after(self._clock, 2.0)
            await self._replicas.get(target).put(renamed, options, limit)
        return len(wanted)

    return [(cluster.handoff.Handoff, "_deliver", deliver)]


def _other(entry_id: bytes) -> EntryId:
    return EntryId(hashlib.sha256(entry_id).digest()[:ID_BYTES])


@mutant("hints above their cap are kept", "I16", parts=(HINTS,), faults=("kill",) * 4)
def _() -> Sequence[Place]:
    return [(storage.hints.HintLog, "trim", lambda *_: [])]


@mutant("scrub finds nothing", "I14", quick=True, parts=(SCRUB,), faults=ROTTING)
def _() -> Sequence[Place]:
    return [(storage.scrub, "damaged_blocks", lambda *_: [])]


@mutant("scrub reads the page cache", "I14", parts=(SCRUB,), faults=ROTTING)
def _() -> Sequence[Place]:
    return [(storage.scrub_read, "_let_go", lambda *_: None)]


@mutant(
    "scrub lets go of the pieces it reads alone", "I14", parts=(SCRUB, COMPACTION),
    faults=(*ROTTING, *ROTTING),
)  # fmt: skip
def _() -> Sequence[Place]:
    real = storage.scrub_read._read

    def read(handle: int, start: int, length: int) -> bytes:
        system = storage.scrub_read.os
        system.posix_fadvise(handle, start, length, system.POSIX_FADV_DONTNEED)
        return real(handle, start, length)

    return [(storage.scrub_read, "_let_go", lambda *_: None), (storage.scrub_read, "_read", read)]


@mutant(
    "scrub drops the whole file for one damaged block", "I12", "I15", quick=True,
    parts=(SCRUB,), faults=ROTTING,
)  # fmt: skip
def _() -> Sequence[Place]:
    real: Any = storage.scrub.Scrub._set_aside

    async def set_aside(self: Any, found: list[tuple[int, str]], kind: str) -> None:
        blocks = self._engine.holdings.blocks
        files = {blocks[ordinal].file for ordinal, _ in found}
        dropped = [(one.ordinal, "a neighbour") for one in blocks if one.file in files]
        await real(self, dropped, kind)

    return [(storage.scrub.Scrub, "_set_aside", set_aside)]


@mutant(
    "an owner that lost entries to damage counts to R", "I4", parts=(SCRUB,),
    faults=("rot page",) * 12 + ("partition",) * 5 + ("delete",),  # with a delete reads never pause
)  # fmt: skip
def _() -> Sequence[Place]:
    def counted(self: Any, shard: int) -> int:
        return len(self.digests.get(shard, ()))

    return [(query.scatter.Scattered, "counted", counted)]


@mutant("entries of a damaged block stay in the trees", "I8", "I14", parts=(SCRUB,), faults=ROTTING)
def _() -> Sequence[Place]:
    return [(storage.merkle.MerkleTree, "remove", lambda *_: None)]


@mutant("leaves of the trees added by XOR", "I8", parts=(SCRUB, ANTI_ENTROPY), faults=ROTTING)
def _() -> Sequence[Place]:
    bits, mask = storage.merkle._BITS, storage.merkle._MASK

    def added(node: int, count: int, total: int) -> int:
        return ((node >> bits) + count) << bits | ((node ^ total) & mask)

    return [(storage.merkle, "_added", added)]


@mutant("sync session takes other roots for equal ones", "I8", parts=(ANTI_ENTROPY,), loss=0.3)
def _() -> Sequence[Place]:
    session = cluster.anti_entropy.AntiEntropySession
    return [(session, "_below_roots", lambda *_: [])]


@mutant("sync session passes over the last entry of a list", "I8", parts=(ANTI_ENTROPY,), loss=0.3)
def _() -> Sequence[Place]:
    real: Any = cluster.anti_entropy.AntiEntropySession._compare
    size = cluster.anti_entropy.LISTED_TYPE.itemsize

    def compare(self: Any, shard: int, mine: bytes, other: bytes) -> None:
        real(self, shard, mine, other[:-size])

    return [(cluster.anti_entropy.AntiEntropySession, "_compare", compare)]

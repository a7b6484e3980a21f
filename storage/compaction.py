"""The compactor: a background loop that merges undersized blocks into segments. A shell; the plan is pure.

    plan -> read and merge (worker) -> write, fsync, rename (worker) -> holdings (loop) -> catalog, synced
         -> some seconds later: remove the merged segments, and log files that nothing needs any more

The order is what makes a crash harmless: until the catalog that names the segments is on disk, the log (or
the older segments) has all rows and the new files are left-overs; from then on the segments have them, and
without a catalog they tell so themselves. An entry is in two files for a while, never in none.

It takes a share of one core: after each merge it rests in proportion to the CPU the merge took.
"""

import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np

from records.columns import ERASED_COLUMN
from records.errors import BlockCorrupt
from runtime.clock import Clock
from runtime.logs import get_logger
from runtime.tasks import Workers
from storage.block_files import BlockFiles
from storage.catalog import Checkpointer
from storage.compaction_gauges import CompactionGauges
from storage.compaction_merge import Merged, Opened, Source, carry, merge, open_source
from storage.compaction_plan import Piece, plan, undersized
from storage.engine import Engine
from storage.entry_table import GONE
from storage.holdings import BlockPlace, Holdings
from storage.hot import HotSet
from storage.log_format import Record
from storage.reclaim import Superseded, blocks_to_move, log_files_to_keep, state_records
from storage.recovery import log_files
from storage.repack import droppable, is_due, pack
from storage.segment_file import hour_within
from storage.segment_write import Step, no_step, write_segment
from storage.settings import StorageSettings
from storage.wal import file_name

log = get_logger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
#: Merges that may leave a piece as it was before it is left out until the next start.
_TRIES_MAX = 3
#: Seconds that a merged file is kept for reads that began before; a later one starts over, unharmed.
_GRACE_SECONDS = 5.0
#: Blocks that lost entries (their shard left) which are written anew at a time.
_THINNED_AT_ONCE = 16
#: Decoded bytes of sources from which on a merge reads no more before it writes; it holds six times that.
_DECODED_BYTES = 32 << 20


How = Callable[[HotSet, Sequence[Source]], Iterable[Merged]]


def merge_all(hot: HotSet, sources: Sequence[Source]) -> Iterator[Merged]:
    """Segments of those that fit together, in portions: a small file may hold very much text."""
    opened: list[Opened] = []
    decoded = 0
    for source in sources:
        opened.append(open_source(hot, source))
        decoded += opened[-1].table.nbytes
        if decoded >= _DECODED_BYTES:
            yield from merge(opened)
            opened, decoded = [], 0
    yield from merge(opened)


def carry_each(hot: HotSet, sources: Sequence[Source]) -> Iterator[Merged]:
    """Each block as a segment of its own, one in memory at a time."""
    for source in sources:
        yield from carry(hot, source)


@dataclass(frozen=True, slots=True)
class Written:
    """One merge's segments on disk, in order, and the seconds of CPU it took."""

    segments: tuple[tuple[Merged, int], ...]
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Host:
    """What the compactor needs of the storage service around it.

    `read` runs work on a worker and sets a block aside that turns out damaged. `flush` makes the catalog
    durable and says whether it could. `append` makes records durable. `paused` is asked before each merge:
    little disk, or a log that failed. `log_ended`: the latter alone; what frees space goes on without.
    """

    read: Callable[..., Awaitable[Written]]
    flush: Callable[[], Awaitable[bool]]
    append: Callable[[Sequence[Record]], Awaitable[None]]
    paused: Callable[[], bool]
    log_ended: Callable[[], bool]


@dataclass(slots=True)
class _Candidates:
    """The undersized pieces, kept up to date by looking at new blocks only."""

    settings: StorageSettings
    pieces: dict[int, Piece] = field(default_factory=dict)
    tries: dict[int, int] = field(default_factory=dict)
    looked_at: int = 0

    def update(self, holdings: Holdings, now: float) -> None:
        for place in holdings.blocks.since(self.looked_at):
            low, high = holdings.table.block_range(place.ordinal)
            self._consider(place, high - low, now)
        self.looked_at = holdings.blocks.end
        for ordinal in [n for n in self.pieces if holdings.blocks[n] is None]:
            del self.pieces[ordinal]
            self.tries.pop(ordinal, None)

    def _consider(self, place: BlockPlace, entries: int, now: float) -> None:
        segment, rows, length = place.file < 0, place.rows, place.length
        if undersized(self.settings, segment, rows, length, entries):
            hour = hour_within(place.min_ts, place.max_ts)
            piece = Piece(place.ordinal, rows, length, now, segment, hour, entries)
            self.pieces[place.ordinal] = piece

    def was_left(self, ordinal: int) -> None:
        self.tries[ordinal] = self.tries.get(ordinal, 0) + 1
        if self.tries[ordinal] >= _TRIES_MAX:
            self.pieces.pop(ordinal, None)


class Compactor:
    """Merges a node's small blocks. `step` is called again and again, on the event loop."""

    def __init__(
        self,
        engine: Engine,
        checkpointer: Checkpointer,
        files: BlockFiles,
        hot: HotSet,
        settings: StorageSettings,
        clock: Clock,
        host: Host,
        gauges: CompactionGauges,
        step: Step = no_step,
    ) -> None:
        self._engine, self._checkpointer, self._files, self._hot = engine, checkpointer, files, hot
        self._settings, self._clock, self._host, self._gauges = settings, clock, host, gauges
        self._step = step
        self._pool = Workers(1, "storage-compact")
        self._candidates = _Candidates(settings)
        self._superseded = Superseded()
        self._next_number = 1
        self._movable: tuple[int, ...] = ()
        self._thinned: set[int] = set()
        self.pause_seconds = settings.compact_interval_seconds

    def start(self, next_number: int) -> None:
        """`next_number`: above those of all segment files on disk."""
        self._next_number = next_number
        self._superseded.log_dirty = True
        table = self._engine.holdings.table
        gone = (table.rows["flags"][: table.count] & GONE) != 0
        self._thinned.update(np.unique(table.rows["block"][: table.count][gone]).tolist())
        self._count_pieces()

    @property
    def interval_seconds(self) -> float:
        """Seconds between two steps when there is nothing to do."""
        return self._settings.compact_interval_seconds

    def close(self) -> None:
        """Waits for a merge that runs."""
        self._pool.close()

    async def step(self) -> None:
        """One merge if one is due, and the removal of what earlier ones made superfluous."""
        now = self._clock.monotonic()
        holdings = self._engine.holdings
        self.pause_seconds = self._settings.compact_interval_seconds
        await self._tidy(now)
        self._candidates.update(holdings, now)
        if not self._settings.compact:
            return
        if self._host.paused():
            await self._make_room()
            return
        chosen = plan(self._candidates.pieces.values(), now, self._settings)
        if chosen:
            await self.merge(chosen)
        elif self._movable:
            moving, self._movable = self._movable, ()
            present = [n for n in moving if holdings.blocks[n] is not None]
            await self.merge(present, carry_each)
        elif self._thinned:
            await self._let_go()
        table = holdings.table
        if is_due(table.count, table.gone):
            rows, present = table.rows[: table.count], holdings.blocks.mask()
            if is_due(len(rows), await self._pool.run(droppable, rows, present)):
                await self.repack()

    async def apart(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work` on this thread: it ends before a merge begins, and numbers of entries stay meanwhile."""
        return await self._pool.run(work, *args, **kwargs)

    def thinned(self, ordinals: Iterable[int]) -> None:
        """Entries of these blocks are gone for good: write anew what is left of them, soon."""
        lost = set(ordinals)
        self._thinned |= lost
        self._checkpointer.thinned |= lost

    @property
    def waiting_to_thin(self) -> int:
        """Blocks that still hold, on disk, entries that are gone."""
        return len(self._thinned)

    async def _make_room(self) -> None:
        """With little disk: thinned blocks one at a time, for which the floor has room: it frees space."""
        if self._thinned and not self._host.log_ended():
            await self._let_go(1)

    async def _let_go(self, at_once: int = _THINNED_AT_ONCE) -> None:
        """Drops thinned blocks that are empty, and writes some of the others anew; again if that fails."""
        chosen = sorted(self._thinned)[:at_once]
        self._thinned.difference_update(chosen)
        try:
            await self._thin(chosen)
        except (BlockCorrupt, OSError):  # the damaged one is set aside; the others are as they were
            self._thinned.update(chosen)
            raise

    async def _thin(self, chosen: Sequence[int]) -> None:
        holdings = self._engine.holdings
        places = [place for n in chosen if (place := holdings.blocks[n]) is not None]
        empty = [place for place in places if holdings.drop_merged(place.ordinal)]
        for place in empty:
            self._checkpointer.gone.append(place.ordinal)
            self._hot.forget(place.ordinal)
        left = [one.ordinal for one in places if holdings.blocks[one.ordinal] is not None]
        if left:
            await self.merge(left, carry_each)
        if empty and await self._host.flush():
            self._superseded.add(empty, self._clock.monotonic() + _GRACE_SECONDS)

    def _source(self, ordinal: int) -> Source:
        holdings = self._engine.holdings
        place = holdings.blocks[ordinal]
        assert place is not None, "candidates are present"
        numbers = holdings.present(ordinal)
        return Source(place, numbers, holdings.table.rows["index"][numbers].copy())

    async def merge(
        self, ordinals: Sequence[int], how: How = merge_all, *, patient: bool = False
    ) -> list[BlockPlace]:
        """Merges these blocks and segments, as far as they fit together (or moves each: `carry_each`).

        The places of the new segments. `patient`: blocks that stay as they were are no failure.

        Raises:
            BlockCorrupt: one is damaged, and set aside by now; the others are as they were.
            OSError: a segment could not be written; all are as they were.
        """
        sources = [self._source(ordinal) for ordinal in ordinals]
        number = self._next_number
        self._next_number += len(sources)  # no more segments than sources
        written = await self._host.read(self._pool, self._write, sources, number, how)
        self._step("apply")
        merged, places = self._apply(sources, written, patient)
        self.pause_seconds += written.cpu_seconds * (1 / self._settings.compact_cpu_share - 1)
        self._gauges.merged(merged, [one.block for one, _ in written.segments], written.cpu_seconds)
        self._count_pieces()
        if merged:
            await self._flush(merged)
        return places

    async def _flush(self, gone: list[BlockPlace]) -> None:
        """Makes the catalog durable, then files of these places may go."""
        self._step("flush")
        if await self._host.flush():
            self._superseded.add(gone, self._clock.monotonic() + _GRACE_SECONDS)
        self._step("flushed")

    async def give_up(self, ordinals: Sequence[int]) -> None:
        """Lets go of blocks that have no present entries left."""
        gone: list[BlockPlace] = []
        for ordinal in ordinals:
            place = self._engine.holdings.blocks[ordinal]
            if place is not None and self._engine.holdings.drop_merged(ordinal):
                gone.append(place)
                self._checkpointer.gone.append(ordinal)
                self._hot.forget(ordinal)
        if gone:
            await self._flush(gone)
        self._count_pieces()

    def _write(self, sources: list[Source], number: int, how: How) -> Written:
        """Reads, merges and writes; on the worker. If that fails no file of it is left."""
        began = time.thread_time()
        segments, paths = list[tuple[Merged, int]](), list[Path]()
        try:
            for position, merged in enumerate(how(self._hot, sources)):
                at = number + position
                paths.append(write_segment(self._files.segments, at, merged.block, self._step))
                segments.append((merged, at))
        except Exception:
            with contextlib.suppress(OSError):  # the next start removes it
                _remove_all(paths)
            raise
        return Written(tuple(segments), time.thread_time() - began)

    def _apply(
        self, sources: list[Source], written: Written, patient: bool
    ) -> tuple[list[BlockPlace], list[BlockPlace]]:
        """Files the entries under their segments; (the places that are given up, the new ones)."""
        holdings = self._engine.holdings
        places: list[BlockPlace] = []
        for merged, number in written.segments:
            block, ordinal = merged.block, holdings.blocks.end
            place = BlockPlace.of(ordinal, block.header, -number, 0, len(block.data))
            erased = ERASED_COLUMN in block.header.columns
            if (holdings.table.rows["flags"][merged.numbers] & GONE).any():  # while it was written
                self._thinned.add(ordinal)
            holdings.refile(place, merged.numbers, merged.row_starts, erased)
            places.append(place)
        gone = []
        for source in sources:
            ordinal = source.place.ordinal
            if holdings.drop_merged(ordinal):
                gone.append(source.place)
                self._checkpointer.gone.append(ordinal)
                self._hot.forget(ordinal)
            elif not patient:
                self._candidates.was_left(ordinal)
        return gone, places

    async def _tidy(self, now: float) -> None:
        """Removes segment files that were merged, and log files that hold nothing of use."""
        for place in self._superseded.due(now):
            self._step("unlink")
            await self._pool.run(_unlink, self._files.path(place))
            self._files.forget(place)
        if not self._superseded.log_due(now):
            return
        keep = log_files_to_keep(self._engine.holdings.blocks, self._checkpointer.flushed)
        sizes = await self._pool.run(_log_sizes, self._files.log)
        flushed = self._checkpointer.flushed
        limit = self._settings.segment_bytes
        self._movable = blocks_to_move(self._engine.holdings.blocks, sizes, flushed, limit)
        useless = [
            self._files.log / file_name(sequence) for sequence in sizes if not keep(sequence)
        ]
        if useless and not self._host.log_ended():
            await self._host.append(state_records(self._engine))
            self._step("remove log")
            self._gauges.reclaimed.inc(await self._pool.run(_remove_all, useless))

    async def repack(self) -> None:
        """Drops the entry rows of blocks that are gone. No merge may run meanwhile: it holds numbers."""
        holdings = self._engine.holdings
        table = holdings.table
        rows, present = table.rows[: table.count], holdings.blocks.mask()
        packed = await self._pool.run(pack, rows, present)
        moved = holdings.adopt(packed)
        self._hot.rollups.renumber(moved, holdings.generation)
        dropped = packed.seen - len(packed.kept)
        self._gauges.repacked.inc(dropped)
        log.info("entry rows were packed", dropped=dropped, kept=table.count)

    def _count_pieces(self) -> None:
        blocks = self._engine.holdings.blocks
        segments = sum(place.file < 0 for place in blocks)
        self._gauges.segments.set(segments)


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _log_sizes(directory: Path) -> dict[int, int]:
    """Bytes of the log files by sequence."""
    return {sequence: path.stat().st_size for sequence, path in log_files(directory).items()}


def _remove_all(paths: list[Path]) -> int:
    """Removes files, oldest first; the bytes that were freed."""
    freed = 0
    for path in paths:
        freed += path.stat().st_size
        path.unlink()
    return freed

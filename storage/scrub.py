"""Scrub: everything stored is read back within a period, and what is damaged is set aside. A shell.

    next piece -> read and verify (worker, from the disk) -> what is damaged? (pure) -> set aside -> rest

A block set aside is *missing* on this node from then on: its entries leave the table and the Merkle trees, so
read repair, hints and anti-entropy bring them back from peers by put, like any other difference. Damage to
what stands between blocks in the log (fences, epochs) is written again at the log's end from memory. In the
end of a pass the catalog is checked too, and made anew if SQLite finds it damaged.

It rests so that a pass fills its period, and at least so long that CPU and bytes stay within their shares.
Progress is kept in `scrub.json`, about once in five seconds: a restart repeats at most that.
Source: reliability.md 2.2, "Bit rot"; Schwarz et al., "Disk Scrubbing in Large Archival Storage Systems".
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runtime.clock import Clock
from runtime.logs import get_logger
from runtime.metrics import Metrics
from runtime.tasks import Workers
from storage.block_files import BlockFiles
from storage.engine import Engine
from storage.holdings import BlockPlace
from storage.log_format import Record, padding
from storage.reclaim import state_records
from storage.recovery import durable_ends, log_files
from storage.scrub_plan import (
    LOG,
    Cursor,
    Progress,
    after,
    damaged_blocks,
    next_file,
    pace_seconds,
    rest_seconds,
    seconds_until_due,
)
from storage.scrub_read import Read, read_log_window, read_segment
from storage.settings import StorageSettings
from storage.wal import Position, file_name

log = get_logger(__name__)
#: Seconds between two writes of the progress.
_SAVE_SECONDS = 5.0
#: Seconds between two looks whether a pass is due.
_LOOK_SECONDS = 60.0
#: Seconds until a step that failed is tried again.
_AGAIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ScrubHost:
    """What the scrub needs of the storage service around it.

    `set_aside` takes (ordinal, reason). `append` makes records durable. `durable` is the end of the log up to
    which everything is applied. `catalog_damage` reads all of the catalog: what is wrong with it, or "". It
    blocks, beside writes to it. `remake_catalog` makes it anew.
    """

    set_aside: Callable[[int, str], Awaitable[None]]
    append: Callable[[Sequence[Record]], Awaitable[None]]
    durable: Callable[[], Position]
    catalog_damage: Callable[[], str]
    remake_catalog: Callable[[], Awaitable[object]]


class Scrub:
    """Reads a node's files back, again and again. `step` is called on the event loop."""

    def __init__(
        self,
        path: Path,
        engine: Engine,
        files: BlockFiles,
        settings: StorageSettings,
        clock: Clock,
        metrics: Metrics,
        host: ScrubHost,
    ) -> None:
        """`path`: where progress is kept."""
        self._path, self._engine, self._files = path, engine, files
        self._settings, self._clock, self._host = settings, clock, host
        self._pool = Workers(1, "storage-scrub")
        self._progress, self._started = Progress(), False
        self._limits: dict[int, int] = {}
        self._segments: dict[int, BlockPlace] = {}
        self._in_file: tuple[int, list[BlockPlace]] = (0, [])
        self._saved = float("-inf")
        self.pause_seconds = 1.0
        self._bytes = metrics.counter("quorumlog_scrub_bytes_total", "Bytes read back and verified")
        self._cpu = metrics.counter("quorumlog_scrub_cpu_seconds_total", "CPU of reading back")
        self._passes = metrics.counter(
            "quorumlog_scrub_passes_total", "Passes over everything stored"
        )
        self._damaged = metrics.counter(
            "quorumlog_scrub_damaged_total",
            "Damages found by reading back, by what it hit",
            ("kind",),
        )
        self._last = metrics.gauge(
            "quorumlog_scrub_last_pass_seconds", "When the last full pass ended, seconds since 1970"
        )

    # -- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Takes up the pass that was under way."""
        self._progress = await self._pool.run(_load, self._path)
        await self._begin_files()
        self._started = True

    async def stop(self) -> None:
        """Keeps the progress."""
        if self._started:
            await self._save()
        self._pool.close()

    def status(self) -> dict[str, Any]:
        """What an operator sees."""
        now, last = self._progress, self._progress.last
        return {
            "period_seconds": self._settings.scrub_period_seconds,
            "running": now.began is not None,
            "bytes": now.bytes,
            "damaged": now.damaged,
            "last_pass_began": last and last.began,
            "last_pass_ended": last and last.ended,
            "last_pass_bytes": last and last.bytes,
            "last_pass_damaged": last and last.damaged,
        }

    # -- a pass -----------------------------------------------------------------------------------

    async def step(self) -> None:
        """Reads one piece if a pass is under way or due, and says how long to rest."""
        progress, now = self._progress, self._clock.wall_micros() / 1e6
        self.pause_seconds = _AGAIN_SECONDS  # if what follows fails
        if progress.began is None:
            wait = seconds_until_due(progress, now, self._settings.scrub_period_seconds)
            if wait:
                self.pause_seconds = min(_LOOK_SECONDS, wait)
                return
            await self._begin_files()
            progress.begin(now)
        at = next_file(progress.cursor, self._limits, self._segments)
        if at is None:
            await self._finish(now)
            return
        if at.kind == LOG:
            limit = self._limits[at.number]
            read = await self._read_log(at, limit)
        else:
            limit, read = 0, await self._read_segment(at)
        progress.cursor = after(at, read, limit)
        progress.bytes += read.size
        self._bytes.inc(read.size)
        self._cpu.inc(read.cpu_seconds)
        await self._rest(read, now)

    async def _rest(self, read: Read, now: float) -> None:
        settings, total = self._settings, self._engine.holdings.bytes
        pace = pace_seconds(self._progress, read.size, total, now, settings.scrub_period_seconds)
        self.pause_seconds = rest_seconds(
            read, settings.scrub_cpu_share, settings.scrub_bytes_per_second, pace
        )
        if now - self._saved >= _SAVE_SECONDS:
            self._saved = now
            await self._save()

    async def _begin_files(self) -> None:
        """What there is to read: the log up to where it is durable, and the segments.

        A log file that has vanished, or is shorter than its blocks need, is read to where they end: damage.
        """
        end, places = self._host.durable(), list(self._engine.holdings.blocks)
        sizes = await self._pool.run(_log_ends, self._files.log)
        self._limits = {
            number: min(size, end.offset) if number == end.file else size
            for number, size in sizes.items()
            if number <= end.file
        }
        for place in places:
            if 0 < place.file <= end.file:
                limit = self._limits.get(place.file, 0)
                if place.file < end.file or place.offset < end.offset:
                    block_end = place.offset + place.length
                    self._limits[place.file] = max(limit, block_end + padding(block_end))
        at = self._progress.cursor
        if at.kind == LOG and at.offset > self._limits.get(at.number, at.offset):
            self._progress.cursor = replace(at, offset=0)  # it is shorter than it was
        self._segments = {-place.file: place for place in places if place.file < 0}
        self._in_file = (0, [])

    async def _read_log(self, at: Cursor, limit: int) -> Read:
        if self._in_file[0] != at.number:
            blocks = self._engine.holdings.blocks
            self._in_file = (at.number, [one for one in blocks if one.file == at.number])
        path = self._files.log / file_name(at.number)
        read = await self._pool.run(read_log_window, path, at.number, at.offset, limit)
        places = self._in_file[1]
        if not read.gone:
            places = [one for one in places if at.offset <= one.offset < read.end]
        await self._set_aside(damaged_blocks(self._engine.holdings, places, read), "block")
        lost = ((0, limit, "its file is gone"),) if read.gone and places else read.damages
        await self._mend_log(at.number, places, lost)
        return read

    async def _read_segment(self, at: Cursor) -> Read:
        place = self._segments[at.number]
        if self._engine.holdings.blocks[place.ordinal] is None:
            return Read(0, 0, 0.0, {}, gone=True)
        read = await self._pool.run(read_segment, self._files.path(place), place)
        await self._set_aside(damaged_blocks(self._engine.holdings, [place], read), "segment")
        return read

    async def _set_aside(self, found: list[tuple[int, str]], kind: str) -> None:
        for ordinal, why in found:
            self._found(kind)
            await self._host.set_aside(ordinal, why)

    def _found(self, kind: str) -> None:
        self._progress.damaged += 1
        self._damaged.labels(kind).inc()

    async def _mend_log(
        self, number: int, places: list[BlockPlace], damages: Sequence[tuple[int, int, str]]
    ) -> None:
        """What the log says beside blocks is written again, from memory, once for each new damage."""
        new = [one for one in damages if not self._progress.knows(number, one[0])]
        if not new:
            return
        await self._host.append(state_records(self._engine))
        for start, end, why in new:
            self._progress.learn(number, start)
            if not any(start <= place.offset < end for place in places):
                self._found("log")
                log.error("damaged bytes in the log", file=number, start=start, reason=why)

    async def _finish(self, now: float) -> None:
        if why := await self._pool.run(self._host.catalog_damage):
            await self._host.remake_catalog()
            self._found("catalog")
            log.error("the catalog is damaged and was made anew", reason=why)
        self._progress.end(now)
        self._passes.inc()
        self._last.set(now)
        self.pause_seconds = 1.0
        found = self._progress.last
        assert found is not None
        log.info("everything was read back", bytes=found.bytes, damaged=found.damaged)
        await self._save()

    async def _save(self) -> None:
        text = json.dumps(self._progress.to_dict())
        try:
            await self._pool.run(_write, self._path, text)
        except OSError as error:
            log.warning("the progress of the scrub could not be kept", error=error)


def _log_ends(directory: Path) -> dict[int, int]:
    """Where the log files end: a power cut may leave what was never durable behind that, also for good."""
    files = log_files(directory)
    ends = durable_ends(files)
    sizes = {number: path.stat().st_size for number, path in files.items()}
    return {number: min(size, ends.get(number, size)) for number, size in sizes.items()}


def _load(path: Path) -> Progress:
    try:
        return Progress.from_dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return Progress()
    except (OSError, ValueError, LookupError, TypeError) as error:
        log.warning("the progress of the scrub cannot be read: it begins anew", error=error)
        return Progress()


def _write(path: Path, text: str) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.replace(path)

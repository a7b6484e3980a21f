"""Which undersized blocks and segments to merge next. Pure.

Two kinds of merge:
* *Blocks* of the log, whatever their hours: as soon as 64 wait, or 8 for two seconds, or two for half a
  minute. Big blocks are never touched: merging them buys nothing.
* *Segments* of one hour, by size: a run of pieces, ascending, in which none is larger than twice the sum of
  those before it. A piece that is written again so becomes at least half as large again as the largest that
  went into it: no row is rewritten more than O(log n) times. A run has 8 pieces, or 2 once the hour rests.

A piece that could not be merged (alone with its schema) is left out after a few tries.

Source: O'Neil et al., "The Log-Structured Merge-Tree" (1996); the ratio rule is Bentley and Saxe's
logarithmic method (1980).
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from storage.settings import StorageSettings

#: Pieces of one hour, or blocks of any, that make a merge worth while at once; and once they have waited.
MANY_BLOCKS, SOME_BLOCKS, FEW_BLOCKS = 64, 8, 2
MANY_SEGMENTS, FEW_SEGMENTS = 8, 2
SOME_SECONDS, FEW_SECONDS, REST_SECONDS = 2.0, 30.0, 60.0
#: Pieces that one merge reads at most: about half a second of a worker.
MERGE_MAX = 512
#: Entries of a segment that is merged no more, and about what one merge takes: its header is decoded as a
#: whole (5 us an entry), and filing the entries anew holds up the event loop (1 us an entry).
ENTRIES_MAX = 16_384


@dataclass(frozen=True, slots=True)
class Piece:
    """A block or segment that is smaller than it should be. `seen_at`: seconds, when it was first seen.

    `hour` is that of all its rows, None if they span several; only segments are merged by it.
    """

    ordinal: int
    rows: int
    length: int
    seen_at: float
    segment: bool = False
    hour: int | None = None
    entries: int = 1


def undersized(
    settings: StorageSettings, segment: bool, rows: int, length: int, entries: int = 1
) -> bool:
    """Whether a block, or a segment, of this size should be merged."""
    limit = settings.segment_rows if segment else settings.compact_below_rows
    return rows < limit and length < settings.segment_bytes // 2 and entries < ENTRIES_MAX // 2


def plan(pieces: Iterable[Piece], now: float, settings: StorageSettings) -> tuple[int, ...]:
    """Ordinals to merge now, in the order of their rows' arrival; empty if there is nothing to do."""
    blocks: list[Piece] = []
    hours: dict[int | None, list[Piece]] = defaultdict(list)
    for piece in pieces:
        if piece.segment:
            hours[piece.hour].append(piece)
        else:
            blocks.append(piece)
    chosen = _blocks(sorted(blocks, key=lambda one: one.ordinal), now, settings)
    if not chosen:
        runs = [_run(found, now, settings) for found in hours.values() if len(found) > 1]
        chosen = max(runs, key=len, default=[])
    return tuple(sorted(piece.ordinal for piece in chosen))


def _blocks(blocks: list[Piece], now: float, settings: StorageSettings) -> list[Piece]:
    if not blocks:
        return []
    waited = now - blocks[0].seen_at
    wanted = MANY_BLOCKS
    if waited >= SOME_SECONDS:
        wanted = SOME_BLOCKS
    if waited >= FEW_SECONDS:
        wanted = FEW_BLOCKS
    return _capped(blocks, settings) if len(blocks) >= wanted else []


def _capped(pieces: list[Piece], settings: StorageSettings) -> list[Piece]:
    """The first pieces that together make a segment of the wanted size; always two."""
    rows = length = entries = 0
    for count, piece in enumerate(pieces):
        full = rows + piece.rows > settings.segment_rows
        full |= length + piece.length > settings.segment_bytes
        full |= entries + piece.entries > ENTRIES_MAX
        if count >= 2 and (full or count >= MERGE_MAX):
            return pieces[:count]
        rows, length = rows + piece.rows, length + piece.length
        entries += piece.entries
    return pieces


def _run(pieces: list[Piece], now: float, settings: StorageSettings) -> list[Piece]:
    """The longest run of pieces of one hour that may be merged; empty if it is too short for now."""
    pieces = sorted(pieces, key=lambda one: (one.rows, one.ordinal))
    rests = now - max(piece.seen_at for piece in pieces) >= REST_SECONDS
    best: list[Piece] = []
    start = 0
    while start < len(pieces):
        total, end = pieces[start].rows, start + 1
        while end < len(pieces) and pieces[end].rows <= 2 * total:
            total += pieces[end].rows
            end += 1
        run = _capped(pieces[start:end], settings)
        best = max(best, run, key=len)
        start = end
    return best if len(best) >= (FEW_SEGMENTS if rests else MANY_SEGMENTS) else []

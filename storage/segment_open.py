"""Segments at start: which of the files on disk are the only home of some entries. Runs on a worker.

With a catalog, files that it does not name are left over from a merge that was cut short: their entries are
in the log or in older segments still. Without one, each segment's own header says what it holds; the newest
goes first, so that a merge which had not yet removed its sources counts, and they do not.

Either way a file is removed only if all of its entries are present elsewhere.
"""

import os
from pathlib import Path

from records.block import BlockHeader
from records.block_codec import PREFIX_BYTES, decode_header, parse_prefix
from records.errors import BlockCorrupt, EnvelopeCorrupt
from runtime.logs import get_logger
from storage.catalog import QuarantineNote
from storage.engine import Engine
from storage.holdings import BlockPlace
from storage.home import Home
from storage.segment_file import MARK, read_extents, segment_files, segment_path

log = get_logger(__name__)


def read_segment_header(path: Path) -> tuple[BlockHeader, int]:
    """(header, length as a block) of a segment file.

    Raises:
        BlockCorrupt, EnvelopeCorrupt: damaged.
        OSError: it cannot be read.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        extents = read_extents(handle)
        front = os.pread(handle, extents.front, extents.groups)
    finally:
        os.close(handle)
    parts = parse_prefix(front[:PREFIX_BYTES])
    if parts.total_bytes != extents.block_bytes:
        raise BlockCorrupt("the segment has another length than its prefix says")
    return decode_header(front), extents.block_bytes


def check_segment(home: Home, place: BlockPlace) -> bool:
    """Whether the file of a segment that the catalog names is there, as long as it should be."""
    path = home.segments / segment_path(-place.file, place.min_ts, place.max_ts)
    try:
        return path.stat().st_size == place.length + MARK.size
    except OSError:
        return False


def adopt_segments(home: Home, engine: Engine) -> list[QuarantineNote]:
    """Files segments that `engine` does not know, if they hold what it lacks; removes them if not."""
    known = {-place.file for place in engine.holdings.blocks if place.file < 0}
    notes = []
    for path in home.segments.glob("*.new"):
        path.unlink()
    for number, path in reversed(segment_files(home.segments).items()):
        if number in known:
            continue
        try:
            header, length = read_segment_header(path)
            if path != home.segments / segment_path(number, header.min_ts, header.max_ts):
                log.warning("a segment lies in the wrong place and is ignored", name=str(path))
                continue
            _adopt(engine, number, path, header, length)
        except (BlockCorrupt, EnvelopeCorrupt, OSError) as error:
            log.error("a segment cannot be read", name=path.name, error=error)
            size = path.stat().st_size
            home.keep_damaged(path, 0, size)
            notes.append(QuarantineNote(-number, 0, size, "block", f"segment: {error}"))
    return notes


def _adopt(engine: Engine, number: int, path: Path, header: BlockHeader, length: int) -> None:
    absent = engine.still_absent(header, range(len(header.entries)))
    if not absent:
        path.unlink()
        return
    ordinal = engine.holdings.blocks.end
    place = BlockPlace.of(ordinal, header, -number, 0, length)
    engine.file_block(header, absent, place)

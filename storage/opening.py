"""Brings a node's state back at start: the catalog, then the log's tail; without a catalog, segments and log.

Replay repeats put-if-absent: a record says which entries were accepted when it was written, and an entry
that is present already (an append that failed and was repeated) is not filed twice.
"""

from records.block_codec import decode_header
from records.errors import BlockCorrupt, EnvelopeCorrupt
from records.ids import EntryId
from runtime.logs import get_logger
from storage.catalog import Catalog, CatalogUnusable, Checkpointer, QuarantineNote
from storage.engine import Engine
from storage.holdings import BlockPlace
from storage.home import Home
from storage.log_format import FoundRecord, RecordType
from storage.recovery import RecoveredFile, log_files, read_log
from storage.segment_open import adopt_segments, check_segment
from storage.wal import Position

log = get_logger(__name__)


class FilesLost(CatalogUnusable):
    """The catalog names files, or parts of them, that are not there: whatever was in them is lost."""


class Opened:
    """An engine as the disk has it, and where the log ends."""

    def __init__(self, home: Home) -> None:
        """Reads the catalog and the log. Slow: call it on a worker."""
        self.catalog = Catalog(home.catalog)
        self.rebuilt = False
        self.engine, start = self._checkpoint(home)
        self.checkpointer = Checkpointer(self.engine)
        if self.rebuilt:
            self.catalog.create(self.engine.holdings.holes.rows())
        else:
            self.checkpointer.mark_loaded(start)
        self.end = start
        self.replayed_blocks = 0
        if self.rebuilt:  # before the log, which may still have what they were made of
            self.checkpointer.notes += (unread := adopt_segments(home, self.engine))
            if unread:
                self._lost_something()
        for file in read_log(home.log, home.quarantine, start):
            self._replay(file)
        if not self.rebuilt:
            self.checkpointer.notes += adopt_segments(home, self.engine)
        self.checkpointer.position = self.end
        table = self.engine.holdings.table
        self.engine.holdings.holes.settle(lambda one: table.find(EntryId(one)) is not None)

    def _checkpoint(self, home: Home) -> tuple[Engine, Position]:
        engine = Engine()
        try:
            start = self.catalog.load(engine)
            _check_places(engine, home, start)
            return engine, start
        except CatalogUnusable as error:
            self.rebuilt = True
            log.info("the catalog is made anew", reason=str(error))
            engine = Engine()
            holes = self.catalog.holes_left()
            engine.holdings.holes.load(holes or ())
            forgotten = holes is None and home.has_damaged()  # it is not known what of it is back
            if isinstance(error, FilesLost) or forgotten:
                engine.holdings.holes.add_everywhere(0)
            return engine, Position(0, 0)

    def _lost_something(self) -> None:
        """Nobody knows which entries: what says so cannot be read. Until when: see Holes.heard."""
        self.engine.holdings.holes.add_everywhere(self.engine.holdings.newest_vouched)

    def _replay(self, file: RecoveredFile) -> None:
        for damage in file.scan.damages:
            kind = "corrupt" if damage.corrupt else "torn"
            note = QuarantineNote(file.sequence, damage.start, damage.end, kind, damage.reason)
            self.checkpointer.notes.append(note)
            if damage.corrupt:
                self._lost_something()
        for record in file.scan.records:
            if record.type == RecordType.BLOCK:
                self._replay_block(file, record)
            else:
                self.engine.replay(record.type, record.meta)
        end = max([file.scan.end, *(damage.end for damage in file.scan.damages if damage.corrupt)])
        self.end = Position(file.sequence, end)

    def _replay_block(self, file: RecoveredFile, record: FoundRecord) -> None:
        body = file.data[record.body_offset : record.body_offset + record.body_bytes]
        try:
            header = decode_header(body)
        except (
            BlockCorrupt,
            EnvelopeCorrupt,
        ) as error:  # whole, yet not one of ours: a newer format
            note = QuarantineNote(
                file.sequence, record.offset, record.end, "corrupt", f"block header: {error}"
            )
            self.checkpointer.notes.append(note)
            self._lost_something()
            log.error("a block in the log cannot be read", file=file.sequence, error=error)
            return
        accepted = range(len(header.entries)) if record.meta is None else record.meta
        absent = self.engine.still_absent(header, list(accepted))
        if absent:
            ordinal = self.engine.holdings.blocks.end
            place = BlockPlace.of(
                ordinal, header, file.sequence, record.body_offset, record.body_bytes
            )
            self.engine.file_block(header, absent, place)
            self.replayed_blocks += 1


def _check_places(engine: Engine, home: Home, start: Position) -> None:
    """The catalog speaks of these files, not of others or of a longer log.

    Raises:
        FilesLost: it does not.
    """
    sizes = {sequence: path.stat().st_size for sequence, path in log_files(home.log).items()}
    if start.offset > sizes.get(start.file, 0):
        raise FilesLost("the log is shorter than the catalog says")
    for place in engine.holdings.blocks:
        if place.file < 0 and not check_segment(home, place):
            raise FilesLost(f"segment {-place.file} is missing or cut")
        if place.file >= 0 and place.offset + place.length > sizes.get(place.file, 0):
            raise FilesLost(f"block {place.ordinal} lies outside of the log")

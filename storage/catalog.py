"""The catalog: a SQLite checkpoint of the holdings, so that a start reads only the log's tail.

Everything in it follows from the log and the segment files; missing, damaged or of another version it is
made anew from them.
One transaction carries the blocks since the last flush, what they changed, and the log position up to which
the catalog is complete, so it is never ahead of itself. It is written off the ack path.

A block is one row; its entries are the bytes of their entry-table rows (a million entries are one pass of
`frombuffer` at start, not a million rows). What is hidden of an entry is filed by (block, position in it), as
entry numbers change. Of a block that lost entries for good (their shard left) it is noted which, in the
transaction that forgets their sequences: else a restart would bring them back beside copies that came since.
A block that is gone loses its row; ordinals with many gaps are given anew at start, so
they never come to an end. (Version 2 once kept a row with `gone` set: such rows are ignored.)

WAL mode with synchronous=NORMAL: a power cut may lose the last flush, which the log gives back, and cannot
tear the file. A flush that lets go of blocks (merged, damaged) is synced, as files are removed after it.
"""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from records import envelope
from records.errors import EnvelopeCorrupt, Overloaded
from records.ids import BlockId
from runtime.logs import get_logger
from storage.engine import Engine
from storage.entry_table import ENTRY_TYPE, GONE
from storage.holdings import HIDDEN_ANY, BlockPlace
from storage.holes import HoleRow
from storage.wal import Position

log = get_logger(__name__)
VERSION = 3
#: Primary result codes of SQLite that tell of the process, not of the file.
_SCARCE = (
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
)
#: Ordinals without a block, beside one for each block, above which blocks are numbered anew at start.
GAPS_MAX = 4096
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE blocks (
    ordinal INTEGER PRIMARY KEY, block_id BLOB NOT NULL, file INTEGER NOT NULL,
    offset INTEGER NOT NULL, length INTEGER NOT NULL, rows INTEGER NOT NULL,
    min_ts INTEGER NOT NULL, max_ts INTEGER NOT NULL, gone INTEGER NOT NULL,
    entries BLOB NOT NULL, extras BLOB NOT NULL);
CREATE TABLE names (kind TEXT, number INTEGER, value BLOB, PRIMARY KEY (kind, number)) WITHOUT ROWID;
CREATE TABLE producers (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE newest (key BLOB PRIMARY KEY, epoch INTEGER) WITHOUT ROWID;
CREATE TABLE told (key BLOB PRIMARY KEY, till INTEGER) WITHOUT ROWID;
CREATE TABLE fences (shard INTEGER PRIMARY KEY, epoch INTEGER, leader TEXT);
CREATE TABLE hidden (
    block INTEGER, entry INTEGER, flags INTEGER, spans BLOB, PRIMARY KEY (block, entry)) WITHOUT ROWID;
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY, file INTEGER, start INTEGER, end INTEGER, kind TEXT, reason TEXT);
"""
#: Came later, so they may be missing. `gone`: a bit for each entry of the block, 1 if it is gone.
_THINNED = "CREATE TABLE IF NOT EXISTS thinned (block INTEGER PRIMARY KEY, gone BLOB NOT NULL)"
#: Shards that lost entries to damage and are not whole again (storage.holes).
_HOLES = "CREATE TABLE IF NOT EXISTS holes (shard INTEGER PRIMARY KEY, until, known, entries)"
_HOLE_ROWS = "SELECT shard, until, known, entries FROM holes"


class CatalogUnusable(Exception):
    """The catalog is missing, damaged or of another version: rebuild it from the log."""


@dataclass(frozen=True, slots=True)
class QuarantineNote:
    """A damaged range of the log. `kind`: torn, corrupt or block."""

    file: int
    start: int
    end: int
    kind: str
    reason: str


@dataclass(slots=True)
class Batch:
    """What one flush writes; made on the event loop, written on a worker."""

    position: Position
    ring_epoch: int
    blocks: list[tuple] = field(default_factory=list)
    gone: list[tuple] = field(default_factory=list)
    names: list[tuple] = field(default_factory=list)
    producers: list[tuple] = field(default_factory=list)
    newest: list[tuple] = field(default_factory=list)
    told: list[tuple] = field(default_factory=list)
    fences: list[tuple] = field(default_factory=list)
    hidden: list[tuple] = field(default_factory=list)
    notes: list[tuple] = field(default_factory=list)
    thinned: list[tuple] = field(default_factory=list)
    #: All of them, or None if none has changed.
    holes: list[HoleRow] | None = None


class Checkpointer:
    """Collects what changed in an engine since the last batch. Used on the event loop only."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.position = self._flushed = Position(0, 0)
        self.gone: list[int] = []
        self.notes: list[QuarantineNote] = []
        #: Ordinals of blocks of which entries are gone for good.
        self.thinned: set[int] = set()
        self._blocks = self._tenants = self._producers = 0

    def mark_loaded(self, position: Position) -> None:
        """All that the engine holds now is in the catalog already."""
        holdings = self.engine.holdings
        self.position = self._flushed = position
        self._blocks = holdings.blocks.end
        self._tenants = len(holdings.table.tenants.values)
        self._producers = len(holdings.table.producers.values)
        holdings.dirty_hidden.clear()
        holdings.holes.dirty = False
        for dirty in (holdings.producers.dirty, holdings.producers.dirty_newest):
            dirty.clear()
        holdings.producers.dirty_told.clear()
        self.engine.dirty_fences.clear()

    def forget(self) -> None:
        """The catalog is empty again: the next batch carries everything."""
        holdings, book = self.engine.holdings, self.engine.holdings.producers
        self._blocks = self._tenants = self._producers = 0
        self._flushed = Position(-1, 0)
        flags = holdings.table.rows["flags"][: holdings.table.count]
        holdings.dirty_hidden.update(np.flatnonzero(flags & HIDDEN_ANY).tolist())
        holdings.dirty_hidden.update(holdings.partly_hidden)
        book.dirty.update(book.held)
        book.dirty_newest.update(book.newest)
        book.dirty_told.update(book.told)
        self.engine.dirty_fences.update(self.engine.fences)
        holdings.holes.dirty = bool(holdings.holes)

    def set_aside(self, place: BlockPlace, reason: str) -> None:
        """A damaged block is gone from the engine."""
        self.gone.append(place.ordinal)
        end = place.offset + place.length
        self.notes.append(QuarantineNote(place.file, place.offset, end, "block", reason))

    def holes(self) -> list[HoleRow]:
        """What a new catalog must say at once."""
        return self.engine.holdings.holes.rows()

    @property
    def flushed(self) -> Position:
        """The log position up to which batches were made."""
        return self._flushed

    @property
    def changed(self) -> bool:
        """Whether a batch would carry anything."""
        more = self.gone or self.notes or self.thinned or self.engine.holdings.holes.dirty
        return self.position != self._flushed or bool(more)

    def batch(self) -> Batch:
        """Everything that changed; the next batch begins empty."""
        holdings, engine = self.engine.holdings, self.engine
        result = Batch(self.position, engine.ring_epoch)
        result.blocks = [self._block_row(one) for one in holdings.blocks.since(self._blocks)]
        result.gone = [(ordinal,) for ordinal in self.gone]
        result.names = self._new_names()
        book = holdings.producers
        result.producers = [(envelope.packb(k), _held(book.held[k])) for k in book.dirty]
        result.newest = [(envelope.packb(k), book.newest[k]) for k in book.dirty_newest]
        result.told = [(envelope.packb(k), book.told[k]) for k in book.dirty_told]
        result.fences = [(s, *engine.fences[s]) for s in engine.dirty_fences]
        result.hidden = [row for n in holdings.dirty_hidden if (row := self._hidden_row(n))]
        result.notes = [(n.file, n.start, n.end, n.kind, n.reason) for n in self.notes]
        result.thinned = [row for n in self.thinned if (row := self._thinned_row(n))]
        result.holes = holdings.holes.rows() if holdings.holes.dirty else None
        self.gone, self.notes, self.thinned = [], [], set()
        self.mark_loaded(self.position)
        return result

    def _block_row(self, place: BlockPlace) -> tuple:
        return (
            place.ordinal,
            bytes(place.block_id),
            place.file,
            place.offset,
            place.length,
            place.rows,
            place.min_ts,
            place.max_ts,
            0,
            *self._entry_blobs(place.ordinal),
        )

    def _entry_blobs(self, ordinal: int) -> tuple[bytes, bytes]:
        table, extras = self.engine.holdings.table, self.engine.holdings.extras
        low, high = table.block_range(ordinal)
        found = {n - low: extras[n] for n in range(low, high) if n in extras} if extras else {}
        return table.rows[low:high].tobytes(), envelope.packb(found)

    def _new_names(self) -> list[tuple]:
        table = self.engine.holdings.table
        rows = []
        for kind, names, known in (
            ("tenant", table.tenants.values, self._tenants),
            ("producer", table.producers.values, self._producers),
        ):
            for number in range(known, len(names)):
                rows.append((kind, number, envelope.packb(names[number])))
        return rows

    def _hidden_row(self, number: int) -> tuple | None:
        holdings = self.engine.holdings
        row = holdings.table.rows[number]
        if row["flags"] & GONE:
            return None
        low, _ = holdings.table.block_range(int(row["block"]))
        spans = envelope.packb(holdings.partly_hidden.get(number, ()))
        return int(row["block"]), number - low, int(row["flags"]) & HIDDEN_ANY, spans

    def _thinned_row(self, ordinal: int) -> tuple[int, bytes] | None:
        holdings = self.engine.holdings
        if holdings.blocks[ordinal] is None:
            return None
        low, high = holdings.table.block_range(ordinal)
        gone = (holdings.table.rows["flags"][low:high] & GONE) != 0
        return ordinal, np.packbits(gone).tobytes()


def _held(held: Any) -> bytes:
    return envelope.packb([held.rows.spans(), held.skips.spans()])


class Catalog:
    """The database. Used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = None

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("PRAGMA cache_size=-8192")
        return db

    def create(self, holes: Iterable[HoleRow] = ()) -> None:
        """Throws away what is there and begins empty, but for `holes`, which are there with their table."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        db = self._db = self._connect()
        db.execute("PRAGMA synchronous=FULL")
        db.execute("BEGIN")
        db.execute(_HOLES)
        db.executemany("INSERT INTO holes VALUES (?,?,?,?)", holes)
        db.execute("COMMIT")
        db.executescript(_SCHEMA)
        db.execute(_THINNED)
        db.execute("INSERT INTO meta VALUES ('version', ?)", (VERSION,))

    def close(self) -> None:
        """Closes the database."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def load(self, engine: Engine) -> Position:
        """Fills an empty engine; the log position up to which it is complete.

        Raises:
            CatalogUnusable: nothing usable is there; the engine must be thrown away.
        """
        if not self.path.exists():
            raise CatalogUnusable("there is none")
        try:
            self._db = self._connect()
            self._db.execute(_THINNED)
            self._db.execute(_HOLES)
            return self._load(engine)
        except (sqlite3.Error, EnvelopeCorrupt, ValueError, TypeError, LookupError) as error:
            self.close()
            raise CatalogUnusable(repr(error)) from error

    def _load(self, engine: Engine) -> Position:
        meta = dict(self._rows("SELECT key, value FROM meta"))
        if meta.get("version") != VERSION:
            raise CatalogUnusable(f"version {meta.get('version')!r}")
        if "position" not in meta:
            raise CatalogUnusable("it was never flushed")
        self._load_entries(engine)
        self._load_epochs(engine)
        engine.holdings.holes.load(self._rows(_HOLE_ROWS))
        engine.replay_ring_epoch(int(meta["ring_epoch"]))
        file, offset = envelope.unpackb(meta["position"])
        return Position(file, offset)

    def _rows(self, sql: str) -> Iterable[tuple]:
        assert self._db is not None
        return self._db.execute(sql)

    def _load_entries(self, engine: Engine) -> None:
        holdings = engine.holdings
        self._close_gaps()
        blobs: list[bytes] = []
        starts: dict[int, int] = {}
        extras: dict[int, Any] = {}
        count = 0
        for row in self._rows("SELECT * FROM blocks WHERE NOT gone ORDER BY ordinal"):
            ordinal, block_id, file, offset, length, rows, low, high, _, entries, extra = row
            place = BlockPlace(ordinal, BlockId(block_id), file, offset, length, rows, low, high)
            holdings.blocks.add(place)
            extras.update({count + int(n): e for n, e in envelope.unpackb(extra).items()})
            blobs.append(entries)
            starts[ordinal] = count
            count += len(entries) // ENTRY_TYPE.itemsize
        table = np.frombuffer(bytearray(b"".join(blobs)), ENTRY_TYPE)
        sizes = np.diff(np.append(np.fromiter(starts.values(), np.int64, len(starts)), count))
        table["block"] = np.repeat(np.fromiter(starts, np.int64, len(starts)), sizes)
        table["flags"] &= 0xFF ^ HIDDEN_ANY
        for block, entry, flags, spans in self._rows("SELECT * FROM hidden"):
            number = starts[block] + entry
            table["flags"][number] |= flags
            if parts := _spans(envelope.unpackb(spans)):
                holdings.partly_hidden[number] = parts
        for block, gone in self._rows("SELECT * FROM thinned"):
            first = starts[block]
            lost = np.flatnonzero(np.unpackbits(np.frombuffer(gone, np.uint8)))
            table["flags"][first + lost] |= GONE
        names = {"tenant": [], "producer": []}
        for kind, value in self._rows("SELECT kind, value FROM names ORDER BY kind, number"):
            decoded = envelope.unpackb(value)
            names[kind].append(tuple(decoded) if kind == "producer" else decoded)
        holdings.load(table, names["tenant"], names["producer"], extras)

        damaged = "SELECT count(*) FROM quarantine WHERE kind = 'block'"
        holdings.quarantined = next(iter(self._rows(damaged)))[0]

    def _close_gaps(self) -> None:
        """Numbers the blocks anew if most ordinals are of blocks that are gone. One transaction."""
        assert self._db is not None
        found = [n for (n,) in self._rows("SELECT ordinal FROM blocks WHERE NOT gone ORDER BY 1")]
        if not found or found[-1] < GAPS_MAX + 2 * len(found):
            return
        pairs = [(new, old) for new, old in enumerate(found) if new != old]  # none meets another
        self._db.execute("BEGIN")
        try:
            self._db.execute("DELETE FROM blocks WHERE gone")
            self._db.executemany("UPDATE blocks SET ordinal = ? WHERE ordinal = ?", pairs)
            self._db.executemany("UPDATE hidden SET block = ? WHERE block = ?", pairs)
            self._db.executemany("UPDATE thinned SET block = ? WHERE block = ?", pairs)
            self._db.execute("COMMIT")
        except BaseException:
            _roll_back(self._db)
            raise

    def _load_epochs(self, engine: Engine) -> None:
        book = engine.holdings.producers
        for key, value in self._rows("SELECT key, value FROM producers"):
            rows, skips = envelope.unpackb(value)
            shard, tenant, service, producer, epoch = envelope.unpackb(key)
            book.insert((shard, tenant, service, producer, epoch), rows, skips)
        for key, epoch in self._rows("SELECT key, epoch FROM newest"):
            shard, producer = envelope.unpackb(key)
            book.raise_newest(shard, tuple(producer), epoch)
        told = self._rows("SELECT key, till FROM told")
        book.raise_told((tuple(envelope.unpackb(key)), till) for key, till in told)
        engine.load_fences(self._rows("SELECT shard, epoch, leader FROM fences"))

    def damage(self) -> str:
        """What SQLite finds wrong with the file as it is on disk; empty if nothing. Reads all of it.

        Raises:
            Overloaded: it cannot be read now (no file descriptors, no memory), which says nothing about it.
        """
        try:
            name = f"{self.path.absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(name, uri=True)) as db:
                found = db.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.Error as error:
            if self.path.exists() and error.sqlite_errorcode & 0xFF in _SCARCE:
                raise Overloaded(f"the catalog cannot be read now: {error}") from error
            return repr(error)
        return "" if found and found[0] == "ok" else str(found and found[0])

    def holes_left(self) -> list[HoleRow] | None:
        """What a catalog that is not usable as a whole still says of holes; None: nothing.

        It is about to be made anew.
        """
        if not self.path.exists():
            return None
        try:
            with closing(self._connect()) as db:
                return db.execute(_HOLE_ROWS).fetchall()
        except sqlite3.Error:
            return None

    def notes(self) -> list[QuarantineNote]:
        """All quarantine notes."""
        sql = "SELECT file, start, end, kind, reason FROM quarantine ORDER BY id"
        return [QuarantineNote(*row) for row in self._rows(sql)]

    def write(self, batch: Batch) -> None:
        """One transaction. An error leaves the catalog as it was before (the log stays the truth)."""
        db = self._db
        assert db is not None
        db.execute(f"PRAGMA synchronous={'FULL' if batch.gone or batch.holes else 'NORMAL'}")
        db.execute("BEGIN")
        try:
            db.executemany("INSERT INTO blocks VALUES (?,?,?,?,?,?,?,?,?,?,?)", batch.blocks)
            db.executemany("DELETE FROM blocks WHERE ordinal = ?", batch.gone)
            db.executemany("DELETE FROM hidden WHERE block = ?", batch.gone)
            db.executemany("INSERT OR REPLACE INTO thinned VALUES (?,?)", batch.thinned)
            db.executemany("DELETE FROM thinned WHERE block = ?", batch.gone)
            db.executemany("INSERT OR REPLACE INTO names VALUES (?,?,?)", batch.names)
            db.executemany("INSERT OR REPLACE INTO producers VALUES (?,?)", batch.producers)
            db.executemany("INSERT OR REPLACE INTO newest VALUES (?,?)", batch.newest)
            db.executemany("INSERT OR REPLACE INTO told VALUES (?,?)", batch.told)
            db.executemany("INSERT OR REPLACE INTO fences VALUES (?,?,?)", batch.fences)
            db.executemany("INSERT OR REPLACE INTO hidden VALUES (?,?,?,?)", batch.hidden)
            sql = "INSERT INTO quarantine (file, start, end, kind, reason) VALUES (?,?,?,?,?)"
            db.executemany(sql, batch.notes)
            if batch.holes is not None:
                db.execute("DELETE FROM holes")
                db.executemany("INSERT INTO holes VALUES (?,?,?,?)", batch.holes)
            position = envelope.packb([batch.position.file, batch.position.offset])
            pairs = [("position", position), ("ring_epoch", batch.ring_epoch)]
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?,?)", pairs)
            db.execute("COMMIT")
        except BaseException:
            _roll_back(db)
            raise


def _roll_back(db: sqlite3.Connection) -> None:
    """Unless SQLite has, as it does where the disk is full: the error that is told is the first."""
    if db.in_transaction:
        db.execute("ROLLBACK")


def _spans(values: Iterable) -> tuple[tuple[int, int], ...]:
    return tuple((int(a), int(b)) for a, b in values)

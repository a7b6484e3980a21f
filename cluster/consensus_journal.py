"""DurableJournal: PySyncObj's log on SQLite, so that a promise is on disk before it is made.

PySyncObj's own journal never fsyncs, rewrites itself in place and trusts what it reads. This one
keeps the log in memory for reading and in SQLite (WAL, synchronous=FULL) for keeping:

* `add` only opens a transaction; `sync` commits it. sync is called at the start of every tick (the
  leader's own copy is durable before it counts itself) and by the transport before an answer or a
  vote leaves. Term and vote are committed at once.
* Each row carries a CRC. A wrong one, a gap, or a missing tail ends the process; a shorter log is
  never served, since it may have voted and acknowledged with the longer one.
* SQLite drops a damaged WAL frame, and all after it, without a word. So each transaction has a
  number, kept in its own row and, once the commit has returned, in a small guard file beside it.
  A database behind its guard has lost a commit. The guard is synced once, when it is opened: from
  then on a power cut can only leave it behind the database, which is harmless. (Before its first
  sync it would leave it empty, which cannot be told from one that was lost.)
* Any SQLite error is final: no retry, no second fsync.

One thread at a time; after construction that is PySyncObj's tick thread.
"""

import os
import sqlite3
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from pysyncobj.journal import Journal

from cluster.consensus_failstop import EXIT_JOURNAL, EXIT_STATE, FailStop, fail_stop

Entry = tuple[bytes, int, int]
"""(command, index, term), as PySyncObj wants it."""

_T = TypeVar("_T")
_GUARD = struct.Struct(">8sQI")
_GUARD_MAGIC = b"QLRGUARD"
_HEAD = struct.Struct("<QQ")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS log (idx INTEGER PRIMARY KEY, term INTEGER, crc INTEGER, cmd BLOB);
CREATE TABLE IF NOT EXISTS meta (id INTEGER PRIMARY KEY, seq INTEGER, term INTEGER, vote TEXT,
  commit_idx INTEGER, first_idx INTEGER, last_idx INTEGER, install TEXT, crc INTEGER);
"""


class JournalCorrupt(Exception):
    """What the journal holds is not what was written to it."""


def row_crc(command: bytes, index: int, term: int) -> int:
    """The checksum of one log row."""
    return zlib.crc32(command, zlib.crc32(_HEAD.pack(index, term)))


def _meta_crc(*values: Any) -> int:
    return zlib.crc32(repr(values).encode())


class DurableJournal(Journal):
    """The log, term and vote of one manager. `applied` is asked before a tail is cut."""

    def __init__(
        self,
        path: Path,
        *,
        stop: FailStop = fail_stop,
        connect: Callable[[str], Any] | None = None,
        sync_dump_directory: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Opens or creates the journal at `path`; `stop` is called on any later failure.

        Raises:
            JournalCorrupt: a bad row, a gap, a lost commit.
            sqlite3.Error: the file cannot be read.
        """
        self.path = path
        self.applied: Callable[[], int] = lambda: 0
        self.fsyncs = 0
        self.fsync_seconds = 0.0
        self.fsync_seconds_max = 0.0
        self.syncing = False
        self._stop = stop
        self._clock = clock
        self._sync_dump_directory = sync_dump_directory or (lambda: None)
        self._entries: list[Entry] = []
        self._seq = 0
        self._term = 0
        self._vote: str | None = None
        self._commit = 1
        self._saved_commit = 1
        self._install: str | None = None
        self._open_transaction = False
        self._closed = False
        existed = path.exists()
        self._db = (connect or _connect)(str(path))
        try:
            self._open(existed)
        except BaseException:
            self._db.close()
            raise

    # -- opening ---------------------------------------------------------------------------

    def _open(self, existed: bool) -> None:
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")  # no shared memory file to be mapped
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        if existed:
            verdict = self._db.execute("PRAGMA quick_check").fetchone()
            if verdict is None or verdict[0] != "ok":
                raise JournalCorrupt(f"quick_check: {verdict}")
        self._load_rows()
        self._load_meta()
        self._guard = os.open(self._guard_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._check_guard()
            if self._seq == 0:
                self._begin()
                self._commit_transaction()
            self._write_guard()
            os.fsync(self._guard)
            _sync_directory(self.path.parent)
        except BaseException:
            os.close(self._guard)
            raise

    @property
    def _guard_path(self) -> Path:
        return self.path.with_name(self.path.name + ".guard")

    def _load_rows(self) -> None:
        for index, term, crc, command in self._db.execute(
            "SELECT idx, term, crc, cmd FROM log ORDER BY idx"
        ):
            if not isinstance(command, bytes) or not isinstance(term, int):
                raise JournalCorrupt(f"entry {index} has a wrong type")
            if crc != row_crc(command, index, term):
                raise JournalCorrupt(f"entry {index} fails its checksum")
            if self._entries and index != self._entries[-1][1] + 1:
                raise JournalCorrupt(f"entry {index} follows {self._entries[-1][1]}")
            self._entries.append((command, index, term))

    def _load_meta(self) -> None:
        row = self._db.execute(
            "SELECT seq, term, vote, commit_idx, first_idx, last_idx, install, crc FROM meta"
        ).fetchone()
        if row is None:
            if self._entries:
                raise JournalCorrupt("entries without their meta row")
            return
        if row[-1] != _meta_crc(*row[:-1]):
            raise JournalCorrupt("the meta row fails its checksum")
        self._seq, self._term, self._vote, self._commit, first, last, self._install, _ = row
        if (first, last) != self._bounds():
            raise JournalCorrupt(f"entries {self._bounds()} where {(first, last)} were written")
        self._commit = max(1, min(self._commit, last or 1))
        self._saved_commit = self._commit

    def _bounds(self) -> tuple[int, int]:
        return (self._entries[0][1], self._entries[-1][1]) if self._entries else (0, 0)

    def _check_guard(self) -> None:
        raw = os.pread(self._guard, 64, 0)
        if not raw:
            if self._seq > 1:
                raise JournalCorrupt("the guard file is gone")
            return
        if len(raw) != _GUARD.size:
            raise JournalCorrupt("the guard file has a wrong length")
        magic, seq, crc = _GUARD.unpack(raw)
        if magic != _GUARD_MAGIC or crc != zlib.crc32(raw[:16]):
            raise JournalCorrupt("the guard file fails its checksum")
        if self._seq < seq:
            raise JournalCorrupt(f"transaction {seq} was committed, {self._seq} is the last found")

    # -- transactions ----------------------------------------------------------------------

    def _guarded(self, action: Callable[[], _T]) -> _T:
        """Runs `action`; an error of the disk ends the process."""
        try:
            return action()
        except (sqlite3.Error, OSError) as error:
            self._stop(EXIT_JOURNAL, f"journal {self.path.name}: {type(error).__name__}: {error}")

    def _begin(self) -> None:
        if not self._open_transaction:
            self._db.execute("BEGIN IMMEDIATE")
            self._open_transaction = True

    def _commit_transaction(self) -> None:
        first, last = self._bounds()
        seq = self._seq + 1
        meta = (seq, self._term, self._vote, self._commit, first, last, self._install)
        self._db.execute(
            "INSERT OR REPLACE INTO meta VALUES (0, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*meta, _meta_crc(*meta)),
        )
        started = self._clock()
        self.syncing = True
        try:
            self._db.execute("COMMIT")
        finally:
            self.syncing = False
        took = self._clock() - started
        self._open_transaction = False
        self._seq = seq
        self._saved_commit = self._commit
        self._write_guard()
        self.fsyncs += 1
        self.fsync_seconds += took
        self.fsync_seconds_max = max(self.fsync_seconds_max, took)

    def _write_guard(self) -> None:
        head = _GUARD_MAGIC + self._seq.to_bytes(8, "big")
        os.pwrite(self._guard, head + zlib.crc32(head).to_bytes(4, "big"), 0)

    @property
    def pending(self) -> bool:
        """Whether something was added since the last sync."""
        return self._open_transaction

    def sync(self) -> None:
        """Returns once every entry added so far is on disk; free when nothing is pending."""
        if self._open_transaction:
            self._guarded(self._commit_transaction)

    def note_install(self, index: int, term: int) -> None:
        """Makes durable that a verified snapshot is about to replace the log; see align."""
        self._install = f"{index}:{term}"

        def action() -> None:
            self._begin()
            self._commit_transaction()

        self._guarded(action)

    @property
    def install(self) -> tuple[int, int] | None:
        """(index, term) of a snapshot whose installation had begun and not ended."""
        if self._install is None:
            return None
        index, term = self._install.split(":")
        return int(index), int(term)

    # -- PySyncObj's Journal -----------------------------------------------------------------

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Appends; durable after the next sync."""
        command = bytes(command)
        if self._entries and idx != self._entries[-1][1] + 1:
            self._stop(EXIT_STATE, f"entry {idx} would follow {self._entries[-1][1]}")

        def action() -> None:
            self._begin()
            self._db.execute(
                "INSERT INTO log VALUES (?, ?, ?, ?)",
                (idx, term, row_crc(command, idx, term), command),
            )

        self._guarded(action)
        self._entries.append((command, idx, term))

    def clear(self) -> None:
        """Empties the log (a dump takes its place); commits together with the adds that follow."""
        self._entries = []
        self._install = None

        def action() -> None:
            self._sync_dump_directory()
            self._begin()
            self._db.execute("DELETE FROM log")

        self._guarded(action)

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        """Cuts the tail from position `entryFrom`. Applied entries are never cut: that is the end."""
        if entryFrom >= len(self._entries):
            return
        index, applied = self._entries[entryFrom][1], self.applied()
        if index <= applied:
            self._stop(EXIT_STATE, f"conflict at entry {index}, applied is {applied}")

        def action() -> None:
            self._begin()
            self._db.execute("DELETE FROM log WHERE idx >= ?", (index,))

        self._guarded(action)
        del self._entries[entryFrom:]
        self._commit = min(self._commit, index - 1)

    def deleteEntriesTo(self, entryTo: int) -> None:
        """Drops the entries before position `entryTo`, in one transaction of their own."""
        if entryTo <= 0 or not self._entries:
            return
        keep = self._entries[entryTo:]
        first = keep[0][1] if keep else self._entries[-1][1] + 1

        def action() -> None:
            self._sync_dump_directory()
            self._begin()
            self._db.execute("DELETE FROM log WHERE idx < ?", (first,))
            self._entries = keep
            self._commit_transaction()

        self._guarded(action)

    def __getitem__(self, item: Any) -> Any:
        return self._entries[item]

    def __len__(self) -> int:
        return len(self._entries)

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        """A hint, saved each second."""
        self._commit = raftCommitIndex

    def getRaftCommitIndex(self) -> int:
        """The last saved commit index, never past the last entry."""
        return self._commit

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        """Durable when it returns."""
        self._term, self._vote = term, votedForNodeId

        def action() -> None:
            self._begin()
            self._commit_transaction()

        self._guarded(action)

    def getCurrentTerm(self) -> int:
        """The last durable term."""
        return self._term

    def getVotedForNodeId(self) -> str | None:
        """Whom this manager voted for in that term."""
        return self._vote

    def onOneSecondTimer(self) -> None:
        """Saves the commit index if it moved."""
        if self._commit != self._saved_commit:
            self._guarded(self._begin)
            self.sync()

    def _destroy(self) -> None:
        """Commits what is pending and closes."""
        if not self._closed:
            self.sync()
            self.close_quietly()

    def close_quietly(self) -> None:
        """Closes without a commit; again is harmless."""
        if not self._closed:
            self._closed = True
            self._db.close()
            os.close(self._guard)


def _connect(path: str) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0.0)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def as_entry(value: Any) -> Entry:
    """A log entry as the tuple that PySyncObj compares."""
    command, index, term = value
    return bytes(cast(bytes, command)), int(index), int(term)

"""The dump of the replicated state: verified whenever it is read, and aligned with the journal.

    0   8  magic "QLRDUMP1"
    8   8  index of the last entry it covers
   16   8  its term
   24   8  length of the body
   32      body: msgpack {last, prev, state}; entries are [command, index, term]
   end 32  SHA-256 over all before

The fixed header lets a follower judge a snapshot by its first chunk. PySyncObj swallows every
exception while it loads a dump and would go on with an empty state, so a bad one ends the process.

`align` settles what a kill between dump and journal leaves behind (PySyncObj would clear the whole
journal, acknowledged tail included). It is a table; each row is argued where it stands.
"""

import hashlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from cluster.consensus_failstop import EXIT_DUMP_DIFFERS, EXIT_DUMP_LOST, EXIT_NO_DUMP
from cluster.consensus_journal import DurableJournal, Entry, as_entry
from cluster.state import ClusterState, from_bytes, to_bytes
from records.envelope import packb, unpackb
from records.errors import EnvelopeCorrupt

MAGIC = b"QLRDUMP1"
HEADER = struct.Struct(">8sQQQ")
HASH_BYTES = 32
#: More than any legal state needs (state 4 MiB, results of proposers, two entries).
DUMP_BYTES_MAX = 16 << 20


class DumpDamaged(Exception):
    """Bytes that are not a whole, unchanged dump."""


@dataclass(frozen=True, slots=True)
class Dump:
    """A verified dump."""

    last: Entry
    prev: Entry
    state: ClusterState


def encode_dump(last: Entry, prev: Entry, state: ClusterState) -> bytes:
    """The bytes of a dump."""
    body = packb({"last": list(last), "prev": list(prev), "state": to_bytes(state)})
    data = HEADER.pack(MAGIC, last[1], last[2], len(body)) + body
    return data + hashlib.sha256(data).digest()


def dump_header(data: bytes) -> tuple[int, int, int]:
    """(last index, its term, bytes of the whole file) from the first chunk.

    Raises:
        DumpDamaged: not the start of a dump.
    """
    if len(data) < HEADER.size:
        raise DumpDamaged(f"{len(data)} bytes are shorter than the header")
    magic, index, term, body = HEADER.unpack_from(data)
    total = HEADER.size + body + HASH_BYTES
    if magic != MAGIC or total > DUMP_BYTES_MAX:
        raise DumpDamaged("wrong magic or length")
    return index, term, total


def decode_dump(data: bytes) -> Dump:
    """The dump in `data`, verified whole.

    Raises:
        DumpDamaged: length, hash or contents do not fit.
    """
    index, term, total = dump_header(data)
    if len(data) != total:
        raise DumpDamaged(f"{len(data)} bytes where {total} were written")
    if hashlib.sha256(data[:-HASH_BYTES]).digest() != data[-HASH_BYTES:]:
        raise DumpDamaged("the hash does not fit")
    try:
        body = unpackb(data[HEADER.size : -HASH_BYTES])
        dump = Dump(as_entry(body["last"]), as_entry(body["prev"]), from_bytes(body["state"]))
    except (EnvelopeCorrupt, KeyError, TypeError, ValueError) as error:
        raise DumpDamaged(f"contents: {error}") from error
    if dump.last[1:] != (index, term) or dump.prev[1] + 1 != index:
        raise DumpDamaged("the entries do not fit the header")
    if dump.state.applied_index > index:
        raise DumpDamaged("the state is newer than its last entry")
    return dump


def write_dump(path: Path, dump: bytes) -> None:
    """Writes and fsyncs `path`; the rename, and its fsync, are the caller's."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(dump)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file_and_directory(path: Path) -> None:
    """Makes the file's bytes and its name durable; a received snapshot is neither."""
    for target, flags in ((path, os.O_RDONLY), (path.parent, os.O_RDONLY | os.O_DIRECTORY)):
        handle = os.open(target, flags | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_dump(path: Path) -> Dump | None:
    """The verified dump at `path`, or None if there is none.

    Raises:
        DumpDamaged: there is one, and it is bad.
        OSError: it cannot be read.
    """
    if not path.exists():
        return None
    with path.open("rb") as file:
        return decode_dump(file.read(DUMP_BYTES_MAX + 1))


@dataclass(frozen=True, slots=True)
class Alignment:
    """What to do with the journal before PySyncObj sees it."""

    drop_before: int | None = None
    clear: bool = False
    exit_code: int = 0
    reason: str = ""


def align(dump: Dump | None, journal: DurableJournal) -> Alignment:
    """The table of start-up states. Pure: looks, and changes nothing."""
    size = len(journal)
    if dump is None:
        if size == 0 or journal[0][1] == 1:
            return Alignment()
        return Alignment(
            exit_code=EXIT_NO_DUMP,
            reason=f"the journal starts at {journal[0][1]} and there is no dump before it",
        )
    if size == 0:
        return Alignment()  # PySyncObj fills it from the dump
    first, last = journal[0][1], journal[-1][1]
    prev_index, last_index = dump.prev[1], dump.last[1]
    if first > prev_index:
        # Trimmed further than this dump allows: a newer dump existed.
        return Alignment(
            exit_code=EXIT_DUMP_LOST,
            reason=f"the journal starts at {first}, the dump covers {prev_index}: it is too old",
        )
    if last >= last_index:
        held = (journal[prev_index - first], journal[last_index - first])
        if held == (dump.prev, dump.last):
            return Alignment(drop_before=prev_index)  # the tail stays: it may be acknowledged
        if journal.install == (last_index, dump.last[2]):
            # Killed after a verified snapshot was renamed and before the journal was cleared: what
            # differs from a committed entry was never committed.
            return Alignment(clear=True)
        return Alignment(
            exit_code=EXIT_DUMP_DIFFERS,
            reason=f"journal and dump differ at {prev_index} or {last_index}",
        )
    return Alignment(clear=True)  # ends before the dump: it holds nothing newer


def carry_out(alignment: Alignment, dump: Dump | None, journal: DurableJournal) -> None:
    """Brings the journal in line, durably. `alignment` must not be a refusal."""
    assert not alignment.exit_code
    if alignment.drop_before is not None:
        journal.deleteEntriesTo(alignment.drop_before - journal[0][1])
    elif alignment.clear and dump is not None:
        journal.clear()
        journal.add(*dump.prev)
        journal.add(*dump.last)
        journal.sync()

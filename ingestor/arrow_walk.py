"""An Arrow stream's messages by their metadata alone: what reading them would cost, before it is done.

A small body can say much: a billion rows without a buffer, a hundred thousand batches without rows, a large
dictionary that every one of a thousand batches refers to (it is checked and united anew for each), a
dictionary that grows a little before each batch (the reader copies it each time, and keeps all copies).
So rows, pieces and the dictionaries' share are counted here, and deltas and compressed buffers are refused.

The two fields needed of a message's header are read by hand: Message.fbs, MetadataVersion V5.
"""

import struct
from dataclasses import dataclass, field

import pyarrow as pa

from ingestor.limits import Limits
from ingestor.parsers.base import quoted
from records.errors import InvalidRequest, TooLarge

#: What pyarrow, and the reading by hand below, raise on bytes that are not what they say.
DAMAGE = (pa.ArrowException, ValueError, OSError, KeyError, IndexError, TypeError, struct.error)
#: Columns of all batches, and dictionaries, in one stream: each costs about a kilobyte and 10 us, also where
#: it has no rows. 200 columns may come in 500 batches, one in 100,000.
PIECES_MAX = 100_000
#: Bytes of dictionaries, counted once for each batch that may refer to them: about five seconds of CPU.
DICTIONARY_BYTES_MAX = 1 << 30
#: Bytes of the schema's message: far above what `columns_max` names and a list of skips take.
SCHEMA_BYTES_MAX = 4 << 20


def damaged(text: str) -> InvalidRequest:
    """The stream is not what it should be."""
    return InvalidRequest(f"not a readable Arrow stream: {text}"[:300], reason="bad_arrow")


def bad_column(name: str, text: str) -> InvalidRequest:
    """A column is nothing that rows can have."""
    return InvalidRequest(f"column {quoted(name)}: {text}", reason="bad_column")


@dataclass(slots=True)
class _Cost:
    """What has been seen of a stream."""

    limits: Limits
    rows: int = 0
    pieces: int = 0
    columns: int = 1
    dictionaries: dict[int, int] = field(default_factory=dict)
    dictionary_bytes: int = 0

    def schema(self, message: pa.Message) -> None:
        """The columns: their names are looked at before a batch is read."""
        if message.metadata.size > SCHEMA_BYTES_MAX:
            raise TooLarge(f"a schema of over {SCHEMA_BYTES_MAX} bytes", limit=SCHEMA_BYTES_MAX)
        names = pa.ipc.read_schema(message).names
        "".join(names).encode()
        check_names(names, self.limits)
        self.columns = max(1, len(names))

    def dictionary(self, metadata: bytes, body_bytes: int) -> None:
        """Values that later batches refer to."""
        header = _header(metadata)
        if (at := _field(metadata, header, 2)) and metadata[at]:
            raise ValueError("a delta dictionary; send it whole")
        values = _rows(metadata, _table(metadata, header, 1))
        self._more_rows(values)
        at = _field(metadata, header, 0)
        number = struct.unpack_from("<q", metadata, at)[0] if at else 0
        self.dictionaries[number] = max(body_bytes, 8 * values)
        self.pieces += 1

    def batch(self, metadata: bytes) -> None:
        """Rows."""
        count = _rows(metadata, _header(metadata))
        self.rows += count
        self._more_rows(self.rows if count >= 0 else count)
        self.pieces += self.columns
        self.dictionary_bytes += sum(self.dictionaries.values())
        for found, most, what in (
            (self.pieces, PIECES_MAX, "columns of batches"),
            (self.dictionary_bytes, DICTIONARY_BYTES_MAX, "bytes of dictionaries for its batches"),
        ):
            if found > most:
                text = f"over {most} {what} in one stream; send fewer and larger batches"
                raise TooLarge(text, limit=most)

    def _more_rows(self, count: int) -> None:
        most = self.limits.document_rows
        if not 0 <= count <= most:
            raise TooLarge(f"over {most} rows in one stream", limit=most)


def walk(body: bytes, limits: Limits) -> int:
    """Rows of all batches, by what the messages say of themselves.

    Raises:
        InvalidRequest: `reason` is bad_arrow or bad_column.
        TooLarge: reading it would take too much; says what.
    """
    source = pa.BufferReader(body)
    cost, number = _Cost(limits), 0
    try:
        for message in pa.ipc.MessageReader.open_stream(source):
            number += 1
            if message.type == "schema":
                cost.schema(message)
            elif message.type == "record batch":
                cost.batch(message.metadata.to_pybytes())
            elif message.type == "dictionary":
                size = message.body.size if message.body is not None else 0
                cost.dictionary(message.metadata.to_pybytes(), size)
            else:
                raise damaged(f"a message of kind {message.type}")
    except DAMAGE as error:
        raise damaged(f"message {number}: {error}") from error
    if source.tell() != len(body):
        raise damaged(f"{len(body) - source.tell()} bytes after the end mark")
    return cost.rows


def check_names(names: list[str], limits: Limits) -> None:
    """Not too many, each once, none empty or too long.

    Raises:
        InvalidRequest: names the column.
    """
    if len(names) > limits.columns_max:
        text = (
            f"{len(names)} columns; at most {limits.columns_max}. JSON lines may have more fields"
        )
        raise InvalidRequest(text, reason="bad_column")
    for name in names:
        if not name or len(name.encode()) > limits.name_bytes:
            raise bad_column(name, f"a name has 1 to {limits.name_bytes} bytes")
        if names.count(name) > 1:
            raise bad_column(name, "stands twice")


def _rows(metadata: bytes, batch: int) -> int:
    """Rows of a record batch, which must not be compressed."""
    if _field(metadata, batch, 3):
        raise ValueError("compressed buffers; use Content-Encoding instead")
    at = _field(metadata, batch, 0)
    return struct.unpack_from("<q", metadata, at)[0] if at else 0


def _header(metadata: bytes) -> int:
    """The header table of a message."""
    return _table(metadata, _table(metadata, 0, None), 2)


def _field(data: bytes, table: int, slot: int) -> int:
    """Where field `slot` of the table at `table` lies; 0 if it is absent."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if vtable < 0:
        raise ValueError("an offset points before the message")
    size = struct.unpack_from("<H", data, vtable)[0]
    if 6 + 2 * slot > size:
        return 0
    offset = struct.unpack_from("<H", data, vtable + 4 + 2 * slot)[0]
    return table + offset if offset else 0


def _table(data: bytes, table: int, slot: int | None) -> int:
    """The table that a field (or, with None, the buffer's beginning) refers to."""
    at = table if slot is None else _field(data, table, slot)
    if slot is not None and not at:
        raise ValueError("a message without its header")
    return at + struct.unpack_from("<I", data, at)[0]

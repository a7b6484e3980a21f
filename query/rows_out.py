"""Encoders of streams: a head, pages of rows, a tail; and what to say when the stream fails half-way."""

import json
from collections.abc import Callable
from typing import Any, Protocol

import pyarrow as pa

from query import encode
from query.merge import EMPTY

Fields = tuple[str, ...] | None


class Encoder(Protocol):
    """One format. `head` is given the first page, None if there are no rows."""

    content_type: str

    def head(self, first: pa.Table | None) -> bytes:
        """What comes before the rows."""
        ...

    def page(self, table: pa.Table) -> bytes:
        """The rows of one page."""
        ...

    def tail(self) -> bytes:
        """What ends a whole stream."""
        ...

    def error(self, body: dict[str, Any]) -> bytes:
        """What a broken stream can still say; nothing where the format has no place for it."""
        ...


class NdjsonEncoder:
    """A JSON object a line."""

    content_type = "application/x-ndjson"

    def __init__(self, fields: Fields) -> None:
        self._fields = fields

    def head(self, first: pa.Table | None) -> bytes:
        """Nothing."""
        return b""

    def page(self, table: pa.Table) -> bytes:
        """Lines."""
        return encode.ndjson(encode.presented(table, self._fields))

    def tail(self) -> bytes:
        """Nothing."""
        return b""

    def error(self, body: dict[str, Any]) -> bytes:
        """A line with the single key `error`."""
        return json.dumps({"error": body}).encode() + b"\n"


class CsvEncoder:
    """A header, then a line a row."""

    content_type = "text/csv; charset=utf-8; header=present"

    def __init__(self, fields: Fields) -> None:
        self._fields = fields

    def _lines(self, table: pa.Table, header: bool) -> bytes:
        fields = self._fields
        presented = encode.presented(table, fields)
        return encode.csv_lines(encode.csv_table(presented, fields), header)

    def head(self, first: pa.Table | None) -> bytes:
        """The names of the columns."""
        return self._lines(EMPTY, True)

    def page(self, table: pa.Table) -> bytes:
        """Lines."""
        return self._lines(table, False)

    def tail(self) -> bytes:
        """Nothing."""
        return b""

    def error(self, body: dict[str, Any]) -> bytes:
        """Nothing: a line would look like a row."""
        return b""


class ArrowEncoder:
    """An Arrow IPC stream with one schema."""

    content_type = "application/vnd.apache.arrow.stream"

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._sink = _Drain()
        self._shape: encode.ArrowShape | None = None
        self._writer: Any = None

    def head(self, first: pa.Table | None) -> bytes:
        """The schema."""
        page = encode.arrow_page(EMPTY if first is None else first)
        self._shape = encode.ArrowShape(page, self._fields)
        self._writer = pa.ipc.new_stream(self._sink, self._shape.schema)
        return self._sink.take()

    def page(self, table: pa.Table) -> bytes:
        """Record batches."""
        assert self._shape is not None
        self._writer.write_table(self._shape.fit(encode.arrow_page(table)))
        return self._sink.take()

    def tail(self) -> bytes:
        """The end-of-stream mark, which a broken stream lacks."""
        self._writer.close()
        return self._sink.take()

    def error(self, body: dict[str, Any]) -> bytes:
        """Nothing: readers would take it for a message."""
        return b""


class _Drain:
    """A file that hands on what was written."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> int:
        """Keeps the bytes until they are taken."""
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """The writer closes its sink."""
        self.closed = True

    def writable(self) -> bool:
        """Yes."""
        return True

    def take(self) -> bytes:
        """What was written since the last time."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


ENCODERS: dict[str, Callable[[Fields], Encoder]] = {
    "ndjson": NdjsonEncoder,
    "csv": CsvEncoder,
    "arrow": ArrowEncoder,
}

"""The pages of a Parquet column chunk, as far as a search through text needs them. Pure.

Arrow reads a column only as a whole, value by value. A search wants the bytes of all values end to end, as
they lie in a decompressed page. What is understood here is what `block_codec` writes for text without a
dictionary: version 1 data pages, values PLAIN, none of them null. Anything else gives None, and is read by
Arrow, which also finds the words for damage.

Source: the Parquet format's `parquet.thrift` (PageHeader) and Thrift's compact protocol.
"""

from dataclasses import dataclass

import pyarrow as pa

#: Types of the compact protocol whose values are varints; a bool's value is in its type.
_TRUE, _FALSE, _BYTE, _INTS, _DOUBLE, _BINARY, _LISTS, _STRUCT = (
    1,
    2,
    3,
    (4, 5, 6),
    7,
    8,
    (9, 10),
    12,
)
_DEPTH_MAX = 8
#: PageHeader's and DataPageHeader's fields, and the values they must have.
_TYPE, _SIZE, _PACKED, _DATA = 1, 2, 3, 5
_VALUES, _ENCODING, _LEVELS = 1, 2, 3
_DATA_PAGE, _PLAIN, _RLE = 0, 0, 3
#: A page that says it unpacks to more is none of ours.
PAGE_BYTES_MAX = 64 << 20


class _Unknown(Exception):
    """Not what this module understands."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page's values: `data` unpacked, of which they begin at `start`; `rows` of them, none null."""

    data: bytes
    start: int
    rows: int


class _Reader:
    """Reads the compact protocol from `data`, from `at` on."""

    def __init__(self, data: memoryview, at: int) -> None:
        self.data, self.at = data, at

    def byte(self) -> int:
        """The next byte."""
        self.at += 1
        return self.data[self.at - 1]

    def varint(self) -> int:
        """An unsigned number of at most ten bytes."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise _Unknown

    def struct(self, depth: int = 0) -> dict[int, int | dict]:
        """The whole numbers and structs in a struct, by field; all else is skipped."""
        if depth > _DEPTH_MAX:
            raise _Unknown
        found: dict[int, int | dict] = {}
        field = 0
        while (head := self.byte()) != 0:
            step, kind = head >> 4, head & 15
            field = field + step if step else _signed(self.varint())
            if kind in _INTS:
                found[field] = _signed(self.varint())
            elif kind == _STRUCT:
                found[field] = self.struct(depth + 1)
            else:
                self._skip(kind, depth)
        return found

    def _skip(self, kind: int, depth: int) -> None:
        if kind == _BINARY:
            length = self.varint()
            self.at += length
        elif kind == _DOUBLE:
            self.at += 8
        elif kind == _BYTE:
            self.at += 1
        elif kind not in (_TRUE, _FALSE):
            raise _Unknown  # lists, sets and maps: no page header has them


def _signed(zigzag: int) -> int:
    return (zigzag >> 1) ^ -(zigzag & 1)


def unpacked(chunk: memoryview, rows: int, codec: pa.Codec | None) -> list[Page] | None:
    """The pages of a column chunk, which has `rows` rows and a definition level; None if not understood.

    Args:
        codec: what its pages are packed with; None if they are not.
    """
    pages: list[Page] = []
    try:
        reader, end = _Reader(chunk.cast("B"), 0), chunk.nbytes
        while reader.at < end:
            pages.append(_page(reader, codec))
    except (_Unknown, IndexError, ValueError, OSError, pa.ArrowException):
        return None
    return pages if sum(page.rows for page in pages) == rows else None


def _page(reader: _Reader, codec: pa.Codec | None) -> Page:
    """The page whose header is next; the reader stands behind its data then."""
    head = reader.struct()
    data = head.get(_DATA)
    size, packed = head.get(_SIZE), head.get(_PACKED)
    if head.get(_TYPE) != _DATA_PAGE or not isinstance(data, dict):
        raise _Unknown
    rows = data.get(_VALUES)
    if data.get(_ENCODING) != _PLAIN or data.get(_LEVELS) != _RLE:
        raise _Unknown
    if not isinstance(rows, int) or not isinstance(size, int) or not isinstance(packed, int):
        raise _Unknown
    first, reader.at = reader.at, reader.at + packed
    if not (
        rows > 0 and 0 < size <= PAGE_BYTES_MAX and packed > 0 and reader.at <= len(reader.data)
    ):
        raise _Unknown
    body = reader.data[first : reader.at]
    whole = bytes(body) if codec is None else codec.decompress(body, size, asbytes=True)
    return Page(whole, _values_at(whole, rows), rows)


def _values_at(page: bytes, rows: int) -> int:
    """Where the values begin, behind definition levels that say of each that it is there."""
    length = int.from_bytes(page[:4], "little")
    levels = _Reader(memoryview(page)[4 : 4 + length], 0)
    left = rows
    while left > 0:
        head = levels.varint()
        if head & 1:  # eight levels a byte, the last ones may stand for nothing
            for _ in range(head >> 1):
                wanted = (1 << min(8, left)) - 1
                if levels.byte() & wanted != wanted:
                    raise _Unknown
                left -= min(8, left)
        else:
            left -= head >> 1
            if head == 0 or levels.byte() != 1:
                raise _Unknown
    return 4 + length

"""A file of logs as pieces that can be sent one by one, again, and in the same cuts the next time.

Gzip and zstd are opened by their magic bytes. The format is told by the first bytes: a JSON array, JSON
objects one a line (or one after the other over several lines), CSV with a header, or plain lines.

Invariant: the cuts depend on the bytes from the starting offset alone, never on how they are read,
so that a piece sent again has the same key and is stored once. Offsets count decoded bytes. A piece
holds whole rows: at most about `PIECE_BYTES` and `PIECE_ROWS`, or one row that is larger.
"""

import gzip
import io
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import zstandard

from node.cli_errors import USAGE, CliError

#: More costs memory (a few pieces are in flight), less costs speed: blocks aim at 20,000 rows.
PIECE_BYTES = 4 << 20
PIECE_ROWS = 20_000
READ_BYTES = 1 << 20
#: A row longer than this is not sent: the server refuses rows beyond 16 MiB.
ROW_BYTES_MAX = 32 << 20
SNIFF_BYTES = 64 << 10
BOM = b"\xef\xbb\xbf"
#: First bytes of what users may take for a file of logs.
_NOT_TEXT = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"PK\x03\x04": "a zip file",
    b"\x04\x22\x4d\x18": "lz4",
    b"PAR1": "Parquet",
    b"SQLite format 3\0": "an SQLite database",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_BETWEEN = b" \t\r\n,[]"
_NAME = re.compile(rb'\s*"?[A-Za-z_@][\w .@:/-]*"?\s*')
#: A string (perhaps cut by the end of what was read), or a bracket outside of strings.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[\[{\]}]', re.DOTALL)


class Format(StrEnum):
    """What the rows of a file look like."""

    LINES = "json"
    ARRAY = "array"
    OBJECTS = "objects"
    CSV = "csv"
    PLAIN = "plain"


CONTENT_TYPES = {
    Format.LINES: "application/x-ndjson",
    Format.ARRAY: "application/x-ndjson",
    Format.OBJECTS: "application/x-ndjson",
    Format.CSV: "text/csv",
    Format.PLAIN: "text/plain",
}


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows `first_row ..` (from 1, as in the file) between two offsets; `body` is what is sent.

    `skipped`: no body, a row that is too long to be sent. `lines`: for formats of one row a line, the
    number in the file of each row, if blank lines stand between them.
    """

    offset: int
    end: int
    first_row: int
    rows: int
    body: bytes
    skipped: bool = False
    lines: tuple[int, ...] | None = None

    def row_in_file(self, row: int) -> int:
        """The number in the file (from 1) of row `row` (from 1) of this piece."""
        if self.lines is not None and 0 < row <= len(self.lines):
            return self.lines[row - 1]
        return self.first_row + row - 1


class Source:
    """An open file, decoded. `position` counts bytes of the file as it lies on disk."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._raw = _open(path)
        buffered = io.BufferedReader(_Counting(self._raw), READ_BYTES)
        self._counter = buffered.raw
        head = buffered.peek(4)
        self.compressed = True
        if head.startswith(b"\x1f\x8b"):
            self._stream: BinaryIO = gzip.GzipFile(fileobj=buffered)  # type: ignore[assignment]
        elif head.startswith(b"\x28\xb5\x2f\xfd"):
            reader = zstandard.ZstdDecompressor().stream_reader(buffered, read_across_frames=True)
            self._stream = reader  # type: ignore[assignment]
        else:
            self._stream = buffered  # type: ignore[assignment]
            self.compressed = False

    @property
    def position(self) -> int:
        """Bytes read of the file so far."""
        return self._counter.count  # type: ignore[attr-defined]

    def read(self, count: int | None = None) -> bytes:
        """The next decoded bytes (READ_BYTES if not said); empty at the end.

        Raises:
            CliError: the file is cut short or damaged.
        """
        try:
            return self._stream.read(READ_BYTES if count is None else count)
        except (EOFError, OSError, zstandard.ZstdError) as error:
            raise CliError(
                f"{self.path}: cannot be decompressed to its end: {error}",
                "what came before is sent and stored; repair the file and send it again",
            ) from error

    def skip(self, count: int) -> None:
        """Leaves out `count` decoded bytes."""
        if not self.compressed and self._raw.seekable():
            self._stream.seek(count, io.SEEK_CUR)
            return
        while count > 0:
            got = len(self.read(min(count, READ_BYTES)))
            if got == 0:
                raise CliError(f"{self.path} is shorter than before", "send it with --again")
            count -= got

    def close(self) -> None:
        """Closes the file."""
        self._raw.close()


class _Counting(io.RawIOBase):
    """Counts what is read."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self.count = raw, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._raw.seekable()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.count = self._raw.seek(offset, whence)
        return self.count

    def tell(self) -> int:
        return self._raw.tell()

    def readinto(self, buffer: Any, /) -> int:
        data = self._raw.read(len(buffer)) or b""
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)


def _open(path: str) -> BinaryIO:
    if path == "-":
        return sys.stdin.buffer
    if Path(path).is_dir():
        raise CliError(f"{path} is a folder", "name a file", USAGE)
    try:
        return open(path, "rb")
    except OSError as error:
        raise CliError(f"cannot read {path}: {error.strerror}", "check the name", USAGE) from error


def sniff(head: bytes, name: str) -> Format:
    """The format of a file by its first bytes and its name."""
    start = head.removeprefix(BOM).lstrip()
    if start.startswith(b"["):
        return Format.ARRAY if start[1:].lstrip()[:1] in (b"{", b"]", b"") else Format.PLAIN
    first, _, rest = start.partition(b"\n")
    if start.startswith(b"{"):
        return Format.LINES if _is_json(first) or not rest else Format.OBJECTS
    stem = name.removesuffix(".gz").removesuffix(".zst")
    cells = first.rstrip(b"\r").split(b",")
    if stem.endswith(".csv") or (len(cells) > 1 and all(_NAME.fullmatch(one) for one in cells)):
        return Format.CSV
    return Format.PLAIN


def check_text(head: bytes, name: str) -> None:
    """Each line of a file that is no text would become a row.

    Raises:
        CliError: the first bytes are those of another compression or format, or hold NUL bytes.
    """
    kind = next((kind for magic, kind in _NOT_TEXT.items() if head.startswith(magic)), None)
    if kind is None and b"\0" not in head:
        return
    raise CliError(
        f"{name} is no text: it looks like {kind or 'binary data, or UTF-16'}",
        "only .gz and .zst are opened: unpack or convert it, or say --format plain to send it as lines",
    )


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        # a broken first line of a file of lines: it is one if it closes on the same line
        return line.rstrip().endswith(b"}")
    return True


def _one_line(value: bytearray) -> bytes:
    """JSON on one line: line ends between its tokens are as good as spaces."""
    return bytes(value).replace(b"\n", b" ").replace(b"\r", b" ")


class Pieces:
    """Cuts a source into pieces from `offset` on; iterate once. `header` is a CSV's first line."""

    def __init__(self, source: Source, format: Format | None, offset: int, first_row: int) -> None:
        self._source = source
        self._offset, self._row = offset, first_row
        head = source.read(SNIFF_BYTES)
        if format is None:
            check_text(head, source.path)
        self.format = format or sniff(head, source.path)
        self._buffer = bytearray(head)
        self._ended = not head
        self._taken = 0
        if head.startswith(BOM):
            del self._buffer[:3]
            self._taken = 3
        self.header = self._take_header() if self.format is Format.CSV else b""
        self._seek(offset)

    def _seek(self, offset: int) -> None:
        if offset <= self._taken:
            self._offset = self._taken
            return
        inside = offset - self._taken
        if inside < len(self._buffer):
            del self._buffer[:inside]
        else:
            self._source.skip(inside - len(self._buffer))
            self._buffer.clear()
            self._ended = False

    @property
    def start(self) -> int:
        """The offset of the first piece to come."""
        return self._offset

    def _take_header(self) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0 and self._fill():
            if len(self._buffer) > ROW_BYTES_MAX:
                raise CliError("the first line of this CSV has no end", "try --format plain", USAGE)
        header = bytes(self._buffer if end < 0 else self._buffer[: end + 1])
        del self._buffer[: len(header)]
        self._taken += len(header)
        return header if header.endswith(b"\n") else header + b"\n"

    def _fill(self) -> bool:
        """Reads on; False at the end of the source."""
        data = b"" if self._ended else self._source.read()
        self._ended = not data
        self._buffer += data
        return bool(data)

    def __iter__(self) -> Iterator[Piece]:
        if self.format in (Format.ARRAY, Format.OBJECTS):
            yield from self._values()
        else:
            yield from self._lines()

    def _piece(self, size: int, rows: int, body: bytes, **more: object) -> Piece:
        """The next `size` bytes of the buffer as a piece; takes them out."""
        piece = Piece(self._offset, self._offset + size, self._row, rows, body, **more)  # type: ignore[arg-type]
        del self._buffer[:size]
        self._offset += size
        self._row += rows
        return piece

    def _lines(self) -> Iterator[Piece]:
        while True:
            while len(self._buffer) < PIECE_BYTES and self._fill():
                pass
            if not self._buffer:
                return
            size = line_cut(self._buffer, self.format is Format.CSV, self._ended)
            if size == 0:
                if len(self._buffer) > ROW_BYTES_MAX:
                    yield self._skip_line()
                else:
                    self._fill()
                continue
            body = bytes(self._buffer[:size])
            rows = len(row_ends(body, self.format is Format.CSV)) + (not body.endswith(b"\n"))
            yield self._piece(size, rows, self.header + body, lines=self._numbers(body))

    def _numbers(self, body: bytes) -> tuple[int, ...] | None:
        """The number of each row that is not blank, if some are."""
        if self.format is Format.CSV:
            return None
        if b"\n\n" not in body and b"\n\r\n" not in body and body[:1] not in (b"\n", b"\r", b" "):
            return None
        lines = body.split(b"\n")
        return tuple(self._row + i for i, line in enumerate(lines) if line.strip())

    def _skip_line(self) -> Piece:
        """Passes over one line that is too long to be sent."""
        size = 0
        while (end := self._buffer.find(b"\n")) < 0:
            size += len(self._buffer)
            self._buffer.clear()
            if not self._fill():
                end = -1
                break
        size += end + 1
        del self._buffer[: end + 1]
        piece = Piece(self._offset, self._offset + size, self._row, 1, b"", skipped=True)
        self._offset += size
        self._row += 1
        return piece

    def _values(self) -> Iterator[Piece]:
        """Objects of an array, or one after the other; found by their brackets alone."""
        scanner = _Scanner(self.format is Format.ARRAY, self._offset == self._taken)
        while True:
            ends = scanner.ends(self._buffer, self._ended)
            size = scanner.cut(ends, self._ended, len(self._buffer))
            if size == 0:
                if self._ended:
                    yield from self._rest(ends, scanner.torn_from)
                    return
                self._fill()
                continue
            spans = [one for one in ends if one[1] <= size]
            yield self._of_spans(size, spans)
            scanner.reset()

    def _rest(self, ends: list[tuple[int, int]], torn_from: int) -> Iterator[Piece]:
        """The last piece. A torn object or other bytes are a row of their own, for the server to refuse.

        Args:
            torn_from: where an object begins that has no end; -1 if there is none.
        """
        spans = list(ends)
        size = len(self._buffer)
        if torn_from >= 0:
            spans.append((torn_from, size))
        elif self._buffer[(spans[-1][1] if spans else 0) :].strip(_BETWEEN):
            spans.append((spans[-1][1] if spans else 0, size))
        if spans:
            yield self._of_spans(size, spans)

    def _of_spans(self, size: int, spans: list[tuple[int, int]]) -> Piece:
        rows: list[bytes] = []
        done = 0
        for start, end in spans:
            # what stands between objects and is no separator becomes a row, for the server to refuse
            if start - done > 1 and (junk := self._buffer[done:start].strip(_BETWEEN)):
                rows.append(_one_line(junk))
            rows.append(_one_line(self._buffer[start:end].strip(b" \t\r\n,")))
            done = end
        return self._piece(size, len(rows), b"\n".join(rows) + b"\n")


def row_ends(buffer: bytes | bytearray, csv: bool) -> np.ndarray:
    """Where the line ends are that end a row: in CSV, those outside of quotes."""
    view = np.frombuffer(buffer, np.uint8)
    ends = np.flatnonzero(view == 0x0A)
    if csv and 0x22 in view:
        quotes = np.cumsum(view == 0x22, dtype=np.int64)
        ends = ends[quotes[ends] % 2 == 0]
    return ends


def line_cut(buffer: bytearray, csv: bool, ended: bool) -> int:
    """How many bytes of whole rows to take: up to PIECE_ROWS and PIECE_BYTES; 0 if more must be read."""
    ends = row_ends(buffer, csv)
    if csv and not len(ends) and (ended or len(buffer) > ROW_BYTES_MAX):
        ends = row_ends(buffer, csv=False)  # a quote that is never closed: the server says which
    if len(ends) >= PIECE_ROWS and ends[PIECE_ROWS - 1] < PIECE_BYTES:
        return int(ends[PIECE_ROWS - 1]) + 1
    inside = ends[ends < PIECE_BYTES]
    if len(buffer) >= PIECE_BYTES:
        if len(inside):
            return int(inside[-1]) + 1
        return int(ends[0]) + 1 if len(ends) else (len(buffer) if ended else 0)
    return len(buffer) if ended else 0


class _Scanner:
    """Finds where objects end, by brackets outside of strings; keeps its place between calls."""

    def __init__(self, array: bool, at_start: bool) -> None:
        self._array = array
        self._opening = array and at_start
        self.reset()

    def reset(self) -> None:
        """The buffer starts at a new piece."""
        self._at, self._depth, self._start = 0, 0, -1
        self._found: list[tuple[int, int]] = []

    def ends(self, buffer: bytearray, ended: bool) -> list[tuple[int, int]]:
        """(start, end) of each whole object so far."""
        for token in _TOKEN.finditer(buffer, self._at):
            char = buffer[token.start()]
            if char == 0x22 and token.end() == len(buffer) and not ended:
                break  # the string may go on
            self._at = token.end()
            if char in b"{[":
                if self._opening:
                    self._opening = False
                    continue
                if self._depth == 0:
                    self._start = token.start()
                self._depth += 1
            elif char in b"}]" and self._depth > 0:
                self._depth -= 1
                if self._depth == 0:
                    self._found.append((self._start, token.end()))
            if len(self._found) >= PIECE_ROWS:
                break
        return self._found

    @property
    def torn_from(self) -> int:
        """Where the object begins that has not ended; -1 outside of objects."""
        return self._start if self._depth else -1

    def cut(self, ends: list[tuple[int, int]], ended: bool, size: int) -> int:
        """Bytes to take now; 0 if more must be read (or all is done)."""
        if len(ends) >= PIECE_ROWS:
            return ends[PIECE_ROWS - 1][1]
        if size >= PIECE_BYTES and ends:
            inside = [end for _, end in ends if end <= PIECE_BYTES]
            return inside[-1] if inside else ends[0][1]
        if size > ROW_BYTES_MAX and not ended:
            raise CliError(
                f"an object of this file is longer than {ROW_BYTES_MAX >> 20} MiB",
                "is it JSON? if its brackets do not match, --format plain sends lines as they are",
            )
        return 0

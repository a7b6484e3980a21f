"""Cursors: where a page ended, as opaque text that any node understands. Pure.

It holds the row's key, the snapshot (rows received later stay out, so that pages neither double nor skip
what was there at the start), the time range as first bound (so that `since=1h` means the same hour on
each page) and a digest of the question; another question with it is refused. Layout, big-endian, then
base64url: version 2 · digest 8 · received_until 8 · start 8 · end 8 · timestamp 8 · run 16 · number 8 ·
CRC 4.
"""

import base64
import binascii
import struct
import zlib
from dataclasses import dataclass

from records.errors import InvalidRequest
from records.predicates import RowKey
from records.timestamps import TimeRange

_LAYOUT = struct.Struct(">B8sqqqq16sq")
_VERSION = 2


@dataclass(frozen=True, slots=True)
class Cursor:
    """The position after a page of one question."""

    question: bytes
    received_until: int
    time: TimeRange
    after: RowKey

    def encode(self) -> str:
        """Text for `next_cursor`."""
        key = self.after
        packed = _LAYOUT.pack(
            _VERSION, self.question, self.received_until, self.time.start, self.time.end,
            key.timestamp, key.run, key.number,
        )  # fmt: skip
        raw = packed + zlib.crc32(packed).to_bytes(4, "big")
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(text: str, question: bytes) -> Cursor:
    """The cursor in `text`, for the same question only.

    Raises:
        InvalidRequest: not a cursor of ours, or one of another question.
    """
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        if len(raw) != _LAYOUT.size + 4 or zlib.crc32(raw[:-4]) != int.from_bytes(raw[-4:], "big"):
            raise ValueError("length or checksum")
        fields = _LAYOUT.unpack(raw[:-4])
        version, digest, until, start, end, timestamp, run, number = fields
        if version != _VERSION:
            raise ValueError(f"version {version}")
    except (ValueError, binascii.Error) as error:
        raise InvalidRequest(
            "cursor: damaged; use next_cursor as it was answered", parameter="cursor"
        ) from error
    if digest != question:
        raise InvalidRequest(
            "cursor: belongs to a query with other parameters; repeat them all, or leave it out",
            parameter="cursor",
        )
    return Cursor(digest, until, TimeRange(start, end), RowKey(timestamp, run, number))

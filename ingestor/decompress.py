"""Bodies as they came over the wire to decoded bytes, within a budget that a bomb meets early.

gzip (any number of members), deflate (zlib's wrapping or none), zstd (any number of frames, windows to
8 MiB) and identity. Output is made in pieces of bounded size and counted before it is kept, so that
memory grows by one piece beyond the budget at most, whatever the ratio. The budget is in bytes: ratios
of honest logs differ by more than any threshold could.
"""

import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import zstandard

from ingestor.limits import Limits
from records.errors import InvalidRequest, TooLarge, UnsupportedMedia

OUTPUT_BYTES = 1 << 20
ZSTD_WINDOW_BYTES = 8 << 20
#: Input handed over at once. A zstd block of 4 bytes can mean 128 KiB, so this is 16 MiB at the worst;
#: at 512 bytes honest input costs no more than 1.7 times what one call would.
INPUT_BYTES = {"zstd": 512, "gzip": 16 << 10, "deflate": 16 << 10}
#: Members that a body may have however small they are, and the mean size that more of them must have:
#: each costs a new decompressor, so that empty ones would be a bomb of CPU.
MEMBERS, MEMBER_BYTES = 1000, 512
GZIP, ZLIB, RAW = zlib.MAX_WBITS | 16, zlib.MAX_WBITS, -zlib.MAX_WBITS
ENCODINGS = ("identity", "gzip", "deflate", "zstd")


class Decoder:
    """Decodes one body, chunk by chunk.

        decoder = Decoder("gzip", limits)
        for chunk in wire: pieces += decoder.feed(chunk)
        decoder.finish()

    Raises:
        UnsupportedMedia: an encoding we lack.
        TooLarge: over the wire or the decoded budget (by then at most one piece more was made).
        InvalidRequest: damaged, or cut short (`finish`).
    """

    def __init__(self, encoding: str, limits: Limits) -> None:
        self.encoding = normal_encoding(encoding)
        self.wire_bytes = 0
        self.decoded_bytes = 0
        self._wire_budget = limits.wire_bytes
        self._decoded_budget = limits.decoded_bytes
        self._member: Any = None
        self._members = 0
        self._held = b""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The decoded pieces of `chunk`, at most 16 MiB each; consume them all."""
        self.wire_bytes += len(chunk)
        if self.wire_bytes > self._wire_budget:
            raise TooLarge(f"the body is over {self._wire_budget} bytes", limit=self._wire_budget)
        for piece in self._pieces(chunk):
            self.decoded_bytes += len(piece)
            if self.decoded_bytes > self._decoded_budget:
                raise TooLarge(
                    f"the body decodes to over {self._decoded_budget} bytes",
                    limit=self._decoded_budget,
                    wire_bytes=self.wire_bytes,
                )
            yield piece

    def finish(self) -> None:
        """Says that no more comes.

        Raises:
            InvalidRequest: the body was cut short.
        """
        if self._member is not None or (self.encoding != "identity" and not self._members):
            raise InvalidRequest(
                f"the {self.encoding} body ends early, after {self.wire_bytes} bytes on the wire",
                reason="truncated",
            )

    def _pieces(self, chunk: bytes) -> Iterator[bytes]:
        if self.encoding == "identity":
            if chunk:
                yield chunk
            return
        chunk, self._held = self._held + chunk, b""
        if self.encoding == "deflate" and not self._members and len(chunk) == 1:
            self._held = chunk  # two bytes tell zlib's wrapping from none
            return
        view, at = memoryview(chunk), 0
        while at < len(view):
            if self._member is None:
                at = self._begin(chunk, at)
                if self._member is None:
                    return
            part = view[at : at + INPUT_BYTES[self.encoding]]
            at += len(part)
            try:
                yield from self._decode(part)
            except (zlib.error, zstandard.ZstdError) as error:
                near = self.wire_bytes - len(view) + at
                text = f"the {self.encoding} body is damaged near byte {near}: {error}"
                raise InvalidRequest(text, reason="damaged") from error
            if self._member.eof:
                at -= len(self._member.unused_data)
                self._member = None

    def _begin(self, chunk: bytes, at: int) -> int:
        """Starts the next member at or after `at`; zeros between gzip members are padding."""
        if self.encoding == "gzip" and self._members:
            while at < len(chunk) and chunk[at] == 0:
                at += 1
            if at == len(chunk):
                return at
        self._members += 1
        if self._members > MEMBERS and self.decoded_bytes < self._members * MEMBER_BYTES:
            raise InvalidRequest(
                f"the {self.encoding} body has over {MEMBERS} almost empty members",
                reason="too_many_members",
            )
        if self.encoding == "zstd":
            maker = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
            self._member = maker.decompressobj(read_across_frames=False)
        elif self.encoding == "gzip":
            self._member = zlib.decompressobj(GZIP)
        else:
            self._member = zlib.decompressobj(ZLIB if _zlib_head(chunk[at : at + 2]) else RAW)
        return at

    def _decode(self, part: memoryview) -> Iterator[bytes]:
        member = self._member
        if self.encoding == "zstd":
            if piece := member.decompress(part):
                yield piece
            return
        data: bytes | memoryview = part
        while not member.eof:
            piece = member.decompress(data, OUTPUT_BYTES)
            data = member.unconsumed_tail
            if piece:
                yield piece
            if not data and len(piece) < OUTPUT_BYTES:
                return


def normal_encoding(header: str | None) -> str:
    """One of ENCODINGS from a Content-Encoding header.

    Raises:
        UnsupportedMedia: unknown, or several at once.
    """
    name = (header or "identity").strip().lower()
    name = {"x-gzip": "gzip", "": "identity", "zst": "zstd"}.get(name, name)
    if name not in ENCODINGS:
        raise UnsupportedMedia(
            f"content encoding {name[:40]!r} is not supported", supported=list(ENCODINGS)
        )
    return name


def decompress(body: bytes | Iterable[bytes], encoding: str, limits: Limits) -> bytes:
    """A whole body decoded. Raises as `Decoder`."""
    chunks = (body,) if isinstance(body, bytes | bytearray | memoryview) else body
    decoder = Decoder(encoding, limits)
    pieces = [piece for chunk in chunks for piece in decoder.feed(bytes(chunk))]
    decoder.finish()
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _zlib_head(data: bytes) -> bool:
    """Whether `data` begins with zlib's two bytes (RFC 1950), as deflate should and often does not."""
    return len(data) >= 2 and data[0] & 15 == 8 and (data[0] * 256 + data[1]) % 31 == 0

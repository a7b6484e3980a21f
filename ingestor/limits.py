"""The limits on what one request may cost, and on one row. Each is said loudly when it is met.

Numbers from the protocol's table of limits (docs/protocol.md); every one is a setting.
"""

from dataclasses import dataclass

KIB = 1 << 10
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes, counts and seconds. Tests make them small."""

    #: A request's body as it comes over the wire, and after decompression. The second is what a bomb
    #: meets: memory never holds more of a body than this.
    wire_bytes: int = 64 * MIB
    decoded_bytes: int = 512 * MIB
    #: A body that is read as one document (JSON array, TraceHub, CSV, text), decoded: it is in memory
    #: as text and as columns at once. JSON lines go in pieces and have no such limit.
    document_bytes: int = 128 * MIB
    #: Values that one document or piece may have when it is read row by row, which takes some
    #: hundred bytes for each; and distinct names beyond which new ones go straight to `attributes`.
    slow_values: int = 4_000_000
    slow_names: int = 5_000
    #: Body size from which JSON lines are committed in pieces while the rest arrives, bytes.
    piece_bytes: int = 8 * MIB
    #: A longer row has its message cut to `row_bytes`; beyond `row_bytes_max` it is a bad row.
    row_bytes: int = 1 * MIB
    row_bytes_max: int = 16 * MIB
    #: Fields of one row and bytes of one name; what is beyond goes to `_overflow` as JSON.
    row_fields: int = 2000
    name_bytes: int = 256
    #: Levels of objects and arrays in one row; far above what logs have, far below a stack's end.
    depth: int = 64
    #: Rows in one TraceHub batch.
    batch_rows: int = 50_000
    #: Rows in one document (JSON array, CSV); JSON lines have no such limit, they go in pieces.
    document_rows: int = 200_000
    #: Lines in one piece, so that a piece of nothing but bad lines stays small.
    piece_rows: int = 100_000
    #: Columns of one batch that are kept in any case, and at most. Between the two a field needs to be
    #: in one of `rare_one_in` rows; what is left goes to `attributes`.
    columns_sure: int = 100
    columns_max: int = 200
    rare_one_in: int = 64
    #: Bytes kept of a bad row in the stream `_failed`.
    failed_row_bytes: int = 64 * KIB
    #: Bytes of a service's or producer's name.
    identifier_bytes: int = 128
    #: A slow client: seconds for the whole body, unless it keeps up `body_bytes_per_second`; and
    #: seconds of silence within a body.
    body_seconds: float = 30.0
    body_bytes_per_second: int = 1 * KIB
    idle_seconds: float = 30.0
    #: Seconds for which a write is held when no quorum answers, before it is refused.
    hold_seconds: float = 10.0

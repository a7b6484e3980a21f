"""Types of the kernels; see src/lib.rs for what they do."""

from collections.abc import Sequence

class Buffer:
    """Bytes lent by the kernel; read-only, by the buffer protocol."""

    def __buffer__(self, flags: int, /) -> memoryview: ...

#: name, kind, nulls, validity, buffers; then for times the digits below the microsecond.
_Lent = tuple[str, str, int, Buffer | None, list[Buffer]]
_Fine = tuple[int, Buffer | None, Buffer] | None

_Bounds = tuple[int, int, int, int, int, int]
_Columns = list[tuple[_Lent, _Fine]]

def kernel_version() -> int: ...
def parse_ndjson(
    body: bytes,
    limits: _Bounds,
    dictionaries: Sequence[str],
    times: Sequence[str],
) -> tuple[int, _Columns, list[tuple[int, int, int]]] | None: ...
def parse_elements(
    body: bytes,
    at: int,
    rows_max: int,
    limits: _Bounds,
    dictionaries: Sequence[str],
    times: Sequence[str],
) -> tuple[int, _Columns, int] | None: ...
def token_filter(data: object, offsets: object, words: bool, bits: int) -> bytes: ...
def crc32(data: object) -> int: ...
def find_in_page(
    page: bytes, start: int, values: int, needle: bytes, fold: bool, keep: bool
) -> tuple[Buffer, Buffer, Buffer] | None: ...

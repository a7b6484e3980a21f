"""The hash of what rows say, whatever types and column order a parser gave them.

Two parses of the same rows must hash alike, or replicas that stored different copies of one entry would
never compare equal. So numbers are hashed as float64 (and what an int loses by that, besides), text as
UTF-8, columns by name, nulls as absent. Left out: names that begin with `_` (enrichment, not the
sender's), and the receive time, also where it stands in for a missing timestamp.

Rows that hash differently may still be equal (keys of `attributes` in another order); the replica then
compares them. Cost: one pass of SHA-256 over the bytes, about 1 ns a byte.
"""

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as _pc

from records.ids import ID_BYTES

pc: Any = _pc  # its functions are made at run time

#: Facts of the entry, not of a row: they are in its header.
ENTRY_FACTS = ("tenant", "received_at", "producer", "producer_epoch", "seq")


def content_hash(table: pa.Table, received_at: int) -> bytes:
    """16 bytes over the rows of `table`, in their order.

    Args:
        received_at: microseconds; a timestamp equal to it counts as absent.
    """
    hasher = hashlib.sha256(table.num_rows.to_bytes(8, "big"))
    for name in sorted(table.schema.names):
        column = table[name]
        if name.startswith("_") or name in ENTRY_FACTS or column.null_count == table.num_rows:
            continue
        hasher.update(len(name).to_bytes(4, "big") + name.encode())
        for part in _canonical(name, _one_array(column), received_at):
            hasher.update(part)
    return hasher.digest()[:ID_BYTES]


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    combined: Any = column.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined


def _canonical(name: str, array: pa.Array, received_at: int) -> list[Any]:
    kind = array.type
    if pa.types.is_timestamp(kind):
        return _times(array, received_at if name == "timestamp" else None)
    if pa.types.is_boolean(kind):
        filled = pc.fill_null(array, False) if array.null_count else array
        return [b"b", *_values(array, filled.cast(pa.uint8()).to_numpy())]
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _numbers(array)
    return _texts(array if pa.types.is_string(kind) else array.cast(pa.string()))


def _values(array: pa.Array, values: np.ndarray) -> list[Any]:
    """Which are null (nothing, if none is), and the values with nulls filled."""
    if array.null_count == 0:
        return [b"\0", np.ascontiguousarray(values)]
    valid = np.packbits(array.is_valid().to_numpy(zero_copy_only=False))
    return [b"\1", valid, np.ascontiguousarray(values)]


def _filled(array: pa.Array) -> np.ndarray:
    return (pc.fill_null(array, 0) if array.null_count else array).to_numpy()


def _times(array: pa.Array, absent: int | None) -> list[Any]:
    if array.type.unit != "us":
        array = array.cast(pa.timestamp("us", tz="UTC"), safe=False)
    micros = array.view(pa.int64())
    if absent is not None and absent in (values := _filled(micros)):
        micros = pa.array(values, mask=(values == absent) | ~_valid(micros))
    return [b"t", *_values(micros, _filled(micros))]


def _valid(array: pa.Array) -> np.ndarray:
    return array.is_valid().to_numpy(zero_copy_only=False)


def _numbers(array: pa.Array) -> list[Any]:
    exact = _filled(array)
    whole = exact.dtype.kind in "iu"
    floats = exact.astype(np.float64) + 0.0
    if not whole:
        floats[np.isnan(floats)] = np.nan
    parts = [b"n", *_values(array, floats)]
    if whole and np.abs(floats).max(initial=0.0) >= 2.0**53:
        parts.append(np.ascontiguousarray(exact.astype(np.int64)))
    return parts


def _texts(array: pa.Array) -> list[Any]:
    filled = pc.fill_null(array, "") if array.null_count else array
    _, offsets_buffer, data = filled.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[filled.offset :][: len(filled) + 1]
    first, last = int(offsets[0]), int(offsets[-1])
    text = memoryview(data)[first:last] if data is not None else b""
    return [b"s", *_values(array, np.diff(offsets)), text]

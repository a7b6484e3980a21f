"""Sidecar: what a block tells without opening its Parquet body.

Version 1 is a rollup: the number of rows by (entry, minute, service, level). Counts and histograms
that need no more than these never touch a row; the services and levels prune whole blocks. It is kept
per entry, so that a replica may count just the shards it was asked for and leave out hidden entries.
A block whose rollup would not be much smaller than its rows has none, and is scanned instead.

Version 2 adds filters of words and ids for each row group (records.row_filters). A small block, or one
whose filters are switched off, is written as version 1; a reader of version 1 ignores what it does not know.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from records import envelope
from records.columns import CORE_TYPES, ERASED_COLUMN, is_erased, plain
from records.errors import BlockCorrupt
from records.row_filters import RowFilters, from_fields, to_fields
from records.timestamps import MICROS_PER_MINUTE

#: Rows a cell of the rollup must stand for on average; fewer, and scanning is as cheap.
MIN_ROWS_PER_CELL = 4


@dataclass(frozen=True, slots=True)
class Rollup:
    """Parallel arrays, one element a cell: counts of rows by entry, minute, service and level."""

    services: tuple[str, ...]
    levels: tuple[str, ...]
    entry: np.ndarray
    minute: np.ndarray
    service: np.ndarray
    level: np.ndarray
    count: np.ndarray


_ARRAYS = (
    ("entry", "<u4"),
    ("minute", "<i8"),
    ("service", "<u2"),
    ("level", "<u2"),
    ("count", "<u4"),
)


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, tuple[str, ...]]:
    """(code per row, names) of a dictionary column without nulls."""
    combined = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(combined, pa.ChunkedArray):
        combined = pa.concat_arrays(combined.chunks)
    if not pa.types.is_dictionary(combined.type):
        combined = combined.dictionary_encode()
    codes = combined.indices.to_numpy(zero_copy_only=False)
    if codes.dtype.itemsize == 8:  # beside int64, unsigned ones would turn to floats
        codes = codes.astype(np.int64)
    return codes, tuple(combined.dictionary.to_pylist())


def _micros(column: pa.ChunkedArray) -> np.ndarray:
    """The times as numbers; a cast, even one that changes nothing, takes 50 times as long as a view."""
    if column.num_chunks == 1 and column.type == CORE_TYPES["timestamp"]:
        return column.chunk(0).view(pa.int64()).to_numpy()
    return column.cast(pa.int64()).to_numpy()


def build_rollup(table: pa.Table, row_starts: list[int]) -> Rollup | None:
    """The rollup of a block's rows; None when it would not pay.

    Cost: one pass that counts, or one sort of int64 keys if there could be more cells than rows.

    Args:
        table: the block's rows; `service` and `level` must hold no nulls.
        row_starts: first row of each entry, ascending.
    """
    rows = table.num_rows
    if rows == 0:
        return None
    if is_erased(table.schema):
        return _rollup_without_erased(table, row_starts)
    minute = _micros(table["timestamp"]) // MICROS_PER_MINUTE
    service, services = _codes(table["service"])
    level, levels = _codes(table["level"])
    base = int(minute.min())
    span = int(minute.max()) - base + 1
    cells = len(row_starts) * span * len(services) * len(levels)
    if cells >= 1 << 62 or max(len(services), len(levels)) > 0xFFFF:
        return None
    entry = np.repeat(np.arange(len(row_starts)), np.diff([*row_starts, rows]))
    key = ((entry * span + (minute - base)) * len(services) + service) * len(levels) + level
    if cells <= rows:
        counts = np.bincount(key, minlength=1)
        unique = np.flatnonzero(counts)
        count = counts[unique]
    else:
        unique, count = np.unique(key, return_counts=True)
    if len(unique) * MIN_ROWS_PER_CELL > rows and rows > 64:
        return None
    rest, level_code = np.divmod(unique, len(levels))
    rest, service_code = np.divmod(rest, len(services))
    entry_code, minute_code = np.divmod(rest, span)
    return Rollup(services, levels, entry_code, minute_code + base, service_code, level_code, count)


def _rollup_without_erased(table: pa.Table, row_starts: list[int]) -> Rollup | None:
    """The rollup of the rows that are not blanked; one without cells if all are."""
    kept = np.flatnonzero(table[ERASED_COLUMN].is_null().to_numpy())
    if not len(kept):
        nothing = np.zeros(0, np.int64)
        return Rollup((), (), nothing, nothing, nothing, nothing, nothing)
    rest = table.select(["timestamp", "service", "level"]).take(pa.array(kept))
    return build_rollup(plain(rest), np.searchsorted(kept, row_starts).tolist())


def to_bytes(
    services: tuple[str, ...],
    levels: tuple[str, ...],
    rollup: Rollup | None,
    filters: RowFilters | None = None,
) -> bytes:
    """The sidecar's bytes (msgpack; arrays little-endian). With a rollup, its names are the ones."""
    version = 1 if filters is None else 2
    fields: dict[str, Any] = {"v": version, "services": list(services), "levels": list(levels)}
    if rollup is not None:
        fields["services"], fields["levels"] = list(rollup.services), list(rollup.levels)
        for name, kind in _ARRAYS:
            fields[name] = getattr(rollup, name).astype(kind).tobytes()
    if filters is not None:
        fields |= to_fields(filters)
    return envelope.packb(fields)


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A decoded sidecar: the services and levels that occur, the rollup and the filters if there are any."""

    services: tuple[str, ...]
    levels: tuple[str, ...]
    rollup: Rollup | None
    filters: RowFilters | None = None


def from_bytes(data: bytes | memoryview) -> Sidecar:
    """The inverse of `to_bytes`.

    Raises:
        BlockCorrupt: malformed, or arrays of different lengths.
    """
    fields = envelope.unpackb(data)
    try:
        services, levels = tuple(fields["services"]), tuple(fields["levels"])
        filters = from_fields(fields) if "filters" in fields else None
        if "count" not in fields:
            return Sidecar(services, levels, None, filters)
        arrays = {name: np.frombuffer(fields[name], kind) for name, kind in _ARRAYS}
    except (KeyError, TypeError, ValueError) as error:
        raise BlockCorrupt(f"sidecar: {error!r}") from error
    if len({len(array) for array in arrays.values()}) != 1:
        raise BlockCorrupt("sidecar arrays differ in length")
    return Sidecar(services, levels, Rollup(services, levels, **arrays), filters)

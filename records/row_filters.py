"""The filters of a block: for each of its row groups, which words and which ids it can hold.

Built beside the rollup at the ingestor, read by replicas. What has a filter: the words of `message`, and
the values of id-like columns: short texts of which many differ, found by measuring a sample. What a filter
does not cover is "maybe": a group without one, a column that is no text, rows that keep the field in
`attributes`. `present` says of columns with nulls in which groups they have a value at all.

Invariant: a filter covers each row of its group in which a condition on its column could hold.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from records import token_filter
from records.columns import CORE_TYPES
from records.errors import BlockCorrupt

pc: Any = pyarrow.compute
MESSAGE, ATTRIBUTES = "message", "attributes"
#: Fewer rows are read as fast as they are pruned, and their filters would weigh more than they spare.
MIN_ROWS = 256
#: Rows looked at to tell ids from other texts; the share of distinct values from which it is an id.
SAMPLE_ROWS, DISTINCT_SHARE = 2048, 0.1
#: Id columns with filters in one block: a bound, as senders name the columns.
ID_COLUMNS_MAX = 16
#: How filters are built: always; where it is cheap (words only by the native kernel); never.
MODES = ("on", "auto", "off")


@dataclass(frozen=True, slots=True)
class RowFilters:
    """Filters of a block's row groups. `blocks`: 64-byte blocks of each group's filter, 0 for none.

    `bits`: a column's filters one after another, uint64[sum of blocks, 8]. `present`: bool of each group,
    for columns that are null all through some group. `columns`: all columns of the block.
    """

    group_rows: int
    groups: int
    columns: tuple[str, ...]
    blocks: dict[str, np.ndarray]
    bits: dict[str, np.ndarray]
    present: dict[str, np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes of all filters."""
        return sum(bits.nbytes for bits in self.bits.values())


def build_filters(table: pa.Table, group_rows: int, mode: str = "auto") -> RowFilters | None:
    """The filters of a block's rows; None where they would not pay, or are switched off."""
    rows = table.num_rows
    if mode == "off" or rows < MIN_ROWS:
        return None
    cuts = [(at, min(group_rows, rows - at)) for at in range(0, rows, group_rows)]
    built: dict[str, list[bytes]] = {}
    if mode == "on" or token_filter.kernel is not None:
        text = token_filter.text_column(table[MESSAGE]) if MESSAGE in table.schema.names else None
        if text is not None:
            text = token_filter.fold_letters(text)
            built[MESSAGE] = [token_filter.build(text.slice(*cut), words=True) for cut in cuts]
    for name, values in _id_columns(table).items():
        extra = _Attributes(table, name, values)
        built[name] = [
            token_filter.build(values.slice(*cut), words=False) if extra.none_in(cut) else b""
            for cut in cuts
        ]
    return RowFilters(
        group_rows,
        len(cuts),
        tuple(table.schema.names),
        {n: np.array([len(f) // token_filter.BLOCK_BYTES for f in fs]) for n, fs in built.items()},
        {n: _bits(b"".join(filters)) for n, filters in built.items()},
        _present(table, cuts),
    )


def _bits(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<u8").reshape(-1, token_filter.LANES)


def _id_columns(table: pa.Table) -> dict[str, pa.Array]:
    """The id-like columns, by the distinct values among the first rows."""
    found: dict[str, pa.Array] = {}
    for field in table.schema:
        if field.name in (MESSAGE, ATTRIBUTES) or len(found) == ID_COLUMNS_MAX:
            continue
        values = token_filter.text_column(table[field.name])
        if values is not None and _looks_like_ids(values.slice(0, SAMPLE_ROWS)):
            found[field.name] = values
    return found


def _looks_like_ids(sample: pa.Array) -> bool:
    filled = len(sample) - sample.null_count
    _, offsets = token_filter.buffers_of(sample)
    if filled == 0 or int(offsets[-1]) - int(offsets[0]) > filled * token_filter.KEY_BYTES_MAX:
        return False
    return pc.count_distinct(sample).as_py() >= max(2, filled * DISTINCT_SHARE)


class _Attributes:
    """Whether rows of a group may keep a field in `attributes`, where its column is null."""

    def __init__(self, table: pa.Table, name: str, values: pa.Array) -> None:
        self._candidates: pa.ChunkedArray | None = None
        self._name, self._unknown = name, False
        if ATTRIBUTES not in table.schema.names or name in CORE_TYPES or not values.null_count:
            return
        self._unknown = not name.isascii()
        texts = table[ATTRIBUTES]
        keys = {name, name.split(".", 1)[0]}
        hits = [pc.match_substring(texts, _json_key(key)) for key in keys]
        found = pc.fill_null(hits[0] if len(hits) == 1 else pc.or_kleene(*hits), False)
        self._candidates = pc.and_(found, pc.is_null(values))

    def none_in(self, cut: tuple[int, int]) -> bool:
        """Whether the filter of these rows would cover all that a condition can match."""
        if self._unknown:
            return False
        return self._candidates is None or not pc.any(self._candidates.slice(*cut)).as_py()


def _json_key(name: str) -> str:
    """The key as JSON text holds it, without its closing quote, as storage.scan_filter looks for it."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"')


def _present(table: pa.Table, cuts: list[tuple[int, int]]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for field in table.schema:
        column = table[field.name]
        if column.null_count:
            there = np.array([column.slice(*cut).null_count < cut[1] for cut in cuts])
            if not there.all():
                found[field.name] = there
    return found


def to_fields(filters: RowFilters) -> dict[str, Any]:
    """What a sidecar of version 2 has beside one of version 1."""
    return {
        "group_rows": filters.group_rows,
        "groups": filters.groups,
        "columns": list(filters.columns),
        "filters": {
            name: [filters.blocks[name].tolist(), filters.bits[name].tobytes()]
            for name in filters.blocks
        },
        "present": {name: bytes(there.tolist()) for name, there in filters.present.items()},
    }


def from_fields(fields: dict[str, Any]) -> RowFilters:
    """The inverse.

    Raises:
        BlockCorrupt: malformed, or lengths that do not fit one another.
    """
    try:
        blocks = {name: np.array(one[0], np.int64) for name, one in fields["filters"].items()}
        bits = {name: _bits(one[1]) for name, one in fields["filters"].items()}
        present = {n: np.frombuffer(b, np.uint8) != 0 for n, b in fields["present"].items()}
        group_rows, columns = int(fields["group_rows"]), tuple(fields["columns"])
        groups = int(fields["groups"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise BlockCorrupt(f"sidecar filters: {error!r}") from error
    lengths = {len(one) for one in (*blocks.values(), *present.values())}
    whole = all((one >= 0).all() and one.sum() == len(bits[name]) for name, one in blocks.items())
    if not whole or lengths - {groups} or group_rows < 1 or groups < 1:
        raise BlockCorrupt("sidecar filters do not fit one another")
    return RowFilters(group_rows, groups, columns, blocks, bits, present)

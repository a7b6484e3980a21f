"""Are two copies of the same rows equal? The precondition of set union: one name, one content.

Rows are compared in canonical form: without our enrichment (`_` names), `received_at`, and a timestamp that
we made ourselves (it equals the entry's `received_at`); `attributes` spread out; numbers as floats; a number
and the text that reads as it are equal, since a column may have widened to text. Whole columns are compared
natively first; only rows that then look different are compared value by value.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from records.block import EntryHeader, Spans
from records.columns import ERASED_COLUMN
from storage.scan_filter import as_double, number_of
from storage.scan_select import Ranges, rows_of

#: Arrow's kernels are made at import; type checkers cannot see them.
pc: Any = pyarrow.compute
_IGNORED = frozenset({"received_at", "tenant", "producer", "producer_epoch", "seq"})
_STAMPS = ("timestamp", "timestamp_ns")
ATTRIBUTES = "attributes"


@dataclass(frozen=True, slots=True)
class EntryRows:
    """An entry's header and the columns of its block."""

    header: EntryHeader
    columns: dict[str, pa.Array]

    def taken(self, ranges: Ranges) -> dict[str, pa.Array]:
        """The compared columns of some rows (half-open ranges counted in the entry)."""
        start = self.header.row_start
        parts = [np.arange(start + a, start + b) for a, b in ranges] or [np.zeros(0, np.int64)]
        rows = pa.array(np.concatenate(parts))
        names = [n for n in self.columns if n not in _IGNORED and not n.startswith("_")]
        found = {name: _plain(self.columns[name].take(rows)) for name in names}
        return self._without_own_stamps(found)

    def erased(self, ranges: Ranges) -> np.ndarray:
        """Which of these rows were blanked: they are what the other side says, whatever that is."""
        start = self.header.row_start
        rows = np.concatenate([np.arange(start + a, start + b) for a, b in ranges] or [[]])
        column = self.columns.get(ERASED_COLUMN)
        if column is None or not pa.types.is_int8(column.type):
            return np.zeros(len(rows), bool)
        marks = column.take(pa.array(rows, pa.int64()))
        return marks.is_valid().to_numpy(zero_copy_only=False)

    def _without_own_stamps(self, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
        if "timestamp" not in columns:
            return columns
        stamps = columns["timestamp"].cast(pa.int64())
        ours = pc.equal(stamps, pa.scalar(self.header.received_at, pa.int64()))
        for name in _STAMPS:
            if name in columns:
                whole = stamps if name == "timestamp" else columns[name].cast(pa.int64())
                columns[name] = pc.if_else(ours, pa.scalar(None, pa.int64()), whole)
        return columns


def _plain(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def differing_seqs(left: EntryRows, right: EntryRows, spans: Spans) -> Spans:
    """The sequences in `spans` (held by both) whose rows differ."""
    mine, theirs = rows_of(left.header.seqs, spans), rows_of(right.header.seqs, spans)
    unequal = _differing(left.taken(mine), right.taken(theirs))
    unequal = unequal[~(left.erased(mine) | right.erased(theirs))[unequal]]
    seqs = np.concatenate([np.arange(a, b + 1) for a, b in spans])[unequal]
    return _as_spans(seqs)


def differing_entries(left: EntryRows, right: EntryRows) -> tuple[bool, Spans]:
    """(whether all rows are equal, the sequences that differ) of two entries with one id."""
    a, b = left.header, right.header
    if a.row_count != b.row_count or a.seqs != b.seqs or a.skips != b.skips:
        return False, a.seqs
    whole = ((0, a.row_count),)
    unequal = _differing(left.taken(whole), right.taken(whole))
    unequal = unequal[~(left.erased(whole) | right.erased(whole))[unequal]]
    if not len(unequal):
        return True, ()
    if not a.seqs:
        return False, ()
    seqs = np.concatenate([np.arange(first, last + 1) for first, last in a.seqs])
    return False, _as_spans(seqs[unequal])


def _as_spans(seqs: np.ndarray) -> Spans:
    if not len(seqs):
        return ()
    cuts = np.flatnonzero(np.diff(seqs) != 1) + 1
    return tuple((int(part[0]), int(part[-1])) for part in np.split(seqs, cuts))


def _differing(left: dict[str, pa.Array], right: dict[str, pa.Array]) -> np.ndarray:
    """Positions at which the rows differ."""
    count = len(next(iter((left or right).values()), []))
    suspect = np.zeros(count, bool)
    for name in left.keys() | right.keys():
        suspect |= ~_equal_values(left.get(name), right.get(name), count)
    positions = np.flatnonzero(suspect)
    if not len(positions):
        return positions
    rows = pa.array(positions)
    pairs = zip(_dicts(left, rows), _dicts(right, rows), strict=True)
    unequal = [not same_values(canonical(a), canonical(b)) for a, b in pairs]
    return positions[np.array(unequal, bool)]


def _equal_values(left: pa.Array | None, right: pa.Array | None, count: int) -> np.ndarray:
    """Where two columns surely agree."""
    if left is None or right is None:
        one = left if left is not None else right
        return (
            one.is_null().to_numpy(zero_copy_only=False)
            if one is not None
            else np.ones(count, bool)
        )
    both_null = pc.and_(left.is_null(), right.is_null()).to_numpy(zero_copy_only=False)
    if left.type != right.type:
        return both_null
    equal = pc.fill_null(pc.equal(left, right), False).to_numpy(zero_copy_only=False)
    return equal | both_null


def _dicts(columns: dict[str, pa.Array], rows: pa.Array) -> list[dict[str, Any]]:
    return pa.table({name: array.take(rows) for name, array in columns.items()}).to_pylist()


def canonical(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it is compared: attributes spread out, nulls dropped."""
    result = dict(row)
    text = result.pop(ATTRIBUTES, None)
    spread = _parsed(text) if isinstance(text, str) else None
    if isinstance(spread, dict):
        for name, value in spread.items():
            if result.get(name) is None and not name.startswith("_"):
                result[name] = value
    elif text is not None:
        result[ATTRIBUTES] = text
    return {name: value for name, value in result.items() if value is not None}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def same_values(left: Any, right: Any) -> bool:
    """Whether two canonical values are equal."""
    if isinstance(left, str) and isinstance(right, str):
        return left == right
    if isinstance(left, str) or isinstance(right, str):
        text, other = (left, right) if isinstance(left, str) else (right, left)
        return _reads_as(text, other)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_values(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return _same_lists(left, right)
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float):
        doubles = as_double(left), as_double(right)
        return left == right or doubles[0] == doubles[1] or (left != left and right != right)
    return left == right


def _same_lists(left: Sequence[Any], right: Sequence[Any]) -> bool:
    return len(left) == len(right) and all(map(same_values, left, right))


def _reads_as(text: str, other: Any) -> bool:
    """Whether `text` is how a column of text shows `other`."""
    if isinstance(other, bool):
        return text.lower() == str(other).lower()
    if isinstance(other, int | float):
        number = number_of(text)
        return number is not None and same_values(number, other)
    if isinstance(other, dict | list):
        parsed = _parsed(text)
        return isinstance(parsed, dict | list) and same_values(parsed, other)
    return False

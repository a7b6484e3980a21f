"""Rows as dicts to typed columns: the slow way's second half.

Nested objects are flattened with `.`, arrays become JSON text, null is absence. A column has one type:
int64, double, bool or string; values of several types become text (int and double become double where
that loses nothing). Columns are kept sparse until it is known which stay, so that a batch in which
every row has other keys costs what its values cost. The long tail goes to `attributes`, what is over a
row's limits to `_overflow`, each a JSON object as text.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from ingestor.limits import Limits
from records.errors import TooLarge

#: Names of what we fold; no field of a row can have them (NUL in a name becomes U+FFFD).
ATTRIBUTES, OVERFLOW = "\0attributes", "\0overflow"
#: Integers up to here are exact as doubles.
EXACT = 1 << 53
_INT64 = range(-(1 << 63), 1 << 63)


def json_text(value: Any) -> str:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def flatten(row: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """The row's fields by dotted name: str, int, float or bool; what is over a limit in `_overflow`."""
    fields: dict[str, Any] = {}
    beyond: dict[str, Any] = {}
    _flatten(row, "", fields, beyond, limits)
    if beyond:
        fields[OVERFLOW] = json_text(beyond)
    return fields


def _flatten(
    row: dict[str, Any], prefix: str, fields: dict[str, Any], beyond: dict[str, Any], limits: Limits
) -> None:
    for key, value in row.items():
        if value is None:
            continue
        name = prefix + (key.replace("\0", "\ufffd") if "\0" in key else key)
        if type(value) is dict:
            _flatten(value, name + ".", fields, beyond, limits)
            continue
        if type(value) is list:
            value = json_text(value)
        if name in fields or len(fields) >= limits.row_fields or _too_long(name, limits):
            beyond[name] = value
        else:
            fields[name] = value


def _too_long(name: str, limits: Limits) -> bool:
    size = len(name)
    return size > limits.name_bytes or (
        size * 4 > limits.name_bytes and len(name.encode("utf-8", "replace")) > limits.name_bytes
    )


class RowColumns:
    """Collects flat rows, then gives columns. `keep(name)`: fields that are never folded."""

    def __init__(self, limits: Limits, keep: Callable[[str], bool]) -> None:
        self.rows = 0
        self._limits = limits
        self._keep = keep
        self._at: dict[str, list[int]] = {}
        self._values: dict[str, list[Any]] = {}
        self._tail: dict[int, dict[str, Any]] = {}
        self._count = 0

    def add(self, fields: dict[str, Any]) -> None:
        """One more row.

        Raises:
            TooLarge: more values than one request may make of us, read row by row.
        """
        at, values, row = self._at, self._values, self.rows
        for name, value in fields.items():
            if name in at:
                at[name].append(row)
                values[name].append(value)
            elif len(at) < self._limits.slow_names or self._keep(name) or name == OVERFLOW:
                at[name] = [row]
                values[name] = [value]
            else:
                self._tail.setdefault(row, {})[name] = value
        self.rows += 1
        self._count += len(fields)
        if self._count > self._limits.slow_values:
            most = self._limits.slow_values
            raise TooLarge(
                f"more than {most} values at once; send less, or as JSON lines", limit=most
            )

    def build(self) -> dict[str, pa.Array]:
        """The columns, each `rows` long."""
        self._fold_tail()
        columns: dict[str, pa.Array] = {}
        for name, values in self._values.items():
            spread = self._spread(column_of(values), self._at[name])
            columns[_clean(name)] = spread
        return columns

    def _spread(self, present: pa.Array, at: list[int]) -> pa.Array:
        if len(at) == self.rows:
            return present
        where = np.full(self.rows, -1, np.int64)
        where[at] = np.arange(len(at))
        return present.take(pa.array(where, mask=where < 0))

    def _fold_tail(self) -> None:
        limits = self._limits
        if len(self._at) <= limits.columns_sure:
            return
        order = sorted(
            self._at, key=lambda name: (not self._keep(name), -len(self._at[name]), name)
        )
        enough = self.rows / limits.rare_one_in
        folded = self._tail
        for rank, name in enumerate(order):
            at = self._at[name]
            stays = rank < limits.columns_max and len(at) >= enough
            if rank < limits.columns_sure or stays or self._keep(name) or name == OVERFLOW:
                continue
            for row, value in zip(at, self._values[name], strict=True):
                folded.setdefault(row, {})[name] = value
            del self._at[name], self._values[name]
        if folded:
            rows = sorted(folded)
            self._at[ATTRIBUTES] = rows
            self._values[ATTRIBUTES] = [
                json_text(dict(sorted(folded[row].items()))) for row in rows
            ]


def column_of(values: list[Any]) -> pa.Array:
    """A column of str, int, float and bool values; mixed ones become text."""
    kinds = set(map(type, values))
    if kinds == {str}:
        return _texts(values)
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {int} and min(values) in _INT64 and max(values) in _INT64:
        return pa.array(values, pa.int64())
    if float in kinds and kinds <= {int, float} and _exact(values):
        return pa.array([float(value) + 0.0 for value in values], pa.float64())
    return _texts([value if type(value) is str else json_text(value) for value in values])


def _exact(values: list[Any]) -> bool:
    return all(type(value) is float or -EXACT < value < EXACT for value in values)


def _texts(values: list[str]) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        return pa.array([_clean(value) for value in values], pa.string())


def _clean(text: str) -> str:
    """`text` with lone surrogates replaced; anything else as it is."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text

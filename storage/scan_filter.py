"""Evaluates a plan's filter over one block: a numpy mask of rows. Native passes only, no loop over rows.

Two-valued logic: a row without the field matches no condition on it, and matches its negation. A value is
compared as what the column is: text that reads as a number with numbers, anything else matches nothing.
A field that is no column of the block is looked up in `attributes`. Conditions of a conjunction run from
cheap to dear, each only on rows that are left. Regexes are Rust's (polars): linear time, no look-around.
"""

import contextlib
import itertools
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute

from records.columns import CORE_TYPES
from records.errors import InvalidRequest
from records.needle import Needle, needle_of
from records.predicates import Filter, fields_of

#: Arrow's kernels are made at import; type checkers cannot see them.
pc: Any = pyarrow.compute
ATTRIBUTES = "attributes"
#: Below this share of rows left, the next condition runs on a copy of those rows alone.
NARROW_BELOW = 0.25
_COST = {"true": 0, "exists": 1, "eq": 2, "in": 2, "range": 2, "phrase": 8, "word": 9, "regex": 10}
_INT64 = range(-(1 << 63), 1 << 63)


#: Text may come in chunks, anything else is one array.
Column: TypeAlias = pa.Array | pa.ChunkedArray


def taken(column: Column, positions: np.ndarray) -> pa.Array:
    """The values at `positions`, which ascend. Of chunks each gives its own: nothing is joined but these."""
    if not isinstance(column, pa.ChunkedArray):
        return column.take(pa.array(positions))
    parts, start = [], 0
    edges = np.searchsorted(positions, np.cumsum([0, *map(len, column.chunks)])).tolist()
    for chunk, (low, high) in zip(column.chunks, itertools.pairwise(edges), strict=True):
        if high > low:
            parts.append(chunk.take(pa.array(positions[low:high] - start)))
        start += len(chunk)
    return pa.concat_arrays(parts) if parts else pa.array([], column.type)


class BlockView:
    """The rows of one block or batch, or some of them, with their columns loaded when asked for."""

    def __init__(
        self,
        load: Callable[[str], Column | None],
        rows: int,
        positions: np.ndarray | None = None,
        search: "Search | None" = None,
    ) -> None:
        """`search`: finds the rows that match without loading the column, where that is possible."""
        self._load, self._positions, self._search = load, positions, search
        self.rows = rows if positions is None else len(positions)
        self._total = rows
        self._taken: dict[str, Column | None] = {}

    def column(self, name: str) -> Column | None:
        """A column for the rows of this view, None if the block lacks it."""
        if name not in self._taken:
            array = self._load(name)
            if array is not None and self._positions is not None:
                array = taken(array, self._positions)
            self._taken[name] = array
        return self._taken[name]

    def narrowed(self, mask: np.ndarray) -> "BlockView":
        """The view of the rows where `mask` holds."""
        kept = np.flatnonzero(mask)
        positions = kept if self._positions is None else self._positions[kept]
        return BlockView(self._load, self._total, positions, self._search)

    def searched(self, field: str, needle: Needle | None, test: "Test") -> np.ndarray | None:
        """The mask of the rows whose text matches; None if the column has to be loaded for it."""
        if needle is None or self._search is None or field in self._taken:
            return None
        mask = self._search(field, needle, test)
        return mask if mask is None or self._positions is None else mask[self._positions]

    def attribute(self, name: str) -> pl.Series | None:
        """A field out of `attributes` as text (JSON for objects and lists), None if no row has it."""
        if name in CORE_TYPES:
            return None
        column = self.column(ATTRIBUTES)
        if column is None:
            return None
        texts = _series(column)
        if not name.isascii():  # its bytes in the JSON text may be escaped in several ways
            return _if_any(_json_value(texts, name))
        first = name.split(".", 1)[0]
        candidates = texts.str.contains(_json_key(first), literal=True).fill_null(False)
        if name != first:
            candidates |= texts.str.contains(_json_key(name), literal=True).fill_null(False)
        if not candidates.any():
            return None
        return _if_any(_json_value(texts.set(~candidates, None), name))


def _if_any(found: pl.Series) -> pl.Series | None:
    """None if there is no value: a column of nulls would make text of other blocks' numbers."""
    return None if found.null_count() == len(found) else found


def _json_key(name: str) -> str:
    """The key as JSON text holds it, without its closing quote (it may be written in several ways)."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"')


def _json_value(texts: pl.Series, name: str) -> pl.Series:
    quoted = name.replace("\\", "\\\\").replace("'", "\\'")
    found = texts.str.json_path_match(f"$['{quoted}']")
    if "." in name and all(name.split(".")):
        parts = "".join(f"['{part}']" for part in quoted.split("."))
        found = found.fill_null(texts.str.json_path_match(f"${parts}"))
    return found


def _series(array: Column) -> pl.Series:
    result = pl.from_arrow(array)
    assert isinstance(result, pl.Series)
    return result


def _mask(array: Any) -> np.ndarray:
    """A boolean array or series as a numpy mask; null is False."""
    if isinstance(array, pl.Series):
        return array.fill_null(False).to_numpy()
    full = pc.fill_null(array, False) if array.null_count else array
    return full.to_numpy(zero_copy_only=False)


def cost_of(tree: Filter) -> int:
    """How dear a filter is, for ordering only."""
    kind, *operands = tree
    if kind in ("and", "or", "not"):
        return max((cost_of(one) for one in operands), default=0)
    field = "message" if kind in ("word", "phrase") else str(operands[0]) if operands else ""
    return _COST[kind] + (0 if field in CORE_TYPES else 4)


def evaluate(tree: Filter, view: BlockView) -> np.ndarray:
    """The mask of the view's rows that match.

    Raises:
        InvalidRequest: a bad regular expression, with the reason.
    """
    kind, *operands = tree
    if kind == "true":
        return np.ones(view.rows, bool)
    if kind == "not":
        return ~evaluate(operands[0], view)
    if kind == "or":
        mask = np.zeros(view.rows, bool)
        for one in operands:
            mask |= evaluate(one, view)
        return mask
    if kind == "and":
        return _evaluate_all(sorted(operands, key=cost_of), view)
    return _evaluate_leaf(kind, operands, view)


def _evaluate_all(parts: list[Filter], view: BlockView) -> np.ndarray:
    mask = np.ones(view.rows, bool)
    for index, part in enumerate(parts):
        left = int(np.count_nonzero(mask))
        if left == 0:
            return mask
        if left < view.rows * NARROW_BELOW:
            rest = _evaluate_all(parts[index:], view.narrowed(mask))
            mask[np.flatnonzero(mask)[~rest]] = False
            return mask
        mask &= evaluate(part, view)
    return mask


def _evaluate_leaf(kind: str, operands: list[Any], view: BlockView) -> np.ndarray:
    if kind in ("word", "phrase"):
        field, test = "message", _test(kind, operands)
    else:
        field, test = str(operands[0]), _test(kind, operands[1:], str(operands[0]))
    if field in CORE_TYPES and kind in ("word", "phrase", "regex"):  # else it may be in attributes
        found = view.searched(field, needle_of(kind, str(operands[-1])), test)
        if found is not None:
            return found
    mask = np.zeros(view.rows, bool)
    column = view.column(field)
    if column is not None:
        mask = on_column(test, column)
    if not mask.all() and (attribute := view.attribute(field)) is not None:
        extra = on_column(test, attribute.to_arrow())
        if column is not None:
            extra &= ~column.is_valid().to_numpy(zero_copy_only=False)
        mask = mask | extra
    return ~mask if kind == "eq" and operands[1] is None else mask


Test = Callable[[pa.Array], np.ndarray]
#: (column, what to look for, the test of its candidates) -> mask of all rows, or None.
Search = Callable[[str, Needle, Test], np.ndarray | None]


def on_column(test: Test, column: Column) -> np.ndarray:
    """Runs a test; on a dictionary column, on its values, then by code."""
    if isinstance(column, pa.ChunkedArray):
        return np.concatenate([test(chunk) for chunk in column.chunks])
    if not pa.types.is_dictionary(column.type):
        return test(column)
    hits = test(column.dictionary)
    codes = column.indices
    if not codes.null_count:
        return (
            hits[codes.to_numpy(zero_copy_only=False)] if len(hits) else np.zeros(len(column), bool)
        )
    padded = np.append(hits, False)
    return padded[pc.fill_null(codes, len(hits)).to_numpy(zero_copy_only=False)]


def _test(kind: str, operands: list[Any], field: str = "") -> Test:
    if kind == "exists" or (kind == "eq" and operands[0] is None):
        return lambda column: column.is_valid().to_numpy(zero_copy_only=False)
    if kind == "eq":
        return lambda column: _equal(column, operands[0], field == "level")
    if kind == "in":
        scalars = (v for v in operands[0] if isinstance(v, str | int | float | bytes))
        values = list({(type(v), v): v for v in scalars}.values())  # True is not 1 here
        return lambda column: _any_equal(column, values, field == "level")
    if kind == "range":
        return lambda column: _in_range(column, operands[0], operands[1])
    if kind == "phrase":
        return lambda column: _contains(column, str(operands[0]))
    if kind == "word":
        return lambda column: _word(column, str(operands[0]))
    return lambda column: _regex(column, str(operands[0]))


def _any_equal(column: pa.Array, values: list[Any], fold_case: bool) -> np.ndarray:
    if len(values) > 8 and _is_text(column) and all(isinstance(v, str) for v in values):
        wanted = [v.lower() for v in values] if fold_case else values
        texts = pc.utf8_lower(column) if fold_case else column
        return _mask(pc.is_in(texts, pa.array(wanted, texts.type)))
    mask = np.zeros(len(column), bool)
    for value in values:
        mask |= _equal(column, value, fold_case)
    return mask


def _is_text(column: pa.Array) -> bool:
    kinds = pa.types
    return (
        kinds.is_string(column.type)
        or kinds.is_large_string(column.type)
        or kinds.is_string_view(column.type)
    )


def number_of(value: Any) -> int | float | None:
    """A filter's value as a number: a number as it is, text that reads as one, else None."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return value
    with contextlib.suppress(ValueError):
        return int(str(value))
    with contextlib.suppress(ValueError):
        return float(str(value))
    return None


def _micros_of(value: Any) -> int | float | None:
    """A filter's value as microseconds: a number, or an ISO 8601 text."""
    number = number_of(value)
    if number is None and isinstance(value, str):
        with contextlib.suppress(ValueError, OverflowError):
            moment = datetime.fromisoformat(value)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return round(moment.timestamp() * 1_000_000)
    return number


def _truth_of(value: Any) -> bool | None:
    return {"true": True, "false": False}.get(str(value).lower()) if value is not None else None


def _numeric(column: pa.Array) -> pa.Array:
    """Text as float64, null where it is no number."""
    return _series(column).str.strip_chars().cast(pl.Float64, strict=False).to_arrow()


def _equal(column: pa.Array, value: Any, fold_case: bool = False) -> np.ndarray:
    if _is_text(column):
        if isinstance(value, bool):
            return _mask(pc.equal(pc.utf8_lower(column), str(value).lower()))
        if isinstance(value, str):
            texts, wanted = (pc.utf8_lower(column), value.lower()) if fold_case else (column, value)
            return _mask(pc.equal(texts, pa.scalar(wanted, texts.type)))
        column = _numeric(column)
    if pa.types.is_boolean(column.type):
        truth = _truth_of(value) if isinstance(value, bool | str) else None
        return np.zeros(len(column), bool) if truth is None else _mask(pc.equal(column, truth))
    return _compare(column, value, "equal")


def _compare(column: pa.Array, value: Any, operator: str) -> np.ndarray:
    """Compares a number or timestamp column with a value; False everywhere if it is no number."""
    if pa.types.is_timestamp(column.type):
        number, column = _micros_of(value), column.cast(pa.int64())
    else:
        number = number_of(value)
    if number is None or not (
        pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    ):
        return np.zeros(len(column), bool)
    if pa.types.is_floating(column.type):
        bound = pa.scalar(as_double(number), pa.float64())
        return _mask(pc.call_function(operator, [column, bound]))
    return _compare_whole(column.cast(pa.int64()), number, operator)


def as_double(number: int | float) -> float:
    """The nearest double; infinite where there is none."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _compare_whole(column: pa.Array, number: int | float, operator: str) -> np.ndarray:
    """Whole numbers with any number, exactly: what no 64 bits hold lies beyond them all."""
    if isinstance(number, float):
        if math.isnan(number) or (operator == "equal" and not number.is_integer()):
            return np.zeros(len(column), bool)
        number = math.ceil(number) if math.isfinite(number) else int(math.copysign(1 << 64, number))
    if number in _INT64:
        return _mask(pc.call_function(operator, [column, pa.scalar(number, pa.int64())]))
    if operator != "equal" and (number < 0) == (operator == "greater_equal"):
        return column.is_valid().to_numpy(zero_copy_only=False)
    return np.zeros(len(column), bool)


def _in_range(column: pa.Array, low: Any, high: Any) -> np.ndarray:
    mask = column.is_valid().to_numpy(zero_copy_only=False)
    for value, operator in ((low, "greater_equal"), (high, "less")):
        if value is None:
            continue
        if _is_text(column):
            if isinstance(value, str):
                bound = pa.scalar(value, column.type)
                mask = mask & _mask(pc.call_function(operator, [column, bound]))
                continue
            mask = mask & _compare(_numeric(column), value, operator)
        else:
            mask = mask & _compare(column, value, operator)
    return mask


def _text(column: pa.Array) -> pl.Series:
    """Any column as text, as a user would see it."""
    if pa.types.is_boolean(column.type) or not _is_text(column):
        return _series(column.cast(pa.string()))
    return _series(column)


def _contains(column: pa.Array, text: str) -> np.ndarray:
    return _mask(_text(column).str.contains(text, literal=True))


def _word(column: pa.Array, text: str) -> np.ndarray:
    """First the rows that hold the text at all, then among these the ones where it stands alone."""
    texts = _text(column)
    escaped = re.escape(text)
    mask = _mask(texts.str.contains(f"(?i){escaped}"))
    hits = np.flatnonzero(mask)
    if len(hits):
        alone = rf"(?i)(?:^|[^\p{{L}}\p{{N}}]){escaped}(?:[^\p{{L}}\p{{N}}]|$)"
        mask[hits] = _mask(texts.gather(hits).str.contains(alone))
    return mask


def _regex(column: pa.Array, pattern: str) -> np.ndarray:
    try:
        return _mask(_text(column).str.contains(pattern))
    except pl.exceptions.ComputeError as error:
        raise InvalidRequest(f"bad regular expression: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("error:")]
    return (said or lines or ["it does not parse"])[0].removeprefix("error:").strip()


def check_filter(tree: Filter) -> None:
    """Compiles every regular expression once.

    Raises:
        InvalidRequest: one is bad.
    """
    kind, *operands = tree
    if kind in ("and", "or", "not"):
        for one in operands:
            check_filter(one)
    elif kind == "regex":
        _regex(pa.array([""]), str(operands[1]))


def excludes(tree: Filter, values: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether no row can match, given all values that occur of some columns (the sidecar's)."""
    kind, *operands = tree
    if kind == "and":
        return any(excludes(one, values) for one in operands)
    if kind not in ("eq", "in") or operands[0] not in values:
        return False
    occurring = pa.array(values[operands[0]], pa.string())
    return not _test(kind, operands[1:], operands[0])(occurring).any() and operands[1] is not None


def only_over(tree: Filter, names: frozenset[str]) -> bool:
    """Whether the filter is made of eq and in over these columns alone."""
    kind, *operands = tree
    if kind in ("and", "or", "not"):
        return all(only_over(one, names) for one in operands)
    return kind == "true" or (kind in ("eq", "in") and fields_of(tree) <= names)

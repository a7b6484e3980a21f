"""What a scan must answer, by definition: plain Python over a list of rows. Slow, and of no shared code."""

import json
import re
from collections.abc import Iterable
from typing import Any

from records.predicates import Filter, ScanPlan

Row = dict[str, Any]


def value_of(row: Row, field: str) -> Any:
    """A row's field: its own, else the one in `attributes`."""
    if row.get(field) is not None:
        return row[field]
    text = row.get("attributes")
    if text is None:
        return None
    return json.loads(text).get(field)


def as_number(value: Any) -> float | None:
    """What a value is as a number."""
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def equal(field: str, value: Any, wanted: Any) -> bool:
    """Loose equality of a row's value with a filter's."""
    if value is None or wanted is None:
        return value is None and wanted is None
    if isinstance(value, bool) or isinstance(wanted, bool):
        others = [one for one in (value, wanted) if not isinstance(one, bool)]
        if others and not isinstance(others[0], str):
            return False
        return str(value).lower() == str(wanted).lower()
    if isinstance(value, str) and isinstance(wanted, str):
        return value.lower() == wanted.lower() if field == "level" else value == wanted
    a, b = as_number(value), as_number(wanted)
    return a is not None and a == b


def in_range(value: Any, low: Any, high: Any) -> bool:
    """low <= value < high."""
    if value is None:
        return False
    for bound, sign in ((low, 1), (high, -1)):
        if bound is None:
            continue
        if isinstance(value, str) and isinstance(bound, str):
            a, b = value, bound
        else:
            a, b = as_number(value), as_number(bound)
            if a is None or b is None:
                return False
        below = a < b  # type: ignore[operator]
        if below == (sign == 1):
            return False
    return True


def matches(tree: Filter, row: Row) -> bool:
    """Whether a row matches a filter."""
    kind, *operands = tree
    if kind == "true":
        return True
    if kind == "and":
        return all(matches(one, row) for one in operands)
    if kind == "or":
        return any(matches(one, row) for one in operands)
    if kind == "not":
        return not matches(operands[0], row)
    if kind == "word":
        words = re.split(r"[^a-z0-9]+", row["message"].lower())
        return operands[0].lower() in words
    if kind == "phrase":
        return operands[0] in row["message"]
    value = value_of(row, operands[0])
    if kind == "exists":
        return value is not None
    if kind == "eq":
        return equal(operands[0], value, operands[1])
    if kind == "in":
        return any(equal(operands[0], value, one) for one in operands[1])
    if kind == "range":
        if value is not None and row.get(operands[0]) is None:
            value = str(value)  # what `attributes` holds is text; against numbers it is read as one
        return in_range(value, operands[1], operands[2])
    if value is None:
        return False
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return re.search(operands[1], text) is not None


def wanted_rows(plan: ScanPlan, rows: Iterable[Row]) -> list[Row]:
    """Rows (with `_run` and `_number`) that match, in the plan's order, after the cursor, up to the limit."""
    found = [
        row
        for row in rows
        if plan.time.start <= row["timestamp"] < plan.time.end and matches(plan.filter, row)
    ]
    found.sort(key=key_of, reverse=plan.descending)
    if plan.after is not None:
        after = (plan.after.timestamp, plan.after.run, plan.after.number)
        found = [r for r in found if (key_of(r) < after) == plan.descending and key_of(r) != after]
    return found[: plan.limit]


def key_of(row: Row) -> tuple[int, bytes, int]:
    """A row's place in the total order."""
    return row["timestamp"], row["_run"], row["_number"]


def folded(plan: ScanPlan, rows: Iterable[Row]) -> dict[tuple, dict[str, Any]]:
    """Group -> aggregates, final values: lists sorted, averages as (sum, count)."""
    fold = plan.fold
    assert fold is not None
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        if not plan.time.start <= row["timestamp"] < plan.time.end or not matches(plan.filter, row):
            continue
        key = tuple(value_of(row, name) for name in fold.by)
        if fold.step_micros:
            key += (row["timestamp"] // fold.step_micros * fold.step_micros,)
        groups.setdefault(key, []).append(row)
    return {key: aggregated(plan, members) for key, members in groups.items()}


def aggregated(plan: ScanPlan, rows: list[Row]) -> dict[str, Any]:
    """The aggregates of one group."""
    assert plan.fold is not None
    result: dict[str, Any] = {}
    for one in plan.fold.aggregates:
        values = [v for row in rows if (v := value_of(row, one.column)) is not None]
        if one.function == "count":
            result[one.name] = len(values) if one.column else len(rows)
        elif one.function in ("min", "max"):
            result[one.name] = {"min": min, "max": max}[one.function](values, default=None)
        elif one.function == "sum":
            result[one.name] = sum(values) if values else None
        elif one.function == "avg":
            result[one.name] = (sum(values), len(values))
        else:
            distinct = one.function == "count_distinct"
            result[one.name] = sorted(set(values) if distinct else values)
    return result

"""The part of a query plan that travels to a replica: filter, projection, order, fold. Values only.

A filter is a tree of tuples, so that it packs, compares and prints as it is:

    ("and", f, …) ("or", f, …) ("not", f) ("true",)
    ("eq", field, value) ("in", field, [values]) ("exists", field)
    ("range", field, low | None, high | None)         low <= value < high; numbers or text
    ("word", text)       the message holds this word (letters and digits), ignoring case
    ("phrase", text)     the message holds this text, exactly
    ("regex", field, pattern)                         Rust regex syntax: linear time, no look-around

`eq` on a field that is no column looks into `attributes`. Levels compare lower-case.
"""

from dataclasses import dataclass, field
from typing import Any

from records.errors import InvalidRequest
from records.ids import DEFAULT_TENANT
from records.timestamps import TimeRange

Filter = tuple
TRUE: Filter = ("true",)
MAX_FILTER_NODES = 500
_ARITY = {
    "true": 0, "eq": 2, "in": 2, "exists": 1, "range": 3, "word": 1, "phrase": 1, "regex": 2, "not": 1,
}  # fmt: skip

#: Folds that a replica computes and a coordinator merges. Quantiles travel as all their values.
AGGREGATES = ("count", "sum", "min", "max", "avg", "count_distinct", "quantile")


def all_of(*filters: Filter) -> Filter:
    """Their conjunction, without needless nesting."""
    parts = tuple(one for one in filters if one != TRUE)
    if not parts:
        return TRUE
    return parts[0] if len(parts) == 1 else ("and", *parts)


def checked_filter(tree: Any) -> Filter:
    """The filter that came over the wire, as nested tuples.

    Raises:
        InvalidRequest: unknown node, wrong number of operands, or too large a tree.
    """
    budget = [MAX_FILTER_NODES]
    return _checked(tree, budget)


def _checked(tree: Any, budget: list[int]) -> Filter:
    budget[0] -= 1
    if budget[0] < 0:
        raise InvalidRequest(f"a filter has at most {MAX_FILTER_NODES} parts")
    if not isinstance(tree, list | tuple) or not tree:
        raise InvalidRequest(f"not a filter: {tree!r}")
    kind, *operands = tree
    if not isinstance(kind, str):
        raise InvalidRequest(f"not a filter: {kind!r}")
    if kind in ("and", "or"):
        return (kind, *(_checked(one, budget) for one in operands))
    if kind not in _ARITY or len(operands) != _ARITY[kind]:
        raise InvalidRequest(f"not a filter: {kind!r} with {len(operands)} operands")
    if kind == "not":
        return (kind, _checked(operands[0], budget))
    if kind == "in":
        if not isinstance(operands[1], list | tuple):
            raise InvalidRequest(f"'in' wants a list of values, not {operands[1]!r}")
        return (kind, operands[0], tuple(operands[1]))
    return (kind, *operands)


def fields_of(tree: Filter) -> set[str]:
    """The columns that a filter reads."""
    kind, *operands = tree
    if kind in ("and", "or", "not"):
        return {name for one in operands for name in fields_of(one)}
    if kind in ("word", "phrase"):
        return {"message"}
    return set() if kind == "true" else {operands[0]}


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One folded value: `function` over `column` (empty for count), named `name` in the answer."""

    name: str
    function: str
    column: str = ""
    quantile: float = 0.0


@dataclass(frozen=True, slots=True)
class Fold:
    """Group rows by columns, and by time buckets of `step_micros` if not 0; then aggregate."""

    by: tuple[str, ...]
    aggregates: tuple[Aggregate, ...]
    step_micros: int = 0


@dataclass(frozen=True, slots=True)
class RowKey:
    """Where a row stands in the total order (timestamp, run, number): the cursor.

    Rows of one producer epoch at one time thus come by sequence; see `records.ids` for what a run is.
    """

    timestamp: int
    run: bytes
    number: int


@dataclass(frozen=True, slots=True)
class ScanPlan:
    """What a replica evaluates. Rows (with `fold` None) come ordered by RowKey, at most `limit`.

    `received_until`: rows received later (microseconds) are left out: the snapshot of a long read.
    `after`: only rows strictly beyond this key, in the direction of the order. `fields`: projection,
    None for all. `services`: prune to these if not empty; the filter still holds the condition.
    """

    tenant: str = DEFAULT_TENANT
    time: TimeRange = field(default_factory=TimeRange)
    filter: Filter = TRUE
    services: tuple[str, ...] = ()
    fields: tuple[str, ...] | None = None
    descending: bool = True
    limit: int = 100
    after: RowKey | None = None
    received_until: int | None = None
    fold: Fold | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the wire."""
        fold = self.fold
        return {
            "tenant": self.tenant,
            "time": [self.time.start, self.time.end],
            "filter": self.filter,
            "services": self.services,
            "fields": self.fields,
            "descending": self.descending,
            "limit": self.limit,
            "after": self.after and [self.after.timestamp, self.after.run, self.after.number],
            "received_until": self.received_until,
            "fold": fold
            and [
                fold.by,
                [[a.name, a.function, a.column, a.quantile] for a in fold.aggregates],
                fold.step_micros,
            ],
        }

    @classmethod
    def from_dict(cls, body: dict[str, Any]) -> "ScanPlan":
        """The inverse.

        Raises:
            InvalidRequest: a field is missing or of the wrong shape.
        """
        try:
            fold = body["fold"]
            return cls(
                tenant=body["tenant"],
                time=TimeRange(*body["time"]),
                filter=checked_filter(body["filter"]),
                services=tuple(body["services"]),
                fields=None if body["fields"] is None else tuple(body["fields"]),
                descending=bool(body["descending"]),
                limit=int(body["limit"]),
                after=RowKey(*body["after"]) if body["after"] else None,
                received_until=body["received_until"],
                fold=fold
                and Fold(tuple(fold[0]), tuple(Aggregate(*one) for one in fold[1]), int(fold[2])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidRequest(f"scan plan: {error!r}") from error

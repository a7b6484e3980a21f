"""Aggregates that the storage nodes compute: `SELECT service, count(*) … GROUP BY service` as a fold. Pure.

The statement stays as it is, but each aggregate becomes `any_value` of a column of partial results, so that
HAVING, ORDER BY, LIMIT and all arithmetic around it are DuckDB's as ever. Whatever does not fit exactly
(other aggregates, DISTINCT, FILTER, other group keys, conditions that are not exact) is not for here: the
rows are read instead. Types are known only when the partial results are there: see `shaped`.
"""

import copy
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from query.fold import BUCKET
from query.sql_guard import Node, Statement
from query.sql_plan import Constant, Pushdown, Select
from query.sql_where import TEXT_NAMES, Scope, is_constant
from records.columns import CORE_TYPES
from records.predicates import Aggregate, Fold
from records.timestamps import MICROS_PER_HOUR, MICROS_PER_MINUTE, MICROS_PER_SECOND

#: Group keys: text columns of few values (a fold has at most some 10,000 groups).
KEY_NAMES = TEXT_NAMES - {"message"}
_UNITS = {
    "second": MICROS_PER_SECOND, "minute": MICROS_PER_MINUTE, "hour": MICROS_PER_HOUR,
    "day": 24 * MICROS_PER_HOUR,
}  # fmt: skip
_DAY = 24 * MICROS_PER_HOUR
_FUNCTIONS = ("sum", "avg", "min", "max", "count")
_NUMBERS = (pa.int64(), pa.float64(), pa.null())
AGGREGATES_MAX = 20
_CALL_KEYS = {
    "class", "type", "alias", "query_location", "query_location_length", "function_name", "order_bys",
    "arguments", "qualified_name",
}  # fmt: skip


class _Unfit(Exception):
    """The statement is none for a fold."""


@dataclass(slots=True)
class Partial:
    """A fold, and the statement over its result. `tree` holds `any_value(aN)` for aggregate N.

    `named`: fields that the statement reads, so that it can be bound as it was written.
    """

    tree: Node
    by: tuple[str, ...] = ()
    step: int = 0
    bucket: Node | None = None
    aggregates: list[tuple[str, str]] = field(default_factory=list)
    probes: frozenset[tuple[str, str]] = frozenset()
    named: tuple[str, ...] = ()

    @property
    def fold(self) -> Fold:
        """The fold. Beside sums and averages, and for probes, the smallest value shows the type."""
        found = [Aggregate(f"a{i}", f, c) for i, (f, c) in enumerate(self.aggregates)]
        typed = {c for f, c in self.aggregates if f in ("sum", "avg")} | {n for n, _ in self.probes}
        found += [Aggregate(f"t:{name}", "min", name) for name in sorted(typed)]
        return Fold(self.by, tuple(found), self.step)

    def shaped(self, table: pa.Table) -> tuple[pa.Table, pa.Schema] | None:
        """(the fold's groups as the table `logs`, the schema of the columns the statement reads).

        None if the types are not those that SQL would give: then the rows must be read.
        """
        types = {f.name[2:]: f.type for f in table.schema if f.name.startswith("t:")}
        types = {name: _known(kind) for name, kind in types.items()}
        wanted = {"number": _NUMBERS, "text": (pa.string(), pa.null())}
        if any(types[name] not in wanted[kind] for name, kind in self.probes):
            return None
        columns: dict[str, Any] = {name: table[name].cast(pa.string()) for name in self.by}
        if self.step:
            columns["timestamp"] = _moments(table[BUCKET])
        for index, (function, name) in enumerate(self.aggregates):
            column = table[f"a{index}"]
            if function in ("sum", "avg"):
                if types[name] not in (pa.int64(), pa.float64()):
                    return None
                if function == "sum" and not _same_kind(column.type, types[name]):
                    return None  # an integer sum that went on as a float is not SQL's
            elif function in ("min", "max") and name not in CORE_TYPES:
                types[name] = _known(column.type)
                if types[name] not in _NUMBERS[:2]:
                    return None
            columns[f"a{index}"] = (
                _moments(column) if name == "timestamp" and function != "count" else column
            )
        schema = {name: _plain(kind) for name, kind in CORE_TYPES.items()}
        schema |= dict.fromkeys(self.named, pa.null()) | types
        return pa.table(columns), pa.schema(list(schema.items()))


def _known(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    return kind


def _same_kind(left: pa.DataType, right: pa.DataType) -> bool:
    return pa.types.is_integer(left) == pa.types.is_integer(right)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _moments(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.int64()).cast(pa.timestamp("us", tz="UTC"))


def partial(statement: Statement, found: list[Select] | None, plan: Pushdown) -> Partial | None:
    """The fold that answers the statement; None if there is none. Its step may still be unknown."""
    node = statement.node
    if not plan.exact or statement.nested or not found or len(found) != 1:
        return None
    if node.get("type") != "SELECT_NODE" or node.get("sample") or node.get("qualify"):
        return None
    if found[0].node is not node or node["from_table"].get("sample"):
        return None
    names = (n for n in sorted(statement.names) if n.lower() not in CORE_TYPES)
    fields = tuple(name for name in names if name.lower() not in statement.defined)
    result = Partial(copy.deepcopy(statement.tree), probes=plan.probes, named=fields)
    try:
        _rewrite(result, found[0].scope)
    except _Unfit:
        return None
    return result if result.aggregates or result.by or result.step or result.bucket else None


def with_step(one: Partial, constant: Constant | None) -> Partial | None:
    """The step of a `time_bucket` whose interval was evaluated; None if buckets would not fit ours."""
    if one.bucket is None:
        return one
    kind, micros = constant or ("", None)
    if kind != "INTERVAL" or not micros or micros < 1000 or _DAY % micros:
        return None
    one.step = micros
    return one


def _rewrite(result: Partial, scope: Scope) -> None:
    node = result.tree["statements"][0]["node"]
    keys = _keys(node, scope)
    by = list(dict.fromkeys(name for key in keys if (name := _key_name(key, scope))))
    buckets = [key for key in keys if not _key_name(key, scope)]
    if len({_text(one) for one in buckets}) > 1:
        raise _Unfit
    result.by = tuple(by)
    if buckets:
        result.step, result.bucket = _step(buckets[0], scope)
    allowed = {_text(key) for key in keys}
    aliases = {one.get("alias", "").lower() for one in node["select_list"]} - {""}
    node["where_clause"] = None
    for key in ("select_list", "having", "modifiers"):
        if node.get(key):
            node[key] = _replaced(node[key], result, scope, allowed, aliases)


def _keys(node: Node, scope: Scope) -> list[Node]:
    """The group expressions; GROUP BY ALL, 1 and aliases resolved."""
    if node.get("aggregate_handling") == "FORCE_AGGREGATES":
        return [one for one in node["select_list"] if not _has_aggregate(one)]
    expressions, sets = node.get("group_expressions") or [], node.get("group_sets") or []
    if len(sets) > 1 or (sets and sorted(sets[0]) != list(range(len(expressions)))):
        raise _Unfit
    listed = node["select_list"]
    named = {one["alias"].lower(): one for one in listed if one.get("alias")}
    found = []
    for one in expressions:
        if one.get("class") == "CONSTANT" and one["literal"]["kind"] == "INTEGER":
            place = int(one["literal"]["text"])
            if not 1 <= place <= len(listed):
                raise _Unfit
            one = listed[place - 1]
        elif one.get("class") == "COLUMN_REF" and len(one["column_names"]) == 1:
            name = one["column_names"][0].lower()
            if name not in CORE_TYPES and name in named:
                one = named[name]
        found.append(one)
    return found


def _has_aggregate(node: Any) -> bool:
    if isinstance(node, list):
        return any(_has_aggregate(one) for one in node)
    if not isinstance(node, dict):
        return False
    if node.get("class") == "FUNCTION" and node.get("function_name") in (*_FUNCTIONS, "count_star"):
        return True
    return any(_has_aggregate(one) for one in node.values())


def _key_name(key: Node, scope: Scope) -> str | None:
    name = scope.column(key)
    return name if name in KEY_NAMES else None


def _step(key: Node, scope: Scope) -> tuple[int, Node | None]:
    """(the bucket's width, or 0 and the interval that is to be evaluated)."""
    arguments = [one["expression"] for one in key.get("arguments", [])]
    if (
        key.get("class") != "FUNCTION"
        or len(arguments) != 2
        or scope.column(arguments[1]) != "timestamp"
    ):
        raise _Unfit
    name, first = key.get("function_name"), arguments[0]
    if name in ("date_trunc", "datetrunc") and first.get("class") == "CONSTANT":
        step = _UNITS.get(str(first["literal"].get("text")).lower())
        if step:
            return step, None
    if name == "time_bucket" and is_constant(first):
        return 0, first
    raise _Unfit


def _text(node: Any) -> str:
    """An expression without places and aliases: what makes two of them the same."""
    if isinstance(node, list):
        return "[" + ",".join(_text(one) for one in node) + "]"
    if not isinstance(node, dict):
        return repr(node).lower()
    skipped = ("alias", "query_location", "query_location_length")
    return "{" + ",".join(f"{k}:{_text(node[k])}" for k in sorted(node) if k not in skipped) + "}"


def _replaced(
    node: Any, result: Partial, scope: Scope, allowed: set[str], aliases: set[str]
) -> Any:
    """The tree with aggregates replaced; group expressions stay, other columns do not fit."""
    if isinstance(node, list):
        return [_replaced(one, result, scope, allowed, aliases) for one in node]
    if not isinstance(node, dict):
        return node
    if node.get("class") in ("WINDOW", "SUBQUERY", "STAR", "LAMBDA", "POSITIONAL_REFERENCE"):
        raise _Unfit
    if "class" in node and _text(node) in allowed:
        return node
    if node.get("class") == "COLUMN_REF":
        names = node["column_names"]
        if len(names) != 1 or names[0].lower() not in aliases or names[0].lower() in CORE_TYPES:
            raise _Unfit
        return node
    if node.get("class") == "FUNCTION" and node["function_name"] in (*_FUNCTIONS, "count_star"):
        return _aggregate(node, result, scope)
    return {k: _replaced(v, result, scope, allowed, aliases) for k, v in node.items()}


def _aggregate(node: Node, result: Partial, scope: Scope) -> Node:
    function = "count" if node["function_name"] == "count_star" else node["function_name"]
    arguments = [one["expression"] for one in node.get("arguments", [])]
    if any(value and key not in _CALL_KEYS for key, value in node.items()):
        raise _Unfit  # DISTINCT, FILTER, or what a later DuckDB knows
    if node.get("order_bys", {}).get("orders"):
        raise _Unfit
    if len(arguments) != (node["function_name"] != "count_star"):
        raise _Unfit
    name = "" if not arguments else scope.column(arguments[0])
    if name is None or name in ("attributes", "timestamp_ns", "received_at"):
        raise _Unfit
    if function in ("sum", "avg") and name in CORE_TYPES:
        raise _Unfit
    if function in ("min", "max") and name in CORE_TYPES and name not in (*KEY_NAMES, "timestamp"):
        raise _Unfit
    if (function, name) not in result.aggregates:
        if len(result.aggregates) >= AGGREGATES_MAX:
            raise _Unfit
        result.aggregates.append((function, name))
    column = {
        "class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "",
        "column_names": [f"a{result.aggregates.index((function, name))}"],
    }  # fmt: skip
    value = {
        **node, "function_name": "any_value", "qualified_name": {"path": ["any_value"]},
        "arguments": [{"expression": column}],
    }  # fmt: skip
    if function != "sum":
        return value
    kind = {
        "class": "TYPE",
        "type": "TYPE",
        "type_name": "SUM_TYPE",
        "qualified_name": {"path": ["SUM_TYPE"]},
    }
    alias = value.pop("alias", "")
    return {"class": "CAST", "type": "OPERATOR_CAST", "alias": alias, "child": value, "type_expr": kind,
            "sum_of": name}  # fmt: skip


def typed_sums(node: Any, types: dict[str, pa.DataType]) -> Any:
    """The tree with each sum cast to what SQL's `sum` gives: HUGEINT for integers, DOUBLE else."""
    if isinstance(node, list):
        return [typed_sums(one, types) for one in node]
    if not isinstance(node, dict):
        return node
    if "sum_of" in node:
        name = "HUGEINT" if pa.types.is_integer(types[node["sum_of"]]) else "DOUBLE"
        kind = {**node["type_expr"], "type_name": name, "qualified_name": {"path": [name]}}
        return {**{k: v for k, v in node.items() if k != "sum_of"}, "type_expr": kind}
    return {k: typed_sums(v, types) for k, v in node.items()}

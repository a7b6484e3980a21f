"""From a checked statement to what the storage nodes are asked: time, filter, columns, limit. Pure.

    SELECT … FROM logs WHERE …       the conditions of each SELECT over `logs` alone; of several the union
    names anywhere in the text       the columns (DuckDB is given those that rows have)
    ORDER BY timestamp … LIMIT n     the first n rows, if all conditions are exact

Whatever is not understood is left to DuckDB, over more rows.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from query.encode import ID
from query.sql_guard import TABLE, Node, Statement
from query.sql_where import Moment, Pushed, Scope, conjuncts, is_constant, moments, pushed
from records.columns import CORE_TYPES
from records.predicates import TRUE, Filter, ScanPlan, all_of, checked_filter
from records.timestamps import MAX_MICROS, MIN_MICROS, TimeRange

#: Types of constants that compare with `timestamp` to the microsecond.
_EXACT_TYPES = {"TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "DATE", "VARCHAR"}
Constant = tuple[str, int | None]
ALL = Pushed(TRUE)


@dataclass(slots=True)
class Select:
    """One SELECT over `logs` alone: its bounds on time, the rest of its conditions."""

    node: Node
    scope: Scope
    moments: list[Moment] = field(default_factory=list)
    where: Pushed = ALL


@dataclass(frozen=True, slots=True)
class Pushdown:
    """What goes to the storage nodes. `exact`: they give exactly the rows that WHERE is true for."""

    time: TimeRange = field(default_factory=TimeRange)
    filter: Filter = TRUE
    exact: bool = False
    probes: frozenset[tuple[str, str]] = frozenset()

    def narrowed(self, scan: ScanPlan) -> ScanPlan:
        """The scan restricted to this as well."""
        time = TimeRange(max(scan.time.start, self.time.start), min(scan.time.end, self.time.end))
        if time.start > time.end:
            time = TimeRange(time.start, time.start)
        return replace(scan, time=time, filter=checked_filter(all_of(scan.filter, self.filter)))


def selects(statement: Statement) -> list[Select] | None:
    """The SELECTs that read `logs`; None if it is read in other ways too (joins)."""
    found: list[Select] = []
    _walk(statement.tree, statement, found)
    return found if len(found) == statement.scans else None


def _walk(value: Any, statement: Statement, found: list[Select]) -> None:
    if isinstance(value, list):
        for one in value:
            _walk(one, statement, found)
    if not isinstance(value, dict):
        return
    table = value.get("from_table")
    if (
        value.get("type") == "SELECT_NODE"
        and table is not None
        and table["type"] == "BASE_TABLE"
        and table["table_name"].lower() == TABLE
    ):
        found.append(_select(value, statement))
    for one in value.values():
        _walk(one, statement, found)


_PLACE = {"query_location", "query_location_length"}
_SELECT_KEYS = {
    "type", "modifiers", "cte_map", "select_list", "from_table", "where_clause", "group_expressions",
    "group_sets", "aggregate_handling", "having", "qualify", *_PLACE,
}  # fmt: skip
_TABLE_KEYS = {"type", "alias", "table_name", "qualified_name", *_PLACE}


def _only(node: Node, keys: set[str]) -> bool:
    """Whether a node says nothing but this."""
    return all(key in keys or not value for key, value in node.items())


def _select(node: Node, statement: Statement) -> Select:
    aliases = frozenset(one.get("alias", "").lower() for one in node["select_list"]) - {""}
    table = node["from_table"].get("alias") or TABLE
    select = Select(node, Scope(table.lower(), aliases, statement.nested))
    if not (_only(node, _SELECT_KEYS) and _only(node["from_table"], _TABLE_KEYS)):
        # Renamed columns, a sample (it is taken before WHERE), or what a later DuckDB knows.
        select.where = Pushed(TRUE, False)
        return select
    parts: list[Pushed] = []
    for condition in conjuncts(node.get("where_clause")):
        bounds = moments(condition, select.scope)
        if bounds is not None:
            select.moments += bounds
        else:
            parts.append(pushed(condition, select.scope))
    probes = frozenset(one for part in parts for one in part.probes)
    tree = all_of(*(part.filter for part in parts))
    select.where = Pushed(tree, all(part.exact for part in parts), probes)
    return select


def pushdown(found: list[Select] | None, constants: list[Constant]) -> Pushdown:
    """What all SELECTs together need; `constants` are the values of their moments, in order."""
    if not found:
        return Pushdown()
    values = iter(constants)
    each = [_bound(select, [next(values) for _ in select.moments]) for select in found]
    if len(each) == 1:
        return each[0]
    hull = TimeRange(min(one.time.start for one in each), max(one.time.end for one in each))
    filters = list(dict.fromkeys(one.filter for one in each))
    tree: Filter = (
        TRUE if TRUE in filters else filters[0] if len(filters) == 1 else ("or", *filters)
    )
    return Pushdown(hull, tree)


def _bound(select: Select, values: list[Constant]) -> Pushdown:
    low, high, exact = MIN_MICROS, MAX_MICROS, select.where.exact
    for moment, (kind, micros) in zip(select.moments, values, strict=True):
        if micros is None or not (kind in _EXACT_TYPES or kind.startswith("TIMESTAMP")):
            exact = False
            continue
        slack = 0 if kind in _EXACT_TYPES else 1
        exact = exact and not slack
        if moment.operator in (">", ">=", "="):
            low = max(low, micros + (moment.operator == ">") - 2 * slack)
        if moment.operator in ("<", "<=", "="):
            high = min(high, micros + (moment.operator != "<") + 2 * slack)
    return Pushdown(TimeRange(low, max(low, high)), select.where.filter, exact, select.where.probes)


def needed_fields(statement: Statement) -> tuple[str, ...]:
    """The columns that are named, the core ones in their own spelling."""
    names = (n.lower() if n.lower() in CORE_TYPES else n for n in sorted(statement.names))
    return tuple(dict.fromkeys(name for name in names if name != ID))


def pushed_limit(
    statement: Statement, found: list[Select] | None, plan: Pushdown
) -> tuple[int, bool]:
    """(rows that are enough, whether newest first); 0: all rows are needed."""
    node = statement.node
    if not found or len(found) != 1 or found[0].node is not node or not plan.exact or plan.probes:
        return 0, True
    limits = [one for one in node.get("modifiers", []) if one["type"] == "LIMIT_MODIFIER"]
    orders = [one for one in node.get("modifiers", []) if one["type"] == "ORDER_MODIFIER"]
    plain = len(limits) == 1 and limits[0].get("limit_type", "ROW_COUNT") == "ROW_COUNT"
    plain = plain and len(limits) + len(orders) == len(node["modifiers"])
    if not plain or _aggregates(node) or not all(_is_scalar(one) for one in node["select_list"]):
        return 0, True
    rows = _whole(limits[0].get("limit"))
    skipped = _whole(limits[0].get("offset")) if limits[0].get("offset") else 0
    newest = _order(orders, found[0].scope, node) if orders else True
    if rows is None or skipped is None or newest is None:
        return 0, True
    return max(1, rows + skipped), newest


def _aggregates(node: Node) -> bool:
    grouped = node.get("group_expressions") or node.get("group_sets") or node.get("having")
    sampled = node.get("sample") or node.get("qualify")
    forced = node.get("aggregate_handling") not in (None, "STANDARD_HANDLING")
    return bool(grouped or sampled or forced)


#: Functions that give one value for one row, and are known to: others may be aggregates.
_ROW_FUNCTIONS = frozenset((
    "lower", "upper", "length", "strlen", "substr", "substring", "left", "right", "trim", "ltrim",
    "rtrim", "replace", "concat", "concat_ws", "strftime", "date_trunc", "date_part", "epoch",
    "epoch_ms", "epoch_us", "year", "month", "day", "hour", "minute", "second", "round", "floor",
    "ceil", "abs", "coalesce", "nullif", "json_extract", "json_extract_string", "regexp_extract",
    "regexp_replace", "contains", "starts_with", "to_json", "typeof", "printf", "format", "+", "-",
    "*", "/", "%", "||", "~~", "!~~", "->>",
))  # fmt: skip


def _is_scalar(node: Any) -> bool:
    if isinstance(node, list):
        return all(_is_scalar(one) for one in node)
    if not isinstance(node, dict):
        return True
    if node.get("class") in ("WINDOW", "SUBQUERY"):
        return False
    if node.get("class") == "FUNCTION" and node.get("function_name") not in _ROW_FUNCTIONS:
        return False
    return all(_is_scalar(one) for one in node.values())


def _whole(node: Node | None) -> int | None:
    if not node or node.get("class") != "CONSTANT" or node["literal"]["kind"] != "INTEGER":
        return None
    return int(node["literal"]["text"])


def _order(orders: list[Node], scope: Scope, node: Node) -> bool | None:
    """Whether the order is by `timestamp` alone, newest first; None if it is another."""
    keys = orders[0]["orders"]
    taken = {one.get("alias", "").lower(): one for one in node["select_list"]}
    named = taken.get("timestamp")
    if len(keys) != 1 or scope.column(keys[0]["expression"]) != "timestamp":
        return None
    if named is not None and scope.column(named) != "timestamp":
        return None
    return keys[0]["type"] == "DESCENDING"


def constant_tree(expression: Node) -> Node:
    """The statement `SELECT <expression> AS x`, for the engine to evaluate."""
    assert is_constant(expression)
    node = {
        "type": "SELECT_NODE", "modifiers": [], "cte_map": {"map": []},
        "select_list": [{**expression, "alias": "x"}], "from_table": {"type": "EMPTY"},
        "where_clause": None, "group_expressions": [], "group_sets": [],
        "aggregate_handling": "STANDARD_HANDLING", "having": None, "sample": None, "qualify": None,
    }  # fmt: skip
    return {"error": False, "statements": [{"node": node}]}

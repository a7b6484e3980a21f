"""What SQL may say: one SELECT over the table `logs`, and nothing that is not known to be harmless. Pure.

The tree is the one of DuckDB's own parser (`json_serialize_sql`), so what is checked is what runs. Each
kind of node, each table function has to be on a list: what a later DuckDB adds is refused until somebody
has looked at it. Scalar functions are many and have no effects; a list names those that would tell about
the engine, wait, or run text as SQL. This is the first of several walls; see `query.sql_child`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from records.errors import InvalidRequest

Node = dict[str, Any]
TABLE = "logs"
SQL_MAX_BYTES = 64 << 10
#: Levels of nesting of the tree (a subquery in brackets takes about six).
DEPTH_MAX = 300

_QUERIES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
_TABLES = {
    "BASE_TABLE",
    "SUBQUERY",
    "JOIN",
    "TABLE_FUNCTION",
    "EXPRESSION_LIST",
    "EMPTY",
    "SHOW_REF",
}
_OTHERS = {
    "ORDER_MODIFIER", "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER", "DISTINCT_MODIFIER",
    "ORDER_DEFAULT", "ASCENDING", "DESCENDING",
}  # fmt: skip
_EXPRESSIONS = {
    "COLUMN_REF", "CONSTANT", "FUNCTION", "COMPARISON", "CONJUNCTION", "OPERATOR", "CAST", "TYPE", "CASE",
    "BETWEEN", "SUBQUERY", "STAR", "WINDOW", "LAMBDA", "LAMBDA_REF", "POSITIONAL_REFERENCE", "COLLATE",
}  # fmt: skip
_TABLE_FUNCTIONS = {"range", "generate_series", "unnest", "json_each", "json_tree"}
_REFUSED_FUNCTIONS = {
    "getenv", "getvariable", "current_setting", "query", "query_table", "write_log", "nextval", "currval",
    "setval", "sleep_ms", "json_execute_serialized_sql", "json_serialize_plan", "parse_duckdb_log_message",
    "current_query", "current_query_id", "current_connection_id", "current_transaction_id", "txid_current",
    "stats", "vector_type", "which_secret", "in_search_path", "col_description", "get_block_size",
    "create_sort_key", "index_key", "invoke", "cast_to_type", "to_aggregate_state",
}  # fmt: skip
_REFUSED_PREFIXES = ("__", "pg_", "duckdb_", "pragma_", "has_", "inet_", "read_", "icu_")


@dataclass(slots=True)
class Statement:
    """One SELECT that may run.

    `tree`: the statement as parsed. `scans`: how often it names `logs`. `names`: columns it may read
    (spelled as written); `star`: and all others. `defined`: names that the query itself gives to
    something, in lower case: a column missing under such a name is no field. `aliases`: names of `logs` in
    it. `qualifiers`: what stands before the dot. `nested`: whether it has subqueries or CTEs.
    """

    sql: str
    tree: Node
    scans: int = 0
    names: set[str] = field(default_factory=set)
    star: bool = False
    aliases: set[str] = field(default_factory=set)
    qualifiers: set[str] = field(default_factory=set)
    defined: set[str] = field(default_factory=set)
    nested: bool = False

    @property
    def node(self) -> Node:
        """The topmost query node."""
        return self.tree["statements"][0]["node"]


def checked(sql: str, text: str) -> Statement:
    """The statement whose syntax tree (JSON) DuckDB gave for `sql`.

    Raises:
        InvalidRequest: it does not parse, is no single SELECT, or holds what is not allowed; tells where.
    """
    try:
        tree = json.loads(text)
    except RecursionError as error:
        raise refused("nested too deeply", sql) from error
    if tree.get("error"):
        raise _unparsed(tree, sql)
    statements = tree["statements"]
    if len(statements) != 1:
        raise refused(f"one SELECT, not {len(statements)} statements", sql)
    statement = Statement(sql, tree)
    ctes = {name.lower() for node in _nodes(statements, sql) for name in _ctes(node)}
    if TABLE in ctes:
        raise refused(f"`{TABLE}` is the table of the log rows; give the CTE another name", sql)
    statement.defined |= ctes
    for node in _nodes(statements, sql):
        _check(node, statement, ctes)
    # `l.x` is a column of the table `l`, or a part of the column `l` where no table has that name.
    statement.names |= {n for n in statement.qualifiers if n.lower() not in statement.defined}
    named = {name.lower() for name in statement.names}
    whole_rows = bool(named & (statement.aliases | ctes)) and statement.scans > 0
    statement.star = whole_rows or any(_reads_all(node) for node in _nodes(statements, sql))
    return statement


def _reads_all(node: Node) -> bool:
    """Whether it is a SELECT with `*` whose FROM names `logs` itself, or a join by all equal names."""
    if node.get("type") == "JOIN" and node.get("ref_type") == "NATURAL":
        return True
    if node.get("type") != "SELECT_NODE" or not _names_logs(node.get("from_table")):
        return False
    parts = {key: value for key, value in node.items() if key not in ("from_table", "cte_map")}
    return any(one.get("class") == "STAR" for one in _nodes(parts, ""))


def _names_logs(table: Node | None) -> bool:
    if not table:
        return False
    if table["type"] == "JOIN":
        return _names_logs(table.get("left")) or _names_logs(table.get("right"))
    return table["type"] == "BASE_TABLE" and table["table_name"].lower() == TABLE


def refused(message: str, sql: str, position: int | None = None) -> InvalidRequest:
    """The error for a query; `position` counts bytes of it (from 0), the answer tells character and line."""
    raw = sql.encode()
    if position is None or not 0 <= position <= len(raw):
        return InvalidRequest(f"sql: {message}", parameter="query")
    position = len(raw[:position].decode(errors="ignore"))
    line = sql.count("\n", 0, position) + 1
    near = sql[position : position + 20].split("\n")[0]
    where = f", near {near!r}" if near else ""
    return InvalidRequest(
        f"sql: {message} (line {line}{where})", parameter="query", position=position, line=line
    )


def _unparsed(tree: Node, sql: str) -> InvalidRequest:
    message = str(tree.get("error_message", "not understood"))
    if message.startswith("Only SELECT statements"):
        return refused("only SELECT is allowed: `logs` is read-only", sql)
    position = tree.get("position")
    return refused(message.split("\n")[0], sql, int(position) if position else None)


def _nodes(root: Any, sql: str) -> Iterator[Node]:
    """All dicts of the tree."""
    waiting: list[tuple[Any, int]] = [(root, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEPTH_MAX:
            raise refused("nested too deeply", sql)
        if isinstance(value, dict):
            yield value
            waiting += [(one, depth + 1) for one in value.values()]
        elif isinstance(value, list):
            waiting += [(one, depth) for one in value]


def _ctes(node: Node) -> list[str]:
    kind = node.get("type")
    if not isinstance(kind, str) or kind not in _QUERIES:
        return []
    return [one["key"] for one in node.get("cte_map", {}).get("map", [])]


def _check(node: Node, statement: Statement, ctes: set[str]) -> None:
    """One node; what it names is noted in `statement`."""
    sql, kind, position = statement.sql, node.get("type"), node.get("query_location")
    group = node.get("class")
    for name in (
        node.get("alias"),
        *_texts(node, "aliases", "column_name_alias", "expand_aliases"),
    ):
        if name:
            statement.defined.add(name.lower())
    if group is not None:
        if group not in _EXPRESSIONS:
            raise refused(f"{group.lower().replace('_', ' ')} is not supported", sql, position)
        _check_expression(node, statement)
    elif isinstance(kind, str):
        if kind in _TABLES:
            _check_table(node, statement, ctes)
        elif kind in _QUERIES:
            statement.nested |= node is not statement.node
            statement.nested |= bool(_ctes(node))
        elif kind not in _OTHERS:
            raise refused(f"{kind.lower().replace('_', ' ')} is not supported", sql, position)


def _texts(node: Node, *keys: str) -> Iterator[str]:
    for key in keys:
        for one in node.get(key) or []:
            if isinstance(one, str):
                yield one


def _check_expression(node: Node, statement: Statement) -> None:
    group, position = node["class"], node.get("query_location")
    if group == "COLUMN_REF":
        names = node["column_names"]
        statement.names |= set(names[1:] if len(names) == 2 else names)
        if len(names) == 2:
            statement.qualifiers.add(names[0])
    elif group == "LAMBDA":
        statement.defined |= {name.lower() for name in node.get("lhs", {}).get("column_names", [])}
    elif group in ("FUNCTION", "WINDOW"):
        path = node.get("qualified_name", {}).get("path", [])
        name = str(node.get("function_name", "")).lower()
        named = {name, *(str(one).lower() for one in path)}
        if len(path) > 1 or node.get("schema") or node.get("catalog"):
            raise refused("functions have no schema here", statement.sql, position)
        if named & _REFUSED_FUNCTIONS or any(one.startswith(_REFUSED_PREFIXES) for one in named):
            raise refused(f"the function {name}() is not allowed", statement.sql, position)


def _check_table(node: Node, statement: Statement, ctes: set[str]) -> None:
    kind, sql, position = node["type"], statement.sql, node.get("query_location")
    if kind == "BASE_TABLE":
        path = node.get("qualified_name", {}).get("path", [])
        name = str(node.get("table_name", ""))
        qualified = node.get("schema_name") or node.get("catalog_name") or len(path) > 1
        if qualified or node.get("at_clause") or name.lower() not in {TABLE, *ctes}:
            shown = ".".join(str(one) for one in path) or name
            raise refused(f"no table {shown[:60]!r}; there is one, `{TABLE}`", sql, position)
        if name.lower() == TABLE:
            statement.scans += 1
            statement.aliases.add((node.get("alias") or TABLE).lower())
        statement.defined.add(name.lower())
    elif kind == "TABLE_FUNCTION":
        name = str(node["function"].get("function_name", "")).lower()
        if name not in _TABLE_FUNCTIONS:
            raise refused(
                f"the table function {name}() is not allowed", sql,
                node["function"].get("query_location", position),
            )  # fmt: skip
    elif kind == "SHOW_REF":
        if node.get("show_type") not in ("DESCRIBE", "SUMMARY") or not node.get("query"):
            raise refused(f"SHOW is not supported; try DESCRIBE {TABLE}", sql, position)
    elif kind == "JOIN":
        statement.names |= set(_texts(node, "using_columns"))

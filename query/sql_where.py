"""WHERE -> the filter that replicas evaluate. Pure.

A filter that is pushed down must hold for every row for which the condition is true (DuckDB evaluates the
condition again over what comes back); it is *exact* if it holds for no other row. SQL's three-valued logic
makes the difference with NOT: a row without the field is neither `= 'a'` nor `<> 'a'`, so negations of
ours go together with `exists`. Comparisons with fields of unknown type are exact only if the type turns
out to be the constant's: such fields are noted as *probes*.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

from query.sql_guard import Node
from records.columns import CORE_TYPES
from records.predicates import TRUE, Filter, all_of

#: Core columns that hold text. Levels are stored in lower case, and replicas ignore case in comparing.
TEXT_NAMES = frozenset(
    ("service", "level", "message", "trace_id", "span_id", "parent_id", "request_id", "host")
)
_COMPARISONS = {
    "COMPARE_EQUAL": "=", "COMPARE_NOTEQUAL": "<>", "COMPARE_LESSTHAN": "<", "COMPARE_GREATERTHAN": ">",
    "COMPARE_LESSTHANOREQUALTO": "<=", "COMPARE_GREATERTHANOREQUALTO": ">=",
}  # fmt: skip
_FLIPPED = {"=": "=", "<>": "<>", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
_NEGATED = {"=": "<>", "<>": "=", "<": ">=", ">": "<=", "<=": ">", ">=": "<"}
#: Whole numbers beyond this are not exact as floats.
_WHOLE = 1 << 53
#: What both RE2 and Rust's regex read alike: literals, classes, groups, alternatives, repetition.
_SAFE_CLASS = re.compile(r"\[[A-Za-z0-9 _.,:;=@/#%&<>!-]+\]")
_SAFE_ESCAPES = set(".+*?()[]{}|^$\\/-")


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a condition became: the filter, whether exact, fields that must be (field, "text"|"number")."""

    filter: Filter
    exact: bool = True
    probes: frozenset[tuple[str, str]] = frozenset()


NOTHING = Pushed(TRUE, False)


@dataclass(frozen=True, slots=True)
class Moment:
    """A bound on `timestamp`: `timestamp <operator> <constant>`; the constant is still an expression."""

    operator: str
    expression: Node


@dataclass(frozen=True, slots=True)
class Scope:
    """How names of one SELECT are read. `aliases`: names its list defines; `nested`: it may see others'."""

    table: str
    aliases: frozenset[str]
    nested: bool

    def column(self, node: Node) -> str | None:
        """The column of `logs` that an expression is, None if it is none for sure."""
        if node.get("class") != "COLUMN_REF":
            return None
        names = node["column_names"]
        if len(names) == 2 and names[0].lower() == self.table:
            return _canonical(names[1])
        if len(names) != 1:
            return None
        name = _canonical(names[0])
        if name in CORE_TYPES:
            return name
        return None if self.nested or name.lower() in self.aliases or name[0] == "_" else name


def _canonical(name: str) -> str:
    """Core names in any case are the core columns; SQL ignores case."""
    return name.lower() if name.lower() in CORE_TYPES else name


def conjuncts(condition: Node | None) -> list[Node]:
    """The conditions that must all hold."""
    if not condition:
        return []
    if condition["type"] == "CONJUNCTION_AND":
        return [part for child in condition["children"] for part in conjuncts(child)]
    return [condition]


def moments(condition: Node, scope: Scope) -> list[Moment] | None:
    """The bounds on time that the condition is, None if it is something else."""
    if condition["type"] == "COMPARE_BETWEEN":
        if scope.column(condition["input"]) != "timestamp":
            return None
        found = [Moment(">=", condition["lower"]), Moment("<=", condition["upper"])]
    elif condition["type"] in _COMPARISONS and condition.get("class") == "COMPARISON":
        operator, left, right = (
            _COMPARISONS[condition["type"]],
            condition["left"],
            condition["right"],
        )
        if scope.column(right) == "timestamp":
            operator, left, right = _FLIPPED[operator], right, left
        if scope.column(left) != "timestamp" or operator == "<>":
            return None
        found = [Moment(operator, right)]
    else:
        return None
    return found if all(is_constant(one.expression) for one in found) else None


_VARIABLE = {
    "COLUMN_REF",
    "SUBQUERY",
    "WINDOW",
    "STAR",
    "LAMBDA",
    "LAMBDA_REF",
    "POSITIONAL_REFERENCE",
}
_VOLATILE = {"random", "uuid", "gen_random_uuid", "uuidv4", "uuidv7", "setseed", "error"}


def is_constant(node: Any) -> bool:
    """Whether the expression has one value for the whole query."""
    if isinstance(node, list):
        return all(is_constant(one) for one in node)
    if not isinstance(node, dict):
        return True
    if node.get("class") in _VARIABLE or node.get("function_name") in _VOLATILE:
        return False
    return all(is_constant(one) for one in node.values())


def literal(node: Node) -> str | int | float | None:
    """The text or number that an expression is; None for all else."""
    if node.get("class") != "CONSTANT":
        return None
    kind, text = node["literal"]["kind"], node["literal"].get("text", "")
    if kind == "STRING":
        return text
    if kind == "INTEGER":
        return int(text) if abs(int(text)) < _WHOLE else None
    if kind == "NUMERIC":
        value = float(text)
        return value if math.isfinite(value) and abs(value) < _WHOLE else None
    return None


def pushed(node: Node, scope: Scope, negate: bool = False) -> Pushed:
    """The filter of a condition (or of its negation)."""
    kind = node["type"]
    if kind in ("CONJUNCTION_AND", "CONJUNCTION_OR"):
        parts = [pushed(child, scope, negate) for child in node["children"]]
        return _joined(parts, every=(kind == "CONJUNCTION_AND") != negate)
    if kind == "OPERATOR_NOT":
        return pushed(node["children"][0], scope, not negate)
    if kind in ("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"):
        name = scope.column(node["children"][0])
        if name is None:
            return NOTHING
        there: Filter = ("exists", name)
        return Pushed(there if (kind == "OPERATOR_IS_NOT_NULL") != negate else ("not", there))
    if kind == "COMPARE_BETWEEN":
        bounds = ((node["lower"], ">="), (node["upper"], "<="))
        parts = [_compared(node["input"], bound, one, scope, negate) for bound, one in bounds]
        return _joined(parts, every=not negate)
    if node.get("class") == "COMPARISON" and kind in _COMPARISONS:
        operator, left, right = _COMPARISONS[kind], node["left"], node["right"]
        if left.get("class") == "CONSTANT":
            operator, left, right = _FLIPPED[operator], right, left
        return _compared(left, right, operator, scope, negate)
    if kind in ("COMPARE_IN", "COMPARE_NOT_IN"):
        return _among(node["children"], scope, negate != (kind == "COMPARE_NOT_IN"))
    if kind == "FUNCTION":
        return _function(node, scope, negate)
    return NOTHING


def _joined(parts: list[Pushed], every: bool) -> Pushed:
    probes = frozenset(one for part in parts for one in part.probes)
    exact = all(part.exact for part in parts)
    if every:
        return Pushed(all_of(*(part.filter for part in parts)), exact, probes)
    if any(part.filter == TRUE for part in parts):
        return Pushed(TRUE, exact, probes)
    return Pushed(("or", *(part.filter for part in parts)), exact, probes)


def _compared(left: Node, right: Node, operator: str, scope: Scope, negate: bool) -> Pushed:
    name, value = scope.column(left), literal(right)
    if name is None or value is None or (name in CORE_TYPES and name not in TEXT_NAMES):
        return NOTHING
    operator = _NEGATED[operator] if negate else operator
    if isinstance(value, str):
        return _text_compared(name, operator, value)
    return NOTHING if name in TEXT_NAMES else _with(name, "number", operator, value)


def _text_compared(name: str, operator: str, value: str) -> Pushed:
    if name == "level" and value != value.lower():
        # Stored levels are lower case, so nothing equals it; a replica would find what SQL would not.
        return (
            Pushed(("exists", name), False)
            if operator == "<>"
            else Pushed(("eq", name, value), False)
        )
    if name in TEXT_NAMES:
        return _with(name, "", operator, value)
    if operator == "=" or (operator == "<>" and not _like_number(value)):
        return _with(name, "text", operator, value)
    return NOTHING


def _like_number(text: str) -> bool:
    return bool(re.search(r"\d", text)) or text.strip().lower() in (
        "true",
        "false",
        "nan",
        "inf",
        "",
    )


def _with(name: str, probe: str, operator: str, value: str | int | float) -> Pushed:
    equal: Filter = ("eq", name, value)
    filters: dict[str, Filter] = {
        "=": equal,
        "<>": ("and", ("exists", name), ("not", equal)),
        "<": ("range", name, None, value),
        ">=": ("range", name, value, None),
        ">": ("and", ("range", name, value, None), ("not", equal)),
        "<=": ("or", ("range", name, None, value), equal),
    }
    return Pushed(filters[operator], True, frozenset([(name, probe)] if probe else []))


def _among(children: list[Node], scope: Scope, negate: bool) -> Pushed:
    operator = "=" if not negate else "<>"
    parts = [_compared(children[0], one, operator, scope, False) for one in children[1:]]
    if negate or any(part.filter == TRUE for part in parts):
        return _joined(parts, every=negate)
    probes = frozenset(one for part in parts for one in part.probes)
    values = tuple(part.filter[2] for part in parts)
    exact = all(part.exact for part in parts)
    return Pushed(("in", parts[0].filter[1], values), exact, probes)


def _function(node: Node, scope: Scope, negate: bool) -> Pushed:
    arguments = [one["expression"] for one in node.get("arguments", [])]
    name = node.get("function_name")
    if len(arguments) != 2:
        return NOTHING
    column, text = scope.column(arguments[0]), literal(arguments[1])
    if (
        column is None
        or not isinstance(text, str)
        or (column in CORE_TYPES and column not in TEXT_NAMES)
    ):
        return NOTHING
    if name in ("~~", "!~~"):
        found, negate = _like(column, text), negate != (name == "!~~")
    elif name == "contains" and column == "message":
        found = Pushed(("phrase", text)) if text else NOTHING
    elif name == "regexp_matches" and (pattern := superset_pattern(text)):
        found = Pushed(("regex", column, pattern), False)
    else:
        return NOTHING
    if not negate:
        return found
    if not found.exact:
        return NOTHING
    return Pushed(all_of(("exists", column), ("not", found.filter)), True, found.probes)


def _like(column: str, pattern: str) -> Pushed:
    """LIKE without ESCAPE: `%` any text, `_` any one character, all else stands for itself."""
    pieces = [piece for piece in re.split("[%_]", pattern) if piece]
    if column == "message" and len(pieces) == 1 and pattern == f"%{pieces[0]}%":
        return Pushed(("phrase", pieces[0]))
    parts = {"%": "(?s:.*)", "_": "(?s:.)"}
    regex = "".join(parts.get(one) or _escaped(one) for one in pattern)
    tree: Filter = ("regex", column, f"^{regex}$")
    if column == "message" and pieces:
        tree = all_of(("phrase", max(pieces, key=len)), tree)
    probes = frozenset() if column in TEXT_NAMES else frozenset([(column, "text")])
    return Pushed(tree, True, probes)


def _escaped(character: str) -> str:
    return "\\" + character if character in "\\.+*?()|[]{}^$#&-~" else character


def superset_pattern(pattern: str) -> str | None:
    """A pattern for Rust's regex that matches wherever DuckDB's RE2 does; None if that is not sure.

    The two differ in what `\\d`, `\\w`, `\\b` and negated classes take of Unicode, and in flags.
    """
    if not pattern.isascii() or len(pattern) > 500:
        return None
    result, at = "", 0
    while at < len(pattern):
        one = pattern[at]
        if one == "\\":
            escaped = pattern[at + 1 : at + 2]
            if escaped not in _SAFE_ESCAPES and escaped != "d":
                return None
            result, at = result + one + escaped, at + 2
        elif one == "[":
            found = _SAFE_CLASS.match(pattern, at)
            if (
                not found
                or found[0][1] == "-"
                or found[0][-2] == "-"
                or "--" in found[0]
                or "&&" in found[0]
            ):
                return None
            result, at = result + found[0], found.end()
        elif one == "(" and pattern[at + 1 : at + 2] == "?":
            return None
        else:
            result, at = result + ("(?s:.)" if one == "." else one), at + 1
    return result

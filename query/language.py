"""The query language: the text of `q` <-> a filter of records.predicates. Pure.

    timeout                  the message holds this word, ignoring case
    "card declined"          the message holds this text, exactly; so does text that is no plain word
    tim*                     the message holds a word that begins so
    service:pay  status=500  the field is the value; `service!=pay`, `service:!=pay`: it is not
    message:word  message:"text"   as above: words and text in the message; `message="…"` is all of it
    status:>499  status:[500 TO 599]  took:{1.5 TO *]   bounds; round included, curly not, * open
    level:in(error, fatal)   one of these
    path:~"^/api/v[12]/"     Rust regex syntax: linear time, no look-around
    path:/api*               begins so
    trace_id:*               the field is there
    a b · a AND b · a OR b · NOT a · -a · (a OR b) c        AND binds stronger than OR; `*` is all

Field names with other characters than letters, digits and `_.-@/` are quoted: "my field":x. Invariants:
`parse(unparse(f)) == f` for each f that `parse` gave; depth and size are bounded; every error names the
position, counted in characters from 1. Written like the filters of LogsQL and Lucene.
"""

import json
import re
from typing import Any

from records.errors import InvalidRequest
from records.predicates import MAX_FILTER_NODES, TRUE, Filter

#: Longest expression in characters; more is a program, not a question.
MAX_CHARACTERS = 16_384
#: Deepest nesting of brackets and NOTs; bounds the recursion here and in each evaluator.
MAX_DEPTH = 40
#: Nodes of the filter; leaves room for the conditions of other parameters.
MAX_NODES = MAX_FILTER_NODES - 100

_FIELD = re.compile(r"[^\W\d][\w.\-@/]*")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?")
_SPACE = re.compile(r"\s*")
_TEXT = re.compile(r"""[^\s()"\[\]{},:=!<>~]+""")
_VALUE = re.compile(r"""[^\s()"]+""")
_LISTED = re.compile(r"""[^\s()",]+""")
_BOUND = re.compile(r"""[^\s()"\[\]{}]+""")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE_OR_QUOTE = re.compile(r'\\.|"', re.DOTALL)
_OPERATORS = (":!=", ":>=", ":<=", ":=", ":~", ":>", ":<", "!=", "=~", ":", "=")
_KEYWORDS = ("AND", "OR", "NOT")


def parse(text: str) -> Filter:
    """The filter that `text` says; the filter of all rows for blank text.

    Raises:
        InvalidRequest: what is wrong, and where (details: `parameter`, `position` from 1).
    """
    if len(text) > MAX_CHARACTERS:
        raise _error(MAX_CHARACTERS, f"the expression is longer than {MAX_CHARACTERS} characters")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _error(error.start, "not a character") from error
    parser = _Parser(text)
    if parser.at_end():
        return TRUE
    found = parser.either(0)
    if not parser.at_end():
        raise _error(parser.at, f"expected the end or an operator, found {parser.here()!r}")
    return found


def typed(text: str) -> Any:
    """The number that `text` is written as, else the text: `5` is a number, `007` and `1.10` are not."""
    if not _NUMBER.fullmatch(text):
        return text
    number: int | float = float(text) if "." in text else int(text)
    return number if str(number) == text else text


def equal(field: str, value: Any) -> Filter:
    """`field` is `value`. Levels compare lower-case."""
    return ("eq", field, value.lower() if field == "level" and isinstance(value, str) else value)


def one_of(field: str, values: tuple) -> Filter:
    """`field` is one of `values`."""
    if len(values) == 1:
        return equal(field, values[0])
    return ("in", field, tuple(equal(field, value)[2] for value in values))


def text_filter(text: str) -> Filter:
    """A plain word as a word, whatever else as a phrase."""
    return ("word", text) if text.isalnum() else ("phrase", text)


def regex_filter(field: str, pattern: str) -> Filter:
    """A regex, after a check of its syntax by the engine that will run it.

    Raises:
        InvalidRequest: not a regex of Rust's syntax, or too large a one.
    """
    check_regex(pattern)
    return ("regex", field, pattern)


def check_regex(pattern: str) -> None:
    """Raises InvalidRequest with the engine's reason if it does not take `pattern`."""
    import polars as pl

    if len(pattern) > 1000:
        raise InvalidRequest("a regex has at most 1000 characters", parameter="regex")
    try:
        pl.Series(["", "a"]).str.contains(pattern)
    except pl.exceptions.PolarsError as error:
        reason = str(error).split("\n\nThis error")[0]
        message = f"regex {pattern!r} is not valid: {reason}"
        raise InvalidRequest(message, parameter="regex") from error


def escape_regex(text: str) -> str:
    """`text` as a regex that matches just it. (Other characters must not be escaped: `\\<` is an anchor.)"""
    return "".join("\\" + c if c in r"\.+*?()|[]{}^$" else c for c in text)


def joined(kind: str, parts: list[Filter]) -> Filter:
    """`and` or `or` of parts, flat: a part of the same kind is taken apart."""
    flat: list[Filter] = []
    for part in parts:
        flat.extend(part[1:] if part[0] == kind else (part,))
    return flat[0] if len(flat) == 1 else (kind, *flat)


def _error(index: int, message: str) -> InvalidRequest:
    place = f"q, position {index + 1}: {message}"
    return InvalidRequest(place, parameter="q", position=index + 1)


class _Parser:
    """Recursive descent over the text; `at` is the index of what comes next."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.nodes = 0

    # -- characters

    def skip(self) -> None:
        """To the next character that is no space."""
        found = _SPACE.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def at_end(self) -> bool:
        """Whether only space is left."""
        self.skip()
        return self.at >= len(self.text)

    def here(self) -> str:
        """A few characters of what comes next, for messages."""
        return self.text[self.at : self.at + 12]

    def starts(self, token: str) -> bool:
        """Whether `token` comes next."""
        return self.text.startswith(token, self.at)

    def keyword(self, word: str) -> bool:
        """Takes an upper-case keyword if it comes next as a word of its own."""
        self.skip()
        end = self.at + len(word)
        if not self.starts(word) or self.text[end : end + 1] not in (
            "",
            " ",
            "\t",
            "\n",
            "\r",
            "(",
        ):
            return False
        self.at = end
        return True

    def expect(self, token: str, why: str) -> None:
        """Takes `token` or fails."""
        self.skip()
        if not self.starts(token):
            raise _error(self.at, f"expected {token!r} {why}")
        self.at += len(token)

    def node(self, found: Filter, count: int = 1) -> Filter:
        """Counts nodes against the bound."""
        self.nodes += count
        if self.nodes > MAX_NODES:
            raise _error(self.at, f"more than {MAX_NODES} conditions")
        return found

    # -- operators

    def either(self, depth: int) -> Filter:
        """a OR b OR …"""
        if depth > MAX_DEPTH:
            raise _error(self.at, f"nested more than {MAX_DEPTH} deep")
        parts = [self.both(depth)]
        while self.keyword("OR"):
            parts.append(self.both(depth))
        return joined("or", parts)

    def both(self, depth: int) -> Filter:
        """a b · a AND b"""
        parts = [self.unary(depth)]
        while True:
            if self.keyword("AND"):
                parts.append(self.unary(depth))
                continue
            mark = self.at
            if self.at_end() or self.starts(")") or self.keyword("OR"):
                self.at = mark
                return joined("and", parts)
            parts.append(self.unary(depth))

    def unary(self, depth: int) -> Filter:
        """NOT a · -a · !a · (a) · a condition"""
        if depth > MAX_DEPTH:
            raise _error(self.at, f"nested more than {MAX_DEPTH} deep")
        if self.at_end():
            raise _error(self.at, "expected a condition, found the end")
        if self.keyword("NOT"):
            return self.node(("not", self.unary(depth + 1)))
        if self.text[self.at] in "-!":
            self.at += 1
            if self.text[self.at : self.at + 1].strip() == "":
                raise _error(self.at, "expected a condition right after the sign")
            return self.node(("not", self.unary(depth + 1)))
        if self.starts("("):
            self.at += 1
            found = self.either(depth + 1)
            self.expect(")", "to close the bracket")
            return found
        return self.condition()

    # -- conditions

    def condition(self) -> Filter:
        """A word, a phrase, or a field with its operator."""
        start = self.at
        for word in _KEYWORDS:
            if self.keyword(word):
                raise _error(
                    start, f"{word} needs a condition before it; quote it to search for it"
                )
        quoted = self.starts('"')
        name = self.quoted() if quoted else self.bare()
        operator = next((one for one in _OPERATORS if self.starts(one)), "")
        if not operator:
            return self.node(("phrase", name) if quoted else self.plain(name, start))
        if not quoted and not _FIELD.fullmatch(name):
            raise _error(start, f"{name!r} is not a field name; quote the text to search for it")
        if not name or len(name) > 256:
            raise _error(start, "a field name has 1 to 256 characters")
        self.at += len(operator)
        return self.operation(name, operator)

    def quoted(self) -> str:
        """A text in double quotes, with JSON's escapes."""
        found = _QUOTED.match(self.text, self.at)
        if not found:
            raise _error(self.at, "the quote is not closed")
        try:
            value = json.loads(found.group(), strict=False)
            value.encode()
        except ValueError as error:
            raise _error(self.at, "the escape is none of JSON's; write \\\\ for a \\") from error
        self.at = found.end()
        return value

    def bare(self) -> str:
        """Text without quotes, up to a space or an operator."""
        found = _TEXT.match(self.text, self.at)
        if not found:
            raise _error(
                self.at, f'expected a word, a "phrase" or field:value, found {self.here()!r}'
            )
        self.at = found.end()
        return found.group()

    def plain(self, text: str, start: int) -> Filter:
        """A bare word: all, a beginning, or itself."""
        if text == "*":
            return TRUE
        if text.endswith("*") and "*" not in text[:-1]:
            return ("regex", "message", r"(?i)\b" + escape_regex(text[:-1]))
        if "*" in text:
            raise _error(start, '* stands at the end of a word only; use field:~"regex"')
        return text_filter(text)

    def operation(self, field: str, operator: str) -> Filter:
        """What follows the field's operator."""
        if operator in (":!=", "!="):
            return self.node(("not", equal(field, self.value())), 2)
        if operator in ("=", ":="):
            return self.node(equal(field, self.value()))
        if operator in (":~", "=~"):
            return self.node(self.regex(field))
        if operator != ":":
            return self.bound(field, operator[1:])
        if self.starts("[") or self.starts("{"):
            return self.interval(field)
        if self.starts("in("):
            return self.listed(field)
        if self.starts("("):
            raise _error(self.at, f"write {field}:in(a, b), or the field before each value")
        return self.node(self.colon(field))

    def colon(self, field: str) -> Filter:
        """field:value, which in the message means words."""
        start = self.at
        if self.starts('"'):
            text = self.quoted()
            return ("phrase", text) if field == "message" else equal(field, text)
        text = self.raw(_VALUE)
        if text == "*":
            return ("exists", field)
        if text.endswith("*"):
            head = r"(?i)\b" if field == "message" else "^"
            return ("regex", field, head + escape_regex(text[:-1]))
        return self.plain(text, start) if field == "message" else equal(field, typed(text))

    def raw(self, pattern: re.Pattern[str]) -> str:
        """An unquoted value."""
        found = pattern.match(self.text, self.at)
        if not found:
            raise _error(self.at, 'expected a value; "" is the empty text')
        self.at = found.end()
        return found.group()

    def value(self, pattern: re.Pattern[str] = _VALUE) -> Any:
        """A value: quoted text stays text, unquoted numbers are numbers."""
        return self.quoted() if self.starts('"') else typed(self.raw(pattern))

    def regex(self, field: str) -> Filter:
        """A quoted (or bare) regex; inside the quotes `\\d` needs no second backslash."""
        start = self.at
        if self.starts('"'):
            found = _QUOTED.match(self.text, self.at)
            if not found:
                raise _error(self.at, "the quote is not closed")
            self.at = found.end()
            pattern = found.group(1).replace('\\"', '"')
        else:
            pattern = self.raw(_VALUE)
        try:
            return regex_filter(field, pattern)
        except InvalidRequest as error:
            raise _error(start, error.message) from error

    def bound(self, field: str, sign: str) -> Filter:
        """field:>5 and its kin."""
        self.skip()
        value = self.quoted() if self.starts('"') else _number(self.raw(_VALUE))
        if sign[0] == ">":
            return self.range(field, value, sign == ">=", None, True)
        return self.range(field, None, True, value, sign == "<=")

    def interval(self, field: str) -> Filter:
        """field:[a TO b], curly brackets leave the end out."""
        start = self.at
        with_low = self.text[self.at] == "["
        self.at += 1
        low = self.end_of_interval()
        if not self.keyword("TO"):
            raise _error(self.at, "expected TO between the bounds")
        high = self.end_of_interval()
        self.skip()
        if not (self.starts("]") or self.starts("}")):
            raise _error(self.at, "expected ] or } to close the bounds")
        with_high = self.text[self.at] == "]"
        self.at += 1
        if low is None and high is None:
            return self.node(("exists", field))
        if low is not None and high is not None and isinstance(low, str) != isinstance(high, str):
            raise _error(start, "the bounds are a number and a text; quote both to compare texts")
        return self.range(field, low, with_low, high, with_high)

    def end_of_interval(self) -> Any:
        """One bound; None for *."""
        self.skip()
        if self.starts('"'):
            return self.quoted()
        found = _BOUND.match(self.text, self.at)
        if not found:
            raise _error(self.at, "expected a bound or *")
        self.at = found.end()
        return None if found.group() == "*" else _number(found.group())

    def range(self, field: str, low: Any, with_low: bool, high: Any, with_high: bool) -> Filter:
        """The filter of an interval, from half-open ranges."""
        base: Filter = ("range", field, low, high)
        if high is not None and with_high:
            base = joined("or", [base, ("eq", field, high)])
        if low is not None and not with_low:
            base = joined("and", [base, ("not", ("eq", field, low))])
        return self.node(base, 4)

    def listed(self, field: str) -> Filter:
        """field:in(a, b)"""
        self.at += len("in(")
        values: list[Any] = []
        while True:
            self.skip()
            values.append(self.value(_LISTED))
            self.node(TRUE)
            self.skip()
            if self.starts(","):
                self.at += 1
                continue
            self.expect(")", "or a comma in the list")
            return one_of(field, tuple(values))


def _number(text: str) -> Any:
    """For bounds any way of writing a number is one."""
    if not _NUMBER.fullmatch(text):
        return text
    return float(text) if "." in text else int(text)


def unparse(tree: Filter) -> str:
    """The text of a filter; `parse` gives the same filter back."""
    kind, *operands = tree
    if kind in ("and", "or"):
        texts = [
            f"({unparse(one)})" if kind == "and" and one[0] == "or" else unparse(one)
            for one in operands
        ]
        return f" {kind.upper()} ".join(texts)
    if kind == "not":
        inner_text = unparse(operands[0])
        return f"NOT ({inner_text})" if operands[0][0] in ("and", "or") else f"NOT {inner_text}"
    return _unparse_leaf(kind, operands)


def _unparse_leaf(kind: str, operands: list[Any]) -> str:
    if kind == "true":
        return "*"
    if kind == "word":
        return f"message:{operands[0]}" if operands[0] in _KEYWORDS else operands[0]
    if kind == "phrase":
        return _quote(operands[0])
    field, *values = operands
    name = field if _FIELD.fullmatch(field) else _quote(field)
    if kind == "eq":
        return f"{name}={_literal(values[0])}"
    if kind == "in":
        return f"{name}:in({', '.join(_literal(one) for one in values[0])})"
    if kind == "exists":
        return f"{name}:*"
    if kind == "regex":
        return f'{name}:~"{_ESCAPE_OR_QUOTE.sub(_escaped_quote, values[0])}"'
    low, high = ("*" if one is None else _literal(one) for one in values)
    return f"{name}:[{low} TO {high}}}"


def _escaped_quote(found: re.Match[str]) -> str:
    """A quote in a regex with a backslash before it; one that has it already means the same."""
    return r"\"" if found.group() == '"' else found.group()


def _literal(value: Any) -> str:
    return str(value) if isinstance(value, int | float) else _quote(str(value))


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)

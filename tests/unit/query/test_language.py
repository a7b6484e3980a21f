"""The query language: what each form means, where errors point, and that text and filter round trip."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query.language import MAX_CHARACTERS, MAX_DEPTH, escape_regex, parse, unparse
from records.errors import InvalidRequest
from records.predicates import TRUE, Filter, checked_filter


def eq(field: str, value: object) -> Filter:
    return ("eq", field, value)


MEANINGS: list[tuple[str, Filter]] = [
    ("", TRUE),
    ("  \t\n", TRUE),
    ("*", TRUE),
    ("timeout", ("word", "timeout")),
    ("Übergabe", ("word", "Übergabe")),
    ('"card declined"', ("phrase", "card declined")),
    ("card-declined", ("phrase", "card-declined")),
    ("user_id", ("phrase", "user_id")),
    ("tim*", ("regex", "message", r"(?i)\btim")),
    ("service:pay", eq("service", "pay")),
    ('service:"pay out"', eq("service", "pay out")),
    ("service=pay", eq("service", "pay")),
    ("service:=pay", eq("service", "pay")),
    ("service!=pay", ("not", eq("service", "pay"))),
    ("service:!=pay", ("not", eq("service", "pay"))),
    ("level:ERROR", eq("level", "error")),
    ("status=500", eq("status", 500)),
    ("took=1.5", eq("took", 1.5)),
    ('status="500"', eq("status", "500")),
    ("version=1.10", eq("version", "1.10")),
    ("code=007", eq("code", "007")),
    ("path:/a?b=c:d", eq("path", "/a?b=c:d")),
    ("message:late", ("word", "late")),
    ('message:"too late"', ("phrase", "too late")),
    ('message="too late"', eq("message", "too late")),
    ("path:/api*", ("regex", "path", "^/api")),
    ('path:~"^/v[12]\\d"', ("regex", "path", r"^/v[12]\d")),
    ("path=~a+", ("regex", "path", "a+")),
    ("trace_id:*", ("exists", "trace_id")),
    ('"my field":x', eq("my field", "x")),
    ("a:>5", ("and", ("range", "a", 5, None), ("not", eq("a", 5)))),
    ("a:>=5", ("range", "a", 5, None)),
    ("a:<5", ("range", "a", None, 5)),
    ("a:<=5", ("or", ("range", "a", None, 5), eq("a", 5))),
    ("a:> 5", ("and", ("range", "a", 5, None), ("not", eq("a", 5)))),
    ("a:[1 TO 5]", ("or", ("range", "a", 1, 5), eq("a", 5))),
    ("a:[1 TO 5}", ("range", "a", 1, 5)),
    ("a:[* TO 5}", ("range", "a", None, 5)),
    ("a:[* TO *]", ("exists", "a")),
    ("a:[2026-01-01 TO 2026-02-01}", ("range", "a", "2026-01-01", "2026-02-01")),
    ("level:in(Error, fatal)", ("in", "level", ("error", "fatal"))),
    ('a:in(1,"x, y")', ("in", "a", (1, "x, y"))),
    ("a:in(1)", eq("a", 1)),
    ("a b", ("and", ("word", "a"), ("word", "b"))),
    ("a AND b", ("and", ("word", "a"), ("word", "b"))),
    ("a OR b c", ("or", ("word", "a"), ("and", ("word", "b"), ("word", "c")))),
    ("(a OR b) c", ("and", ("or", ("word", "a"), ("word", "b")), ("word", "c"))),
    ("NOT a b", ("and", ("not", ("word", "a")), ("word", "b"))),
    ("-a", ("not", ("word", "a"))),
    ("!a", ("not", ("word", "a"))),
    ("-(a b)", ("not", ("and", ("word", "a"), ("word", "b")))),
    ("ANDY", ("word", "ANDY")),
    ("message:AND", ("word", "AND")),
]


@pytest.mark.parametrize(("text", "meaning"), MEANINGS)
def test_each_form_means_what_the_module_says(text: str, meaning: Filter) -> None:
    """One line a form; the filter is one that a replica accepts, and its text gives it back."""
    assert parse(text) == meaning
    assert checked_filter(meaning) == meaning
    assert parse(unparse(meaning)) == meaning


ERRORS = [
    ("(a", 3, "close the bracket"),
    ("a AND", 6, "found the end"),
    ("OR b", 1, "OR needs a condition"),
    ("a)", 2, "expected the end"),
    ('say "abc', 5, "not closed"),
    ("f:", 3, "expected a value"),
    ("f:(a b)", 3, "f:in(a, b)"),
    ('x:~"(a"', 4, "unclosed group"),
    ("f:[1 TO", 8, "expected a bound"),
    ("f:[1 2]", 6, "expected TO"),
    ("f:[1 TO x]", 3, "a number and a text"),
    ("- a", 2, "right after the sign"),
    ("10.0.0.1:80", 1, "not a field name"),
    ("a,b", 2, "expected a word"),
    ("a*b", 1, "end of a word only"),
    ('"\\q"', 1, "JSON's"),
    ("a:in(1 2)", 8, "comma in the list"),
    ("(" * 60 + "a", MAX_DEPTH + 2, "nested more than"),
    ("NOT " * 60 + "a", 4 * (MAX_DEPTH + 1), "nested more than"),
    ("x " * 450, None, "conditions"),
    ("a" * (MAX_CHARACTERS + 1), MAX_CHARACTERS + 1, "longer than"),
    ("a \ud800", 3, "not a character"),
]


@pytest.mark.parametrize(("text", "position", "reason"), ERRORS)
def test_errors_say_what_and_where(text: str, position: int | None, reason: str) -> None:
    """The position is that of the offending character, from 1; the parameter is named."""
    with pytest.raises(InvalidRequest) as caught:
        parse(text)

    assert reason in caught.value.message
    assert caught.value.details["parameter"] == "q"
    if position is not None and "nested" not in reason:
        assert caught.value.details["position"] == position


names = st.from_regex(r"[a-z_][a-z0-9_.]{0,6}", fullmatch=True) | st.sampled_from(["my field", "é"])
values = st.integers(-(10**15), 10**15) | st.text(max_size=8)
leaves = st.one_of(
    st.just(TRUE),
    st.text("abcAND1ü", min_size=1, max_size=4).filter(str.isalnum).map(lambda t: ("word", t)),
    st.text(max_size=8).map(lambda t: ("phrase", t)),
    st.tuples(st.just("eq"), names.filter(lambda n: n != "level"), values),
    st.tuples(
        st.just("in"),
        names.filter(lambda n: n != "level"),
        st.lists(values, min_size=2, max_size=3).map(tuple),
    ),
    st.tuples(st.just("exists"), names),
    st.tuples(st.just("range"), names, st.integers(0, 9) | st.none(), st.integers(10, 19)),
    st.tuples(
        st.just("regex"),
        names,
        st.sampled_from(["a+", 'x"y', r"\d\\" + '"', r"^\\b$", "", "\\\\" * 9]),
    ),
)


def trees(kind: str, depth: int = 3) -> st.SearchStrategy[Filter]:
    """Conjunctions and disjunctions by turns, as the parser builds them."""
    if depth == 0:
        return leaves
    part = (
        leaves
        | leaves.map(lambda one: ("not", one))
        | trees("or" if kind == "and" else "and", depth - 1)
    )
    return st.lists(part, min_size=2, max_size=3).map(lambda parts: (kind, *parts))


@settings(max_examples=150)
@given(trees("and") | trees("or") | trees("and").map(lambda one: ("not", one)))
def test_the_text_of_a_filter_gives_it_back(tree: Filter) -> None:
    """For trees that alternate AND and OR with any leaves, words, quotes, escapes and numbers."""
    try:
        str(tree).encode()
    except UnicodeEncodeError:
        return

    assert parse(unparse(tree)) == tree


SYMBOLS = (
    '"',
    "(",
    ")",
    ":",
    "=",
    "!=",
    ">",
    "<",
    "[",
    "]",
    "{",
    "}",
    ",",
    "-",
    "!",
    "*",
    "~",
    "\\",
)
WORDS = (
    "a",
    "b",
    " ",
    " TO ",
    "in(",
    " AND ",
    " OR ",
    " NOT ",
    "5",
    "1.5",
    "field",
    "é",
    "\x00",
    "level",
)
pieces = st.sampled_from(SYMBOLS + WORDS)


@settings(max_examples=300)
@given(st.lists(pieces, max_size=14).map("".join) | st.text(max_size=20))
def test_any_text_gives_a_filter_or_an_error_with_a_position(text: str) -> None:
    """Never another exception; a filter that comes out goes through its text unchanged."""
    failed: InvalidRequest | None = None
    tree: Filter = TRUE
    try:
        tree = parse(text)
    except InvalidRequest as error:
        failed = error

    if failed:
        assert 1 <= failed.details["position"] <= len(text) + 1
    assert parse(unparse(tree)) == tree
    assert checked_filter(tree) == tree


@given(st.text(max_size=10))
def test_an_escaped_text_matches_just_itself(text: str) -> None:
    """Rust's engine takes the escaped text as the literal."""
    import polars as pl

    pattern = "^" + escape_regex(text) + "$"

    assert pl.Series([text]).str.contains(pattern)[0]
    assert not pl.Series([text + "x"]).str.contains(pattern)[0]


def test_a_quote_that_is_escaped_already_keeps_its_meaning() -> None:
    r"""`\"` in a pattern is `"`: its text parses, and gives the same regex without the backslash."""
    assert parse(unparse(("regex", "a", r"x\"y"))) == ("regex", "a", 'x"y')

"""Each condition on hand-made columns: types that do not fit never crash and match nothing."""

from typing import Any

import pyarrow as pa
import pytest

from records.errors import InvalidRequest
from storage.scan_filter import BlockView, check_filter, evaluate, excludes, only_over

COLUMNS: dict[str, pa.Array] = {
    "timestamp": pa.array([0, 1, 2, 3], pa.timestamp("us", tz="UTC")),
    "message": pa.array(["User_id failed", "user x", None, "superuser Ünit ß"]),
    "level": pa.array(["Error", "info", "info", None]).dictionary_encode(),
    "n": pa.array([1, None, 3, 4]),
    "s": pa.array(["5", "x", "5.0", None]),
    "b": pa.array([True, False, None, True]),
    "f": pa.array([0.5, float("nan"), 2.0, None]),
    "attributes": pa.array(
        ['{"foo":5,"n":2}', '{"foo":"bar","n":2}', None, '{"a":{"b":1},"c.d":"x","é":1,"z":null}']
    ),
}


def hits(tree: tuple) -> list[int]:
    """Positions of the rows that match."""
    view = BlockView(COLUMNS.get, 4)
    return [index for index, hit in enumerate(evaluate(tree, view)) if hit]


@pytest.mark.parametrize(
    ("tree", "rows"),
    [
        (("true",), [0, 1, 2, 3]),
        (("word", "user"), [0, 1]),
        (("word", "USER"), [0, 1]),
        (("word", "ünit"), [3]),
        (("word", "x"), [1]),
        (("word", "."), []),
        (("phrase", "user"), [1, 3]),
        (("phrase", "User"), [0]),
        (("phrase", ".*"), []),
        (("regex", "message", "^u"), [1]),
        (("regex", "level", "nf"), [1, 2]),
        (("regex", "n", "[13]"), [0, 2]),
        (("regex", "b", "^true$"), [0, 3]),
        (("eq", "level", "ERROR"), [0]),
        (("eq", "level", 5), []),
        (("in", "level", ("INFO", "error")), [0, 1, 2]),
        (("in", "level", (*"abcdefghij", "ERROR")), [0]),
        (("in", "n", ("a", True, 4.0)), [3]),
        (("in", "n", (True, 1)), [0]),
        (("in", "n", ([1], {"a": 1}, 3)), [2]),
        (("in", "n", ()), []),
        (("eq", "n", 1), [0]),
        (("eq", "n", "1"), [0]),
        (("eq", "n", 1.0), [0]),
        (("eq", "n", True), []),
        (("eq", "n", 2), [1]),
        (("eq", "n", None), []),
        (("eq", "level", None), [3]),
        (("eq", "nowhere", None), [0, 1, 2, 3]),
        (("eq", "n", 10**30), []),
        (("eq", "n", 1.5), []),
        (("eq", "s", 5), [0, 2]),
        (("eq", "s", "5"), [0]),
        (("eq", "b", "TRUE"), [0, 3]),
        (("eq", "b", 1), []),
        (("eq", "f", float("nan")), []),
        (("eq", "f", 2), [2]),
        (("eq", "foo", 5), [0]),
        (("eq", "foo", "bar"), [1]),
        (("eq", "a.b", 1), [3]),
        (("eq", "c.d", "x"), [3]),
        (("eq", "é", 1), [3]),
        (("eq", "nowhere", 1), []),
        (("not", ("eq", "nowhere", 1)), [0, 1, 2, 3]),
        (("exists", "n"), [0, 1, 2, 3]),
        (("exists", "z"), []),
        (("exists", "foo"), [0, 1]),
        (("range", "n", 2, 4), [1, 2]),
        (("range", "n", None, None), [0, 1, 2, 3]),
        (("range", "n", "a", None), []),
        (("range", "s", 5, 6), [0, 2]),
        (("range", "s", "5", "6"), [0, 2]),
        (("range", "foo", 4, 6), [0]),
        (("range", "b", 0, 2), []),
        (("range", "timestamp", 1, "1970-01-01T00:00:00.000003"), [1, 2]),
        (("range", "level", "f", None), [1, 2]),
        (("and", ("eq", "level", "info"), ("word", "user")), [1]),
        (("and", ("exists", "s"), ("not", ("eq", "b", True))), [1, 2]),
        (("or",), []),
        (("and",), [0, 1, 2, 3]),
    ],
)
def test_conditions(tree: tuple, rows: list[int]) -> None:
    """Two-valued logic over hand-made rows."""
    assert hits(tree) == rows


EDGES = {
    "whole": pa.array([(1 << 63) - 1, 1 << 53, (1 << 53) + 1, -(1 << 63), None]),
    "real": pa.array([0.5, float(1 << 53), 1e300, float("inf"), None]),
}
HUGE = int("9" * 400)


@pytest.mark.parametrize(
    ("tree", "rows"),
    [
        (("eq", "whole", (1 << 53) + 1), [2]),
        (("eq", "whole", 1 << 63), []),
        (("eq", "whole", float(1 << 63)), []),
        (("eq", "whole", HUGE), []),
        (("range", "whole", 1 << 63, None), []),
        (("range", "whole", None, 1 << 63), [0, 1, 2, 3]),
        (("range", "whole", -HUGE, HUGE), [0, 1, 2, 3]),
        (("range", "whole", float((1 << 53) - 1), float((1 << 53) + 2)), [1, 2]),
        (("range", "whole", float("-inf"), float("inf")), [0, 1, 2, 3]),
        (("range", "whole", float("nan"), None), []),
        (("eq", "real", (1 << 53) + 1), [1]),  # the nearest double, as SQL compares them
        (("eq", "real", "9007199254740993"), [1]),
        (("range", "real", (1 << 53) + 1, None), [1, 2, 3]),
        (("range", "real", None, HUGE), [0, 1, 2]),
        (("eq", "real", -HUGE), []),
        (("in", "real", (0.5, HUGE, (1 << 63) - 1)), [0, 3]),
    ],
)
def test_numbers_that_a_type_cannot_hold(tree: tuple, rows: list[int]) -> None:
    """Whole numbers exactly, doubles by the nearest double; beyond the type is beyond every value."""
    view = BlockView(EDGES.get, 5)

    assert [index for index, hit in enumerate(evaluate(tree, view)) if hit] == rows


@pytest.mark.parametrize("field", [*COLUMNS, "foo", "nowhere", "", "'", '"', "a.", "$['x']", "["])
@pytest.mark.parametrize(
    "value", [1, -0.5, "", "x", True, None, 2**64, 2**53 + 1, 10**400, b"bytes"]
)
def test_no_value_and_no_name_crashes(field: str, value: Any) -> None:
    """Whatever is compared with whatever."""
    for tree in (("eq", field, value), ("in", field, (value, "y")), ("range", field, value, value)):
        hits(tree)


def test_a_bad_regex_says_why() -> None:
    """Nested anywhere."""
    with pytest.raises(InvalidRequest, match="unclosed group"):
        check_filter(("and", ("not", ("regex", "message", "(a"))))


def test_a_sidecar_excludes_what_cannot_match() -> None:
    """Only conjunctions of eq and in on its columns; never too much."""
    values = {"service": ("pay", "web"), "level": ("Info",)}

    for tree, excluded in (
        (("eq", "service", "pay"), False),
        (("eq", "service", "other"), True),
        (("eq", "level", "INFO"), False),
        (("and", ("word", "x"), ("in", "service", ("a", "b"))), True),
        (("or", ("eq", "service", "other"), ("true",)), False),
        (("not", ("eq", "service", "other")), False),
        (("eq", "level", None), False),
        (("eq", "user", "nobody"), False),
    ):
        assert excludes(tree, values) is excluded, tree


def test_only_over_knows_what_rollups_can_answer() -> None:
    """eq and in on the named columns, in any combination."""
    keys = frozenset({"service", "level"})

    assert only_over(("or", ("eq", "service", "a"), ("not", ("in", "level", ("b",)))), keys)
    assert not only_over(("and", ("eq", "service", "a"), ("word", "b")), keys)
    assert not only_over(("regex", "service", "a"), keys)


def test_a_field_without_any_value_is_no_attribute() -> None:
    """`d` is not in `{"deep": …}`, though its name begins so: nulls would make text of numbers."""
    column = pa.array(['{"deep": 1}', '{"d": null}', None])
    view = BlockView(lambda name: column if name == "attributes" else None, 3)

    assert view.attribute("d") is None
    assert view.attribute("deep") is not None

"""Plans from parameters: every parameter, its errors, and what a cursor binds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query.cursor import Cursor
from query.plan import plan_rows, services_of
from records.errors import InvalidRequest
from records.predicates import RowKey
from records.timestamps import MAX_MICROS, TimeRange
from tests.unit.query.helpers import HOUR, NOW, plan


def test_defaults() -> None:
    """The newest hundred rows of all time, at the cluster's consistency."""
    made = plan()

    assert made.scan.limit == 100
    assert made.scan.descending
    assert made.scan.time == TimeRange()
    assert made.scan.filter == ("true",)
    assert made.consistency is made.timeout_seconds is made.fields is None


def test_all_parameters_become_one_conjunction() -> None:
    """service (repeated and by comma), level, search, regex, trace_id, q, and fields by their names."""
    made = plan(
        ("service", "a,b"),
        ("service", "c"),
        level="ERROR",
        search='lost "card declined"',
        regex="id=[0-9]+",
        trace_id="t1",
        q="x:>=5 y=1",
        status="500",
    )

    assert made.scan.services == ("a", "b", "c")
    assert made.scan.filter == (
        "and",
        ("in", "service", ("a", "b", "c")),
        ("eq", "level", "error"),
        ("eq", "trace_id", "t1"),
        ("word", "lost"),
        ("phrase", "card declined"),
        ("regex", "message", "id=[0-9]+"),
        ("range", "x", 5, None),
        ("eq", "y", 1),
        ("eq", "status", "500"),
    )


def test_times() -> None:
    """`from` and `to` are half-open; `since` reaches from then on."""
    assert plan(("from", "1795000000"), ("to", "now")).scan.time == TimeRange(NOW, NOW)
    assert plan(since="1h").scan.time == TimeRange(NOW - HOUR, MAX_MICROS)


def test_fields_are_projected_with_the_digits_of_the_time() -> None:
    """`timestamp_ns` comes along so that answers give back all digits."""
    made = plan(fields="message, x,message")

    assert made.fields == ("message", "x")
    assert made.scan.fields == ("timestamp", "timestamp_ns", "message", "x")


def test_a_stream_has_a_limit_only_if_asked() -> None:
    """And then no cap."""
    assert plan_rows([], NOW, stream=True).scan.limit == 0
    assert plan_rows([("limit", "5000000")], NOW, stream=True).scan.limit == 5_000_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"), ("limit", "10001"), ("limit", "x"), ("limit", "-5"), ("limit", "²"),
        ("order", "up"), ("from", "nope"), ("to", "x"), ("since", "x"), ("cursor", "abc"),
        ("regex", "(a"), ("regex", "(?=a)"), ("regex", "a" * 1001), ("regex", "((a{100}){100}){100}"),
        ("timeout", "x"), ("timeout", "0"), ("timeout", "301"), ("timeout", "nan"),
        ("timeout", "1e9"), ("consistency", "most"), ("q", "("), ("x" * 300, "1"),
        ("service", "a" * 40_000),
    ],
)  # fmt: skip
def test_errors_name_the_parameter(name: str, value: str) -> None:
    """Every bad value is refused with the name of what is wrong."""
    with pytest.raises(InvalidRequest) as caught:
        plan((name, value))

    assert str(caught.value.details["parameter"]).strip("'") in name


def test_contradictions_are_refused() -> None:
    """Two limits, since with from, from after to."""
    for pairs in (
        [("limit", "1"), ("limit", "2")],
        [("since", "1h"), ("from", "0")],
        [("from", "2"), ("to", "1")],
    ):
        with pytest.raises(InvalidRequest):
            plan(*pairs)


def test_a_cursor_binds_snapshot_place_and_times() -> None:
    """`since=1h` on the next page, a minute later, still means the first page's hour."""
    first = plan(since="1h", level="error")
    text = Cursor(first.question, 77, first.scan.time, RowKey(5, bytes(16), 3)).encode()

    pairs = [("since", "1h"), ("level", "error"), ("cursor", text), ("limit", "7")]
    second = plan_rows(pairs, NOW + 60_000_000)

    assert second.scan.time == first.scan.time
    assert second.scan.received_until == 77
    assert second.scan.after == RowKey(5, bytes(16), 3)


@pytest.mark.parametrize("other", [{"level": "warn"}, {"level": "error", "order": "asc"}, {}])
def test_a_cursor_of_other_parameters_is_refused(other: dict[str, str]) -> None:
    """Filters and order belong to the question; limit, fields and timeout do not."""
    first = plan(level="error")
    text = Cursor(first.question, 0, first.scan.time, RowKey(0, bytes(16), 0)).encode()

    plan(level="error", cursor=text, limit="3", fields="x", timeout="3", consistency="all")
    with pytest.raises(InvalidRequest, match="other parameters"):
        plan(cursor=text, **other)


@pytest.mark.parametrize(
    ("q", "services"),
    [
        ("service:a", ("a",)),
        ("service:a x", ("a",)),
        ("service:a OR service:b", ("a", "b")),
        ("service:in(a,b) service:c", ("c",)),
        ("service:a OR x", None),
        ("NOT service:a", None),
        ("x", None),
    ],
)
def test_services_that_must_hold_narrow_the_shards(q: str, services: tuple | None) -> None:
    """Only conditions that every matching row fulfils may leave shards out."""
    made = plan(q=q)

    assert services_of(made.scan.filter) == services
    assert made.scan.services == (services or ())


names = st.sampled_from(
    ["service", "level", "from", "to", "since", "search", "q", "limit", "order", "fields", "x", ""]
)


@settings(max_examples=150)
@given(st.lists(st.tuples(names, st.text(max_size=10)), max_size=5))
def test_any_parameters_give_a_plan_or_an_invalid_request(pairs: list[tuple[str, str]]) -> None:
    """Never another exception, and a plan always travels."""
    try:
        made = plan_rows(pairs, NOW)
    except InvalidRequest:
        return

    assert type(made.scan).from_dict(made.scan.to_dict()) == made.scan

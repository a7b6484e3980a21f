"""Plans, messages, quorums, times and columns: values that survive the wire and state their rules."""

import pyarrow as pa
import pytest

from records.columns import conform, united, united_schema
from records.consistency import QuorumPolicy
from records.envelope import packb, unpackb
from records.errors import (
    InvalidRequest,
    InvalidSettings,
    NotLeader,
    QuorumlogError,
    Unknown,
    error_from_dict,
)
from records.ids import EntryId, block_id, digest_id, ulid
from records.messages import (
    EntriesReply,
    EntryStatus,
    ProducerState,
    PutOptions,
    PutReply,
    ScanReply,
    ScanRequest,
)
from records.predicates import Aggregate, Fold, RowKey, ScanPlan, all_of, checked_filter, fields_of
from records.timestamps import MICROS_PER_HOUR, WIDE_HOUR, TimeRange, hours_touched
from records.visibility import EntryRef

PLAN = ScanPlan(
    tenant="t",
    time=TimeRange(5, 10),
    filter=("and", ("eq", "level", "error"), ("not", ("in", "a", ("1", "2")))),
    services=("pay",),
    fields=("message",),
    descending=False,
    limit=7,
    after=RowKey(6, b"\x01" * 16, 3),
    received_until=99,
    fold=Fold(("level",), (Aggregate("p", "quantile", "ms", 0.95),), 60_000_000),
)


def over_the_wire(head: dict) -> dict:
    """What a peer sees of a head."""
    return unpackb(packb(head))


def test_each_message_survives_the_wire() -> None:
    """Tuples become lists on the way and tuples again."""
    producer = ("t", "s", "p", 2)
    options = PutOptions(3, True, ((producer, 17),))
    reply = PutReply(
        (EntryStatus.STORED, EntryStatus.CONFLICT), (0, 2), ((), ((4, 5),)),
        (ProducerState(producer, ((1, 3),), 2, 2, ((3, 3),)),),
    )  # fmt: skip
    request = ScanRequest(
        PLAN, (1, 2), (3,), (EntryId(b"e" * 16),), ((EntryId(b"f" * 16), ((1, 2),)),),
        compared=TimeRange(3, 9), outline=7,
    )  # fmt: skip
    scan = ScanReply({4: (2, b"d" * 16)}, 9, 8, 7, 6, True, True, 3, 2)
    ref = EntryRef(EntryId(b"e" * 16), b"h" * 16, producer, ((1, 2),), b"")  # type: ignore[arg-type]
    listed = EntriesReply((ref,))

    assert PutOptions.from_head(over_the_wire(options.to_head())) == options
    assert PutReply.from_head(over_the_wire(reply.to_head())) == reply
    assert ScanRequest.from_head(over_the_wire(request.to_head())) == request
    assert ScanReply.from_head(over_the_wire(scan.to_head())) == scan
    assert EntriesReply.from_head(over_the_wire(listed.to_head())) == listed


def test_a_producers_state_is_read_by_and_of_nodes_that_know_no_watermark_of_it() -> None:
    """They send four values, and take no more; so does this one while nothing is gone."""
    state = ProducerState(("t", "s", "p", 2), ((1, 3),), 2, 2)

    assert state.to_list() == [("t", "s", "p", 2), ((1, 3),), 2, 2]
    assert ProducerState.from_list(over_the_wire({"state": state.to_list()})["state"]) == state


@pytest.mark.parametrize(
    "tree",
    [[], "eq", ["eq", "a"], ["nope"], ["and", []], ["not"], ["word", "a", "b"], None, [["eq"]]],
)
def test_a_malformed_filter_is_refused(tree: object) -> None:
    """A peer of another version must not make a replica evaluate nonsense."""
    with pytest.raises(InvalidRequest):
        checked_filter(tree)


def test_a_filter_of_too_many_parts_is_refused() -> None:
    """Bounded work before any row is read."""
    with pytest.raises(InvalidRequest, match="at most"):
        checked_filter(["and", *[["true"]] * 600])
    deep: list = ["true"]
    for _ in range(600):
        deep = ["not", deep]
    with pytest.raises(InvalidRequest, match="at most"):
        checked_filter(deep)


def test_fields_of_a_filter_are_the_columns_it_reads() -> None:
    """Projection push-down rests on it."""
    tree = all_of(("word", "x"), ("or", ("eq", "a", 1), ("range", "b", 1, None)))

    assert fields_of(tree) == {"message", "a", "b"}
    assert all_of() == ("true",)
    assert all_of(("true",), ("word", "x")) == ("word", "x")


@pytest.mark.parametrize(("n", "w", "r"), [(3, 1, 2), (3, 0, 3), (3, 4, 2), (0, 0, 0), (5, 2, 3)])
def test_a_quorum_that_could_miss_an_acked_write_is_refused(n: int, w: int, r: int) -> None:
    """w + r > n, and each within 1..n."""
    with pytest.raises(InvalidSettings):
        QuorumPolicy(n, w, r)


def test_a_request_can_raise_acks_but_never_lower_them() -> None:
    """`one` on a write still means W: an ack is a fact."""
    policy = QuorumPolicy(3, 2, 2)

    assert policy.acks_needed("one", 3) == 2
    assert policy.acks_needed("all", 3) == 3
    assert policy.answers_needed("one", 3) == 1
    with pytest.raises(InvalidRequest):
        policy.answers_needed("some", 3)


def test_an_entry_is_filed_under_each_hour_it_touches_or_under_the_wide_one() -> None:
    """An entry of a year must not cost 8,760 tree nodes."""
    assert hours_touched(0, 0) == (0,)
    assert hours_touched(MICROS_PER_HOUR - 1, MICROS_PER_HOUR) == (0, 1)
    assert hours_touched(-1, 0) == (-1, 0)
    assert hours_touched(0, 26 * MICROS_PER_HOUR) == (WIDE_HOUR,)


def test_columns_unite_by_name_and_widen_by_type() -> None:
    """int -> float -> text; absent is null; core columns come first."""
    left = pa.table({"zz": pa.array([1]), "message": ["a"]})
    right = pa.table({"zz": pa.array([1.5]), "aa": pa.array([True])})
    third = pa.table({"zz": pa.array(["x"]), "aa": pa.array([False])})

    both, all_three = united([left, right]), united([left, right, third])

    assert both.schema.names == ["message", "aa", "zz"]
    assert both["zz"].to_pylist() == [1.0, 1.5]
    assert all_three["zz"].to_pylist() == ["1", "1.5", "x"]
    assert both["aa"].to_pylist() == [None, True]
    assert conform(left, united_schema([left.schema])).num_rows == 1


def test_errors_survive_the_wire_and_unknown_codes_are_never_definite() -> None:
    """A peer of a newer version may know errors that we don't; we must not call them harmless."""
    sent = NotLeader("not mine", leader={"node": "n2"}, retry_after_seconds=0.5)
    back = error_from_dict(over_the_wire(sent.to_dict()))

    assert isinstance(back, NotLeader)
    assert back.details["leader"] == {"node": "n2"}
    assert back.retry_after_seconds == 0.5
    strange = error_from_dict({"code": "FROM_THE_FUTURE", "message": "?", "definite": True})
    assert isinstance(strange, Unknown)
    assert not strange.definite


def test_error_codes_are_unique() -> None:
    """A code on the wire names one class."""
    seen: dict[str, type] = {}
    stack = [QuorumlogError]
    while stack:
        kind = stack.pop()
        assert kind.code not in seen, (kind, seen.get(kind.code))
        seen[kind.code] = kind
        stack += [k for k in kind.__subclasses__() if k.__module__ == "records.errors"]


def test_ids_sort_by_time_and_print_as_ulids() -> None:
    """The ULID specification's example: 01ARYZ6S41TSV4RRFFQ69G5FAV is at 1469918176385 ms."""
    early, late = block_id(1, b"\xff" * 10), block_id(2, b"\x00" * 10)

    assert early < late
    assert ulid(block_id(1_469_918_176_385, bytes(10)))[:10] == "01ARYZ6S41"
    assert digest_id(b"ab", b"c") != digest_id(b"a", b"bc")

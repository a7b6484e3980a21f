"""apply: total, deterministic, compare-and-set, each request once."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.state import (
    CHECKPOINT_EVERY,
    COMMAND_BYTES_MAX,
    DEDUPE_RESULTS,
    STATE_BYTES_MAX,
    SUPPORTED_LEVEL,
    BinaryTooOld,
    ClusterState,
    Quorum,
    ShardLeader,
    apply,
    encode_command,
    from_bytes,
    to_bytes,
)
from cluster.state_ops import OPS
from records.envelope import packb
from records.errors import EnvelopeCorrupt
from ring.builder import RingBuilder, build_ring
from ring.ring import Ring, RingMember
from ring.serde import from_dict, to_dict


class Log:
    """Applies commands one after another under fresh request ids."""

    def __init__(self, state: ClusterState | None = None) -> None:
        self.state = state or ClusterState()
        self._numbers = itertools.count(1)

    def raw(self, command: bytes) -> list[Any]:
        self.state, result = apply(self.state, command, self.state.applied_index + 1)
        return result

    def do(self, op: str, *, rid: tuple[str, int, int] | None = None, **args: Any) -> list[Any]:
        rid = rid or ("p", 1, next(self._numbers))
        return self.raw(encode_command(op, args, rid, level=1))

    def ok(self, op: str, **args: Any) -> Any:
        result = self.do(op, **args)
        assert result[0] == "ok", result
        return result[1]

    def error(self, op: str, **args: Any) -> str:
        before = self.state
        result = self.do(op, **args)
        assert result[0] == "err", result
        same = ("members", "ring", "leaders", "schemas", "grants", "quorum", "watermarks")
        assert all(getattr(self.state, name) == getattr(before, name) for name in same)
        return result[1]

    def node(self, name: str, incarnation: int = 1, roles: tuple[str, ...] = ()) -> Any:
        roles = roles or ("ingestor", "storage")
        return self.ok("RegisterNode", id=name, roles=list(roles), incarnation=incarnation)


@pytest.fixture
def log() -> Log:
    made = Log()
    made.ok("SetQuorum", expected_cluster_epoch=0, n=3, w=2, r=2, cluster_id="c", shard_count=8)
    for name in ("a", "b", "c", "d"):
        made.node(name)
    return made


# -- totality ------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_any_bytes_are_an_error_value_and_change_nothing_but_the_history(data: bytes) -> None:
    """C1: an exception here would stop every manager for ever."""
    state, result = apply(ClusterState(), data, 5)

    assert result[0] == "err"
    assert state.applied_index == 5
    assert state.history != ClusterState().history


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=8)
    | st.binary(max_size=8) | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)  # fmt: skip
ARGUMENTS = ("id", "roles", "incarnation", "n", "w", "r", "map", "starts", "ends", "assignments",
             "expected_ring_epoch", "expected_cluster_epoch", "expected_version", "tenant",
             "service", "t", "name", "body", "level", "factor", "predicate", "proofs",
             "weight", "http", "cluster_id", "shard_count")  # fmt: skip


@given(st.sampled_from(sorted(OPS)), st.dictionaries(st.sampled_from(ARGUMENTS), VALUES))
@settings(max_examples=300)
def test_any_arguments_give_a_value_that_can_be_dumped(op: str, args: dict[str, Any]) -> None:
    """Poison arguments of every operation: an answer, and a state that survives its own dump."""
    made = Log()
    made.ok("SetQuorum", expected_cluster_epoch=0, n=3, w=2, r=2, shard_count=8)
    made.node("a")
    command = encode_command(op, args, ("p", 1, 99), level=1)

    result = made.raw(command)

    assert result[0] in ("ok", "err")
    assert to_bytes(from_bytes(to_bytes(made.state))) == to_bytes(made.state)


@pytest.mark.parametrize(
    "command",
    [
        {"lv": 1, "op": "Noop", "rid": ["p", 1], "args": {}},
        {"lv": 1, "op": "Noop", "rid": ["", 1, 1], "args": {}},
        {"lv": 1, "op": "Noop", "rid": ["p", -1, 1], "args": {}},
        {"lv": 1, "op": "Noop", "rid": ["p", 1, True], "args": {}},
        {"lv": "1", "op": "Noop", "rid": ["p", 1, 1], "args": {}},
        {"lv": 1, "op": None, "rid": ["p", 1, 1], "args": {}},
        {"lv": 1, "op": "Noop", "rid": ["p", 1, 1], "args": []},
        ["Noop"],
        {(1, 2): 3},
    ],
)
def test_a_command_of_a_wrong_shape_is_malformed(command: Any) -> None:
    """Each part is checked before it is used."""
    assert Log().raw(packb(command))[:2] == ["err", "MALFORMED"]


def test_a_command_over_32_kib_is_refused() -> None:
    """The bound holds in apply, not only at the proposer."""
    made = Log()

    result = made.do("PutSchema", name="s", expected_version=0, body="x" * COMMAND_BYTES_MAX)

    assert result[:2] == ["err", "TOO_LARGE"]


def test_a_full_state_refuses_what_would_make_it_larger(log: Log) -> None:
    """4 MiB; other commands still work."""
    body = "x" * (COMMAND_BYTES_MAX - 200)
    results = [
        log.do("PutSchema", name=f"s{n}", expected_version=0, body=body)
        for n in range(STATE_BYTES_MAX // len(body) + 3)
    ]

    assert results[-1][:2] == ["err", "STATE_FULL"]
    assert len(to_bytes(log.state, full=False)) <= STATE_BYTES_MAX
    assert log.ok("Assign", assignments=[[0, "a", 0]])


# -- versions --------------------------------------------------------------------------------------


def test_an_operation_above_the_feature_level_is_an_error_value() -> None:
    """T10: a newer proposer meets a cluster that has not agreed on its level yet."""
    command = encode_command("Noop", {}, ("p", 1, 1), level=2)

    assert apply(ClusterState(), command, 2)[1][:2] == ["err", "FEATURE_LEVEL"]


def test_an_unknown_operation_at_an_agreed_level_means_this_binary_is_too_old() -> None:
    """The others know it and applied it: going on would make the states differ."""
    command = encode_command("FromTheFuture", {}, ("p", 1, 1), level=1)

    with pytest.raises(BinaryTooOld):
        apply(ClusterState(), command, 2)


def test_a_known_operation_at_a_level_that_this_binary_lacks_means_it_is_too_old() -> None:
    """It may mean another thing since then: applied the old way, this node's state alone would differ."""
    level = SUPPORTED_LEVEL + 1
    agreed = replace(ClusterState(), feature_level=level)
    command = encode_command("Noop", {}, ("p", 1, 1), level=level)

    with pytest.raises(BinaryTooOld):
        apply(agreed, command, 2)


def test_the_feature_level_only_rises(log: Log) -> None:
    """SetFeatureLevel."""
    assert log.ok("SetFeatureLevel", level=3) == 3
    assert log.error("SetFeatureLevel", level=2) == "MISMATCH"


# -- request ids -----------------------------------------------------------------------------------


def test_the_same_request_again_is_applied_once_and_answered_the_same(log: Log) -> None:
    """T7: a retry of a proposal whose outcome was unknown."""
    first = log.do("PutSchema", rid=("q", 1, 7), name="s", expected_version=0, body="x")
    again = log.do("PutSchema", rid=("q", 1, 7), name="s", expected_version=0, body="x")

    assert first == again == ["ok", 1]
    assert log.state.schemas["s"].version == 1


def test_refusals_are_remembered_as_well(log: Log) -> None:
    """The answer to a request never changes, even when the state would now allow it."""
    refused = log.do("PutSchema", rid=("q", 1, 7), name="s", expected_version=1, body="x")
    log.ok("PutSchema", name="s", expected_version=0, body="x")
    again = log.do("PutSchema", rid=("q", 1, 7), name="s", expected_version=1, body="x")

    assert refused[:2] == ["err", "MISMATCH"]
    assert again == refused


def test_requests_below_the_floor_are_refused_not_applied(log: Log) -> None:
    """Only the last 1,024 results are kept; an older id could be a repeat."""
    for counter in range(1, DEDUPE_RESULTS + 3):
        log.do("Noop", rid=("q", 1, counter))

    result = log.do("PutSchema", rid=("q", 1, 2), name="s", expected_version=0, body="x")
    newest = log.do("Noop", rid=("q", 1, 3))

    assert result[:2] == ["err", "STALE_REQUEST"]
    assert newest == ["ok", None]
    assert len(log.state.dedupe["q"].results) == DEDUPE_RESULTS


def test_a_new_incarnation_starts_its_own_row_and_ends_the_older(log: Log) -> None:
    """A command of a dead process that arrives late could have been applied before: refused."""
    log.do("Noop", rid=("q", 1, 1))
    log.do("Noop", rid=("q", 2, 1))

    late = log.do("PutSchema", rid=("q", 1, 2), name="s", expected_version=0, body="x")

    assert late[:2] == ["err", "STALE_REQUEST"]
    assert set(log.state.dedupe["q"].results) == {1}


def test_a_long_result_is_remembered_without_its_value(log: Log) -> None:
    """So that the dump stays bounded; the first answer was whole."""
    wide = Log()
    wide.ok("SetQuorum", expected_cluster_epoch=0, n=1, w=1, r=1, shard_count=1024)
    wide.node("a")
    rows = [[shard, "a", 0] for shard in range(1024)]

    first = wide.do("Assign", rid=("q", 1, 1), assignments=rows)
    again = wide.do("Assign", rid=("q", 1, 1), assignments=rows)

    assert len(first[1]["assigned"]) == 1024
    assert again == ["ok", None]


# -- operations ------------------------------------------------------------------------------------


def test_quorum_settings_overlap_and_are_compare_and_set(log: Log) -> None:
    """R + W > N; the cluster's name and its number of shards are fixed by the first one."""
    assert log.error("SetQuorum", expected_cluster_epoch=0, n=3, w=2, r=2) == "MISMATCH"
    assert log.error("SetQuorum", expected_cluster_epoch=1, n=3, w=1, r=2) == "INVALID"
    shards = {"shard_count": 16}
    assert log.error("SetQuorum", expected_cluster_epoch=1, n=3, w=2, r=2, **shards) == "INVALID"
    assert log.ok("SetQuorum", expected_cluster_epoch=1, n=5, w=3, r=3) == 2
    assert (log.state.quorum, log.state.shard_count) == (Quorum(5, 3, 3), 8)


def test_an_incarnation_must_rise(log: Log) -> None:
    """The same registration again is no change; another under the same number is refused."""
    before = log.state.members

    assert log.node("a", 1) == 1
    assert log.state.members == before
    assert log.error("RegisterNode", id="a", roles=["storage"], incarnation=1) == (
        "STALE_INCARNATION"
    )
    assert log.node("a", 2) == 2


def test_a_node_is_retired_only_when_nothing_depends_on_it(log: Log) -> None:
    """Its shards must have moved, and the ring must not name it; it never comes back as it was."""
    log.ok("Assign", assignments=[[0, "a", 0]])
    assert log.error("RetireNode", id="a", incarnation=1) == "IN_USE"
    log.ok("Assign", assignments=[[0, "b", 1]])
    log.ok("SetRing", expected_ring_epoch=0, map=ring("a", "b", "c"), stage="new")
    assert log.error("RetireNode", id="a", incarnation=1) == "IN_USE"
    assert log.error("RetireNode", id="d", incarnation=2) == "MISMATCH"

    assert log.ok("RetireNode", id="d", incarnation=1) == 1

    assert "d" not in log.state.members
    assert log.error("RegisterNode", id="d", roles=["storage"], incarnation=1) == (
        "STALE_INCARNATION"
    )


def ring(*names: str) -> dict[str, Any]:
    members = [RingMember(name, "", 1.0) for name in names]  # pyright: ignore[reportArgumentType]
    return to_dict(build_ring(members, n=3, shard_count=8))


def test_a_ring_is_checked_before_it_is_everybodys(log: Log) -> None:
    """Shape, epoch, number of shards, members; then compare-and-set."""
    good = ring("a", "b", "c")
    bad = [
        None,
        {},
        {**good, "owners": good["owners"][:-1]},
        {**good, "epoch": 2},
        {**good, "owners": [[9, 9, 9]] * 8},
    ]
    for value in bad:
        assert log.error("SetRing", expected_ring_epoch=0, map=value) == "INVALID"
    assert log.error("SetRing", expected_ring_epoch=0, map=ring("a", "b", "x")) == "UNKNOWN_NODE"
    assert log.error("SetRing", expected_ring_epoch=1, map=good) == "MISMATCH"

    assert log.ok("SetRing", expected_ring_epoch=0, map=good, stage="new") == 1
    assert (log.state.ring, log.state.ring_epoch) == (good, 1)


def test_one_replica_of_a_shard_moves_at_a_time(log: Log) -> None:
    """A second move of a moving shard is refused, and so are two new owners at once."""
    first = from_dict(ring("a", "b", "c"))
    log.ok("SetRing", expected_ring_epoch=0, map=to_dict(first))
    grown = RingBuilder(first).add(RingMember("d", "", 1.0)).build()  # pyright: ignore[reportArgumentType]
    moved = [s for s in range(8) if set(grown.table[s]) != set(first.table[s])]

    assert log.ok("SetRing", expected_ring_epoch=1, map=to_dict(grown), starts=moved) == 2
    assert log.state.moves == frozenset(moved)
    back = Ring(first.epoch + 2, 3, grown.members, first.table)  # pyright: ignore[reportArgumentType]
    refused = log.error("SetRing", expected_ring_epoch=2, map=to_dict(back))
    again = log.error("SetRing", expected_ring_epoch=2, map=to_dict(back), starts=moved[:1])
    kept = Ring(back.epoch, 3, grown.members, grown.table)
    assert log.ok("SetRing", expected_ring_epoch=2, map=to_dict(kept), ends=moved) == 3

    assert refused == again == "MOVE_RUNNING"
    assert log.state.moves == frozenset()


def test_two_new_owners_of_a_shard_at_once_are_refused() -> None:
    """Copying from a quorum of old owners needs a majority of the old set to stay."""
    made = Log()
    made.ok("SetQuorum", expected_cluster_epoch=0, n=3, w=2, r=2, shard_count=8)
    for name in "abcdef":
        made.node(name)
    made.ok("SetRing", expected_ring_epoch=0, map=ring("a", "b", "c"))
    other = {**ring("d", "e", "f"), "epoch": 2}

    assert made.error("SetRing", expected_ring_epoch=1, map=other) == "INVALID"


def test_each_assignment_raises_the_shards_epoch(log: Log) -> None:
    """Compare-and-set per shard, with the incarnation that the shard was given to."""
    log.node("b", 5)
    value = log.ok("Assign", assignments=[[0, "a", 0], [1, "b", 0], [2, "x", 0], [0, "b", 0]])

    assert value == {
        "assigned": [[0, 1], [1, 1]],
        "refused": [[2, "UNKNOWN_NODE"], [0, "MISMATCH"]],
    }
    assert log.state.leaders == {0: ShardLeader("a", 1, 1), 1: ShardLeader("b", 1, 5)}
    assert log.error("Assign", assignments=[[0, "b", 0]]) == "MISMATCH"
    assert log.ok("Assign", assignments=[[0, "b", 1]])["assigned"] == [[0, 2]]
    assert log.error("Assign", assignments=[[8, "a", 0]]) == "INVALID"
    assert log.error("Assign", assignments=[]) == "INVALID"


def test_only_ingestors_lead(log: Log) -> None:
    """A storage node is no candidate."""
    log.node("s", roles=("storage",))

    assert log.error("Assign", assignments=[[0, "s", 0]]) == "UNKNOWN_NODE"


def test_a_watermark_never_goes_back(log: Log) -> None:
    """Merged by max: order and repetition do not matter."""
    marks = [log.ok("SetWatermark", tenant="t", service="s", t=t) for t in (5, 9, 7)]

    assert marks == [5, 9, 9]
    assert log.state.watermarks == {("t", "s"): 9}


def test_a_delete_is_forgotten_only_with_every_owners_proof(log: Log) -> None:
    """Absence is never evidence: all storage members must have said so."""
    log.ok("AddDelete", id="d1", predicate="level = debug")
    log.ok("AddDelete", id="d1", predicate="level = debug")

    assert log.error("AddDelete", id="d1", predicate="other") == "MISMATCH"
    assert log.error("DropDelete", id="d1", proofs=["a", "b", "c"]) == "MISMATCH"
    log.ok("DropDelete", id="d1", proofs=["a", "b", "c", "d"])
    assert log.state.deletes == {}


def test_documents_are_versioned_and_grants_can_be_taken_away(log: Log) -> None:
    """PutSchema, PutGrant, DropGrant."""
    assert log.ok("PutGrant", id="g", expected_version=0, body={"hash": "x"}) == 1
    assert log.error("PutGrant", id="g", expected_version=0, body={"hash": "y"}) == "MISMATCH"
    assert log.ok("PutGrant", id="g", expected_version=1, body={"hash": "y"}) == 2
    log.ok("DropGrant", id="g")
    log.ok("DropGrant", id="g")
    assert log.state.grants == {}


# -- bytes and history -----------------------------------------------------------------------------


def test_the_same_commands_give_the_same_bytes_after_a_dump_in_between(log: Log) -> None:
    """A node that restarted from a dump and one that did not are equal, byte for byte."""
    log.ok("SetRing", expected_ring_epoch=0, map=ring("a", "b", "c"))
    other = Log(from_bytes(to_bytes(log.state)))
    other._numbers = itertools.count(1000)
    log._numbers = itertools.count(1000)

    for made in (log, other):
        made.ok("Assign", assignments=[[3, "a", 0]])
        made.ok("SetWatermark", tenant="t", service="s", t=5)
        made.do("PutSchema", name="s", expected_version=0, body={"a": 1})

    assert to_bytes(log.state) == to_bytes(other.state)


def test_the_history_tells_order_index_and_content_apart() -> None:
    """I10: equal histories mean the same commands at the same places."""
    one, two = (encode_command("Noop", {}, ("p", 1, n), level=1) for n in (1, 2))

    def history(*steps: tuple[bytes, int]) -> bytes:
        state = ClusterState()
        for command, index in steps:
            state, _ = apply(state, command, index)
        return state.history

    assert len({
        history((one, 2), (two, 3)),
        history((two, 2), (one, 3)),
        history((one, 2), (two, 4)),
        history((one, 2)),
    }) == 4  # fmt: skip


def test_a_checkpoint_is_the_same_whichever_entry_passes_the_mark() -> None:
    """Index 1,000 may be a no-op that never reaches apply; the digest covers what came before."""
    one, two = (encode_command("Noop", {}, ("p", 1, n), level=1) for n in (1, 2))
    state, _ = apply(ClusterState(), one, CHECKPOINT_EVERY - 1)
    at_mark, _ = apply(state, two, CHECKPOINT_EVERY)
    past_mark, _ = apply(state, two, CHECKPOINT_EVERY + 1)

    assert at_mark.checkpoint == past_mark.checkpoint == (1, state.history)


def test_followers_get_the_state_without_the_proposers_rows(log: Log) -> None:
    """full=False."""
    small = from_bytes(to_bytes(log.state, full=False))

    assert small.dedupe == {}
    assert small.members == log.state.members


@pytest.mark.parametrize(
    "data", [b"", b"\x80", packb({"format": 9}), packb({"format": 1}), b"\xff"]
)
def test_other_bytes_are_no_state(data: bytes) -> None:
    """from_bytes refuses; it never gives an empty state."""
    with pytest.raises(EnvelopeCorrupt):
        from_bytes(data)

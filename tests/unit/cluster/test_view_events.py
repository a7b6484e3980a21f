"""The view of a snapshot, and the events between two."""

from collections.abc import Iterator
from dataclasses import replace

from cluster.events import EventLog, differences
from cluster.state_types import ClusterState, Member, Quorum, ShardLeader
from cluster.view import ClusterView, ConsensusViews
from ring.builder import RingBuilder
from ring.ring import Ring, RingMember
from ring.serde import to_dict


def a_ring(*nodes: str) -> dict:
    """A first ring of equal nodes, in plain values."""
    builder = RingBuilder(Ring.empty(n=3))
    for node in nodes:
        builder.add(RingMember(node))
    return to_dict(builder.build())


def a_state() -> ClusterState:
    """Three storage nodes, shard 0 led by n1."""
    members = {
        f"n{i}": Member(f"n{i}", ("ingestor", "storage"), 1, http=f"h{i}") for i in (1, 2, 3)
    }
    return ClusterState(
        applied_index=9,
        members=members,
        ring=a_ring("n1", "n2", "n3"),
        ring_epoch=1,
        quorum=Quorum(3, 2, 2),
        leaders={0: ShardLeader("n1", 4)},
    )


def test_a_view_answers_from_one_snapshot() -> None:
    """Ring, leaders, members and quorum belong together."""
    view = ClusterView("n1", a_state(), alive=lambda node: node != "n3")

    assert view.ready
    assert sorted(view.owners(0)) == ["n1", "n2", "n3"]
    assert view.leader(0) == ("n1", 4)
    assert view.leader(1) is None
    assert view.storage_nodes() == ("n1", "n2", "n3")
    assert (view.quorum.n, view.quorum.w, view.quorum.r) == (3, 2, 2)
    assert view.is_alive("n1")
    assert view.is_alive("n2")
    assert not view.is_alive("n3")
    home = view.shard_of("default", "pay", "", 1)
    assert view.shards_of_services("default", ["pay"]) == [home]
    assert view.shards_holding("default", "pay") == (home,)


def test_without_a_ring_nothing_has_a_place() -> None:
    """A young cluster is not ready, and says so instead of guessing."""
    view = ClusterView("n1", ClusterState(), alive=lambda _: True)

    assert not view.ready
    assert view.owners(0) == ()


def test_events_tell_what_changed_and_nothing_else() -> None:
    """Joins, restarts, ring, quorum and leaders; equal states give none."""
    old = a_state()
    members = {**old.members, "n2": replace(old.members["n2"], incarnation=2)}
    del members["n3"]
    new = replace(
        old,
        members=members,
        ring_epoch=2,
        quorum=Quorum(3, 3, 1),
        leaders={0: ShardLeader("n2", 5), 1: ShardLeader("n2", 1)},
    )

    assert list(differences(old, old)) == []
    assert list(differences(old, new)) == [
        {"event": "node restarted", "node": "n2", "incarnation": 2},
        {"event": "node retired", "node": "n3"},
        {"event": "ring changed", "ring_epoch": 2},
        {"event": "quorum changed", "quorum": [3, 3, 1]},
        {"event": "shards led", "node": "n2", "shards": [0, 1]},
    ]


def test_the_event_log_is_bounded() -> None:
    """A flapping node must not fill the memory."""
    log = EventLog()
    state = a_state()
    log.observe(state, 0)
    for turn in range(3000):
        state = replace(state, ring_epoch=turn + 2)
        log.observe(state, turn)

    assert len(log.listed()) == 1000
    assert log.listed()[-1]["ring_epoch"] == 3001


def test_a_view_knows_where_something_was_hidden_last() -> None:
    """What reads name: an index that has all watermarks and deletes known here, and rises with them only."""
    states = [
        ClusterState(applied_index=1),
        ClusterState(applied_index=2, watermarks={("t", ""): 5}),
        ClusterState(applied_index=3, watermarks={("t", ""): 5}),
        ClusterState(applied_index=4, watermarks={("t", ""): 5}, deletes={"d": {}}),
        ClusterState(applied_index=5, watermarks={("t", ""): 5}),
    ]
    now = iter(states)
    views = ConsensusViews("n1", Fixed(now), alive=lambda _: True)  # type: ignore[arg-type]

    assert [views.current().hidden_index for _ in states] == [0, 2, 2, 4, 5]


class Fixed:
    """A consensus whose state is the next one each time."""

    def __init__(self, states: Iterator[ClusterState]) -> None:
        self._states = states

    def snapshot(self) -> ClusterState:
        return next(self._states)

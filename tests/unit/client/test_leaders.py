"""Whom to ask: hints by epoch, the dead avoided, members discovered."""

from __future__ import annotations

import pytest

from quorumlog import LeaderHint
from quorumlog.leaders import DOWN_SECONDS, Leaders, hint_from, normalise

A, B, C = "http://a:1", "http://b:1", "http://c:1"


def _hint(http: str, shard_epoch: int, *, shard: int = 1, ring_epoch: int = 1) -> LeaderHint:
    return LeaderHint("n", http, shard, shard_epoch, ring_epoch)


def test_the_newest_hint_is_followed() -> None:
    """A lower shard epoch is an older assignment; it does not move us back."""
    leaders = Leaders([A, B, C])

    assert leaders.target(0).want_hint
    assert leaders.on_hint(A, _hint("b:1", 5))
    assert leaders.target(0).url == B
    assert not leaders.on_hint(B, _hint(A, 4))
    assert leaders.on_hint(B, _hint(C, 6))
    assert leaders.target(0).url == C


def test_a_new_ring_may_move_the_service_to_another_shard() -> None:
    """Shard epochs of different shards don't compare: the ring epoch decides."""
    leaders = Leaders([A, B])
    leaders.on_hint(A, _hint(B, 50, shard=1, ring_epoch=1))

    assert leaders.on_hint(B, _hint(A, 2, shard=7, ring_epoch=2))
    assert leaders.target(0).url == A
    assert not leaders.on_hint(A, _hint(B, 51, shard=1, ring_epoch=1))


def test_a_dead_leader_is_avoided_and_others_pass_the_request_on() -> None:
    """The same hint again must not lead us back before the pause is over."""
    leaders = Leaders([A, B, C])
    leaders.on_hint(A, _hint(B, 5))
    leaders.on_failure(B, now=10)

    target = leaders.target(10.5)
    assert target.url != B
    assert not target.want_hint
    leaders.on_hint(target.url, _hint(B, 5))
    assert leaders.target(10.5).url != B
    assert leaders.target(10 + DOWN_SECONDS).url == B


def test_all_down_means_all_are_tried_in_turn() -> None:
    """A client whose network was away must not stop trying."""
    leaders = Leaders([A, B])
    for url in (A, B):
        leaders.on_failure(url, now=0)

    tried = set()
    for _ in range(2):
        url = leaders.target(0.1).url
        tried.add(url)
        leaders.on_failure(url, 0.1)
    assert tried == {A, B}


def test_a_leader_that_names_itself_but_refuses_is_left() -> None:
    """A node with a stale view of itself must not hold us."""
    leaders = Leaders([A, B])

    assert not leaders.on_hint(A, _hint(A, 5))
    assert leaders.target(0).url == B


def test_no_leader_yet_asks_the_next_one() -> None:
    """During an election nobody is named."""
    leaders = Leaders([A, B])

    assert not leaders.on_hint(A, None)
    assert leaders.target(0).url == B


def test_members_are_ingestors_with_an_address() -> None:
    """Given servers stay known, in case all members are gone."""
    leaders = Leaders([A])
    leaders.on_nodes(
        {
            "nodes": [
                {"id": "1", "roles": ["ingestor"], "http": "b:1"},
                {"id": "2", "roles": ["storage"], "http": "c:1"},
                {"id": "3", "http": "http://d:1/"},
                {"id": "4", "roles": ["ingestor"]},
                "nonsense",
            ]
        }
    )

    assert leaders.known == [B, "http://d:1", A]
    leaders.on_nodes({"nodes": []})
    leaders.on_nodes({})
    assert leaders.known == [B, "http://d:1", A]


def test_addresses_and_hints_from_outside() -> None:
    """Anything may come over the wire."""
    assert normalise(" h:1/ ") == "http://h:1"
    assert normalise("https://h:1") == "https://h:1"
    assert hint_from(None) is None
    assert hint_from({"node": "x"}) is None
    assert hint_from({"http": "h:1", "shard_epoch": "x"}) == LeaderHint("", "h:1", 0, 0, 0)
    with pytest.raises(ValueError, match="server"):
        Leaders([])

"""Keys to shards: fixed for a cluster's life, even, and gentle when a service is split."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.shards import (
    MAX_SHARD_COUNT,
    arc_of,
    shard_of,
    shard_of_token,
    shards_of_service,
    shards_of_services,
)
from ring.tokens import RING_SIZE

COUNTS = st.integers(1, MAX_SHARD_COUNT)
NAMES = st.text(max_size=12)


@given(COUNTS, st.integers(0, RING_SIZE - 1))
def test_a_token_lies_in_the_arc_of_its_shard(count: int, token: int) -> None:
    """The arithmetic and the arcs are two descriptions of one map, for any shard count."""
    shard = shard_of_token(token, count)

    assert 0 <= shard < count
    assert token in arc_of(shard, count)


@given(COUNTS)
@settings(max_examples=20)
def test_arcs_are_equal_and_follow_one_another(count: int) -> None:
    """Each arc ends where the next begins, and widths differ by at most one token."""
    arcs = [arc_of(shard, count) for shard in range(count)]

    assert [arc.end for arc in arcs] == [arc.start for arc in arcs[1:]] + [arcs[0].start]
    assert arcs[0].start == 0
    assert sum(arc.width for arc in arcs) == RING_SIZE
    assert max(arc.width for arc in arcs) - min(arc.width for arc in arcs) <= 1


@pytest.mark.parametrize("shard", [-1, 32])
def test_arc_of_a_shard_that_is_not_there_is_refused(shard: int) -> None:
    """Negative shards are not counted from the end."""
    with pytest.raises(ValueError, match=r"shard must be in 0\.\.31"):
        arc_of(shard, 32)


# From the slow model of MurmurHash3 in test_hashing: (first word of the key's hash * count) >> 64.
GOLDEN = [
    ("default", "checkout", 3, 0),
    ("default", "payment-api", 29, 6),
    ("default", "café", 8, 1),
    ("acme", "checkout", 12, 2),
    ("", "", 5, 1),
    ("default", "nginx", 13, 2),
]


@pytest.mark.parametrize(("tenant", "service", "of_32", "of_7"), GOLDEN)
def test_shards_of_known_services_never_change(
    tenant: str, service: str, of_32: int, of_7: int
) -> None:
    """Golden values: a change here makes stored rows unreachable."""
    assert shard_of(tenant, service) == of_32
    assert shard_of(tenant, service, shard_count=7) == of_7


@given(NAMES, st.lists(NAMES, max_size=8), COUNTS)
def test_column_of_services_gets_the_shards_of_each(
    tenant: str, services: list[str], count: int
) -> None:
    """The fast path for a dictionary column equals the single call, in order, with repeats."""
    assert shards_of_services(tenant, services, count) == [
        shard_of(tenant, service, shard_count=count) for service in services
    ]


def test_services_spread_evenly_over_the_shards() -> None:
    """3,200 services on 32 shards: each within 5 standard deviations of its 100 (a binomial)."""
    counts = Counter(shards_of_services("default", [f"service-{i}" for i in range(3200)], 32))

    assert len(counts) == 32
    assert all(abs(count - 100) < 5 * 9.85 for count in counts.values())


@given(NAMES, NAMES, NAMES)
def test_unsplit_service_lives_on_its_home_whatever_the_producer(
    tenant: str, service: str, producer: str
) -> None:
    """At split factor 1 the producer counts for nothing."""
    assert shard_of(tenant, service, 1, producer) == shard_of(tenant, service)


@given(NAMES, NAMES, NAMES, st.integers(1, 32))
def test_split_service_is_found_on_the_shards_a_read_asks(
    tenant: str, service: str, producer: str, split: int
) -> None:
    """Whoever writes under factor k writes to one of the k distinct shards that a reader asks."""
    shards = shards_of_service(tenant, service, split)

    assert len(set(shards)) == split
    assert shards[0] == shard_of(tenant, service)
    assert shard_of(tenant, service, split, producer) in shards


def test_split_spreads_producers_and_raising_it_moves_few() -> None:
    """600 producers over 3 shards: a third each. To 4: only a quarter moves, all to the new shard.

    Bounds are 5 standard deviations of the binomials (600, 1/3) and (600, 1/4).
    """
    producers = [f"pod-{i}" for i in range(600)]
    three = [shard_of("t", "hot", 3, producer) for producer in producers]
    four = [shard_of("t", "hot", 4, producer) for producer in producers]

    moved = [new for old, new in zip(three, four, strict=True) if old != new]

    assert all(abs(count - 200) < 5 * 11.6 for count in Counter(three).values())
    assert len(set(three)) == 3
    assert abs(len(moved) - 150) < 5 * 10.7
    assert set(moved) == {shards_of_service("t", "hot", 4)[3]}


@pytest.mark.parametrize("split", [0, -1, 33])
def test_split_out_of_bounds_is_refused(split: int) -> None:
    """There is no split over no shards, nor over more than there are."""
    with pytest.raises(ValueError, match=r"split factor must be in 1\.\.32"):
        shard_of("t", "s", split)
    with pytest.raises(ValueError, match=r"split factor must be in 1\.\.32"):
        shards_of_service("t", "s", split)

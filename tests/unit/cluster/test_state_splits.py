"""SplitService: generations are appended, never changed; and what dumps say of them."""

import pytest

from cluster.state import ClusterState, from_bytes, to_bytes
from records.envelope import packb, unpackb
from ring.generations import MAX_GENERATIONS, UNSPLIT, Generation
from ring.serde import from_dict
from tests.unit.cluster.test_state import Log, ring

KEY = {"tenant": "t", "service": "s"}


@pytest.fixture
def log() -> Log:
    """Three storage nodes, eight shards, a ring."""
    made = Log()
    made.ok("SetQuorum", expected_cluster_epoch=0, n=3, w=2, r=2, cluster_id="c", shard_count=8)
    for name in ("a", "b", "c"):
        made.node(name)
    made.ok("SetRing", expected_ring_epoch=0, map=ring("a", "b", "c"))
    return made


def test_each_split_appends_a_generation_and_raises_the_ring_epoch(log: Log) -> None:
    """Generation 0 is there from the start, with factor 1; the ring is the same but for its epoch."""
    before = from_dict(log.state.ring)
    assert log.ok("SplitService", factor=2, at=50, expected_generation=0, **KEY) == 1
    assert log.ok("SplitService", factor=8, at=60, expected_generation=1, **KEY) == 2

    expected = (Generation(1, 0), Generation(2, 50), Generation(8, 60))
    assert log.state.splits == {("t", "s"): expected}
    after = from_dict(log.state.ring)
    assert (log.state.ring_epoch, after.epoch) == (before.epoch + 2, before.epoch + 2)
    assert after.table == before.table


def test_what_a_split_may_not_be(log: Log) -> None:
    """Fewer or as many shards as now, more than there are, on an older state."""
    log.ok("SplitService", factor=4, at=1, expected_generation=0, **KEY)
    epoch = log.state.ring_epoch

    for factor in (1, 4, 3, 9):
        code = log.error("SplitService", factor=factor, at=1, expected_generation=1, **KEY)
        assert code == "INVALID"
    assert log.error("SplitService", factor=8, at=1, expected_generation=0, **KEY) == "MISMATCH"
    assert log.state.ring_epoch == epoch


def test_a_change_of_the_ring_goes_on_over_a_split(log: Log) -> None:
    """Its next step is proposed anew under the epoch that the split raised."""
    log.node("d")
    number = log.ok(
        "BeginChange", expected_ring_epoch=1, map=ring("a", "b", "d"), reason="", parallel=4,
        bytes_per_second=0,
    )  # fmt: skip
    log.ok("SplitService", factor=2, at=50, expected_generation=0, **KEY)

    step = {"id": number, "start": [[0, "c", "d"]]}
    assert log.error("StepChange", expected_ring_epoch=2, **step) == "MISMATCH"
    log.ok("StepChange", expected_ring_epoch=3, **step)
    assert log.state.moving.keys() == {0}


def test_splits_begin_in_the_order_of_the_log_whatever_clocks_say(log: Log) -> None:
    """Two services, the second proposed by a clock that is behind."""
    log.ok("SplitService", factor=2, at=500, expected_generation=0, **KEY)
    log.ok("SplitService", factor=2, at=9, expected_generation=0, tenant="t", service="other")

    assert log.state.splits["t", "other"][-1].at_micros == 501


def test_generations_are_bounded() -> None:
    """Each has a million epochs, and their numbers have to stay exact in JSON."""
    made = Log()
    made.ok("SetQuorum", expected_cluster_epoch=0, n=1, w=1, r=1, cluster_id="c", shard_count=128)
    for number in range(1, MAX_GENERATIONS):
        made.ok("SplitService", factor=number + 1, at=1, expected_generation=number - 1, **KEY)

    args = {"factor": 128, "at": 1, "expected_generation": MAX_GENERATIONS - 1}
    assert made.error("SplitService", **args, **KEY) == "FULL"


def test_a_dump_has_the_generations_and_one_of_the_first_version_is_read(log: Log) -> None:
    """The first version had a factor alone, which began no one knows when."""
    log.ok("SplitService", factor=2, at=50, expected_generation=0, **KEY)
    data = to_bytes(log.state)

    assert from_bytes(data).splits == log.state.splits
    assert to_bytes(from_bytes(data)) == data
    older = packb({**unpackb(to_bytes(ClusterState())), "splits": [["t", "s", 4]]})
    assert from_bytes(older).splits == {("t", "s"): (*UNSPLIT, Generation(4, 0))}

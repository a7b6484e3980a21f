"""What a repeat may do, and no more: rows that are there twice are excused only where the docs say so."""

from types import SimpleNamespace
from typing import Any

from chaos.history import APPEND, OK, UNKNOWN, Op
from chaos.sim.producers import Producers
from chaos.sim.repeats import twice_by_split

SPLIT_AT, SPLIT_INDEX = 100, 7


def op(number: int, begin: int, end: int, outcome: str = OK, client: str = "agent0") -> Op:
    """An append of the rows 1..3."""
    return Op(number, client, APPEND, "a", begin, end, outcome, ((1, 3),))


def traffic(*ops: tuple[Op, int]) -> Any:
    """A run with these appends, each with the index that its node knew, and one split."""
    return SimpleNamespace(
        ops=[one for one, _ in ops],
        known=[index for _, index in ops],
        numbered=["p0"],
        services={"agent0": "shop"},
        splits=lambda _: [(SPLIT_AT, SPLIT_INDEX)],
    )


def test_a_request_without_an_answer_at_the_split_may_be_there_twice() -> None:
    """Sent before it, lost, and sent again after it."""
    ops = ((op(0, 90, 95, UNKNOWN), 6), (op(1, 120, 130), 7))

    assert twice_by_split(traffic(*ops), "agent0:2")


def test_a_request_through_a_node_that_had_not_heard_may_be_there_twice() -> None:
    """After the split, through two nodes."""
    assert twice_by_split(traffic((op(0, 120, 130), 7), (op(1, 121, 131), 6)), "agent0:2")


def test_a_request_that_was_acknowledged_before_the_split_is_there_once() -> None:
    """It is looked up under its older name. So is one that was never sent before, or only before."""
    repeated = ((op(0, 80, 95), 6), (op(1, 120, 130), 7))
    assert not twice_by_split(traffic(*repeated), "agent0:2")
    assert not twice_by_split(traffic((op(0, 120, 130), 7), (op(1, 140, 150), 7)), "agent0:2")
    assert not twice_by_split(traffic((op(0, 80, 95, UNKNOWN), 6)), "agent0:2")
    assert not twice_by_split(traffic(*repeated), "p0:2")


def test_a_producer_s_older_epoch_writes_no_more_once_a_newer_one_was_given() -> None:
    """What it began before may still end; another producer is none of its business."""
    broken: list[tuple[str, str]] = []
    nobody: Any = None
    found = Producers(nobody, nobody, ("a",), nobody, broken)
    for name, producer, epoch in (("p0", "p0", 1), ("p0e2", "p0", 2), ("p1", "p1", 1)):
        writer: Any = SimpleNamespace(name=name, producer=producer, epoch=epoch)
        found.writers.append(writer)
    found._issued.append(("p0", 2, 100))
    begun, later = op(0, 90, 120, client="p0"), op(1, 110, 120, client="p0")
    mine, other = op(2, 110, 120, client="p0e2"), op(3, 110, 120, client="p1")
    lost = op(4, 110, 120, UNKNOWN, client="p0")

    found.check([begun, mine, other, lost])
    assert broken == []
    found.check([later])
    assert [name for name, _ in broken] == ["I11"]

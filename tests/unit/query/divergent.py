"""Hypothesis strategies: clusters whose owners hold different entries, overlapping ones among them."""

from dataclasses import dataclass, replace

from hypothesis import strategies as st

from tests.support.fake_store import FakeCluster, FakeEntry, Row, make_entry
from tests.unit.query.helpers import row

LEVELS = ("info", "warn", "error")
SPREAD = 6


@dataclass(frozen=True)
class Case:
    """Entries, and for each the places among its owners that hold it, and those that have it in `again`.

    `again`: when a resent entry was received again, by another leader.
    """

    entries: tuple[FakeEntry, ...]
    holders: tuple[tuple[int, ...], ...]
    again: tuple[tuple[int, tuple[int, ...]], ...]

    def copies(self) -> list[tuple[FakeEntry, int]]:
        """Each copy as it lies on its owner, and the owner's place."""
        return [
            (_received(entry, at) if place in there else entry, place)
            for entry, places, (at, there) in zip(
                self.entries, self.holders, self.again, strict=True
            )
            for place in places
        ]

    def cluster(self) -> FakeCluster:
        """Three nodes, N=3, W=2, R=2, filled."""
        made = FakeCluster()
        for entry, place in self.copies():
            made.write(entry, on=[place])
        made.written = list(self.entries)
        return made

    def acked(self) -> list[FakeEntry]:
        """Entries on at least W owners."""
        pairs = zip(self.entries, self.holders, strict=True)
        return [entry for entry, places in pairs if len(places) >= 2]


def _received(entry: FakeEntry, at: int) -> FakeEntry:
    return replace(entry, header=replace(entry.header, received_at=at))


def numbered(producer: str, seq: int) -> Row:
    """The row that a producer sent under a sequence: a function of its name."""
    at = (seq * 7) % SPREAD
    extra = {"x": seq, "producer": producer, "producer_epoch": 1, "seq": seq}
    return row(at, f"{producer} {seq}", level=LEVELS[seq % 3], **extra)


@st.composite
def plain_entry(draw: st.DrawFn, number: int) -> FakeEntry:
    """An unsequenced entry; few distinct times, so that keys tie."""
    shard = draw(st.integers(0, 3))
    times = draw(st.lists(st.integers(0, SPREAD), min_size=1, max_size=4))
    level = draw(st.sampled_from(LEVELS))
    rows = [row(at, f"{number} {i}", level=level, x=at + i) for i, at in enumerate(times)]
    return make_entry(number, shard, rows, received_at=number)


@st.composite
def sequenced_entry(draw: st.DrawFn, number: int) -> FakeEntry:
    """An entry of one of two producers, that may overlap others; received in any order."""
    producer = draw(st.sampled_from(["a", "b"]))
    first = draw(st.integers(1, 8))
    last = draw(st.integers(first, min(first + 4, 9)))
    rows = [numbered(producer, seq) for seq in range(first, last + 1)]
    at = draw(st.integers(0, 50)) * 1000 + number
    shard = {"a": 0, "b": 2}[producer]
    seqs = ((first, last),)
    return make_entry(number, shard, rows, received_at=at, seqs=seqs, producer=producer)


@st.composite
def cases(draw: st.DrawFn, fewest: int = 1, resent: bool = False) -> Case:
    """A cluster in which every entry is held by at least `fewest` of three owners.

    `resent`: some copies were received at another time, so that owners show a row from different entries.
    """
    count = draw(st.integers(0, 12))
    entries = []
    for number in range(count):
        kind = plain_entry if draw(st.booleans()) else sequenced_entry
        entries.append(draw(kind(number)))
    places = st.lists(st.integers(0, 2), min_size=fewest, max_size=3, unique=True)
    some = st.lists(st.integers(0, 2), max_size=2, unique=True).map(tuple)
    ages = st.integers(0, 50).map(lambda age: age * 1000)
    return Case(
        tuple(entries),
        tuple(tuple(draw(places)) for _ in entries),
        tuple((draw(ages) + 500 + number, draw(some) if resent else ()) for number in range(count)),
    )

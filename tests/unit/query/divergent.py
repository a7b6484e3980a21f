"""Hypothesis strategies: clusters whose owners hold different entries, overlapping ones among them."""

from dataclasses import dataclass

from hypothesis import strategies as st

from tests.support.fake_store import FakeCluster, FakeEntry, Row, make_entry
from tests.unit.query.helpers import row

LEVELS = ("info", "warn", "error")
SPREAD = 6


@dataclass(frozen=True)
class Case:
    """Entries, and for each the places among its owners that hold it."""

    entries: tuple[FakeEntry, ...]
    holders: tuple[tuple[int, ...], ...]

    def cluster(self) -> FakeCluster:
        """Three nodes, N=3, W=2, R=2, filled."""
        made = FakeCluster()
        for entry, places in zip(self.entries, self.holders, strict=True):
            made.write(entry, on=places)
        return made

    def acked(self) -> list[FakeEntry]:
        """Entries on at least W owners."""
        pairs = zip(self.entries, self.holders, strict=True)
        return [entry for entry, places in pairs if len(places) >= 2]


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
    """An entry of one of two producers, that may overlap others; blocks in any order of age."""
    producer = draw(st.sampled_from(["a", "b"]))
    first = draw(st.integers(1, 8))
    last = draw(st.integers(first, min(first + 4, 9)))
    rows = [numbered(producer, seq) for seq in range(first, last + 1)]
    block = draw(st.integers(0, 50)) * 1000 + number
    shard = {"a": 0, "b": 2}[producer]
    seqs = ((first, last),)
    return make_entry(
        number, shard, rows, received_at=number, seqs=seqs, producer=producer, block=block
    )


@st.composite
def cases(draw: st.DrawFn, fewest: int = 1) -> Case:
    """A cluster in which every entry is held by at least `fewest` of three owners."""
    count = draw(st.integers(0, 12))
    entries = []
    for number in range(count):
        kind = plain_entry if draw(st.booleans()) else sequenced_entry
        entries.append(draw(kind(number)))
    places = st.lists(st.integers(0, 2), min_size=fewest, max_size=3, unique=True)
    return Case(tuple(entries), tuple(tuple(draw(places)) for _ in entries))

"""Holdings equal their definition after any sequence of blocks and removals."""

from hypothesis import given, settings
from hypothesis import strategies as st

from records.timestamps import MAX_MICROS, MICROS_PER_HOUR, MIN_MICROS
from records.visibility import REPEAT_MICROS, EntryRef, Hidden, hidden_parts
from storage.entry_table import GONE, HIDDEN
from storage.holdings import HIDDEN_PREVIOUS, BlockPlace, Holdings
from tests.unit.storage.samples import SECOND, T0, Entry, block_of, entry_id, plain, sequenced


def filed(holdings: Holdings, number: int, *entries: Entry) -> None:
    """Adds the entries of a block that are absent; larger `number`, larger block id."""
    header = block_of(number, *entries).header
    absent = [i for i, e in enumerate(header.entries) if holdings.table.find(e.entry_id) is None]
    ordinal = holdings.blocks.end
    place = BlockPlace(ordinal, header.block_id, 1, 0, 1, header.rows, header.min_ts, header.max_ts)
    holdings.add_block(header, absent, place)


def present(holdings: Holdings) -> list[int]:
    flags = holdings.table.rows["flags"][: holdings.table.count]
    return [number for number, flag in enumerate(flags) if not flag & GONE]


def kept_hidden(holdings: Holdings) -> dict[bytes, Hidden]:
    """What the holdings say is hidden, in the words of `records.visibility`."""
    result = {}
    for number in present(holdings):
        flags = int(holdings.table.rows["flags"][number])
        name = holdings.table.rows["id"][number].tobytes()
        if flags & (HIDDEN | HIDDEN_PREVIOUS):
            result[name] = True
        elif number in holdings.partly_hidden:
            result[name] = holdings.partly_hidden[number]
    return result


def defined_hidden(refs: list[EntryRef]) -> dict[bytes, object]:
    """By definition; an entry can be hidden for two reasons, which the reference overwrites."""
    by_previous = hidden_parts(
        [EntryRef(r.entry_id, b"", (), (), r.previous, r.received_at) for r in refs]
    )
    overlaps = hidden_parts(
        [EntryRef(r.entry_id, b"", r.producer, r.seqs, b"", r.received_at) for r in refs]
    )
    result: dict[bytes, object] = {}
    for name, part in {**overlaps, **by_previous}.items():
        whole = part.whole or name in by_previous
        result[name] = True if whole else part.seqs
    return result


SEQUENCED = st.builds(
    lambda first, length, epoch: sequenced(first, first + length, epoch=epoch),
    st.integers(1, 12),
    st.integers(0, 6),
    st.integers(1, 2),
)
CHAIN = [plain(at, name=bytes([at])) for at in range(4)]
CHAINED = [CHAIN[0]] + [
    plain(
        at,
        name=bytes([at]),
        previous=entry_id(CHAIN[at - 1]),
        received_at=T0 + at * REPEAT_MICROS * 2 // 3,
    )
    for at in range(1, 4)
]
STEP = st.one_of(
    st.tuples(
        st.just("put"),
        st.integers(0, 9),
        st.lists(SEQUENCED | st.sampled_from(CHAINED), max_size=3),
    ),
    st.tuples(st.just("remove"), st.integers(0, 9), st.just([])),
)


@settings(max_examples=120)
@given(st.lists(STEP, max_size=12))
def test_hidden_digests_and_spans_follow_from_the_set(steps: list) -> None:
    """After puts (in any block order) and removals all equals what the set of entries defines."""
    holdings = Holdings()
    for kind, number, entries in steps:
        if kind == "remove" and number < holdings.blocks.end:
            holdings.remove_block(number)
        elif kind == "put":
            distinct = {entry_id(one): one for one in entries}
            filed(holdings, number, *distinct.values())

    refs = [holdings.ref(number) for number in present(holdings)]
    assert kept_hidden(holdings) == defined_hidden(refs)
    fresh = Holdings()
    for ref in refs:
        row = holdings.table.rows[holdings.table.find(ref.entry_id)]
        hours = range(
            int(row["min_ts"]) // MICROS_PER_HOUR, int(row["max_ts"]) // MICROS_PER_HOUR + 1
        )
        fresh.tree(0).add(ref.entry_id, ref.content_hash, hours)
    assert holdings.digest(0, MIN_MICROS, MAX_MICROS) == fresh.digest(0, MIN_MICROS, MAX_MICROS)
    for epoch in (1, 2):
        held = {
            s
            for r in refs
            if r.producer and r.producer[3] == epoch
            for a, b in r.seqs
            for s in range(a, b + 1)
        }
        state = holdings.producers.state((0, "default", "pay", "p", epoch))
        assert {s for a, b in state.spans for s in range(a, b + 1)} == held


def test_counts_follow_puts_and_removals() -> None:
    """Rows and bytes; removing twice removes once."""
    holdings = Holdings()
    filed(holdings, 1, plain(0, 3))
    filed(holdings, 2, plain(10, 2))

    removed = holdings.remove_block(0)

    assert len(removed) == 1
    assert holdings.remove_block(0) == []
    assert (holdings.rows, holdings.bytes) == (2, 1)


def test_entries_are_listed_by_the_hours_they_touch() -> None:
    """An entry over two hours stands under both; one over more than 26 hours under every range."""
    holdings = Holdings()
    early = plain(0)
    both = Entry([plain(3599).rows[0], plain(3601).rows[0]], name=b"both")
    wide = Entry([plain(0).rows[0], plain(40 * 3600).rows[0]], name=b"wide")
    other_shard = plain(5, shard=9)
    filed(holdings, 1, early, both, wide, other_shard)

    def listed(start: int, end: int) -> set[bytes]:
        numbers = holdings.entries_in_hours(0, T0 + start * SECOND, T0 + end * SECOND)
        return {holdings.ref(number).entry_id for number in numbers}

    assert listed(0, 10) == {entry_id(early), entry_id(both), entry_id(wide)}
    assert listed(3700, 3800) == {entry_id(both), entry_id(wide)}
    assert listed(9 * 3600, 9 * 3600 + 1) == {entry_id(wide)}
    assert listed(3599, 3600) == {entry_id(early), entry_id(both), entry_id(wide)}


def test_refs_carry_the_header_facts() -> None:
    """Block id, producer, exact spans and previous."""
    holdings = Holdings()
    gaps = Entry(
        [plain(k).rows[0] for k in range(4)], producer="p", seqs=((1, 2), (5, 6)), skips=((3, 4),)
    )
    filed(holdings, 7, gaps, plain(9, previous=b"q" * 16))

    first, second = holdings.ref(0), holdings.ref(1)

    assert first.seqs == ((1, 2), (5, 6))
    assert first.producer == ("default", "pay", "p", 1)
    assert first.received_at == second.received_at == T0 + 7
    assert second.previous == b"q" * 16
    assert second.producer == ()

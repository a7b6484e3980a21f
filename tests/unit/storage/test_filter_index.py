"""The packed filters: one answer for all row groups, within a budget, and nothing kept of what is gone."""

from collections import Counter
from collections.abc import Sequence
from functools import cache

import pyarrow as pa
import pytest

from records.ids import block_id
from records.row_filters import RowFilters, build_filters
from runtime.metrics import Metrics
from storage.filter_index import SHELF_BLOCKS, FilterIndex, Survivors
from storage.holdings import BlockPlace
from storage.prune import probe_of

ROWS, GROUP = 512, 256


@cache
def filters_of(number: int) -> RowFilters:
    """Two row groups; rows say `n<block>x<row>`."""
    text = [f"n{number}x{i}" for i in range(ROWS)]
    columns = {"message": pa.array(text), "user": pa.array([f"u-{one}" for one in text])}
    table = pa.table(columns)
    found = build_filters(table, GROUP, "on")
    assert found is not None
    return found


class Store:
    """Blocks by ordinal; counts what is read."""

    def __init__(
        self, blocks: int, limit: int = 1 << 30, bare: frozenset[int] = frozenset()
    ) -> None:
        self.bare, self.reads = bare, Counter[int]()
        self.metrics = Metrics()
        self.index = FilterIndex(self.load, self.peek, limit, self.metrics)
        self.peeked: list[int] = []
        self.places = [
            BlockPlace(n, block_id(n, bytes(10)), 1, 0, 0, ROWS, 0, 0) for n in range(blocks)
        ]

    def load(self, place: BlockPlace) -> tuple[RowFilters | None, dict[str, int]]:
        """Reads a block's sidecar: ten bytes, then the bits of one column after the other."""
        self.reads[place.ordinal] += 1
        if place.ordinal in self.bare:
            return None, {}
        filters, at, end = filters_of(place.ordinal), {}, 10
        for name, bits in filters.bits.items():
            at[name], end = end, end + bits.nbytes
        return filters, at

    def peek(self, wanted: Sequence[tuple[BlockPlace, int]]) -> list[bytes]:
        """Reads 64 bytes of the same."""
        self.peeked += [place.ordinal for place, _ in wanted]
        found = []
        for place, start in wanted:
            bits = filters_of(place.ordinal).bits.values()
            data = bytes(10) + b"".join(one.tobytes() for one in bits)
            found.append(data[start : start + 64])
        return found

    def ask(self, tree: tuple, places: list[BlockPlace] | None = None) -> Survivors:
        """What is left for a filter."""
        probe = probe_of(tree)
        assert probe is not None
        return self.index.survivors(probe, self.places if places is None else places)


def test_finds_the_block_and_the_row_group() -> None:
    """Over three shelves; each sidecar is read once for all questions."""
    store = Store(2 * SHELF_BLOCKS + 5)

    for number in (0, 170, 260):
        left = store.ask(("word", f"N{number}X300"))
        assert number in left.ordinals.tolist()
        assert len(left.ordinals) < 4  # one in a thousand may be there in vain
        assert left.parts[number] == (GROUP, (1,))
    absent = [len(store.ask(("eq", "user", f"u-n3x{n}")).ordinals) for n in range(600, 620)]
    assert sum(absent) < 20 * len(store.places) * 0.05
    assert set(store.reads.values()) == {1}


def test_a_block_without_filters_is_always_left_whole() -> None:
    """Blocks of version 1, and small ones."""
    left = Store(5, bare=frozenset({1, 3})).ask(("word", "n2x1"))

    assert left.ordinals.tolist() == [1, 2, 3]
    assert set(left.parts) == {2}


def test_conjunctions_and_disjunctions() -> None:
    """Both row groups of block 1; no row group holds one word of each."""
    store = Store(3)
    first, second = ("word", "n1x0"), ("word", "n1x511")

    assert store.ask(("or", first, second)).ordinals.tolist() == [1]
    assert store.ask(("or", first, second)).parts == {}
    assert not len(store.ask(("and", first, second)).ordinals)
    assert store.ask(("and", first, ("not", second))).parts == {1: (GROUP, (0,))}
    assert store.ask(("in", "user", ("u-n0x1", "u-n2x2"))).ordinals.tolist() == [0, 2]


def test_a_field_that_no_row_has_leaves_nothing() -> None:
    """Whatever is asked of it, as no block has the column or `attributes`."""
    store = Store(3)

    for tree in (
        ("exists", "none"),
        ("eq", "none", 1),
        ("range", "none", 1, 2),
        ("regex", "none", ""),
    ):
        assert not len(store.ask(tree).ordinals)
    assert len(store.ask(("exists", "user")).ordinals) == 3


@pytest.mark.parametrize(
    "tree",
    [
        ("true",), ("not", ("word", "a")), ("eq", "user", None), ("eq", "level", "x"),
        ("or", ("word", "a"), ("eq", "level", "x")), ("and", ("true",), ("eq", "service", "x")),
    ],
)  # fmt: skip
def test_some_filters_have_no_probe(tree: tuple) -> None:
    """A negation, a null, what the rollup knows, and a disjunction with one of these."""
    assert probe_of(tree) is None


def test_memory_is_bounded_and_the_newest_shelves_stay() -> None:
    """Room for two of four shelves: of the older ones 64 bytes a row group are read, no sidecar twice."""
    one = Store(SHELF_BLOCKS)
    one.ask(("word", "x"))
    limit = int(2.5 * one.index.nbytes)
    store = Store(4 * SHELF_BLOCKS, limit)

    for _ in range(3):
        store.peeked.clear()
        assert store.ask(("word", "n5x5")).parts[5] == (GROUP, (0,))
        assert 0 < store.index.nbytes <= limit

    thin = store.metrics.snapshot()["quorumlog_filter_thin_blocks"]
    assert thin in (2 * SHELF_BLOCKS, 3 * SHELF_BLOCKS)
    assert Counter(store.peeked) == {n: 2 for n in range(int(thin))}
    assert set(store.reads.values()) == {1}
    assert store.metrics.snapshot()["quorumlog_filter_bytes"] == store.index.nbytes


TREES = (
    ("word", "n1x0"), ("word", "n130x300"), ("eq", "user", "u-n2x2"), ("exists", "user"),
    ("and", ("word", "n1x0"), ("word", "n1x1")), ("or", ("word", "n1x0"), ("eq", "user", "u-n140x9")),
    ("in", "user", ("u-n0x1", "u-n2x2", "u-n131x500")), ("phrase", "b n1x0 a"),
)  # fmt: skip


@pytest.mark.parametrize("tree", TREES)
def test_a_thin_shelf_gives_the_same_answers(tree: tuple) -> None:
    """One of two shelves is thin; some blocks have no filters, half are asked first."""
    bare = frozenset({3, 139})
    rich, thin = Store(150, bare=bare), Store(150, 200_000, bare)
    thin.ask(("word", "x"), thin.places[::2])

    for asked in (thin.places, thin.places[1::3]):
        expected, found = rich.ask(tree, asked), thin.ask(tree, asked)
        assert found.ordinals.tolist() == expected.ordinals.tolist()
        assert found.parts == expected.parts
    assert thin.metrics.snapshot()["quorumlog_filter_thin_blocks"] == SHELF_BLOCKS
    assert set(thin.reads.values()) == {1}


def test_the_second_word_is_looked_up_where_the_first_may_be() -> None:
    """A conjunction on a thin shelf reads little more than its first word does."""
    store = Store(20, 60_000)
    store.ask(("word", "x"))
    store.peeked.clear()

    store.ask(("phrase", "b n1x0 n1x1 n1x2 a"))

    assert 40 <= len(store.peeked) < 50


def test_the_file_of_a_block_that_was_not_asked_about_is_not_touched() -> None:
    """It may have been merged and removed, while its neighbours on a thin shelf live on."""
    store = Store(20, 60_000)
    store.ask(("word", "x"))
    store.peeked.clear()

    store.ask(("word", "n1x1"), store.places[:4])

    assert sorted(set(store.peeked)) == [0, 1, 2, 3]


def test_what_was_read_ahead_is_not_read_again() -> None:
    """Within the budget and beyond it."""
    for limit in (1 << 30, 60_000):
        store = Store(20, limit)
        store.index.warm(store.places[16:])
        store.index.warm(store.places[:16])
        store.index.warm([])
        assert store.ask(("word", "n7x7")).ordinals.tolist() == [7]
        assert set(store.reads.values()) == {1}


def test_a_forgotten_block_is_read_again() -> None:
    """After quarantine, should it come back; its neighbours stay. A shelf without blocks takes no memory."""
    store = Store(3)
    store.ask(("word", "x"))
    store.index.forget(1)

    assert store.ask(("word", "n1x300")).parts == {1: (GROUP, (1,))}
    assert store.reads == {0: 1, 1: 2, 2: 1}
    for ordinal in range(3):
        store.index.forget(ordinal)
    assert store.index.nbytes == 0


def test_new_blocks_join_their_shelf() -> None:
    """Asked between puts."""
    store = Store(10)
    for count in (1, 4, 10):
        left = store.ask(("word", f"n{count - 1}x7"), store.places[:count])
        assert left.ordinals.tolist() == [count - 1]
    assert set(store.reads.values()) == {1}


def test_row_groups_are_counted() -> None:
    """Two groups a block: one kept, five pruned."""
    store = Store(3)
    store.ask(("word", "n0x0"))

    figures = store.metrics.snapshot()

    assert figures['quorumlog_filter_groups_total{outcome="kept"}'] == 1
    assert figures['quorumlog_filter_groups_total{outcome="pruned"}'] == 5

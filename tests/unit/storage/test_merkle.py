"""Equal sets have equal digests, whatever the order; different sets do not."""

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from records.timestamps import MAX_MICROS, MICROS_PER_HOUR, MIN_MICROS, WIDE_HOUR
from storage.merkle import EMPTY, MerkleTree, bucket_of, buckets_of, leaf

HOURS = st.lists(st.integers(-3, 8), min_size=1, max_size=3, unique=True)
ENTRY = st.tuples(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16), HOURS)
ENTRIES = st.lists(ENTRY, max_size=30, unique_by=lambda one: one[0])


def built(entries: list) -> MerkleTree:
    tree = MerkleTree()
    for entry in entries:
        tree.add(*entry)
    return tree


def nodes(tree: MerkleTree) -> tuple:
    return tree.root, tree.hours()


def test_a_leaf_is_the_hash_of_id_and_content() -> None:
    """The definition, computed by hand."""
    expected = hashlib.sha256(b"i" * 16 + b"c" * 16).digest()[:16]

    assert leaf(b"i" * 16, b"c" * 16) == int.from_bytes(expected, "big")
    assert built([(b"i" * 16, b"c" * 16, [7])]).root == (1, expected)


@settings(max_examples=60)
@given(ENTRIES, st.randoms(use_true_random=False))
def test_order_of_arrival_does_not_matter(entries: list, order) -> None:
    """All nodes equal, when added in another order, and after adding and removing others."""
    shuffled = list(entries)
    order.shuffle(shuffled)
    other = built(shuffled)
    for entry in shuffled[:5]:
        other.remove(*entry)
    for entry in shuffled[:5]:
        other.add(*entry)

    assert nodes(other) == nodes(built(entries))


@settings(max_examples=60)
@given(ENTRIES, ENTRY)
def test_one_entry_more_changes_the_nodes_on_its_path(entries: list, extra: tuple) -> None:
    """Root and its hours differ; other hours do not."""
    if any(one[0] == extra[0] for one in entries):
        return
    before, after = built(entries), built([*entries, extra])

    assert before.root != after.root
    for hour in range(-3, 9):
        assert (before.hours().get(hour) != after.hours().get(hour)) == (hour in extra[2])


def test_the_same_entry_twice_does_not_cancel() -> None:
    """XOR would say that a tree with an entry twice equals an empty one."""
    entry = (b"a" * 16, b"b" * 16, [1])

    assert built([entry, entry]).root != EMPTY
    assert built([entry, entry]).root[0] == 2


def test_removing_everything_leaves_nothing_behind() -> None:
    """An empty tree keeps no nodes: memory follows the data."""
    tree = built([(bytes([k]) * 16, b"c" * 16, [k, k + 1]) for k in range(40)])
    for k in range(40):
        tree.remove(bytes([k]) * 16, b"c" * 16, [k, k + 1])

    assert tree.root == EMPTY
    assert tree.hours() == {}


@settings(max_examples=60, deadline=None)
@given(ENTRIES)
def test_the_buckets_of_an_hour_are_sums_by_the_first_byte_of_the_id(entries: list) -> None:
    """Each by definition; together they are what the tree says of the hour."""
    buckets = buckets_of([one[0] for one in entries], [one[1] for one in entries])
    hour = built([(i, c, [5]) for i, c, _ in entries]).hours().get(5, EMPTY)

    for bucket, (count, digest) in buckets.items():
        leaves = [leaf(i, c) for i, c, _ in entries if bucket_of(i) == bucket]
        assert count == len(leaves)
        assert int.from_bytes(digest, "big") == sum(leaves) % 2**128
    assert sum(count for count, _ in buckets.values()) == hour[0]
    total = sum(int.from_bytes(digest, "big") for _, digest in buckets.values()) % 2**128
    assert total == int.from_bytes(hour[1], "big")


@settings(max_examples=60)
@given(ENTRIES, st.integers(-4, 9), st.integers(-4, 9))
def test_a_range_is_the_sum_of_its_hours(entries: list, first: int, last: int) -> None:
    """The digest over a range equals the definition: per hour touched, count and sum of leaves."""
    entries = [(i, c, [*hours, WIDE_HOUR] if i[0] % 2 else hours) for i, c, hours in entries]
    tree = built(entries)
    start, end = first * MICROS_PER_HOUR + 5, last * MICROS_PER_HOUR + 5
    hours = set(range(first, last + 1)) | {WIDE_HOUR} if start < end else {WIDE_HOUR}
    leaves = [leaf(i, c) for i, c, filed in entries for hour in filed if hour in hours]

    count, digest = tree.digest(start, end)

    assert count == len(leaves)
    assert int.from_bytes(digest, "big") == sum(leaves) % 2**128


def test_all_of_time_is_the_root() -> None:
    """And a sum above 2^128 wraps without touching the count."""
    tree = built([(bytes([k]) * 16, bytes(16), [k % 5]) for k in range(200)])

    assert tree.digest(MIN_MICROS, MAX_MICROS) == tree.root
    assert tree.root[0] == 200

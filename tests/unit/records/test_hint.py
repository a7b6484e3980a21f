"""Hints as values: of a block, there and back, and what is no hint."""

from typing import Any

import pytest

from records.errors import InvalidRequest
from records.hint import Hint
from tests.unit.storage.samples import Entry, block_of, row

ID = bytes(range(16))


def test_names_the_entries_of_a_block_by_shard() -> None:
    """Three entries of two shards: each id stands under its shard, with the newest time of all rows."""
    block = block_of(
        7, Entry([row(1)], shard=4), Entry([row(9)], shard=2), Entry([row(5)], shard=4)
    )
    first, second, third = block.header.entries

    hint = Hint.of("node2", block.header)

    assert hint.target == "node2"
    assert hint.entries == 3
    assert list(hint.ids(4)) == [first.entry_id, third.entry_id]
    assert list(hint.ids(2)) == [second.entry_id]
    assert list(hint.ids(3)) == []
    assert hint.max_ts == block.header.max_ts == second.max_ts
    assert hint.ring_epoch == int(block.header.ring_epoch)


def test_there_and_back() -> None:
    """What a newer writer adds at the end is ignored."""
    hint = Hint("node2", 3, 1_000, ((1, ID + ID), (9, ID)))

    assert Hint.from_list(hint.to_list()) == hint
    assert Hint.from_list([*hint.to_list(), "more"]) == hint


@pytest.mark.parametrize(
    "values",
    [
        None,
        7,
        {},
        [],
        ["n", 1, 2],
        ["", 1, 2, []],
        ["n" * 300, 1, 2, []],
        ["n", "x", 2, []],
        ["n", 1, 2, [[1, ID[:15]]]],
        ["n", 1, 2, [[1, b""]]],
        ["n", 1, 2, [[1, 10**12]]],
        ["n", 1, 2, [[1.5, ID]]],
        ["n", 1, 2, [[-1, ID]]],
        ["n", float("inf"), 2, []],
        ["n", True, 2, []],
        [7, 1, 2, []],
        ["n", 1, 2, [[1]]],
        ["\ud800", 1, 2, []],
        ["n", 1, 2, [[1, bytes(9 << 20)]]],
    ],
)
def test_refuses_what_is_no_hint(values: Any) -> None:
    """A peer, or a damaged file, may say anything."""
    with pytest.raises(InvalidRequest):
        Hint.from_list(values)

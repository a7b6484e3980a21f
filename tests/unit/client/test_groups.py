"""Groups of rows: found by seq, cut to ranges, renumbered, bounded."""

from __future__ import annotations

import pytest

from quorumlog import groups
from quorumlog.groups import find, group_of, head, parts_within, renumbered

ROWS = [b'{"seq":%d,"x":1}' % seq for seq in range(5, 10)]


def test_a_group_is_found_by_any_of_its_seqs() -> None:
    """And nothing is found in the gaps."""
    held = [group_of(1, ROWS[:2]), group_of(5, ROWS)]

    assert [find(held, seq) for seq in (0, 1, 2, 3, 4, 5, 9, 10)] == [-1, 0, 0, -1, -1, 1, 1, -1]
    assert (held[1].last, held[1].count, held[1].size_bytes) == (9, 5, 5 * len(ROWS[0]))


def test_rows_are_cut_to_the_ranges_to_keep() -> None:
    """Ranges may begin before the rows, end after them, or miss them."""
    parts = list(parts_within(5, ROWS, [(1, 2), (4, 5), (7, 8), (9, 99), (200, 300)]))

    assert [(part.first, part.rows) for part in parts] == [
        (5, ROWS[:1]),
        (7, ROWS[2:4]),
        (9, ROWS[4:]),
    ]


def test_renumbering_keeps_the_rest_of_the_bytes() -> None:
    """From another first seq, also one of more digits."""
    assert renumbered(ROWS[:2], 99) == [b'{"seq":99,"x":1}', b'{"seq":100,"x":1}']


def test_a_group_is_bounded_but_never_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """By rows and by bytes; a row beyond the bound goes alone."""
    monkeypatch.setattr(groups, "GROUP_ROWS_MAX", 3)
    monkeypatch.setattr(groups, "GROUP_BYTES_MAX", 2 * len(ROWS[0]))
    assert head(ROWS) == ROWS[:2]
    monkeypatch.setattr(groups, "GROUP_BYTES_MAX", 1)
    assert head(ROWS) == ROWS[:1]
    monkeypatch.setattr(groups, "GROUP_BYTES_MAX", 1 << 20)
    assert head(ROWS) == ROWS[:3]
    assert head([]) == []

"""Acked rows that are kept for a while: bounds, and the buffer's `again` before and after a restart."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from quorumlog import BufferFailed
from quorumlog.buffer import Buffer, BufferLimits
from quorumlog.groups import group_of
from quorumlog.kept import GROUP_COST, KeptGroups


def test_the_oldest_go_when_it_is_too_much_or_too_old() -> None:
    """Three groups of four bytes, at most two of them, at most ten seconds."""
    kept = KeptGroups(2 * (4 + GROUP_COST), 10.0)
    groups = [group_of(n, [b"1234"]) for n in (1, 2, 3)]
    for at, group in enumerate(groups):
        kept.add(group, float(at))

    assert kept.evict(2.0) == groups[:1]
    assert (kept.groups(), kept.size_bytes) == (groups[1:], 8)
    assert kept.evict(11.5) == groups[1:2]
    assert kept.evict(12.5) == groups[2:]
    assert kept.size_bytes == 0


def opened(path: Path | None, **limits: float) -> Buffer:
    return Buffer(path, "pay", None, BufferLimits(**limits), lambda: None)  # type: ignore[arg-type]


def fill(
    found: Buffer, first: int, last: int, size: int = 1, acked: bool = True
) -> list[bytes]:  # fmt: skip
    """Rows first..last, each in a group of its own, acked one by one."""
    rows = []
    for seq in range(first, last + 1):
        assert found.append(b'{"m":"%b"}' % (b"x" * size)) == seq
        for _ in range(2000):
            if found.written_till >= seq:
                break
            time.sleep(0.002)
        rows += found.rows(seq, seq, 1 << 20)
        if acked:
            found.ack(seq)
    return rows


def test_acked_rows_come_again_with_their_bytes(tmp_path: Path) -> None:
    """In memory and in a file; a run goes over many groups, up to the bytes that are asked for."""
    for path in (None, tmp_path / "b"):
        found = opened(path, keep_bytes=5000)
        rows = fill(found, 1, 3)

        assert found.again(1, 1, 100) == (1, rows[:1])
        assert found.again(2, 3, 100) == (2, rows[1:])
        assert found.again(1, 3, len(rows[0]) + len(rows[1])) == (1, rows[:2])
        assert found.again(1, 3, 1) == (1, rows[:1])
        assert found.again(4, 9, 100) == (10, [])
        found.close()


def test_rows_without_an_ack_come_again_as_well(tmp_path: Path) -> None:
    """They are here, so it must not be said that they are gone: acked to 2 of 5."""
    for path in (None, tmp_path / "b"):
        found = opened(path, keep_bytes=5000)
        rows = fill(found, 1, 2) + fill(found, 3, 5, acked=False)

        assert found.again(1, 5, 1000) == (1, rows)
        found.close()


def test_what_is_beyond_the_limit_is_gone(tmp_path: Path) -> None:
    """Ten rows of about 100 bytes in groups of their own, room for three: the last few are here."""
    found = opened(tmp_path / "b", keep_bytes=350 + 3 * GROUP_COST)
    rows = fill(found, 1, 10, 80)

    start, again = found.again(1, 10, 10_000)
    assert start > 6
    assert again == rows[start - 1 :]
    found.close()


def test_nothing_is_kept_unless_asked(tmp_path: Path) -> None:
    """The default of a bare buffer."""
    found = opened(tmp_path / "b")
    fill(found, 1, 3)

    assert found.again(1, 3, 100) == (4, [])
    found.close()


def test_kept_rows_survive_a_restart_and_a_compaction(tmp_path: Path) -> None:
    """Closing with nothing to send writes the file anew: with the kept rows, without the others."""
    found = opened(tmp_path / "b", keep_bytes=5000)
    rows = fill(found, 1, 4)
    found.close()

    for _ in range(2):
        found = opened(tmp_path / "b", keep_bytes=5000)
        assert (found.meta.ack_till, found.last_seq, found.live_bytes) == (4, 4, 0)
        assert [found.again(n, n, 100)[1] for n in range(1, 5)] == [[row] for row in rows]
        assert found.lost == []
        found.close()

    found = opened(tmp_path / "b", keep_bytes=0)
    assert found.again(1, 4, 100) == (5, [])
    found.close()
    assert (tmp_path / "b").stat().st_size < 300


def test_a_new_epoch_keeps_no_rows_of_the_old_one(tmp_path: Path) -> None:
    """Their numbers mean other rows now."""
    found = opened(tmp_path / "b", keep_bytes=5000)
    fill(found, 1, 2)
    found.begin_move([])
    found.finish_move(2)

    assert found.again(1, 2, 100) == (3, [])
    found.close()


def test_damage_to_kept_rows_costs_them_alone(tmp_path: Path) -> None:
    """A flipped byte in an acked frame: the file is still written anew, what has no ack is there."""
    found = opened(tmp_path / "b", keep_bytes=5000)
    fill(found, 1, 2)
    at = (tmp_path / "b").read_bytes().index(b'"m"')
    with (tmp_path / "b").open("r+b") as file:
        file.seek(at)
        file.write(b"X")

    found.close()

    again = opened(tmp_path / "b", keep_bytes=5000)
    assert again.failure is None
    assert (again.meta.ack_till, again.lost, again.again(1, 2, 100)) == (2, [], (3, []))
    assert again.append(b'{"m":"next"}') == 3
    again.close()


def test_a_disk_that_fails_to_read_is_no_proof_that_rows_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said, and the rows come when it reads again: to declare them lost could not be undone."""
    found = opened(tmp_path / "b", keep_bytes=5000)
    rows = fill(found, 1, 2)

    def pread(*_: object) -> bytes:
        raise OSError(errno.EIO, "not now")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", pread)
        with pytest.raises(BufferFailed, match="not now"):
            found.again(1, 2, 1000)

    assert found.again(1, 2, 1000) == (1, rows)
    found.close()


def test_a_kept_row_that_is_damaged_is_gone_and_hides_no_other(tmp_path: Path) -> None:
    """Row 2 of 3 is: 1 comes, 3 comes, 2 is asked for in vain; nothing raises for ever."""
    found = opened(tmp_path / "b", keep_bytes=5000)
    rows = fill(found, 1, 3)
    at = (tmp_path / "b").read_bytes().index(b'"seq":2')
    with (tmp_path / "b").open("r+b") as file:
        file.seek(at)
        file.write(b"X")

    assert found.again(1, 3, 1000) == (1, rows[:1])
    assert found.again(2, 3, 1000) == (3, rows[2:])
    assert found.again(2, 2, 1000) == (3, [])
    found.close()

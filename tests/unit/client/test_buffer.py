"""`Buffer`: rows from `append` until their ack, through crashes, damage and a full disk."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quorumlog import (
    BufferCorrupt,
    BufferFailed,
    BufferFull,
    BufferLocked,
    BufferMismatch,
    ProducerClosed,
    buffer,
    bufferfile,
)
from quorumlog.buffer import Buffer, BufferLimits
from quorumlog.bufferfile import BufferFile


class Opener:
    """Opens buffers, waits for their writer, and closes what a test left open."""

    def __init__(self) -> None:
        self.opened: list[Buffer] = []
        self.ready = threading.Event()

    def __call__(
        self,
        path: Path | None,
        *,
        service: str = "pay",
        producer: str | None = None,
        **limits: Any,
    ) -> Buffer:
        found = Buffer(path, service, producer, BufferLimits(**limits), self.ready.set)
        self.opened.append(found)
        return found

    def written(self, found: Buffer, till: int) -> None:
        """Waits until rows up to `till` are in the file."""
        for _ in range(1000):
            if found.written_till >= till:
                return
            time.sleep(0.005)
        raise AssertionError(f"written till {found.written_till}, not {till}")


@pytest.fixture
def opened() -> Iterator[Opener]:
    opener = Opener()
    yield opener
    for found in opener.opened:
        found.close()


def _fill(found: Buffer, count: int, size: int = 1) -> list[bytes]:
    """Appends rows that tell their number; returns the bytes they have when numbered."""
    rows = []
    for _ in range(count):
        body = b'{"message":"%b"}' % (b"m" * size)
        seq = found.append(body)
        rows.append(b'{"seq":%d,"message":"%b"}' % (seq, b"m" * size))
    return rows


def test_rows_survive_a_crash_with_their_seqs_and_bytes(opened: Opener, tmp_path: Path) -> None:
    """The file as it is in the middle of work, opened again: same rows, numbering goes on."""
    first = opened(tmp_path / "b")
    rows = _fill(first, 5)
    opened.written(first, 5)
    copy = tmp_path / "copy"
    copy.write_bytes((tmp_path / "b").read_bytes())

    again = opened(copy)

    assert again.meta.producer == first.meta.producer
    assert again.rows(1, 5, 1 << 20) == rows
    assert not again.needs_epoch
    assert again.append(b'{"x":1}') == 6


def test_acked_rows_are_gone_after_a_restart(opened: Opener, tmp_path: Path) -> None:
    """The position is in the file; closing with all rows acked gives the space back."""
    first = opened(tmp_path / "b")
    _fill(first, 100, size=100)
    opened.written(first, 100)
    first.ack(60)
    first.close()
    again = opened(tmp_path / "b")

    assert again.meta.ack_till == 60
    assert len(again.rows(61, 100, 1 << 20)) == 40
    again.ack(100)
    again.close()
    assert (tmp_path / "b").stat().st_size < 300
    assert opened(tmp_path / "b").append(b'{"x":1}') == 101


def test_a_tail_torn_at_each_byte_is_cut_and_the_rows_before_it_stay(
    opened: Opener, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut anywhere: what is whole comes back, the next row is written where the tail was."""
    first = opened(tmp_path / "b")
    rows, ends = [], []
    for seq in (1, 2, 3):
        rows += _fill(first, 1)
        opened.written(first, seq)
        ends.append((tmp_path / "b").stat().st_size)
    data = (tmp_path / "b").read_bytes()
    meta_end = ends[0] - (ends[1] - ends[0])

    for cut in range(meta_end, len(data)):
        torn = tmp_path / "torn"
        torn.write_bytes(data[:cut])
        whole = sum(end <= cut for end in ends)
        found = opened(torn)
        assert found.meta.next_seq == whole + 1
        assert (found.rows(1, whole, 1 << 20) if whole else []) == rows[:whole]
        assert found.lost == []
        assert found.append(b'{"message":"new"}') == whole + 1
        found.close()
        again = opened(torn)
        assert len(again.rows(1, whole + 1, 1 << 20)) == whole + 1
        again.close()
    assert "torn tail" in caplog.text
    assert "damaged" not in caplog.text


def test_damage_in_the_middle_loses_one_frame_and_says_so(
    opened: Opener, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The rows around it are kept; the lost seqs are known, so that they can be declared."""
    first = opened(tmp_path / "b")
    for seq in (1, 2, 3):
        _fill(first, 1)
        opened.written(first, seq)
    first.close()
    data = bytearray((tmp_path / "b").read_bytes())
    data[data.index(b'{"seq":2') + 3] ^= 1
    (tmp_path / "b").write_bytes(data)

    found = opened(tmp_path / "b")

    assert found.lost == [(2, 2)]
    assert len(found.rows(1, 3, 1 << 20)) == 1
    assert len(found.rows(3, 3, 1 << 20)) == 1
    assert "damaged" in caplog.text


def test_a_file_of_somebody_else_is_left_alone(opened: Opener, tmp_path: Path) -> None:
    """A wrong path must not cost the user a file."""
    path = tmp_path / "notes.txt"
    path.write_bytes(b"dear diary")

    with pytest.raises(BufferCorrupt):
        opened(path)
    assert path.read_bytes() == b"dear diary"


def test_one_writer_one_service_one_name(opened: Opener, tmp_path: Path) -> None:
    """A second producer, another service and another name are refused."""
    first = opened(tmp_path / "b", producer="p")
    with pytest.raises(BufferLocked):
        opened(tmp_path / "b")
    first.close()
    with pytest.raises(BufferMismatch, match="service"):
        opened(tmp_path / "b", service="other")
    with pytest.raises(BufferMismatch, match="producer"):
        opened(tmp_path / "b", producer="q")
    assert opened(tmp_path / "b", producer="p").meta.producer == "p"


def test_only_a_fresh_buffer_with_a_given_name_needs_an_epoch(
    opened: Opener, tmp_path: Path
) -> None:
    """A generated name is nobody else's; a known buffer knows its epoch."""
    assert not opened(tmp_path / "a").needs_epoch
    named = opened(tmp_path / "b", producer="p")
    assert named.needs_epoch
    _fill(named, 1)
    named.close()
    named = opened(tmp_path / "b", producer="p")  # a crash before the epoch came
    assert named.needs_epoch
    assert named.meta.epoch == 0
    named.finish_move(4)
    assert named.rows(1, 9, 100) == [b'{"seq":1,"message":"m"}']
    named.close()
    again = opened(tmp_path / "b", producer="p")
    assert not again.needs_epoch
    assert again.meta.epoch == 4
    assert opened(None, producer="p").needs_epoch


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_full_buffer_refuses_loudly_and_takes_rows_again_after_an_ack(
    opened: Opener, tmp_path: Path, on_disk: bool
) -> None:
    """The cap counts rows without an ack."""
    found = opened(tmp_path / "b" if on_disk else None, bytes_max=1000)
    with pytest.raises(BufferFull):
        _fill(found, 100, size=50)
    held = found.last_seq
    assert 5 < held < 20
    opened.written(found, held)

    found.ack(held)

    assert found.live_bytes == 0
    assert found.append(b'{"x":1}') == held + 1


def test_rows_beyond_the_memory_cap_are_read_back_from_the_file(
    opened: Opener, tmp_path: Path
) -> None:
    """Same rows, whether memory still has them or not."""
    found = opened(tmp_path / "b", memory_bytes_max=2000)
    rows = []
    for _ in range(20):
        rows += _fill(found, 10, size=50)
        opened.written(found, len(rows))

    assert not found.in_memory(200)
    assert found.rows(1, 200, 1 << 20) == rows
    assert found.rows(95, 105, 1 << 20) == rows[94:105]
    assert len(found.rows(1, 200, 500)) < 10
    found.close()
    assert opened(tmp_path / "b", memory_bytes_max=2000).rows(1, 200, 1 << 20) == rows


def test_space_of_acked_rows_is_given_back(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file stays within a few times of what is not acked."""
    monkeypatch.setattr(buffer, "_COMPACT_BYTES_MIN", 10_000)
    found = opened(tmp_path / "b")
    for _ in range(50):
        _fill(found, 10, size=200)
        opened.written(found, found.last_seq)
        found.ack(found.last_seq - 5)
    rows = _fill(found, 1)
    opened.written(found, 501)

    assert (tmp_path / "b").stat().st_size < 30_000
    assert found.rows(501, 501, 1000) == rows
    found.close()
    again = opened(tmp_path / "b")
    assert again.meta.ack_till == 495
    assert again.rows(501, 501, 1000) == rows


def test_a_full_disk_holds_rows_back_until_there_is_room(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that is not in the file must not be sent; nothing is lost, the failure is visible."""
    found = opened(tmp_path / "b")
    real, full = os.pwrite, True

    def pwrite(fd: int, data: Any, offset: int) -> int:
        if full:
            raise OSError(errno.ENOSPC, "disk full")
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    rows = _fill(found, 3)
    while found.failure is None:
        time.sleep(0.005)
    assert found.written_till == 0
    assert found.unwritten == 3

    full = False
    opened.written(found, 3)

    assert found.rows(1, 3, 1000) == rows
    assert found.write_errors >= 1


def test_after_a_failed_sync_the_file_is_written_anew(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages that a failed fdatasync dropped are never trusted: a new file takes the place."""
    found = opened(tmp_path / "b", durable=True)
    inode = (tmp_path / "b").stat().st_ino
    real, failures = os.fdatasync, [OSError(errno.EIO, "io error")]

    def fdatasync(fd: int) -> None:
        if failures:
            raise failures.pop()
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    rows = _fill(found, 2)
    opened.written(found, 2)

    assert (tmp_path / "b").stat().st_ino != inode
    assert found.rows(1, 2, 1000) == rows
    found.close()
    assert opened(tmp_path / "b").rows(1, 2, 1000) == rows


def test_durable_syncs_before_a_row_may_be_sent(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least one fdatasync a group, none without `durable`."""
    syncs: list[int] = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (syncs.append(fd), real(fd))[1])
    lazy = opened(tmp_path / "lazy")
    _fill(lazy, 1)
    opened.written(lazy, 1)
    assert syncs == []
    durable = opened(tmp_path / "durable", durable=True)
    _fill(durable, 1)
    opened.written(durable, 1)
    assert len(syncs) == 1


def test_a_move_to_a_new_epoch_renumbers_and_survives_a_crash_after_each_step(
    opened: Opener, tmp_path: Path
) -> None:
    """begin_move keeps what has no promise; a crash then leaves a buffer that asks for an epoch."""
    first = opened(tmp_path / "b")
    _fill(first, 5)
    opened.written(first, 5)
    first.begin_move([(2, 2), (4, 5)])
    _fill(first, 1)
    opened.written(first, 6)
    crashed = tmp_path / "crashed"
    crashed.write_bytes((tmp_path / "b").read_bytes())

    again = opened(crashed)
    assert again.needs_epoch
    for found in (first, again):
        found.finish_move(2)
        assert found.meta.epoch == 2
        assert found.meta.ack_till == 0
        expected = [b'{"seq":%d,"message":"m"}' % seq for seq in (1, 2, 3, 4)]
        assert found.rows(1, 4, 1000) == expected
        assert found.append(b'{"x":1}') == 5
        found.close()
    for path in (tmp_path / "b", crashed):
        moved = opened(path)
        assert not moved.needs_epoch
        assert moved.meta.epoch == 2
        assert len(moved.rows(1, 5, 1000)) == 5


def test_rows_that_come_during_a_move_are_renumbered_too(opened: Opener) -> None:
    """They were numbered under the old epoch, and follow those that are kept."""
    found = opened(None)
    _fill(found, 5)
    found.begin_move([(2, 2)])
    _fill(found, 2)
    found.finish_move(2)

    assert found.rows(1, 3, 1000) == [b'{"seq":%d,"message":"m"}' % seq for seq in (1, 2, 3)]
    assert found.last_seq == found.written_till == 3
    assert found.append(b'{"x":1}') == 4


def test_a_crash_while_the_file_is_replaced_leaves_the_old_one(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rename is the only moment at which the content changes."""
    found = opened(tmp_path / "b")
    rows = _fill(found, 3)
    opened.written(found, 3)

    def crash(*_: object) -> None:
        raise OSError(errno.EIO, "crash before the rename")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        with pytest.raises(Exception, match="crash before"):
            found.begin_move([(3, 3)])
    found.close()
    assert opened(tmp_path / "b").rows(1, 3, 1000) == rows
    assert not (tmp_path / "b.tmp").exists()


def test_a_rename_that_is_not_durable_leaves_the_rows_readable(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are read by their place in the file: a new one, half adopted, would have other rows there.

    Two of three rows stay, so that their places change; the file takes nothing before it is whole.
    """
    found = opened(tmp_path / "b", memory_bytes_max=0)
    rows = []
    for seq in (1, 2, 3):
        rows += _fill(found, 1, 10 * seq)
        opened.written(found, seq)
    real = bufferfile._sync_folder

    def sync_folder(folder: Path) -> None:
        monkeypatch.setattr(bufferfile, "_sync_folder", real)
        raise OSError(errno.EIO, "the folder is not synced")

    monkeypatch.setattr(bufferfile, "_sync_folder", sync_folder)
    with pytest.raises(BufferFailed, match="not synced"):
        found.begin_move([(2, 3)])
    assert found.rows(1, 3, 1000) == rows

    rows += _fill(found, 1)
    opened.written(found, 4)
    found.close()
    assert opened(tmp_path / "b").rows(1, 4, 1000) == rows


def test_threads_append_without_losing_a_number(opened: Opener, tmp_path: Path) -> None:
    """Eight threads, each row once, in the order of its seq."""
    found = opened(tmp_path / "b")
    threads = [threading.Thread(target=_fill, args=(found, 500)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    opened.written(found, 4000)

    rows = found.rows(1, 4000, 1 << 20)
    assert rows == [b'{"seq":%d,"message":"m"}' % seq for seq in range(1, 4001)]


def test_a_closed_buffer_takes_nothing(opened: Opener, tmp_path: Path) -> None:
    """And may be closed again."""
    found = opened(tmp_path / "b")
    found.close()
    found.close()
    with pytest.raises(ProducerClosed):
        found.append(b'{"x":1}')


def test_a_move_that_comes_after_closing_does_not_touch_the_file(
    opened: Opener, tmp_path: Path
) -> None:
    """The lock is gone: the file may be another producer's by now."""
    found = opened(tmp_path / "b")
    _fill(found, 1)
    found.close()
    before = (tmp_path / "b").read_bytes()
    with pytest.raises(BufferFailed, match="closed"):
        found.finish_move(2)
    assert (tmp_path / "b").read_bytes() == before


def test_a_file_can_be_opened_again_after_a_failed_opening(tmp_path: Path) -> None:
    """The lock does not stay behind."""
    (tmp_path / "b").write_bytes(b"nonsense")
    for _ in range(2):
        with pytest.raises(BufferCorrupt):
            BufferFile(tmp_path / "b")

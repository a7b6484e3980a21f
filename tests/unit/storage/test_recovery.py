"""Reading the log at start: torn ends are cut and kept aside, corruption named, bad sectors survived."""

import errno
import os
from itertools import pairwise
from pathlib import Path

import pytest

from storage.log_format import Record, RecordType
from storage.recovery import log_files, read_log
from storage.wal import Position, file_name
from tests.unit.storage.logs import block_record, file_bytes


def file_record(previous: tuple[int, int]) -> Record:
    return Record(RecordType.FILE, {"format": 1, "node": "n1", "previous": list(previous)})


def write(directory: Path, sequence: int, data: bytes) -> Path:
    path = directory / file_name(sequence)
    path.write_bytes(data)
    return path


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """A log directory and a quarantine."""
    (tmp_path / "log").mkdir()
    return tmp_path / "log", tmp_path / "quarantine"


def test_a_torn_tail_is_kept_aside_then_cut(places: tuple[Path, Path]) -> None:
    """Its bytes are copied before the file is truncated; read again, the file is clean."""
    log, quarantine = places
    data, offsets = file_bytes(
        [(file_record((0, 0)), 0), (block_record(1), 0), (block_record(2), 0)]
    )
    torn = data[offsets[2] : -100]
    path = write(log, 1, data[:-100] + bytes(500))

    (first,) = read_log(log, quarantine, Position(0, 0))
    (second,) = read_log(log, quarantine, Position(0, 0))

    assert [len(one.scan.records) for one in (first, second)] == [2, 2]
    assert second.scan.damages == ()
    assert path.stat().st_size == offsets[2]
    (kept,) = quarantine.iterdir()
    assert kept.name == f"00000001-{offsets[2]:012d}.torn"
    assert kept.read_bytes() == torn.rstrip(b"\0")


def test_corruption_stays_in_the_file_and_is_copied(places: tuple[Path, Path]) -> None:
    """The next file tells that these bytes were durable: they are never cut, not even at the end."""
    log, quarantine = places
    data, offsets = file_bytes([(file_record((0, 0)), 0), (block_record(1), 0)])
    damaged = bytearray(data)
    damaged[offsets[1] + 100] ^= 4
    path = write(log, 1, bytes(damaged))
    write(log, 2, file_bytes([(file_record((1, len(data))), 0)], sequence=2)[0])

    first, second = read_log(log, quarantine, Position(0, 0))

    assert [(d.start, d.end, d.corrupt) for d in first.scan.damages] == [
        (offsets[1], len(data), True)
    ]
    assert second.scan.damages == ()
    assert path.stat().st_size == len(data)
    assert [one.suffix for one in quarantine.iterdir()] == [".corrupt"]


def test_what_stands_behind_the_durable_end_is_not_read(places: tuple[Path, Path]) -> None:
    """A record that the writer gave up on (its sync failed) was never acked."""
    log, quarantine = places
    data, offsets = file_bytes(
        [(file_record((0, 0)), 0), (block_record(1), 0), (block_record(2), 0)]
    )
    write(log, 1, data)
    write(log, 2, file_bytes([(file_record((1, offsets[2])), 0)], sequence=2)[0])

    first, _ = read_log(log, quarantine, Position(0, 0))

    assert [record.offset for record in first.scan.records] == offsets[:2]


def test_reading_begins_at_a_position(places: tuple[Path, Path]) -> None:
    """Earlier files and records are left alone."""
    log, quarantine = places
    data, offsets = b"", [0]
    for sequence in (1, 2, 3):
        records = [(file_record((sequence - 1, len(data))), 0), (block_record(sequence), 0)]
        data, offsets = file_bytes(records, sequence)
        write(log, sequence, data)

    second, third = read_log(log, quarantine, Position(2, offsets[1]))

    assert [record.type for record in second.scan.records] == [RecordType.BLOCK]
    assert [record.type for record in third.scan.records] == [RecordType.FILE, RecordType.BLOCK]


def test_a_bad_sector_does_not_take_the_file_along(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """EIO on one page: the records on the others are found, the hole is reported."""
    log, quarantine = places
    records = [(file_record((0, 0)), 0), *((block_record(n), 0) for n in range(1, 9))]
    data, _ = file_bytes(records)
    data, offsets = file_bytes([*records, (Record(RecordType.COMMIT), len(data))])
    write(log, 1, data)
    real = os.pread

    def pread(fd: int, length: int, offset: int) -> bytes:
        if offset == 4096:
            raise OSError(5, "bad sector")
        return real(fd, length, offset)

    def read_bytes(path: Path) -> bytes:
        raise OSError(5, "bad sector")

    monkeypatch.setattr(os, "pread", pread)
    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    (found,) = read_log(log, quarantine, Position(0, 0))

    lost = [at for at, end in pairwise(offsets) if end > 4096 and at < 8192]
    assert [r.offset for r in found.scan.records] == [at for at in offsets if at not in lost]
    assert len(lost) < len(offsets) - 2
    assert all(damage.corrupt for damage in found.scan.damages)


def test_foreign_files_are_left_alone(places: tuple[Path, Path]) -> None:
    """Only names of digits are ours."""
    log, quarantine = places
    (log / "notes.qlog").write_text("mine")
    (log / "readme").write_text("mine")

    assert log_files(log) == {}
    assert list(read_log(log, quarantine, Position(0, 0))) == []
    assert len(list(log.iterdir())) == 2


def test_a_full_disk_neither_keeps_a_log_from_being_read_nor_costs_torn_bytes(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torn bytes that cannot be copied stay where they are; what is whole is read all the same."""
    log, quarantine = places
    data, _ = file_bytes([(file_record((0, 0)), 0), (block_record(1), 0), (block_record(2), 0)])
    path = write(log, 1, data[:-100])

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as disk:
        disk.setattr(Path, "write_bytes", full)
        (first,) = read_log(log, quarantine, Position(0, 0))
    (second,) = read_log(log, quarantine, Position(0, 0))

    assert [len(one.scan.records) for one in (first, second)] == [2, 2]
    assert len(first.data) == len(data) - 100
    assert [one.suffix for one in quarantine.iterdir()] == [".torn"]
    assert path.stat().st_size < len(data) - 100

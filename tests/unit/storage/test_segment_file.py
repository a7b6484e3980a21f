"""A segment is its block in other order, and a whole Parquet file: for us, for Arrow, Polars and DuckDB."""

import os
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from records.block_codec import EncodedBlock, decode_block
from records.errors import BlockCorrupt, EnvelopeCorrupt
from runtime.metrics import Metrics
from storage.block_files import BlockFiles
from storage.holdings import BlockPlace
from storage.hot import HotSet
from storage.segment_file import (
    MARK,
    NO_HOUR,
    hour_within,
    read_extents,
    segment_files,
    segment_parts,
    segment_path,
)
from storage.segment_open import read_segment_header
from storage.segment_write import write_segment
from tests.unit.storage.samples import SECOND, T0, block_of, plain

GOLDEN = Path(__file__).parent / "golden" / "segment-v1.parquet"
HOUR = 3600 * SECOND


def sample() -> EncodedBlock:
    return block_of(1, plain(1, 40), plain(50, 3, shard=1))


def placed(block: EncodedBlock, number: int = 7) -> BlockPlace:
    header = block.header
    size = len(block.data)
    return BlockPlace(
        0, header.block_id, -number, 0, size, header.rows, header.min_ts, header.max_ts
    )


def test_any_reader_opens_the_file(tmp_path: Path) -> None:
    """Arrow and Polars read all rows, though our front lies between row groups and footer."""
    path = write_segment(tmp_path, 7, sample())

    arrow, polars = pq.ParquetFile(path).read(), pl.read_parquet(path)

    assert arrow.num_rows == len(polars) == 43
    assert arrow["message"].to_pylist()[:2] == ["row 1", "row 2"]
    assert polars["message"].to_list() == arrow["message"].to_pylist()
    assert path.read_bytes().startswith(b"PAR1")


def test_every_range_of_the_block_is_read_back(tmp_path: Path) -> None:
    """Ranges that lie in one region, cross one border, or two: all give the block's own bytes."""
    block = sample()
    write_segment(tmp_path, 7, block)
    files = BlockFiles(tmp_path, tmp_path)
    data, place = bytes(block.data), placed(block)

    assert files.read(place, 0, len(data)) == data
    step = 97
    for start in range(0, len(data), step):
        for length in (1, step, 1000, len(data)):
            kept = data[start : start + length]
            assert files.read(place, start, len(kept)) == kept
    with pytest.raises(BlockCorrupt, match="ends inside"):
        files.read(place, 1, len(data))


def test_the_front_tells_what_the_segment_holds(tmp_path: Path) -> None:
    """Without a catalog: entries with ids, hashes and rows."""
    block = sample()
    path = write_segment(tmp_path, 7, block)

    header, length = read_segment_header(path)

    assert header == block.header
    assert length == len(block.data)


def test_each_flipped_byte_is_found(tmp_path: Path) -> None:
    """On reading the header (at start) or the whole block (before the first use): nothing bad is served."""
    block = block_of(1, plain(1, 2))
    path = write_segment(tmp_path, 7, block)
    good = path.read_bytes()
    for at in range(0, len(good), 3):
        bad = bytearray(good)
        bad[at] ^= 0x10
        path.write_bytes(bytes(bad))
        files = BlockFiles(tmp_path, tmp_path)
        hot = HotSet(tmp_path, 1 << 20, Metrics(), files)

        with pytest.raises((BlockCorrupt, EnvelopeCorrupt)):
            hot.raw(placed(block))


def test_each_cut_is_found(tmp_path: Path) -> None:
    """A file that lost its end is no segment."""
    path = write_segment(tmp_path, 7, block_of(1, plain(1, 2)))
    good = path.read_bytes()
    for end in range(0, len(good), 7):
        path.write_bytes(good[:end])
        with pytest.raises(BlockCorrupt):
            read_segment_header(path)


def test_lies_in_the_folder_of_its_hour() -> None:
    """Hive's `key=value` folders; what spans hours or has no calendar date lies under "no value"."""
    day = datetime(2026, 11, 21, tzinfo=UTC)
    assert int(day.timestamp()) * SECOND == T0

    assert str(segment_path(12, T0, T0 + HOUR - 1)) == "date=2026-11-21/hour=00/00000012.parquet"
    assert segment_path(1, T0 + 23 * HOUR, T0 + 23 * HOUR).parts[1] == "hour=23"
    assert segment_path(1, -1, -1).parts[:2] == ("date=1969-12-31", "hour=23")
    nowhere = (f"date={NO_HOUR}", f"hour={NO_HOUR}")
    assert segment_path(1, T0, T0 + HOUR).parts[:2] == nowhere
    assert segment_path(1, 1 << 60, 1 << 60).parts[:2] == nowhere
    assert hour_within(-(1 << 61), -(1 << 61)) is None


def test_foreign_files_are_no_segments(tmp_path: Path) -> None:
    """Only numbers below the folders of hours count."""
    path = write_segment(tmp_path, 7, sample())
    (path.parent / "notes.parquet").write_bytes(b"x")
    (tmp_path / "00000009.parquet").write_bytes(b"x")

    assert segment_files(tmp_path) == {7: path}


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """A disk that fills up half-way: no draft, no segment, whichever step it is."""
    for failing in ("write", "sync", "rename", "sync folders"):

        def step(name: str, failing: str = failing) -> None:
            if name == failing:
                raise OSError(28, "No space left on device")

        with pytest.raises(OSError, match="No space"):
            write_segment(tmp_path, 7, sample(), step)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_golden_segment_of_version_1_reads_as_it_was_written() -> None:
    """Written once; to be read for ever."""
    header, length = read_segment_header(GOLDEN)

    assert header.rows == 43
    assert [entry.row_count for entry in header.entries] == [40, 3]
    handle = os.open(GOLDEN, os.O_RDONLY)
    extents = read_extents(handle)
    data = b"".join(os.pread(handle, size, at) for at, size in extents.spans(0, length))
    os.close(handle)
    assert decode_block(data).header == header
    assert b"".join(segment_parts(data)) == GOLDEN.read_bytes()
    assert len(data) + MARK.size == GOLDEN.stat().st_size
    assert pl.read_parquet(GOLDEN)["message"].to_list()[-1] == "row 52"

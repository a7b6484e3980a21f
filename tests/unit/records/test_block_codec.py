"""Blocks as bytes: nothing damaged passes, and blocks written by version 1 stay readable for ever."""

from pathlib import Path
from unittest.mock import patch

import pyarrow.parquet as pq
import pytest

from records import block_codec
from records.block import BlockHeader
from records.block_codec import (
    PREFIX_BYTES,
    decode_block,
    decode_header,
    decode_sidecar,
    encode_block,
    open_body,
    parse_prefix,
)
from records.errors import BlockCorrupt
from records.ids import RingEpoch
from tests.unit.records.blocks import BLOCK_ID, entries, plain_entries, rows, small_block

GOLDEN = Path(__file__).parent / "golden" / "block-v1.qlb"
GOLDEN_V2 = Path(__file__).parent / "golden" / "block-sidecar-v2.qlb"


def test_a_block_gives_back_header_and_rows() -> None:
    """Round trip of every header field and every column."""
    block = decode_block(small_block().data)
    parts = parse_prefix(block.data)
    body = memoryview(block.data)[slice(*parts.body)]

    table = open_body(body, block.header.columns).read()

    assert block.header.block_id == BLOCK_ID
    assert block.header.ring_epoch == RingEpoch(5)
    assert block.header.entries == entries()
    assert table.to_pylist() == rows().to_pylist()


def test_the_golden_block_of_version_1_reads_as_it_was_written() -> None:
    """The format is a promise: this file was written once and is never written again."""
    block = decode_block(GOLDEN.read_bytes())
    parts = parse_prefix(block.data)

    table = open_body(memoryview(block.data)[slice(*parts.body)], block.header.columns).read()

    assert block.header.entries == entries()
    assert table.to_pylist() == rows().to_pylist()
    assert decode_sidecar(block.data).services == ("pay", "web")


def test_the_golden_sidecar_of_version_2_reads_and_is_written_as_it_was() -> None:
    """300 rows with filters of words and traces: the same bytes from either builder, today and for ever.

    It was written when row groups had 16,384 rows; how many they have is told in the sidecar.
    """
    golden = GOLDEN_V2.read_bytes()
    with patch.object(block_codec, "ROW_GROUP_ROWS", 16_384):
        fresh = encode_block(BLOCK_ID, RingEpoch(5), rows(300), plain_entries(300), "on").data
    filters = decode_sidecar(golden).filters

    assert filters is not None
    assert set(filters.blocks) == {"message", "trace_id"}
    start, end = parse_prefix(golden).sidecar
    assert bytes(fresh)[start:end] == golden[start:end]


def test_prefix_and_header_bytes_are_fixed() -> None:
    """What we write today is byte for byte what the golden file holds, up to the Parquet body."""
    golden, fresh = GOLDEN.read_bytes(), bytes(small_block().data)
    start = PREFIX_BYTES
    end = parse_prefix(golden).sidecar[1]

    assert fresh[start:end] == golden[start:end]
    assert fresh[:20] == golden[:20]


def test_every_cut_and_every_flipped_byte_is_refused() -> None:
    """Each byte is under one of the four checksums."""
    data = bytes(small_block().data)
    for cut in range(0, len(data), 7):
        with pytest.raises(BlockCorrupt):
            decode_block(data[:cut])
    with pytest.raises(BlockCorrupt):
        decode_block(data + b"\x00")
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0x01
        with pytest.raises(BlockCorrupt):
            decode_block(bytes(damaged))


def test_a_header_can_be_read_without_the_body() -> None:
    """Recovery and pruning read headers only."""
    data = bytes(small_block().data)
    end = parse_prefix(data).header[1]

    assert decode_header(data[:end]).rows == 6


def test_the_body_is_a_parquet_file_that_others_can_read() -> None:
    """No reader of ours is needed: the body alone opens as Parquet with typed timestamps."""
    data = memoryview(bytes(small_block().data))
    body = bytes(data[slice(*parse_prefix(data).body)])

    import io

    table = pq.read_table(io.BytesIO(body))

    assert str(table.schema.field("timestamp").type) == "timestamp[us, tz=UTC]"
    assert table["message"].to_pylist() == [f"message {i}" for i in range(6)]


def test_a_block_of_skips_alone_has_no_body() -> None:
    """A producer may declare sequences lost without sending a row."""
    from dataclasses import replace

    skip = replace(entries()[0], row_count=0, seqs=())
    block = decode_block(encode_block(BLOCK_ID, RingEpoch(1), rows().slice(0, 0), (skip,)).data)

    assert block.header.rows == 0
    assert block.header.entries[0].skips == ((5, 5),)


def test_a_header_whose_entries_do_not_tile_the_rows_is_refused() -> None:
    """Checked on both sides: a writer's mistake must not become a reader's."""
    from dataclasses import replace

    first, second = entries()
    with pytest.raises(BlockCorrupt, match="tile"):
        BlockHeader(BLOCK_ID, RingEpoch(1), 6, 0, 0, (), (first, replace(second, row_start=4)))
    with pytest.raises(BlockCorrupt, match="hold 6 rows"):
        BlockHeader(BLOCK_ID, RingEpoch(1), 7, 0, 0, (), (first, second))

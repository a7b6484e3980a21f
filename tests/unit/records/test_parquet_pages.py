"""Pages are unpacked as Arrow wrote them, or not at all: never wrongly, and never with an error."""

import struct
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from records.block_codec import encode_body
from records.parquet_pages import Page, unpacked

TEXTS = [f"request {i} took {i * 7 % 13} ms" + "é" * (i % 5) for i in range(3000)]


def chunk_of(body: Any, codec: str | None = "zstd") -> tuple[memoryview, int, pa.Codec | None]:
    """The first column's bytes, how many values it has, and what unpacks it."""
    footer = pq.read_metadata(pa.BufferReader(body))
    column = footer.row_group(0).column(0)
    first = column.data_page_offset
    view = memoryview(body)[first : first + column.total_compressed_size]
    return view, column.num_values, pa.Codec(codec) if codec else None


def written(texts: list[str | None], **options: Any) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    settings = {"compression": "zstd", "use_dictionary": False} | options
    pq.write_table(pa.table({"message": texts}), sink, **settings)
    return sink.getvalue()


def values(pages: list[Page]) -> list[str]:
    """Reads the values one by one, as the format says."""
    found = []
    for page in pages:
        at = page.start
        for _ in range(page.rows):
            (length,) = struct.unpack_from("<I", page.data, at)
            found.append(page.data[at + 4 : at + 4 + length].decode())
            at += 4 + length
        assert at == len(page.data)
    return found


def test_the_pages_of_a_block_hold_its_messages() -> None:
    """As blocks are encoded: one page."""
    table = pa.table({"message": pa.array(TEXTS)})

    pages = unpacked(*chunk_of(encode_body(table)))

    assert pages is not None
    assert len(pages) == 1
    assert values(pages) == TEXTS


@pytest.mark.parametrize("codec", ["zstd", None])
def test_several_pages_and_no_compression_are_read(codec: str | None) -> None:
    """Older blocks have pages of 1 MiB; here they are of 1 KiB."""
    options = {"data_page_size": 1024, "write_batch_size": 64, "compression": codec or "none"}

    pages = unpacked(*chunk_of(written(list(TEXTS), **options), codec))

    assert pages is not None
    assert len(pages) > 10
    assert values(pages) == TEXTS


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        (["a", None, "b"] * 100, {}),
        ([None] * 10, {}),
        (["a"] * 100, {"data_page_version": "2.0"}),
        (["abc", "abd"] * 100, {"column_encoding": {"message": "DELTA_BYTE_ARRAY"}}),
        (["abc", "abd"] * 100, {"column_encoding": {"message": "DELTA_LENGTH_BYTE_ARRAY"}}),
        (["abc", "abd"] * 100, {"use_dictionary": True}),
    ],
    ids=["nulls", "all null", "version 2", "prefixes", "lengths", "dictionary"],
)
def test_other_kinds_of_pages_are_declined(texts: list[str | None], options: dict) -> None:
    """Arrow reads them."""
    assert unpacked(*chunk_of(written(texts, **options))) is None


def test_damage_is_declined_or_changes_values_but_never_raises() -> None:
    """Each byte of the page's header cut and flipped in each bit, and a part of its data."""
    view, rows, codec = chunk_of(written(list(TEXTS[:300])))
    whole = bytes(view)
    assert unpacked(memoryview(whole), rows, codec) is not None
    assert unpacked(memoryview(whole), rows + 1, codec) is None

    for at in range(min(200, len(whole))):
        assert unpacked(memoryview(whole[:at]), rows, codec) is None
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[at] ^= 1 << bit
            pages = unpacked(memoryview(flipped), rows, codec)
            assert pages is None or sum(page.rows for page in pages) == rows

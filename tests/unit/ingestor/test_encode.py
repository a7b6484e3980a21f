"""From pieces to a block: rows as they were, per-entry facts as columns, one schema for all."""

import pyarrow as pa

from ingestor.batch import Batch, Identity
from ingestor.encode import encode_pieces, with_facts, without_rows
from ingestor.shards import Piece, sequenced_piece, unsequenced_pieces
from records.block_codec import decode_block, decode_sidecar
from records.columns import CORE_NAMES
from records.ids import block_id
from tests.support.fake_replica import FakeView, rows_of
from tests.support.write_path import BASE, body_batch, numbered_batch, table_of

HOUR = 3_600_000_000
BLOCK = block_id(1_000, b"0123456789")


def piece_of(batch: Batch, received_at: int = BASE) -> Piece:
    """The one piece of a batch."""
    if batch.sequence is not None:
        return sequenced_piece("default", batch.sequence, batch.table, FakeView(), 1, received_at)
    return unsequenced_pieces(batch, FakeView(), received_at, HOUR, 65_536)[0]


def test_rows_and_facts_of_several_requests_come_back_from_the_bytes() -> None:
    """Two tenants, different fields, a sequenced producer: each row with its own facts."""
    pieces = [
        piece_of(body_batch([{"message": "a", "n": 1}, {"message": "b", "n": 2}], tenant="t1")),
        piece_of(body_batch([{"message": "c", "n": 2.5, "city": "X"}], tenant="t2"), BASE + 7),
        piece_of(numbered_batch([4, 5])),
    ]

    block = decode_block(bytes(encode_pieces(pieces, BLOCK).data))

    rows = rows_of(block).to_pylist()
    assert [row["message"] for row in rows] == ["a", "b", "c", "row 4", "row 5"]
    assert [row["tenant"] for row in rows] == ["t1", "t1", "t2", "default", "default"]
    assert [row["producer"] for row in rows] == [None, None, None, "p1", "p1"]
    assert [row["producer_epoch"] for row in rows] == [None, None, None, 1, 1]
    assert [row["n"] for row in rows] == [1.0, 2.0, 2.5, None, None]
    stamps = rows_of(block)["received_at"].cast(pa.int64()).to_pylist()
    assert stamps == [BASE, BASE, BASE + 7, BASE, BASE]
    assert [e.row_start for e in block.header.entries] == [0, 2, 3]
    assert [e.row_count for e in block.header.entries] == [2, 1, 2]


def test_filters_are_built_as_the_setting_says() -> None:
    """Words and traces of 300 rows, or nothing."""
    rows = [{"message": f"row {n}", "trace_id": f"{n:032x}"} for n in range(300)]
    piece = piece_of(body_batch(rows))

    built = decode_sidecar(encode_pieces([piece], BLOCK, "on").data).filters

    assert built is not None
    assert set(built.blocks) == {"message", "trace_id"}
    assert decode_sidecar(encode_pieces([piece], BLOCK, "off").data).filters is None


def test_core_columns_come_first_in_their_order() -> None:
    """A Parquet file that explains itself to whoever opens it."""
    table = with_facts(*_one(body_batch([{"message": "a", "zeta": 1, "alpha": 2}])))
    core = [name for name in table.schema.names if name in CORE_NAMES]

    assert table.schema.names[: len(core)] == core
    assert core == [name for name in CORE_NAMES if name in core]


def test_a_senders_field_named_like_a_fact_is_kept_beside_it() -> None:
    """`tenant` in a row is the sender's word, not ours: it goes to `tenant_`."""
    table = with_facts(*_one(body_batch([{"message": "a", "tenant": "mine", "tenant_": "too"}])))
    row = table.to_pylist()[0]

    assert (row["tenant"], row["tenant_"], row["tenant__"]) == ("default", "too", "mine")


def test_a_block_of_skips_alone_has_no_rows() -> None:
    """It encodes, decodes, and its entry still says what is skipped."""
    piece = piece_of(numbered_batch([], skips=((3, 9),)))

    block = decode_block(bytes(encode_pieces([piece], BLOCK).data))

    assert (block.header.rows, block.header.entries[0].skips) == (0, ((3, 9),))


def test_equal_schemas_with_different_dictionaries_are_laid_side_by_side() -> None:
    """Forty small requests, each with its own dictionary of services."""
    pieces = [piece_of(body_batch([{"service": f"s{i}", "message": f"m{i}"}])) for i in range(40)]

    rows = rows_of(encode_pieces(pieces, BLOCK)).to_pylist()

    assert [(row["service"], row["message"]) for row in rows] == [
        (f"s{i}", f"m{i}") for i in range(40)
    ]


def test_rows_are_taken_out_by_range() -> None:
    """Half-open ranges; both parts keep their order."""
    table = table_of([{"message": text} for text in "abcdef"])

    kept, dropped = without_rows(table, [(1, 3), (5, 6)])

    assert kept["message"].to_pylist() == ["a", "d", "e"]
    assert dropped["message"].to_pylist() == ["b", "c", "f"]


def _one(batch: Batch) -> tuple[pa.Table, tuple]:
    piece = piece_of(batch)
    return piece.tables[0], piece.entries


def test_identity_is_not_part_of_the_rows() -> None:
    """The same rows under two identities: two entries with equal columns."""
    table = table_of([{"message": "a"}])
    pieces = [piece_of(Batch("default", table, Identity(b"s", one))) for one in (b"1", b"2")]
    rows = rows_of(encode_pieces(pieces, BLOCK)).to_pylist()

    assert rows[0] == rows[1]
    assert pieces[0].entries[0].entry_id != pieces[1].entries[0].entry_id

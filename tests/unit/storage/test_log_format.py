"""The log's bytes: each cut and each flip of the last records, and what becomes of the others."""

from pathlib import Path

import pytest

from records.block_codec import decode_header
from storage.log_format import ALIGN, HEAD_BYTES, MAGIC, Record, RecordType, read_file
from tests.unit.storage.logs import block_record, file_bytes

GOLDEN = Path(__file__).parent / "golden" / "log-v1.qlog"
FILE = Record(RecordType.FILE, {"format": 1, "node": "n1", "previous": [0, 0]})


def golden_bytes() -> bytes:
    """One record of each type, as version 1 writes them."""
    records = [
        (FILE, 0),
        (block_record(1), 0),
        (Record(RecordType.FENCE, [3, 7, "ingest-1"]), 1000),
        (Record(RecordType.PRODUCER_EPOCH, [3, "default", "pay", "p", 2]), 1000),
        (Record(RecordType.RING_EPOCH, 4), 1000),
        (Record(RecordType.TOLD, [[["default", "pay", "p", 1], 11]]), 1000),
        (Record(RecordType.COMMIT), 1500),
    ]
    return file_bytes(records)[0]


def test_a_file_of_version_1_stays_readable() -> None:
    """The golden file was written once; its records and their meta must be found for ever."""
    scan = read_file(GOLDEN.read_bytes(), 1)

    assert [record.type for record in scan.records] == [1, 2, 3, 4, 5, 6, 7]
    assert scan.damages == ()
    assert scan.records[0].meta == {"format": 1, "node": "n1", "previous": [0, 0]}
    assert scan.records[2].meta == [3, 7, "ingest-1"]
    assert scan.records[6].durable_upto == 1500
    block = scan.records[1]
    body = GOLDEN.read_bytes()[block.body_offset : block.body_offset + block.body_bytes]
    assert decode_header(body).entries[0].seqs == ((11, 13),)


def test_today_writes_the_golden_bytes() -> None:
    """Framing is fixed byte by byte; the block inside is taken from the golden file itself."""
    golden = GOLDEN.read_bytes()
    scan = read_file(golden, 1)
    records = []
    for found in scan.records:
        body = golden[found.body_offset : found.body_offset + found.body_bytes]
        records.append((Record(RecordType(found.type), found.meta, body), found.durable_upto))

    assert file_bytes(records)[0] == golden


def test_preallocated_zeros_are_no_damage() -> None:
    """A file ends where its last record ends, whatever was preallocated after it."""
    data, _ = file_bytes([(FILE, 0), (block_record(1), 0)])

    scan = read_file(data + bytes(4096), 1)

    assert len(scan.records) == 2
    assert scan.damages == ()
    assert scan.end == len(data)


def test_each_cut_of_the_last_record_is_torn_and_keeps_the_others() -> None:
    """Cut at every byte: records before stay, the rest is cut, and never called corruption."""
    data, offsets = file_bytes([(FILE, 0), (block_record(1), 0), (block_record(2), 0)])
    last = offsets[2]

    for cut in range(last, len(data) - ALIGN):
        scan = read_file(data[:cut] + bytes(64), 1)

        assert [r.offset for r in scan.records] == offsets[:2]
        assert scan.end == last
        assert not any(damage.corrupt for damage in scan.damages)


def test_each_flip_in_a_record_known_durable_is_corruption() -> None:
    """A later record says that these bytes were on disk: the range is named, reading goes on after it."""
    records = [(FILE, 0), (block_record(1), 0), (block_record(2), 0)]
    data, offsets = file_bytes(records)
    data, offsets = file_bytes([*records, (Record(RecordType.COMMIT), len(data))])
    start, end = offsets[1], offsets[2]
    body_end = end - ALIGN

    for at in range(start, body_end):
        flipped = bytearray(data)
        flipped[at] ^= 0x40

        scan = read_file(bytes(flipped), 1)

        assert [r.offset for r in scan.records] == [offsets[0], offsets[2], offsets[3]], at
        assert [(d.start, d.end, d.corrupt) for d in scan.damages] == [(start, end, True)], at


def test_a_flip_past_the_last_durable_mark_is_torn_but_its_neighbour_stays() -> None:
    """Nobody was promised the bytes; the whole record after them is kept all the same."""
    data, offsets = file_bytes([(FILE, 0), (block_record(1), 0), (block_record(2), 0)])
    flipped = bytearray(data)
    flipped[offsets[1] + HEAD_BYTES + 10] ^= 1

    scan = read_file(bytes(flipped), 1)

    assert [r.offset for r in scan.records] == [offsets[0], offsets[2]]
    assert [(d.start, d.corrupt) for d in scan.damages] == [(offsets[1], False)]


def test_the_next_files_word_about_the_end_decides() -> None:
    """With `limit`, damage before it is corruption, and what stands after it was never acked."""
    data, offsets = file_bytes([(FILE, 0), (block_record(1), 0), (block_record(2), 0)])
    limit = offsets[2]
    flipped = bytearray(data)
    flipped[offsets[1] + 60] ^= 1

    scan = read_file(bytes(flipped), 1, limit=limit)

    assert [r.offset for r in scan.records] == [0]
    assert [(d.start, d.end, d.corrupt) for d in scan.damages] == [(offsets[1], limit, True)]


def test_a_record_of_another_file_is_not_taken() -> None:
    """A forged or stale record (other sequence, or other salt) inside damaged bytes is skipped."""
    data, offsets = file_bytes([(FILE, 0), (block_record(1), 0), (block_record(2), 0)])
    foreign, _ = file_bytes([(Record(RecordType.FENCE, [0, 99, "evil"]), 10**6)], sequence=2)
    damaged = bytearray(data)
    at = offsets[1] + 64
    damaged[at : at + len(foreign)] = foreign

    scan = read_file(bytes(damaged), 1)

    assert [r.type for r in scan.records] == [RecordType.FILE, RecordType.BLOCK]
    assert not any(damage.corrupt for damage in scan.damages)


@pytest.mark.parametrize("garbage", [MAGIC * 100, b"\xff" * 5000, MAGIC + b"\x02" + bytes(60)])
def test_garbage_alone_gives_no_records(garbage: bytes) -> None:
    """Nothing in it is believed; all of it is reported."""
    scan = read_file(garbage, 1)

    assert scan.records == ()
    assert scan.end == 0
    assert [(d.start, d.end) for d in scan.damages] == [(0, len(garbage.rstrip(b"\0")))]

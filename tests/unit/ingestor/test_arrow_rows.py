"""Arrow IPC in: the same rows as JSON gives, and nothing believed that a stranger's bytes say."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ingestor.batch import Batch, Identity
from ingestor.enrich import EnrichSettings
from ingestor.intake import Intake, Source
from ingestor.limits import Limits
from ingestor.options import Options
from ingestor.parsers.detect import Format, format_of
from records.errors import InvalidRequest, QuorumlogError, TooLarge

RECEIVED = 1_763_700_000_000_000
KIND = "application/vnd.apache.arrow.stream"


def stream(table: pa.Table, **options: Any) -> bytes:
    """`table` as an IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=3)
    return sink.getvalue().to_pybytes()


def batch_of(body: bytes, form: Format = Format.ARROW, **limits: int) -> Batch:
    """What the write path gets."""
    intake = Intake(Limits(**limits), EnrichSettings())
    source = Source("default", "/ingest", Options(), RECEIVED)
    return intake.batch(body, form, source, Identity(b"a", b"b"))


ROWS = [
    {"timestamp": f"2026-01-0{day}T10:00:00.00000{day}Z", "service": "shop", "level": "WARN",
     "message": f"paid {day} €", "host": "h1", "user_id": day, "ratio": day / 4, "ok": day % 2 == 0}
    for day in range(1, 8)
]  # fmt: skip


def typed(rows: list[dict[str, Any]]) -> pa.Table:
    """The rows with real times and coded columns, as a program would send them."""
    table = pa.Table.from_pylist(rows)
    texts = table["timestamp"].to_pylist()
    times = pa.array(np.array([text.rstrip("Z") for text in texts], "datetime64[us]").view("i8"))
    table = table.set_column(0, "timestamp", times.view(pa.timestamp("us", "UTC")))
    for name in ("service", "level"):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, table[name].dictionary_encode())
    return table


def test_the_content_type_is_told_apart() -> None:
    """By its name, never by its bytes."""
    assert format_of(KIND, "", b"") is Format.ARROW


def test_rows_are_the_same_as_from_json_lines() -> None:
    """Times, levels, services, numbers, booleans and text beyond ASCII; several batches in the stream."""
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()

    fresh, known = batch_of(stream(typed(ROWS))).table, batch_of(lines, Format.LINES).table

    assert fresh.schema.names == known.schema.names
    assert fresh.to_pylist() == known.to_pylist()


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_say_their_unit_and_are_never_guessed(unit: str) -> None:
    """Also the first second of 1970, which as a number would mean the time of receipt."""
    values = pa.array([0, 1, None, 12_345]).view(pa.timestamp(unit))

    made = batch_of(stream(pa.table({"timestamp": values, "message": list("abcd")}))).table

    scale = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]
    nanos = [0, scale, RECEIVED * 1000, 12_345 * scale]
    assert made["timestamp"].cast(pa.int64()).to_pylist() == [one // 1000 for one in nanos]
    if unit == "ns":
        assert made["timestamp_ns"].to_pylist() == [0, 1, None, 345]


def test_columns_of_other_types_become_what_rows_have() -> None:
    """Small and unsigned integers, large text, codes with a null among them, dates, other times."""
    table = pa.table(
        {
            "message": pa.array(["a", "b"], pa.large_string()),
            "small": pa.array([1, -1], pa.int8()),
            "huge": pa.array([1, 2**64 - 1], pa.uint64()),
            "word": pa.DictionaryArray.from_arrays(pa.array([1, 0], pa.int8()), ["x", None]),
            "day": pa.array([0, 1], pa.date32()),
            "at": pa.array([1_500, None]).view(pa.timestamp("ms")),
            "none": pa.nulls(2),
        }
    )

    row, other = (
        batch_of(stream(table))
        .table.select(["message", "small", "huge", "word", "day", "at"])
        .to_pylist()
    )

    assert row == {
        "message": "a", "small": 1, "huge": "1", "word": None,
        "day": "1970-01-01T00:00:00.000000Z", "at": "1970-01-01T00:00:01.500000Z",
    }  # fmt: skip
    assert other["huge"] == str(2**64 - 1)
    assert (other["word"], other["at"]) == ("x", None)


def test_values_that_a_row_cannot_have_make_that_row_bad() -> None:
    """Named by number and reason; their bytes are kept, the other rows are written."""
    times = pa.array([0, 1 << 60, 2, 3], pa.int64()).view(pa.timestamp("s", "UTC"))
    table = pa.table(
        {"timestamp": times, "ratio": [0.5, 1.0, float("nan"), 2.0], "message": list("abcd")}
    )

    batch = batch_of(stream(table))

    assert [(one.row, one.code) for one in batch.rejected] == [
        (2, "bad_timestamp"),
        (3, "bad_number"),
    ]
    assert batch.table["message"].to_pylist() == ["a", "d"]
    assert batch.failed is not None
    assert json.loads(batch.failed["message"][1].as_py())["message"] == "c"


def test_a_row_that_is_too_large_is_bad_though_its_bytes_came_once() -> None:
    """A dictionary makes much of little: what counts is the row written out."""
    codes = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int32()), ["x" * 500, "y"])

    batch = batch_of(stream(pa.table({"message": codes})), row_bytes_max=400)

    assert [(one.row, one.code) for one in batch.rejected] == [(1, "row_too_large")]


def test_a_dictionary_cannot_blow_up() -> None:
    """A long value 50,000 times: refused by its size written out, which is never made."""
    codes = pa.DictionaryArray.from_arrays(pa.array(np.zeros(50_000, np.int32)), ["x" * 100_000])

    with pytest.raises(TooLarge):
        batch_of(stream(pa.table({"message": codes})))


def test_numbered_rows_are_told_by_the_schema() -> None:
    """The envelope stands in the schema's metadata, the numbers in the column `seq`."""
    envelope = {"service": "shop", "producer": "p1", "epoch": 3}
    table = pa.table({"seq": [5, 6, 7], "message": list("abc")})
    table = table.replace_schema_metadata({"quorumlog": json.dumps(envelope)})

    batch = batch_of(stream(table))

    assert batch.sequence is not None
    assert (batch.sequence.service, batch.sequence.producer, batch.sequence.epoch) == (
        "shop", "p1", 3,
    )  # fmt: skip
    assert batch.table["seq"].to_pylist() == [5, 6, 7]


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"x": [[1]]}),
        pa.table({"x": [{"a": 1}]}),
        pa.table({"x": [b"bytes"]}),
        pa.table({"x": pa.array(["a"], pa.string_view())}),
        pa.table([pa.array([1]), pa.array([2])], names=["x", "x"]),
        pa.table([pa.array([1])], names=[""]),
        pa.table({f"x{n}": [1] for n in range(201)}),
    ],
    ids=["list", "struct", "binary", "view", "twice", "nameless", "many"],
)
def test_columns_that_rows_cannot_have_are_refused_by_name(table: pa.Table) -> None:
    """The request as a whole: nothing of it is written."""
    with pytest.raises(InvalidRequest) as caught:
        batch_of(stream(table))
    assert caught.value.details["reason"] == "bad_column"


def test_compressed_buffers_are_refused() -> None:
    """A few bytes could claim to be gigabytes; the request's own encoding has a budget."""
    table = pa.table({"message": ["x" * 10_000] * 10})

    with pytest.raises(InvalidRequest, match="Content-Encoding"):
        batch_of(stream(table, compression="zstd"))


def test_rows_without_bytes_are_counted_before_they_are_made() -> None:
    """A column of nulls has no buffers: a billion rows fit in 400 bytes."""
    batch = pa.record_batch([pa.nulls(1_000_000_000)], names=["x"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)

    with pytest.raises(TooLarge):
        batch_of(sink.getvalue().to_pybytes())


def test_text_that_is_no_utf8_is_refused() -> None:
    """Arrow does not look by itself."""
    text = pa.array([b"good", b"\xff\xfe"]).view(pa.string())

    with pytest.raises(InvalidRequest) as caught:
        batch_of(stream(pa.table({"message": text})))
    assert caught.value.details["reason"] == "bad_arrow"


def test_a_stream_cut_anywhere_or_followed_by_more_is_refused() -> None:
    """Without its end mark it may have lost batches."""
    body = stream(typed(ROWS))

    for end in range(len(body)):
        with pytest.raises(InvalidRequest):
            batch_of(body[:end])
    for more in (b"x", body):
        with pytest.raises(InvalidRequest):
            batch_of(body + more)


def test_a_flipped_byte_is_an_error_or_other_rows_never_a_crash() -> None:
    """Each byte of a small stream, two ways; what is taken is whole and can be encoded."""
    body = stream(typed(ROWS[:2]))
    taken = 0

    for at in range(len(body)):
        for flip in (0x01, 0xFF):
            damaged = body[:at] + bytes([body[at] ^ flip]) + body[at + 1 :]
            try:
                batch = batch_of(damaged)
            except QuorumlogError:
                continue
            batch.table.validate(full=True)
            assert batch.table.num_rows + batch.rejected_count <= 2
            taken += 1

    assert taken > 0

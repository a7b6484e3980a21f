"""Arrow streams that cost far more than their bytes: refused by their metadata, before a batch is read."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ingestor import arrow_rows, arrow_walk
from ingestor.arrow_walk import walk
from ingestor.limits import Limits
from records.errors import InvalidRequest, QuorumlogError, TooLarge
from tests.unit.ingestor.test_arrow_rows import batch_of, stream

LIMITS = Limits()
CODED = pa.schema([("service", pa.dictionary(pa.int32(), pa.string()))])


def written(schema: pa.Schema, batches: list[pa.RecordBatch], **options: Any) -> bytes:
    """The stream of `batches` as they are."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def coded(values: list[str], index: int) -> pa.RecordBatch:
    """One row that refers to `values`."""
    array = pa.DictionaryArray.from_arrays(pa.array([index], pa.int32()), values)
    return pa.record_batch([array], CODED)


def times(body: bytes, count: int) -> bytes:
    """A stream whose only batch is there `count` times."""
    schema = pa.schema([("message", pa.string())])
    head = written(schema, [])[:-8]
    return head + body[len(head) : -8] * count + body[-8:]


def test_batches_without_rows_are_counted() -> None:
    """160 bytes that cost a kilobyte of memory and ten microseconds: a small body may hold a million."""
    one = written(
        pa.schema([("message", pa.string())]),
        [pa.record_batch([pa.array([], pa.string())], ["message"])],
    )

    assert walk(times(one, 1_000), LIMITS) == 0
    with pytest.raises(TooLarge, match="columns of batches"):
        walk(times(one, arrow_walk.PIECES_MAX + 1), LIMITS)


def test_wide_batches_count_by_their_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of 20 columns is 20 pieces."""
    monkeypatch.setattr(arrow_walk, "PIECES_MAX", 100)
    table = pa.table({f"c{number}": np.arange(18) for number in range(20)})

    assert walk(stream(table.slice(0, 15)), LIMITS) == 15  # five batches
    with pytest.raises(TooLarge, match="columns of batches"):
        walk(stream(table), LIMITS)


def test_a_dictionary_counts_for_each_batch_that_refers_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is checked and united anew for every batch."""
    monkeypatch.setattr(arrow_walk, "DICTIONARY_BYTES_MAX", 100_000)
    values = [f"{number:06d}" for number in range(1_000)]  # about 10 kB

    assert walk(written(CODED, [coded(values, n) for n in range(8)]), LIMITS) == 8
    with pytest.raises(TooLarge, match="dictionaries"):
        walk(written(CODED, [coded(values, n) for n in range(12)]), LIMITS)


def test_dictionaries_that_grow_are_refused() -> None:
    """The reader copies the whole for each addition, and every batch keeps its copy: 4 MB made 1.4 GB."""
    grows = [coded([str(n) for n in range(count)], 0) for count in (3, 4, 5)]

    with pytest.raises(InvalidRequest, match="delta"):
        walk(written(CODED, grows, emit_dictionary_deltas=True), LIMITS)
    assert walk(written(CODED, grows), LIMITS) == 3  # whole ones may follow one another


def test_a_schema_of_any_size_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its fields would be made before they could be counted."""
    monkeypatch.setattr(arrow_walk, "SCHEMA_BYTES_MAX", 10_000)
    schema = pa.schema([(f"column {number}", pa.int64()) for number in range(1_000)])

    with pytest.raises(TooLarge, match="schema"):
        walk(written(schema, []), LIMITS)


DEEP = pa.int64()
for _ in range(60):
    DEEP = pa.list_(DEEP)
ODD_TYPES = {
    "deep": DEEP, "struct": pa.struct([("a", pa.int64())]), "map": pa.map_(pa.string(), pa.int64()),
    "decimal": pa.decimal128(9, 2), "duration": pa.duration("us"), "time": pa.time64("us"),
    "binary": pa.binary(), "fixed": pa.binary(4), "view": pa.string_view(), "null": pa.null(),
    "large_list": pa.large_list(pa.string()), "half": pa.float16(), "uuid": pa.uuid(),
    "runs": pa.run_end_encoded(pa.int32(), pa.string()), "interval": pa.month_day_nano_interval(),
    "coded_numbers": pa.dictionary(pa.int8(), pa.int64()),
    "coded_nulls": pa.dictionary(pa.int32(), pa.null()), "zoned": pa.timestamp("ms", "Asia/Kolkata"),
    "union": pa.sparse_union([pa.field("a", pa.int64())]),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD_TYPES)
def test_a_column_of_any_type_is_taken_or_named(name: str) -> None:
    """Rows, or a refusal that tells which column; never another error."""
    kind = ODD_TYPES[name]
    if name == "union":
        array = pa.UnionArray.from_sparse(pa.array([0, 0], pa.int8()), [pa.array([1, 2])])
    else:
        array = pa.nulls(2, kind)
    body = stream(pa.table([pa.array(["x", "y"]), array], names=["message", "odd"]))

    told = ""
    try:
        made = batch_of(body).table
    except QuorumlogError as error:
        made, told = None, error.message

    assert "odd" in told or "Arrow stream" in told or (made is not None and made.num_rows == 2), (
        told
    )


def test_the_bytes_kept_of_bad_rows_are_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad in the parser or later, in windows of any size, over several batches."""
    monkeypatch.setattr(arrow_rows, "WINDOW_ROWS", 8)
    services = ["s" * 500 if n % 3 else "ok" for n in range(100)]
    ratios = [float("nan") if n % 7 == 0 else n / 2 for n in range(100)]
    table = pa.table({"n": list(range(100)), "service": services, "ratio": ratios})

    batch = batch_of(stream(table))

    wanted = [n for n in range(100) if n % 3 or n % 7 == 0]
    assert [row.row - 1 for row in batch.rejected] == wanted
    assert batch.failed is not None
    for n, text in zip(wanted, batch.failed["message"].to_pylist(), strict=True):
        assert f'"n":{n},' in text
    assert batch.table["n"].to_pylist() == sorted(set(range(100)) - set(wanted))

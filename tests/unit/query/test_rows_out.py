"""Encoders of streams: head, pages, tail; a broken stream never reads as a whole one."""

import json

import pyarrow as pa
import pytest

from query.merge import EMPTY
from query.rows_out import ENCODERS
from tests.support.fake_store import table_of
from tests.unit.query.helpers import row

PAGES = [
    table_of([{"_run": b"a" * 16, "_number": i, **row(i)} for i in range(3)]),
    table_of([{"_run": b"b" * 16, "_number": i, **row(9 + i, x=i)} for i in range(2)]),
]


def written(kind: str, pages: list[pa.Table], whole: bool = True) -> bytes:
    """All bytes of a stream."""
    encoder = ENCODERS[kind](None)
    parts = [encoder.head(pages[0] if pages else None), *(encoder.page(one) for one in pages)]
    parts.append(encoder.tail() if whole else encoder.error({"code": "X"}))
    return b"".join(parts)


def test_ndjson() -> None:
    """A line a row, nothing else."""
    lines = written("ndjson", PAGES).splitlines()

    assert [json.loads(line)["_id"][-1] for line in lines] == ["0", "1", "2", "0", "1"]


def test_csv_has_its_header_once() -> None:
    """One header for all pages, also for none."""
    assert written("csv", PAGES).count(b"_id,timestamp") == 1
    assert len(written("csv", PAGES).splitlines()) == 6
    assert len(written("csv", []).splitlines()) == 1


@pytest.mark.parametrize("pages", [PAGES, [], [EMPTY]])
def test_arrow(pages: list[pa.Table]) -> None:
    """One IPC stream, also of no rows."""
    table = pa.ipc.open_stream(written("arrow", pages)).read_all()

    assert table.num_rows == sum(one.num_rows for one in pages)
    assert table.column_names[:2] == ["_id", "timestamp"]


def test_a_broken_stream_says_so_where_it_can() -> None:
    """NDJSON: a last line with the error. CSV and Arrow: nothing that looks like a row."""
    last = written("ndjson", PAGES, whole=False).splitlines()[-1]

    assert json.loads(last) == {"error": {"code": "X"}}
    assert written("csv", PAGES, whole=False) == written("csv", PAGES)
    assert len(written("arrow", PAGES, whole=False)) < len(written("arrow", PAGES))

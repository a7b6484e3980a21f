"""Columns of the shop as bytes of lines: JSON, CSV, plain, CLF. Joined by Arrow, column by column.

No text of the shop holds a quote, a backslash or a line end, so nothing has to be escaped; the tests
read each format back with an independent parser.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as arrow_compute

from node.simulate.generator import digits

pc: Any = arrow_compute  # its functions are made at import, unseen by type checkers

FORMATS = ("json", "csv", "plain", "clf")
CSV_COLUMNS = (
    "timestamp", "service", "level", "message", "trace_id", "span_id", "parent_id", "user_id",
    "session_id", "operation", "host", "region", "duration_ms", "status",
)  # fmt: skip
CSV_HEADER = (",".join(CSV_COLUMNS) + "\n").encode()


def times(micros: pa.ChunkedArray | pa.Array) -> pa.Array:
    """RFC 3339 with microseconds."""
    text = pc.cast(pc.cast(micros, pa.timestamp("us")), pa.string())
    day = pc.utf8_slice_codeunits(text, 0, 10)
    clock = pc.utf8_slice_codeunits(text, 11)
    return pc.binary_join_element_wise(day, "T", clock, "Z", "")


def _present(before: str, values: pa.ChunkedArray, after: str) -> pa.ChunkedArray:
    """`before value after`, or nothing where the value is null."""
    if not pa.types.is_string(values.type):
        values = pc.cast(values, pa.string())
    return pc.fill_null(pc.binary_join_element_wise(before, values, after, ""), "")


def _joined(*parts: object) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(*parts, "")


def json_lines(rows: pa.Table) -> pa.ChunkedArray:
    """One JSON object a line; absent fields are left out."""
    return _joined(
        '{"timestamp":"', times(rows["timestamp"]),
        '","service":"', rows["service"],
        '","level":"', rows["level"],
        '","message":"', rows["message"],
        '","trace_id":"', rows["trace_id"],
        '","span_id":"', rows["span_id"],
        _present('","parent_id":"', rows["parent_id"], ""),
        '","user_id":"', rows["user_id"],
        '","session_id":"', rows["session_id"],
        '","operation":"', rows["operation"],
        '","host":"', rows["host"],
        '","region":"', rows["region"],
        '","duration_ms":', digits(rows["duration_ms"].to_numpy()),
        _present(',"status":', rows["status"], ""),
        "}\n",
    )  # fmt: skip


def csv_lines(rows: pa.Table) -> pa.ChunkedArray:
    """RFC 4180 without its header; the message is quoted, absent fields are empty."""
    parts: list[object] = [times(rows["timestamp"])]
    for name in CSV_COLUMNS[1:]:
        if name == "message":
            parts += [',"', rows[name], '"']
        else:
            parts += [",", _present("", rows[name], "")]
    return _joined(*parts, "\n")


def plain_lines(rows: pa.Table) -> pa.ChunkedArray:
    """`time LEVEL service message trace_id=… duration_ms=…`, as a log file of old."""
    return _joined(
        times(rows["timestamp"]), " ", pc.utf8_upper(rows["level"]), " ", rows["service"],
        " ", rows["message"], " trace_id=", rows["trace_id"],
        " duration_ms=", digits(rows["duration_ms"].to_numpy()), "\n",
    )  # fmt: skip


def clf_lines(rows: pa.Table) -> pa.ChunkedArray:
    """Apache's combined log format, from the columns of `generator.access_of`."""
    when = pc.cast(pc.divide(rows["timestamp"], 1_000_000), pa.timestamp("s"))
    return _joined(
        rows["ip"], " - ", rows["user_id"], " [", pc.strftime(when, "%d/%b/%Y:%H:%M:%S"),
        ' +0000] "', rows["method"], " ", rows["path"], ' HTTP/1.1" ',
        digits(rows["status"].to_numpy()), " ", digits(rows["bytes"].to_numpy()),
        ' "', rows["referer"], '" "', rows["agent"], '"\n',
    )  # fmt: skip


LINES: dict[str, Callable[[pa.Table], pa.ChunkedArray]] = {
    "json": json_lines, "csv": csv_lines, "plain": plain_lines, "clf": clf_lines,
}  # fmt: skip


def to_bytes(lines: pa.ChunkedArray | pa.Array) -> bytes:
    """The lines end to end; one copy."""
    chunks = lines.chunks if isinstance(lines, pa.ChunkedArray) else [lines]
    parts = []
    for chunk in chunks:
        _, offsets, data = chunk.buffers()
        if data is None:
            continue
        ends = np.frombuffer(offsets, np.int32)
        first, last = ends[chunk.offset], ends[chunk.offset + len(chunk)]
        parts.append(memoryview(data)[first:last])
    return b"".join(parts)

"""A body's lines as one string column, without a loop; and what the text parsers share."""

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute

from ingestor.timestamps import read_times

pc: Any = pyarrow.compute


def text_lines(body: bytes) -> pa.Array:
    """The lines of `body` (UTF-8) that are not empty, without their line ends."""
    data = np.frombuffer(body, np.uint8)
    ends = np.flatnonzero(data == ord("\n")) + 1
    if len(body) and (ends.size == 0 or ends[-1] != len(body)):
        ends = np.append(ends, len(body))
    offsets = np.concatenate(([0], ends)).astype(np.int32)
    lines = pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(body))
    lines = pc.utf8_rtrim(lines, characters="\r\n")
    full = pc.not_equal(lines, pa.scalar("", pa.string()))
    return lines if pc.all(full).as_py() else lines.filter(full)


def strings(series: pl.Series) -> pa.Array:
    """A polars series of text as Arrow's plain strings."""
    return series.to_arrow().cast(pa.string())


def only_times(column: pa.Array) -> pa.Array:
    """Values that are no times as null: in raw text a bad time costs nothing but itself."""
    bad = read_times(column, 0).bad
    return pc.if_else(pa.array(bad), pa.scalar(None, pa.string()), column) if bad.any() else column

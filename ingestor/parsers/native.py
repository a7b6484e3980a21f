"""The native JSON kernel, if it is installed: the one place that knows `quorumlog_native`.

The kernel takes lines that are surely good and lists the others. `strict_json` judges those: a bad one
becomes a bad row with Python's own words; if one turns out good, the batch is not the kernel's. So the
result is that of the slow way over the whole, which `tests/native` shows; without the kernel everything
works the same, slower.

`QUORUMLOG_NATIVE=0` in the environment leaves the kernel alone.
"""

import logging
import os
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa

from ingestor.limits import Limits
from ingestor.parsers.base import BadRow, Parsed, RowError
from ingestor.parsers.strict_json import read_row
from ingestor.parsers.strict_lines import RawLines

log = logging.getLogger(__name__)

#: The meaning of the kernel's answers that this file reads; another version is left alone.
KERNEL_VERSION = 1
#: Lines that Python judges one by one in a batch; with more of them the Python path reads it all.
DOUBTS_MAX = 20_000
_TIME = pa.timestamp("us", "UTC")
_TYPES = {"int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_(), "string": pa.string()}


@dataclass(frozen=True, slots=True)
class Hints:
    """What may come in another form than text: names of times and of texts with few distinct values.

    Only of use to one who takes such columns: `timestamps.read_times`, and dictionary columns.
    """

    times: tuple[str, ...] = ()
    dictionaries: tuple[str, ...] = ()


NO_HINTS = Hints()


def load() -> tuple[ModuleType | None, str]:
    """The kernel and its version, or None and why it is not used."""
    if os.environ.get("QUORUMLOG_NATIVE") == "0":
        return None, "switched off by QUORUMLOG_NATIVE=0"
    try:
        import quorumlog_native
    except ImportError as error:
        return None, f"not installed ({error})"
    version = quorumlog_native.kernel_version()
    if version != KERNEL_VERSION:
        return None, f"its version is {version}, {KERNEL_VERSION} is expected; build it anew"
    if not hasattr(quorumlog_native, "parse_ndjson"):
        return None, "it has no reader of JSON lines; build it anew"
    return quorumlog_native, f"version {version}"


_kernel, _why = load()


def available() -> bool:
    """Whether the kernel reads JSON lines."""
    return _kernel is not None


def described() -> str:
    """The kernel's version, or why there is none."""
    return _why


def parse(body: bytes, limits: Limits, hints: Hints = NO_HINTS) -> Parsed | None:
    """The rows of `body` (JSON lines), good and bad; None without a kernel, or when it declines.

    `columns` are as the slow way's, but for the names in `hints`: dictionary columns, and times as
    microseconds UTC, or as a struct of these (`micros`) and the digits below (`nanos`).
    """
    global _kernel, _why
    if _kernel is None:
        return None
    bounds = (
        limits.row_bytes_max,
        limits.row_fields,
        limits.name_bytes,
        limits.depth,
        limits.columns_sure,
        DOUBTS_MAX,
    )
    try:
        found = _kernel.parse_ndjson(body, bounds, list(hints.dictionaries), list(hints.times))
    except RuntimeError as error:  # it panicked: our mistake, and no reason to lose a row
        log.error("native kernel failed, not used any more", extra={"reason": str(error)})
        _kernel, _why = None, str(error)
        return None
    if found is None:
        return None
    rows, columns, doubts = found
    bad = _judged(body, limits, doubts)
    if bad is None:
        return None
    made = {lent[0]: _array(lent, fine, rows) for lent, fine in columns}
    return Parsed(made, rows, RawLines(body), _numbers(rows, bad), bad)


def _judged(body: bytes, limits: Limits, doubts: list[tuple[int, int, int]]) -> list[BadRow] | None:
    """The doubtful lines with what is wrong with them; None if nothing is, with one of them."""
    bad = []
    for number, begin, end in doubts:
        line = body[begin:end]
        try:
            read_row(line, limits)
        except RowError as error:
            raw = line[: limits.failed_row_bytes]
            bad.append(BadRow(number, error.code, error.reason, raw))
        else:
            return None
    return bad


def _numbers(rows: int, bad: list[BadRow]) -> np.ndarray | None:
    """The numbers of the good rows in the request, from 1; None if all are good."""
    if not bad:
        return None
    good = np.ones(rows + len(bad), bool)
    good[[row.number - 1 for row in bad]] = False
    return np.flatnonzero(good) + 1


def _array(lent: Any, fine: Any, rows: int) -> pa.Array:
    _, kind, nulls, validity, buffers = lent
    if kind == "dictionary":
        indices, *values = buffers
        size = len(memoryview(values[0])) // 4 - 1
        return pa.DictionaryArray.from_arrays(
            _from_buffers(pa.int32(), rows, nulls, validity, [indices]),
            _from_buffers(pa.string(), size, 0, None, values),
            safe=False,
        )
    if kind != "time":
        return _from_buffers(_TYPES[kind], rows, nulls, validity, buffers)
    micros = _from_buffers(_TIME, rows, nulls, validity, buffers)
    if fine is None:
        return micros
    nanos = _from_buffers(pa.int16(), rows, fine[0], fine[1], [fine[2]])
    names = ["micros", "nanos"]
    return pa.StructArray.from_arrays([micros, nanos], names, mask=micros.is_null())


def _from_buffers(
    kind: pa.DataType, rows: int, nulls: int, validity: Any, buffers: list[Any]
) -> pa.Array:
    mask = None if validity is None else pa.py_buffer(validity)
    return pa.Array.from_buffers(
        kind, rows, [mask, *(pa.py_buffer(buffer) for buffer in buffers)], nulls
    )

"""Web servers' access logs in the Common and Combined Log Format, by column.

    203.0.113.9 - bo [21/Nov/2026:00:00:00 +0000] "GET /a?x=1 HTTP/1.1" 502 17 "-" "curl/8.5"

`-` is absence. The level follows from the status. `\\"` and `\\xHH` (as nginx and Apache write them) are
decoded. A request that is not three words goes whole into `request`.
"""

import calendar
import re
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute

from ingestor.parsers.lines import only_times, strings

pc: Any = pyarrow.compute

_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_COMMON = (
    r"^(\S+) (\S+) (\S+) \[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] "
    + _QUOTED
    + r" (\d{3}|-) (\d+|-)"
)
_COMBINED_END = r" " + _QUOTED + r" " + _QUOTED + r"\s*$"
_REQUEST = r"^([A-Z]+) (\S+) (HTTP/\S+)$"
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
_MONTHS = pa.array(list(calendar.month_abbr)[1:])
_NUMBERS = pa.array([f"{month:02}" for month in range(1, 13)])
_NAMES = ("client_ip", "ident", "user", "timestamp", "message", "status", "bytes")

Columns = dict[str, pa.Array]


def read_combined(lines: pl.Series) -> tuple[Columns, pl.Series]:
    """(columns, which lines fit)."""
    return _read(lines, _COMMON + _COMBINED_END, (*_NAMES, "referer", "user_agent"))


def read_common(lines: pl.Series) -> tuple[Columns, pl.Series]:
    """(columns, which lines fit)."""
    return _read(lines, _COMMON + r"\s*$", _NAMES)


def _read(lines: pl.Series, pattern: str, names: tuple[str, ...]) -> tuple[Columns, pl.Series]:
    parts = lines.str.extract_groups(pattern)
    columns = {
        name: _absent(strings(parts.struct.field(str(index))))
        for index, name in enumerate(names, 1)
    }
    fits = parts.struct.field("4").is_not_null()
    columns["timestamp"] = _iso(columns["timestamp"])
    for name in ("message", "referer", "user_agent"):
        if name in columns:
            columns[name] = _decoded(columns[name])
    columns["level"] = _level(columns["status"])
    _add_request(columns)
    columns["_raw"] = strings(lines)
    return columns, fits


def _absent(column: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(column, "-"), pa.scalar(None, pa.string()), column)


def _iso(column: pa.Array) -> pa.Array:
    """`21/Nov/2026:00:00:00 +0000` as `2026-11-21T00:00:00+0000`; no such month as null."""
    month = _NUMBERS.take(pc.index_in(pc.utf8_slice_codeunits(column, 3, 6), value_set=_MONTHS))
    date = pc.binary_join_element_wise(
        pc.utf8_slice_codeunits(column, 7, 11), month, pc.utf8_slice_codeunits(column, 0, 2), "-"
    )
    clock = pc.binary_join_element_wise(
        pc.utf8_slice_codeunits(column, 12, 20), pc.utf8_slice_codeunits(column, 21, 26), ""
    )
    return only_times(pc.binary_join_element_wise(date, clock, "T"))


def _level(status: pa.Array) -> pa.Array:
    first = pc.utf8_slice_codeunits(status.fill_null("0"), 0, 1)
    return pc.if_else(
        pc.equal(first, "5"), "error", pc.if_else(pc.equal(first, "4"), "warn", "info")
    )


def _add_request(columns: Columns) -> None:
    request = pl.Series(columns["message"], dtype=pl.String)
    words = request.str.extract_groups(_REQUEST)
    target = words.struct.field("2")
    columns["method"] = strings(words.struct.field("1"))
    columns["path"] = strings(target.str.extract(r"^([^?]*)", 1))
    columns["query"] = strings(target.str.extract(r"\?(.*)$", 1))
    columns["protocol"] = strings(words.struct.field("3"))
    odd = pc.and_(columns["message"].is_valid(), columns["method"].is_null())
    columns["request"] = pc.if_else(odd, columns["message"], pa.scalar(None, pa.string()))


def _decoded(column: pa.Array) -> pa.Array:
    """Escapes decoded; only values that have one are touched."""
    escaped = pc.fill_null(pc.match_substring(column, "\\"), False)
    if not pc.any(escaped).as_py():
        return column
    texts = [_unescape(text) for text in column.filter(escaped).to_pylist()]
    return pc.replace_with_mask(column, escaped, pa.array(texts, pa.string()))


def _unescape(text: str) -> str:
    def one(found: re.Match[str]) -> str:
        code = found.group(1)
        simple = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "v": "\v"}
        return chr(int(code[1:], 16)) if len(code) == 3 else simple.get(code, code)

    decoded = _ESCAPE.sub(one, text)
    try:  # \xHH are bytes: those that make up UTF-8 are put together again
        return decoded.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return decoded

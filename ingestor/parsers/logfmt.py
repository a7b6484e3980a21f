"""logfmt: `key=value` pairs, values bare or in double quotes; a key alone is `true`. By column.

A line fits if it has two pairs or more; a body is taken for logfmt if its lines also begin with one, as
plain text often ends with some. Of a key that stands twice in a line the first value is kept.
"""

import re
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute

pc: Any = pyarrow.compute

_PAIR = r'[^\s="]+(?:=(?:"(?:[^"\\]|\\.)*"|[^\s"]*))?'
_LINE = r'^\s*(?:[^\s="]+(?:=(?:"(?:[^"\\]|\\.)*"|[^\s"]*))?\s*)+$'
#: How a line begins that is told as logfmt without being asked.
BEGINS = r'^\s*[^\s="]+='
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
#: Keys of one body that become columns; the rest stands in `_raw`.
KEYS_MAX = 200

Columns = dict[str, pa.Array]


def read_logfmt(lines: pl.Series) -> tuple[Columns, pl.Series]:
    """(columns, which lines fit)."""
    pairs = lines.str.extract_all(_PAIR)
    fits = lines.str.contains(_LINE) & (lines.str.count_matches(r'(?:^|\s)[^\s="]+=') >= 2)
    counts = pairs.list.len().to_numpy()
    rows = np.repeat(np.arange(len(lines)), counts)
    flat = pairs.explode(empty_as_null=False) if len(rows) else pl.Series([], dtype=pl.String)
    keys = flat.str.extract(r"^([^=]+)", 1)
    values = _values(flat)
    columns = _by_key(keys, values, rows, len(lines))
    for name in ("message", "msg"):
        if name in columns:
            break
    else:
        columns["message"] = pa.repeat("", len(lines))
    if "message" not in columns:
        columns["message"] = columns.pop("msg")
    columns["_raw"] = lines.to_arrow().cast(pa.string())
    return columns, fits


def _values(flat: pl.Series) -> pa.Array:
    texts = flat.str.extract(r"(?s)^[^=]+=(.*)$", 1).fill_null("true")
    inner = texts.str.extract(r'(?s)^"(.*)"$', 1)
    column = inner.fill_null(texts).to_arrow().cast(pa.string())
    escaped = pc.and_(
        pc.match_substring(column, "\\"), inner.is_not_null().to_arrow().cast(pa.bool_())
    )
    if not pc.any(escaped).as_py():
        return column
    decoded = [_ESCAPE.sub(_one, text) for text in column.filter(escaped).to_pylist()]
    return pc.replace_with_mask(column, escaped, pa.array(decoded, pa.string()))


def _one(found: re.Match[str]) -> str:
    return {"n": "\n", "t": "\t", "r": "\r"}.get(found.group(1), found.group(1))


def _by_key(keys: pl.Series, values: pa.Array, rows: np.ndarray, size: int) -> Columns:
    """One column a key; `rows[i]` is the line that pair i stands in."""
    columns: Columns = {}
    encoded = keys.to_arrow().cast(pa.string()).dictionary_encode()
    names = encoded.dictionary.to_pylist()
    codes = np.asarray(encoded.indices)
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(len(names) + 1))
    for code, name in enumerate(names[:KEYS_MAX]):
        at = order[bounds[code] : bounds[code + 1]]
        lines, first = np.unique(rows[at], return_index=True)
        where = np.full(size, -1, np.int64)
        where[lines] = at[first]
        columns[name] = values.take(pa.array(where, mask=where < 0))
    return columns

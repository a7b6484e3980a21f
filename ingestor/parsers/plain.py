"""Raw text, one record a line, parsed by what its format says: §13 of docs/protocol.md.

Parsing never rejects: a line that does not fit is a good row with the line as message and `_parse=miss`.
Where the message is less than the line, the line is kept as `_raw`. Each format is one or two regular
expressions over the whole column, by polars (Rust's `regex`: linear time, no back-tracking).
"""

from collections.abc import Callable
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute

from ingestor.limits import Limits
from ingestor.parsers import access_log, logfmt
from ingestor.parsers.base import Parsed
from ingestor.parsers.json_lines import parse_json_lines
from ingestor.parsers.learned import LearnedSchemas
from ingestor.parsers.lines import only_times, strings, text_lines
from ingestor.parsers.strict_lines import Keep
from records.errors import TooLarge

pc: Any = pyarrow.compute

#: Lines that decide in `auto`, and how many of them a format has to fit.
AUTO_LINES, AUTO_FIT = 20, 0.9
_TIME = r"^\s*\[?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)"
_LEVEL = r"\b(TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL)\b"
_LEVEL_WITHIN = 64
_CRI = r"^(\S+) (stdout|stderr) ([FP]) ?((?s).*)$"
_CONTINUES = r"^(?:\s|Caused by:|Traceback|\.\.\. \d+ more)"
_TRACEPARENT = r"\b00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}\b"
_TRACE_ID = r"(?i)\btrace_?id\W{1,3}([0-9a-f]{16,32})\b"

Columns = dict[str, pa.Array]
#: (columns of all lines, which lines fit)
Reader = Callable[[pl.Series], tuple[Columns, pl.Series]]


def parse_text(
    body: bytes, form: str, limits: Limits, learned: LearnedSchemas, key: Any, keep: Keep
) -> Parsed:
    """The rows of `body` read as `form`: auto, json, cri, combined, common, logfmt or plain.

    Raises:
        TooLarge: more lines than a document may have rows.
    """
    if form == "json":
        return parse_json_lines(body, limits, learned, key, keep)
    text = body if body.isascii() else body.decode("utf-8", "replace").encode()
    lines = pl.Series("line", text_lines(text), dtype=pl.String)
    if len(lines) > limits.document_rows:
        raise TooLarge(f"more than {limits.document_rows} rows in one document")
    if form == "auto":
        form = detect(lines.head(AUTO_LINES))
        if form == "json":
            return parse_json_lines(body, limits, learned, key, keep)
    if form == "plain":
        return _parsed(_plain(_joined(lines)))
    if form == "cri":
        lines = _whole_records(lines)
    columns, fits = READERS[form](lines)
    if not fits.all():
        _mark_misses(columns, lines, fits)
    _add_trace_ids(columns)
    return _parsed(columns)


def detect(lines: pl.Series) -> str:
    """The first format, in the order of the table, that fits nine of ten lines."""
    if len(lines) == 0:
        return "plain"
    least = AUTO_FIT * len(lines)
    if lines.str.contains(r"^\s*\{.*\}\s*$").sum() >= least:
        return "json"
    for name, reader in READERS.items():
        begins = lines.str.contains(logfmt.BEGINS) if name == "logfmt" else True
        if (reader(lines)[1] & begins).sum() >= least:
            return name
    return "plain"


def _parsed(columns: Columns) -> Parsed:
    rows = len(columns["message"])
    kept = {name: column for name, column in columns.items() if column.null_count < rows}
    return Parsed(kept, rows, lambda number: str(columns["message"][number - 1]).encode())


def _mark_misses(columns: Columns, lines: pl.Series, fits: pl.Series) -> None:
    fit = fits.to_arrow()
    nothing = pa.scalar(None, pa.string())
    for name, column in columns.items():
        columns[name] = pc.if_else(fit, column, nothing)
    columns["message"] = pc.if_else(fit, columns["message"], lines.to_arrow().cast(pa.string()))
    columns["_parse"] = pc.if_else(fit, nothing, "miss")


def _joined(lines: pl.Series) -> pl.Series:
    """Lines that continue the one before (stack traces) joined to it."""
    continues = lines.str.contains(_CONTINUES)
    if not continues.any():
        return lines
    frame = pl.DataFrame({"line": lines, "group": (~continues).cum_sum()})
    return frame.group_by("group", maintain_order=True).agg(pl.col("line").str.join("\n"))["line"]


def _plain(lines: pl.Series) -> Columns:
    levels = lines.str.slice(0, _LEVEL_WITHIN).str.extract(_LEVEL, 1)
    columns = {
        "message": strings(lines),
        "timestamp": only_times(strings(lines.str.extract(_TIME, 1))),
        "level": strings(levels),
    }
    _add_trace_ids(columns)
    return columns


def _add_trace_ids(columns: Columns) -> None:
    """Ids found in the message, where the line gave none of its own."""
    if "trace_id" in columns:
        return
    messages = pl.Series(columns["message"])
    if not (messages.str.contains("(?i)trace").any() or messages.str.contains(_TRACEPARENT).any()):
        return
    parent = messages.str.extract_groups(_TRACEPARENT)
    plain_id = messages.str.extract(_TRACE_ID, 1)
    columns["trace_id"] = strings(parent.struct.field("1").fill_null(plain_id))
    if "span_id" not in columns:
        columns["span_id"] = strings(parent.struct.field("2"))


def _cri(lines: pl.Series) -> tuple[Columns, pl.Series]:
    """Kubernetes' container log."""
    parts = lines.str.extract_groups(_CRI)
    columns = {
        "timestamp": only_times(strings(parts.struct.field("1"))),
        "stream": strings(parts.struct.field("2")),
        "message": strings(parts.struct.field("4")),
    }
    return columns, parts.struct.field("1").is_not_null()


def _whole_records(lines: pl.Series) -> pl.Series:
    """Parts (`P`) joined up to the line (`F`) of the same stream that ends them, under the first's time."""
    parts = lines.str.extract_groups(_CRI)
    tag = parts.struct.field("3")
    if not (tag == "P").any():
        return lines
    frame = pl.DataFrame(
        {
            "line": lines,
            "head": lines.str.extract(r"^(\S+ \S+ )", 1),
            "stream": parts.struct.field("2"),
            "text": parts.struct.field("4"),
            "ends": (tag != "P").fill_null(True),
        }
    )
    before = pl.col("ends").cast(pl.Int64).cum_sum().over("stream") - pl.col("ends").cast(pl.Int64)
    joined = (
        frame.with_columns(group=before)
        .group_by("stream", "group", maintain_order=True)
        .agg(pl.col("line", "head").first(), pl.col("text").str.join(""))
    )
    whole = (
        pl.when(pl.col("stream").is_null())
        .then("line")
        .otherwise(pl.concat_str("head", pl.lit("F "), "text"))
    )
    return joined.select(whole.alias("line"))["line"]


READERS: dict[str, Reader] = {
    "cri": _cri,
    "combined": access_log.read_combined,
    "common": access_log.read_common,
    "logfmt": logfmt.read_logfmt,
}

"""From a parser's columns to the canonical ones: which field is the time, the message, the service.

The first name that a row has wins, row by row, in the order of the tables below (docs/protocol.md, 0.7).
What happens to the source's own name:

* time, message, level and TraceHub's camel-case ids are *moved*: the canonical column holds them;
* names of service, host and dotted ids stay fields as well, since people search for them;
* a lower name stays a field where a higher one won, so that no value is lost.

A time under a weak name (`time`, `ts`, …) that cannot be one is an ordinary field; under a strong name it
makes the row bad. A row without a message has the empty one; one without a service belongs to `unknown`.
A field whose name we need ourselves (`tenant`, `seq`, `_row`, …) is kept as `source_<name>`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from ingestor.enrich import (
    DEFAULT_LEVEL,
    OTEL_FIELDS,
    SYSLOG_FIELDS,
    EnrichSettings,
    constant,
    normal_levels,
)
from ingestor.options import Options, matches
from ingestor.parsers.base import quoted
from ingestor.parsers.native import NO_HINTS, Hints
from ingestor.parsers.row_columns import ATTRIBUTES, OVERFLOW, json_text
from ingestor.timestamps import read_times
from records.columns import CORE_NAMES, CORE_TYPES, DICTIONARY, REQUIRED_NAMES

pc: Any = pyarrow.compute
STRING = pa.string()
#: Typed, since pyarrow's inference looks for pandas at each call: longer than a small request takes.
EMPTY, NOTHING = pa.scalar("", STRING), pa.scalar(None, STRING)

STRONG_TIME = ("timestamp", "@timestamp", "_time")
WEAK_TIME = ("time", "ts", "datetime")
MESSAGE = ("message", "msg", "log", "MESSAGE", "short_message", "event", "body", "line", "_msg")
SERVICE = (
    "service", "service.name", "service_name", "app", "job", "container_name", "_SYSTEMD_UNIT",
    "appname", "tag",
)  # fmt: skip
HOST = ("host", "hostname", "host.name", "_HOSTNAME", "instance")
LEVEL = (
    "level", "severity", "log.level", "lvl", "loglevel", "log_level", "levelname", "severity_text",
    "severityText", "severity_number", "severityNumber", "PRIORITY", "syslog_severity",
    "log.syslog.severity.code",
)  # fmt: skip
IDS = {
    "trace_id": ("trace_id", "traceId", "trace.id", "traceID"),
    "span_id": ("span_id", "spanId", "span.id"),
    "parent_id": ("parent_id", "parentSpanId", "parent_span_id", "parent.id", "parentId"),
    "request_id": ("requestId", "request_id", "http.request.id", "x-request-id"),
}
_MOVED_IDS = frozenset(
    {"trace_id", "traceId", "span_id", "spanId", "parent_id", "parentId", "request_id", "requestId"}
)
_NUMBER_LEVELS = OTEL_FIELDS | SYSLOG_FIELDS
DEFAULT_SERVICE = "unknown"
RESERVED = frozenset(
    {"tenant", "producer", "producer_epoch", "received_at", "seq", "timestamp_ns", "attributes"}
    | {"_id", "_run", "_number", "_bucket", "_overflow", "_truncated"}
)
#: Weak names of the time need a number above this (1973) to be one, in seconds.
_WEAK_LEAST = 100_000_000
_WEAK_LEAST_MICROS = _WEAK_LEAST * 1_000_000
_ANSI = "\x1b\\[[0-?]*[ -/]*[@-~]"
_SOURCES = frozenset(
    {*STRONG_TIME, *WEAK_TIME, *MESSAGE, *SERVICE, *HOST, *LEVEL, *CORE_NAMES}.union(*IDS.values())
)


def keep_field(options: Options) -> Callable[[str], bool]:
    """Which fields the folding of rare ones leaves alone: all that may become a canonical column."""
    own = frozenset((*options.time_fields, *options.message_fields, *options.stream_fields))
    return lambda name: name in _SOURCES or name in own


def hints_for(options: Options) -> Hints:
    """The columns that `canonical` takes in the kernel's own forms: it always moves these, wholly.

    Of the strong times the first that there is, which every row that has it gives its time to.
    """
    if options.decolorize or options.stream_fields or options.extra:
        return NO_HINTS
    return Hints(options.time_fields or STRONG_TIME, ("service", "level", "host"))


@dataclass(slots=True)
class Canonical:
    """Canonical columns of `rows` rows; `bad` says which rows cannot stay: index -> (code, reason)."""

    columns: dict[str, pa.Array]
    rows: int
    bad: dict[int, tuple[str, str]] = field(default_factory=dict)

    def good(self, numbers: np.ndarray) -> np.ndarray:
        """`numbers` of the good rows."""
        mask = np.ones(self.rows, bool)
        mask[list(self.bad)] = False
        return numbers[mask]

    def table(self) -> pa.Table:
        """The good rows: core columns first, the others by name."""
        names = [name for name in CORE_NAMES if name in self.columns]
        names += sorted(name for name in self.columns if name not in CORE_TYPES)
        table = pa.table([self.columns[name] for name in names], names=names)
        if self.bad:
            good = np.ones(self.rows, bool)
            good[list(self.bad)] = False
            table = table.filter(pa.array(good))
            emptied = [n for n in table.schema.names if table[n].null_count == table.num_rows]
            kept = {*REQUIRED_NAMES, "seq"}
            table = table.drop_columns([name for name in emptied if name not in kept])
        return table


def canonical(
    source: dict[str, pa.Array],
    rows: int,
    options: Options,
    enrich: EnrichSettings,
    received_at: int,
) -> Canonical:
    """The canonical columns of a parser's `source` columns, with defaults and enrichment."""
    work = _Mapping(_prepared(source, rows, options), rows)
    stream = _stream(work.left, options.stream_fields, rows)
    work.times(options, received_at)
    work.levels()
    work.messages(options)
    work.names("service", SERVICE, options.service or DEFAULT_SERVICE)
    work.names("host", HOST, "")
    for name, sources in IDS.items():
        work.ids(name, sources)
    work.rest()
    if stream is not None:
        work.made["_stream"] = stream
    for name, column in enrich.columns(rows).items():
        if name in work.made:
            work.made[f"source_{name}"] = work.made[name]
        work.made[name] = column
    return Canonical(work.made, rows, work.bad)


def _prepared(source: dict[str, pa.Array], rows: int, options: Options) -> dict[str, pa.Array]:
    """The columns after ignore, decolorize, extra and source."""
    columns = dict(source)
    if options.ignore:
        columns = {n: c for n, c in columns.items() if not matches(n, options.ignore)}
    if options.decolorize:
        for name, column in columns.items():
            if pa.types.is_string(column.type) and matches(name, options.decolorize):
                columns[name] = pc.replace_substring_regex(column, _ANSI, "")
    for name, value in options.extra:
        columns[name] = pa.repeat(pa.scalar(value, STRING), rows)
    if options.source:
        known = columns.get("source")
        fill = pa.repeat(pa.scalar(options.source, STRING), rows)
        columns["source"] = fill if known is None else pc.coalesce(text_of(known), fill)
    return columns


def _stream(columns: dict[str, pa.Array], names: tuple[str, ...], rows: int) -> pa.Array | None:
    """`{host="a",app="b"}` of the fields that name a row's stream, as Loki writes labels."""
    used = [name for name in names if name in columns]
    if not used:
        return None
    parts = []
    for name in used:
        value = text_of(columns[name])
        value = pc.replace_substring(pc.replace_substring(value, "\\", "\\\\"), '"', '\\"')
        part = pc.binary_join_element_wise(_text(f',{name}="'), value, _text('"'), EMPTY)
        parts.append(part.fill_null(EMPTY))
    # Not null_handling="skip": pyarrow leaves rows out where it skips.
    joined = pc.utf8_slice_codeunits(pc.binary_join_element_wise(*parts, EMPTY), 1)
    braced = pc.binary_join_element_wise(_text("{"), joined, _text("}"), EMPTY)
    return braced.dictionary_encode()


def _text(value: str) -> pa.Scalar:
    return pa.scalar(value, STRING)


def text_of(column: pa.Array) -> pa.Array:
    """The column as strings; numbers as JSON writes them."""
    if pa.types.is_string(column.type):
        return column
    if pa.types.is_floating(column.type):
        texts = [None if value is None else json_text(value) for value in column.to_pylist()]
        return pa.array(texts, STRING)
    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column.cast(STRING)


class _Mapping:
    """Takes columns from `left` and puts canonical ones into `made`."""

    def __init__(self, columns: dict[str, pa.Array], rows: int) -> None:
        self.left = columns
        self.rows = rows
        self.made: dict[str, pa.Array] = {}
        self.bad: dict[int, tuple[str, str]] = {}

    # ---- time

    def times(self, options: Options, received_at: int) -> None:
        """`timestamp` and, where there are finer digits, `timestamp_ns`."""
        strong = options.time_fields or STRONG_TIME
        names = [name for name in (*strong, *WEAK_TIME) if name in self.left]
        micros = np.full(self.rows, received_at, np.int64)
        nanos: pa.Array | None = None
        todo = np.ones(self.rows, bool)
        for name in dict.fromkeys(names):
            if not todo.any():
                break
            nanos = self._time_from(name, name in strong, micros, nanos, todo, received_at)
        self.made["timestamp"] = pa.array(micros).view(pa.timestamp("us", "UTC"))
        if nanos is not None and nanos.null_count < self.rows:
            self.made["timestamp_ns"] = nanos

    def _time_from(
        self,
        name: str,
        strong: bool,
        micros: np.ndarray,
        nanos: pa.Array | None,
        todo: np.ndarray,
        received_at: int,
    ) -> pa.Array | None:
        """Fills `micros` where `todo` from the column `name`; returns the finer digits so far."""
        column = self.left[name]
        times = read_times(column, received_at)
        present = np.asarray(column.is_valid())
        taken = present & todo
        if strong:
            for row in np.flatnonzero(times.bad & taken):
                value = quoted(_shown(column[int(row)].as_py()))
                self.bad[int(row)] = ("bad_timestamp", f"{name}: cannot parse {value}")
        else:
            taken &= ~times.bad & (times.micros >= _WEAK_LEAST_MICROS)
        if taken.all():
            micros[:] = times.micros
            nanos = times.nanos
        elif taken.any():
            micros[taken] = times.micros[taken]
            fresh = times.nanos if times.nanos is not None else pa.nulls(self.rows, pa.int16())
            nanos = pc.if_else(pa.array(taken), fresh, nanos or pa.nulls(self.rows, pa.int16()))
        todo &= ~taken
        if bool((taken == present).all()):
            del self.left[name]
        return nanos

    # ---- level

    def levels(self) -> None:
        """`level`, and `severity_text` where the source's own word differs."""
        level: Any = None
        own: Any = None
        for name in LEVEL:
            column = self.left.get(name)
            if column is None:
                continue
            fresh, words = normal_levels(column, name)
            if level is None:
                level, own = fresh, words
                taken = True
            elif level.null_count == 0:
                break
            else:
                missing = level.is_null()
                taken = not pc.any(pc.and_(pc.invert(missing), column.is_valid())).as_py()
                level = pc.coalesce(level.cast(STRING), fresh.cast(STRING))
                level = level.dictionary_encode()
                own = _coalesced_words(own, words, missing, self.rows)
            if taken and name not in _NUMBER_LEVELS:
                del self.left[name]
        if level is None:
            self.made["level"] = constant(DEFAULT_LEVEL, self.rows)
            return
        if level.null_count:
            level = level.cast(STRING).fill_null(DEFAULT_LEVEL).dictionary_encode()
        self.made["level"] = level
        if own is not None and own.null_count < self.rows:
            self.made["severity_text"] = own

    # ---- texts

    def messages(self, options: Options) -> None:
        """`message`: the first that is not empty."""
        found: Any = None
        for name in options.message_fields or MESSAGE:
            column = self.left.get(name)
            if column is None:
                continue
            text = text_of(column)
            if found is None:
                found = text
                del self.left[name]
                continue
            empty = pc.fill_null(pc.equal(found, EMPTY), True)
            if not pc.any(empty).as_py():
                break
            lost = pc.any(pc.and_(pc.invert(empty), text.is_valid())).as_py()
            found = pc.if_else(empty, pc.coalesce(text, found), found)
            if not lost:
                del self.left[name]
        if found is None:
            found = pa.repeat(EMPTY, self.rows)
        self.made["message"] = found.fill_null(EMPTY) if found.null_count else found

    def names(self, name: str, sources: tuple[str, ...], default: str) -> None:
        """A dictionary column of names; the sources other than `name` itself stay fields."""
        found: Any = None
        for source in sources:
            column = self.left.get(source)
            if column is None:
                continue
            if not pa.types.is_dictionary(column.type):
                column = text_of(column).dictionary_encode()
            text = _without_empty(column)
            found = text if found is None else _first_of(found, text)
            if found.null_count == 0:
                break
        self.left.pop(name, None)
        if found is None:
            if default:
                self.made[name] = constant(default, self.rows)
            return
        if default and found.null_count:
            found = found.cast(STRING).fill_null(default).dictionary_encode()
        self.made[name] = found

    def ids(self, name: str, sources: tuple[str, ...]) -> None:
        """A column of trace, span, parent or request ids."""
        found: Any = None
        for source in sources:
            column = self.left.get(source)
            if column is None:
                continue
            text = text_of(column)
            if found is None:
                found = text
                lost = False
            else:
                lost = bool(pc.any(pc.and_(found.is_valid(), text.is_valid())).as_py())
                found = pc.coalesce(found, text)
            if source in _MOVED_IDS and not lost:
                del self.left[source]
        if found is not None and found.null_count < self.rows:
            self.made[name] = found

    def rest(self) -> None:
        """All other fields, under names that do not collide with ours."""
        for name, column in self.left.items():
            if column.null_count == self.rows:
                continue
            target = {ATTRIBUTES: "attributes", OVERFLOW: "_overflow"}.get(name)
            if target is None:
                # engines have no empty name, and take a NUL for its end
                target = name.replace("\0", "\ufffd") or "unnamed"
                while (
                    target in RESERVED
                    or target in self.made
                    or (target != name and target in self.left)
                ):
                    target = f"source_{target}"
            self.made[target] = column


def _shown(value: object) -> object:
    return json_text(value) if isinstance(value, bool | float) else value


def _without_empty(names: pa.DictionaryArray) -> pa.Array:
    """The column with empty names as null; only the distinct names are looked at."""
    if pc.index(names.dictionary, EMPTY).as_py() < 0:
        return names
    texts = names.cast(STRING)
    return pc.if_else(pc.equal(texts, EMPTY), NOTHING, texts).dictionary_encode()


def _first_of(one: pa.Array, other: pa.Array) -> pa.Array:
    return pc.coalesce(one.cast(STRING), other.cast(STRING)).dictionary_encode()


def _coalesced_words(
    own: pa.Array | None, words: pa.Array | None, missing: pa.Array, rows: int
) -> pa.Array:
    none = pa.nulls(rows, STRING)
    first = none if own is None else own.cast(STRING)
    second = none if words is None else words.cast(STRING)
    return pc.if_else(missing, second, first).dictionary_encode().cast(DICTIONARY)

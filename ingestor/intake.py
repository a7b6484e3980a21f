"""From a request's decoded body to a `Batch`: parse, map to canonical columns, check, set bad rows apart.

    body -> parser (detect) -> Parsed -> canonical (schema, enrich) -> limits -> Batch

Pure but for the learned schemas; runs on a worker thread. The bytes of bad rows become rows of the
service `_failed`, durable with the good ones in the same write.
"""

import base64
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ingestor.arrow_rows import parse_arrow
from ingestor.batch import MAX_LISTED_REJECTS, Batch, Identity, RejectedRow, Sequence
from ingestor.enrich import EnrichSettings, constant
from ingestor.limits import Limits
from ingestor.numbering import Numbered, ordered, read_envelope, skips_with
from ingestor.options import Options
from ingestor.parsers.base import BadRow, Parsed
from ingestor.parsers.detect import Format, parse_as
from ingestor.parsers.json_document import Document
from ingestor.parsers.learned import LearnedSchemas
from ingestor.schema import DEFAULT_SERVICE, MESSAGE, Canonical, canonical, hints_for, keep_field
from ingestor.validate import apply_limits
from records.columns import CORE_TYPES

FAILED_SERVICE = "_failed"


@dataclass(frozen=True, slots=True)
class Source:
    """Who sends: the tenant, the surface (a path), and what the request says of its rows."""

    tenant: str
    surface: str
    options: Options
    received_at: int


class Intake:
    """Makes batches. Holds the learned schemas; safe for threads."""

    def __init__(
        self,
        limits: Limits,
        enrich: EnrichSettings,
        on_rejected: Callable[[str, Mapping[str, int]], None] = lambda *_: None,
    ) -> None:
        """`on_rejected(surface, count by code)` is told of bad rows."""
        self.limits = limits
        self._on_rejected = on_rejected
        self._enrich = enrich
        self._learned = LearnedSchemas(limits)

    def batch(self, body: bytes, form: Format, source: Source, identity: Identity) -> Batch:
        """The batch of one whole body, or of one piece of JSON lines.

        Raises:
            InvalidRequest: the body as a whole cannot be read (details `reason`: bad_json, mixed_seq,
                bad_service, bad_producer, bad_epoch, bad_skip).
            TooLarge: too many rows in one document.
        """
        document = self._document(body, form, source)
        if document.enveloped:
            return self._numbered(document.parsed, document.envelope, source, identity)
        made = self._canonical(document.parsed, source)
        bad = _bad_rows(document.parsed, made, None)
        return self._batch(made.table(), bad, source, identity, source.options.service)

    def _document(self, body: bytes, form: Format, source: Source) -> Document:
        if form is Format.ARROW:
            return parse_arrow(body, self.limits)
        key = (source.tenant, source.surface)
        keep = keep_field(source.options)
        messages = source.options.message_fields or MESSAGE
        hints = hints_for(source.options)
        return parse_as(form, body, self.limits, self._learned, key, keep, messages, hints)

    def _numbered(
        self, parsed: Parsed, envelope: dict[str, Any], source: Source, identity: Identity
    ) -> Batch:
        """TraceHub's object: rows of one service, numbered by one producer or not at all."""
        head = read_envelope(envelope, parsed, self.limits)
        own = parsed.columns.pop("service", None)
        if own is not None and own.unique().drop_null().to_pylist() not in ([], [head.service]):
            parsed.columns["source_service"] = own
        parsed.columns["service"] = constant(head.service, parsed.rows)
        made = self._canonical(parsed, source)
        made.bad = {**made.bad, **head.bad}
        bad = _bad_rows(parsed, made, head)
        sequence = None
        if head.seqs is not None:
            made.columns["seq"] = pa.array(head.seqs)
        table = made.table()
        if head.seqs is not None:
            table, others = ordered(table, made.good(parsed.row_numbers()))
            reason = "seq {} stands in this batch with other bytes"
            bad += [
                BadRow(n, "duplicate_seq", reason.format(seq), parsed.raw(n), seq)
                for n, seq in others
            ]
            bad.sort(key=lambda row: row.number)
        elif head.skips or _only_bad_numbers(parsed):
            table = table.append_column("seq", pa.nulls(0, pa.int64()))
        if "seq" in table.schema.names:
            skips = skips_with(head.skips, bad, table)
            sequence = Sequence(head.service, head.producer, head.epoch, skips)
        return self._batch(table, bad, source, identity, head.service, sequence)

    def _canonical(self, parsed: Parsed, source: Source) -> Canonical:
        made = canonical(
            parsed.columns, parsed.rows, source.options, self._enrich, source.received_at
        )
        apply_limits(made, self.limits)
        return made

    def _batch(
        self,
        table: pa.Table,
        bad: list[BadRow],
        source: Source,
        identity: Identity,
        service: str,
        sequence: Sequence | None = None,
    ) -> Batch:
        listed = tuple(
            RejectedRow(row.number, row.code, row.reason, row.seq)
            for row in bad[:MAX_LISTED_REJECTS]
        )
        if bad:
            self._on_rejected(source.surface, Counter(row.code for row in bad))
        failed = failed_table(bad, service, source.received_at, self.limits) if bad else None
        return Batch(
            source.tenant,
            table,
            identity,
            len(bad),
            listed,
            failed,
            sequence,
            received_at=source.received_at,
        )


def _only_bad_numbers(parsed: Parsed) -> bool:
    """Whether all rows are bad and some of them had a number: a sequenced batch of skips alone."""
    return parsed.rows == 0 and any(row.seq is not None for row in parsed.bad)


def _bad_rows(parsed: Parsed, made: Canonical, head: Numbered | None) -> list[BadRow]:
    """The parser's bad rows and those that turned out bad since, by number."""
    if not made.bad:
        return parsed.bad
    numbers = parsed.row_numbers()
    late = []
    for row, (code, reason) in sorted(made.bad.items()):
        number = int(numbers[row])
        seq = int(head.seqs[row]) if head is not None and head.seqs is not None else 0
        late.append(BadRow(number, code, reason, parsed.raw(number), seq or None))
    return sorted([*parsed.bad, *late], key=lambda row: row.number)


def failed_table(bad: list[BadRow], service: str, received_at: int, limits: Limits) -> pa.Table:
    """The bad rows as rows of `_failed`: their bytes as message, the code, the reason, whose they were."""
    rows = len(bad)
    texts = [_as_text(row.raw[: limits.failed_row_bytes]) for row in bad]
    columns = {
        "timestamp": pa.array([received_at] * rows, pa.int64()).view(CORE_TYPES["timestamp"]),
        "service": constant(FAILED_SERVICE, rows),
        "level": constant("error", rows),
        "message": pa.array(texts, pa.string()),
        "code": pa.array([row.code for row in bad], pa.string()).dictionary_encode(),
        "reason": pa.array([row.reason for row in bad], pa.string()),
        "source_service": constant(service or DEFAULT_SERVICE, rows),
    }
    return pa.table(columns)


def _as_text(raw: bytes) -> str:
    """Bytes as text; those that are not UTF-8 as `base64:…`, exactly."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        if error.start >= len(raw) - 3 and error.reason == "unexpected end of data":
            return raw[: error.start].decode()  # cut within a character by the limit
        return "base64:" + base64.b64encode(raw).decode()

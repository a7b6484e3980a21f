"""Which parser reads a body: by content type, else by its first byte."""

import re
from enum import StrEnum
from typing import Any

from ingestor.limits import Limits
from ingestor.parsers import csv_rows, json_document, json_lines, plain
from ingestor.parsers.json_document import Document
from ingestor.parsers.learned import LearnedSchemas
from ingestor.parsers.native import NO_HINTS, Hints
from ingestor.parsers.strict_lines import Keep
from records.errors import InvalidRequest, UnsupportedMedia


class Format(StrEnum):
    """What a body can be."""

    DOCUMENT = "document"
    LINES = "lines"
    CSV = "csv"
    AUTO = "auto"
    JSON = "json"
    CRI = "cri"
    COMBINED = "combined"
    COMMON = "common"
    LOGFMT = "logfmt"
    PLAIN = "plain"


#: Raw text, parsed on the server: `?format=` of text/plain.
TEXT_FORMATS = frozenset(
    {
        Format.AUTO,
        Format.JSON,
        Format.CRI,
        Format.COMBINED,
        Format.COMMON,
        Format.LOGFMT,
        Format.PLAIN,
    }
)
_JSON_TYPES = frozenset({"application/json", "text/json"})
_LINE_TYPES = frozenset(
    {
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "application/jsonlines",
        "application/stream+json",
        "application/json-lines",
    }
)
_CSV_TYPES = frozenset({"text/csv", "application/csv"})
#: What clients send when they were told nothing.
_UNSAID = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded"})
SUPPORTED = (
    "application/json",
    "application/x-ndjson",
    "application/jsonl",
    "text/csv",
    "text/plain",
)
#: `}` and, on a later line, `{`: a second object follows.
_SECOND_OBJECT = re.compile(rb"\}[ \t\r]*\n\s*\{")
_HEAD_BYTES = 64 << 10


def format_of(content_type: str, text_format: str, head: bytes) -> Format:
    """The format of a body that begins with `head` (its first 64 KiB or all of it).

    Raises:
        UnsupportedMedia: a content type that none of our parsers reads, or an unknown `format`.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/plain" or (text_format and kind in _UNSAID):
        return _text_format(text_format)
    if kind in _LINE_TYPES:
        return Format.LINES
    if kind in _CSV_TYPES:
        return Format.CSV
    if kind in _JSON_TYPES or kind in _UNSAID:
        return _by_first_byte(head, csv_else=kind in _UNSAID)
    raise UnsupportedMedia(
        f"content type {kind[:64]!r} is not supported", supported=list(SUPPORTED)
    )


def _text_format(name: str) -> Format:
    try:
        form = Format(name or "auto")
    except ValueError:
        form = Format.DOCUMENT
    if form not in TEXT_FORMATS:
        known = sorted(TEXT_FORMATS)
        raise UnsupportedMedia(f"format {name[:64]!r} is not known", supported=known)
    return form


def _by_first_byte(head: bytes, csv_else: bool) -> Format:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
    if text[:1] == b"[" or json_document.looks_like_envelope(text[:_HEAD_BYTES]):
        return Format.DOCUMENT
    if text[:1] == b"{":
        return Format.LINES if _SECOND_OBJECT.search(text[:_HEAD_BYTES]) else Format.DOCUMENT
    return Format.CSV if csv_else and text else Format.DOCUMENT


def parse_as(
    form: Format,
    body: bytes,
    limits: Limits,
    learned: LearnedSchemas,
    key: Any,
    keep: Keep,
    message_names: tuple[str, ...] = (),
    hints: Hints = NO_HINTS,
) -> Document:
    """`body` read as `form`; `message_names` as in `csv_rows`, `hints` for the kernel. Raises as the
    parsers do."""
    if form is Format.LINES:
        return Document(json_lines.parse_json_lines(body, limits, learned, key, keep, hints))
    if form is Format.DOCUMENT:
        try:
            return json_document.parse_document(body, limits, learned, key, keep)
        except InvalidRequest as error:
            # One object and then more: lines whose first is longer than what the format was told by.
            if not error.details.get("trailing"):
                raise
        return Document(json_lines.parse_json_lines(body, limits, learned, key, keep, hints))
    if form is Format.CSV:
        return Document(csv_rows.parse_csv(body, limits, message_names))
    return Document(plain.parse_text(body, form.value, limits, learned, key, keep))

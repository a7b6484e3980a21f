"""Whole batches with the kernel and without it: the same rows under the same types, whatever was asked.

The kernel hands over times and dictionaries in forms of its own; this shows that nobody downstream can
tell. The reference is the same `Intake` with the kernel taken away.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.batch import Batch, Identity
from ingestor.enrich import EnrichSettings
from ingestor.intake import Intake, Source
from ingestor.limits import Limits
from ingestor.options import Options
from ingestor.parsers import json_document, json_lines, native
from ingestor.parsers.detect import Format
from records.errors import InvalidRequest

pytestmark = pytest.mark.skipif(not native.available(), reason=native.described())
RECEIVED = 1_795_219_200_123_456
LIMITS = Limits(row_bytes=40, identifier_bytes=12)


@pytest.fixture(autouse=True, scope="module")
def _small_bodies_too() -> Iterator[None]:
    """The kernel is asked for bodies of any size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "KERNEL_BYTES", 0)
        patch.setattr(json_document, "KERNEL_BYTES", 0)
        yield


def take(body: bytes, options: Options, form: Format) -> Batch:
    source = Source("t", "/logs", options, RECEIVED)
    return Intake(LIMITS, EnrichSettings(hostname="h")).batch(
        body, form, source, Identity(b"s", b"c")
    )


def both(body: bytes, options: Options, form: Format = Format.LINES) -> Batch:
    """The batch made with the kernel, shown to be the one made without."""
    with pytest.MonkeyPatch.context() as patch:
        with_kernel = take(body, options, form)
        patch.setattr(native, "_kernel", None)
        without = take(body, options, form)
    assert with_kernel.table.schema == without.table.schema
    assert with_kernel.table.equals(without.table)
    assert with_kernel.rejected == without.rejected
    assert with_kernel.failed == without.failed
    assert with_kernel.sequence == without.sequence
    return with_kernel


DIGITS = st.integers(0, 99).map("{:02d}".format)
FRACTIONS = st.text("0123456789", max_size=11).flatmap(
    lambda digits: st.sampled_from(["", "." + digits, "," + digits])
)
ZONES = st.sampled_from(["Z", "z", "+00:00", "-09:30", "+0200", "+05", "", "+24:00", " Z", "Z "])
ISO = st.builds(
    lambda year, parts, mark, fraction, zone: (
        f"{year:04d}-{parts[0]}-{parts[1]}{mark}{parts[2]}:{parts[3]}:{parts[4]}{fraction}{zone}"
    ),
    st.integers(0, 9999),
    st.lists(DIGITS, min_size=5, max_size=5),
    st.sampled_from("Tt _"),
    FRACTIONS,
    ZONES,
)
GOOD_ISO = st.datetimes().map(lambda when: when.isoformat() + "Z")
TIMES: Any = st.one_of(
    GOOD_ISO, ISO, st.none(), st.integers(0, 1 << 62), st.floats(0, 2e9), st.booleans(),
    st.sampled_from(["", "0", "-", "1795219200", "1795219200123.5", "2026-11-21", "never",
                     "\0" * 16 + ":00Z"]),
)  # fmt: skip
LEVELS = st.sampled_from(["info", "INFO", "Warn", "e", "", "odd", 30, 5, None, True, 2.0])
WORDS = st.sampled_from(["a", "b", "", None, 5, "x" * 13, "\x1b[1mred\x1b[0m", "é"])
FIELDS: dict[str, Any] = {
    "timestamp": TIMES, "@timestamp": TIMES, "ts": TIMES, "service": WORDS, "app": WORDS, "host": WORDS,
    "hostname": WORDS, "level": LEVELS, "severity": LEVELS, "message": st.text(max_size=60), "msg": WORDS,
    "trace_id": WORDS, "extra": WORDS,
}  # fmt: skip
ROWS = st.fixed_dictionaries({}, optional=FIELDS)
OPTIONS = st.builds(
    Options,
    time_fields=st.sampled_from([(), (), ("ts",), ("@timestamp", "timestamp"), ("service",)]),
    message_fields=st.sampled_from([(), (), ("level",), ("timestamp",)]),
    stream_fields=st.sampled_from([(), (), ("service", "timestamp")]),
    ignore=st.sampled_from([(), (), ("timestamp", "h*")]),
    decolorize=st.sampled_from([(), (), ("*",)]),
    extra=st.sampled_from([(), (), (("service", "mine"), ("timestamp", "0"))]),
    service=st.sampled_from(["", "given"]),
    source=st.sampled_from(["", "from"]),
)


@settings(max_examples=300)
@given(rows=st.lists(ROWS, min_size=1, max_size=6), options=OPTIONS)
def test_any_options_and_any_mix_of_names(rows: list[dict[str, Any]], options: Options) -> None:
    """Times of every form, levels and names of every type, each canonical name from several fields."""
    both(b"\n".join(json.dumps(row).encode() for row in rows), options)


@settings(max_examples=200)
@given(times=st.lists(st.one_of(GOOD_ISO, ISO), min_size=1, max_size=6), gap=st.booleans())
def test_times_of_every_form(times: list[str], gap: bool) -> None:
    """A column of usual times is read by the kernel; one odd value, and Python reads them all."""
    rows: list[dict[str, Any]] = [{"timestamp": time} for time in times]
    both(b"\n".join(json.dumps(row).encode() for row in [*rows, *[{}] * gap]), Options())


def test_finer_digits_and_rows_without_a_time() -> None:
    """Nanoseconds where given, null where not, the receive time where there is none."""
    body = b'{"timestamp":"2026-01-01T00:00:00.123456789Z"}\n{}\n{"timestamp":"2026-01-01T00:00:00.5Z"}'

    table = both(body, Options()).table

    assert table["timestamp_ns"].to_pylist() == [789, None, None]
    assert table["timestamp"].cast("int64").to_pylist() == [
        1_767_225_600_123_456, RECEIVED, 1_767_225_600_500_000,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "bad", [b'{"message":}', b'{"timestamp":"never"}', b'{"service":"' + b"x" * 20]
)
def test_bad_rows_among_many_good_ones(bad: bytes) -> None:
    """Bad in the parser or bad later: the same numbers, reasons and raw bytes."""
    good = [b'{"service":"a","message":"row %d"}' % i for i in range(300)]
    batch = both(b"\n".join([*good[:100], bad, *good[100:], bad]), Options())
    assert [row.row for row in batch.rejected] == [101, 302]


@settings(max_examples=100)
@given(
    rows=st.lists(st.tuples(ROWS, st.integers(0, 9)), min_size=1, max_size=6),
    head=st.sampled_from([{}, {"producer": "p", "epoch": 2}]),
    array=st.booleans(),
)
def test_documents(
    rows: list[tuple[dict[str, Any], int]], head: dict[str, Any], array: bool
) -> None:
    """Arrays, and TraceHub's object with numbers that may stand twice or be missing: equal refusals too."""
    numbered = [{**row, "seq": seq} if head and seq else row for row, seq in rows]
    if head and not array and not all(seq for _, seq in rows):
        numbered[0].pop("seq", None)  # some have numbers: refused as a whole
    document = numbered if array else {"service": "a", **head, "logs": numbered}
    body = json.dumps(document).encode()
    assert refusal(body) == refusal(body, without=True)
    if refusal(body) is None:
        both(body, Options(), Format.DOCUMENT)


def refusal(body: bytes, without: bool = False) -> tuple[str, Any] | None:
    """Why a document is refused as a whole; None if it is not."""
    with pytest.MonkeyPatch.context() as patch:
        if without:
            patch.setattr(native, "_kernel", None)
        try:
            take(body, Options(), Format.DOCUMENT)
        except InvalidRequest as error:
            return str(error), error.details
    return None

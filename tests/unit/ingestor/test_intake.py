"""From bodies to batches: which field becomes what, what is kept, what is a bad row."""

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from ingestor.batch import Batch
from ingestor.enrich import EnrichSettings, level_of
from ingestor.identity import identity_of
from ingestor.intake import Intake, Source
from ingestor.limits import Limits
from ingestor.options import Options, read_options
from ingestor.parsers.detect import Format, format_of
from records.columns import CORE_TYPES
from records.errors import InvalidRequest, TooLarge, UnsupportedMedia

RECEIVED = 1_795_219_200_000_000
NOW = datetime(2026, 11, 21, tzinfo=UTC)
IDENTITY = identity_of(
    tenant="t", surface="/logs", principal="", peer="::1", key=None, body=b"", query=""
)


def take(
    body: bytes,
    form: Format = Format.LINES,
    options: Options | None = None,
    limits: Limits | None = None,
    enrich: EnrichSettings | None = None,
) -> Batch:
    intake = Intake(limits or Limits(), enrich or EnrichSettings())
    return intake.batch(body, form, Source("t", "/logs", options or Options(), RECEIVED), IDENTITY)


def lines(*rows: Any) -> bytes:
    return b"\n".join(json.dumps(row).encode() for row in rows)


def rows_of(batch: Batch) -> list[dict[str, Any]]:
    """Rows without their nulls."""
    return [{k: v for k, v in row.items() if v is not None} for row in batch.table.to_pylist()]


def one(*args: Any, **more: Any) -> dict[str, Any]:
    [row] = rows_of(take(lines(*args), **more))
    return row


# ---- canonical fields ------------------------------------------------------------------------------


def test_a_row_without_anything_has_the_defaults() -> None:
    """The four required columns are never null, and have the types of records.columns."""
    batch = take(b"{}")

    assert rows_of(batch) == [
        {"timestamp": NOW, "service": "unknown", "level": "info", "message": ""}
    ]
    for name in ("timestamp", "service", "level", "message"):
        assert batch.table.schema.field(name).type == CORE_TYPES[name]
    assert batch.received_at == RECEIVED


@pytest.mark.parametrize(
    "name", ["message", "msg", "log", "MESSAGE", "short_message", "event", "body", "line"]
)
def test_the_message_is_moved_from_its_names(name: str) -> None:
    """0.7; not stored twice."""
    row = one({name: "hello"})
    assert row["message"] == "hello"
    assert name == "message" or name not in row


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("service.name", "service"), ("service_name", "service"), ("app", "service"), ("job", "service"),
        ("container_name", "service"), ("_SYSTEMD_UNIT", "service"), ("appname", "service"),
        ("tag", "service"), ("hostname", "host"), ("host.name", "host"), ("_HOSTNAME", "host"),
        ("instance", "host"), ("trace.id", "trace_id"), ("span.id", "span_id"), ("parent.id", "parent_id"),
        ("http.request.id", "request_id"), ("x-request-id", "request_id"),
    ],
)  # fmt: skip
def test_other_source_names_stay_fields_as_well(name: str, column: str) -> None:
    """0.7: "source names stay as fields too"."""
    row = one({name: "x"})
    assert row[column] == "x"
    assert row[name] == "x"


def test_nested_names_count_like_dotted_ones() -> None:
    """`{"service":{"name":…}}` is `service.name`."""
    row = one({"service": {"name": "pay"}, "host": {"name": "h1"}, "trace": {"id": "t1"}})
    assert (row["service"], row["host"], row["trace_id"]) == ("pay", "h1", "t1")


def test_tracehubs_camel_case_ids_are_the_canonical_ones() -> None:
    """They are the protocol's own keys, not fields."""
    row = one({"requestId": "r", "traceId": "t", "spanId": "s", "parentId": "p"})
    ids = {"request_id": "r", "trace_id": "t", "span_id": "s", "parent_id": "p"}
    assert {k: row[k] for k in ids} == ids
    assert not {"requestId", "traceId", "spanId", "parentId"} & row.keys()


def test_the_first_name_wins_row_by_row_and_no_value_is_lost() -> None:
    """A lower name stays a field where a higher one won."""
    batch = take(
        lines(
            {"message": "m1", "msg": "other"},
            {"msg": "m2"},
            {"message": "", "log": "m3"},
            {"trace_id": "a", "traceId": "b"},
        )
    )
    rows = rows_of(batch)
    assert [row["message"] for row in rows] == ["m1", "m2", "m3", ""]
    assert rows[0]["msg"] == "other"
    assert (rows[3]["trace_id"], rows[3]["traceId"]) == ("a", "b")


def test_unknown_fields_are_kept_with_their_types() -> None:
    """int, double, bool, text; arrays as JSON text; null is absence; columns all null are gone."""
    batch = take(
        lines(
            {
                "n": 1,
                "f": 1.5,
                "ok": True,
                "s": "x",
                "list": [1, {"a": "é"}],
                "deep": {"a": {"b": 2}},
            },
            {"none": None, "empty": {}},
        )
    )
    assert rows_of(batch)[0] | {"timestamp": None} == {
        "timestamp": None, "service": "unknown", "level": "info", "message": "", "n": 1, "f": 1.5,
        "ok": True, "s": "x", "list": '[1,{"a":"é"}]', "deep.a.b": 2,
    }  # fmt: skip
    assert "none" not in batch.table.schema.names


def test_a_field_of_several_types_becomes_text() -> None:
    """A type conflict never refuses a row. int and double stay numbers if nothing is lost."""
    batch = take(
        lines(
            {"code": 200, "n": 1, "big": 1 << 60, "huge": 1 << 80},
            {"code": "E42", "n": 1.5, "big": 0.5},
            {"code": True},
        )
    )
    rows = rows_of(batch)
    assert [row["code"] for row in rows] == ["200", "E42", "true"]
    assert [row.get("n") for row in rows] == [1.0, 1.5, None]
    assert [row.get("big") for row in rows[:2]] == [str(1 << 60), "0.5"]
    assert rows[0]["huge"] == str(1 << 80)


def test_names_that_we_need_are_kept_under_another_name() -> None:
    """A row cannot say whose it is, nor disturb what readers add."""
    row = one(
        {"tenant": "evil", "seq": 5, "received_at": "x", "_number": 1, "attributes": "a", "_run": 2}
    )
    assert not {"tenant", "seq", "received_at", "_number", "attributes", "_run"} & row.keys()
    assert row["source_tenant"] == "evil"
    assert (row["source_seq"], row["source__number"], row["source_attributes"]) == (5, 1, "a")


def test_times_finer_than_a_microsecond_keep_their_digits() -> None:
    """`timestamp_ns` is null where there are none."""
    batch = take(lines({"timestamp": "2026-11-21T00:00:00.123456789Z"}, {"timestamp": 1795219200}))
    assert batch.table.schema.field("timestamp_ns").type == pa.int16()
    assert batch.table["timestamp_ns"].to_pylist() == [789, None]


def test_a_bad_time_is_a_bad_row_and_a_weak_one_a_field() -> None:
    """`timestamp` has to be a time; `time` and `ts` may mean something else."""
    batch = take(
        lines(
            {"timestamp": "nope", "n": 1},
            {"time": "5ms", "message": "a"},
            {"ts": 12.5, "message": "b"},
            {"ts": 1795219200.5, "message": "c"},
            {"@timestamp": {"x": 1}, "timestamp": True},
        )
    )
    assert [(row.row, row.code) for row in batch.rejected] == [
        (1, "bad_timestamp"),
        (5, "bad_timestamp"),
    ]
    assert batch.rejected[0].reason == 'timestamp: cannot parse "nope"'
    rows = rows_of(batch)
    assert [row["message"] for row in rows] == ["a", "b", "c"]
    assert (rows[0]["timestamp"], rows[0]["time"]) == (NOW, "5ms")
    assert (rows[1]["timestamp"], rows[1]["ts"]) == (NOW, 12.5)
    assert rows[2]["timestamp"] == datetime(2026, 11, 21, 0, 0, 0, 500_000, tzinfo=UTC)
    assert "n" not in batch.table.schema.names


# ---- levels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "level"),
    [
        ("INFO", "info"), ("Information", "info"), ("notice", "info"), ("WARNING", "warn"), ("warn", "warn"),
        ("err", "error"), ("ERROR", "error"), ("severe", "error"), ("CRITICAL", "fatal"), ("panic", "fatal"),
        ("emerg", "fatal"), ("dbg", "debug"), ("verbose", "trace"), ("E", "error"), (" info ", "info"),
        ("Audit", "audit"), ("", "info"), (9, "info"), (17, "error"), (24, "fatal"), (1, "trace"),
        (30, "info"), (50, "error"), (20, "debug"), (60, "fatal"), ("40", "warn"), (99, "99"),
    ],
)  # fmt: skip
def test_levels_are_normalised(value: Any, level: str) -> None:
    """Words, letters, OpenTelemetry's and pino's numbers; unknown words in lower case."""
    assert level_of(value) == level


def test_the_sources_own_word_is_kept_where_it_differs() -> None:
    """`severity_text`."""
    rows = rows_of(take(lines({"level": "WARNING"}, {"level": "info"}, {"severity": "Audit"}, {})))
    assert [row["level"] for row in rows] == ["warn", "info", "audit", "info"]
    assert [row.get("severity_text") for row in rows] == ["WARNING", None, "Audit", None]


def test_syslog_and_otel_numbers_are_told_apart_by_their_field() -> None:
    """0.7: syslog 0..7 -> 21, 19, 18, 17, 13, 10, 9, 5."""
    syslog = [one({"PRIORITY": n})["level"] for n in range(8)]
    assert syslog == ["fatal", "error", "error", "error", "warn", "info", "info", "debug"]
    row = one({"severity_number": 10})
    assert (row["level"], row["severity_number"]) == ("info", 10)


# ---- enrichment and options ------------------------------------------------------------------------


def test_enrichment_adds_constant_columns_where_configured() -> None:
    """Only what is set; the environment fills what is empty if asked to."""
    settings = EnrichSettings(environment="prod", detect=True)
    settings = settings.detected({"POD_NAME": "pay-7f", "HOSTNAME": "h1", "APP_ENV": "test"})
    batch = take(lines({"message": "x"}, {"_pod": "mine"}), enrich=settings)

    rows = rows_of(batch)
    assert [(r["_hostname"], r["_environment"], r["_pod"]) for r in rows] == [
        ("h1", "prod", "pay-7f")
    ] * 2
    assert "_container" not in batch.table.schema.names
    assert pa.types.is_dictionary(batch.table.schema.field("_pod").type)
    assert rows[1]["source__pod"] == "mine"


def test_options_come_from_the_query_or_the_headers() -> None:
    """The query string wins."""
    options = read_options(
        {"_msg_field": "m", "extra_fields": "env=prod,team=a=b"},
        {"VL-Msg-Field": "other", "VL-Stream-Fields": "host, app", "VL-Debug": "1"},
    )
    assert options.message_fields == ("m",)
    assert options.stream_fields == ("host", "app")
    assert options.extra == (("env", "prod"), ("team", "a=b"))
    assert options.debug
    with pytest.raises(InvalidRequest):
        read_options({"extra_fields": "novalue"}, {})


def test_fields_are_dropped_overwritten_and_stripped_of_colours() -> None:
    """ignore_fields, extra_fields, decolorize_fields; `prefix*` allowed."""
    options = Options(
        ignore=("secret.*", "x"),
        extra=(("env", "prod"),),
        decolorize=("message",),
        source="edge",
        service="web",
    )
    row = one(
        {"message": "\x1b[31mred\x1b[0m", "secret": {"a": 1}, "x": 1, "xy": 2, "env": "dev"},
        options=options,
    )
    assert row | {"timestamp": None} == {
        "timestamp": None, "service": "web", "level": "info", "message": "red", "env": "prod",
        "source": "edge", "xy": 2,
    }  # fmt: skip


def test_streams_are_written_as_loki_writes_labels() -> None:
    """Quotes and backslashes escaped; absent fields left out."""
    options = Options(stream_fields=("host", "app", "none"))
    rows = rows_of(take(lines({"host": 'a"b', "app": "x"}, {"app": "c\\d"}), options=options))
    assert [row["_stream"] for row in rows] == ['{host="a\\"b",app="x"}', '{app="c\\\\d"}']


# ---- bad input -------------------------------------------------------------------------------------

SMALL = Limits(row_bytes=100, row_bytes_max=1000, failed_row_bytes=50, identifier_bytes=10)


def codes(batch: Batch) -> list[tuple[int, str]]:
    return [(row.row, row.code) for row in batch.rejected]


def test_each_kind_of_bad_line_is_named_and_the_good_ones_are_kept() -> None:
    """What and where, by row number from 1; blank lines are no rows."""
    body = b"\n".join(
        [
            b'{"message":"good"}',
            b'{"message":"broken"',
            b"",
            b'{"a":1,"a":2}',
            b'{"message":"\xff\xfe"}',
            b'{"message":"nul \x00"}',
            b"[1,2]",
            b'"text"',
            b"null",
            b'{"n":NaN}',
            b'{"a":' + b'{"a":' * 1000 + b"1" + b"}" * 1000 + b"}",
            b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            b'{"message":"escaped nul \\u0000 is text"}',
            b'{"message":"also good"}',
        ]
    )
    batch = take(body)

    assert codes(batch) == [
        (2, "bad_json"), (3, "duplicate_key"), (4, "bad_utf8"), (5, "bad_json"), (6, "not_an_object"),
        (7, "not_an_object"), (8, "not_an_object"), (9, "bad_json"), (10, "too_deep"), (11, "too_deep"),
    ]  # fmt: skip
    assert all(row.reason for row in batch.rejected)
    assert [row["message"] for row in rows_of(batch)] == [
        "good",
        "escaped nul \0 is text",
        "also good",
    ]
    assert batch.failed is not None
    failed = batch.failed.to_pylist()
    assert [row["code"] for row in failed] == [code for _, code in codes(batch)]
    assert failed[0]["message"] == '{"message":"broken"'
    assert failed[2]["message"].startswith("base64:")
    assert {row["service"] for row in failed} == {"_failed"}
    assert {row["level"] for row in failed} == {"error"}
    assert max(len(row["message"]) for row in failed) <= 64 << 10


def test_a_lone_surrogate_costs_a_character_not_the_row() -> None:
    """Cut strings hold them; RFC 8259 allows the escape."""
    assert one({"message": "cut \ud83d"})["message"] == "cut \ufffd"
    assert one({"\ud83d": 1})["\ufffd"] == 1


def test_a_long_message_is_cut_and_says_so() -> None:
    """0.7: cut to the row limit, at a character's end; beyond the great limit a bad row."""
    batch = take(
        lines({"message": "é" * 80}, {"message": "x"}, {"message": "y" * 2000}), limits=SMALL
    )
    rows = rows_of(batch)
    assert rows[0]["message"] == "é" * 50
    assert rows[0]["_truncated"] == 60
    assert "_truncated" not in rows[1]
    assert codes(batch) == [(3, "row_too_large")]


def test_a_ten_mebibyte_line_is_a_row_with_a_cut_message() -> None:
    """Below the 16 MiB at which a row is refused."""
    batch = take(lines({"message": "x" * (10 << 20), "n": 1}))
    [row] = rows_of(batch)
    assert len(row["message"]) == 1 << 20
    assert row["_truncated"] == 9 << 20


def test_five_thousand_fields_are_all_kept() -> None:
    """200 columns, the rest of the first 2000 in `attributes`, beyond in `_overflow`; as JSON."""
    wide = {f"k{n:04}": n for n in range(5000)}
    batch = take(lines({"message": "wide", **wide}, {"message": "slim"}))

    row, slim = rows_of(batch)
    kept = {k: v for k, v in row.items() if k in wide}
    kept |= json.loads(row["attributes"]) | json.loads(row["_overflow"])
    assert kept == wide
    assert len(batch.table.schema.names) <= 200 + 10
    assert slim["message"] == "slim"


def test_rows_that_all_have_other_keys_make_no_column_each() -> None:
    """The long tail goes to `attributes`; canonical names are never folded."""
    rows = [{"message": f"m{n}", f"key{n}": n, "zz": n} for n in range(2000)]
    rows[1500]["trace.id"] = "t"
    batch = take(lines(*rows))

    assert len(batch.table.schema.names) < 120
    found = rows_of(batch)
    assert found[1500]["trace_id"] == "t"
    assert all(row["zz"] == n for n, row in enumerate(found))
    merged = [{**row, **json.loads(row.get("attributes", "{}"))} for row in found]
    assert all(row[f"key{n}"] == n for n, row in enumerate(merged))


def test_names_beyond_the_limit_go_to_overflow() -> None:
    """256 bytes; nothing is lost."""
    row = one({"n" * 300: 1, "ok": 2, "nul\0name": 3})
    assert json.loads(row["_overflow"]) == {"n" * 300: 1}
    assert (row["ok"], row["nul\ufffdname"]) == (2, 3)


def test_two_names_that_flatten_to_one_are_both_kept() -> None:
    """The first is the field, the other stands in `_overflow`."""
    row = one({"a": {"b": 1}, "a.b": 2})
    assert row["a.b"] == 1
    assert json.loads(row["_overflow"]) == {"a.b": 2}


def test_a_service_too_long_is_a_bad_row() -> None:
    """128 bytes (10 here)."""
    batch = take(lines({"service": "x" * 11}, {"service": "x" * 10}), limits=SMALL)
    assert codes(batch) == [(1, "bad_service")]


def test_a_document_is_refused_as_a_whole_only_when_its_syntax_breaks() -> None:
    """A bad element costs itself; its raw bytes are its own."""
    body = (
        b'[{"a":1}, 5, {"a":1,"a":2}, {"b":"\xff"}, {"c":'
        + b"[" * 5000
        + b"]" * 5000
        + b'}, {"d":1}]'
    )
    batch = take(body, Format.DOCUMENT)
    assert codes(batch) == [
        (2, "not_an_object"),
        (3, "duplicate_key"),
        (4, "bad_utf8"),
        (5, "too_deep"),
    ]
    assert batch.table.num_rows == 2
    assert batch.failed is not None
    assert batch.failed["message"].to_pylist()[:2] == ["5", '{"a":1,"a":2}']

    endless = (
        b"[" + b"[" * 5000 + b'"' + b'\\"' * 500_000
    )  # hours, if each quote were tried as a start
    for broken in (
        b"[", b"[{]", b"[1", b'{"logs":[}', b"[] []", b"nope", b'[{"a":1} {"b":1}]', endless,
    ):  # fmt: skip
        with pytest.raises(InvalidRequest) as caught:
            take(broken, Format.DOCUMENT)
        assert caught.value.details["reason"] == "bad_json"


def test_limits_on_rows_and_values_of_a_document() -> None:
    """413, not memory."""
    with pytest.raises(TooLarge):
        take(b"[{},{},{}]", Format.DOCUMENT, limits=Limits(document_rows=2))
    with pytest.raises(TooLarge):
        take(b'[{"a":1,"b":2},{"c":[1]}]', Format.DOCUMENT, limits=Limits(slow_values=2))
    with pytest.raises(TooLarge):
        take(b"a\n1\n2\n3\n", Format.CSV, limits=Limits(document_rows=2))


# ---- other formats ---------------------------------------------------------------------------------


def test_csv_short_rows_long_rows_and_quotes() -> None:
    """RFC 4180; a short row lacks its last fields, a long one is bad."""
    body = b'level,message,x\r\nwarn,"a ""b""\nc",1\r\nerror,short\r\ninfo,too,1,2\r\n'
    batch = take(body, Format.CSV)
    assert [(r["level"], r["message"], r.get("x")) for r in rows_of(batch)] == [
        ("warn", 'a "b"\nc', "1"),
        ("error", "short", None),
    ]
    assert codes(batch) == [(3, "csv_columns")]
    assert batch.rejected[0].reason == "4 columns; the header has 3"
    with pytest.raises(InvalidRequest):
        take(b"a,a\n1,2\n", Format.CSV)


def test_the_access_log_example() -> None:
    """docs/protocol.md, section 13."""
    line = (
        b'203.0.113.9 - bo [21/Nov/2026:00:00:00 +0000] "GET /a?x=1 HTTP/1.1" 502 17 "-" "curl/8.5"'
    )
    [row] = rows_of(take(line, Format.COMBINED))
    assert row == {
        "client_ip": "203.0.113.9", "user": "bo", "timestamp": NOW, "method": "GET", "path": "/a",
        "query": "x=1", "protocol": "HTTP/1.1", "status": "502", "bytes": "17", "user_agent": "curl/8.5",
        "level": "error", "message": "GET /a?x=1 HTTP/1.1", "service": "unknown", "_raw": line.decode(),
    }  # fmt: skip


def test_access_log_escapes_and_odd_requests() -> None:
    """`\\"` and `\\xHH` are decoded; a request that is not three words goes into `request`."""
    body = (
        b'1.1.1.1 - - [21/Nov/2026:00:00:00 +0100] "GET /\\xc3\\xa9\\"q HTTP/1.1" 404 -\n'
        b'1.1.1.1 - - [31/Feb/2026:00:00:00 +0000] "\\x16\\x03" 400 5\n'
        b"not an access log line\n"
    )
    rows = rows_of(take(body, Format.COMMON))
    assert rows[0]["path"] == '/é"q'
    assert rows[0]["level"] == "warn"
    assert rows[0]["timestamp"] == datetime(2026, 11, 20, 23, tzinfo=UTC)
    assert rows[1]["request"] == "\x16\x03"
    assert rows[1]["timestamp"] == NOW
    assert rows[2] | {"timestamp": None} == {
        "timestamp": None, "service": "unknown", "level": "info",
        "message": "not an access log line", "_parse": "miss",
    }  # fmt: skip


def test_the_logfmt_example() -> None:
    """docs/protocol.md, section 13."""
    line = b'ts=2026-11-21T00:00:00Z level=warn msg="slow \\"q\\"" took=3s ok'
    for form in (Format.LOGFMT, Format.AUTO):
        [row] = rows_of(take(line, form))
        assert row == {
            "timestamp": NOW, "level": "warn", "message": 'slow "q"', "took": "3s", "ok": "true",
            "service": "unknown", "_raw": line.decode(),
        }  # fmt: skip


def test_kubernetes_parts_are_joined() -> None:
    """CRI: `P` parts up to `F`, by stream."""
    body = (
        b"2026-11-21T00:00:00Z stdout P one \n2026-11-21T00:00:00Z stderr F other\n"
        b"2026-11-21T00:00:01Z stdout F two\n"
    )
    rows = rows_of(take(body, Format.CRI))
    assert [(row["stream"], row["message"]) for row in rows] == [
        ("stdout", "one two"),
        ("stderr", "other"),
    ]


def test_plain_text_gives_time_level_trace_and_joins_stack_traces() -> None:
    """Section 13: the first words tell; parsing never rejects."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    body = (
        f"2026-11-21 00:00:01,250 ERROR boom traceparent=00-{trace}-b7ad6b7169203331-01\n"
        "Traceback (most recent call last):\n  File x\n"
        "nothing special\n"
    ).encode() + b"caf\xe9\n"
    rows = rows_of(take(body, Format.AUTO))
    assert rows[0]["timestamp"] == datetime(2026, 11, 21, 0, 0, 1, 250_000, tzinfo=UTC)
    assert (rows[0]["level"], rows[0]["trace_id"]) == ("error", trace)
    assert rows[0]["span_id"] == "b7ad6b7169203331"
    assert rows[0]["message"].endswith("File x")
    assert [row["message"] for row in rows[1:]] == ["nothing special", "caf\ufffd"]


@pytest.mark.parametrize(
    ("kind", "text", "head", "form"),
    [
        ("application/json", "", b" [1]", Format.DOCUMENT),
        ("application/json; charset=utf-8", "", b'{"service":"a","logs":[', Format.DOCUMENT),
        ("application/json", "", b'{"a":1}\n{"a":2}', Format.LINES),
        ("application/json", "", b'{"a":1}', Format.DOCUMENT),
        ("application/x-ndjson", "", b"", Format.LINES),
        ("application/jsonl", "", b"", Format.LINES),
        ("text/csv", "", b"[", Format.CSV),
        ("", "", b"a,b\n", Format.CSV),
        ("", "", b'{"a":1}\r\n{"b":1}', Format.LINES),
        ("text/plain", "", b"x", Format.AUTO),
        ("text/plain", "logfmt", b"x", Format.LOGFMT),
        ("application/x-www-form-urlencoded", "", b"[{}]", Format.DOCUMENT),
    ],
)
def test_the_format_follows_from_type_and_first_byte(
    kind: str, text: str, head: bytes, form: Format
) -> None:
    """Section 2."""
    assert format_of(kind, text, head) is form


def test_unknown_types_and_formats_are_unsupported() -> None:
    """415, with what is known."""
    for kind, text in (("application/xml", ""), ("image/png", ""), ("text/plain", "nope")):
        with pytest.raises(UnsupportedMedia) as caught:
            format_of(kind, text, b"{")
        assert caught.value.details["supported"]


# ---- numbered batches ------------------------------------------------------------------------------


def numbered(*rows: Any, **more: Any) -> Batch:
    body = {"service": "pay", "logs": list(rows), **more}
    return take(json.dumps(body).encode(), Format.DOCUMENT)


def test_rows_are_ordered_by_seq_and_equal_twins_dropped() -> None:
    """Ascending strictly; the same row twice is one, another under the same seq is bad."""
    same = {"seq": 2, "message": "b"}
    batch = numbered(
        {"seq": 3, "message": "c"}, same, {"seq": 1, "message": "a"}, same, {**same, "x": 1}
    )

    assert batch.table["seq"].to_pylist() == [1, 2, 3]
    assert batch.table["message"].to_pylist() == ["a", "b", "c"]
    assert codes(batch) == [(5, "duplicate_seq")]
    assert batch.sequence is not None
    assert batch.sequence.skips == ()


@pytest.mark.parametrize("seq", [0, -1, "x", 1.5, True, 1 << 63, [1]])
def test_a_bad_seq_is_a_bad_row(seq: Any) -> None:
    """It has no place, so it cannot become a skip."""
    batch = numbered({"seq": 1}, {"seq": seq})
    assert codes(batch) == [(2, "bad_seq")]
    assert batch.sequence is not None
    assert batch.sequence.skips == ()


def test_a_batch_of_bad_rows_alone_still_skips_their_seqs() -> None:
    """Zero rows, the skips and the failed rows."""
    batch = numbered({"seq": 4, "timestamp": "x"})
    assert batch.table.num_rows == 0
    assert batch.sequence is not None
    assert batch.sequence.skips == ((4, 4),)
    assert batch.failed is not None


def test_a_bad_rows_seq_is_no_skip_where_a_good_row_has_it() -> None:
    """A present row is never skipped, not even by the producer's own word."""
    batch = numbered(
        {"seq": 4, "timestamp": "x"},
        {"seq": 4, "message": "good"},
        skip=[{"from": 1, "to": 5}],
    )
    assert batch.table["seq"].to_pylist() == [4]
    assert batch.sequence is not None
    assert batch.sequence.skips == ((1, 3), (5, 5))


def test_rows_of_a_numbered_batch_belong_to_its_service() -> None:
    """A row's own other service is kept beside it."""
    batch = numbered({"seq": 1, "service": "other"}, {"seq": 2})
    assert batch.table["service"].to_pylist() == ["pay", "pay"]
    assert batch.table["source_service"].to_pylist() == ["other", None]


def test_an_envelope_may_name_its_keys_in_any_order() -> None:
    """`logs` first or last; unknown keys are ignored; a key twice is broken."""
    for body in (
        b'{"logs":[{"seq":1}],"skip":[],"epoch":2,"producer":"p","service":"pay","extra":{"logs":[1]}}',
        b'{"extra":[1,{"logs":[2]}],"service":"pay","producer":"p","epoch":2,"logs":[{"seq":1}]}',
    ):
        sequence = take(body, Format.DOCUMENT).sequence
        assert sequence is not None
        assert (sequence.service, sequence.producer, sequence.epoch) == ("pay", "p", 2)
    with pytest.raises(InvalidRequest):
        take(b'{"service":"a","service":"b","logs":[]}', Format.DOCUMENT)


def test_a_row_without_stream_fields_has_the_empty_stream() -> None:
    """Rows that lack some or all of the fields that name a stream stay rows."""
    options = Options(stream_fields=("app", "pod"))
    rows = [{}, {"pod": "p"}, {"app": "a", "pod": 'q"'}]

    found = rows_of(take(lines(*rows), options=options))

    assert [row["_stream"] for row in found] == ["{}", '{pod="p"}', '{app="a",pod="q\\""}']

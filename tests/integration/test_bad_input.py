"""Every kind of bad input against a real node: nothing crashes, hangs or leaks; all is answered.

One node (N=1), real sockets and disks. After each storm the good rows are read back, `_failed` holds what
was refused, the node's memory has not grown beyond its bound and its log has no error.
"""

import asyncio
import functools
import gzip
import json
import socket
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.support.cluster import LocalCluster, eventually, http, running_cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

SETTINGS = """
[ingest]
decoded_bytes = 67108864
document_bytes = 33554432
idle_seconds = 1.0
body_seconds = 2.0
"""
NDJSON, JSON, CSV = "application/x-ndjson", "application/json", "text/csv"
GROWTH_KIB = 400 << 10


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with running_cluster(
        tmp_path_factory.mktemp("bad") / "c", nodes=1, settings=SETTINGS
    ) as cluster:
        yield cluster


def post(node: LocalCluster, path: str, body: bytes, kind: str = "", **headers: str) -> tuple:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    status, answer, _ = http("POST", node.urls[0] + path, body, {"Content-Type": kind, **named})
    return status, answer


def rss_kib(node: LocalCluster) -> int:
    pid = node.running["node1"].pid
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def found(node: LocalCluster, **filters: str) -> list[dict[str, Any]]:
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    return node.get(f"/query?limit=1000&{query}")["rows"]


def marker(service: str, message: str) -> bytes:
    return json.dumps({"service": service, "message": message}).encode()


def still_well(node: LocalCluster, service: str, message: str) -> None:
    """The good row beside the bad input is stored, and a new one is taken at once."""
    eventually(lambda: any(row["message"] == message for row in found(node, service=service)))
    status, _ = post(node, "/ingest", b"[" + marker("after", message) + b"]", JSON)
    assert status == 200
    assert node.errors_logged() == []


BAD_LINES = {
    "broken": b'{"message":',
    "duplicate": b'{"a":1,"a":2}',
    "utf8": b'{"message":"\xff\xfe"}',
    "nul": b'{"message":"a\x00b"}',
    "array": b"[1,2,3]",
    "number": b"17",
    "deep": b'{"a":' * 1000 + b"1" + b"}" * 1000,
    "deeper": b'{"a":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}",
    "time": b'{"timestamp":"the day before yesterday"}',
    "service": b'{"service":"' + b"s" * 1000 + b'"}',
    "huge": b'{"message":"' + b"x" * (17 << 20) + b'"}',
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_costs_itself_alone(node: LocalCluster, name: str) -> None:
    """Refused with row and reason, kept in `_failed`; its neighbours are stored."""
    body = (
        marker(name, f"before {name}")
        + b"\n"
        + BAD_LINES[name]
        + b"\n"
        + marker(name, f"after {name}")
    )

    status, answer = post(node, "/logs", body, NDJSON)

    assert status == 200
    assert (answer["accepted"], answer["rejectedCount"]) == (2, 1)
    assert answer["rejected"][0]["row"] == 2
    assert answer["rejected"][0]["reason"]
    still_well(node, name, f"after {name}")
    code = answer["rejected"][0]["code"]
    assert any(row["code"] == code for row in found(node, service="_failed"))


def test_wide_rows_and_long_lines_are_stored(node: LocalCluster) -> None:
    """5,000 fields and a 10 MiB line are no errors: tails are folded, the message is cut."""
    wide = {"service": "wide", "message": "wide", **{f"k{n}": n for n in range(5000)}}
    long = {"service": "wide", "message": "y" * (10 << 20)}
    body = json.dumps(wide).encode() + b"\n" + json.dumps(long).encode()

    status, answer = post(node, "/logs", body, NDJSON)

    assert (status, answer["accepted"]) == (200, 2)
    rows = found(node, service="wide")
    assert sorted(len(row["message"]) for row in rows) == [4, 1 << 20]
    still_well(node, "wide", "wide")


TIMES = [
    "2026-11-21T00:00:00Z", "2026-11-21T01:00:00+01:00", "2026-11-21T00:00:00.000000000Z",
    "2026-11-21 00:00:00", "2026-11-21T00:00:00", "2026-11-21", "1795219200", 1795219200,
    1795219200000, 1795219200000000, 1795219200000000000, "1795219200.0", 1795219200.0,
]  # fmt: skip


def test_one_moment_in_thirteen_forms_is_one_moment(node: LocalCluster) -> None:
    """All are stored under the same timestamp; nonsense among them is refused by row."""
    rows = [{"service": "times", "message": str(n), "timestamp": t} for n, t in enumerate(TIMES)]
    nonsense = [
        {"service": "times", "timestamp": t} for t in ("yesterday", "2026-02-30", True, [1])
    ]

    status, answer = post(node, "/logs", json.dumps(rows + nonsense).encode(), JSON)

    assert (status, answer["accepted"], answer["rejectedCount"]) == (200, len(rows), len(nonsense))
    stamps = {str(row["timestamp"])[:26] for row in found(node, service="times")}
    assert len(stamps) == 1


@functools.cache
def bomb(encoding: str) -> bytes:
    zeros = b" " * (1 << 20)
    if encoding == "zstd":
        packer: Any = zstandard.ZstdCompressor().compressobj()
    else:
        packer = zlib.compressobj(9, wbits={"gzip": 31, "deflate": 15}[encoding])
    return b"".join(packer.compress(zeros) for _ in range(512)) + packer.flush()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
@pytest.mark.parametrize("kind", [JSON, NDJSON, CSV])
def test_a_bomb_is_refused_and_memory_stays(node: LocalCluster, encoding: str, kind: str) -> None:
    """512 MiB in half a MiB at most: 413, and the node's memory is bounded."""
    before = rss_kib(node)

    status, _ = post(node, "/logs", bomb(encoding), kind, Content_Encoding=encoding)

    assert status == 413
    assert rss_kib(node) - before < GROWTH_KIB
    assert node.errors_logged() == []


@pytest.mark.parametrize(
    ("path", "body", "kind", "encoding", "expected"),
    [
        ("/ingest", b"", JSON, "", 400),
        ("/logs", b"  \n ", NDJSON, "", 200),
        ("/logs", b"{}", "image/png", "", 415),
        ("/logs", b"{}", JSON, "br", 415),
        ("/logs", gzip.compress(b"[" + b'{"m":1},' * 500, mtime=0)[:-20], JSON, "gzip", 400),
        ("/logs", b"this is no gzip", JSON, "gzip", 400),
        ("/logs", b'[{"m":1}', JSON, "", 400),
        ("/logs", b"[" * 1_000_000, JSON, "", 400),
        ("/ingest", b'{"service":"' + b"x" * 200 + b'","logs":[]}', JSON, "", 400),
        ("/ingest", b'{"service":"../../etc","logs":[{"seq":"x"}]}', JSON, "", 200),
        ("/logs", b"a,b\n1,2,3\n", CSV, "", 400),
        ("/insert/jsonline", b"nope", "", "", 400),
        ("/logs", b"\x00" * 100_000, "application/octet-stream", "", 400),
        ("/logs", bytes(range(256)) * 4000, JSON, "", 400),
    ],
)
def test_a_request_that_cannot_be_read_is_said_to_be(
    node: LocalCluster, path: str, body: bytes, kind: str, encoding: str, expected: int
) -> None:
    """Empty, wrong type, wrong encoding, truncated, broken syntax."""
    headers = {"Content_Encoding": encoding} if encoding else {}
    status, answer = post(node, path, body, kind, **headers)
    assert status == expected, answer
    assert node.errors_logged() == []


def test_a_million_broken_lines_stay_within_memory(node: LocalCluster) -> None:
    """Each is a bad row; the first hundred are listed, all are counted."""
    before = rss_kib(node)

    status, answer = post(node, "/logs", b"x\n" * 1_000_000 + marker("million", "good"), NDJSON)

    assert status == 200
    assert (answer["accepted"], answer["rejectedCount"]) == (1, 1_000_000)
    assert len(answer["rejected"]) == 100
    assert rss_kib(node) - before < GROWTH_KIB
    still_well(node, "million", "good")


def test_slow_clients_do_not_keep_others_waiting(node: LocalCluster) -> None:
    """A hundred bodies that stop: each ends with 408, and a good request meanwhile is quick."""
    host, port = node.urls[0].removeprefix("http://").split(":")
    head = (
        b"POST /logs HTTP/1.1\r\nHost: q\r\nContent-Type: text/csv\r\nContent-Length: 999\r\n\r\na"
    )
    slow = []
    for _ in range(100):
        one = socket.create_connection((host, int(port)))
        one.sendall(head)
        slow.append(one)

    begun = time.monotonic()
    status, _ = post(node, "/ingest", b"[" + marker("slow", "quick one") + b"]", JSON)
    assert status == 200
    assert time.monotonic() - begun < 5

    for one in slow:
        one.settimeout(20)
        assert b" 408 " in one.recv(100)
        one.close()
    still_well(node, "slow", "quick one")


async def test_many_tiny_requests(node: LocalCluster) -> None:
    """2,000 one-row requests over 8 connections: all rows are there, once."""
    host, port = node.urls[0].removeprefix("http://").split(":")

    async def agent(number: int) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for n in range(250):
            body = b"[" + marker("tiny", f"{number}-{n}") + b"]"
            writer.write(
                b"POST /logs HTTP/1.1\r\nHost: q\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body) + body
            )
            answer = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in answer.split(b"\r\n")[0]
            length = int(answer.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
        writer.close()

    await asyncio.gather(*(agent(number) for number in range(8)))

    counted = node.get("/query/stats?service=tiny&agg=count")
    assert "2000" in json.dumps(counted)

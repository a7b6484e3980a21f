"""Hostile bytes into every port of a cluster that works: nobody dies, hangs, grows or says what is not so.

Three nodes. While rows are written and read, strangers send to the HTTP, the peers' and the Raft port: noise,
frames with lengths that lie, a head that passes its checksum and cannot be a map, a right beginning that
never ends, answers that nobody takes. Then all rows are there, reads are complete and no log has an error.
"""

import contextlib
import json
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from records import envelope
from tests.support.cluster import LocalCluster, eventually, http, running_cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
GROWTH_BYTES = 200 << 20
HELD = 120  # silent connections a port


def _frame(packed: bytes, payload_bytes: int = 0) -> bytes:
    return struct.pack(">4sIIQ", b"QLE1", len(packed), zlib.crc32(packed), payload_bytes) + packed


def hostile() -> list[bytes]:
    """What strangers say; the same for every port."""
    rng = Random(5)
    hello = {"version": 1, "token": "not it", "node": "node1"}
    return [
        *(rng.randbytes(rng.choice((1, 40, 3000))) for _ in range(40)),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(500),  # TLS
        b"SSH-2.0-x\r\n", b"\0" * 100_000, b"\n" * 100_000, b"\xff" * 4096, b"",
        _frame(b"\x81\x90\x01"), _frame(b"\x91\x01"), _frame(b"\xc1"), _frame(b"\x81\xa5token\xc0"),
        _frame(b"\x91" * 4000), envelope.encode(hello), envelope.encode(hello, b"x" * 3000),
        _frame(b"", 1 << 63), _frame(envelope.packb({}), 1 << 40),
        struct.pack(">4sIIQ", b"QLE1", 1 << 31, 0, 0),
        struct.pack(">I", 0xFFFFFFFF) + b"x" * 100, struct.pack("<q", -1) + b"y" * 100,
        b"GET / HTTP/9.9\r\n\r\n", b"GET /query HTTP/1.1\r\n" + b"a: b\r\n" * 20_000, b"\x80\x04\x95garbage.",
        b"POST /ingest HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /ingest HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n{}",
        b"POST /ingest HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\nx",
        b"POST /ingest HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\nzz\r\n",
        b"POST /sql HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nSELECT\xff\xfe\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + rng.randbytes(100),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three nodes."""
    with running_cluster(tmp_path_factory.mktemp("hostile") / "c") as made:
        yield made


def ports_of(cluster: LocalCluster) -> list[int]:
    """All that the nodes listen at, as the kernel tells."""
    inodes = set()
    for process in cluster.running.values():
        for link in Path(f"/proc/{process.pid}/fd").iterdir():
            try:
                inodes.add(str(link.readlink()))
            except OSError:
                continue
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        parts = line.split()
        if parts[3] == "0A" and f"socket:[{parts[9]}]" in inodes:
            found.append(int(parts[1].split(":")[1], 16))
    return sorted(set(found))


def memory_bytes(cluster: LocalCluster) -> list[int]:
    """Resident memory of each node's process."""
    found = []
    for process in cluster.running.values():
        status = Path(f"/proc/{process.pid}/status").read_text()
        line = next(one for one in status.splitlines() if one.startswith("VmRSS"))
        found.append(int(line.split()[1]) << 10)
    return found


def say(port: int, data: bytes) -> None:
    """Sends, reads a little, leaves; whatever the other side does is its right."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as link:
            link.sendall(data)
            link.shutdown(socket.SHUT_WR)
            link.settimeout(0.2)
            link.recv(4096)
    except OSError:
        return


def write(cluster: LocalCluster, number: int) -> None:
    """Ten rows through one of the nodes; acknowledged, or the test fails."""
    rows = [{"service": "good", "message": f"row {number} {i}"} for i in range(10)]
    url = cluster.urls[number % 3] + "/ingest"
    kind = {"Content-Type": "application/json"}
    status, answer, _ = http("POST", url, json.dumps(rows).encode(), kind)
    assert (status, answer["accepted"]) == (200, 10), answer


def test_a_working_cluster_does_not_mind_strangers(cluster: LocalCluster) -> None:
    """Noise at nine ports while ten rows at a time are written and counted."""
    ports = ports_of(cluster)
    assert len(ports) >= 9
    write(cluster, 0)
    before = memory_bytes(cluster)
    held = []
    for port in ports:
        for number in range(HELD):
            link = socket.create_connection(("127.0.0.1", port), timeout=5)
            link.setblocking(False)
            with contextlib.suppress(OSError):
                link.send(hostile()[number % 40][:3])  # the beginning of something, for ever
            held.append(link)
    noise = [
        threading.Thread(target=lambda p=port: [say(p, data) for data in hostile()], daemon=True)
        for port in ports
    ]
    for thread in noise:
        thread.start()
    written = 1
    while any(thread.is_alive() for thread in noise):
        write(cluster, written)
        written += 1
        answer = cluster.get("/query/stats?service=good", node=written % 3)
        assert answer["complete"], answer
    for thread in noise:
        thread.join(60)
    for link in held:
        link.close()

    assert written > 3
    for number in range(3):
        answer = cluster.get("/query/stats?service=good", node=number)
        assert answer["complete"]
        assert answer["rows"][0]["count"] == 10 * written
    assert all(
        process.child is None or process.child.poll() is None
        for process in cluster.running.values()
    )
    assert all(
        now - then < GROWTH_BYTES for now, then in zip(memory_bytes(cluster), before, strict=True)
    )
    assert cluster.errors_logged() == []


def test_readers_that_take_no_answer_keep_nobody_waiting(cluster: LocalCluster) -> None:
    """Fifty clients ask for everything and read nothing: others are answered, memory stays."""
    body = "".join(
        json.dumps({"service": "big", "message": f"{n} " + "x" * 900}) + "\n" for n in range(20_000)
    ).encode()
    kind = {"Content-Type": "application/x-ndjson"}
    status, answer, _ = http("POST", cluster.urls[0] + "/logs", body, kind)
    assert (status, answer["accepted"]) == (200, 20_000)
    before = memory_bytes(cluster)
    request = b"GET /query?service=big&limit=20000&format=ndjson HTTP/1.1\r\nHost: x\r\n\r\n"
    port = cluster.plan.nodes[0].http_port
    deaf = []
    for _ in range(50):
        link = socket.socket()
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.connect(("127.0.0.1", port))
        link.sendall(request)
        deaf.append(link)

    write(cluster, 1_000_000)
    answer = eventually(
        lambda: (found := cluster.get("/query/stats?service=big"))["complete"] and found, 60
    )
    growth = [now - then for now, then in zip(memory_bytes(cluster), before, strict=True)]
    for link in deaf:
        link.close()

    assert answer["rows"][0]["count"] == 20_000
    assert max(growth) < 2 * GROWTH_BYTES, growth
    assert cluster.errors_logged() == []

"""At a limit the answer is loud, and nothing that was acknowledged is lost: load, disk, quorum."""

import asyncio
import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.cluster import LocalCluster, eventually, http, running_cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(150)]

MIB = 1 << 20
NDJSON = {"Content-Type": "application/x-ndjson"}


def body_of(service: str, names: list[str], filler: int = 0) -> bytes:
    """NDJSON of one row a name."""
    rows = [{"service": service, "message": name, "filler": "x" * filler} for name in names]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def names_of(cluster: LocalCluster, service: str, node: int = 0) -> Counter[str]:
    """The messages of a service, from pages that must be complete; a page is cut by bytes too."""
    names: Counter[str] = Counter()
    path = f"/query?service={service}&limit=10000"
    cursor = ""
    while True:
        answer = cluster.get(path + cursor, node)
        assert (answer["complete"], answer["missing"]) == (True, [])
        names.update(row["message"] for row in answer["rows"])
        if not answer["next_cursor"]:
            return names
        cursor = f"&cursor={answer['next_cursor']}"


def memory_bytes(cluster: LocalCluster) -> int:
    """The peak of resident memory of node1."""
    status = Path(f"/proc/{cluster.running['node1'].pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


async def test_a_flood_is_told_to_come_back_and_memory_stays(tmp_path: Path) -> None:
    """40 agents, 2 MiB admitted: 429 with Retry-After, no other refusal; each row arrives once in the end."""
    settings = "\n[write]\nadmitted_bytes = 2097152\nadmitted_requests = 16\n"
    refused: list[tuple[int, str, Any]] = []
    acked: list[str] = []
    with running_cluster(tmp_path / "c", nodes=1, settings=settings) as cluster:
        before = memory_bytes(cluster)

        async def agent(session: aiohttp.ClientSession, number: int) -> None:
            for batch in range(6):
                names = [f"{number} {batch} {row}" for row in range(40)]
                body = body_of("flood", names, filler=8000)
                while True:
                    async with session.post(
                        f"{cluster.urls[0]}/logs", data=body, headers=NDJSON
                    ) as answer:
                        text = await answer.text()
                        if answer.status == 200:
                            break
                        again = answer.headers.get("Retry-After", "")
                        refused.append((answer.status, again, json.loads(text)))
                    await asyncio.sleep(0.05 * (1 + number % 5))
                acked.extend(names)

        timeout = aiohttp.ClientTimeout(total=90)
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=connector) as session,
            asyncio.TaskGroup() as group,
        ):
            for number in range(40):
                group.create_task(agent(session, number))
        grown = memory_bytes(cluster) - before

        assert len(acked) == 40 * 6 * 40
        assert names_of(cluster, "flood") == Counter(acked)
        counted = http("GET", f"{cluster.urls[0]}/metrics")[1]
    assert refused, "no limit was met"
    assert {status for status, _, _ in refused} == {429}
    assert all(int(again) >= 1 for _, again, _ in refused)
    error = refused[0][2]["error"]
    assert (error["code"], error["definite"]) == ("OVERLOADED", True)
    assert "quorumlog_admission_refused_total" in counted
    assert grown < 300 * MIB, f"{grown >> 20} MiB"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 192 MiB."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("needs root to mount")
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=192m", "none", str(place)]
    if subprocess.run(words, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_refuses_writes_and_answers_queries(small_disk: Path) -> None:
    """Below the floor: 507 with Retry-After, definite; what was acked is read. With room it goes on."""
    floor = f"disk_floor_bytes = {64 * MIB}\ndisk_hysteresis_bytes = {8 * MIB}\n"
    settings = f"\n[storage]\n{floor}log_file_bytes = {4 * MIB}\n"
    with running_cluster(small_disk / "c", nodes=1, settings=settings) as cluster:
        url = f"{cluster.urls[0]}/logs"

        def send(name: str) -> tuple[int, Any, dict[str, str]]:
            return http("POST", url, body_of("disk", [name]), NDJSON)

        assert send("before")[0] == 200
        ballast = small_disk / "ballast"
        with ballast.open("wb") as file:
            free = os.statvfs(small_disk)
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - 40 * MIB)
        acked = ["before"]

        def full() -> Any:
            name = f"late {len(acked)}"
            status, answer, headers = send(name)
            if status == 200:
                acked.append(name)
                return None
            return status, answer, headers

        status, answer, headers = eventually(full, 20)
        assert status == 507, answer
        assert (answer["error"]["code"], answer["error"]["definite"]) == ("DISK_FULL", True)
        assert int(headers["Retry-After"]) >= 1
        numbered = {"service": "disk", "producer": "p", "logs": [{"seq": 1, "message": "n"}]}
        status, answer, headers = http(
            "POST",
            f"{cluster.urls[0]}/ingest",
            json.dumps(numbered).encode(),
            {"Content-Type": "application/json"},
        )
        assert (status, answer["error"], answer["retryable"]) == (507, "disk_full", True)
        assert set(names_of(cluster, "disk")) >= set(acked)
        assert cluster.get("/health")["status"] == "ok"

        ballast.unlink()
        eventually(lambda: send("after")[0] == 200, 20)
        found = names_of(cluster, "disk")
        assert set(found) >= {*acked, "after"}
        assert set(found.values()) == {1}
        cluster.kill("node1")
        cluster.start()
        assert names_of(cluster, "disk") == found


def test_without_a_quorum_writes_are_refused_and_reads_say_so(tmp_path: Path) -> None:
    """Two of three killed: 503 after the hold, not definite; `complete: false` names every shard.

    Back again: complete, the refused body is stored once although it was sent three times.
    """
    settings = "\n[ingest]\nhold_seconds = 2.0\n"
    with running_cluster(tmp_path / "c", settings=settings) as cluster:
        url = cluster.urls[0]
        acked = [f"row {n}" for n in range(500)]
        status, answer, _ = http("POST", f"{url}/logs", body_of("lone", acked), NDJSON)
        assert (status, answer["accepted"]) == (200, 500)
        shards = {one["shard"] for one in cluster.get("/cluster/shards")["shards"]}
        cluster.kill("node2", "node3")

        doubtful = body_of("lone", ["doubtful"])
        refusals = [http("POST", f"{url}/logs", doubtful, NDJSON) for _ in range(2)]
        found = cluster.get("/query?service=lone&limit=1000")
        everything = cluster.get("/query/stats?by=service&agg=count")
        streamed = http("GET", f"{url}/query?service=lone&format=ndjson")

        for status, answer, headers in refusals:
            assert status == 503, answer
            assert answer["error"]["code"] == "QUORUM_UNAVAILABLE"
            assert answer["error"]["definite"] is False
            assert int(headers["Retry-After"]) >= 1
        assert found["complete"] is False
        assert len({one["shard"] for one in found["missing"]}) == 1
        assert everything["complete"] is False
        assert {one["shard"] for one in everything["missing"]} == shards
        assert streamed[2].get("X-Quorumlog-Complete") == "false"
        assert cluster.get("/health")["status"] == "ok"

        cluster.start()
        status, answer, _ = http("POST", f"{url}/logs", doubtful, NDJSON)
        assert status == 200
        assert answer["accepted"] + answer["duplicates"] == 1
        for node in range(3):
            assert names_of(cluster, "lone", node) == Counter([*acked, "doubtful"])

"""The client library and plain HTTP against a real cluster: what was acknowledged is what is read.

One cluster of three processes for all tests of this file; each test has services of its own.
"""

import asyncio
import csv
import io
import json
import logging
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from quorumlog import Client, Fenced, LogHandler, Producer, SyncClient
from tests.support.cluster import LocalCluster, http, running_cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(150)]

#: 2026-03-01T00:00:00Z, in seconds; the tests' rows have times from here on.
START = 1_772_323_200


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three nodes; in the end none may have logged an error."""
    with running_cluster(tmp_path_factory.mktemp("client") / "c") as cluster:
        yield cluster
        assert cluster.errors_logged() == []


def ingest(cluster: LocalCluster, body: Any, node: int = 0, path: str = "/ingest") -> Any:
    """(status, answer) of a JSON body."""
    headers = {"Content-Type": "application/json"}
    status, answer, _ = http("POST", cluster.urls[node] + path, json.dumps(body).encode(), headers)
    return status, answer


def query(cluster: LocalCluster, path: str = "/query", node: int = 0, **params: Any) -> Any:
    """The answer of a read that must succeed and be complete."""
    answer = cluster.get(f"{path}?{urllib.parse.urlencode(params)}", node)
    assert answer["complete"] is True, answer
    assert answer["missing"] == []
    return answer


def messages(cluster: LocalCluster, service: str, node: int = 0) -> list[str]:
    """All messages of a service, oldest first."""
    answer = query(cluster, node=node, service=service, limit=10_000, order="asc")
    assert answer["next_cursor"] is None
    return [row["message"] for row in answer["rows"]]


async def test_a_producers_rows_are_found_through_every_node(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    """10,000 rows through a producer with a buffer file; each node gives back each field as sent."""
    sent = [
        {"level": "error" if n % 20 == 0 else "info", "message": f"row {n}", "n": n, "half": n / 2}
        for n in range(10_000)
    ]
    async with Producer(cluster.urls, "shop", tmp_path / "shop.wal", batch_rows=3000) as producer:
        seqs = [producer.send(**row, trace_id=f"t{row['n']}") for row in sent]
        await producer.flush()
        assert (producer.waiting, producer.ack_till) == (0, 10_000)

    assert seqs == list(range(1, 10_001))
    for url in cluster.urls:
        async with Client([url]) as client:
            rows = [row async for row in client.rows(service="shop", limit=4000, order="asc")]
            one = await client.query(service="shop", trace_id="t4711")
        found = sorted(rows, key=lambda row: row["n"])
        assert [{key: row[key] for key in sent[0]} for row in found] == sent
        assert [row["seq"] for row in found] == seqs
        assert [row["n"] for row in one] == [4711]


async def test_pages_by_cursor_have_no_doubles_and_no_gaps_while_rows_arrive(
    cluster: LocalCluster,
) -> None:
    """Pages newest first and oldest first while a writer adds rows at both ends of time."""
    rows = [
        {"service": "paged", "message": f"old {n}", "timestamp": START + n} for n in range(3000)
    ]
    assert ingest(cluster, rows)[1]["accepted"] == 3000
    stop = asyncio.Event()

    async def write() -> int:
        number = 0
        while not stop.is_set():
            batch = [
                {"service": "paged", "message": f"new {number} {k}", "timestamp": START + offset}
                for k, offset in enumerate((-number - 1, 10_000 + number, 1500))
            ]
            status, answer = await asyncio.to_thread(ingest, cluster, batch, number % 3)
            assert (status, answer["accepted"]) == (200, 3), answer
            number += 1
        return number

    async with asyncio.TaskGroup() as group, Client(cluster.urls) as client:
        writer = group.create_task(write())
        walks: dict[str, list[dict[str, Any]]] = {"desc": [], "asc": []}
        for order, walk in walks.items():
            async for page in client.pages(service="paged", limit=157, order=order):
                assert page.complete
                walk += page.rows
        stop.set()

    assert writer.result() >= 5, "no rows arrived during the walks"
    for order, walk in walks.items():
        ids = [row["_id"] for row in walk]
        assert len(ids) == len(set(ids)), f"{order}: {len(ids) - len(set(ids))} doubles"
        old = [row["message"] for row in walk if row["message"].startswith("old")]
        assert sorted(old) == sorted(row["message"] for row in rows), order
        times = [row["timestamp"] for row in walk]
        assert times == sorted(times, reverse=order == "desc"), order


async def test_a_table_is_stored_as_the_rows_it_holds(cluster: LocalCluster) -> None:
    """Real columns in, through one node; the same rows out through another, typed."""
    table = pa.table(
        {
            "timestamp": pa.array([int(START * 1e6) + n for n in range(500)]).view(
                pa.timestamp("us", "UTC")
            ),
            "service": pa.array(["columns"] * 500).dictionary_encode(),
            "message": [f"row {n} ü" for n in range(500)],
            "n": list(range(500)),
        }
    )
    async with Client(cluster.urls[:1]) as client:
        result = await client.ingest_table(table)
        assert (result.accepted, result.rejected_count) == (500, 0)
    async with Client(cluster.urls[1:2]) as client:
        rows = [row async for row in client.rows(service="columns", fields="n,message,timestamp")]

    assert sorted((row["n"], row["message"]) for row in rows) == [
        (n, f"row {n} ü") for n in range(500)
    ]
    assert len({row["timestamp"] for row in rows}) == 500


async def test_streams_of_200_000_rows_are_what_was_sent(cluster: LocalCluster) -> None:
    """NDJSON, Arrow and CSV; each row compared, not counted. Awkward text survives each format."""
    awkward = ['say "hi"', "a,b", "line\nbreak", "\ttab", "ü€😀", "back\\slash", "'", " edge "]
    sent = {n: f"{awkward[n % len(awkward)]} {n}" for n in range(200_000)}
    async with Client(cluster.urls) as client:
        for first in range(0, 200_000, 40_000):
            lines = (
                {"service": "bulk", "message": sent[n], "n": n, "timestamp": START + n / 100}
                for n in range(first, first + 40_000)
            )
            result = await client.ingest_lines(lines)
            assert (result.accepted, result.rejected_count) == (40_000, 0)

        lines_read = {}
        async for row in client.stream("ndjson", service="bulk", fields="n,message"):
            assert row["n"] not in lines_read, f"doubled: {row}"
            lines_read[row["n"]] = row["message"]
        batches = [batch async for batch in client.stream("arrow", service="bulk")]
    table = pa.Table.from_batches(batches)
    path = "/query?format=csv&service=bulk&fields=n,message"
    text = await asyncio.to_thread(http, "GET", cluster.urls[1] + path, None, None, 60.0)
    records = list(csv.DictReader(io.StringIO(text[1], newline="")))

    assert lines_read == sent
    assert table.num_rows == 200_000
    assert dict(zip(table["n"].to_pylist(), table["message"].to_pylist(), strict=True)) == sent
    assert len(records) == 200_000
    assert {int(record["n"]): record["message"] for record in records} == sent


def test_sums_agree_with_an_independent_count(cluster: LocalCluster) -> None:
    """stats, histogram, fields and values against plain Python over the rows that were sent."""
    levels = ("info", "warn", "error")
    rows = [
        {
            "service": f"sum{n % 4}",
            "level": levels[n % 3],
            "message": f"request {n}",
            "timestamp": START + 60 * (n % 7),
            "took": float(n % 50),
        }
        for n in range(2100)
    ]
    assert ingest(cluster, rows)[1]["accepted"] == 2100
    services = {"service": "sum0,sum1,sum2,sum3"}

    stats = query(
        cluster, "/query/stats", 1, by="service,level", agg="count,sum(took),max(took)", **services
    )
    histogram = query(cluster, "/query/histogram", 2, step="1m", by="level", **services)
    values = query(cluster, "/query/values", 0, field="took", limit=100, **services)
    fields = query(cluster, "/query/fields", 1, exact="true", **services)

    groups: dict[tuple, list[float]] = {}
    for row in rows:
        groups.setdefault((row["service"], row["level"]), []).append(row["took"])
    assert {
        (row["service"], row["level"]): (row["count"], row["sum(took)"], row["max(took)"])
        for row in stats["rows"]
    } == {key: (len(took), sum(took), max(took)) for key, took in groups.items()}
    minutes = Counter((row["timestamp"], row["level"]) for row in rows)
    assert sum(row["count"] for row in histogram["rows"]) == 2100
    assert sorted(row["count"] for row in histogram["rows"] if row["count"]) == sorted(
        minutes.values()
    )
    assert {row["timestamp"][11:16] for row in histogram["rows"]} == {
        f"00:0{minute}" for minute in range(7)
    }
    assert {float(one["value"]): one["count"] for one in values["values"]} == Counter(
        row["took"] for row in rows
    )
    counts = {one["name"]: one["rows"] for one in fields["fields"]}
    assert {counts[name] for name in ("took", "level", "message", "service", "timestamp")} == {2100}


def test_filters_find_what_they_say(cluster: LocalCluster) -> None:
    """Words, phrase, regex, level, bounds of time, any field, the expression: each against its rows."""
    rows = [
        {"service": "find", "level": "error", "message": "card declined by bank", "code": 51},
        {"service": "find", "level": "info", "message": "card accepted", "code": 0},
        {"service": "find", "level": "info", "message": "bank declined to answer", "code": 51},
        {"service": "find", "level": "debug", "message": "took 1234ms", "code": 7},
    ]
    for n, row in enumerate(rows):
        row["timestamp"] = START + n
    assert ingest(cluster, rows)[1]["accepted"] == 4

    def found(**params: Any) -> set[int]:
        answer = query(cluster, service="find", **params)
        return {round(_seconds(row["timestamp"]) - START) for row in answer["rows"]}

    assert found() == {0, 1, 2, 3}
    assert found(search="declined") == {0, 2}
    assert found(search='"card declined"') == {0}
    assert found(regex=r"\d{4}ms") == {3}
    assert found(level="error,debug") == {0, 3}
    assert found(code=51) == {0, 2}
    assert found(**{"from": START + 1, "to": START + 3}) == {1, 2}
    assert found(q="code:>5 AND NOT level:debug") == {0, 2}
    assert found(q="bank OR took:5 OR 1234ms") == {0, 2, 3}


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_the_same_body_through_other_nodes_is_stored_once(cluster: LocalCluster) -> None:
    """An agent's blind retry: acknowledged each time, stored once; a line twice in a body is two rows."""
    body = [{"service": "twice", "message": message} for message in ("tick", "tick", "tock")]

    answers = [ingest(cluster, body, node, "/logs") for node in (0, 1, 2, 0)]

    assert [status for status, _ in answers] == [200] * 4
    assert [(one["accepted"], one["duplicates"]) for _, one in answers] == [(3, 0), *[(0, 3)] * 3]
    assert len({one["batchId"] for _, one in answers}) == 1
    for node in range(3):
        assert sorted(messages(cluster, "twice", node)) == ["tick", "tick", "tock"]


def test_an_idempotency_key_names_a_request(cluster: LocalCluster) -> None:
    """Same key: stored once. Same key, other bytes: CONFLICT. Other key, same bytes: another request."""
    body = json.dumps([{"service": "keyed", "message": "pay 5"}]).encode()
    other = json.dumps([{"service": "keyed", "message": "pay 6"}]).encode()

    def post(key: str, body: bytes, node: int) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        status, answer, _ = http("POST", f"{cluster.urls[node]}/logs", body, headers)
        return status, answer

    assert post("k1", body, 0)[1]["accepted"] == 1
    assert post("k1", body, 1)[1]["duplicates"] == 1
    status, answer = post("k1", other, 2)
    assert (status, answer["error"]["code"]) == (
        409,
        "CONFLICT",
    )  # definite once all owners refused
    assert post("k2", body, 2)[1]["accepted"] == 1
    assert messages(cluster, "keyed") == ["pay 5", "pay 5"]


def sequenced(service: str, seqs: list[int], epoch: int = 1, text: str = "row") -> dict[str, Any]:
    """A batch of the ACK protocol."""
    logs = [{"seq": seq, "level": "info", "message": f"{text} {seq}"} for seq in seqs]
    return {"service": service, "producer": "p-1", "epoch": epoch, "logs": logs}


def test_gaps_are_named_and_filled_by_replay(cluster: LocalCluster) -> None:
    """Any node takes the batch; `ackTill` stops at the gap; only the missing rows are stored."""
    first = ingest(cluster, sequenced("gap", [1, 2, 5, 9]), 0)[1]
    assert (first["ackTill"], first["missing"], first["status"]) == (2, [3, 4, 6, 7, 8], "partial")
    assert first["missingRanges"] == [[3, 4], [6, 8]]

    seen = cluster.get("/logs/replay?service=gap&producer=p-1&epoch=1", 1)
    assert (seen["ackTill"], seen["maxSeen"], seen["missingRanges"]) == (2, 9, [[3, 4], [6, 8]])
    filled = ingest(cluster, sequenced("gap", list(range(1, 10))), 2, "/logs/replay")[1]

    assert (filled["accepted"], filled["duplicates"]) == (5, 4)
    assert (filled["ackTill"], filled["missing"], filled["status"]) == (9, [], "complete")
    assert sorted(messages(cluster, "gap", 1)) == [f"row {n}" for n in range(1, 10)]


def test_an_explicit_skip_closes_a_gap_for_ever(cluster: LocalCluster) -> None:
    """A skipped seq is acknowledged; what comes under it later is no new row."""
    ingest(cluster, sequenced("skip", [1, 4]))
    skip = {**sequenced("skip", []), "skip": [{"from": 2, "to": 3, "reason": "lost"}]}

    status, answer = ingest(cluster, skip, 1)

    assert (status, answer["ackTill"], answer["status"]) == (200, 4, "complete")
    for node in range(3):
        seen = cluster.get("/logs/replay?service=skip&producer=p-1", node)
        assert (seen["ackTill"], seen["missing"]) == (4, [])
    assert sorted(messages(cluster, "skip")) == ["row 1", "row 4"]


def test_a_seq_with_other_bytes_is_a_conflict_and_costs_only_itself(cluster: LocalCluster) -> None:
    """409; the conflicting row is named and kept in `_failed`, the good rows are durable."""
    sent = ingest(cluster, sequenced("conflict", [1, 2]))[1]
    batch = sequenced("conflict", [2, 3])
    batch["logs"][0]["message"] = "something else"

    status, answer = ingest(cluster, batch, 1)

    assert sent["ackTill"] == 2
    assert (status, answer["error"]) == (409, "conflict")
    assert [(one["seq"], one["code"]) for one in answer["rejected"]] == [(2, "conflict")]
    assert (answer["accepted"], answer["ackTill"]) == (1, 3)
    assert sorted(messages(cluster, "conflict")) == ["row 1", "row 2", "row 3"]
    failed = query(cluster, service="_failed", search='"something else"')["rows"]
    assert [row["source_service"] for row in failed] == ["conflict"]


async def test_a_new_epoch_fences_the_old_writer(cluster: LocalCluster, tmp_path: Path) -> None:
    """Two copies of one producer: the newer buffer gets the next epoch, the older one is told 409."""
    settings: dict[str, Any] = {"producer": "till-1", "linger_seconds": 0.01}
    async with Producer(cluster.urls, "fence", tmp_path / "a.wal", **settings) as old:
        old.send(message="old 1")
        await old.flush()
        async with Producer(cluster.urls, "fence", tmp_path / "b.wal", **settings) as new:
            new.send(message="new 1")
            await new.flush()
            newest = new.epoch
            assert newest == old.epoch + 1
            old.send(message="old 2")
            with pytest.raises(Fenced):
                await old.flush()
            with pytest.raises(Fenced):
                old.send(message="old 3")
        with pytest.raises(Fenced):
            await old.close()

    stale = {"service": "fence", "producer": "till-1", "epoch": 1, "logs": [{"seq": 99}]}
    for node in range(3):
        status, answer = ingest(cluster, stale, node)
        assert (status, answer["error"], answer["epoch"]) == (409, "fenced", newest)
    assert sorted(messages(cluster, "fence")) == ["new 1", "old 1"]


def test_the_log_handler_and_the_synchronous_client(cluster: LocalCluster, tmp_path: Path) -> None:
    """Records of the logging module, with `extra` and an exception, found by `SyncClient`."""
    logger = logging.getLogger("till")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    handler = LogHandler(cluster.urls, "handler", tmp_path / "handler.wal")
    logger.addHandler(handler)
    try:
        for n in range(500):
            logger.info("sold %d", n, extra={"basket": n})
        try:
            raise ValueError("no change left")
        except ValueError:
            logger.exception("cannot sell")
        handler.flush()
    finally:
        logger.removeHandler(handler)
        handler.close()

    assert handler.dropped == Counter()
    with SyncClient(cluster.urls) as client:
        page = client.query(service="handler", level="info", limit=1000)
        failures = client.query(service="handler", level="error").rows
        counted = client.stats(by="level", service="handler")
    assert (page.complete, sorted(row["basket"] for row in page)) == (True, list(range(500)))
    assert page.to_arrow().num_rows == 500
    assert [row["exception.type"] for row in failures] == ["builtins.ValueError"]
    assert {row["level"]: row["count"] for row in counted["rows"]} == {"info": 500, "error": 1}

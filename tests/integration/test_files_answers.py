"""`quorumlog files` on a working cluster: DuckDB and Polars count what the API counts, while merges go on.

Three nodes with small merges. The store has what makes it hard: several tenants, late rows, a batch sent
again through another node, overlapping sequences, fields whose type changes from batch to batch, a field
that only some rows have, a resend after a node was killed. The commands are those of docs/formats.md.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import polars as pl
import pytest

from tests.support.cluster import LocalCluster, eventually, http, running_cluster

pytestmark = [pytest.mark.integration, pytest.mark.beside, pytest.mark.timeout(240)]
SETTINGS = "\n[storage]\ncompact_interval_seconds = 0.05\ncompact_cpu_share = 0.9\n"
HOUR = 3_600
START = 1_767_225_600
KIND = {"Content-Type": "application/json"}
#: A field's values by batch: whole numbers, decimals, text, absent.
CHANGING = (1, 2.5, "three", None, -4, "5")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three nodes that merge all the time."""
    folder = tmp_path_factory.mktemp("files") / "c"
    with running_cluster(folder, settings=SETTINGS) as made:
        yield made


def send(cluster: LocalCluster, rows: Any, node: int, tenant: str = "default") -> None:
    """One batch, acknowledged; sent again when the cluster is not ready for it."""
    headers = {**KIND, "X-Scope-OrgID": tenant}

    def sent() -> bool:
        url = cluster.urls[node] + "/ingest"
        return http("POST", url, json.dumps(rows).encode(), headers)[0] == 200

    eventually(sent, 30)


def batch(rng: Random, number: int, tenant: str) -> list[dict[str, Any]]:
    """Rows of one service; every fifth batch is late by hours, some span hours."""
    start = START + rng.randrange(3) * HOUR - (number % 5 == 0) * 40 * HOUR
    rows = []
    for place in range(rng.randrange(5, 60)):
        moment = start + rng.randrange(HOUR if number % 3 else 3 * HOUR)
        row: dict[str, Any] = {
            "timestamp": moment, "service": f"s{number % 4}", "message": f"{tenant} {number} {place}",
            "level": rng.choice(["info", "error"]), "host": rng.choice(["h1", "h2", None]),
        }  # fmt: skip
        if (value := CHANGING[number % len(CHANGING)]) is not None:
            row["changing"] = value
        if place % 7 == 0:
            row["rare"] = place
        rows.append({name: one for name, one in row.items() if one is not None})
    return rows


def stats(cluster: LocalCluster, tenant: str, by: str) -> Counter[Any]:
    """The API's counts; complete."""
    url = f"{cluster.urls[1]}/query/stats?by={by}"
    status, answer, _ = http("GET", url, headers={"X-Scope-OrgID": tenant})
    assert status == 200
    assert answer["complete"], answer
    return Counter({row.get(by): row["count"] for row in answer["rows"]})


def files(cluster: LocalCluster, tenant: str) -> dict[str, Any]:
    """What the command lists."""
    command = [sys.executable, "-m", "node", "files", "--json", "--tenant", tenant]
    done = subprocess.run(
        [*command, "--server", cluster.urls[0]], capture_output=True, timeout=100, check=True
    )
    return json.loads(done.stdout)


def by_duckdb(paths: list[str], name: str) -> Counter[Any]:
    """As the docs say: united by name."""
    table = "read_parquet(?, union_by_name=true, hive_partitioning=false)"
    sql = f'SELECT "{name}", count(*) FROM {table} GROUP BY 1'
    return Counter(dict(duckdb.connect().execute(sql, [paths]).fetchall()))


def by_polars(paths: list[str], name: str) -> Counter[Any]:
    """As the docs say: concatenated, types relaxed."""
    rows = pl.concat([pl.scan_parquet(path) for path in paths], how="diagonal_relaxed")
    found = rows.group_by(pl.col(name)).len().collect()
    return Counter(dict(found.iter_rows()))


def merges(cluster: LocalCluster) -> list[float]:
    """Merges of each node since its start."""
    found = []
    for url in cluster.urls:
        lines = http("GET", url + "/metrics")[1].splitlines()
        named = [one for one in lines if one.startswith("quorumlog_compaction_merges_total")]
        found.append(sum(float(one.split()[-1]) for one in named))
    return found


def merged_since(cluster: LocalCluster, before: list[float]) -> None:
    """Returns when each node has merged once more than `before`."""
    eventually(lambda: all(a > b for a, b in zip(merges(cluster), before, strict=True)), 60)


def test_other_engines_find_what_the_api_finds(cluster: LocalCluster) -> None:
    """Three tenants, sixty batches, a killed node, resends, two rounds of merges; every count agrees."""
    rng, wanted = Random(3), {tenant: Counter[str]() for tenant in ("default", "a", "b")}
    first: list[float] = []
    sent: list[tuple[Any, str]] = []
    for number in range(60):
        tenant = rng.choice(list(wanted))
        rows = batch(rng, number, tenant)
        if number == 30:
            merged_since(cluster, [0.0, 0.0, 0.0])
            first = merges(cluster)
            cluster.kill("node3")
        if number == 45:
            cluster.start_one("node3")
        alive = 2 if 30 <= number < 45 else 3
        send(cluster, rows, number % alive, tenant)
        sent.append((rows, tenant))
        wanted[tenant].update(row["message"] for row in rows)
    for rows, tenant in sent[::6]:
        send(cluster, rows, rng.randrange(3), tenant)  # a blind resend through any node
    producer = {"service": "seq", "producer": "p", "epoch": 1}
    for low, high in ((1, 30), (20, 45), (10, 60)):
        logs = [
            {"seq": seq, "message": f"seq {seq}", "timestamp": START + seq}
            for seq in range(low, high + 1)
        ]
        send(cluster, {**producer, "logs": logs}, low % 3)
    wanted["default"].update(f"seq {seq}" for seq in range(1, 61))
    merged_since(cluster, [*first[:2], 0.0])  # node3 counts from its second start

    for tenant, messages in wanted.items():
        listed = files(cluster, tenant)
        assert listed["complete"]
        paths = [one["path"] for one in listed["files"]]
        assert listed["rows"] == messages.total()
        for name in ("message", "level", "service", "host"):
            api = stats(cluster, tenant, name) if name != "message" else messages
            assert by_duckdb(paths, name) == api, (tenant, name)
            assert by_polars(paths, name) == api, (tenant, name)
        changing = {str(key): count for key, count in by_duckdb(paths, "changing").items()}
        api = {str(key): count for key, count in stats(cluster, tenant, "changing").items()}
        assert changing == api, (tenant, "changing")


def test_a_list_stays_readable_while_merges_and_writes_go_on(cluster: LocalCluster) -> None:
    """The same files give the same rows after more writes and merges, and after the next list."""
    listed = files(cluster, "default")
    paths = [one["path"] for one in listed["files"]]
    before = by_duckdb(paths, "message")
    merged = sum(merges(cluster))
    rng = Random(9)
    for number in range(100, 130):
        send(cluster, batch(rng, number, "more"), number % 3)
    eventually(lambda: sum(merges(cluster)) > merged, 60)

    assert by_duckdb(paths, "message") == before
    later = files(cluster, "default")
    assert later["rows"] > listed["rows"]
    assert by_duckdb(paths, "message") == before
    assert all(Path(path).exists() for path in paths)


def test_segments_lie_in_hive_folders(cluster: LocalCluster) -> None:
    """`date=…/hour=…` are what the rows in them say."""
    roots = [node.folder for node in cluster.plan.nodes]
    found = [
        path
        for root in roots
        for path in root.rglob("segments/**/*.parquet")
        if "hour=" in str(path)
    ]
    assert found
    checked = 0
    for path in found:
        date, hour = path.parent.parent.name.split("=")[1], path.parent.name.split("=")[1]
        if hour.startswith("__"):
            continue
        try:
            times: Any = pl.read_parquet(path, columns=["timestamp"])["timestamp"]
        except FileNotFoundError:  # merged away meanwhile
            continue
        spans = {(str(one.date()), f"{one.hour:02d}") for one in (times.min(), times.max())}
        assert spans == {(date, f"{int(hour):02d}")}, path
        checked += 1
    assert checked

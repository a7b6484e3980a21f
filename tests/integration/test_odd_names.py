"""Fields with names that engines stumble over: written by one sender, they spoil nobody's search.

One node. Each name has a tenant of its own; every way to read answers, and nothing is logged as an error.
"""

import http.client
import json
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from tests.support.cluster import LocalCluster, running_cluster
from tests.support.cluster import http as ask

pytestmark = [pytest.mark.integration, pytest.mark.beside, pytest.mark.timeout(120)]
#: What a name becomes; most stay as they are.
NAMES = {
    "": "unnamed", "_id": "source__id", "_run": "source__run", "_number": "source__number", "*": "*",
    "a\0b": "a\ufffdb", "^.*$": "^.*$", '"': '"', "a\nb": "a\nb", ".": ".", " ": " ",
    "column_1": "column_1", "😀": "😀",
    "Service": "Service", "source__id": "source__id",
}  # fmt: skip
ROWS = 6


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """One node."""
    with running_cluster(tmp_path_factory.mktemp("names") / "c", nodes=1) as made:
        yield made


def read(node: LocalCluster, path: str, tenant: str) -> tuple[int, bytes]:
    """Status and whole body of a GET: a stream that ends early is an exception."""
    link = http.client.HTTPConnection("127.0.0.1", node.plan.nodes[0].http_port, timeout=30)
    try:
        link.request("GET", path, headers={"X-Scope-OrgID": tenant})
        answer = link.getresponse()
        return answer.status, answer.read()
    finally:
        link.close()


@pytest.mark.parametrize("name", NAMES)
def test_every_way_to_read_answers(node: LocalCluster, name: str) -> None:
    """Rows in each format with all fields, counts, facets, values, SQL; or a refusal with its reason."""
    tenant = f"t{list(NAMES).index(name)}"
    rows = [{"service": "s", "message": f"m{n}", name: f"value {n % 2}"} for n in range(ROWS)]
    headers = {"Content-Type": "application/json", "X-Scope-OrgID": tenant}
    status, answer, _ = ask("POST", node.urls[0] + "/ingest", json.dumps(rows).encode(), headers)
    assert (status, answer["accepted"]) == (200, ROWS)
    quoted = urllib.parse.quote(name)

    found: Any = json.loads(read(node, "/query?order=asc", tenant)[1])["rows"]
    lines = read(node, "/query?format=ndjson", tenant)[1].splitlines()
    table = pa.ipc.open_stream(read(node, "/query?format=arrow", tenant)[1]).read_all()
    csv = read(node, "/query?format=csv", tenant)[1]

    for row in (*found, *map(json.loads, lines)):
        assert row[NAMES[name]] in ("value 0", "value 1"), row
        assert set(row) >= {"_id", "timestamp", "service", "message", NAMES[name]}
    assert len(found) == len(lines) == table.num_rows == ROWS
    assert b"value 1" in csv
    for path in (
        "/query/stats?by=level", "/query/fields", "/query/facets", f"/query/facets?fields={quoted}",
        f"/query/values?field={quoted}", f"/query/stats?by={quoted}", f"/query/histogram?by={quoted}&step=1h",
        f"/query/stats?agg=max({quoted})", f"/query?fields={quoted}", f"/query?{quoted}=value+1",
    ):  # fmt: skip
        status, body = read(node, path, tenant)
        assert status in (200, 400), (path, body)
        assert json.loads(body), path
    headers["Content-Type"] = "text/plain"
    status, answer, _ = ask("POST", node.urls[0] + "/sql", b"SELECT * FROM logs", headers)
    assert status == 200 or answer["error"]["code"] == "INVALID_REQUEST", answer
    assert node.errors_logged() == []


def test_odd_names_do_not_meet(node: LocalCluster) -> None:
    """A field that has the safe name already keeps it."""
    row = {"message": "m", "": "empty", "unnamed": "own", "_id": "mine", "source__id": "other"}
    headers = {"Content-Type": "application/json", "X-Scope-OrgID": "meeting"}
    ask("POST", node.urls[0] + "/ingest", json.dumps([row]).encode(), headers)

    (found,) = json.loads(read(node, "/query", "meeting")[1])["rows"]

    assert (found["unnamed"], found["source_unnamed"]) == ("own", "empty")
    assert (found["source__id"], found["source_source__id"]) == ("other", "mine")

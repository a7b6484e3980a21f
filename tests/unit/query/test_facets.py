"""GET /query/facets."""

import pytest

from query.facets import FacetsApi
from tests.support.fake_store import FakeCluster, make_entry
from tests.unit.query.helpers import NOW, row
from tests.unit.query.serving import serving


def filled() -> FakeCluster:
    """Two entries: 3 rows of pay, 2 of them errors; 2 of shop; `user` only in some."""
    cluster = FakeCluster()
    for number, service in enumerate(["pay", "pay", "pay", "shop", "shop"]):
        more = {"user": f"u{number}"} if number else {}
        level = "error" if number < 2 else "info"
        rows = [row(number, "card", service=service, level=level, **more)]
        home = cluster.view.shards_holding("default", service)[0]
        cluster.write(make_entry(number, home, rows, received_at=NOW))
    return cluster


async def test_several_fields_at_once() -> None:
    """Most frequent first; how many values there are, whether cut, and how many rows lack the field."""
    async with serving(filled(), lambda reader, _: FacetsApi(reader).routes()) as client:
        answer = await client.get("/query/facets?fields=service,user&limit=2&search=card")
        body = await answer.json()

    assert answer.headers["X-Quorumlog-Complete"] == "true"
    service, user = body["facets"]
    assert service == {
        "field": "service", "distinct": 2, "cut": False, "without": 0,
        "values": [{"value": "pay", "count": 3}, {"value": "shop", "count": 2}],
    }  # fmt: skip
    assert (user["distinct"], user["cut"], user["without"]) == (4, True, 1)
    assert len(user["values"]) == 2


async def test_the_usual_fields_and_filters() -> None:
    """Without `fields`: service, level, host; nobody has a host."""
    async with serving(filled(), lambda reader, _: FacetsApi(reader).routes()) as client:
        body = await (await client.get("/query/facets?level=error")).json()

    assert [one["field"] for one in body["facets"]] == ["service", "level", "host"]
    assert body["facets"][0]["values"] == [{"value": "pay", "count": 2}]
    assert body["facets"][2]["values"] == []
    assert body["facets"][2]["without"] == 2


async def test_partial_answers_say_so() -> None:
    """Two of three owners dead."""
    cluster = filled()
    cluster.stores["n1"].dead = cluster.stores["n2"].dead = True
    async with serving(cluster, lambda reader, _: FacetsApi(reader).routes()) as client:
        body = await (await client.get("/query/facets")).json()

    assert body["complete"] is False
    assert {one["shard"] for one in body["missing"]} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "query",
    [
        "fields=timestamp",
        "fields=_id",
        "limit=0",
        "limit=1001",
        "q=(",
        "fields=a,b,c,d,e,f,g,h,i,j,k",
    ],
)
async def test_bad_parameters_are_named(query: str) -> None:
    """400 before any replica is asked."""
    cluster = filled()
    async with serving(cluster, lambda reader, _: FacetsApi(reader).routes()) as client:
        answer = await client.get(f"/query/facets?{query}")

        assert answer.status == 400
        assert (await answer.json())["error"]["parameter"] == query.split("=")[0]
    assert cluster.calls("scan") == 0

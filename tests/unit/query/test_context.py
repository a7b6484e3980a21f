"""GET /query/context: the rows around a row, whichever node knows it."""

from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from query.context import ContextApi
from records.ids import producer_run
from tests.support.fake_store import FakeCluster, FakeEntry, make_entry
from tests.unit.query.helpers import NOW, row
from tests.unit.query.serving import serving


def filled() -> tuple[FakeCluster, list[FakeEntry]]:
    """Ten entries of two rows, services in turn; each second row at the moment of the next entry's first."""
    cluster = FakeCluster()
    for number in range(10):
        service = "pay" if number % 2 == 0 else "shop"
        rows = [row((number + i) * 10, f"m {number}.{i}", service=service) for i in range(2)]
        home = cluster.view.shards_holding("default", service)[0]
        cluster.write(make_entry(number, home, rows, received_at=NOW + number))
    return cluster, cluster.written


def in_order(entries: list[FakeEntry], service: str | None = None) -> list[str]:
    """The messages of all rows, by time, entry and row."""
    keyed = [
        (one["timestamp"], entry.id, index, one["message"])
        for entry in entries
        for index, one in enumerate(entry.rows)
        if service in (None, one["service"])
    ]
    return [message for *_, message in sorted(keyed)]


async def ask(client: TestClient, id_: str, **params: Any) -> dict[str, Any]:
    """The body of an answer."""
    answer = await client.get("/query/context", params={"id": id_, **params})
    assert answer.status == 200, await answer.text()
    return await answer.json()


@pytest.mark.parametrize("number", [0, 4, 9])
@pytest.mark.parametrize("everywhere", [False, True])
async def test_rows_before_and_after(number: int, everywhere: bool) -> None:
    """In the order of time, ties by entry; of its own service unless all are asked for."""
    cluster, entries = filled()
    entry = entries[number]
    async with serving(cluster, lambda reader, _: ContextApi(reader).routes()) as client:
        more = {"service": "*"} if everywhere else {}
        body = await ask(client, f"{entry.id.hex()}-1", before="3", after="2", **more)

    order = in_order(entries, None if everywhere else entry.rows[0]["service"])
    at = order.index(f"m {number}.1")
    assert body["row"]["message"] == f"m {number}.1"
    assert body["row"]["_id"] == f"{entry.id.hex()}-1"
    assert [one["message"] for one in body["before"]] == order[max(0, at - 3) : at]
    assert [one["message"] for one in body["after"]] == order[at + 1 : at + 3]
    assert body["complete"] is True


async def test_rows_of_a_producer_come_by_sequence() -> None:
    """All of one moment: the row is found by its sequence, in whichever batch it lies."""
    cluster = FakeCluster()
    home = cluster.view.shards_holding("default", "pay")[0]
    for number, (first, last) in enumerate([(1, 4), (3, 9)]):
        rows = [row(7, f"m {seq}", service="pay") for seq in range(first, last + 1)]
        cluster.write(make_entry(number, home, rows, seqs=((first, last),), producer="a"))
    run = producer_run("default", "pay", "a", 1).hex()
    async with serving(cluster, lambda reader, _: ContextApi(reader).routes()) as client:
        body = await ask(client, f"{run}-5", before="2", after="3")

    assert body["row"]["message"] == "m 5"
    assert [one["message"] for one in body["before"]] == ["m 3", "m 4"]
    assert [one["message"] for one in body["after"]] == ["m 6", "m 7", "m 8"]


async def test_filters_are_for_the_rows_around() -> None:
    """The row itself comes only if it matches; the rows around are counted without it."""
    cluster, entries = filled()
    async with serving(cluster, lambda reader, _: ContextApi(reader).routes()) as client:
        body = await ask(
            client,
            f"{entries[4].id.hex()}-0",
            service="shop",
            before="1",
            after="1",
            fields="message",
        )

    assert body["row"] is None
    assert [one["message"] for one in body["before"]] == ["m 3.0"]
    assert len(body["after"]) == 1
    assert set(body["after"][0]) == {"_id", "message"}


async def test_none_before() -> None:
    """`before=0` gives none."""
    cluster, entries = filled()
    async with serving(cluster, lambda reader, _: ContextApi(reader).routes()) as client:
        body = await ask(client, f"{entries[4].id.hex()}-0", before="0", after="0")

    assert (body["before"], body["after"]) == ([], [])
    assert body["row"]["message"] == "m 4.0"


async def test_rows_that_nobody_has() -> None:
    """404 when all answered; 503 when somebody who may have it did not; another tenant's is not told."""
    cluster, entries = filled()
    async with serving(cluster, lambda reader, _: ContextApi(reader).routes()) as client:
        for id_ in ("00" * 16 + "-0", f"{entries[0].id.hex()}-2"):
            assert (await client.get("/query/context", params={"id": id_})).status == 404
        params = {"id": f"{entries[0].id.hex()}-0"}
        other = await client.get("/query/context", params=params, headers={"X-Scope-OrgID": "acme"})
        assert other.status == 404
        cluster.stores["n1"].dead = True
        assert (await client.get("/query/context", params={"id": "00" * 16 + "-0"})).status == 503
        assert (await client.get("/query/context", params=params)).status == 200


NOBODY = "00" * 16


@pytest.mark.parametrize(
    "query",
    [
        "id=",
        "id=x",
        "id=00-1",
        f"id={NOBODY}",
        f"id={NOBODY}--1",
        f"id={'0g' * 16}-1",
        f"id={NOBODY}-1&before=1001",
        f"id={NOBODY}-1&after=x",
    ],
)
async def test_bad_parameters_are_named(query: str) -> None:
    """400."""
    async with serving(filled()[0], lambda reader, _: ContextApi(reader).routes()) as client:
        answer = await client.get(f"/query/context?{query}")

        assert answer.status == 400
        assert (await answer.json())["error"]["parameter"] == query.split("&")[-1].split("=")[0]

"""`quorumlog files`: few nodes, each shard once; a node lacks nothing that R owners have."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.replica_client import LocalReplica
from node.commands.files import cover, table_function
from node.files_http import FilesApi
from records.consistency import QuorumPolicy
from records.errors import ConnectionLost, InvalidRequest
from runtime.clock import SystemClock
from storage.service import StorageService
from tests.unit.storage.samples import OPTIONS, block_of, plain, service_on
from tests.unit.storage.test_service import flip_body


def test_one_node_is_enough_where_it_owns_everything() -> None:
    """Three of three replicas: one is asked."""
    owners = {shard: ["n1", "n2", "n3"] for shard in range(4)}

    assert cover(owners, ["n1", "n2", "n3"]) == {"n1": [0, 1, 2, 3]}
    assert cover(owners, ["n3"]) == {"n3": [0, 1, 2, 3]}
    assert cover(owners, []) == {}


def test_each_shard_is_taken_once() -> None:
    """Five nodes, three owners a shard: the largest first; a shard without a usable owner is left over."""
    owners = {0: ["a", "b", "c"], 1: ["b", "c", "d"], 2: ["d", "e", "a"], 3: ["e"]}

    chosen = cover(owners, ["a", "b", "c", "d"])

    assert sorted(shard for shards in chosen.values() for shard in shards) == [0, 1, 2]
    assert len(chosen) == 2


def test_paths_are_quoted_for_duckdb() -> None:
    """A quote in a path ends no string; no file at all is an empty table."""
    assert table_function([{"path": "/it's"}, {"path": "/b"}]).startswith(
        "read_parquet(['/it''s', '/b'], union_by_name=true"
    )
    assert "where false" in table_function([])


class View:
    """Two shards on three owners."""

    ready, shard_count, ring_epoch = True, 2, 1
    quorum = QuorumPolicy(3, 2, 2)

    def owners(self, shard: int) -> tuple[str, ...]:
        return ("n1", "n2", "n3")

    def is_alive(self, node: str) -> bool:
        return True


class Gone:
    """A replica that does not answer."""

    async def scan(self, *_: Any) -> Any:
        raise ConnectionLost("gone")


async def stores(directory: Path) -> dict[str, StorageService]:
    found = {}
    for name in ("n1", "n2", "n3"):
        found[name] = service_on(directory / name, node=name)
        await found[name].start()
    return found


async def asked(
    services: dict[str, StorageService], replicas: dict[str, Any], shards: str = ""
) -> dict[str, Any]:
    """The answer of n1."""
    api = FilesApi(
        "n1",
        services["n1"],
        SimpleNamespace(current=View),  # type: ignore[arg-type]
        SimpleNamespace(get=lambda node: replicas[node]),  # type: ignore[arg-type]
        SystemClock(),
    )
    request: Any = SimpleNamespace(query={"shards": shards} if shards else {}, headers={})
    response = await api.files(request)
    assert isinstance(response.body, bytes)
    return json.loads(response.body)


async def test_the_node_fetches_what_it_lacks_first(tmp_path: Path) -> None:
    """A row acknowledged by the two others is in the files; with one of them away it still is."""
    services = await stores(tmp_path)
    replicas: dict[str, Any] = {name: LocalReplica(one) for name, one in services.items()}
    for name in ("n2", "n3"):
        await services[name].put(block_of(1, plain(1, 3), plain(9, 2, shard=1)), OPTIONS)
    await services["n1"].put(block_of(2, plain(20)), OPTIONS)

    answer = await asked(services, {**replicas, "n2": Gone()})

    assert answer["complete"]
    assert answer["shards"] == [0, 1]
    assert answer["rows"] == 6 == sum(file["rows"] for file in answer["files"])
    assert services["n1"].digest(1) == services["n2"].digest(1)
    assert (await asked(services, replicas, "1"))["rows"] == 2
    with pytest.raises(InvalidRequest, match="shards"):
        await asked(services, replicas, "1,7")
    with pytest.raises(InvalidRequest, match="shards"):
        await asked(services, replicas, "x")
    for one in services.values():
        await one.stop()


async def test_without_a_quorum_it_says_so(tmp_path: Path) -> None:
    """R = 2 and nobody else answers: the files are made, `complete` is false, the shards are named."""
    services = await stores(tmp_path)
    await services["n1"].put(block_of(1, plain(1, 3)), OPTIONS)

    answer = await asked(services, {"n2": Gone(), "n3": Gone()})

    assert answer["complete"] is False
    assert answer["incomplete_shards"] == [0, 1]
    assert answer["rows"] == 3
    for one in services.values():
        await one.stop()


async def test_what_one_owner_lists_and_cannot_give_comes_from_the_next(tmp_path: Path) -> None:
    """The block is damaged on n2; n3 has it as well."""
    services = await stores(tmp_path)
    block = block_of(1, plain(1, 3))
    for name in ("n2", "n3"):
        await services[name].put(block, OPTIONS)
    replicas: dict[str, Any] = {name: LocalReplica(one) for name, one in services.items()}
    flip_body(tmp_path / "n2", block)

    answer = await asked(services, replicas)

    assert services["n2"].blocks_set_aside == 1
    assert answer["rows"] == 3
    assert answer["complete"]
    for one in services.values():
        await one.stop()


@pytest.mark.parametrize("who", ["n1", "n2"])
async def test_owners_by_a_ring_that_is_over_are_not_called_complete(
    tmp_path: Path, who: str
) -> None:
    """Where its store, or all others that answer, know a newer ring, rows may be elsewhere."""
    services = await stores(tmp_path)
    replicas: dict[str, Any] = {"n2": LocalReplica(services["n2"]), "n3": Gone()}
    if who == "n1":
        replicas["n3"] = LocalReplica(services["n3"])
    await services[who].moves.raise_ring(2)

    answer = await asked(services, replicas)

    assert answer["incomplete_shards"] == [0, 1]
    for one in services.values():
        await one.stop()


@pytest.mark.parametrize("damaged", ["n1", "n2"])
async def test_an_owner_that_lost_entries_to_damage_does_not_count(
    tmp_path: Path, damaged: str
) -> None:
    """Of the two owners of a row one has set its block aside, and the other does not answer."""
    services = await stores(tmp_path)
    replicas: dict[str, Any] = {name: LocalReplica(one) for name, one in services.items()}
    block = block_of(1, plain(1, 3))
    for name in (damaged, "n3"):
        await services[name].put(block, OPTIONS)
    flip_body(tmp_path / damaged, block)
    assert await services[damaged].fetch((block.header.entries[0].entry_id,)) == []

    answer = await asked(services, {**replicas, "n3": Gone()})
    assert (answer["complete"], answer["incomplete_shards"]) == (False, [0])
    answer = await asked(services, replicas)
    assert (answer["complete"], answer["rows"]) == (True, 3)
    for one in services.values():
        await one.stop()


async def test_damage_that_the_export_itself_finds_is_named(tmp_path: Path) -> None:
    """The node and another have the row, so nothing lacks at first; then its own block cannot be read."""
    services = await stores(tmp_path)
    replicas: dict[str, Any] = {name: LocalReplica(one) for name, one in services.items()}
    block = block_of(1, plain(1, 3))
    for name in ("n1", "n2"):
        await services[name].put(block, OPTIONS)
    flip_body(tmp_path / "n1", block)

    answer = await asked(services, replicas)
    assert (answer["complete"], answer["incomplete_shards"]) == (False, [0])
    answer = await asked(services, replicas)
    assert (answer["complete"], answer["rows"]) == (True, 3)
    for one in services.values():
        await one.stop()

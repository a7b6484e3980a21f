"""Dumps of real stores: what their files hold, by the judge's own sums, and nothing of it changed."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from chaos.dumps import dump_store, leaf, spans_of
from chaos.evidence import COLD, Dump, Evidence, evidence_of
from records.block_codec import parse_prefix
from records.timestamps import MAX_MICROS, MIN_MICROS
from tests.unit.storage.samples import OPTIONS, Entry, block_of, row, service_on


def named(first: int, last: int, client: str = "agent1", **more: object) -> Entry:
    """Rows that name themselves as the clients' rows do."""
    rows = [
        row(k, f"{client} {k}", chaos_client=client, chaos_number=k) for k in range(first, last + 1)
    ]
    return Entry(rows, **more)  # pyright: ignore[reportArgumentType]


def files(folder: Path) -> dict[str, str]:
    """The hash of every file, by name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*")) if path.is_file()
    }  # fmt: skip


async def store(
    folder: Path, *entries: Entry, node: str = "n1", stop: bool = True
) -> dict[int, str]:
    """A store with these entries, one block each; the digests that it tells of its shards."""
    service = service_on(folder, node=node)
    await service.start()
    for number, entry in enumerate(entries):
        await service.put(block_of(number, entry), OPTIONS)
    told = {
        shard: service._engine.holdings.digest(shard, MIN_MICROS, MAX_MICROS)[1].hex()
        for shard in (0, 1, 2)
    }
    await service.stop()
    return told


async def test_a_dump_says_what_the_store_said(tmp_path: Path) -> None:
    """Entries, digests worked out anew and rows by client; one entry lies in two hours."""
    far = [row(k * 4000, "x", chaos_client="agent2", chaos_number=k + 1) for k in range(2)]
    told = await store(tmp_path / "s", named(1, 9), named(12, 15, shard=1), Entry(far, shard=1))
    before = files(tmp_path / "s")

    found = dump_store("n1", tmp_path / "s", tmp_path, 7, COLD, 2)

    assert {shard: one[:2] for shard, one in found.shards.items()} == {
        "0": (1, told[0]), "1": (2, told[1]),
    }  # fmt: skip
    assert found.rows == {
        "0": {"agent1": ((1, 9),)}, "1": {"agent1": ((12, 15),), "agent2": ((1, 2),)},
    }  # fmt: skip
    assert (found.node, found.t, found.moment, found.event) == ("n1", 7, COLD, 2)
    assert files(tmp_path / "s") == before
    assert not (tmp_path / "store-n1").exists()


async def test_stores_with_the_same_entries_in_other_blocks_are_equal(tmp_path: Path) -> None:
    """Order and layout do not count; one row more, or other bytes under the same name, do."""
    await store(tmp_path / "a", named(1, 9), named(10, 20), node="a")
    await store(tmp_path / "b", named(10, 20), named(1, 9), node="b")
    other = Entry([{**one, "message": "!"} for one in named(10, 20).rows], name=b"same")
    same = Entry(named(10, 20).rows, name=b"same")
    kept = {"content_hash": bytes(16)}
    await store(tmp_path / "c", Entry(same.rows, name=b"same", header=kept), node="c")
    await store(tmp_path / "d", Entry(other.rows, name=b"same", header=kept), node="d")

    a, b, c, d = (dump_store(one, tmp_path / one, tmp_path, 0, COLD) for one in "abcd")

    assert (a.shards, a.rows) == (b.shards, b.rows)
    assert c.shards["0"][:2] == d.shards["0"][:2], "the same names and hashes"
    assert c.shards["0"][2] != d.shards["0"][2], "and yet other bytes"


async def test_a_flipped_bit_is_found_by_the_dump(tmp_path: Path) -> None:
    """Its block is named as broken, and its entries are not counted."""
    await store(tmp_path / "s", named(1, 9), named(10, 20))
    (path,) = sorted((tmp_path / "s" / "log").glob("*.qlog"))[:1]
    data = bytearray(path.read_bytes())
    start = data.index(b"QLB1")
    data[start + parse_prefix(data[start:]).body[0] + 10] ^= 4
    path.write_bytes(data)

    found = dump_store("n1", tmp_path / "s", tmp_path, 0, COLD)

    assert len(found.broken) == 1
    assert found.rows == {"0": {"agent1": ((10, 20),)}}


async def test_a_store_that_cannot_be_opened_is_no_empty_one(tmp_path: Path) -> None:
    await store(tmp_path / "s", named(1, 2))

    with pytest.raises(Exception, match="belongs to node n1"):
        dump_store("n2", tmp_path / "s", tmp_path, 0, COLD)


def test_the_sum_is_the_one_of_the_specification() -> None:
    """H(entry id || content hash) mod 2^128, the first 16 bytes of SHA-256, as reliability defines it."""
    wanted = hashlib.sha256(b"i" * 16 + b"c" * 16).hexdigest()[:32]

    assert f"{leaf(b'i' * 16, b'c' * 16):032x}" == wanted


def test_spans_are_those_of_the_numbers() -> None:
    assert spans_of(np.array([5, 1, 2, 2, 9, 3, 8])) == ((1, 3), (5, 5), (8, 9))
    assert spans_of(np.array([], np.int64)) == ()


def test_evidence_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Half a line, as a run that was killed leaves it, is nothing."""
    assert evidence_of(tmp_path) == []
    one = Dump("n1", 5, COLD, {"3": (1, "a", "b")}, {"3": {"c": ((1, 2), (4, 4))}}, ("x",), 1)
    evidence = Evidence(tmp_path)
    evidence.note(one)
    evidence.close()
    evidence.note(one)
    with (tmp_path / "evidence.jsonl").open("a") as file:
        file.write('{"type": "Du')

    assert evidence_of(tmp_path) == [one]

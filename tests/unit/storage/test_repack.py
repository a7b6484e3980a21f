"""Packing the entry table changes numbers and nothing else, whatever happens while it is copied."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from records.messages import EntryStatus
from records.predicates import Aggregate, Fold, ScanPlan
from records.timestamps import MAX_MICROS, MIN_MICROS
from records.visibility import REPEAT_MICROS
from storage import compaction, repack
from storage.blocks import BlockPlace
from storage.entry_table import ENTRY_TYPE, GONE, NO_ID
from storage.holdings import Holdings
from storage.repack import GONE_MIN, is_due, pack
from storage.service import StorageService, StorageSettings
from tests.unit.storage.samples import (
    OPTIONS,
    Entry,
    block_of,
    entry_id,
    plain,
    row,
    scan_of,
    sequenced,
    service_on,
)
from tests.unit.storage.test_compaction import QUIET, answers, live, merge
from tests.unit.storage.test_holdings import STEP, filed, kept_hidden, present

COUNT = ScanPlan(fold=Fold(("service",), (Aggregate("n", "count"),)))


def merged(holdings: Holdings, *ordinals: int) -> None:
    """Files the entries of some blocks anew, as if a segment had them."""
    alive = [n for n in ordinals if holdings.blocks[n] is not None]
    numbers = np.concatenate([np.zeros(0, np.int64), *(holdings.present(n) for n in alive)])
    if not len(numbers):
        return
    place = BlockPlace(
        holdings.blocks.end, block_of(900, plain(0)).header.block_id, -1, 0, 1, 1, 0, 0
    )
    holdings.refile(place, numbers, np.zeros(len(numbers), np.int64))
    for ordinal in alive:
        holdings.drop_merged(ordinal)


def everything(holdings: Holdings) -> list:
    """All that follows from the entries, by id."""
    refs = sorted((holdings.ref(n) for n in present(holdings)), key=lambda ref: ref.entry_id)
    places = {ref.entry_id: holdings.table.find(ref.entry_id) for ref in refs}
    rows = {name: holdings.table.rows[number].tobytes() for name, number in places.items()}
    found = [refs, rows, kept_hidden(holdings), holdings.digest(0, MIN_MICROS, MAX_MICROS)]
    found += [sorted(b for b in holdings.blocks.mask().nonzero()[0]), holdings.rows]
    for ref in refs:
        found.append(
            sorted(
                rows[holdings.ref(n).entry_id] for n in holdings.table.find_successors(ref.entry_id)
            )
        )
    hidden = {holdings.ref(n).entry_id for n in holdings.dirty_hidden if n in present(holdings)}
    return [
        *found,
        hidden,
        [
            holdings.table.block_range(place.ordinal)[1]
            - holdings.table.block_range(place.ordinal)[0]
            for place in holdings.blocks
        ],
    ]


def play(holdings: Holdings, steps: list) -> None:
    for kind, number, entries in steps:
        if kind == "put":
            distinct = {entry_id(one): one for one in entries}
            filed(holdings, number, *distinct.values())
        elif number < holdings.blocks.end:
            if kind == "remove":
                holdings.remove_block(number)
            else:
                merged(holdings, number, max(0, number - 1))


STEPS = st.lists(
    st.one_of(STEP, st.tuples(st.just("merge"), st.integers(0, 9), st.just([]))), max_size=10
)


@settings(max_examples=100, deadline=None)
@given(STEPS, STEPS.filter(lambda steps: all(kind != "merge" for kind, _, _ in steps)), STEPS)
def test_packing_is_invisible_also_to_what_comes_while_rows_are_copied(
    before: list, during: list, after: list
) -> None:
    """Puts and damage while the worker copies; all kinds of steps afterwards; like a table never packed."""
    packed, other = Holdings(), Holdings()
    for one in (packed, other):
        play(one, before)
    copy = pack(packed.table.rows[: packed.table.count], packed.blocks.mask())
    for one in (packed, other):
        play(one, during)

    moved = packed.adopt(copy)

    assert everything(packed) == everything(other)
    assert len(moved) == other.table.count
    for old in present(other):
        assert packed.ref(int(moved[old])) == other.ref(old)
    gone = packed.table.rows["flags"][: packed.table.count] & GONE
    assert packed.table.gone == np.count_nonzero(gone)
    for one in (packed, other):
        play(one, after)
    assert everything(packed) == everything(other)


def test_rows_of_merged_blocks_are_given_up_and_others_are_not() -> None:
    """Of 40 entries merged three times 160 rows are left; 40 are needed."""
    holdings = Holdings()
    for number in range(40):
        filed(holdings, number, plain(number))
    for _ in range(3):
        merged(holdings, *[place.ordinal for place in holdings.blocks])
    assert (holdings.table.count, holdings.table.gone) == (160, 120)

    holdings.adopt(pack(holdings.table.rows[:160], holdings.blocks.mask()))

    assert (holdings.table.count, holdings.table.gone) == (40, 0)
    assert holdings.generation == 1


@pytest.mark.parametrize(
    ("count", "gone", "due"),
    [(3 * GONE_MIN, GONE_MIN, True), (3 * GONE_MIN + 1, GONE_MIN, False), (10, 10, False)],
)
def test_packing_is_due_at_a_third_of_many(count: int, gone: int, due: bool) -> None:
    """A small table is left alone, and a large one with little to gain."""
    assert is_due(count, gone) is due


def test_a_table_without_rows_is_packed_to_one() -> None:
    """Nothing stored, nothing lost."""
    packed = pack(np.zeros(0, ENTRY_TYPE), np.zeros(0, bool))

    assert (len(packed.kept), packed.seen) == (0, 0)
    assert packed.rows["previous"][0] == np.void(NO_ID)


async def tiny(directory: Path, how: StorageSettings = QUIET) -> tuple[StorageService, list[Entry]]:
    """A store of thirty tiny blocks, merged; the entries in the order of their arrival."""
    service = service_on(directory, how)
    await service.start()
    sent = [plain(k, 1, received_at=k) for k in range(30)]
    for number, entry in enumerate(sent):
        await service.put(
            block_of(100 + number, entry, sequenced(2 * number + 1, 2 * number + 2)), OPTIONS
        )
    await merge(service)
    return service, sent


async def test_an_old_tiny_body_is_still_a_duplicate_after_packing(tmp_path: Path) -> None:
    """Its row moved twice. By id at any age; by `previous` within the window; after a restart as well."""
    service, sent = await tiny(tmp_path)
    before = await answers(service)

    await service._compactor.repack()

    for _ in range(2):
        assert service.status()["entries"] == 60
        assert await answers(service) == before
        again = await service.put(block_of(500, sent[3], sequenced(7, 8)), OPTIONS)
        assert [EntryStatus(one) for one in again.statuses] == [EntryStatus.DUPLICATE] * 2
        await service.stop()
        service = service_on(tmp_path, QUIET)
        await service.start()
    window = plain(3, 1, name=b"next", previous=entry_id(sent[3]), received_at=3 + REPEAT_MICROS)
    await service.put(block_of(501, window), OPTIONS)
    assert await answers(service) != before
    assert sum(row["n"] for row in (await service.scan(scan_of(COUNT)))[1].to_pylist()) == 90
    await service.stop()


async def test_counts_of_a_scan_that_began_before_packing_are_the_same(tmp_path: Path) -> None:
    """It has the old numbers, for which the rollups have no cells any more: it reads the blocks instead."""
    service, _ = await tiny(tmp_path)
    wanted = (await service.scan(scan_of(COUNT)))[1].to_pylist()
    run = service._workers.run

    async def late(work, *args):  # type: ignore[no-untyped-def]
        await service._compactor.repack()
        return await run(work, *args)

    service._workers.run = late  # type: ignore[method-assign]
    found = (await service.scan(scan_of(COUNT)))[1].to_pylist()

    assert found == wanted
    assert service._engine.holdings.generation == 1
    await service.stop()


async def test_proofs_of_entries_that_were_renumbered_are_not_believed(tmp_path: Path) -> None:
    """Rows 59..60 equal what is held under number 119, rows 61..62 differ from what is held under 179.

    While they are compared the table is packed, and the second one becomes number 119.
    """
    service, _ = await tiny(tmp_path)
    for number in range(30):
        first = 61 + 2 * (29 - number)
        later = plain(number, 1, name=b"later%d" % number), sequenced(first, first + 1)
        await service.put(block_of(200 + number, *later), OPTIONS)
    table = service._engine.holdings.table
    assert table.rows["first_seq"][[119, 179]].tolist() == [59, 61]
    rows = [row(59, "59"), row(60, "60"), row(61, "another"), row(62, "another")]
    compared, asked = service._puts._compared, []

    async def slow(block, decision):  # type: ignore[no-untyped-def]
        asked.append(sorted(number for (_, number), _ in decision.pairs))
        proofs = await compared(block, decision)
        if len(asked) == 1:
            await service._compactor.repack()
        return proofs

    service._puts._compared = slow  # type: ignore[method-assign]
    both = Entry(rows, producer="p", seqs=((59, 62),))
    reply = await service.put(block_of(600, both), OPTIONS)

    assert asked == [[119, 179], [59, 119]]
    assert reply.statuses == (EntryStatus.CONFLICT,)
    assert reply.conflict_seqs == (((61, 62),),)
    await service.stop()


async def test_the_loop_packs_when_it_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step of the compactor, with a threshold of a few rows; the metric counts what was dropped."""
    monkeypatch.setattr(repack, "GONE_MIN", 4)
    assert compaction.is_due is is_due
    alone = replace(QUIET, compact=True, compact_interval_seconds=3600.0)  # its loop will not step
    service, _ = await tiny(tmp_path, alone)

    await service._compactor.step()

    assert service._engine.holdings.table.gone == 0
    assert service._engine.holdings.table.count == 60
    assert len(live(service)) == 1
    assert "quorumlog_entry_rows_dropped_total 60.0" in service._metrics.exposition().decode()
    await service.stop()


async def test_rows_that_left_blocks_which_stay_are_no_reason_to_pack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packing would not drop them, so it would be due again at each step."""
    monkeypatch.setattr(repack, "GONE_MIN", 4)
    alone = replace(QUIET, compact=True, compact_interval_seconds=3600.0)  # its loop will not step
    service = service_on(tmp_path, alone)
    await service.start()
    left = (plain(10 + n, shard=2) for n in range(6))
    await service.put(block_of(1, plain(1), *left), OPTIONS)
    service.moves.let_go((2,), 1)
    service._compactor._thinned.clear()
    assert is_due(service._engine.holdings.table.count, service._engine.holdings.table.gone)

    await service._compactor.step()

    assert service._engine.holdings.generation == 0
    await service.stop()

"""Lists of entries are made of a copy: they say what each entry says of itself, whoever makes them."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from records.messages import EntriesRequest
from records.timestamps import MAX_MICROS, MIN_MICROS
from storage import listing, service
from storage.holdings import Holdings
from storage.listing import copied, references
from tests.unit.storage.samples import OPTIONS, block_of, plain, sequenced, service_on
from tests.unit.storage.test_holdings import STEP, filed, present

#: Two spans with rows, and one that is skipped: more than the table's columns hold.
SPLIT = replace(sequenced(1, 4), producer="q", seqs=((1, 2), (8, 9)), skips=((5, 6),))
ALL = EntriesRequest(0, MIN_MICROS, MAX_MICROS)


@settings(max_examples=60)
@given(st.lists(STEP, max_size=8))
def test_a_list_of_entries_names_each_as_it_is(steps: list) -> None:
    """Also one of many spans; what changes after the copy is not in it."""
    holdings = Holdings()
    filed(holdings, 50, SPLIT)
    for kind, number, entries in steps:
        if kind == "put" and entries:
            filed(holdings, number, *entries)
    numbers = present(holdings)
    one_by_one = tuple(holdings.ref(number) for number in numbers)

    found = copied(holdings, numbers)
    for ordinal in range(holdings.blocks.end):
        holdings.remove_block(ordinal)

    assert references(found) == one_by_one
    assert references(copied(holdings, [])) == ()


async def test_long_lists_are_made_beside_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is that of a short one."""
    store, threads = service_on(tmp_path), []
    await store.start()
    await store.put(block_of(1, plain(1, 3), SPLIT, sequenced(1, 4)), OPTIONS)
    short = await store.entries(ALL)

    def noted(found: Any) -> Any:
        threads.append(threading.current_thread())
        return listing.references(found)

    monkeypatch.setattr(service, "INLINE_MAX", 2)
    monkeypatch.setattr(service, "references", noted)

    assert await store.entries(ALL) == short
    assert len(short.entries) == 3
    assert threads
    assert threading.main_thread() not in threads
    await store.stop()

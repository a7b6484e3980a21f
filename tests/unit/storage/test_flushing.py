"""Flushes of the catalog: one at a time; whoever needs all of it waits for a batch made after the call."""

import asyncio
import threading
from typing import Any

import pytest

from runtime.tasks import Workers
from storage.flushing import CatalogFlusher


class Ledger:
    """Checkpointer and catalog in one: what changed, what was written, and a gate before each write."""

    def __init__(self) -> None:
        self.pending: list[int] = []
        self.written: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.broken = self.full = False

    @property
    def changed(self) -> bool:
        return bool(self.pending)

    def batch(self) -> list[int]:
        taken, self.pending = self.pending, []
        return taken

    def write(self, batch: list[int]) -> None:
        assert self.gate.wait(5)
        if self.broken:
            raise OSError("full")
        self.written += batch

    def forget(self) -> None:
        self.pending = [-1]

    def holes(self) -> list[int]:
        return []

    def create(self, _: list[int]) -> None:
        if self.full:
            raise OSError("full")
        self.written = []


def flusher(ledger: Any, chores: Workers) -> CatalogFlusher:
    return CatalogFlusher(ledger, ledger, chores, lambda: None)


async def test_a_full_flush_does_not_rest_on_one_that_began_before() -> None:
    """What changed while a write was under way is in the catalog when `flush_all` returns; the loop that
    flushes all the time beside it changes nothing of that."""
    ledger, chores = Ledger(), Workers(1)
    both = flusher(ledger, chores)
    ledger.gate.clear()
    ledger.pending = [1]
    first = asyncio.create_task(both.flush())
    for _ in range(5):
        await asyncio.sleep(0)
    assert ledger.pending == []
    ledger.pending = [2]
    whole = [asyncio.create_task(both.flush_all()) for _ in range(3)]
    others = [asyncio.create_task(both.flush()) for _ in range(3)]
    await asyncio.sleep(0)
    ledger.gate.set()

    for one in whole:
        assert await one
    assert ledger.written == [1, 2]
    await asyncio.gather(first, *others)
    chores.close()


@pytest.mark.parametrize("full", [False, True])
async def test_a_failed_flush_is_told_and_made_anew(full: bool) -> None:
    """The caller learns that it cannot rely on it, also where not even an empty one can be made; the next
    one carries everything."""
    ledger, chores = Ledger(), Workers(1)
    both = flusher(ledger, chores)
    ledger.pending, ledger.broken, ledger.full = [1], True, full

    assert not await both.flush_all()
    ledger.broken = ledger.full = False
    assert await both.flush_all()

    assert ledger.written == [-1]
    chores.close()

"""A far replica: what its answers are made into, and where."""

import threading
from typing import Any

import pytest

from cluster import replica_client
from cluster.replica_client import HttpReplica
from records.ids import EntryId
from records.messages import EntriesReply, EntriesRequest, EpochSealed, ProducerStates
from records.visibility import EntryRef
from runtime.clock import SystemClock
from runtime.deadline import Deadline


class Answering:
    """A transport with one answer."""

    def __init__(self, head: dict[str, Any]) -> None:
        self._head = head

    async def call(self, *_: Any) -> tuple[dict[str, Any], bytes]:
        """The answer."""
        return self._head, b""


@pytest.mark.parametrize(("inline", "here"), [(3, True), (2, False)])
async def test_long_lists_of_entries_are_made_beside_the_event_loop(
    inline: int, here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """31,000 entries of a full shard held up heartbeats for 0.4 s. The values are the same."""
    refs = tuple(EntryRef(EntryId(bytes([n]) * 16), bytes(16), received_at=n) for n in range(3))
    threads: list[int] = []
    real = EntriesReply.from_head

    def from_head(head: dict[str, Any]) -> EntriesReply:
        threads.append(threading.get_ident())
        return real(head)

    monkeypatch.setattr(EntriesReply, "from_head", from_head)
    monkeypatch.setattr(replica_client, "ENTRIES_INLINE", inline)
    far = HttpReplica("n2", Answering(EntriesReply(refs).to_head()))  # type: ignore[arg-type]

    reply = await far.entries(EntriesRequest(0, 0, 1), Deadline.after(SystemClock(), 5))

    assert reply.entries == refs
    assert (threads == [threading.get_ident()]) is here


async def test_what_is_absent_and_a_raised_ring_travel_as_plain_values() -> None:
    """Ids are bytes of one length, however the frame brings them."""
    names = [EntryId(bytes([n]) * 16) for n in range(3)]
    asked: list[tuple[Any, ...]] = []

    class Recording(Answering):
        async def call(self, *args: Any) -> tuple[dict[str, Any], bytes]:
            asked.append(args[:3])
            return await super().call(*args)

    far = HttpReplica("n2", Recording({"entry_ids": [bytearray(names[1])]}))  # type: ignore[arg-type]
    deadline = Deadline.after(SystemClock(), 5)

    assert await far.absent(3, names, deadline) == [names[1]]
    await far.raise_ring(7, deadline)
    assert asked == [
        ("n2", "absent", {"shard": 3, "entry_ids": names}),
        ("n2", "raise_ring", {"ring_epoch": 7}),
    ]


async def test_older_nodes_raise_no_epoch_and_have_no_holes() -> None:
    """Their answers say nothing of either: no epoch is given on their word."""
    far = HttpReplica("n2", Answering({"epoch": 7, "states": []}))  # type: ignore[arg-type]
    limit = Deadline.after(SystemClock(), 5)
    producer = ("default", "shop", "p")

    assert await far.seal_producer_epoch(0, producer, 7, 1, limit) == EpochSealed(7, raised=False)
    assert await far.producer_states(0, producer, limit) == ProducerStates((), hole=False)
    for told in (EpochSealed(7, raised=True), EpochSealed(8, raised=False)):
        assert EpochSealed.from_head(told.to_head()) == told

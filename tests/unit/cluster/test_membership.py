"""Registration: tried until it is committed, whatever fails; a refusal is told and is no busy loop."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from cluster.membership import Membership
from cluster.state_types import Member
from records.errors import Forbidden, Overloaded, QuorumlogError
from ring.builder import build_ring
from ring.ring import RingMember
from ring.serde import to_dict
from runtime.metrics import Metrics
from tests.unit.cluster.test_lease_keeper import Committing, HandClock

ME = Member("d", ("storage",), 0, "http://d:1", "d:2", store="new")


def membership(consensus: Committing) -> Membership:
    clock, nothing = HandClock(), None
    around: Any = (consensus, nothing, ("a",), clock, Metrics(), lambda *_: None)
    return Membership(ME, *around)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("error", [Forbidden("wrong token"), Overloaded("full")])
async def test_a_registration_that_fails_in_any_way_is_tried_again(error: QuorumlogError) -> None:
    """A manager whose secret is being changed refuses for a while."""
    consensus = Committing()
    consensus.fail = error
    joining = asyncio.create_task(membership(consensus).register())
    await turns(20)
    assert len(consensus.proposals) > 1
    consensus.fail = None

    member = await asyncio.wait_for(joining, 5)

    assert member.incarnation == 1
    assert consensus.state.members["d"].store == "new"


async def test_an_owner_with_another_disk_is_not_admitted_until_it_owns_nothing() -> None:
    """The store is shut at the first refusal; each try is a command in Raft's log, so one a second."""
    consensus = Committing()
    ring = to_dict(build_ring([RingMember(name, "", 1.0) for name in "bcd"], shard_count=8))
    known = replace(ME, incarnation=4, store="old")
    consensus.state = replace(consensus.state, members={"d": known}, ring=ring, ring_epoch=1)
    here, shut = membership(consensus), []
    clock: Any = here._clock
    begun = clock.now

    joining = asyncio.create_task(here.register(lambda: shut.append(len(consensus.proposals))))
    await turns(60)

    assert shut[0] == 1
    assert "not the one it had" in here.refused
    assert len(consensus.proposals) <= clock.now - begun + 1
    consensus.state = replace(consensus.state, ring=None)
    member = await asyncio.wait_for(joining, 5)
    assert (member.incarnation, member.store, here.refused) == (5, "new", "")


async def test_a_state_that_comes_late_is_waited_for_not_registered_anew() -> None:
    """A node that is no manager hears of the commit some moments later; others would see it restart."""
    consensus = Committing()
    late, current = consensus.state, consensus.snapshot
    here = membership(consensus)
    looks = 0

    def snapshot() -> Any:
        nonlocal looks
        looks += 1
        return late if looks < 10 else current()

    consensus.snapshot = snapshot  # type: ignore[method-assign]

    member = await asyncio.wait_for(here.register(), 5)

    assert (member.incarnation, consensus.proposals) == (1, ["RegisterNode"])


async def test_the_mark_of_the_store_is_told_under_the_same_registration() -> None:
    """No restart is seen; an older copy of the store is refused from then on, and says why."""
    consensus = Committing()
    ring = to_dict(build_ring([RingMember(name, "", 1.0) for name in "bcd"], shard_count=8))
    here = membership(consensus)
    here.mark = 3
    member = await asyncio.wait_for(here.register(), 5)
    await here.tell_mark(5)
    assert consensus.state.members["d"] == member
    assert consensus.state.marks == {"d": 5}
    consensus.fail = Overloaded("full")
    await here.tell_mark(6)  # told with the next one, or at the next start
    assert consensus.state.marks == {"d": 5}

    consensus.fail = None
    consensus.state = replace(consensus.state, ring=ring, ring_epoch=1)
    restored = membership(consensus)
    restored.mark = 4
    joining = asyncio.create_task(restored.register())
    await turns(40)
    assert "an older copy" in restored.refused
    joining.cancel()
